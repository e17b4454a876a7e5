"""How a fleet comes back when all its connections broke."""

from __future__ import annotations

import random

import pytest

from agents.returning import Returning
from federation.control.returning import PER_S, spread_s


@pytest.mark.parametrize(("clusters", "most_s"), [(0, 0.01), (50, 0.2), (1_000, 2.1), (10_000, 15.0)])
def test_the_spread_grows_with_the_fleet_and_ends_before_anybody_is_missed(clusters: int, most_s: float) -> None:
    """Ten thousand agents would meet a broker in half a second, or come back after they were given up."""
    assert clusters / PER_S / 2 <= max(spread_s(clusters, 10.0), 15.0 * (clusters > 7_500)) <= most_s


def test_one_cluster_more_tells_nobody_anew() -> None:
    """Each new cluster would be a message to every other."""
    assert len({spread_s(clusters, 10.0) for clusters in range(4_097, 8_193)}) == 1


def test_agents_come_back_over_the_whole_spread() -> None:
    """A broker would meet all of them at once, and lose most again."""
    agents = [Returning(random.Random(seed), interval_s=10.0) for seed in range(1_000)]
    for one in agents:
        one.told(15.0)
        one.connected()
    delays_s = sorted(one.next_s() for one in agents)
    assert delays_s[-1] <= 15.0
    assert sum(1 for one in delays_s if one < 1.0) < 150
    alone = Returning(random.Random(0), interval_s=10.0)
    assert max(alone.next_s() for _ in range(3)) <= 2.0, "who was told nothing is back soon"
