"""The day of other tools: within the same hard rules as ours, and as late as they are."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from federation.demo import rivals
from federation.demo.physics import Physics
from federation.demo.replay import AT_ONCE, KARMADA, RIVALS, SKYSERVE, Replay, RivalTool
from federation.demo.scoring import Observed
from federation.state.keys import ClusterPool
from tests.unit.demo import tiny

PROMPT = {rival.name: rival for rival in RIVALS if rival.delays == AT_ONCE}
OUTAGE = 0.58
"""When the demo's day loses Frankfurt."""
MINUTE = 1.0 / 1440.0


def check_hard_rules(physics: Physics, day_fraction: float, plan: Observed) -> None:
    """Devices, residency, and shares that are shares."""
    pools = physics.world_pools(day_fraction)
    used: dict[ClusterPool, int] = defaultdict(int)
    for key, count in plan.ready.items():
        assert count > 0
        used[key.place] += count * physics.shapes[key].devices
    assert all(key in pools and count <= pools[key].devices for key, count in used.items())
    for (model, cell), shares in plan.shares.items():
        assert 0.0 < sum(shares.values()) <= 1.0 + 1e-9
        assert all(physics.may_serve(model, cell, cluster) for cluster in shares)


@given(day_fraction=st.floats(0, 1, exclude_max=True), name=st.sampled_from([rival.name for rival in RIVALS]))
@settings(max_examples=30, deadline=None)
def test_hard_rules_hold_at_any_moment(physics: Physics, day_fraction: float, name: str) -> None:
    """Ours would be compared with plans that no world could carry out, or that break the law."""
    rival = next(one for one in RIVALS if one.name == name)
    check_hard_rules(physics, day_fraction, Replay(physics, rival).observed(day_fraction))


@given(
    devices=st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)),
    per_replica=st.integers(1, 3),
    rps=st.tuples(st.floats(0.1, 60), st.floats(0.1, 60)),
    max_fraction=st.floats(0, 1),
    name=st.sampled_from(sorted(PROMPT)),
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
    plan = Replay(physics, PROMPT[name]).observed(0.0)
    check_hard_rules(physics, 0.0, plan)
    totals: dict[tuple[str, bool], int] = defaultdict(int)
    for (model, _, key), count in plan.ready.items():
        totals[model, key.market == "spot"] += count
    for model in physics.models:
        spot = totals[model, True]
        assert spot <= max_fraction * (spot + totals[model, False]) + 1e-9


def test_a_lost_region_is_left_as_late_as_the_tool_is(physics: Physics) -> None:
    """A rival that reacts before it can know would make ours look slow, and one that never does would flatter it."""
    lost = {name for name in physics.clusters if not physics.is_alive(name, OUTAGE + MINUTE)}
    assert lost
    late = Replay(physics, RivalTool(name="late", plan=rivals.karmada_overflow, delays=KARMADA))
    prompt = Replay(physics, RivalTool(name="prompt", plan=rivals.karmada_overflow, delays=AT_ONCE))
    assert lost & _sent_to(late.observed(OUTAGE + 0.5 * MINUTE))
    assert not lost & _sent_to(late.observed(OUTAGE + MINUTE))
    assert not lost & _sent_to(prompt.observed(OUTAGE))
    hour = 60 * MINUTE
    assert _count(prompt.observed(OUTAGE + hour)) > _count(late.observed(OUTAGE + hour))


def test_less_demand_is_followed_later_than_more(physics: Physics) -> None:
    """The comparison would give the rival tool a delay that it does not have, or none."""
    slow = RivalTool(name="slow", plan=rivals.skyserve, delays=replace(SKYSERVE, down_s=7_200.0))
    prompt = RivalTool(name="prompt", plan=rivals.skyserve, delays=AT_ONCE)
    counts = [
        (_count(Replay(physics, slow).observed(at)), _count(Replay(physics, prompt).observed(at))) for at in (0.9, 0.95)
    ]
    assert all(late >= quick for late, quick in counts)
    assert any(late > quick for late, quick in counts)


def _sent_to(plan: Observed) -> set[str]:
    return {cluster for shares in plan.shares.values() for cluster in shares}


def _count(plan: Observed) -> int:
    return sum(plan.ready.values())
