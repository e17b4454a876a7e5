"""What is protected within the objective is, whatever domain is lost: small, large, and everything tried."""

from __future__ import annotations

from dataclasses import replace

import pytest

from placement import engine
from placement.check import check
from placement.problem import Problem
from placement.replanner import Replanner
from placement.solution import Solution
from tests.bench.worlds import a_large_world
from tests.properties.test_engine import brute_force, survives_in_time
from tests.properties.test_scale import solved_as_large
from tests.properties.worlds import a_world_in_time

pytestmark = pytest.mark.timeout(400)  # the first call compiles, for most of a minute
WORLDS = range(120)


def lacking(problem: Problem, solution: Solution) -> set[str]:
    """Models that some loss leaves too little in time of: by Hall's condition, set of users by set of users."""
    pools = {one.name: one for one in problem.pools}
    clusters = {one.name: one for one in problem.clusters}
    found = set()
    for model in problem.models:
        mine = [(pools[one.pool], one.replicas) for one in solution.replicas if one.model == model.name]
        found |= set() if survives_in_time(problem, model, clusters, mine) else {model.name}
    return found


def told(solution: Solution) -> set[str]:
    return {one.model for one in solution.shortfalls if one.rule == "survive_within"}


def test_a_small_plan_protects_the_objective_at_no_more_than_its_gap() -> None:
    """The insurance that an owner pays for would not pay out on the day of the loss, or be paid twice."""
    compared = held = 0
    for seed in WORLDS:
        problem = a_world_in_time(seed)
        solution = engine.solve(problem)
        assert check(problem, solution) == (), f"seed {seed}"
        assert lacking(problem, solution) == told(solution), f"seed {seed}"
        bare = replace(problem, models=tuple(replace(one, survive_within_fraction=0.0) for one in problem.models))
        held += bool(lacking(problem, engine.solve(bare))) and not told(solution)
        best = None if solution.shortfalls else brute_force(problem)
        if best is not None:
            compared += 1
            assert solution.cost.total >= best - 2e-4, f"seed {seed}"
            assert solution.cost.total == pytest.approx(best, rel=solution.gap + 1e-6, abs=2e-4), f"seed {seed}"
    assert compared >= 5 and held >= 5, (compared, held)


def test_a_large_plan_protects_the_same_and_its_bound_is_below_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large fleet would be protected otherwise than a small one, or its plan look nearer the best than it is."""
    compared = 0
    for seed in WORLDS:
        problem = a_world_in_time(seed)
        exact, solution = engine.solve(problem), solved_as_large(problem, monkeypatch)
        assert check(problem, solution) == (), f"seed {seed}"
        assert lacking(problem, solution) == told(solution), f"seed {seed}"
        if not exact.shortfalls and not solution.shortfalls:
            compared += 1
            assert solution.bound_usd_per_hour <= exact.cost.total + 1e-3, f"seed {seed}: the bound is no bound"
    assert compared >= 10, compared


def test_a_large_fleet_is_protected_from_event_to_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """The protection would end with the first price that changes, or each price would cost a plan made anew."""
    monkeypatch.setattr(engine, "LARGE_PAIRS", 1)
    made = a_large_world(1, clusters=60, cells=300, models=3)
    guarded = tuple(replace(one, survive="region", survive_within_fraction=0.85) for one in made.models)
    problem = replace(made, models=guarded)
    planner, mended = Replanner(), 0
    for times in (1.0, 1.03, 0.98):
        dearer = tuple(
            replace(one, usd_per_device_hour=times * one.usd_per_device_hour) if at % 3 else one
            for at, one in enumerate(made.pools)
        )
        problem = replace(problem, pools=dearer)
        solution = planner.solve(problem)
        mended += planner.mended
        assert check(problem, solution) == ()
        assert not solution.shortfalls and not solution.unserved
        assert 0 <= solution.gap < 0.03
        problem = replace(problem, current=solution.replicas)
    assert mended
