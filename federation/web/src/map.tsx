// The map itself: land, night, users, arcs, clusters. Layers are rebuilt only when what they show changes, so that
// panning moves one transform and a new world touches only the attributes that differ.

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { Basemap, type Point } from "./basemap.ts";
import { useShown } from "./context.tsx";
import { cellTotals, flows } from "./flows.ts";
import { count, milliseconds, rps } from "./format.ts";
import { shownState } from "./freshness.ts";
import { arcWidth, cellRadius, clusterLabel, clusterRadius, GLYPHS, outline } from "./marks.ts";
import { isSame, type Selection } from "./selection.ts";
import { spread } from "./spread.ts";
import { centred, panned, type Viewport, WHOLE, zoomed } from "./viewport.ts";
import type { ClusterView, OverviewView } from "./views.ts";

const LABELS_FROM_ZOOM = 3.5;
const LEADER_FROM_PX = 7;
const DRAG_FROM_PX = 4;
const NIGHT_STEP_S = 600;

interface Hint {
  x: number;
  y: number;
  title: string;
  lines: string[];
}

export function WorldMap() {
  const { state, view, fresh, store } = useShown();
  const frame = useRef<HTMLDivElement>(null);
  const svg = useRef<SVGSVGElement>(null);
  const { width, height } = useSize(frame);
  const [viewport, setViewport] = useState<Viewport>(WHOLE);
  const [hint, setHint] = useState<Hint | null>(null);
  const base = useMemo(() => new Basemap(width, height), [width, height]);
  const scale = Math.min(1, Math.max(0.6, width / 1000));
  const { k } = viewport;

  useEffect(() => setViewport(WHOLE), [width, height]);
  useGestures(svg, setViewport);

  const select = (selection: Selection) => {
    location.hash = store.hashOf(selection);
  };
  const hintAt = (at: Point, dx: number, dy: number, title: string, lines: string[]) =>
    setHint({ x: at[0] * k + viewport.x + dx, y: at[1] * k + viewport.y + dy, title, lines });

  const land = useMemo(
    () => (
      <>
        <path class="land" d={base.land} />
        <path class="borders" d={base.borders} />
      </>
    ),
    [base],
  );
  const nightStep = Math.floor(view.at_s / NIGHT_STEP_S);
  const night = useMemo(() => <path class="night" d={base.night(nightStep * NIGHT_STEP_S)} />, [base, nightStep]);

  const arcs = useMemo(
    () => (state.showArcs ? <Arcs base={base} view={view} model={state.model} selection={state.selection} /> : null),
    [base, view, state.model, state.selection, state.showArcs],
  );

  const mostDemand = Math.max(0, ...view.cells.map((cell) => cellTotals(cell, state.model).rps));
  const cells = view.cells.map((cell) => {
    const totals = cellTotals(cell, state.model);
    if (totals.rps <= 0) return null;
    const at = base.point(cell.lon, cell.lat);
    const selection: Selection = { kind: "cell", name: cell.name };
    const isUnserved = totals.unservedRps > 0.01 * totals.rps;
    const r = cellRadius(totals.rps, mostDemand, scale);
    const selected = isSame(selection, state.selection);
    return (
      <g key={cell.name} transform={translate(at)}>
        <circle
          class={`cell${isUnserved ? " unserved" : ""}${selected ? " selected" : ""}`}
          r={r}
          onClick={() => select(selection)}
          onPointerEnter={() =>
            hintAt(at, 0, -r, cell.name, [
              `users, ${rps(totals.rps)} requests/s`,
              ...(totals.lateRps > 0 ? [`${rps(totals.lateRps)} later than the objective`] : []),
              ...(isUnserved ? [`${rps(totals.unservedRps)} unserved`] : []),
            ])
          }
          onPointerLeave={() => setHint(null)}
        />
      </g>
    );
  });

  const most = Math.max(0, ...view.clusters.map((cluster) => cluster.accelerators ?? 0));
  const placed = view.clusters.map((cluster) => ({
    cluster,
    at: base.point(cluster.lon, cluster.lat),
    r: clusterRadius(cluster.accelerators, most, scale),
  }));
  const layout = placed.map(({ cluster, at, r }) => ({ name: cluster.name, x: at[0] * k, y: at[1] * k, r: r * 1.12 }));
  const layoutKey = layout.map(({ name, x, y, r }) => `${name} ${x.toFixed(1)} ${y.toFixed(1)} ${r.toFixed(1)}`).join();
  const offsets = useMemo(() => spread(layout), [layoutKey]);

  const marks = placed.map(({ cluster, at, r }) => {
    const { dx, dy } = offsets.get(cluster.name) ?? { dx: 0, dy: 0 };
    const selection: Selection = { kind: "cluster", name: cluster.name };
    const tell = () =>
      hintAt(at, dx, dy - r, cluster.name, [
        `${cluster.city} ${cluster.country} · ${cluster.provider} · ${shownState(cluster.worst_state, fresh)}`,
        cluster.accelerators === null ? "accelerators unknown" : `${count(cluster.accelerators)} accelerators`,
        fresh.unknown ? "last heard before the live data was lost" : cluster.reason,
      ]);
    return (
      <ClusterMark
        key={cluster.name}
        cluster={cluster}
        at={at}
        dx={dx}
        dy={dy}
        r={r}
        unknown={fresh.unknown}
        dim={state.model !== "" && !cluster.replicas.some((row) => row.model === state.model && row.desired > 0)}
        selected={isSame(selection, state.selection)}
        labelled={k >= LABELS_FROM_ZOOM}
        onSelect={() => select(selection)}
        onFocus={() => {
          const sx = at[0] * k + viewport.x;
          const sy = at[1] * k + viewport.y;
          if (sx < 0 || sy < 0 || sx > width || sy > height) {
            setViewport((from) => centred(from, at[0], at[1], width, height));
          }
          tell();
        }}
        onEnter={tell}
        onLeave={() => setHint(null)}
      />
    );
  });

  const onKeyDown = (event: KeyboardEvent) => {
    const step = 60;
    const moves: Record<string, (from: Viewport) => Viewport> = {
      "+": (from) => zoomed(from, 1.4, width / 2, height / 2, width, height),
      "=": (from) => zoomed(from, 1.4, width / 2, height / 2, width, height),
      "-": (from) => zoomed(from, 1 / 1.4, width / 2, height / 2, width, height),
      "0": () => WHOLE,
      ArrowLeft: (from) => panned(from, step, 0, width, height),
      ArrowRight: (from) => panned(from, -step, 0, width, height),
      ArrowUp: (from) => panned(from, 0, step, width, height),
      ArrowDown: (from) => panned(from, 0, -step, width, height),
    };
    const move = event.ctrlKey || event.metaKey || event.altKey ? undefined : moves[event.key];
    if (!move) return;
    event.preventDefault();
    setViewport(move);
  };
  const zoomBy = (factor: number) => setViewport((from) => zoomed(from, factor, width / 2, height / 2, width, height));

  return (
    <div class={`map-frame${fresh.unknown ? " stale" : ""}`} ref={frame}>
      <svg
        ref={svg}
        class={`map${k > 1 ? " zoomed" : ""}`}
        width={width}
        height={height}
        role="group"
        aria-label="Map of clusters and users. Tab visits the clusters, Enter opens one; plus and minus zoom, arrows move, 0 resets. The tables below hold the same data."
        tabIndex={0}
        onKeyDown={onKeyDown}
      >
        <defs>
          <pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
            <rect class="hatch-ground" width="5" height="5" />
            <line class="hatch-line" x1="0" y1="0" x2="0" y2="5" />
          </pattern>
        </defs>
        <g
          transform={`translate(${viewport.x.toFixed(2)} ${viewport.y.toFixed(2)}) scale(${k})`}
          style={{ "--unit": String(1 / k) }}
        >
          {land}
          {night}
          <g class="cells">{cells}</g>
          {arcs}
          <g class="clusters">{marks}</g>
        </g>
      </svg>
      {hint && <Tooltip hint={hint} width={width} />}
      <div class="zoom" role="group" aria-label="Zoom">
        <button type="button" aria-label="Zoom in" onClick={() => zoomBy(1.6)}>
          +
        </button>
        <button type="button" aria-label="Zoom out" disabled={k <= 1} onClick={() => zoomBy(1 / 1.6)}>
          −
        </button>
        <button type="button" aria-label="Show the whole world" disabled={k <= 1} onClick={() => setViewport(WHOLE)}>
          ⤢
        </button>
      </div>
    </div>
  );
}

