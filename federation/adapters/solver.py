"""The placement engine in worker processes, so that a long solve never stops the event loop.

Two processes: one for placement, one for routing, because losing a cluster must reroute at once even while a plan is
being solved. Every answer is checked by the engine's independent verifier before it leaves this module.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import TypeVar

from placement import check, engine, explain
from placement import model as words

T = TypeVar("T")


class SolverError(Exception):
    """The engine gave no answer that may be used. The plan in force stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A checked solution, the routing that keeping the present placement would give, and why each count is there."""

    solution: words.Solution
    kept: words.Routing
    reasons: dict[tuple[str, str], str]


class Solver:
    """The engine's two doors, asynchronous."""

    def __init__(self) -> None:
        self._plans = _pool()
        self._routes = _pool()

    async def warm(self) -> None:
        """Start both processes and load the solver, so that the first plan is not late."""
        await asyncio.gather(self._call(True, os.getpid), self._call(False, os.getpid))

    async def solve(self, problem: words.Problem, present: tuple[words.Placed, ...]) -> Answer:
        """The best placement, and what `present` would do instead.

        Raises: SolverError with the first violated rule, or when the process died.
        """
        return await self._call(True, solve_and_check, problem, present)

    async def route(self, problem: words.Problem, ready: words.Ready) -> words.Routing:
        """The best routing over the replicas that are ready. Raises: SolverError."""
        return await self._call(False, route_and_check, problem, dict(ready))

    async def explain(self, problem: words.Problem, solution: words.Solution, model: str) -> explain.Explanation:
        """Why a model is where it is, and why it is not elsewhere. Raises: SolverError."""
        return await self._call(False, explain.explain, problem, solution, model)

    async def close(self) -> None:
        """End the processes."""
        await asyncio.to_thread(self._shutdown)

    def _shutdown(self) -> None:
        for pool in (self._plans, self._routes):
            pool.shutdown(wait=True, cancel_futures=True)

    async def _call(self, plans: bool, work: Callable[..., T], *args: object) -> T:
        pool = self._plans if plans else self._routes
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, work, *args)
        except BrokenProcessPool as error:
            if plans:
                self._plans = _pool()
            else:
                self._routes = _pool()
            raise SolverError("the solver's process died; it was started again") from error


def solve_and_check(problem: words.Problem, present: tuple[words.Placed, ...]) -> Answer:
    """Solve, check, and route what is kept: the work of one plan, in one process."""
    solution = engine.solve(problem)
    _refuse(check.check(problem, solution))
    kept = {(one.model, one.pool): one.replicas for one in present}
    trusting = replace(problem, clusters=tuple(replace(cluster, reachable=True) for cluster in problem.clusters))
    return Answer(
        solution=solution,
        kept=engine.route(trusting, kept),
        reasons={
            (one.model, one.pool): explain.reason_for(problem, solution, one.model, one.pool)
            for one in solution.replicas
        },
    )


def route_and_check(problem: words.Problem, ready: words.Ready) -> words.Routing:
    """Route and check."""
    routing = engine.route(problem, ready)
    _refuse(check.check_routing(problem, ready, routing))
    return routing


def _refuse(violations: tuple[check.Violation, ...]) -> None:
    if violations:
        first = violations[0]
        raise SolverError(f"the answer breaks {first.rule} at {first.subject}: {first.detail}")


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        max_workers=1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_prepare_worker,
        initargs=(os.getpid(),),
    )


def _prepare_worker(parent_pid: int) -> None:
    """Leave Ctrl-C and standard output to the controller (the solver prints a banner), and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()
