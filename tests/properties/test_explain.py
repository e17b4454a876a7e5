"""What an explanation says would change a plan does change it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from msgspec import structs

from placement import engine
from placement.explain.cell import explain_cell
from placement.explain.model import explain_model
from placement.problem import Path, Problem
from placement.solution import Solution
from tests.properties.worlds import a_world, without_floors

PAYS_BELOW = re.compile(r"would pay below ([0-9.]+) USD")


def thresholds(problem: Problem, solution: Solution) -> list[tuple[str, float]]:
    """(cluster whose devices nobody uses, the price below which one more replica there is said to pay)."""
    used = {one.pool.split("/")[0] for one in solution.replicas}
    found = []
    for model in problem.models:
        for verdict in explain_model(problem, solution, model.name).clusters:
            said = PAYS_BELOW.search(verdict.reason)
            if said and verdict.cluster not in used and float(said[1]) > 0.02:
                found.append((verdict.cluster, float(said[1])))
    return found


def test_below_the_price_that_is_said_the_devices_are_used() -> None:
    """An engineer would haggle for a price that changes nothing."""
    compared = 0
    for seed in range(150):
        problem = without_floors(a_world(seed))
        solution = engine.solve(problem)
        for cluster, usd in thresholds(problem, solution)[:2]:
            pools = tuple(
                replace(pool, usd_per_device_hour=min(pool.usd_per_device_hour, usd - 0.015))
                if pool.cluster == cluster
                else pool
                for pool in problem.pools
            )
            cheaper = engine.solve(replace(problem, pools=pools))
            assert cheaper.cost.total < solution.cost.total + 1e-6
            assert any(one.pool.startswith(f"{cluster}/") for one in cheaper.replicas), f"seed {seed}: {cluster}"
            compared += 1
    assert compared > 5


def test_more_devices_never_cost_more_and_a_price_cut_never_drives_use_away() -> None:
    """Buying capacity or haggling for a price would make the plan worse."""
    compared = 0
    for seed in range(150):
        problem = a_world(seed)
        solution = engine.solve(problem)
        if solution.shortfalls or not problem.pools:
            continue
        pool = problem.pools[seed % len(problem.pools)]
        for change in ({"devices": pool.devices + 1}, {"usd_per_device_hour": pool.usd_per_device_hour / 2}):
            pools = tuple(replace(one, **change) if one is pool else one for one in problem.pools)
            other = engine.solve(replace(problem, pools=pools))
            assert other.cost.total <= solution.cost.total + 1e-4, f"seed {seed}"
            if "usd_per_device_hour" in change:
                assert used(problem, other, pool.name) >= used(problem, solution, pool.name), f"seed {seed}"
            compared += 1
    assert compared > 50


def used(problem: Problem, solution: Solution, pool: str) -> int:
    """Devices of a pool in use."""
    models = {model.name: model for model in problem.models}
    at = next(one for one in problem.pools if one.name == pool)
    total = 0
    for one in solution.replicas:
        shape = models[one.model].shape_for(at) if one.pool == pool else None
        total += one.replicas * (shape.devices if shape else 0)
    return total


@pytest.mark.parametrize("seed", range(12))
def test_other_names_give_the_same_plan_under_other_names(seed: int) -> None:
    """A rename would move replicas."""
    problem = a_world(seed)

    def renamed(name: str) -> str:
        kind, _, number = name.partition("-")
        return f"{kind}-{9 - int(number)}"

    def in_pool(name: str) -> str:
        cluster, _, rest = name.partition("/")
        return f"{renamed(cluster)}/{rest}"

    other = replace(
        problem,
        clusters=tuple(replace(one, name=renamed(one.name)) for one in problem.clusters),
        pools=tuple(replace(one, cluster=renamed(one.cluster)) for one in problem.pools),
        models=tuple(
            replace(one, pins=tuple(replace(pin, cluster=renamed(pin.cluster)) for pin in one.pins))
            for one in problem.models
        ),
        paths=tuple(replace(one, cluster=renamed(one.cluster)) for one in problem.paths if not isinstance(one, tuple)),
        current=tuple(structs.replace(one, pool=in_pool(one.pool)) for one in problem.current),
        room=tuple(replace(one, pool=in_pool(one.pool)) for one in problem.room),
    )
    first, second = engine.solve(problem), engine.solve(other)
    assert second.cost.total == pytest.approx(first.cost.total, abs=2e-4)
    assert second.bound_usd_per_hour == pytest.approx(first.bound_usd_per_hour, abs=2e-4) or first.shortfalls


WOULD_SERVE = re.compile(r"would serve at ([0-9]+) ms")


def test_requests_take_the_cheapest_way_and_each_way_says_its_whole_price() -> None:
    """An engineer who asks why users are not served next door would be told a sum that does not add up."""
    codes = set()
    for seed in range(150):
        problem = a_world(seed)
        solution = engine.solve(problem)
        late = {(one.model, one.cell) for one in solution.unserved}
        for demand in problem.demands[:3]:
            if demand.requests_per_second <= 0 or (demand.model, demand.cell) in late:
                continue
            found = explain_cell(problem, solution, demand.model, demand.cell)
            served = sum(one.requests_per_second for one in found.ways)
            assert served == pytest.approx(demand.requests_per_second, abs=1e-6), f"seed {seed}"
            priced = [one for one in found.ways if one.usd_per_hour is not None]
            for one in priced:
                assert one.usd_per_hour == pytest.approx(sum(term.usd_per_hour for term in one.terms), abs=1e-5)
            served_at = max(one.usd_per_hour or 0.0 for one in priced if one.requests_per_second > 1e-6)
            others = [one for one in priced if one.code in ("Dearer", "Full", "Even")]
            assert all((one.usd_per_hour or 0.0) >= served_at - 1e-5 for one in others), f"seed {seed}: {found}"
            codes |= {one.code for one in found.ways}
    assert codes >= {"Serves", "Dearer", "Full", "NoReplicas", "Residency"}, codes


def test_at_the_latency_that_is_said_a_way_is_as_good_as_any() -> None:
    """Somebody would pay for a faster line, and nothing would change."""
    compared = 0
    for seed in range(400):
        problem = a_world(seed)
        solution = engine.solve(problem)
        paths = [one for one in problem.paths if isinstance(one, Path)]
        for demand in problem.demands:
            if demand.requests_per_second <= 0:
                continue
            for way in explain_cell(problem, solution, demand.model, demand.cell).ways:
                said = WOULD_SERVE.search(way.reason)
                if said is None or way.latency_ms is None:
                    continue
                shorter_ms = way.latency_ms - float(said[1]) + 1
                place = next(i for i, one in enumerate(paths) if (one.cell, one.cluster) == (demand.cell, way.cluster))
                if paths[place].rtt_ms < shorter_ms:
                    continue
                nearer = (*paths[:place], replace(paths[place], rtt_ms=paths[place].rtt_ms - shorter_ms))
                changed = replace(problem, paths=nearer + tuple(paths[place + 1 :]))
                ways = explain_cell(changed, solution, demand.model, demand.cell).ways
                assert next(one.code for one in ways if one.cluster == way.cluster) != "Dearer", f"seed {seed}: {way}"
                compared += 1
    assert compared > 5
