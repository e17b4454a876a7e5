// From the routes of every cell and model to what the map draws: one arc per cell, cluster and side of the objective.

import type { CellView, OverviewView } from "./views.ts";

export interface Flow {
  key: string;
  cell: string;
  cluster: string;
  rps: number;
  within: boolean;
  /** Whether the share is on its way to another value. */
  stepping: boolean;
  models: string[];
  /** The slowest of what the arc stands for. */
  latencyMs: number;
}

const STEP = 0.005;

/** Flows of one model, or of all when `model` is empty. Late ones come last, so that they are drawn on top. */
export function flows(view: OverviewView, model: string): Flow[] {
  const found = new Map<string, Flow>();
  for (const cell of view.cells) {
    for (const demand of cell.demand) {
      if (model && demand.model !== model) continue;
      for (const route of demand.routes) {
        const share = Math.max(route.share, route.target_share);
        if (share <= 0) continue;
        const key = `${cell.name}\n${route.cluster}\n${route.within_objective}`;
        const flow = found.get(key) ?? {
          key,
          cell: cell.name,
          cluster: route.cluster,
          rps: 0,
          within: route.within_objective,
          stepping: false,
          models: [],
          latencyMs: 0,
        };
        flow.rps += route.share * demand.rps;
        flow.stepping ||= Math.abs(route.share - route.target_share) > STEP;
        flow.models.push(demand.model);
        flow.latencyMs = Math.max(flow.latencyMs, route.latency_ms);
        found.set(key, flow);
      }
    }
  }
  return [...found.values()].sort((a, b) => Number(b.within) - Number(a.within) || (a.key < b.key ? -1 : 1));
}

export interface CellTotals {
  rps: number;
  unservedRps: number;
  lateRps: number;
}

export function cellTotals(cell: CellView, model: string): CellTotals {
  const totals = { rps: 0, unservedRps: 0, lateRps: 0 };
  for (const demand of cell.demand) {
    if (model && demand.model !== model) continue;
    totals.rps += demand.rps;
    totals.unservedRps += demand.unserved_rps;
    for (const route of demand.routes) {
      if (!route.within_objective) totals.lateRps += route.share * demand.rps;
    }
  }
  return totals;
}

export interface Inflow {
  cell: string;
  model: string;
  rps: number;
  share: number;
  latencyMs: number;
  within: boolean;
}

/** Whom a cluster serves, the largest first. */
export function inflows(view: OverviewView, cluster: string): Inflow[] {
  const rows: Inflow[] = [];
  for (const cell of view.cells) {
    for (const demand of cell.demand) {
      for (const route of demand.routes) {
        if (route.cluster !== cluster || route.share <= 0) continue;
        rows.push({
          cell: cell.name,
          model: demand.model,
          rps: route.share * demand.rps,
          share: route.share,
          latencyMs: route.latency_ms,
          within: route.within_objective,
        });
      }
    }
  }
  return rows.sort((a, b) => b.rps - a.rps || (a.cell < b.cell ? -1 : 1));
}
