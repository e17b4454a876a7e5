"""Worlds with priorities, survival, caps, budgets and shortages, by both engines."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import pytest

from placement import engine
from placement.check import check
from placement.index import Index
from placement.large import plan as large
from placement.problem import Cell, Cluster, Demand, Model, Path, Pool, Problem, Shape
from placement.solution import Solution
from tests.bench.worlds import a_large_world
from tests.properties.worlds import a_harder_world

MIDDLING = {"clusters": 10, "models": 4, "cells": 12, "most_devices": 12}


def planned_large(problem: Problem) -> tuple[Solution, float]:
    """The large engine's plan, and its bound as it is."""
    index = Index(problem)
    answer = large.solve(index)
    return engine.solution_of(index, answer), answer.bound_usd_per_hour


def unserved_rps(problem: Problem, solution: Solution) -> dict[int, float]:
    """Priority -> requests per second."""
    priority = {model.name: model.priority for model in problem.models}
    left: dict[int, float] = defaultdict(float)
    for one in solution.unserved:
        left[priority[one.model]] += one.requests_per_second
    return left


@pytest.mark.parametrize(("count", "most"), [(200, {}), (30, MIDDLING)], ids=["small", "middling"])
def test_both_engines_keep_every_rule_and_prove_no_more_than_is_so(count: int, most: dict[str, int]) -> None:
    """A plan would break a rule, the controller keep an old plan as the engine ends in an error, or a gap be a lie."""
    for seed in range(count):
        problem = a_harder_world(seed, floors=True, **most)
        exact, (solution, bound) = engine.solve(problem), planned_large(problem)
        for one in (exact, solution):
            assert check(problem, one) == (), seed
        assert bound <= solution.cost.total * (1 + 1e-6) + 1e-6, seed
        if not exact.shortfalls and not solution.shortfalls:
            assert bound <= exact.cost.total * (1 + 1e-6) + 1e-6, seed


def test_both_engines_serve_the_same_priorities_in_a_shortage() -> None:
    """Batch work would run on devices that people wait for."""
    for seed in range(300):
        problem = a_harder_world(seed, floors=False)
        exact, solution = (unserved_rps(problem, one) for one in (engine.solve(problem), planned_large(problem)[0]))
        for priority in sorted({model.priority for model in problem.models}, reverse=True)[:-1]:
            assert solution[priority] <= exact[priority] + 0.01, (seed, priority)
            if solution[priority] < exact[priority] - 0.01:
                break


@pytest.mark.parametrize("seed", [3, 5])
def test_whole_replicas_of_a_high_priority_do_not_wait_for_those_of_a_lower_one(seed: int) -> None:
    """What rounding up reserves for batch work would leave people unserved."""
    problem = a_large_world(seed, clusters=40, cells=400, models=4, load=1.5)
    models = tuple(replace(model, priority=at % 3) for at, model in enumerate(problem.models))
    problem = replace(problem, models=models)
    solution, _ = planned_large(problem)
    left = unserved_rps(problem, solution)
    assert left[2] == left[1] == 0.0 < left[0]


@pytest.mark.parametrize(("seed", "cells"), [(5, 60), (2, 40)])
def test_a_bound_covers_every_cluster_however_far(seed: int, cells: int) -> None:
    """Users would be left unserved while clusters a little further have devices, and the plan be called optimal."""
    problem = a_large_world(seed, clusters=45, cells=cells, models=3, load=0.9)
    exact, (solution, _) = engine.solve(problem), planned_large(problem)
    assert exact.bound_usd_per_hour <= solution.cost.total
    assert exact.cost.total <= 1.01 * solution.cost.total


def a_small_world(*models: Model, clusters: int, devices: int) -> Problem:
    """As many regions as clusters, and users who ask each model for 8 requests per second."""
    names = [f"cluster-{at}" for at in range(clusters)]
    return Problem(
        clusters=tuple(Cluster(name=name, provider="p", region=name) for name in names),
        pools=tuple(
            Pool(cluster=name, product="A", vram_gib=24.0, devices=devices, usd_per_device_hour=2.0) for name in names
        ),
        models=models,
        cells=(Cell(name="berlin", country="DE"),),
        demands=tuple(Demand(model=model.name, cell="berlin", requests_per_second=8.0) for model in models),
        paths=tuple(Path(cell="berlin", cluster=name, rtt_ms=10.0) for name in names),
    )


def a_model(name: str, **asked: object) -> Model:
    """It takes one device for 10 requests per second."""
    made = Model(
        name=name,
        shapes=(Shape(product="A", devices=1, requests_per_second=10.0),),
        objective_ms=200.0,
        late_usd_per_1000=0.0,
        unserved_usd_per_1000=0.1,
    )
    return replace(made, **asked)  # type: ignore[arg-type]


def test_survival_is_kept_where_another_floor_cannot_be() -> None:
    """One team's impossible policy would take every other team's protection against the loss of a region."""
    safe, spread = a_model("safe", survive="region"), a_model("spread", min_regions=3)
    solution = engine.solve(a_small_world(safe, spread, clusters=2, devices=4))
    assert [(one.model, one.rule) for one in solution.shortfalls] == [("spread", "min_regions")]
    assert sum(one.replicas for one in solution.replicas if one.model == "safe") == 2


def test_a_shortage_beside_a_floor_beyond_the_budget_has_an_answer() -> None:
    """The engine would end in an error, and the fleet keep yesterday's plan."""
    first, second = a_model("first", priority=5, max_starts=0, min_regions=1), a_model("second")
    problem = a_small_world(first, second, clusters=1, devices=1)
    solution = engine.solve(problem)
    assert check(problem, solution) == ()
    assert [one.model for one in solution.replicas] == ["first"]


def test_what_the_solver_calls_infeasible_is_asked_again() -> None:
    """HiGHS's presolve says of this world, with its floors at a price, that it has no answer."""
    problem = a_harder_world(15, floors=True, **MIDDLING)
    problem = replace(problem, models=tuple(replace(model, max_starts=None) for model in problem.models))
    assert check(problem, engine.solve(problem)) == ()


def test_starts_beyond_the_budget_are_found() -> None:
    """A rollout would restart a fleet at once, and no check say so."""
    problem = a_small_world(a_model("calm"), clusters=1, devices=1)
    solution = engine.solve(problem)
    calm = replace(problem, models=(replace(problem.models[0], max_starts=0),))
    assert [one.rule for one in check(calm, solution)] == ["max_starts"]
