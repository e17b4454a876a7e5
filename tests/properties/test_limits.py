"""The most replicas of a model and the budget of a policy, in both sizes: never passed, and nothing is wasted below."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from placement import engine
from placement.check import check
from placement.index import Index
from placement.large import plan as large
from placement.large.reoptimise import Reoptimiser
from placement.problem import Budget, Placed, Problem
from placement.replanner import Replanner
from placement.solution import Solution, UnservedCode
from tests.bench.worlds import a_large_world
from tests.properties.test_engine import brute_force, options, within_limits
from tests.properties.test_scale import solved_as_large
from tests.properties.worlds import a_limited_world

pytestmark = pytest.mark.timeout(400)  # the first call compiles, for most of a minute
WORLDS = range(150)
MENDED = range(60)
FIXED = 3902
"""A world where a model whose replicas leave no choice is decided after the budget went to one that missed a floor."""


def is_within(problem: Problem, solution: Solution) -> bool:
    """By the count of this directory, which shares no code with the checker."""
    pools, models = {one.name: one for one in problem.pools}, {one.name: one for one in problem.models}
    clusters = {one.name: one for one in problem.clusters}
    placed = []
    for one in solution.replicas:
        shape = models[one.model].shape_for(pools[one.pool])
        assert shape is not None
        placed.append((models[one.model], pools[one.pool], shape, one.replicas))
    return within_limits(problem, clusters, placed)


def usd_per_hour(problem: Problem, solution: Solution) -> float:
    usd = {
        (model.name, pool.name): shape.devices * pool.usd_per_device_hour
        for model in problem.models
        for pool, shape, _, _ in options(problem, model)
    }
    return sum(one.replicas * usd[one.model, one.pool] for one in solution.replicas)


def test_a_small_plan_is_the_cheapest_within_its_limits() -> None:
    """A policy would spend more than it may, or leave users unserved for whom it has the money."""
    compared = 0
    for seed in WORLDS:
        problem = a_limited_world(seed, floors=seed % 2 == 0)
        if seed % 3:  # brute force knows of no priorities
            problem = replace(problem, models=tuple(replace(model, priority=0) for model in problem.models))
        solution = engine.solve(problem)
        assert check(problem, solution) == (), f"seed {seed}"
        assert is_within(problem, solution), f"seed {seed}"
        is_price_alone = len({model.priority for model in problem.models}) == 1 and not solution.shortfalls
        best = brute_force(problem) if is_price_alone else None
        if best is not None:
            compared += 1
            assert solution.cost.total == pytest.approx(best, abs=2e-4), f"seed {seed}"
    assert compared > len(WORLDS) // 12


def test_a_large_plan_is_within_its_limits_and_its_bound_below_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large fleet's policy would spend more than it may, or its plan look nearer the best than it is."""
    compared = 0
    for seed in (*WORLDS, FIXED):
        problem = a_limited_world(seed, floors=seed % 2 == 0)
        exact, solution = engine.solve(problem), solved_as_large(problem, monkeypatch)
        assert check(problem, solution) == (), f"seed {seed}"
        assert is_within(problem, solution), f"seed {seed}"
        if not exact.shortfalls and not solution.shortfalls:
            compared += 1
            assert solution.bound_usd_per_hour <= exact.cost.total + 1e-3, f"seed {seed}: the bound is no bound"
    assert compared > len(WORLDS) // 8


@pytest.fixture(scope="module")
def problem() -> Problem:
    return a_large_world(1, clusters=40, cells=400, models=4)


@pytest.fixture(scope="module")
def free_usd(problem: Problem) -> float:
    """What the accelerators cost without limits."""
    answer = large.solve(Index(problem))
    return engine.solution_of(Index(problem), answer).cost.accelerators


