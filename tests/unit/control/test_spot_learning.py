"""What happened to replicas on spot is counted as what it was."""

from __future__ import annotations

from typing import Any

import pytest

from federation.control import setbacks, spot_learning
from federation.control.spot_learning import Seen, look
from federation.state.keys import ClusterPool, PlacementKey
from federation.state.reduce import BrokerLost, SetbacksSeen, SpotSeen
from federation.state.spot import Counts
from federation.state.world import World
from federation.wire.messages import ReplicaReport
from tests.builders import L4_SPOT, a_model, a_report, a_world, heard, told

KEY = PlacementKey("chat", "fra", L4_SPOT)
POOL = ClusterPool("fra", L4_SPOT)


class Watch:
    """Looks every ten seconds at a cluster that reports what it is told to."""

    def __init__(self) -> None:
        self.world: World = a_world("fra", models=(a_model(),))
        self.seen: Seen | None = None
        self.now_s, self.seq = 0.0, 0

    def after(self, wanted: int, *, seconds: float = 10.0, **fields: Any) -> Counts:
        """The counts after a report with these replicas on spot, of which so many were ordered."""
        self.now_s += seconds
        self.seq += 1
        replica = ReplicaReport(model="chat", pool=L4_SPOT, **({"desired": wanted} | fields))
        self.world = heard(self.world, a_report("fra", seq=self.seq, replicas=(replica,)), now_s=self.now_s)
        desired = {KEY: wanted}
        found, notes = setbacks.look(self.world, desired, self.now_s)
        self.world = told(self.world, SetbacksSeen(setbacks=found, notes=notes))
        self.seen, counts = look(self.world, desired, self.seen, self.now_s, self.now_s)
        self.world = told(self.world, SpotSeen(counts=counts))
        return counts.get(POOL, Counts(at_s=0.0))


def test_a_replica_that_lost_its_node_was_taken_back() -> None:
    """Plans would go on expecting what the provider's average says."""
    watch = Watch()
    watch.after(4, ready=4, scheduled=4)
    hour = watch.after(4, ready=4, scheduled=4)
    assert hour.hours == pytest.approx(4 * 10 / 3600)
    lost = watch.after(4, ready=2, scheduled=2)
    assert (lost.losses, lost.granted) == (2.0, 0.0)
    back = watch.after(4, ready=2, scheduled=4)
    assert back.losses == pytest.approx(2.0, rel=1e-3)
    assert back.granted == 2.0


def test_a_crash_and_an_order_are_no_loss() -> None:
    """Spot would be avoided for a bug of the model, or because it was scaled down."""
    watch = Watch()
    watch.after(4, ready=4, scheduled=4)
    assert watch.after(4, ready=1, scheduled=4, restarts=3).losses == 0.0
    assert watch.after(2, ready=2, scheduled=2).losses == 0.0


def test_what_was_not_watched_is_not_counted() -> None:
    """A controller that was cut off for a night would count a night of losses that nobody saw."""
    watch = Watch()
    watch.after(4, ready=4, scheduled=4)
    watch.world = told(watch.world, BrokerLost(now_s=watch.now_s))
    before = watch.world.spot
    watch.seen, counts = look(watch.world, {KEY: 4}, watch.seen, watch.now_s + 5.0, 0.0)
    assert counts is before
    longest = spot_learning.LONGEST_S
    fresh = Watch()
    fresh.after(4, ready=4, scheduled=4)
    assert fresh.after(4, seconds=9_000.0, ready=4, scheduled=4).hours <= 4 * longest / 3600 + 1e-9


def test_a_launch_that_finds_no_room_was_refused() -> None:
    """A market that is sold out would be planned for as if it were open."""
    watch = Watch()
    watch.after(4, ready=0, scheduled=0, cause="unschedulable", reason="0/3 nodes")
    counts = Counts(at_s=0.0)
    for _ in range(20):
        counts = watch.after(4, ready=0, scheduled=0, cause="unschedulable", reason="0/3 nodes")
    assert counts.refused >= 1.0
    assert counts.granted == 0.0
