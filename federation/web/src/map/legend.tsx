// What the signs mean, with the very shapes that the map draws.

import { useShown } from "../context.tsx";
import type { WorstState } from "../views.ts";
import { GLYPHS, outline } from "./marks.ts";

const STATES: readonly WorstState[] = ["ok", "degraded", "bad", "unknown"];

export function Legend() {
  const { state } = useShown();
  return (
    <ul class="legend" aria-label="Legend">
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
      {state.showArcs && (
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

function ArcSample({ kind }: { kind: string }) {
  return (
    <svg width="28" height="18" viewBox="0 -9 28 18" aria-hidden="true">
      <path class={`arc strong ${kind}`} d="M1 0H27" stroke-width="2.5" />
      {kind === "late" && <path class="late-mark" d="M14-4L18 0L14 4L10 0Z" />}
    </svg>
  );
}
