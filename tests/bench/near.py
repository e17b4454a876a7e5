"""What near costs at the demo's size: the default price over its day, and the frontier with what proves it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

from federation.demo import catalogue
from federation.demo.physics import Physics
from federation.policy.documents import DEFAULT_USD_PER_1000_PER_MS
from placement import engine
from placement.explain.frontier import NO_MOVES_H, Point, Sweep, priced
from placement.index import Index
from placement.large import plan as large
from placement.large.encoding import encode
from placement.problem import NEARER_USD_PER_1000_PER_MS, Problem
from placement.solution import Solution
from tests.bench.demo_size import a_problem, result

MOMENTS = (0.02, 0.2, 0.35, 0.5, 0.65, 0.8)
"""Of the demo's day."""
SWEPT = (0.02, 0.35, 0.8)


def near() -> Iterator[dict[str, object]]:
    """Mean round trip beside the nearest possible, true ones, and accelerators beside those of a plan to which a
    millisecond is worth nothing; both planned in whole replicas, with round trips that agents have measured."""
    physics = Physics(catalogue.load())
    usd, rps_ms, rps_nearest_ms = [0.0, 0.0], [0.0, 0.0], 0.0
    for moment in MOMENTS:
        asked = a_problem(physics, moment, measured=True)
        names = {physics.user_cell(cell).name: cell for _, cell in physics.demand(moment)}
        for at, price in enumerate((NEARER_USD_PER_1000_PER_MS, DEFAULT_USD_PER_1000_PER_MS)):
            solution = engine.solve(priced(asked, price))
            usd[at] += solution.cost.accelerators / len(MOMENTS)
            rps_ms[at] += _rps_ms(physics, names, solution)
        rps_nearest_ms += _rps_nearest_ms(physics, names, asked)
    yield result("round trip", rps_ms[1] / rps_nearest_ms, "of the nearest", "price 0", rps_ms[0] / rps_nearest_ms)
    yield result("accelerators", usd[1], "USD/h", "price 0", usd[0])


def _rps_ms(physics: Physics, names: Mapping[str, str], solution: Solution) -> float:
    return sum(one.requests_per_second * physics.user_rtt_ms(names[one.cell], one.cluster) for one in solution.flows)


def _rps_nearest_ms(physics: Physics, names: Mapping[str, str], asked: Problem) -> float:
    index, total = Index(asked), 0.0
    for model in asked.models:
        able = {option.pool.cluster for option in index.options(model)}
        for demand in index.demands[model.name]:
            may = index.servers(model, index.cells[demand.cell], able)
            total += demand.requests_per_second * min(physics.user_rtt_ms(names[demand.cell], one) for one in may)
    return total


def frontier() -> Iterator[dict[str, object]]:
    """Points, processor time, and how far the worst is above a bound that prices found by other means prove; and how
    much dearer than the curve the plan in whole replicas is at its own distance."""
    physics = Physics(catalogue.load())
    for seed, moment in enumerate(SWEPT):
        asked = a_problem(physics, moment, measured=True)
        solution = engine.solve(asked)
        begun_s = time.process_time()
        sweep = Sweep(asked, solution)
        standing = sweep.standing()
        while sweep.step():
            pass
        points = sweep.points()
        yield result("seconds", time.process_time() - begun_s, "s of processor time", "at most", 10.0, seed)
        yield result("points", len(points), "points", "wanted", 12, seed)
        yield result("falls", _falls(points), "points that are dearer and no nearer", "wanted", 0, seed)
        yield result("own gap", 100 * max(one.gap for one in points), "%", "at most", 0.5, seed)
        yield result("other bound", 100 * max(_above(asked, one) for one in points), "%", "", None, seed)
        if standing.planned is not None and standing.on_curve is not None:
            whole, parts = standing.planned.usd_per_hour, standing.on_curve.usd_per_hour
            yield result("whole replicas", whole, "USD/h", "in parts", parts, seed)


def _falls(points: tuple[Point, ...]) -> int:
    pairs = itertools.pairwise(points)
    return sum(1 for a, b in pairs if b.rtt_ms_mean >= a.rtt_ms_mean or b.usd_per_hour < a.usd_per_hour)


def _above(asked: Problem, point: Point) -> float:
    _, bound = large.priced(encode(Index(replace(priced(asked, point.usd_per_1000_per_ms), move_horizon_h=NO_MOVES_H))))
    rps = sum(one.requests_per_second for one in asked.demands) - point.unserved_rps
    total = point.usd_per_hour + 3.6 * point.usd_per_1000_per_ms * rps * point.rtt_ms_mean
    return (total - bound) / total
