"""What is learnt about spot: how often replicas are taken back, and how often a replacement is granted.

Pure. Every (cluster, spot pool) has counts that fade with a half-life of a week. The expectation for a pool is the
provider's known risk or the catalogue's, corrected by the counts of its region, and then by the pool's own: a Gamma
prior for the rate of losses and a Beta prior for the chance of a launch, so few counts change little and none change
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from federation.state.keys import ClusterPool

HALF_LIFE_S = 7 * 86_400.0
PRIOR_HOURS = 48.0
"""The weight of a prior in replica-hours, once for a region and again for a pool."""
PRIOR_LAUNCHES = 8.0
MOST_HOURS, MOST_LAUNCHES = 336.0, 60.0
"""The most weight of one cluster's counts in its region, so that a lying or very large cluster does not decide for
all."""
MOST_LOSSES_PER_HOUR = 6.0
LEAST_CHANCE = 0.02


class SpotRisk(NamedTuple):
    """How often a replica on spot is taken back, and the chance that another is granted; none by itself."""

    losses_per_hour: float = 0.0
    replacement_chance: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Fading counts: replica-hours on spot, replicas taken back, launches granted and refused.

    `at_s`: the wall clock, in seconds, to which they are faded.
    """

    at_s: float
    hours: float = 0.0
    losses: float = 0.0
    granted: float = 0.0
    refused: float = 0.0

    def at(self, now_s: float) -> Counts:
        """The counts faded to this time. A clock that went back fades nothing."""
        part = 0.5 ** (max(0.0, now_s - self.at_s) / HALF_LIFE_S)
        return Counts(
            at_s=max(now_s, self.at_s),
            hours=self.hours * part,
            losses=self.losses * part,
            granted=self.granted * part,
            refused=self.refused * part,
        )

    def plus(self, *, hours: float = 0.0, losses: float = 0.0, granted: float = 0.0, refused: float = 0.0) -> Counts:
        """The counts with new ones added."""
        return replace(
            self,
            hours=self.hours + hours,
            losses=self.losses + losses,
            granted=self.granted + granted,
            refused=self.refused + refused,
        )

    def not_negative(self) -> Counts:
        """The counts without negative values from rounding."""
        return Counts(
            at_s=self.at_s,
            hours=max(0.0, self.hours),
            losses=max(0.0, self.losses),
            granted=max(0.0, self.granted),
            refused=max(0.0, self.refused),
        )

    def bounded(self) -> Counts:
        """The counts with at most the weight that one cluster may have among others."""
        of_hours = min(1.0, MOST_HOURS / self.hours) if self.hours > 0 else 1.0
        launches = self.granted + self.refused
        of_launches = min(1.0, MOST_LAUNCHES / launches) if launches > 0 else 1.0
        return Counts(
            at_s=self.at_s,
            hours=self.hours * of_hours,
            losses=min(self.losses * of_hours, MOST_LOSSES_PER_HOUR * max(self.hours * of_hours, 1.0)),
            granted=self.granted * of_launches,
            refused=self.refused * of_launches,
        )


def expected(known: SpotRisk, counts: Counts) -> SpotRisk:
    """The expectation from these counts and this prior."""
    losses = (known.losses_per_hour * PRIOR_HOURS + counts.losses) / (PRIOR_HOURS + counts.hours)
    launches = counts.granted + counts.refused
    chance = (known.replacement_chance * PRIOR_LAUNCHES + counts.granted) / (PRIOR_LAUNCHES + launches)
    return SpotRisk(min(losses, MOST_LOSSES_PER_HOUR), max(chance, LEAST_CHANCE))


def region_counts(learnt: Mapping[ClusterPool, Counts], regions: Mapping[str, str]) -> dict[tuple[str, str], Counts]:
    """(region, product) -> the summed counts of its clusters. Args: regions: cluster -> region, with its provider."""
    found: dict[tuple[str, str], Counts] = {}
    for key, counts in learnt.items():
        region = regions.get(key.cluster)
        if region is not None:
            one = counts.bounded()
            before = found.setdefault((region, key.pool.product), Counts(at_s=one.at_s))
            found[region, key.pool.product] = before.plus(
                hours=one.hours, losses=one.losses, granted=one.granted, refused=one.refused
            )
    return found
