// Isochrones: the land from where the ready replicas of a model are within its objective, and lines of equal latency.

import { useEffect, useMemo, useState } from "preact/hooks";
import { useShown } from "../context.tsx";
import { milliseconds } from "../format.ts";
import { formatCoordinates, parseCoordinates } from "../selection.ts";
import type { IsochronesView } from "../views.ts";
import { type Basemap, type Point, translate } from "./basemap.ts";
import { areaPath, borders, linePath } from "./grid.ts";
import { gridOf, indicator, labelPoints, latencyAt, lines, lowness, noteOf, servingKey } from "./isochrones.ts";
import type { Hint } from "./tooltip.tsx";
import type { Viewport } from "./viewport.ts";

const AGAIN_EVERY_MS = 60_000;
const HALF = 0.5;

export interface Asked {
  isochrones: IsochronesView | null;
  /** What there is to say instead of isochrones; empty when they are drawn, and for no model. */
  note: string;
}

/** The controller's newest grid for a model; of none when `model` is empty. */
export function useIsochrones(model: string): Asked {
  const { view } = useShown();
  const [answer, setAnswer] = useState<IsochronesView | null>(null);
  const [failed, setFailed] = useState("");
  const [turn, setTurn] = useState(0);
  const serving = model ? servingKey(view.clusters, model) : "";
  useEffect(() => {
    if (!model) return;
    const stop = new AbortController();
    fetch(`/v1/isochrones/${encodeURIComponent(model)}`, { signal: stop.signal })
      .then(async (response) => {
        const body = await response.json();
        setAnswer(response.ok ? body : null);
        setFailed(response.ok ? "" : String(body.message));
      })
      .catch((error: Error) => {
        if (stop.signal.aborted) return;
        setAnswer(null);
        setFailed(error.message);
      });
    const timer = setTimeout(() => setTurn((n) => n + 1), AGAIN_EVERY_MS);
    return () => {
      clearTimeout(timer);
      stop.abort();
    };
  }, [model, serving, turn]);
  const isochrones = answer?.model === model ? answer : null;
  return { isochrones, note: model ? noteOf(model, isochrones, failed) : "" };
}

interface IsochronesProps {
  base: Basemap;
  isochrones: IsochronesView;
  viewport: Viewport;
  /** The heat says already how things are known. */
  plain: boolean;
  onHint: (hint: Hint | null) => void;
}

export function Isochrones({ base, isochrones, viewport, plain, onHint }: IsochronesProps) {
  const layer = useMemo(() => <Layer base={base} isochrones={isochrones} plain={plain} />, [base, isochrones, plain]);
  const { state, store } = useShown();
  const under = (event: MouseEvent) => {
    const box = (event.currentTarget as SVGElement).ownerSVGElement!.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    return { x, y, place: base.place([(x - viewport.x) / viewport.k, (y - viewport.y) / viewport.k]) };
  };
  const tell = (event: PointerEvent) => {
    const { x, y, place } = under(event);
    const found = place && latencyAt(isochrones, place[0], place[1]);
    if (!found) return onHint(null);
    onHint({
      x,
      y: y - 6,
      title: `${milliseconds(found.latencyMs)} from here`,
      lines: [
        `to ${found.cluster} · ${found.basis}`,
        `${found.within ? "within" : "later than"} the objective of ${milliseconds(isochrones.objective_ms)}`,
      ],
    });
  };
  const open = (event: MouseEvent) => {
    const { place } = under(event);
    if (place) location.hash = store.hashOf({ kind: "place", name: formatCoordinates(place[1], place[0]) });
  };
  const opened = state.selection?.kind === "place" && parseCoordinates(state.selection.name);
  return (
    <>
      {layer}
      <path class="catcher" d={base.land} onPointerMove={tell} onPointerLeave={() => onHint(null)} onClick={open} />
      {opened && (
        <g class="unscaled" transform={translate(base.point(opened[1], opened[0]))}>
          <path class="place-mark" d="M-9 0H-3M3 0H9M0-9V-3M0 3V9" />
        </g>
      )}
    </>
  );
}

function Layer({ base, isochrones, plain }: { base: Basemap; isochrones: IsochronesView; plain: boolean }) {
  if (isochrones.latency_ms.length === 0) return null;
  const grid = gridOf(isochrones);
  const low = lowness(isochrones);
  const labels: Point[] = [];
  const within = areaPath(base, grid, low, -isochrones.objective_ms);
  return (
    <g class="isochrones" aria-hidden="true">
      <clipPath id="within-objective">
        <path d={within} />
      </clipPath>
      {!plain && (
        <g clip-path="url(#on-land)">
          <path class="within-area" d={within} />
          <g clip-path="url(#within-objective)">
            <path class="basis inferred" d={areaPath(base, grid, indicator(isochrones, "inferred"), HALF)} />
            <path class="basis prior" d={areaPath(base, grid, indicator(isochrones, "prior"), HALF)} />
          </g>
        </g>
      )}
      {[isochrones.objective_ms, ...lines(isochrones)].map((ms) => {
        const drawn = borders(base, grid, low, -ms);
        const here = labelPoints(drawn, labels);
        labels.push(...here);
        return (
          <g key={ms}>
            <path class={`isoline${ms === isochrones.objective_ms ? " objective" : ""}`} d={linePath(drawn)} />
            {here.map((at) => (
              <g key={String(at)} class="unscaled" transform={translate(at)}>
                <text class="isoline-label">{milliseconds(ms)}</text>
              </g>
            ))}
          </g>
        );
      })}
    </g>
  );
}
