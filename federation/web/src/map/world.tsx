// The map itself: land, night, users, arcs, clusters. Layers are rebuilt only when what they show changes, so that
// panning moves one transform and a new world touches only the attributes that differ.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { useShown } from "../context.tsx";
import { Arcs } from "./arcs.tsx";
import { Basemap, type Point } from "./basemap.ts";
import { Cells } from "./cells.tsx";
import { Clusters } from "./clusters.tsx";
import { useGestures, useSize } from "./gestures.ts";
import { BasisPatterns, Heat } from "./heat.tsx";
import { Isochrones, useIsochrones } from "./isochrones.tsx";
import { moveOf } from "./keyboard.ts";
import { type Hint, Tooltip } from "./tooltip.tsx";
import { centred, isSeen, type Viewport, WHOLE } from "./viewport.ts";
import { ZoomButtons } from "./zoom.tsx";

const NIGHT_STEP_S = 600;
/** Clusters over a heat or isochrones leave these to be seen. */
const SMALLER = 0.65;

export function WorldMap() {
  const { state, view, fresh } = useShown();
  const frame = useRef<HTMLDivElement>(null);
  const svg = useRef<SVGSVGElement>(null);
  const { width, height } = useSize(frame);
  const [viewport, setViewport] = useState<Viewport>(WHOLE);
  const [hint, setHint] = useState<Hint | null>(null);
  const base = useMemo(() => new Basemap(width, height), [width, height]);
  const scale = Math.min(1, Math.max(0.6, width / 1000));
  const { k } = viewport;
  const isArea = state.heat !== "" || (state.isochrones && state.model !== "");

  const { isochrones, note } = useIsochrones(state.isochrones ? state.model : "");

  useEffect(() => setViewport(WHOLE), [width, height]);
  useGestures(svg, setViewport);

  const ground = useMemo(() => <Ground base={base} />, [base]);
  const nightStep = Math.floor(view.at_s / NIGHT_STEP_S);
  const night = useMemo(() => <path class="night" d={base.night(nightStep * NIGHT_STEP_S)} />, [base, nightStep]);
  const arcs = useMemo(
    () => (state.arcs ? <Arcs base={base} view={view} model={state.model} selection={state.selection} /> : null),
    [base, view, state.model, state.selection, state.arcs],
  );
  const show = (at: Point) => {
    if (!isSeen(viewport, at, width, height)) setViewport((from) => centred(from, at[0], at[1], width, height));
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const isShortcut = event.ctrlKey || event.metaKey || event.altKey;
    const move = isShortcut ? undefined : moveOf(event.key, width, height);
    if (!move) return;
    event.preventDefault();
    setViewport(move);
  };

  // Over the clusters when their values are what is looked at.
  const cells = <Cells base={base} viewport={viewport} scale={scale} onHint={setHint} />;

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
          <BasisPatterns k={k} />
          <clipPath id="on-land">
            <path d={base.land} />
          </clipPath>
        </defs>
        <g
          transform={`translate(${viewport.x.toFixed(2)} ${viewport.y.toFixed(2)}) scale(${k})`}
          style={{ "--unit": String(1 / k) }}
        >
          {ground}
          {state.heat && <Heat base={base} view={view} model={state.model} of={state.heat} />}
          {isochrones && (
            <Isochrones
              base={base}
              isochrones={isochrones}
              viewport={viewport}
              plain={state.heat !== ""}
              onHint={setHint}
            />
          )}
          {night}
          {!state.heat && cells}
          {arcs}
          <Clusters
            base={base}
            viewport={viewport}
            scale={scale * (isArea ? SMALLER : 1)}
            onHint={setHint}
            onFocus={show}
          />
          {state.heat && cells}
        </g>
      </svg>
      {note && (
        <p class="map-note" role="status">
          {note}
        </p>
      )}
      {hint && <Tooltip hint={hint} width={width} />}
      <ZoomButtons isWhole={k <= 1} width={width} height={height} onMove={setViewport} />
    </div>
  );
}

function Ground({ base }: { base: Basemap }) {
  return (
    <>
      <path class="land" d={base.land} />
      <path class="borders" d={base.borders} />
    </>
  );
}
