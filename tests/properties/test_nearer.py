"""What a millisecond is worth: the more, the nearer users are served, and never for more than it is worth."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from placement import engine
from placement.check import check
from placement.model import NEARER_USD_PER_1000_PER_MS, Problem, Solution
from tests.bench.worlds import a_large_world
from tests.properties.test_scale import solved_as_large
from tests.properties.worlds import a_world

SLOPES = (0.0, 1e-4, 3e-4, 1e-3)
WORLDS = range(60)


def sloped(problem: Problem, usd_per_1000_per_ms: float) -> Problem:
    """The same where each millisecond of 1,000 requests is worth so much."""
    slope = NEARER_USD_PER_1000_PER_MS + usd_per_1000_per_ms
    return replace(problem, models=tuple(replace(one, latency_usd_per_1000_per_ms=slope) for one in problem.models))


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
