// How a latency is known: a sign and a word, then the source, its age and how sure it is.

import { age, percent } from "./format.ts";
import type { LatencyBasis, ReadyView } from "./views.ts";

export const BASES: readonly { basis: LatencyBasis; says: string }[] = [
  { basis: "measured", says: "measured between these very users and this cluster" },
  { basis: "inferred", says: "inferred from measurements of other pairs" },
  { basis: "prior", says: "by distance alone: nobody has measured near it" },
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
  route: Pick<ReadyView, "latency_source" | "latency_confidence">,
  ageS: number | null,
): string {
  const sure = route.latency_confidence;
  return [
    route.latency_source,
    ...(ageS === null ? [] : [age(ageS)]),
    sure === null ? "confidence unknown" : `within 20 % with a chance of ${percent(sure)}`,
  ].join(" · ");
}
