"""Plans made on a local Dask cluster of two workers, beside the controller's own solver process: two plans at once.

A controller sends a plan to one worker, question and answer in pieces and the answer checked there: two controllers, or
a plan and the study of a change, take two workers.
"""

from __future__ import annotations

import asyncio
import importlib
import resource
import time
from collections.abc import Iterator
from typing import Any

from federation.adapters import executors
from federation.adapters.solver import Solver
from federation.control.placement_cycle import Proposal
from placement.problem import Problem
from tests.bench.demo_size import result
from tests.bench.worlds import a_large_world

SIZES = ((200, 2_000, 8), (1_000, 10_000, 20), (3_000, 30_000, 20))
WORKERS = 2


def elsewhere() -> Iterator[dict[str, object]]:
    """Seconds from the question to the checked answer, and the memory of the largest worker."""
    distributed: Any = importlib.import_module("distributed")
    for clusters, cells, models in SIZES:
        size = f"{clusters}x{cells}x{models}"
        problems = [a_large_world(seed, clusters=clusters, cells=cells, models=models) for seed in (1, 2)]
        with distributed.LocalCluster(
            n_workers=WORKERS,
            threads_per_worker=1,
            host="127.0.0.1",
            memory_limit=None,
            dashboard_address=None,
            worker_dashboard_address=None,
        ) as cluster:
            lent = executors.connect(cluster.scheduler_address.replace("tcp://", "dask://"))
            answers, both_s = asyncio.run(_solved([Solver(lent.executor), Solver(lent.executor)], problems))
            peaks = cluster.get_client().run(_peak_mib)
            lent.close()
        own, own_s = asyncio.run(_solved([Solver()], problems))
        assert [one.solution for one in own] == [one.solution for one in answers], (
            "answers differ by where they are made"
        )
        yield result(f"{size} two plans on {WORKERS} Dask workers", both_s, "s", "own process, one by one", own_s)
        yield result(f"{size} memory of the largest worker", max(peaks.values()), "MiB", "", None)
        for seed, answer in enumerate(answers, start=1):
            cost, bound = answer.solution.cost.total, answer.solution.bound_usd_per_hour
            yield result(f"{size} cost", cost, "USD/h", "bound", bound, seed)


async def _solved(solvers: list[Solver], problems: list[Problem]) -> tuple[list[Proposal], float]:
    """The answers, and seconds for all: by one solver one after the other, by several at once."""
    for solver in solvers:
        await solver.warm()
    began_s = time.perf_counter()
    if len(solvers) == 1:
        answers = [await solvers[0].solve(problem, ()) for problem in problems]
    else:
        pairs = zip(solvers, problems, strict=True)
        answers = list(await asyncio.gather(*(solver.solve(problem, ()) for solver, problem in pairs)))
    took_s = time.perf_counter() - began_s
    for solver in solvers:
        await solver.close()
    return answers, took_s


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
