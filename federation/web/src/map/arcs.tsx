// The ways of the requests: great circles from users to clusters.

import { flows } from "../flows.ts";
import { milliseconds, rps } from "../format.ts";
import type { Selection } from "../selection.ts";
import type { OverviewView } from "../views.ts";
import { type Basemap, type Point, translate } from "./basemap.ts";
import { arcWidth } from "./marks.ts";

export function Arcs(props: { base: Basemap; view: OverviewView; model: string; selection: Selection | null }) {
  const { base, view, model, selection } = props;
  const cellAt = new Map(view.cells.map((cell) => [cell.name, [cell.lon, cell.lat] as Point]));
  const clusterAt = new Map(view.clusters.map((cluster) => [cluster.name, [cluster.lon, cluster.lat] as Point]));
  const all = flows(view, model);
  const most = Math.max(0, ...all.map((flow) => flow.rps));
  const focused = selection !== null && selection.kind !== "model";
  const drawn = all.flatMap((flow) => {
    const from = cellAt.get(flow.cell);
    const to = clusterAt.get(flow.cluster);
    return from && to ? [{ flow, from, to }] : [];
  });
  const emphasis = (flow: { cell: string; cluster: string }) =>
    !focused ? "" : flow[selection.kind as "cell" | "cluster"] === selection.name ? " strong" : " faint";
  return (
    <g class="arcs" aria-hidden="true">
      {drawn.map(({ flow, from, to }) => (
        <path
          key={flow.key}
          class={`arc ${flow.within ? "within" : "late"}${flow.stepping ? " stepping" : ""}${emphasis(flow)}`}
          d={base.arc(from, to)}
          stroke-width={arcWidth(flow.rps, most).toFixed(1)}
        >
          <title>
            {`${flow.cell} → ${flow.cluster}: ${rps(flow.rps)} requests/s of ${flow.models.join(", ")}, ` +
              `${milliseconds(flow.latencyMs)}, ${flow.within ? "within" : "later than"} the objective`}
          </title>
        </path>
      ))}
      {drawn
        .filter(({ flow }) => !flow.within)
        .map(({ flow, from, to }) => (
          <g key={`${flow.key}\nmark`} transform={translate(base.middle(from, to))}>
            <path class={`late-mark${emphasis(flow)}`} d="M0-4L4 0L0 4L-4 0Z" />
          </g>
        ))}
    </g>
  );
}
