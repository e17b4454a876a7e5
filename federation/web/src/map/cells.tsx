// The users: one circle for each cell, its area the requests of the model that is looked at.

import { useShown } from "../context.tsx";
import { type CellTotals, cellTotals } from "../flows.ts";
import { rps } from "../format.ts";
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
  const asked = view.cells
    .map((cell) => ({ cell, totals: cellTotals(cell, state.model) }))
    .filter(({ totals }) => totals.rps > 0);
  const most = asked.reduce((found, { totals }) => Math.max(found, totals.rps), 0);
  return (
    <g class="cells">
      {asked.map(({ cell, totals }) => {
        const at = base.point(cell.lon, cell.lat);
        const selection: Selection = { kind: "cell", name: cell.name };
        const r = cellRadius(totals.rps, most, scale);
        const selected = isSame(selection, state.selection);
        return (
          <g key={cell.name} transform={translate(at)}>
            <circle
              class={`cell${isUnserved(totals) ? " unserved" : ""}${selected ? " selected" : ""}`}
              data-cell={cell.name}
              r={r}
              onClick={() => {
                location.hash = store.hashOf(selection);
              }}
              onPointerEnter={() => {
                const [x, y] = onScreen(viewport, at);
                onHint({ x, y: y - r, title: cell.name, lines: hintLines(totals) });
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

const hintLines = (totals: CellTotals) => [
  `users, ${rps(totals.rps)} requests/s`,
  ...(totals.lateRps > 0 ? [`${rps(totals.lateRps)} later than the objective`] : []),
  ...(isUnserved(totals) ? [`${rps(totals.unservedRps)} unserved`] : []),
];
