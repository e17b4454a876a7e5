"""A policy of holding replicas on spot and on demand over time, for the replay of recorded spot capacity alone.

`make bench CASE=spot` compares it with other published policies. A plan does not call it: it decides step by step from
the age of each zone's last loss, while a plan is made for one moment from expected rates (`Pool.losses_per_hour`, whose
cost is in `costs`).

A zone's spot of one product is taken back the likelier the shorter its last trouble is ago; what is asked for anew may
be refused; zones of one region fall together more often than chance would have it. Of all ways to hold replicas, the
one is taken whose price and expected cost of falling short are least, at the time when what is asked for now serves. So
on-demand is bought before a loss where zones are young, and given back when they have aged.

Pure: no clock, no chance. Prices are in those of one spot replica per step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from placement.jit import compiled
from placement.large.arrays import Floats, Ints

EXPONENT = 1.2
"""The hazard of a zone is EXPONENT / (YOUNG_S + its age): 7.2 losses an hour at first, 0.1 after half a day."""
YOUNG_S = 600.0
FRESH_S = 15_000.0
"""The age of a zone of which nothing is known."""
LAUNCHES = 0.6
"""The chance that spot is granted where nothing is known."""
FORGOTTEN_S = 6_000.0
"""In this time what is known of a launch loses two thirds of its weight."""
HELD_LAUNCHES, REFUSED_LAUNCHES = 0.95, 0.02
"""The same where some is held; and where some is held and more was refused just now."""
REFUSED_S = 600.0
"""In this time a refusal where some is held loses two thirds of its weight."""
TOGETHER = 0.2
"""Of the losses of a zone, the part that takes its whole region."""
ON_DEMAND_PRICE = 3.0
SHORT_PART = 7.2
"""Falling short for a step costs the price of the whole target on demand for that step, and SHORT_PART over the square
of the target as much again: a large fleet insures little, as its last replicas are few of many."""
DARK_PRICE, MOST_DARK_PRICE = 6.5, 90.0
"""What a step with nothing serving costs besides, in prices of a spot replica: so much times the square of the target,
at most."""
LAUNCH_PRICE = 0.2
"""What a launch costs, in prices of a spot replica and step: so that nothing is moved for nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """What is believed of spot in one zone. `age_s` since spot was last taken back or refused there."""

    age_s: float = FRESH_S
    was_granted: bool | None = None
    """Whether the last launch was; None where none was tried."""
    launch_age_s: float = 0.0

    def lost_within(self, horizon_s: float) -> float:
        """The chance that spot of this zone is taken back within that time."""
        return 1.0 - float(((YOUNG_S + self.age_s) / (YOUNG_S + self.age_s + horizon_s)) ** EXPONENT)

    def launches(self, held: int) -> float:
        """The chance that one more is granted."""
        if held:
            refused = 0.0 if self.was_granted is not False else float(np.exp(-self.launch_age_s / REFUSED_S))
            return HELD_LAUNCHES + (REFUSED_LAUNCHES - HELD_LAUNCHES) * refused
        if self.was_granted is None:
            return LAUNCHES
        weight = float(np.exp(-self.launch_age_s / FORGOTTEN_S))
        return LAUNCHES + (float(self.was_granted) - LAUNCHES) * weight

    def after(self, step_s: float, *, held: int, asked: int, got: int) -> Belief:
        """The belief a step later: `held` before, `asked` for, `got`."""
        is_trouble = got < asked
        launched = asked > held
        return Belief(
            age_s=0.0 if is_trouble else self.age_s + step_s,
            was_granted=got >= asked if launched else self.was_granted,
            launch_age_s=0.0 if launched else self.launch_age_s + step_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """Spot of one product in one zone: `held` replicas, `ready` of them past their warm-up."""

    region: str
    held: int = 0
    ready: int = 0
    belief: Belief = Belief()


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How many replicas to hold: on spot for each zone, and on demand."""

    spot: tuple[int, ...]
    on_demand: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What falling short costs, in prices of one spot replica: `short` for each step with fewer than `target` ready,
    `dark` on top of it with none."""

    target: int
    warmup_s: float
    step_s: float
    short: float
    dark: float

    @classmethod
    def of(cls, target: int, warmup_s: float, step_s: float) -> Terms:
        """One rule for every fleet and warm-up."""
        return cls(
            target=target,
            warmup_s=warmup_s,
            step_s=step_s,
            short=ON_DEMAND_PRICE * target * (1.0 + SHORT_PART / target**2),
            dark=min(MOST_DARK_PRICE, DARK_PRICE * target**2),
        )


def order(terms: Terms, zones: Sequence[Zone], on_demand: int, on_demand_ready: int) -> Order:
    """What to hold from now on, given what is held."""
    horizon_s = terms.warmup_s + terms.step_s
    regions = sorted({zone.region for zone in zones})
    region = np.array([regions.index(zone.region) for zone in zones], dtype=np.int64)
    held = np.array([zone.held for zone in zones], dtype=np.int64)
    lost = np.array([zone.belief.lost_within(horizon_s) for zone in zones])
    launches = np.array([zone.belief.launches(zone.held) for zone in zones])
    spot, wanted = _cheapest(
        held, lost, launches, region, len(regions), on_demand, terms.target, terms.short, terms.dark
    )
    wanted = _kept(terms.target, zones, spot, wanted, on_demand, on_demand_ready)
    missing = terms.target - int(held.sum()) - on_demand
    if missing > 0:  # asked for everywhere at once, as a refusal costs nothing; what is too many goes a step later
        spot = np.maximum(spot, held + missing)
    return Order(spot=tuple(int(one) for one in spot), on_demand=wanted)


def _kept(target: int, zones: Sequence[Zone], spot: Ints, wanted: int, on_demand: int, on_demand_ready: int) -> int:
    """What of `wanted` on demand is held at least, with `spot` raised in place: nothing ready goes that the target
    needs until what replaces it is ready, and nothing on demand for spot that is not granted."""
    kept = sum(min(int(many), zone.ready) for many, zone in zip(spot, zones, strict=True))
    needed = target - kept - min(wanted, on_demand_ready)
    for at in sorted(range(len(zones)), key=lambda at: -zones[at].belief.age_s):
        back = min(needed, zones[at].ready - int(spot[at]))
        if back > 0:
            spot[at] += back
            needed -= back
    granted = sum(min(int(many), zone.held) for many, zone in zip(spot, zones, strict=True))
    return max(wanted, min(on_demand, target - granted), min(on_demand_ready, wanted + needed))


@compiled
def _survivors(
    counts: Ints, held: Ints, lost: Floats, launches: Floats, region: Ints, regions: int, most: int
) -> Floats:
    """[most + 1] chance of each number of replicas that serve when the horizon is over."""
    all_of_them = np.zeros(most + 1)
    all_of_them[0] = 1.0
    size = 0
    for of_region in range(regions):
        together, many = 0.0, 0
        for zone in range(len(counts)):
            if region[zone] == of_region and counts[zone]:
                together += lost[zone]
                many += 1
        if not many:
            continue
        together = TOGETHER * together / many if many > 1 else 0.0
        here = np.zeros(most + 1)
        here[0] = 1.0
        here_size = 0
        for zone in range(len(counts)):
            count = counts[zone]
            if region[zone] != of_region or not count:
                continue
            alone = max(0.0, 1.0 - (1.0 - lost[zone]) / (1.0 - together))
            old = min(count, held[zone])
            granted = 1.0 if count <= held[zone] else launches[zone]
            after = np.zeros(most + 1)
            for number in range(here_size + 1):
                after[number] += here[number] * alone
                after[number + old] += here[number] * (1.0 - alone) * (1.0 - granted)
                after[number + count] += here[number] * (1.0 - alone) * granted
            here = after
            here_size += count
        here *= 1.0 - together
        here[0] += together
        after = np.zeros(most + 1)
        for number in range(size + 1):
            for more in range(here_size + 1):
                after[number + more] += all_of_them[number] * here[more]
        all_of_them = after
        size += here_size
    return all_of_them


@compiled
def _expected(
    counts: Ints,
    held: Ints,
    lost: Floats,
    launches: Floats,
    region: Ints,
    regions: int,
    on_demand: int,
    target: int,
    short: float,
    dark: float,
) -> tuple[float, int]:
    """The least expected price of these spot replicas, and how many on demand it takes."""
    most = counts.sum()
    chance = _survivors(counts, held, lost, launches, region, regions, most)
    usd = 0.0
    for zone in range(len(counts)):
        new = max(0, counts[zone] - held[zone])
        usd += counts[zone] - new + new * launches[zone] + LAUNCH_PRICE * new * launches[zone]
    least, wanted = np.inf, 0
    below = 0.0
    for number in range(min(most + 1, target)):
        below += chance[number]
    for many in range(target + 1):
        price = usd + ON_DEMAND_PRICE * many + short * below + LAUNCH_PRICE * max(0, many - on_demand)
        if not many:
            price += dark * chance[0]
        if price < least - 1e-9:
            least, wanted = price, many
        if target - 1 - many >= 0 and target - 1 - many <= most:
            below -= chance[target - 1 - many]
    return least, wanted


@compiled
def _cheapest(
    held: Ints,
    lost: Floats,
    launches: Floats,
    region: Ints,
    regions: int,
    on_demand: int,
    target: int,
    short: float,
    dark: float,
) -> tuple[Ints, int]:
    """[zones] replicas on spot and how many on demand: a local search from what is held and from even spreads."""
    zones = len(held)
    rank = np.argsort(lost + 0.05 * (1.0 - launches) * (held == 0))
    best, least, wanted = held.copy(), np.inf, 0
    for start in range(zones + 1):
        counts = held.copy()
        if start:
            counts[:] = 0
        for at in range(target - counts.sum()):
            counts[rank[at % max(start, 1)]] += 1
        usd, many = _expected(counts, held, lost, launches, region, regions, on_demand, target, short, dark)
        is_better = True
        while is_better:
            is_better = False
            for source in range(-1, zones):
                for sink in range(-1, zones):
                    if source == sink or (source >= 0 and not counts[source]):
                        continue
                    if source >= 0:
                        counts[source] -= 1
                    if sink >= 0:
                        counts[sink] += 1
                    is_allowed = target <= counts.sum() <= 2 * target
                    if is_allowed:
                        tried, with_many = _expected(
                            counts, held, lost, launches, region, regions, on_demand, target, short, dark
                        )
                        if tried < usd - 1e-9:
                            usd, many, is_better = tried, with_many, True
                            continue
                    if source >= 0:
                        counts[source] += 1
                    if sink >= 0:
                        counts[sink] -= 1
        if usd < least - 1e-9:
            least, wanted = usd, many
            best = counts.copy()
    return best, wanted
