"""The engine at the demo's size: real places, prices and round trips; 49 clusters, 80 cells, five models."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TextIO

from federation.control.problem import formulate
from federation.demo import catalogue, rivals
from federation.demo.physics import Physics
from federation.state.reduce import BrokerFound, DocumentsAccepted, Heard, reduce
from federation.state.world import Timing, World
from federation.wire import messages
from placement import engine
from placement.problem import Problem

EVENING = 0.8
"""Fraction of the day (UTC): demand has doubled in North America."""


@contextlib.contextmanager
def quiet_solver() -> Iterator[TextIO]:
    """Where results are written; the solver prints a banner of its own, which goes nowhere."""
    before = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        with os.fdopen(os.dup(before), "w") as results:
            yield results
    finally:
        os.dup2(before, 1)
        os.close(before)
        os.close(nowhere)


def a_problem(physics: Physics, moment: float, *, measured: bool = False) -> Problem:
    """What the controller would ask at this moment, with everything reported; round trips too, where `measured`."""
    world = reduce(World(timing=Timing()), DocumentsAccepted(documents=physics.catalogue.documents, now_s=0.0)).world
    world = reduce(world, BrokerFound(now_s=0.0)).world
    for cluster in sorted(physics.clusters):
        world = reduce(world, Heard(message=a_report(physics, cluster, moment, measured=measured), now_s=1.0)).world
    return formulate(world, target={}, desired={}, now_s=1.0).problem


def a_report(physics: Physics, cluster: str, moment: float, *, measured: bool = False) -> messages.Report:
    """What the agent of a cluster would say."""
    return messages.Report(
        cluster=cluster,
        boot_id="bench-0001",
        seq=1,
        interval_s=10.0,
        pools=physics.pool_reports(cluster, moment),
        peers=tuple(
            messages.PeerRtt(cluster=other, rtt_ms_p50=rtt_ms, rtt_ms_p95=rtt_ms, samples=10)
            for other in sorted(physics.clusters if measured else ())
            if other != cluster
            for rtt_ms in [physics.site_rtt_ms(cluster, other)]
        ),
        demand=tuple(
            messages.DemandSample(model=model, cell=physics.user_cell(cell), requests_per_second=rps)
            for (model, cell), rps in sorted(physics.demand(moment).items())
            if physics.front_door(cell, moment) == cluster
        ),
    )


def solve() -> Iterator[dict[str, object]]:
    """A cold plan: its cost and time against a greedy rule, and how far from the proven bound it is."""
    physics = Physics(catalogue.load())
    problem = a_problem(physics, EVENING)
    engine.solve(problem)
    begun_s = time.perf_counter()
    solution = engine.solve(problem)
    ours_s = time.perf_counter() - begun_s
    begun_s = time.perf_counter()
    greedy = rivals.greedy(problem)
    greedy_s = time.perf_counter() - begun_s
    yield result("time", ours_s, "s", "greedy", greedy_s)
    pools, models = {one.name: one for one in problem.pools}, {one.name: one for one in problem.models}
    greedy_usd = sum(
        count * shape.devices * pools[pool].usd_per_device_hour
        for (model, pool), count in greedy.replicas.items()
        if (shape := models[model].shape_for(pools[pool])) is not None
    )
    yield result("accelerators", solution.cost.accelerators, "USD/h", "greedy", greedy_usd)
    yield result("gap", solution.cost.total, "USD/h", "proven bound", solution.bound_usd_per_hour)


def route() -> Iterator[dict[str, object]]:
    """Rerouting after the fullest cluster is lost, against planning again."""
    problem = a_problem(Physics(catalogue.load()), EVENING)
    solution = engine.solve(problem)
    load: dict[str, float] = {}
    for flow in solution.flows:
        load[flow.cluster] = load.get(flow.cluster, 0.0) + flow.requests_per_second
    lost = max(sorted(load), key=lambda name: load[name])
    clusters = tuple(replace(one, reachable=one.name != lost) for one in problem.clusters)
    without = replace(problem, clusters=clusters)
    ready = {(one.model, one.pool): one.replicas for one in solution.replicas}
    begun_s = time.perf_counter()
    engine.route(without, ready)
    route_s = time.perf_counter() - begun_s
    begun_s = time.perf_counter()
    engine.solve(without)
    yield result("reroute", route_s, "s", "plan again", time.perf_counter() - begun_s)


def result(
    name: str, value: float, unit: str, baseline: str, baseline_value: float | None, seed: int = 0
) -> dict[str, object]:
    """One line."""
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "baseline": baseline,
        "baseline_value": baseline_value,
        "ratio": value / baseline_value if baseline_value else None,
        "seed": seed,
    }
