// How a latency is known: a sign and a word, then the source, its age and how sure it is.

import { age, milliseconds, percent } from "./format.ts";
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

/** Everything that is known of where a latency comes from, in one line; `ageS` is its age by now. */
export function knownLine(
  route: Pick<ReadyView, "latency_source" | "latency_confidence" | "rtt_ms_p95">,
  ageS: number | null,
): string {
  const sure = route.latency_confidence;
  return [
    route.latency_source,
    ...(route.rtt_ms_p95 === null ? [] : [`round trips up to ${milliseconds(route.rtt_ms_p95)} (p95)`]),
    ...(ageS === null ? [] : [age(ageS)]),
    sure === null ? "confidence unknown" : `within 20 % with a chance of ${percent(sure)}`,
  ].join(" · ");
}
