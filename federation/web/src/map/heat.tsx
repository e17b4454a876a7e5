// What users experience, as a heat over the land around them. How it is known is told by a pattern, never by colour.

import { useMemo } from "preact/hooks";
import { experiences, type HeatOf, SCALES } from "../experience.ts";
import type { OverviewView } from "../views.ts";
import type { Basemap } from "./basemap.ts";
import { areaPath, HEAT_GRID } from "./grid.ts";
import { COVERED_FROM, heatField } from "./heat.ts";

const MOSTLY = 0.5;

export function Heat({ base, view, model, of }: { base: Basemap; view: OverviewView; model: string; of: HeatOf }) {
  return useMemo(() => {
    const field = heatField(HEAT_GRID, of, experiences(view, model));
    const area = (values: ArrayLike<number>, least: number) => areaPath(base, HEAT_GRID, values, least);
    return (
      <g class="heat" clip-path="url(#on-land)" aria-hidden="true">
        <clipPath id="near-users">
          <path d={area(field.nearness, COVERED_FROM)} />
        </clipPath>
        <g clip-path="url(#near-users)">
          {[Number.NEGATIVE_INFINITY, ...SCALES[of].from].map((least, index) => (
            <path
              key={least}
              class={`heat-${index}`}
              d={least === Number.NEGATIVE_INFINITY ? area(field.nearness, COVERED_FROM) : area(field.value, least)}
            />
          ))}
          <path class="basis inferred" d={area(field.inferred, MOSTLY)} />
          <path class="basis prior" d={area(field.prior, MOSTLY)} />
        </g>
        <path class="heat-edge" d={area(field.nearness, COVERED_FROM)} />
      </g>
    );
  }, [base, view, model, of]);
}

/** The patterns that tell how a value is known. They are dark and light, to be seen on every colour, and keep their size
 * when the map is zoomed by `k`. */
export function BasisPatterns({ k }: { k: number }) {
  const size = { width: 8, height: 8, patternUnits: "userSpaceOnUse" } as const;
  return (
    <>
      <pattern id="basis-inferred" {...size} patternTransform={`scale(${1 / k}) rotate(45)`}>
        <line class="basis-dark" x1="1" y1="0" x2="1" y2="8" />
        <line class="basis-light" x1="2.2" y1="0" x2="2.2" y2="8" />
      </pattern>
      <pattern id="basis-prior" {...size} patternTransform={`scale(${1 / k})`}>
        {[2, 6].map((at) => (
          <g key={at}>
            <circle class="basis-light" cx={at + 0.6} cy={at + 0.6} r="0.9" />
            <circle class="basis-dark" cx={at} cy={at} r="0.9" />
          </g>
        ))}
      </pattern>
    </>
  );
}
