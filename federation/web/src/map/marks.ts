// Sizes and shapes of what is on the map: area stands for amount, and every state has its own outline.

import type { ClusterView, WorstState } from "../views.ts";

/** Radius in pixels of a cluster with so many accelerators; one that has not reported is drawn small. */
export function clusterRadius(accelerators: number | null, most: number, scale: number): number {
  const share = accelerators === null || most <= 0 ? 0 : Math.sqrt(accelerators / most);
  return scale * (6 + 10 * share);
}

export function cellRadius(rps: number, most: number, scale: number): number {
  return scale * (1.8 + 4.2 * (most > 0 ? Math.sqrt(rps / most) : 0));
}

export function arcWidth(rps: number, most: number): number {
  return 0.8 + 4.2 * (most > 0 ? Math.sqrt(rps / most) : 0);
}

/** The outline of a state around the origin: circles are well, a diamond is bad, a triangle asks for attention. */
export function outline(state: WorstState, r: number): string {
  const n = (value: number) => value.toFixed(1);
  if (state === "bad") {
    const d = n(r * 1.2);
    return `M0-${d}L${d} 0L0 ${d}L-${d} 0Z`;
  }
  if (state === "degraded") {
    const side = r * 1.2;
    return `M0-${n(side)}L${n(side)} ${n(side * 0.78)}L-${n(side)} ${n(side * 0.78)}Z`;
  }
  const c = n(r);
  return `M-${c} 0a${c} ${c} 0 1 0 ${n(2 * r)} 0a${c} ${c} 0 1 0-${n(2 * r)} 0Z`;
}

export const GLYPHS: Readonly<Record<WorstState, string>> = { ok: "", degraded: "!", bad: "×", unknown: "?" };

/** What a screen reader says of a cluster on the map. */
export function clusterLabel(cluster: ClusterView, state: WorstState): string {
  const size = cluster.accelerators === null ? "accelerators unknown" : `${cluster.accelerators} accelerators`;
  const marks = cluster.draining ? ", draining" : cluster.cordoned ? ", cordoned" : "";
  return `${cluster.name}, ${cluster.city} ${cluster.country}, ${state}${marks}, ${size}: ${cluster.reason}`;
}
