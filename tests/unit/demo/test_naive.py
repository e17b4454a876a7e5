"""The naive plans do what their names say, within the same hard rules as ours."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.demo import naive
from federation.demo.physics import Physics
from federation.demo.scoring import Observed, Score
from federation.wire.messages import PoolKey
from tests.unit.demo import tiny

L4 = PoolKey(product="L4")
L4_SPOT = PoolKey(product="L4", market="spot")
SPOT_TOO = (tiny.pool(devices=8), tiny.pool("spot", devices=8, usd=0.3))


def replicas(plan: Observed) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = defaultdict(int)
    for (model, cluster, _), count in plan.ready.items():
        found[model, cluster] += count
    return dict(found)


def check_hard_rules(physics: Physics, day_fraction: float, plan: Observed) -> None:
    """Devices, who is alive, residency, and shares that are shares."""
    pools = physics.world_pools(day_fraction)
    used: dict[tuple[str, PoolKey], int] = defaultdict(int)
    for (model, cluster, key), count in plan.ready.items():
        assert count > 0
        used[cluster, key] += count * physics.shapes[model, cluster, key].devices
    assert all(key in pools and count <= pools[key].devices for key, count in used.items())
    for (model, cell), shares in plan.shares.items():
        assert sum(shares.values()) == pytest.approx(1.0)
        for cluster in shares:
            assert physics.is_alive(cluster, day_fraction)
            assert physics.may_serve(model, cell, cluster)
    assert plan.held == plan.ready


@given(day_fraction=st.floats(0, 1, exclude_max=True), name=st.sampled_from(sorted(naive.PLANNERS)))
@settings(max_examples=40, deadline=None)
def test_hard_rules_hold_at_any_moment(physics: Physics, day_fraction: float, name: str) -> None:
    """Ours would be compared with plans that no world could carry out, or that break the law."""
    check_hard_rules(physics, day_fraction, naive.PLANNERS[name](physics, day_fraction))


@given(
    devices=st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)),
    per_replica=st.integers(1, 3),
    rps=st.tuples(st.floats(0.1, 60), st.floats(0.1, 60)),
    max_fraction=st.floats(0, 1),
    name=st.sampled_from(sorted(naive.PLANNERS)),
)
@settings(deadline=None)
def test_hard_rules_hold_in_any_small_world(
    devices: tuple[int, int, int, int],
    per_replica: int,
    rps: tuple[float, float],
    max_fraction: float,
    name: str,
) -> None:
    """The same, where devices are scarce, spot is limited and two models want the same."""
    a, b, c, d = devices
    physics = tiny.world(
        [
            tiny.berlin(tiny.pool(devices=a), tiny.pool("spot", devices=b, usd=0.3)),
            tiny.tokyo(tiny.pool(devices=c), tiny.pool("spot", devices=d, usd=0.4)),
        ],
        models=[tiny.model(), tiny.model("rank", devices=per_replica)],
        policies=[tiny.policy("chat", "rank", spot={"maxFraction": max_fraction})],
        rps={"chat": rps[0], "rank": rps[1]},
    )
    plan = naive.PLANNERS[name](physics, 0.0)
    check_hard_rules(physics, 0.0, plan)
    totals: dict[tuple[str, bool], int] = defaultdict(int)
    for (model, _, key), count in plan.ready.items():
        totals[model, key.market == "spot"] += count
    for model in physics.models:
        spot = totals[model, True]
        assert spot <= max_fraction * (spot + totals[model, False]) + 1e-9


def test_nearest_goes_home_and_no_further() -> None:
    """The baseline would spill over like ours, and would not be what its name says. Berlin needs 5 of its 4 devices."""
    plan = naive.nearest(tiny.world([tiny.berlin(), tiny.tokyo()]), 0.0)
    assert plan.shares == {("chat", "Berlin"): {"berlin": 1.0}, ("chat", "Tokyo"): {"tokyo": 1.0}}
    assert replicas(plan) == {("chat", "berlin"): 4, ("chat", "tokyo"): 2}


def test_nearest_skips_clusters_without_the_accelerator() -> None:
    """Users would be sent where nothing can serve them, which would make the baseline worse than it is."""
    plan = naive.nearest(tiny.world([tiny.berlin(tiny.pool(product="T4")), tiny.tokyo()]), 0.0)
    assert plan.shares[("chat", "Berlin")] == {"tokyo": 1.0}


def test_nearest_takes_the_cheapest_pool_first() -> None:
    """The baseline would pay more than it must."""
    plan = naive.nearest(tiny.world([tiny.berlin(*SPOT_TOO), tiny.tokyo(*SPOT_TOO)]), 0.0)
    assert dict(plan.ready) == {("chat", "berlin", L4_SPOT): 5, ("chat", "tokyo", L4_SPOT): 2}


def test_even_is_even() -> None:
    """The baseline would not be what its name says: 140/s at 20/s a replica are 7, four and three."""
    physics = tiny.world([tiny.berlin(tiny.pool(devices=8)), tiny.tokyo(tiny.pool(devices=8))])
    plan = naive.even(physics, 0.0)
    assert sorted(replicas(plan).values()) == [3, 4]
    for shares in plan.shares.values():
        assert sorted(shares.values()) == pytest.approx([3 / 7, 4 / 7])


def test_even_keeps_residents_at_home() -> None:
    """Germans' 100/s would be sent to Tokyo; the others' 40/s go evenly over what the two have left."""
    rule = {"usersIn": {"countries": ["DE"]}, "clustersIn": {"jurisdictions": ["DE"]}}
    physics = tiny.world(
        [tiny.berlin(tiny.pool(devices=8)), tiny.tokyo(tiny.pool(devices=8))],
        policies=[tiny.policy("chat", residency=[rule])],
    )
    plan = naive.even(physics, 0.0)
    assert plan.shares[("chat", "Berlin")] == {"berlin": 1.0}
    assert plan.shares[("chat", "Tokyo")] == {"berlin": 0.5, "tokyo": 0.5}
    assert replicas(plan) == {("chat", "berlin"): 6, ("chat", "tokyo"): 1}


@pytest.mark.parametrize("name", sorted(naive.PLANNERS))
def test_scarce_devices_are_shared_by_need(name: str) -> None:
    """A model would be starved because of its name, and the baseline would look worse than its idea."""
    physics = tiny.world(
        [tiny.berlin(tiny.pool(devices=3)), tiny.tokyo(tiny.pool(devices=3))],
        models=[tiny.model(), tiny.model("rank")],
        policies=[tiny.policy("chat", "rank")],
        rps={"chat": 10.0, "rank": 10.0},
    )
    counts = replicas(naive.PLANNERS[name](physics, 0.0))
    assert sum(counts.values()) == 6
    for name in physics.clusters:
        assert abs(counts["chat", name] - counts["rank", name]) == 1


def test_the_baselines_are_no_straw_men(physics: Physics) -> None:
    """Ours would win against plans that hardly try: even serves everybody, and what nearest serves is on time."""
    even, nearest = Score(physics), Score(physics)
    for step in range(8):
        even.add(step / 8, 3.0, naive.even(physics, step / 8))
        nearest.add(step / 8, 3.0, naive.nearest(physics, step / 8))
    assert even.summary().unserved_share < 0.01
    served = nearest.summary()
    assert served.within_objective_share == pytest.approx(1.0 - served.unserved_share, abs=0.02)
