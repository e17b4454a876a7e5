"""Spot that is taken back costs what its losses are expected to cost: in both engines, and by the checker's own sum."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from placement import engine
from placement.check import check
from placement.index import Index
from placement.large import plan as large
from placement.problem import Cell, Cluster, Demand, Model, Path, Pool, Problem, Shape
from placement.solution import Solution
from tests.bench.worlds import a_large_world
from tests.properties.test_engine import brute_force
from tests.properties.test_scale import solved_as_large
from tests.properties.worlds import a_world, without_floors

WORLDS = range(40)


def at_risk(problem: Problem, seed: int, *, times: float = 1.0) -> Problem:
    """The same where spot is taken back, of some clusters often."""
    rng = random.Random(17 * seed + 1)
    pools = []
    for one in problem.pools:
        losses, chance = rng.choice((0.02, 0.3, 3.0)), rng.choice((1.0, 0.4))
        if one.market == "spot":
            pools.append(replace(one, losses_per_hour=times * losses, replacement_chance=chance))
        else:
            pools.append(one)
    return replace(problem, pools=tuple(pools), reaction_s=60.0)


def on_spot(problem: Problem, solution: Solution) -> int:
    spot = {pool.name for pool in problem.pools if pool.market == "spot"}
    return sum(one.replicas for one in solution.replicas if one.pool in spot)


def test_no_placement_costs_less_at_its_risk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users would be on spot that costs more than on-demand once it is taken back."""
    compared = risky = 0
    for seed in WORLDS:
        problem = at_risk(a_world(seed), seed)
        exact, large = engine.solve(problem), solved_as_large(problem, monkeypatch)
        for made in (exact, large):
            assert check(problem, made) == (), f"seed {seed}"
        risky += exact.cost.risk > 0
        if exact.shortfalls or large.shortfalls:
            continue
        assert large.bound_usd_per_hour <= exact.cost.total + 1e-6, f"seed {seed}"
        best = brute_force(problem)
        if best is not None:
            compared += 1
            assert exact.cost.total == pytest.approx(best, rel=1e-6, abs=1e-6), f"seed {seed}"
    assert compared >= 5
    assert risky >= 10


def test_what_goes_unserved_as_spot_is_lost_stays_within_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy that promises 99 % would be accepted and kept by chance."""
    compared = bound = 0
    for seed in WORLDS:
        free = at_risk(without_floors(a_world(seed)), seed)
        models = tuple(replace(one, target_fraction=(0.9, 0.99, 0.999)[seed % 3]) for one in free.models)
        problem = replace(free, models=models)
        exact, large = engine.solve(problem), solved_as_large(problem, monkeypatch)
        for made in (exact, large):
            assert check(problem, made) == (), f"seed {seed}"
        bound += "availability" in {one.rule for one in check(problem, engine.solve(free))}
        best = brute_force(problem)
        if best is not None and not exact.shortfalls:
            compared += 1
            assert exact.cost.total == pytest.approx(best, rel=1e-6, abs=1e-6), f"seed {seed}"
    assert compared >= 5
    assert bound >= 5


def test_a_stated_risk_that_is_not_so_is_caught() -> None:
    """A plan could state a cost that its spot replicas do not have, and win a comparison by it."""
    seed = 3
    problem = at_risk(a_large_world(seed, clusters=10, cells=50, models=2), seed)
    made = engine.solve(problem)
    assert made.cost.risk > 0
    safe = replace(problem, pools=tuple(replace(one, losses_per_hour=0.0) for one in problem.pools))
    assert [one.subject for one in check(safe, made) if one.rule == "cost"] == ["risk"]


def test_the_more_is_lost_the_less_is_on_spot() -> None:
    """On-demand could not compete with spot that is taken back every few minutes."""
    for seed in (1, 2, 3):
        world = a_large_world(seed, clusters=20, cells=100, models=3)
        counts = [on_spot(one, engine.solve(one)) for one in (at_risk(world, seed, times=t) for t in (0.0, 1.0, 100.0))]
        assert counts[0] >= counts[1] > counts[2], f"seed {seed}: {counts}"


ZONES = ("a", "b", "c", "d", "e")


def zoned(zones: Sequence[str], losses_per_hour: float) -> Problem:
    """Spot in each of these zones, a little dearer in each, for users who need eight replicas."""
    return Problem(
        clusters=tuple(Cluster(name=one, provider="p", region="r", zone=one) for one in zones),
        pools=tuple(
            Pool(
                cluster=one,
                product="X",
                market="spot",
                vram_gib=24.0,
                devices=10,
                usd_per_device_hour=0.40 + 0.001 * at,
                losses_per_hour=losses_per_hour,
            )
            for at, one in enumerate(zones)
        ),
        models=(
            Model(
                name="m",
                shapes=(Shape(product="X", devices=1, requests_per_second=10.0),),
                objective_ms=100.0,
                late_usd_per_1000=0.5,
                unserved_usd_per_1000=20.0,
                warmup_s=180.0,
            ),
        ),
        cells=(Cell(name="u", country="DE"),),
        demands=(Demand(model="m", cell="u", requests_per_second=80.0),),
        paths=tuple(Path(cell="u", cluster=one, rtt_ms=10.0) for one in zones),
        reaction_s=60.0,
    )


@pytest.mark.parametrize(
    ("losses_per_hour", "wanted"), [(0.0, {"a": 10}), (0.2, dict.fromkeys(ZONES, 2))], ids=["never-lost", "lost"]
)
def test_what_one_event_takes_is_little_where_it_would_leave_users_unserved(
    losses_per_hour: float, wanted: dict[str, int]
) -> None:
    """All users of a model would wait for replicas to start whenever one zone's spot is taken back."""
    problem = zoned(ZONES, losses_per_hour)
    solution = engine.solve(problem)
    assert check(problem, solution) == ()
    assert {one.pool[0]: one.replicas for one in solution.replicas} == wanted


def test_what_is_mended_costs_what_is_told() -> None:
    """A plan of a large fleet would be mended towards what one event takes at once, as if that cost nothing."""
    problem = zoned(("a",), 0.2)
    index = Index(problem)
    planned = large.plan(index)
    told = engine.solution_of(index, large.solve(index)).cost
    assert told.risk > 0
    assert planned.incumbent.usd_per_hour == pytest.approx(told.total, rel=1e-6)
