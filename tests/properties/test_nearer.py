"""What a millisecond is worth: the more, the nearer users are served, and never for more than it is worth."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest

from federation.policy.documents import Objective
from placement import capacity, engine
from placement.check import check, check_routing
from placement.index import Index
from placement.problem import NEARER_USD_PER_1000_PER_MS, Bend, Problem
from placement.solution import Solution
from tests.bench.worlds import a_large_world
from tests.properties.test_engine import brute_force
from tests.properties.test_scale import solved_as_large
from tests.properties.worlds import a_world

SLOPES = (0.0, 1e-4, 3e-4, 1e-3)
WORLDS = range(60)


def sloped(problem: Problem, usd_per_1000_per_ms: float) -> Problem:
    """The same where each millisecond of 1,000 requests is worth so much."""
    slope = NEARER_USD_PER_1000_PER_MS + usd_per_1000_per_ms
    return replace(problem, models=tuple(replace(one, latency_usd_per_1000_per_ms=slope) for one in problem.models))


def bent(problem: Problem, seed: int, steeper: float = 0.0) -> Problem:
    """The same with a curve of one to three pieces for each model; `steeper` is added to the last of them."""
    rng = random.Random(seed)
    models = []
    for one in problem.models:
        at_ms = sorted(rng.sample(range(30, 200, 10), rng.randint(1, 3)))
        rises = [rng.choice((1e-4, 1e-3, 1e-2)) for _ in at_ms]
        rises[-1] += steeper
        bends = tuple(
            Bend(latency_ms=float(ms), more_usd_per_1000_per_ms=more) for ms, more in zip(at_ms, rises, strict=True)
        )
        models.append(replace(one, bends=bends))
    return replace(problem, models=tuple(models))


def rps_ms_beyond(problem: Problem, solution: Solution) -> float:
    """Requests per second times the milliseconds that each waits beyond its model's last bend."""
    last_ms = {one.name: one.bends[-1].latency_ms for one in problem.models}
    return sum(flow.requests_per_second * max(0.0, flow.latency_ms - last_ms[flow.model]) for flow in solution.flows)


def rps_ms(solution: Solution) -> float:
    """Requests per second times the milliseconds that each waits. (What replicas take of them is the same for all.)"""
    return sum(flow.requests_per_second * flow.latency_ms for flow in solution.flows)


def assert_monotone(solutions: list[Solution]) -> None:
    """Of two optima the one for the steeper slope is no farther; a gap lets it be so much farther."""
    for (low, one), (high, other) in itertools.pairwise(zip(SLOPES, solutions, strict=True)):
        loose = sum(made.gap * made.cost.total for made in (one, other)) / (3.6 * (high - low))
        assert rps_ms(other) <= rps_ms(one) + loose + 1e-3, f"{high} is farther than {low}"


def test_a_steeper_price_of_latency_never_serves_users_from_farther() -> None:
    """Who asks for nearer service would be served from farther away."""
    moved = 0
    for seed in WORLDS:
        solutions = []
        for slope in SLOPES:
            problem = sloped(a_world(seed), slope)
            solutions.append(engine.solve(problem))
            assert check(problem, solutions[-1]) == (), f"seed {seed}"
        assert_monotone(solutions)
        moved += rps_ms(solutions[-1]) < rps_ms(solutions[0]) - 1.0
    assert moved, "some of these worlds have a choice"


@pytest.mark.timeout(400)  # the first call compiles, for most of a minute
def test_a_large_fleet_is_served_nearer_for_what_that_is_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    """New York is served from the Netherlands though the cluster next door would cost a thousandth more."""
    problem = a_large_world(1, clusters=40, cells=400, models=4)
    made = [solved_as_large(sloped(problem, slope), monkeypatch) for slope in SLOPES]
    for slope, solution in zip(SLOPES, made, strict=True):
        assert check(sloped(problem, slope), solution) == ()
        assert not solution.unserved
        assert 0 <= solution.gap < 0.03
    assert_monotone(made)
    assert rps_ms(made[-1]) < 0.8 * rps_ms(made[0])
    for solution in made[1:]:
        assert solution.cost.total <= sum_at(made[0], solution) + solution.gap * solution.cost.total


def sum_at(solution: Solution, priced: Solution) -> float:
    """What `solution` would cost where latency costs what it does in `priced`."""
    slope = priced.cost.proximity / (3.6 * rps_ms(priced))
    return solution.cost.total - solution.cost.proximity + 3.6 * slope * rps_ms(solution)


def test_what_a_replica_takes_never_turns_users_away() -> None:
    """A model that thinks for a minute would serve nobody: the price of near would be paid for thinking."""
    for seed in range(20):
        quick = sloped(a_world(seed), 1e-3)
        slow = replace(
            quick,
            models=tuple(
                replace(one, service_latency_ms=one.service_latency_ms + 6e4, objective_ms=one.objective_ms + 6e4)
                for one in quick.models
            ),
        )
        one, other = engine.solve(quick), engine.solve(slow)
        assert check(slow, other) == ()
        assert one.replicas == other.replicas
        assert other.cost.total == pytest.approx(one.cost.total)


