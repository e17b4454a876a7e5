// How a latency is known: a sign and a word, then the source, its age and how sure it is.

import { age, isKnown, milliseconds, percent } from "./format.ts";
import type { LatencyBasis, ReadyView } from "./views.ts";

export const BASES: readonly { basis: LatencyBasis; says: string }[] = [
  { basis: "measured", says: "measured between these very users and this cluster" },
  { basis: "inferred", says: "inferred from measurements of other pairs" },
  { basis: "prior", says: "by distance and public measurements alone: no cluster has measured the way" },
];

export function BasisBadge({ basis }: { basis: LatencyBasis }) {
  return (
    <span class={`known ${basis}`} title={BASES.find((one) => one.basis === basis)?.says}>
      {basis}
    </span>
  );
}

type Known = Pick<ReadyView, "latency_source" | "latency_basis" | "latency_confidence" | "rtt_ms_p95">;

/** Everything that is known of where a latency comes from, in one line to stand after the badge of its basis; `ageS` is
 * its age by now. */
export function knownLine(latency: Known, ageS: number | null): string {
  const { latency_confidence: sure, rtt_ms_p95: p95 } = latency;
  return [
    latency.latency_source.replace(new RegExp(`^${latency.latency_basis} `), ""),
    ...(isKnown(p95) ? [`round trips up to ${milliseconds(p95)} (p95)`] : []),
    ...(ageS === null ? [] : [age(ageS)]),
    isKnown(sure) ? `confidence ${percent(sure)} within ±20 %` : "confidence unknown",
  ].join(" · ");
}
