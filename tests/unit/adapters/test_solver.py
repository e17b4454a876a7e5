"""Solves happen elsewhere: on a process of our own or on anybody's executor, and they can be called off."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from federation.adapters import executors
from federation.adapters.solver import Solver, SolverError
from federation.control.placement_cycle import Proposal
from placement import engine
from placement.check import check
from tests.bench.worlds import a_large_world
from tests.properties.worlds import a_world


@pytest.fixture
def dask() -> Iterator[Executor]:
    """A scheduler and a worker process of Dask, on loopback."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, worker_dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client.get_executor(pure=False)


async def busy() -> tuple[Solver, asyncio.Task[Proposal]]:
    """A solver in the middle of a long solve."""
    solver = Solver()
    await solver.warm()
    long = a_large_world(1, clusters=1_000, cells=6_000, models=16)
    solving = asyncio.get_running_loop().create_task(solver.solve(long, ()))
    await asyncio.sleep(3.0)
    assert not solving.done(), "the world is too small for this test"
    return solver, solving


async def test_a_thread_pool_gives_the_same_answer() -> None:
    """A deployment with executors of its own would plan something else."""
    problem = a_world(7)
    with ThreadPoolExecutor(1) as pool:
        solver = Solver(pool)
        answer = await solver.solve(problem, problem.current)
        await solver.close()
    assert answer.solution == engine.solve(problem)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
async def test_dask_gives_the_same_answer(dask: Executor) -> None:
    """There would be no way to more machines than one."""
    problem = a_world(7)
    solver = Solver(dask)
    answer = await solver.solve(problem, problem.current)
    await solver.close()
    assert answer.solution == engine.solve(problem)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
async def test_the_scheduler_that_settings_name_makes_the_plans() -> None:
    """`--solver` would be taken, and plans still be made here."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, worker_dashboard_address=None
    ) as cluster:
        lent = await asyncio.to_thread(executors.connect, cluster.scheduler_address.replace("tcp://", "dask://"))
        assert await asyncio.wrap_future(lent.executor.submit(os.getpid)) != os.getpid()
        solver, problem = Solver(lent.executor), a_world(7)
        answer = await solver.solve(problem, problem.current)
        await solver.close()
        await asyncio.to_thread(lent.close)
    assert answer.solution == engine.solve(problem)


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:8786", "dask://127.0.0.1", "dask://:8786", "dask://host:port"])
def test_an_address_that_is_none_is_refused_with_what_one_looks_like(url: str) -> None:
    """A controller would hang at its start, or fail with a sentence of some library's."""
    with pytest.raises(ValueError, match=r"dask://127\.0\.0\.1:8786"):
        executors.check(url)
    assert executors.check("dask://[::1]:8786") == "tcp://[::1]:8786"


async def test_an_executor_that_gives_up_fails_the_solve_and_not_the_loop_that_waits_for_it() -> None:
    """No plan would ever be made again after a scheduler was restarted."""

    class GivesUp(ThreadPoolExecutor):
        def submit(self, *_: object, **__: object) -> Future[Any]:
            future: Future[Any] = Future()
            future.cancel()
            return future

    problem = a_world(7)
    solver = Solver(GivesUp(1))
    with pytest.raises(SolverError, match="cancelled this one"):
        await solver.solve(problem, problem.current)
    await solver.close()


@pytest.mark.slow
async def test_a_solve_that_is_called_off_ends_and_the_next_one_works() -> None:
    """A controller that is told to stop would hang on a plan that nobody wants any more."""
    solver, solving = await busy()
    begun_s = time.perf_counter()
    solving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await solving
    assert time.perf_counter() - begun_s < 5.0
    problem = a_world(7)
    assert (await solver.solve(problem, problem.current)).solution == engine.solve(problem)
    await solver.close()


@pytest.mark.slow
async def test_closing_ends_a_solve_with_its_reason() -> None:
    """Whoever waits for the answer would wait for ever."""
    solver, solving = await busy()
    await solver.close()
    with pytest.raises(SolverError, match="died"):
        await solving


async def test_two_questions_at_once_get_an_answer_each() -> None:
    """What somebody only asked about (`isochrone diff`) would be planned, and committed, in place of what is."""
    problems = [a_large_world(seed, clusters=20, cells=300 + 200 * seed, models=2) for seed in (1, 2, 3)]
    solver = Solver()
    answers = await asyncio.gather(*(solver.solve(one, ()) for one in problems))
    await solver.close()
    for problem, answer in zip(problems, answers, strict=True):
        asked = {demand.cell for demand in problem.demands}
        assert {flow.cell for flow in answer.solution.flows} == asked
        assert check(problem, answer.solution) == ()


async def test_nothing_is_started_once_it_is_closed() -> None:
    """A controller that ended while it packed a question would leave a process behind."""
    solver = Solver()
    solving = asyncio.get_running_loop().create_task(
        solver.solve(a_large_world(1, clusters=60, cells=600, models=2), ())
    )
    await asyncio.sleep(0)
    await solver.close()
    with pytest.raises(SolverError, match="closed"):
        await solving


@pytest.mark.slow
async def test_the_next_plan_of_a_large_fleet_moves_little() -> None:
    """Each breath of demand would move replicas all over a large fleet."""
    problem = a_large_world(1, clusters=60, cells=1_800, models=2)
    rng = np.random.default_rng(1)
    solver = Solver()
    first = (await solver.solve(problem, ())).solution
    running = replace(
        problem,
        current=first.replicas,
        demands=tuple(
            structs.replace(one, requests_per_second=one.requests_per_second * float(rng.lognormal(0.0, 0.03)))
            for one in problem.demands
        ),
    )
    mended = (await solver.solve(running, first.replicas)).solution
    await solver.close()
    before = {(one.model, one.pool): one.replicas for one in first.replicas}
    started = sum(max(0, one.replicas - before.get((one.model, one.pool), 0)) for one in mended.replicas)
    assert started <= 0.02 * sum(before.values())
    assert mended != engine.solve(running), "made anew, which moves more"
