"""What near costs: each point is the best at its price, and the curve only rises."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from federation.demo import catalogue
from federation.demo.physics import Physics
from placement import engine, highs
from placement.exact import formulation
from placement.explain.frontier import NO_MOVES_H, POINTS, Point, Sweep, priced, says
from placement.index import Index
from placement.large import plan as large
from placement.large.encoding import encode
from placement.problem import Problem
from placement.solution import Solution
from tests.bench.demo_size import a_problem
from tests.bench.worlds import a_large_world
from tests.properties.worlds import a_world

MORNING = 0.35


@pytest.fixture(scope="module")
def demo() -> Problem:
    """The demo's question in the morning."""
    return a_problem(Physics(catalogue.load()), MORNING)


@pytest.fixture(scope="module")
def plan(demo: Problem) -> Solution:
    """Its answer."""
    return engine.solve(demo)


def swept(sweep: Sweep) -> tuple[Point, ...]:
    """The whole curve."""
    while sweep.step():
        pass
    return sweep.points()


def assert_a_frontier(points: tuple[Point, ...]) -> None:
    """Nearer is dearer, and each millisecond more so than the one before."""
    for one, other in itertools.pairwise(points):
        assert one.rtt_ms_mean > other.rtt_ms_mean
        assert one.usd_per_hour <= other.usd_per_hour + 1e-6
        assert one.usd_per_1000_per_ms < other.usd_per_1000_per_ms
    slopes = [
        (other.usd_per_hour - one.usd_per_hour) / (one.rtt_ms_mean - other.rtt_ms_mean)
        for one, other in itertools.pairwise(points)
    ]
    for gentle, steep in itertools.pairwise(slopes):
        assert gentle <= steep * (1 + 1e-6) + 1e-6


def total_usd(problem: Problem, point: Point) -> float:
    """What the programme of this price makes small."""
    rps = sum(one.requests_per_second for one in problem.demands) - point.unserved_rps
    return point.usd_per_hour + 3.6 * point.usd_per_1000_per_ms * rps * point.rtt_ms_mean


@pytest.mark.timeout(400)  # the first call compiles, for most of a minute
def test_the_demo_has_a_curve_of_twelve_points_that_other_prices_prove(demo: Problem, plan: Solution) -> None:
    """An operator would pay for nearness that can be had for less."""
    points = swept(Sweep(demo, plan))
    assert len(points) == POINTS
    assert_a_frontier(points)
    for point in points:
        assert point.gap <= 0.005
        assert not point.unserved_rps
        # The large engine's prices, found by other means, prove that hardly anything is cheaper.
        at = replace(priced(demo, point.usd_per_1000_per_ms), move_horizon_h=NO_MOVES_H)
        _, bound = large.priced(encode(Index(at)))
        assert bound <= total_usd(demo, point) * (1 + 1e-6)
        assert bound >= total_usd(demo, point) * 0.99


def test_every_point_is_the_best_at_its_price(demo: Problem, plan: Solution) -> None:
    """The curve would show savings that are not there."""
    tiny = [a_world(seed) for seed in range(40)]
    for problem, solution in ((demo, plan), *((one, engine.solve(one)) for one in tiny)):
        points = swept(Sweep(problem, solution))
        if any(point.unserved_rps for point in points) or any(one.max_starts is not None for one in problem.models):
            continue
        for point in points:
            at = replace(priced(problem, point.usd_per_1000_per_ms), move_horizon_h=NO_MOVES_H)
            found = highs.solve(formulation.formulate(Index(at)).programme, relaxed=True)
            if found is not None:
                assert total_usd(problem, point) <= found.objective * 1.005 + 1e-6


def test_a_model_alone_is_asked_with_the_others_where_they_are(demo: Problem, plan: Solution) -> None:
    """Two models would be promised the same devices."""
    name = "chat-8b"
    sweep = Sweep(demo, plan, name)
    points, standing = swept(sweep), sweep.standing()
    assert_a_frontier(points)
    assert standing.planned is not None and standing.on_curve is not None
    mine = [one for one in plan.flows if one.model == name]
    rps = sum(one.requests_per_second for one in mine)
    service_ms = Index(demo).models[name].service_latency_ms
    mean_ms = sum(one.requests_per_second * (one.latency_ms - service_ms) for one in mine) / rps
    assert standing.planned.rtt_ms_mean == pytest.approx(mean_ms)
    assert standing.on_curve.usd_per_hour <= standing.planned.usd_per_hour * 1.05
    with pytest.raises(KeyError):
        Sweep(demo, plan, "chat-9b")


@pytest.mark.timeout(400)
def test_large_fleets_have_a_curve_of_whole_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who runs many clusters would be told that theirs is no question."""
    problem = a_large_world(1, clusters=12, cells=60, models=2)
    with monkeypatch.context() as patched:
        patched.setattr(engine, "LARGE_PAIRS", -1)
        sweep = Sweep(problem, engine.solve(problem))
        points, standing = swept(sweep), sweep.standing()
    assert not standing.in_parts
    assert len(points) > 2
    for one, other in itertools.pairwise(points):
        assert one.rtt_ms_mean > other.rtt_ms_mean
        assert one.usd_per_hour <= other.usd_per_hour + 1e-6


def test_where_policy_stands_is_said_with_what_a_step_costs(demo: Problem, plan: Solution) -> None:
    """Who reads the curve would have to do sums to know what ten milliseconds cost."""
    sweep = Sweep(demo, plan)
    told = says(swept(sweep), sweep.standing())
    assert "policy stands at 17.0 ms for 659 USD/h: 1 ms nearer costs" in told
    assert "10 ms farther saves" in told
    assert "in whole replicas" in told
    nobody = Problem(clusters=demo.clusters, pools=demo.pools, models=demo.models, cells=(), demands=(), paths=())
    empty = Sweep(nobody, engine.solve(nobody))
    assert "nobody" in says(swept(empty), empty.standing())
