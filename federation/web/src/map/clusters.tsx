// The clusters: marks kept apart from each other, with what the keyboard and a screen reader need.

import { useMemo } from "preact/hooks";
import { useShown } from "../context.tsx";
import { count } from "../format.ts";
import { type Freshness, shownState } from "../freshness.ts";
import { isSame, type Selection } from "../selection.ts";
import type { ClusterView, OverviewView } from "../views.ts";
import { type Basemap, type Point, translate } from "./basemap.ts";
import { clusterLabel, clusterRadius, GLYPHS, outline } from "./marks.ts";
import { spread } from "./spread.ts";
import type { Hint } from "./tooltip.tsx";
import { onScreen, type Viewport } from "./viewport.ts";

const LABELS_FROM_ZOOM = 3.5;
const LEADER_FROM_PX = 7;

interface ClustersProps {
  base: Basemap;
  viewport: Viewport;
  scale: number;
  onHint: (hint: Hint | null) => void;
  /** The focus came to a mark at this projected point. */
  onFocus: (at: Point) => void;
}

export function Clusters({ base, viewport, scale, onHint, onFocus }: ClustersProps) {
  const { state, view, fresh, store } = useShown();
  const { k } = viewport;
  const placed = useMemo(() => places(view, base, scale), [view, base, scale]);
  const discs = placed.map(({ cluster, at, r }) => ({ name: cluster.name, x: at[0] * k, y: at[1] * k, r: r * 1.12 }));
  const discsKey = discs.map(({ name, x, y, r }) => `${name} ${x.toFixed(1)} ${y.toFixed(1)} ${r.toFixed(1)}`).join();
  const offsets = useMemo(() => spread(discs), [discsKey]);
  return (
    <g class="clusters">
      {placed.map(({ cluster, at, r }) => {
        const { dx, dy } = offsets.get(cluster.name) ?? { dx: 0, dy: 0 };
        const selection: Selection = { kind: "cluster", name: cluster.name };
        const tell = () => {
          const [x, y] = onScreen(viewport, at);
          onHint({ x: x + dx, y: y + dy - r, title: cluster.name, lines: hintLines(cluster, fresh) });
        };
        return (
          <ClusterMark
            key={cluster.name}
            cluster={cluster}
            at={at}
            dx={dx}
            dy={dy}
            r={r}
            unknown={fresh.unknown}
            dim={state.model !== "" && !isHost(cluster, state.model)}
            selected={isSame(selection, state.selection)}
            labelled={k >= LABELS_FROM_ZOOM}
            onSelect={() => {
              location.hash = store.hashOf(selection);
            }}
            onFocus={() => {
              onFocus(at);
              tell();
            }}
            onEnter={tell}
            onLeave={() => onHint(null)}
          />
        );
      })}
    </g>
  );
}

function places(view: OverviewView, base: Basemap, scale: number) {
  const most = Math.max(0, ...view.clusters.map((cluster) => cluster.accelerators ?? 0));
  return view.clusters.map((cluster) => ({
    cluster,
    at: base.point(cluster.lon, cluster.lat),
    r: clusterRadius(cluster.accelerators, most, scale),
  }));
}

const isHost = (cluster: ClusterView, model: string) =>
  cluster.replicas.some((row) => row.model === model && row.desired > 0);

const hintLines = (cluster: ClusterView, fresh: Freshness) => [
  `${cluster.city} ${cluster.country} · ${cluster.provider} · ${shownState(cluster.worst_state, fresh)}`,
  cluster.accelerators === null ? "accelerators unknown" : `${count(cluster.accelerators)} accelerators`,
  fresh.unknown ? "last heard before the live data was lost" : cluster.reason,
];

interface MarkProps {
  cluster: ClusterView;
  at: Point;
  dx: number;
  dy: number;
  r: number;
  unknown: boolean;
  dim: boolean;
  selected: boolean;
  labelled: boolean;
  onSelect: () => void;
  onFocus: () => void;
  onEnter: () => void;
  onLeave: () => void;
}

function ClusterMark({ cluster, at, dx, dy, r, unknown, dim, selected, labelled, ...on }: MarkProps) {
  const state = unknown ? "unknown" : cluster.worst_state;
  const badge = cluster.draining ? "↓" : cluster.cordoned ? "‖" : "";
  return (
    <g transform={translate(at)}>
      <g
        class={`cluster ${state}${selected ? " selected" : ""}${dim ? " dim" : ""}`}
        data-cluster={cluster.name}
        role="button"
        tabIndex={0}
        aria-label={clusterLabel(cluster, state)}
        aria-pressed={selected}
        onClick={on.onSelect}
        onKeyDown={(event) => {
          if (event.key !== "Enter" && event.key !== " ") return;
          event.preventDefault();
          on.onSelect();
        }}
        onFocus={on.onFocus}
        onBlur={on.onLeave}
        onPointerEnter={on.onEnter}
        onPointerLeave={on.onLeave}
      >
        {Math.hypot(dx, dy) > LEADER_FROM_PX && <path class="leader" d={`M0 0L${dx.toFixed(1)} ${dy.toFixed(1)}`} />}
        <g transform={translate([dx, dy])}>
          <circle class="halo" r={(r * 1.2 + 4).toFixed(1)} />
          <path class="shape" d={outline(state, r)} />
          {GLYPHS[state] && (
            <text class="glyph" y={state === "degraded" ? r * 0.12 : 0} font-size={(r * 1.25).toFixed(1)}>
              {GLYPHS[state]}
            </text>
          )}
          {badge && (
            <g class="mark" transform={translate([r * 0.85, -r * 0.85])}>
              <circle r="5.5" />
              <text>{badge}</text>
            </g>
          )}
          {(labelled || selected) && (
            <text class="label" y={(r * 1.2 + 12).toFixed(1)}>
              {cluster.name}
            </text>
          )}
        </g>
      </g>
    </g>
  );
}
