// From the controller's grid of latencies to the area within the objective and the lines of equal latency inside it.

import type { IsochronesView, LatencyBasis } from "../views.ts";
import type { Point } from "./basemap.ts";
import { type Grid, squareOf } from "./grid.ts";

const STEPS_MS = [5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000, 5000] as const;
const MAX_LINES = 4;
const MAX_LABELS = 3;
/** A part that is smaller than this in pixels has no room for a label. */
const LABELLED_FROM_PX = 60;
/** Width and height that a label takes. */
const LABEL_PX = [56, 16] as const;
const BASES: Readonly<Record<string, LatencyBasis>> = { m: "measured", i: "inferred", p: "prior" };

export function gridOf(view: IsochronesView): Grid {
  return { west: view.west_deg, north: view.north_deg, step: view.step_deg, columns: view.columns, rows: view.rows };
}

/** Latencies of the lines: round numbers between what a replica takes and the objective, few enough to be read. */
export function lines(view: IsochronesView): number[] {
  const span = view.objective_ms - view.service_ms;
  const step = STEPS_MS.find((one) => span / one <= MAX_LINES + 1);
  if (step === undefined || span <= 0) return [];
  const found: number[] = [];
  for (let ms = (Math.floor(view.service_ms / step) + 1) * step; ms < view.objective_ms; ms += step) found.push(ms);
  return found;
}

/** Values that are high where latency is low: an area within some latency is where they are at least its negative. */
export function lowness(view: IsochronesView): Float64Array {
  return Float64Array.from(view.latency_ms, (ms) => -ms);
}

/** 1 where the latency is known in this way, else 0. */
export function indicator(view: IsochronesView, basis: LatencyBasis): Float64Array {
  return Float64Array.from(view.basis, (letter) => (BASES[letter] === basis ? 1 : 0));
}

/** Where a line says its latency: at the south of its widest parts, clear of the labels that are there. */
export function labelPoints(drawn: readonly Point[][], taken: readonly Point[]): Point[] {
  const isClear = ([x, y]: Point) =>
    taken.every((other) => Math.abs(x - other[0]) > LABEL_PX[0] || Math.abs(y - other[1]) > LABEL_PX[1]);
  return drawn
    .map((line) => ({ line, width: extent(line.map(([x]) => x)) }))
    .filter(({ width }) => width >= LABELLED_FROM_PX)
    .sort((a, b) => b.width - a.width)
    .slice(0, MAX_LABELS)
    .map(({ line }) => line.reduce((lowest, point) => (point[1] > lowest[1] ? point : lowest)))
    .filter(isClear);
}

const extent = (values: readonly number[]) => Math.max(...values) - Math.min(...values);

export interface PlaceLatency {
  latencyMs: number;
  cluster: string;
  basis: LatencyBasis;
  within: boolean;
}

/** What a user at a place would wait; null where the grid says nothing. */
export function latencyAt(view: IsochronesView, lon: number, lat: number): PlaceLatency | null {
  const square = squareOf(gridOf(view), lon, lat);
  const latencyMs = square === null ? undefined : view.latency_ms[square];
  if (square === null || latencyMs === undefined) return null;
  return {
    latencyMs,
    cluster: view.clusters[view.cluster[square]!]!,
    basis: BASES[view.basis[square]!]!,
    within: latencyMs <= view.objective_ms,
  };
}

/** Clusters that the map shows to serve a model: when others do, the isochrones are asked for anew. */
export function servingKey(
  clusters: readonly { name: string; replicas: readonly { model: string; ready: number | null }[] }[],
  model: string,
): string {
  return clusters
    .filter((one) => one.replicas.some((row) => row.model === model && (row.ready ?? 0) > 0))
    .map((one) => one.name)
    .join();
}

/** What is said instead of isochrones; empty when there are some. */
export function noteOf(model: string, isochrones: IsochronesView | null, failed: string): string {
  if (isochrones?.latency_ms.length) return "";
  if (isochrones) return `No replica of ${model} is ready: no land is within its objective.`;
  return failed ? `The isochrones cannot be drawn: ${failed}` : "Asking the controller for the isochrones…";
}
