"""A large plan after events: who serves whom at once, what is then bettered nearby, and all planned anew beside it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from msgspec import structs

from placement.index import Index
from placement.large import plan as large
from placement.large.encoding import encode
from placement.large.reoptimise import Reoptimiser
from placement.problem import Problem
from tests.bench.demo_size import result
from tests.bench.worlds import a_large_world

SIZES = ((200, 2_000, 8), (1_000, 10_000, 20))
LOSSES = 40
NOISE = 0.03


def events() -> Iterator[dict[str, object]]:
    """Losses of single clusters and a cycle with 3 % noise on all demand; distances are to each world's own bound."""
    small = Index(a_large_world(0, clusters=10, cells=50, models=2))  # compiles, which is not measured
    first = Reoptimiser(small, large.plan(small))
    first.drop_clusters(["cluster-0000"])
    first.repair()
    for clusters, cells, models in SIZES:
        for seed in (1, 2, 3):
            problem = a_large_world(seed, clusters=clusters, cells=cells, models=models)
            index = Index(problem)
            size, planned = f"{clusters}x{cells}x{models}", Reoptimiser(index, large.plan(index))
            yield from _losses(size, problem, planned, seed)
            yield from _noise(size, problem, planned, seed)


def _losses(size: str, problem: Problem, planned: Reoptimiser, seed: int) -> Iterator[dict[str, object]]:
    used = sorted({pool.partition("/")[0] for _, pool in planned.incumbent.counts()})
    lost = np.random.default_rng(seed).choice(used, min(LOSSES, len(used)), replace=False).tolist()
    at_once_ms, nearby_ms, gaps, starts = [], [], [], []
    for cluster in lost:
        mended = planned.copy()
        begun_s = time.perf_counter()
        mended.drop_clusters([cluster])
        lost_s = time.perf_counter()
        mended.repair()
        at_once_ms.append(1e3 * (lost_s - begun_s))
        nearby_ms.append(1e3 * (time.perf_counter() - lost_s))
        anew = large.plan(Index(_without(problem, cluster)))
        both = (mended.incumbent, anew.incumbent)
        gaps.append([100 * (one.usd_per_hour / anew.bound_usd_per_hour - 1) for one in both])
        starts.append([_moved(planned, one.counts()) for one in both])
    for name, taken_ms, most in (("routes", at_once_ms, 99), ("bettered", nearby_ms, 95)):
        value, median = (float(np.percentile(taken_ms, part)) for part in (most, 50))
        yield result(f"{size} loss, {name} p{most}", value, "ms", "median", median, seed)
    gap, gap_anew = np.mean(gaps, axis=0).tolist()
    yield result(f"{size} loss, gap", gap, "%", "planned anew", gap_anew, seed)
    more = np.diff(np.array(gaps)[:, ::-1], axis=1)
    value, median = (float(np.percentile(more, part)) for part in (90, 50))
    yield result(f"{size} loss, gap beyond planned anew p90", value, "points", "median", median, seed)
    moved, moved_anew = np.mean(starts, axis=0).tolist()
    yield result(f"{size} loss, starts", moved, "replicas", "planned anew", moved_anew, seed)
    part = [mine / max(1, other) for mine, other in starts]
    value, median = (float(np.percentile(part, at)) for at in (95, 50))
    yield result(f"{size} loss, starts of those planned anew p95", value, "", "median", median, seed)


def _noise(size: str, problem: Problem, planned: Reoptimiser, seed: int) -> Iterator[dict[str, object]]:
    rng = np.random.default_rng(seed)
    noisy = replace(
        problem,
        demands=tuple(
            structs.replace(one, requests_per_second=one.requests_per_second * float(rng.lognormal(0.0, NOISE)))
            for one in problem.demands
        ),
    )
    index = Index(noisy)
    _, bound = large.priced(encode(index))
    mended = planned.copy()
    begun_s = time.perf_counter()
    mended.update(index)
    taken_s = time.perf_counter() - begun_s
    replicas = sum(planned.incumbent.counts().values())
    moved = _moved(planned, mended.incumbent.counts())
    yield result(f"{size} noise, cycle", taken_s, "s", "", None, seed)
    yield result(f"{size} noise, cost", mended.incumbent.usd_per_hour, "USD/h", "bound", bound, seed)
    yield result(f"{size} noise, starts", moved, "replicas", "all", replicas, seed)


def _without(problem: Problem, cluster: str) -> Problem:
    return replace(problem, pools=tuple(pool for pool in problem.pools if pool.cluster != cluster))


def _moved(planned: Reoptimiser, counts: dict[tuple[str, str], int]) -> int:
    """Replicas that run in `counts` and did not before."""
    before = planned.incumbent.counts()
    return sum(max(0, count - before.get(key, 0)) for key, count in counts.items())