def test_a_curve_is_obeyed_by_small_and_large_worlds_and_their_routing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What policy says of far users would be obeyed in one size of fleet, or by plans and not by routes."""
    compared = 0
    for seed in WORLDS:
        problem = bent(a_world(seed), seed)
        exact, large = engine.solve(problem), solved_as_large(problem, monkeypatch)
        assert check(problem, exact) == (), f"seed {seed}"
        assert check(problem, large) == (), f"seed {seed}"
        if exact.shortfalls or large.shortfalls:
            continue
        assert large.bound_usd_per_hour <= exact.cost.total + 1e-3, f"seed {seed}"
        best = brute_force(problem)
        if best is not None:
            compared += 1
            assert exact.cost.total == pytest.approx(best, abs=2e-4), f"seed {seed}"
        ready = {(one.model, one.pool): one.replicas for one in exact.replicas}
        routed = engine.route(problem, ready)
        with monkeypatch.context() as patched:
            patched.setattr(engine, "LARGE_PAIRS", -1)
            other = engine.route(problem, ready)
        for routing in (routed, other):
            assert check_routing(problem, ready, routing) == (), f"seed {seed}"
        if not routed.unserved:
            assert other.cost.total == pytest.approx(routed.cost.total, abs=1e-3), f"seed {seed}"
    assert compared >= len(WORLDS) // 5


def test_what_rises_more_steeply_beyond_a_bend_is_avoided_more() -> None:
    """Who raises the far end of the curve would have more users there."""
    moved = 0
    for seed in WORLDS:
        gentle, steep = bent(a_world(seed), seed), bent(a_world(seed), seed, steeper=0.02)
        one, other = engine.solve(gentle), engine.solve(steep)
        loose = sum(made.gap * made.cost.total for made in (one, other)) / (3.6 * 0.02)
        before, after = rps_ms_beyond(gentle, one), rps_ms_beyond(steep, other)
        assert after <= before + loose + 1e-2, f"seed {seed}"
        moved += after < before - 1.0
    assert moved, "some of these worlds have a choice"


def test_the_checker_finds_a_plan_that_understates_what_far_costs() -> None:
    """A solver that prices the curve wrongly would be believed."""
    found = 0
    for seed in WORLDS:
        problem = bent(a_world(seed), seed, steeper=0.01)
        solution = engine.solve(problem)
        straight = replace(problem, models=tuple(replace(one, bends=()) for one in problem.models))
        if rps_ms_beyond(problem, solution) > 10.0:
            found += 1
            assert "proximity" in [one.subject for one in check(straight, solution)], f"seed {seed}"
    assert found, "in some of these worlds users are far"


def nearest_of(problem: Problem) -> Problem:
    """The same under policies that prefer the nearest."""
    models = []
    for one in problem.models:
        objective = Objective(
            preference="nearest",
            late_request_usd_per_1000=one.late_usd_per_1000,
            unserved_request_usd_per_1000=one.unserved_usd_per_1000,
        )
        slope, unserved = objective.usd_per_1000_per_ms, objective.unserved_usd_per_1000
        models.append(replace(one, latency_usd_per_1000_per_ms=slope, unserved_usd_per_1000=unserved, max_starts=None))
    return replace(problem, models=tuple(models))


def assert_nearest(problem: Problem, solution: Solution) -> None:
    """No nearer cluster has room for one more replica, but where so few would ask it that it would stand idle."""
    index = Index(problem)
    counts = {(one.model, one.pool): one.replicas for one in solution.replicas}
    used = capacity.devices_used(index, counts)
    for flow in solution.flows:
        model = index.models[flow.model]
        for option in index.options(model):
            pool, rtt_ms = option.pool, index.rtt_ms.get((flow.cell, option.pool.cluster))
            has_room = pool.devices - used[pool.name] >= option.shape.devices
            has_room &= counts.get((model.name, pool.name), 0) < option.most
            may = pool.cluster in index.servers(model, index.cells[flow.cell], [pool.cluster])
            if rtt_ms is None or not has_room or not may or (pool.market == "spot" and model.spot_max_fraction < 1):
                continue
            replica_usd = option.shape.devices * pool.usd_per_device_hour * (1 + model.warmup_s / 3600)
            moved_rps = min(flow.requests_per_second, option.shape.requests_per_second * model.target_utilisation)
            nearer_ms = flow.latency_ms - model.service_latency_ms - rtt_ms
            allowed_usd = replica_usd + model.move_usd + solution.gap * solution.cost.total + 1.0
            assert 0.72 * moved_rps * nearer_ms <= allowed_usd, f"{flow} though {pool.name} has room at {rtt_ms}"


@pytest.mark.timeout(400)
def test_who_prefers_the_nearest_is_served_by_the_nearest_with_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who said that money does not matter would still be served from where devices are cheap."""
    for seed in WORLDS:
        problem = nearest_of(a_world(seed))
        solution = engine.solve(problem)
        assert check(problem, solution) == ()
        if not solution.shortfalls and not any(one.is_capped or one.residency for one in problem.models):
            assert_nearest(problem, solution)
    problem = nearest_of(a_large_world(1, clusters=40, cells=400, models=4))
    near, cheap = (solved_as_large(one, monkeypatch) for one in (problem, sloped(problem, 1e-3)))
    assert check(problem, near) == ()
    assert not near.unserved
    assert rps_ms(near) < rps_ms(cheap)