const translate = (at: Point) => `translate(${at[0].toFixed(1)} ${at[1].toFixed(1)})`;

function Arcs(props: { base: Basemap; view: OverviewView; model: string; selection: Selection | null }) {
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

function Tooltip({ hint, width }: { hint: Hint; width: number }) {
  const half = 130;
  const left = Math.min(Math.max(hint.x, half + 6), Math.max(half + 6, width - half - 6));
  const below = hint.y < 110;
  return (
    <div
      class={`tooltip${below ? " below" : ""}`}
      aria-hidden="true"
      style={{ left: `${left}px`, top: `${hint.y + (below ? 34 : -8)}px` }}
    >
      <strong>{hint.title}</strong>
      {hint.lines.map((line) => (
        <div key={line}>{line}</div>
      ))}
    </div>
  );
}

function useSize(frame: { current: HTMLElement | null }): { width: number; height: number } {
  const [size, setSize] = useState({ width: 800, height: 420 });
  useLayoutEffect(() => {
    const element = frame.current!;
    const measure = () => setSize({ width: element.clientWidth, height: element.clientHeight });
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  return size;
}

/** Wheel and pinch zoom, drag moves. A press that does not move stays a click. */
function useGestures(
  svg: { current: SVGSVGElement | null },
  setViewport: (change: (from: Viewport) => Viewport) => void,
): void {
  useEffect(() => {
    const element = svg.current!;
    const pointers = new Map<number, { x: number; y: number }>();
    let dragging = false;

    const onWheel = (event: WheelEvent) => {
      event.preventDefault();
      const box = element.getBoundingClientRect();
      const factor = Math.exp(-event.deltaY * (event.deltaMode === 0 ? 0.0018 : 0.05));
      setViewport((from) =>
        zoomed(from, factor, event.clientX - box.left, event.clientY - box.top, box.width, box.height),
      );
    };
    const onDown = (event: PointerEvent) => {
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      dragging = false;
    };
    const onMove = (event: PointerEvent) => {
      const last = pointers.get(event.pointerId);
      if (!last) return;
      const dx = event.clientX - last.x;
      const dy = event.clientY - last.y;
      if (!dragging && Math.hypot(dx, dy) < DRAG_FROM_PX) return;
      if (!dragging) element.setPointerCapture(event.pointerId);
      dragging = true;
      const box = element.getBoundingClientRect();
      const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
      pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
      if (other) {
        const before = Math.hypot(last.x - other.x, last.y - other.y) || 1;
        const after = Math.hypot(event.clientX - other.x, event.clientY - other.y);
        setViewport((from) =>
          zoomed(from, after / before, other.x - box.left, other.y - box.top, box.width, box.height),
        );
      } else {
        setViewport((from) => panned(from, dx, dy, box.width, box.height));
      }
    };
    const onUp = (event: PointerEvent) => pointers.delete(event.pointerId);
    const onClick = (event: MouseEvent) => {
      // The click that ends a drag is not meant for what happens to lie under it.
      if (dragging) event.stopPropagation();
      dragging = false;
    };
    const stop = new AbortController();
    const options = { signal: stop.signal };
    element.addEventListener("wheel", onWheel, { ...options, passive: false });
    element.addEventListener("pointerdown", onDown, options);
    element.addEventListener("pointermove", onMove, options);
    element.addEventListener("pointerup", onUp, options);
    element.addEventListener("pointercancel", onUp, options);
    element.addEventListener("click", onClick, { ...options, capture: true });
    return () => stop.abort();
  }, []);
}
