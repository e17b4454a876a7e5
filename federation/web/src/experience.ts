// What the users of a cell experience, and how that is known: from the routes of one model, or of all.

import type { CellView, LatencyBasis, ModelView, OverviewView, RouteView } from "./views.ts";

export type HeatOf = "rtt" | "late";

/** From the least known to the best. */
const BASES: readonly LatencyBasis[] = ["prior", "inferred", "measured"];

export interface Experience {
  name: string;
  lon: number;
  lat: number;
  rps: number;
  /** Mean round trip of what is served; null while nothing is. */
  rttMs: number | null;
  /** Share of the requests that are answered late or not at all. */
  lateShare: number;
  /** Of the least known of the routes that carry requests; null without such. */
  basis: LatencyBasis | null;
}

/** Cells that ask for `model` (for any when it is empty). */
export function experiences(view: OverviewView, model: string): Experience[] {
  const serviceMs = serviceMsOf(view.models);
  return view.cells.flatMap((cell) => {
    const found = experienceOf(cell, model, serviceMs);
    return found.rps > 0 ? [found] : [];
  });
}

export function experienceOf(cell: CellView, model: string, serviceMs: ReadonlyMap<string, number>): Experience {
  let [rps, servedRps, lateRps, rttSum] = [0, 0, 0, 0];
  let basis: LatencyBasis | null = null;
  for (const demand of cell.demand) {
    if (model && demand.model !== model) continue;
    rps += demand.rps;
    lateRps += demand.unserved_rps;
    for (const route of demand.routes) {
      const routeRps = route.share * demand.rps;
      if (routeRps <= 0) continue;
      servedRps += routeRps;
      rttSum += routeRps * roundTripMs(route, serviceMs.get(demand.model) ?? 0);
      if (!route.within_objective) lateRps += routeRps;
      basis = leastKnown(basis, route.latency_basis);
    }
  }
  const { name, lon, lat } = cell;
  const rttMs = servedRps > 0 ? rttSum / servedRps : null;
  return { name, lon, lat, rps, rttMs, lateShare: rps > 0 ? Math.min(1, lateRps / rps) : 0, basis };
}

export function roundTripMs(route: RouteView, serviceMs: number): number {
  return Math.max(0, route.latency_ms - serviceMs);
}

export interface Parts {
  /** Estimated. */
  networkMs: number;
  /** Declared by the model. */
  serviceMs: number;
  /** What the cluster's gateway observed of service and queueing; null where nobody reports it. */
  observedMs: number | null;
  /** What is observed beyond the declared service; null where nothing is observed. */
  queueingMs: number | null;
}

/** What the latency of a route is made of. */
export function partsOf(route: RouteView, serviceMs: number, observedMs: number | null): Parts {
  const queueingMs = observedMs === null ? null : Math.max(0, observedMs - serviceMs);
  return { networkMs: roundTripMs(route, serviceMs), serviceMs, observedMs, queueingMs };
}

export function observedMs(view: OverviewView, cluster: string, model: string): number | null {
  const found = view.clusters.find((one) => one.name === cluster)?.observed.find((one) => one.model === model);
  return found?.latency_ms_p95 ?? null;
}

export function serviceMsOf(models: readonly ModelView[]): ReadonlyMap<string, number> {
  return new Map(models.map((one) => [one.name, one.service_ms]));
}

function leastKnown(one: LatencyBasis | null, other: LatencyBasis): LatencyBasis {
  return one === null || BASES.indexOf(other) < BASES.indexOf(one) ? other : one;
}

export interface Scale {
  title: string;
  /** Lower bounds of the bands after the first. */
  from: readonly number[];
  /** What each band is called. */
  names: readonly string[];
}

export const SCALES: Readonly<Record<HeatOf, Scale>> = {
  rtt: {
    title: "Round trip",
    from: [25, 50, 100, 150, 250],
    names: ["under 25 ms", "25 to 50 ms", "50 to 100 ms", "100 to 150 ms", "150 to 250 ms", "250 ms or more"],
  },
  late: {
    title: "Late or unserved",
    from: [0.01, 0.05, 0.2, 0.5, 0.9],
    names: ["under 1 %", "1 to 5 %", "5 to 20 %", "20 to 50 %", "50 to 90 %", "90 % or more"],
  },
};

/** The band that a value is in, from 0. */
export function band(of: HeatOf, value: number): number {
  return SCALES[of].from.filter((least) => value >= least).length;
}

export function heatValue(of: HeatOf, one: Experience): number | null {
  return of === "rtt" ? one.rttMs : one.lateShare;
}
