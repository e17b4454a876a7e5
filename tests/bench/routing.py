"""Routing beside the plan whose replicas it uses, beside the programme over every pair, and beside a greedy rule: who
is served within the objective, for how much, and how full clusters are. Cold, and after demand changed a little."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from unittest import mock

import numpy as np
from msgspec import structs

from placement import answer, capacity, costs, engine
from placement.index import Index
from placement.problem import Problem
from placement.solution import Flow, Routing
from tests.bench.demo_size import result
from tests.bench.worlds import a_large_world

SIZES = ((60, 500, 8), (100, 500, 8), (200, 2_000, 8), (1_000, 2_000, 8), (1_000, 10_000, 20))
SEEDS = (1, 2, 3)
NOISE = 0.03
EXACT_PAIRS = 4_000_000
"""Of demands and clusters: so many at most are a programme over every pair."""

Ready = Mapping[tuple[str, str], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """`usd_per_hour` without accelerators; `utilisation` of the fullest cluster of any model."""

    within: float
    usd_per_hour: float
    utilisation: float


def routing() -> Iterator[dict[str, object]]:
    """Each size and seed: what is routed beside the plan (and, on the same replicas after noise, a greedy rule) and the
    programme over every pair."""
    engine.route(a_large_world(0, clusters=60, cells=500, models=8), {})  # compiles, which is not measured
    for clusters, cells, models in SIZES:
        for seed in SEEDS:
            yield from of_size(clusters, cells, models, seed)


def of_size(clusters: int, cells: int, models: int, seed: int) -> Iterator[dict[str, object]]:
    """One size and seed."""
    problem = a_large_world(seed, clusters=clusters, cells=cells, models=models)
    solution = engine.solve(problem)
    ready = {(one.model, one.pool): one.replicas for one in solution.replicas}
    chance = np.random.default_rng(seed)
    noisy = replace(
        problem,
        demands=tuple(
            structs.replace(one, requests_per_second=one.requests_per_second * factor)
            for one, factor in zip(
                problem.demands, chance.uniform(1 - NOISE, 1 + NOISE, len(problem.demands)), strict=True
            )
        ),
    )
    size, late = f"{clusters}x{cells}x{models}", engine.late_parts(solution)
    cold, cold_s = _timed(problem, ready, None, late)
    warm, warm_s = _timed(noisy, ready, cold, late)
    yield from _compared(f"{size} cold", problem, ready, cold, cold_s, late, {"plan": solution.flows}, seed)
    others = {"greedy": greedy(noisy, ready)}
    yield from _compared(f"{size} warm after noise", noisy, ready, warm, warm_s, late, others, seed)


def _timed(problem: Problem, ready: Ready, last: Routing | None, late: Mapping[str, float]) -> tuple[Routing, float]:
    """With the seconds of processor time that it took."""
    begun_s = time.process_time()
    routed = engine.route(problem, ready, last, late)
    return routed, time.process_time() - begun_s


def _compared(
    size: str,
    problem: Problem,
    ready: Ready,
    routed: Routing,
    taken_s: float,
    late: Mapping[str, float],
    others: Mapping[str, Iterable[Flow]],
    seed: int,
) -> Iterator[dict[str, object]]:
    exact_s = None
    if len(problem.demands) * len(problem.clusters) <= EXACT_PAIRS:
        with mock.patch.object(engine, "LARGE_PAIRS", EXACT_PAIRS):
            exact, exact_s = _timed(problem, ready, None, late)
        others = {**others, "exact": exact.flows}
    ours = figures(problem, ready, routed.flows)
    for name, flows in others.items():
        theirs = figures(problem, ready, flows)
        yield result(f"{size} within the objective", 100 * ours.within, "%", name, 100 * theirs.within, seed)
        yield result(f"{size} cost without devices", ours.usd_per_hour, "USD/h", name, theirs.usd_per_hour, seed)
        yield result(f"{size} fullest cluster", 100 * ours.utilisation, "%", name, 100 * theirs.utilisation, seed)
    yield result(f"{size} proven gap", 100 * routed.gap, "%", "", None, seed)
    yield result(f"{size} route", taken_s, "s of processor time", "exact" if exact_s else "", exact_s, seed)


def figures(problem: Problem, ready: Ready, flows: Iterable[Flow]) -> Figures:
    """What these flows are worth."""
    index, models = Index(problem), {model.name: model for model in problem.models}
    asked = sum(one.requests_per_second for one in problem.demands)
    load: dict[tuple[str, str], float] = defaultdict(float)
    within = usd = 0.0
    left = {(one.model, one.cell): one.requests_per_second for one in problem.demands}
    for flow in flows:
        rps, model = flow.requests_per_second, models[flow.model]
        within += rps if flow.within_objective else 0.0
        usd += rps * costs.served_usd_per_rps(model, index.clusters[flow.cluster], flow.latency_ms)
        load[flow.model, flow.cluster] += rps
        left[flow.model, flow.cell] -= rps
    usd += sum(
        costs.THOUSANDS_PER_HOUR * models[model].unserved_usd_per_1000 * rps
        for (model, _), rps in left.items()
        if rps > answer.DUST_RPS
    )
    usable = {name: capacity.capacity_of(index, model, ready)[0] for name, model in models.items()}
    fullest = max(
        (
            rps / usable[model][cluster] * models[model].target_utilisation if usable[model].get(cluster) else np.inf
            for (model, cluster), rps in load.items()
        ),
        default=0.0,
    )
    return Figures(within=within / asked, usd_per_hour=usd, utilisation=float(fullest))


def greedy(problem: Problem, ready: Ready) -> list[Flow]:
    """The largest demands first, each in the cheapest cluster that has room by what plans count on."""
    index, made = Index(problem), []
    rtt_ms = problem.rtt_matrix()
    for model in problem.models:
        usable, _ = capacity.capacity_of(index, model, ready)
        names = sorted(usable)
        room = np.array([usable[name] for name in names])
        demands = sorted(index.demands[model.name], key=lambda one: (-one.requests_per_second, one.cell))
        waits_ms = rtt_ms.part([one.cell for one in demands], names).astype(float) + model.service_latency_ms
        for at, demand in enumerate(demands):
            allowed = index.allowed(model, index.cells[demand.cell])
            usd = [
                costs.served_usd_per_rps(model, index.clusters[name], waits_ms[at, column])
                if name in allowed and waits_ms[at, column] == waits_ms[at, column]
                else np.inf
                for column, name in enumerate(names)
            ]
            rps = demand.requests_per_second
            for column in np.argsort(usd, kind="stable").tolist():
                if rps <= answer.DUST_RPS or not np.isfinite(usd[column]):
                    break
                part = min(rps, float(room[column]))
                if part <= 0:
                    continue
                room[column] -= part
                rps -= part
                late = float(waits_ms[at, column])
                made.append(
                    Flow(
                        model=model.name,
                        cell=demand.cell,
                        cluster=names[column],
                        requests_per_second=part,
                        latency_ms=late,
                        within_objective=late <= model.objective_ms,
                    )
                )
    return made
