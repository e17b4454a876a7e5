"""The level of a front door: how much of its claimed total is believed.

* At once: the known peak (the most that was believed within the last whole day), `STEP_FACTOR` times the level, or the
  level plus a share of what all other front doors count. A higher claim waits for `Timing.lasting_s`; then one such
  step is believed, and the rest waits as long again.
* By lasting alone: at most `DAY_FACTOR` times the known peak, or that peak plus as much as all others are known to
  count, because their users may come in here. While more is claimed no day ends. Anything higher waits for `isochrone
  confirm`, or for `maxRequestsPerSecond`, which then is the bound instead.
* At a controller's start the bound follows from what the last plan remembers of the front door. Where nothing at all is
  remembered, the first value is believed, up to `MOST_RPS`.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from federation.state import plausible
from federation.state.world import ClusterState, Known, Level, World

MOST_RPS = 1_000_000.0
"""The bound of one front door for which the catalogue declares none."""
STEP_FACTOR = 4.0
"""One step: a claim up to this multiple of the level is believed at once; the next step waits until it has lasted."""
DAY_FACTOR = 16.0
"""By lasting alone, a claim is believed up to this multiple of the peak known for a day."""
DAY_S = 86_400.0
FLEET_SHARE = 0.25
"""Or up to its level plus this share of what all other front doors count together."""
NEWCOMER_SHARE = 1.0
"""The same share for a front door that was not heard before: its users existed already, and a lower share would keep
too few replicas."""
GROWTH_FROM = 0.01
"""An excess over the known peak below this fraction does not count as growth."""
LEAST_RPS = 20.0
"""The least level of a front door: one that is known to count less is treated as counting this much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Believed:
    """The level after a claim, how much of the claim is believed, and by which bound.

    `most_rps` is the declared or physical bound, `by_lasting_rps` the bound that steps can reach.
    """

    level: Level
    rps: float
    most_rps: float
    by_lasting_rps: float


def most_rps(world: World, cluster: str) -> float:
    """The bound that neither a claim nor a confirmation passes."""
    declared = _declared_rps(world, cluster)
    return MOST_RPS if declared is None else declared


def is_declared(world: World, cluster: str) -> bool:
    """Whether the catalogue declares a bound for the front door."""
    return _declared_rps(world, cluster) is not None


def _declared_rps(world: World, cluster: str) -> float | None:
    document = plausible.document_of(world, cluster)
    return document.spec.max_requests_per_second if document is not None else None


def growth_part(world: World, state: ClusterState) -> float:
    """The fraction of a front door's counts beyond its known peak, in [0, 1): unconfirmed growth. It is 0 where the
    catalogue declares a bound."""
    if state.level is None or is_declared(world, state.name):
        return 0.0
    known = max(state.level.known.rps, LEAST_RPS)
    if state.level.known.peak_rps <= known * (1.0 + GROWTH_FROM):
        return 0.0
    counted = sum(row.requests_per_second for row in state.counted)
    return 1.0 - known / counted if counted > known * (1.0 + GROWTH_FROM) else 0.0


def remembered(known: Known) -> Level:
    """The level of a front door at a controller's start, as an earlier controller remembered it."""
    return Level(rps=known.rps, since_s=known.since_s, known=known, is_remembered=True)


def believe(world: World, state: ClusterState, total: float, now_s: float, *, is_memory: bool) -> Believed:
    """How much of a front door's claim of `total` requests per second is believed.

    Args: is_memory: the claim is retained by the broker, from before this controller heard anything.
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
    """The level after an operator confirmed `rps`. Args: is_doubted: the front door claims more than that."""
    return replace(_at(rps, now_s), is_doubted=is_doubted)


def _knows_nothing(world: World, now_s: float, *, is_memory: bool) -> bool:
    """Whether the controller has only begun to listen and remembers no front door, so that no claim can be compared."""
    if not is_memory and now_s - world.started_s > world.timing.stale_after_s:
        return False
    levels = [state.level for state in world.clusters.values() if state.level is not None]
    return all(level.known.since_s >= world.started_s for level in levels)


def _by_lasting(world: World, state: ClusterState, known: Known, total: float, most: float) -> float:
    """The bound that steps can reach."""
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
    """The level after a claim, and the most of the claim that is believed."""
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
    """The known peaks once `rps` is believed. Args: is_beyond: the claim is higher than lasting alone can make
    believed."""
    if is_beyond:
        return replace(known, peak_rps=rps, since_s=now_s)
    if now_s - known.since_s >= DAY_S:
        return Known(rps=max(known.peak_rps, rps), peak_rps=rps, since_s=now_s)
    return replace(known, peak_rps=max(known.peak_rps, rps))
