"""Learns of spot from reports: replicas that lost their node, and launches that found one or did not. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from federation.state.keys import ClusterPool, PlacementKey
from federation.state.phases import Phase
from federation.state.spot import Counts
from federation.state.world import World
from federation.wire.messages import Cause

EVERY_S = 10.0
"""At least, between two looks, in seconds of the controller's clock."""
LONGEST_S = 120.0
"""Between two looks; a longer time was not watched, and counts for so much."""
NO_ROOM: frozenset[Cause] = frozenset({"unschedulable", "quota"})
"""Causes that say that a launch was refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The newest look: replicas with a node by placement on spot, and how often each was given up for want of room."""

    at_s: float
    scheduled: Mapping[PlacementKey, int] = field(default_factory=dict)
    strikes: Mapping[PlacementKey, int] = field(default_factory=dict)


def look(
    world: World, desired: Mapping[PlacementKey, int], before: Seen | None, now_s: float, wall_s: float
) -> tuple[Seen, Mapping[ClusterPool, Counts]]:
    """The next look, and the counts after it. Args: desired: what agents were told. now_s: monotonic.

    A replica that lost its node while it was still wanted was taken back; one that crashed has its node yet. A launch
    was granted when another replica has a node, and refused when it was given up for want of room. Clusters that are
    not heard, and all of them under the brake, say nothing.
    """
    if world.brake is not None or world.deaf:
        return (Seen(at_s=now_s) if before is None else before), world.spot
    scheduled: dict[PlacementKey, int] = {}
    for name, state in world.clusters.items():
        if state.phase is not Phase.READY or state.report is None:
            continue
        for one in state.report.replicas:
            if one.pool.market == "spot" and one.scheduled is not None:
                scheduled[PlacementKey(one.model, name, one.pool)] = min(one.scheduled, one.desired)
    strikes = {
        key: one.strikes
        for key, one in world.setbacks.backoffs.items()
        if key.pool.market == "spot" and one.cause in NO_ROOM
    }
    seen = Seen(at_s=now_s, scheduled=scheduled, strikes=strikes)
    if before is None:
        return seen, world.spot
    hours = min(max(0.0, now_s - before.at_s), LONGEST_S) / 3600.0
    learnt = dict(world.spot)
    for key in scheduled.keys() | strikes.keys():
        was, is_now = before.scheduled.get(key), scheduled.get(key, 0)
        if was is None and key in scheduled:
            continue  # it is heard for the first time, or again: what happened meanwhile is not known
        wanted = desired.get(key, 0)
        lost = max(0, min(was or 0, wanted) - is_now)
        granted = max(0, min(is_now, wanted) - (was or 0))
        refused = max(0, strikes.get(key, 0) - before.strikes.get(key, 0))
        if is_now or lost or granted or refused:
            pool = ClusterPool(key.cluster, key.pool)
            counts = learnt.get(pool, Counts(at_s=wall_s)).at(wall_s)
            learnt[pool] = counts.plus(
                hours=(was or 0) * hours, losses=float(lost), granted=float(granted), refused=float(refused)
            )
    return seen, {key: one for key, one in learnt.items() if key.cluster in world.clusters}