@pytest.mark.parametrize("part", [1.5, 0.7, 0.2])
def test_a_large_fleet_with_one_budget_spends_all_of_it_and_no_more(
    problem: Problem, free_usd: float, part: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Users would be turned away while the money for them is there, or served with money that nobody gave."""
    names = tuple(model.name for model in problem.models)
    limited = replace(problem, budgets=(Budget(name="all", models=names, usd_per_hour=part * free_usd),))
    solution = solved_as_large(limited, monkeypatch)
    assert check(limited, solution) == ()
    spent = usd_per_hour(limited, solution)
    assert spent <= part * free_usd + 1e-6
    if part >= 1.0:
        assert not solution.unserved and not solution.reached
        return
    assert spent > 0.98 * part * free_usd
    assert 0 <= solution.gap < 0.03
    assert {one.code for one in solution.unserved} == {UnservedCode.BUDGET}
    assert "raise budget.maxUsdPerHour of all" in solution.unserved[0].reason
    assert solution.reached[0].usd_per_hour > 1.0, "a dollar more would save more than a dollar"


def test_a_large_fleet_has_no_more_replicas_of_a_model_than_policy_allows(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model's mistaken demand would take the whole fleet's devices."""
    first = replace(problem.models[0], max_replicas=20)
    limited = replace(problem, models=(first, *problem.models[1:]))
    solution = solved_as_large(limited, monkeypatch)
    assert check(limited, solution) == ()
    assert sum(one.replicas for one in solution.replicas if one.model == first.name) == 20
    assert {one.code for one in solution.unserved} == {UnservedCode.MAX_REPLICAS}
    assert {one.model for one in solution.unserved} == {first.name}
    assert [(one.limit, one.subject, one.used) for one in solution.reached] == [("max_replicas", first.name, 20.0)]


@pytest.mark.parametrize("is_large", [False, True])
def test_a_lie_of_a_billion_requests_per_second_costs_what_policy_lets_it_cost(
    is_large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One cell's absurd demand would start every device of the fleet."""
    world = a_large_world(3, clusters=12, cells=30, models=2)
    lied = structs.replace(world.demands[0], requests_per_second=1e9)
    models = tuple(replace(one, max_replicas=15) if one.name == lied.model else one for one in world.models)
    names = tuple(model.name for model in models)
    problem = replace(
        world,
        models=models,
        demands=(lied, *world.demands[1:]),
        budgets=(Budget(name="all", models=names, usd_per_hour=60.0),),
    )
    solution = solved_as_large(problem, monkeypatch) if is_large else engine.solve(problem)
    assert check(problem, solution) == ()
    assert usd_per_hour(problem, solution) <= 60.0 + 1e-6
    assert sum(one.replicas for one in solution.replicas if one.model == lied.model) <= 15
    assert {one.limit for one in solution.reached} & {"max_replicas", "budget"}


def test_a_mended_plan_stays_within_its_limits_whatever_prices_and_budgets_do() -> None:
    """A policy would spend more than it may from the moment when prices rise until somebody plans anew."""
    mended = 0
    for seed in MENDED:
        problem = a_limited_world(seed, models=3)
        mending = Reoptimiser(Index(problem), large.plan(Index(problem)))
        for times, more in ((3.0, 1.0), (0.5, 0.4), (1.7, 2.0)):
            counts = mending.incumbent.counts()
            running = tuple(Placed(model=m, pool=p, replicas=n) for (m, p), n in sorted(counts.items()))
            problem = replace(
                problem,
                pools=tuple(replace(one, usd_per_device_hour=times * one.usd_per_device_hour) for one in problem.pools),
                current=running,
                budgets=tuple(replace(one, usd_per_hour=more * one.usd_per_hour) for one in problem.budgets),
            )
            if not mending.update(Index(problem)):
                break
            mended += 1
            made = engine.solution_of(Index(problem), mending.answer)
            rules = {one.rule for one in check(problem, made)}
            assert not rules & {"max_replicas", "budget", "capacity", "throughput", "bound"}, f"seed {seed}: {rules}"
            assert is_within(problem, made), f"seed {seed}"
    assert mended > len(MENDED)


def test_a_price_that_rises_brings_a_large_plan_down_to_its_budget(
    problem: Problem, free_usd: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fleet would go on spending what its policy no longer allows, as nothing else is wrong with its plan."""
    monkeypatch.setattr(engine, "LARGE_PAIRS", 1)
    names = tuple(model.name for model in problem.models)
    limited = replace(problem, budgets=(Budget(name="all", models=names, usd_per_hour=1.1 * free_usd),))
    planner = Replanner()
    first = planner.solve(limited)
    assert not first.reached
    for times, is_mended in ((1.05, True), (1.5, False)):
        dearer = replace(
            limited,
            pools=tuple(replace(one, usd_per_device_hour=times * one.usd_per_device_hour) for one in limited.pools),
            current=first.replicas,
        )
        again = planner.solve(dearer)
        assert planner.mended == is_mended, "who goes short is weighed anew"
        assert check(dearer, again) == ()
        assert usd_per_hour(dearer, again) <= 1.1 * free_usd + 1e-6
        assert bool(again.unserved) != is_mended


def test_floors_that_a_budget_leaves_no_room_for_are_not_what_a_dollar_is_worth(
    problem: Problem, free_usd: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody would read that one more dollar saves a million, and no distance to the best would be proved."""
    names = tuple(model.name for model in problem.models)
    limited = replace(
        problem,
        models=tuple(replace(one, survive="region", min_replicas=500) for one in problem.models),
        budgets=(Budget(name="all", models=names, usd_per_hour=0.2 * free_usd),),
    )
    solution = solved_as_large(limited, monkeypatch)
    assert check(limited, solution) == ()
    assert {one.rule for one in solution.shortfalls} == {"min_replicas", "survive"}
    assert all("of its maxUsdPerHour" in one.reason for one in solution.shortfalls)
    assert 0 <= solution.gap < 1, "the bound is above nothing"
    assert 0 < solution.reached[0].usd_per_hour < 1_000
