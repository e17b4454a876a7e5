"""How near users are served, and how much nearer they could be."""

from __future__ import annotations

from dataclasses import replace

import pytest

import placement as words
from federation.control.nearness import near, nearest, of_flows
from federation.state.keys import ModelCell
from placement import engine
from tests.bench.worlds import a_large_world
from tests.properties.worlds import a_world


def test_figures_are_of_requests_and_not_of_places() -> None:
    """A village far away would look as bad as a city."""
    found = near([(96.0, 10.0, 10.0), (3.0, 50.0, 20.0), (1.0, 200.0, None), (0.0, 900.0, 1.0)])
    assert found is not None
    assert found.rtt_ms_mean == pytest.approx((96 * 10 + 3 * 50 + 200) / 100)
    assert found.rtt_ms_p95 == 10.0
    assert found.excess_ms_mean == pytest.approx(3 * 30 / 100)
    wide = near([(94.0, 10.0, 10.0), (6.0, 50.0, 20.0)])
    assert wide is not None
    assert wide.rtt_ms_p95 == 50.0
    assert near([]) is None


def test_the_nearest_is_one_that_could_serve() -> None:
    """Users would be said to be served from afar because of a cluster that may not or cannot serve them."""
    for seed in range(60):
        problem = a_world(seed)
        rtt_ms, found = problem.rtt_ms(), nearest(problem)
        clusters = {one.name: one for one in problem.clusters}
        for model in problem.models:
            for demand in problem.demands:
                if demand.model != model.name or demand.requests_per_second <= 0:
                    continue
                cell = next(one for one in problem.cells if one.name == demand.cell)
                able = [
                    rtt_ms[cell.name, pool.cluster]
                    for pool in problem.pools
                    for shape in [model.shape_for(pool)]
                    if shape is not None
                    and takes_one(problem, model, pool, shape)
                    and clusters[pool.cluster].reachable
                    and problem.allows(model, cell, clusters[pool.cluster])
                    and (cell.name, pool.cluster) in rtt_ms
                ]
                assert found.get(ModelCell((model.name, cell.name))) == min(able, default=None), f"seed {seed}"


def takes_one(problem: words.Problem, model: words.Model, pool: words.Pool, shape: words.Shape) -> bool:
    """Whether a replica of the model can be there, or is."""
    room = {(one.model, one.pool): one.replicas for one in problem.room}.get((model.name, pool.name), 10**9)
    now = sum(one.replicas for one in problem.current if (one.model, one.pool) == (model.name, pool.name))
    fits = min(pool.devices // shape.devices, room)
    intake = next(one for one in problem.clusters if one.name == pool.cluster).intake
    return {
        words.Intake.OPEN: fits > 0,
        words.Intake.CORDONED: min(fits, now) > 0,
        words.Intake.DRAINING: False,
        words.Intake.HELD: now > 0,
    }[intake]


def test_a_large_fleet_is_measured_like_a_small_one() -> None:
    """The same fleet would look nearer or farther with one cluster more."""
    problem = a_large_world(1, clusters=12, cells=40, models=2)
    rtt_ms = problem.rtt_ms()
    paths = tuple(words.Path(cell=cell, cluster=cluster, rtt_ms=ms) for (cell, cluster), ms in sorted(rtt_ms.items()))
    assert nearest(problem) == pytest.approx(nearest(replace(problem, paths=paths)))


def test_a_plan_tells_of_each_model_and_of_all() -> None:
    """Who compares plans would see dollars and no milliseconds."""
    problem = a_large_world(2, clusters=8, cells=20, models=2)
    solution = engine.solve(problem)
    of_all, of_models = of_flows(problem, solution.flows, nearest(problem))
    assert of_all is not None
    assert of_models.keys() == {one.name for one in problem.models}
    service_ms = {one.name: one.service_latency_ms for one in problem.models}
    rps = sum(one.requests_per_second for one in solution.flows)
    waited = sum(one.requests_per_second * (one.latency_ms - service_ms[one.model]) for one in solution.flows)
    assert of_all.rtt_ms_mean == pytest.approx(waited / rps)
    assert of_all.excess_ms_mean >= 0
    assert of_all.rtt_ms_p95 >= min(one.rtt_ms_mean for one in of_models.values())
