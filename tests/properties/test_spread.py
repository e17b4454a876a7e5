"""No domain holds more of a model than its part: small, large, and everything tried."""

from __future__ import annotations

from dataclasses import replace

import pytest

from placement import engine
from placement.check import check
from placement.problem import MaxPart, Problem
from placement.solution import Solution
from tests.bench.worlds import a_large_world
from tests.properties.test_engine import brute_force, is_even
from tests.properties.test_scale import solved_as_large
from tests.properties.worlds import a_spread_world

pytestmark = pytest.mark.timeout(400)  # the first call compiles, for most of a minute
WORLDS = range(150)


def uneven(problem: Problem, solution: Solution) -> set[str]:
    """Models of which a domain holds too much, by the count of this directory."""
    pools = {one.name: one for one in problem.pools}
    clusters = {one.name: one for one in problem.clusters}
    found = set()
    for model in problem.models:
        mine = [(pools[one.pool], one.replicas) for one in solution.replicas if one.model == model.name]
        found |= set() if is_even(model, clusters, mine) else {model.name}
    return found


def told(solution: Solution) -> set[str]:
    return {one.model for one in solution.shortfalls if one.rule == "max_part"}


def test_a_small_plan_is_the_cheapest_of_those_that_no_domain_holds_too_much_of() -> None:
    """The loss of one region would take more of a model than its owner allows, or what bounds it would waste money."""
    compared = held = 0
    for seed in WORLDS:
        problem = a_spread_world(seed)
        solution = engine.solve(problem)
        assert check(problem, solution) == (), f"seed {seed}"
        assert uneven(problem, solution) == told(solution), f"seed {seed}"
        free = engine.solve(replace(problem, models=tuple(replace(one, max_part=None) for one in problem.models)))
        held += bool(uneven(problem, free)) and not told(solution)
        best = None if solution.shortfalls else brute_force(problem)
        if best is not None:
            compared += 1
            assert solution.cost.total == pytest.approx(best, abs=2e-4), f"seed {seed}"
    assert compared > len(WORLDS) // 10 and held >= len(WORLDS) // 25


def test_a_bounded_part_turns_no_user_away() -> None:
    """After the loss of a region those that are left would have to refuse users, to stay below their part."""
    less = 0
    for seed in WORLDS:
        problem = a_spread_world(seed)
        if len(problem.models) > 1:
            continue
        free = replace(problem, models=tuple(replace(one, max_part=None) for one in problem.models))
        solution, other = engine.solve(problem), engine.solve(free)
        rps, most = (sum(one.requests_per_second for one in each.unserved) for each in (solution, other))
        model = problem.models[0]
        if model.max_starts is None and model.spot_max_fraction >= 1.0 and not other.shortfalls:
            less += bool(told(solution))
            assert rps <= most + 1e-3, f"seed {seed}"
    assert less > 3


def test_a_large_plan_keeps_parts_and_its_bound_below_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large fleet would be bounded otherwise than a small one, or its plan look nearer the best than it is."""
    compared = 0
    for seed in WORLDS:
        problem = a_spread_world(seed)
        exact, solution = engine.solve(problem), solved_as_large(problem, monkeypatch)
        assert check(problem, solution) == (), f"seed {seed}"
        assert uneven(problem, solution) == told(solution), f"seed {seed}"
        if not exact.shortfalls and not solution.shortfalls:
            compared += 1
            assert solution.bound_usd_per_hour <= exact.cost.total + 1e-3, f"seed {seed}: the bound is no bound"
    assert compared > len(WORLDS) // 8


@pytest.fixture(scope="module")
def problem() -> Problem:
    made = a_large_world(1, clusters=40, cells=400, models=4)
    part = MaxPart(domain="region", fraction=0.2)
    return replace(made, models=tuple(replace(one, max_part=part) for one in made.models))


def test_a_large_fleet_is_spread_at_little_more_than_its_bound(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owner who bounds what a region holds would pay for more than that."""
    free = replace(problem, models=tuple(replace(one, max_part=None) for one in problem.models))
    before, solution = solved_as_large(free, monkeypatch), solved_as_large(problem, monkeypatch)
    assert check(problem, solution) == ()
    assert uneven(problem, before), "the question is not empty"
    assert not solution.shortfalls and not solution.unserved
    assert 0 <= solution.gap < 0.02


def test_a_large_fleet_that_loses_regions_serves_before_it_spreads(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users would be turned away while devices for them are free, as too few regions are left to spread over."""
    left = sorted({one.region for one in problem.clusters})[:3]
    names = {one.name for one in problem.clusters if one.region in left}
    few = replace(
        problem,
        clusters=tuple(one for one in problem.clusters if one.name in names),
        pools=tuple(replace(one, devices=9 * one.devices) for one in problem.pools if one.cluster in names),
        paths=replace(
            problem.rtt_matrix(),
            clusters=tuple(sorted(names)),
            rtt_ms=problem.rtt_matrix().part([cell.name for cell in problem.cells], sorted(names)),
        ),
        room=(),
        current=(),
    )
    solution = solved_as_large(few, monkeypatch)
    assert check(few, solution) == ()
    assert {one.rule for one in solution.shortfalls} == {"max_part"}
    assert sum(one.requests_per_second for one in solution.unserved) < 1e-3 * sum(
        one.requests_per_second for one in few.demands
    )
