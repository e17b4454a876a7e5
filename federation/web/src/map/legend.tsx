// What the signs mean, with the very shapes that the map draws.

import { useShown } from "../context.tsx";
import { type HeatOf, SCALES } from "../experience.ts";
import { milliseconds } from "../format.ts";
import { BASES } from "../known.tsx";
import type { WorstState } from "../views.ts";
import { GLYPHS, outline } from "./marks.ts";

const STATES: readonly WorstState[] = ["ok", "degraded", "bad", "unknown"];

export function Legend() {
  const { state } = useShown();
  return (
    <ul class="legend" aria-label="Legend">
      {state.isochrones && state.model && <IsochroneLegend model={state.model} />}
      {state.heat && <HeatLegend of={state.heat} />}
      {STATES.map((one) => (
        <li key={one}>
          <svg width="18" height="18" viewBox="-9 -9 18 18" aria-hidden="true">
            <g class={`cluster ${one}`}>
              <path class="shape" d={outline(one, 6)} />
              <text class="glyph" y={one === "degraded" ? 0.8 : 0} font-size="8">
                {GLYPHS[one]}
              </text>
            </g>
          </svg>
          {one}
        </li>
      ))}
      <li>
        <svg width="18" height="18" viewBox="-9 -9 18 18" aria-hidden="true">
          <g class="mark">
            <circle r="5.5" />
            <text>↓</text>
          </g>
        </svg>
        draining
      </li>
      <li>
        <svg width="18" height="18" viewBox="-9 -9 18 18" aria-hidden="true">
          <g class="mark">
            <circle r="5.5" />
            <text>‖</text>
          </g>
        </svg>
        cordoned
      </li>
      <li>
        <svg width="18" height="18" viewBox="-9 -9 18 18" aria-hidden="true">
          <circle class="cell" r="4" />
        </svg>
        users
      </li>
      <li>
        <svg width="18" height="18" viewBox="-9 -9 18 18" aria-hidden="true">
          <circle class="cell unserved" r="4" />
        </svg>
        unserved
      </li>
      {state.arcs && (
        <>
          <li>
            <ArcSample kind="within" /> within objective
          </li>
          <li>
            <ArcSample kind="late" /> late
          </li>
          <li>
            <ArcSample kind="within stepping" /> share is moving
          </li>
        </>
      )}
    </ul>
  );
}

function IsochroneLegend({ model }: { model: string }) {
  const { state, view } = useShown();
  const objectiveMs = view.models.find((one) => one.name === model)?.objective_ms;
  return (
    <>
      <li>
        <svg width="22" height="14" viewBox="0 0 22 14" aria-hidden="true">
          <rect class="within-area isoline objective" x="1" y="1" width="20" height="12" />
        </svg>
        within {milliseconds(objectiveMs)} of ready replicas
      </li>
      <li>
        <svg width="22" height="14" viewBox="0 0 22 14" aria-hidden="true">
          <path class="isoline" d="M1 7H21" />
        </svg>
        equal latency
      </li>
      {!state.heat && <BasisLegend ground="within-area" />}
    </>
  );
}

function HeatLegend({ of }: { of: HeatOf }) {
  return (
    <>
      <li class="scale">
        {SCALES[of].title}
        {SCALES[of].names.map((name, index) => (
          <span key={name}>
            <svg width="18" height="12" viewBox="0 0 18 12" aria-hidden="true">
              <rect class={`heat-${index}`} width="18" height="12" />
            </svg>
            {name}
          </span>
        ))}
      </li>
      <BasisLegend ground="heat-1" />
    </>
  );
}

function BasisLegend({ ground }: { ground: string }) {
  return (
    <>
      {BASES.map(({ basis, says }) => (
        <li key={basis} title={says}>
          <svg width="22" height="14" viewBox="0 0 22 14" aria-hidden="true">
            <rect class={ground} width="22" height="14" />
            <rect class={`basis ${basis}`} width="22" height="14" />
          </svg>
          {basis}
        </li>
      ))}
    </>
  );
}

function ArcSample({ kind }: { kind: string }) {
  return (
    <svg width="28" height="18" viewBox="0 -9 28 18" aria-hidden="true">
      <path class={`arc strong ${kind}`} d="M1 0H27" stroke-width="2.5" />
      {kind === "late" && <path class="late-mark" d="M14-4L18 0L14 4L10 0Z" />}
    </svg>
  );
}
