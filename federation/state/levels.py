"""How much one front door is believed to count, all together, of what it claims.

* At once: what it was known to count (the most that was believed of it within the last whole day), `STEP_FACTOR` times
  its level, or a part of what all others count. More waits until it has lasted for `Timing.lasting_s`, then one such
  step is believed and the rest waits for as long again.
* By lasting alone: no more than `DAY_FACTOR` times what it was known to count, or as much as all others are known to
  count on top of that, as their users may come in here. While more is claimed no day ends: what is beyond waits until
  somebody confirms it, or declares `maxRequestsPerSecond`, which is then the bound in place of this one.
* At a controller's start the bound is that of what the last plan remembers of it; where nothing at all is remembered
  the first value is believed, up to `MOST_RPS`.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from federation.state import plausible
from federation.state.world import ClusterState, Known, Level, World

MOST_RPS = 1_000_000.0
"""Of one front door, where the catalogue declares nothing."""
STEP_FACTOR = 4.0
"""A front door is believed to count so many times its level; again so many when that has lasted."""
DAY_FACTOR = 16.0
"""Steps lead no further than so many times what it was known to count for a day."""
DAY_S = 86_400.0
FLEET_SHARE = 0.25
"""Or this part more of what all others count together."""
NEWCOMER_SHARE = 1.0
"""The same of a front door that was not heard before: its users were there, and too few replicas would be kept."""
GROWTH_FROM = 0.01
"""Less than this part more than what is known is no growth."""
LEAST_RPS = 20.0
"""Or so much; who is known to count less is taken to count this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Believed:
    """The level of a front door after a claim, the most that is believed of it now, and by which bound.

    `most_rps` is declared or physical, `by_lasting_rps` as far as steps lead.
    """

    level: Level
    rps: float
    most_rps: float
    by_lasting_rps: float


def most_rps(world: World, cluster: str) -> float:
    """The bound of a front door that no claim and no confirmation passes."""
    declared = _declared_rps(world, cluster)
    return MOST_RPS if declared is None else declared


def is_declared(world: World, cluster: str) -> bool:
    """Whether the catalogue says what its front door counts at most."""
    return _declared_rps(world, cluster) is not None


def _declared_rps(world: World, cluster: str) -> float | None:
    document = plausible.document_of(world, cluster)
    return document.spec.max_requests_per_second if document is not None else None


def growth_part(world: World, state: ClusterState) -> float:
    """Which part of a front door's counts is beyond what it was known to count, in [0, 1): growth that nobody vouches
    for. None of it is where the catalogue says what it counts at most."""
    if state.level is None or is_declared(world, state.name):
        return 0.0
    known = max(state.level.known.rps, LEAST_RPS)
    if state.level.known.peak_rps <= known * (1.0 + GROWTH_FROM):
        return 0.0
    counted = sum(row.requests_per_second for row in state.counted)
    return 1.0 - known / counted if counted > known * (1.0 + GROWTH_FROM) else 0.0


def remembered(known: Known) -> Level:
    """The level at a controller's start of a front door that an earlier one knew."""
    return Level(rps=known.rps, since_s=known.since_s, known=known, is_remembered=True)


def believe(world: World, state: ClusterState, total: float, now_s: float, *, is_memory: bool) -> Believed:
    """What to believe of a front door that claims to count `total` requests per second.

    Args: is_memory: by the broker's memory, from before anything was heard.
    """
    most = most_rps(world, state.name)
    if state.level is None and _knows_nothing(world, now_s, is_memory=is_memory):
        rps = min(total, most)
        return Believed(level=_at(rps, now_s), rps=rps, most_rps=most, by_lasting_rps=most)
    level = state.level or _at(0.0, now_s)
    by_lasting = _by_lasting(world, state, level.known, total, most)
    if level.is_remembered:
        rps = min(total, by_lasting)
        level = replace(level, rps=rps, since_s=now_s, is_remembered=False)
    else:
        level, rps = _stepped(world, state, level, total, by_lasting, now_s)
    if level.known.rps == 0.0:
        level = replace(level, known=replace(level.known, rps=rps))
    known = _after(level.known, rps, now_s, is_beyond=total > by_lasting)
    return Believed(level=replace(level, known=known), rps=rps, most_rps=most, by_lasting_rps=by_lasting)


def _at(rps: float, now_s: float) -> Level:
    return Level(rps=rps, since_s=now_s, known=Known(rps=rps, peak_rps=rps, since_s=now_s))


def confirmed(rps: float, now_s: float, *, is_doubted: bool) -> Level:
    """The level after somebody confirmed that the front door counts `rps`. Args: is_doubted: it claims more."""
    return replace(_at(rps, now_s), is_doubted=is_doubted)


def _knows_nothing(world: World, now_s: float, *, is_memory: bool) -> bool:
    """Whether the controller has just begun to listen and remembers no front door: nothing to hold a claim against."""
    if not is_memory and now_s - world.started_s > world.timing.stale_after_s:
        return False
    levels = [state.level for state in world.clusters.values() if state.level is not None]
    return all(level.known.since_s >= world.started_s for level in levels)


def _by_lasting(world: World, state: ClusterState, known: Known, total: float, most: float) -> float:
    """As far as steps lead."""
    if is_declared(world, state.name):
        return most
    bound = DAY_FACTOR * max(known.rps, LEAST_RPS)
    if total > bound:
        others = sum(one.level.known.rps for one in _others(world, state.name) if one.level is not None)
        bound = max(bound, known.rps + others)
    return min(most, bound)


def _stepped(
    world: World, state: ClusterState, level: Level, total: float, by_lasting: float, now_s: float
) -> tuple[Level, float]:
    """The level after a claim, and how much of that is believed at most."""
    has_lasted = now_s - level.since_s >= world.timing.lasting_s
    if has_lasted and not level.is_doubted:
        counted = sum(row.requests_per_second for row in state.counted)
        level = replace(level, rps=counted or level.rps, since_s=now_s)
    step = max(STEP_FACTOR * level.rps, level.known.rps, LEAST_RPS)
    if total > step:
        share = NEWCOMER_SHARE if state.level is None else FLEET_SHARE
        others = sum(one.level.rps for one in _others(world, state.name) if one.level is not None)
        step = max(step, level.rps + share * others)
    step = min(step, by_lasting)
    held = min(level.rps, by_lasting) or step
    if not level.is_doubted:
        if total <= step:
            return replace(level, rps=level.rps or total), total
        return replace(level, rps=held, since_s=now_s, is_doubted=True), held
    if total <= held:
        return replace(level, is_doubted=False), total
    if not has_lasted:
        return level, held
    return replace(level, rps=min(total, step), since_s=now_s, is_doubted=total > step), min(total, step)


def _others(world: World, cluster: str) -> list[ClusterState]:
    return [state for name, state in world.clusters.items() if name != cluster]


def _after(known: Known, rps: float, now_s: float, *, is_beyond: bool) -> Known:
    """What is known once `rps` is believed. Args: is_beyond: more is claimed than lasting makes believed."""
    if is_beyond:
        return replace(known, peak_rps=rps, since_s=now_s)
    if now_s - known.since_s >= DAY_S:
        return Known(rps=max(known.peak_rps, rps), peak_rps=rps, since_s=now_s)
    return replace(known, peak_rps=max(known.peak_rps, rps))
