// The users: one circle for each cell, its area the requests of the model that is looked at.

import { useShown } from "../context.tsx";
import { band, type Experience, experienceOf, heatValue, serviceMsOf } from "../experience.ts";
import { type CellTotals, cellTotals } from "../flows.ts";
import { milliseconds, rps } from "../format.ts";
import { isSame, type Selection } from "../selection.ts";
import { type Basemap, translate } from "./basemap.ts";
import { cellRadius } from "./marks.ts";
import type { Hint } from "./tooltip.tsx";
import { onScreen, type Viewport } from "./viewport.ts";

const UNSERVED_FROM = 0.01;

interface CellsProps {
  base: Basemap;
  viewport: Viewport;
  scale: number;
  onHint: (hint: Hint | null) => void;
}

export function Cells({ base, viewport, scale, onHint }: CellsProps) {
  const { state, view, store } = useShown();
  const serviceMs = serviceMsOf(view.models);
  const asked = view.cells
    .map((cell) => ({
      cell,
      totals: cellTotals(cell, state.model),
      experience: experienceOf(cell, state.model, serviceMs),
    }))
    .filter(({ totals }) => totals.rps > 0);
  const most = asked.reduce((found, { totals }) => Math.max(found, totals.rps), 0);
  return (
    <g class="cells">
      {asked.map(({ cell, totals, experience }) => {
        const at = base.point(cell.lon, cell.lat);
        const selection: Selection = { kind: "cell", name: cell.name };
        const r = cellRadius(totals.rps, most, scale);
        const value = state.heat ? heatValue(state.heat, experience) : null;
        const heat = state.heat && value !== null ? ` hot heat-${band(state.heat, value)}` : "";
        const selected = isSame(selection, state.selection);
        return (
          <g key={cell.name} transform={translate(at)}>
            <circle
              class={`cell${heat}${isUnserved(totals) ? " unserved" : ""}${selected ? " selected" : ""}`}
              data-cell={cell.name}
              r={r}
              onClick={() => {
                location.hash = store.hashOf(selection);
              }}
              onPointerEnter={() => {
                const [x, y] = onScreen(viewport, at);
                onHint({ x, y: y - r, title: cell.name, lines: hintLines(totals, experience) });
              }}
              onPointerLeave={() => onHint(null)}
            />
          </g>
        );
      })}
    </g>
  );
}

const isUnserved = (totals: CellTotals) => totals.unservedRps > UNSERVED_FROM * totals.rps;

const hintLines = (totals: CellTotals, experience: Experience) => [
  `users, ${rps(totals.rps)} requests/s`,
  ...(experience.rttMs === null ? [] : [`round trip ${milliseconds(experience.rttMs)}, ${experience.basis}`]),
  ...(totals.lateRps > 0 ? [`${rps(totals.lateRps)} later than the objective`] : []),
  ...(isUnserved(totals) ? [`${rps(totals.unservedRps)} unserved`] : []),
];
