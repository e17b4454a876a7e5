"""A large plan after events: who serves whom at once, what is then bettered nearby, and all planned anew beside it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from placement import large
from placement.filters import Index
from placement.mend import Mending
from placement.model import Problem
from placement.number import number
from tests.bench.demo_size import result
from tests.bench.worlds import a_large_world

SIZES = ((200, 2_000, 8), (1_000, 10_000, 20))
LOSSES = 40
ANEW = 4
"""Of the losses, so many are planned anew beside the mended plan."""
NOISE = 0.03


def events() -> Iterator[dict[str, object]]:
    """Losses of single clusters and a cycle with 3 % noise on all demand; distances are to each world's own bound."""
    small = Index(a_large_world(0, clusters=10, cells=50, models=2))  # compiles, which is not measured
    first = Mending(small, large.plan(small))
    first.lose(["cluster-0000"])
    first.follow()
    for clusters, cells, models in SIZES:
        for seed in (1, 2, 3):
            problem = a_large_world(seed, clusters=clusters, cells=cells, models=models)
            index = Index(problem)
            size, planned = f"{clusters}x{cells}x{models}", Mending(index, large.plan(index))
            yield from _losses(size, problem, planned, seed)
            yield from _noise(size, problem, planned, seed)


def _losses(size: str, problem: Problem, planned: Mending, seed: int) -> Iterator[dict[str, object]]:
    used = sorted({pool.partition("/")[0] for _, pool in planned.standing.counts()})
    lost = np.random.default_rng(seed).choice(used, min(LOSSES, len(used)), replace=False).tolist()
    at_once_ms, nearby_ms = [], []
    for at, cluster in enumerate(lost):
        mended = planned.copy()
        begun_s = time.perf_counter()
        mended.lose([cluster])
        lost_s = time.perf_counter()
        mended.follow()
        at_once_ms.append(1e3 * (lost_s - begun_s))
        nearby_ms.append(1e3 * (time.perf_counter() - lost_s))
        if at < ANEW:
            anew = large.plan(Index(_without(problem, cluster)))
            gap, gap_anew = (one.usd_per_hour / anew.bound_usd_per_hour - 1 for one in (mended.standing, anew.standing))
            yield result(f"{size} gap without {cluster}", 100 * gap, "%", "planned anew", 100 * gap_anew, seed)
            churn, churn_anew = (_moved(planned, one.counts()) for one in (mended.standing, anew.standing))
            yield result(f"{size} starts without {cluster}", churn, "replicas", "planned anew", churn_anew, seed)
    yield result(
        f"{size} loss, routes p99",
        float(np.percentile(at_once_ms, 99)),
        "ms",
        "median",
        float(np.median(at_once_ms)),
        seed,
    )
    yield result(
        f"{size} loss, bettered p95",
        float(np.percentile(nearby_ms, 95)),
        "ms",
        "median",
        float(np.median(nearby_ms)),
        seed,
    )


def _noise(size: str, problem: Problem, planned: Mending, seed: int) -> Iterator[dict[str, object]]:
    rng = np.random.default_rng(seed)
    noisy = replace(
        problem,
        demands=tuple(
            replace(one, requests_per_second=one.requests_per_second * float(rng.lognormal(0.0, NOISE)))
            for one in problem.demands
        ),
    )
    index = Index(noisy)
    _, bound = large.priced(number(index))
    mended = planned.copy()
    begun_s = time.perf_counter()
    mended.become(index)
    taken_s = time.perf_counter() - begun_s
    replicas = sum(planned.standing.counts().values())
    moved = _moved(planned, mended.standing.counts())
    yield result(f"{size} noise, cycle", taken_s, "s", "", None, seed)
    yield result(f"{size} noise, cost", mended.standing.usd_per_hour, "USD/h", "bound", bound, seed)
    yield result(f"{size} noise, starts", moved, "replicas", "all", replicas, seed)


def _without(problem: Problem, cluster: str) -> Problem:
    return replace(problem, pools=tuple(pool for pool in problem.pools if pool.cluster != cluster))


def _moved(planned: Mending, counts: dict[tuple[str, str], int]) -> int:
    """Replicas that run in `counts` and did not before."""
    before = planned.standing.counts()
    return sum(max(0, count - before.get(key, 0)) for key, count in counts.items())
