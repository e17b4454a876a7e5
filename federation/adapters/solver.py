"""The placement engine in worker processes, so that a long solve never blocks the event loop.

One process is for placement and one for routing, because the loss of a cluster must reroute at once even during a
solve. A third exists while a frontier is computed. The engine's independent verifier checks every answer before it
leaves this module; no decision follows from a frontier.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any, TypeVar

import placement as words
from federation.adapters import parcel
from federation.control.placement_cycle import Proposal
from placement import check, engine
from placement.explain import frontier
from placement.explain.cell import CellExplanation, explain_cell
from placement.explain.model import Explanation, explain_model, reasons
from placement.replanner import Replanner

T = TypeVar("T")


class SolverError(Exception):
    """The engine gave no usable answer. The plan in force stays."""


class Solver:
    """The doors of the engine, as coroutines.

    Args: plans: where placements are solved; None: a process of the controller. Any `concurrent.futures.Executor` will
        do: it receives functions of this module and frozen values. Its owner shuts it down.
    """

    def __init__(self, plans: Executor | None = None) -> None:
        self._plans = _Worker() if plans is None else _Lent(plans)
        self._routes = _Worker()
        self._studies = _Worker()
        self._foreseen: Mapping[str, float] = {}
        """Model -> fraction of its requests that the newest solution serves late."""

    async def warm(self) -> None:
        """Start both processes and load the solver, so that the first plan is not delayed."""
        await asyncio.gather(self._plans.call(os.getpid), self._routes.call(os.getpid))

    async def solve(self, problem: words.Problem, present: tuple[words.Placed, ...]) -> Proposal:
        """The best placement, and the result of keeping `present`. A cancelled solve ends with its process.

        Raises: SolverError with the first violated rule, or when the process died.
        """
        answer: Proposal = await self._plans.ask(self._plans.solve, problem, present, is_ended=True)
        self._foreseen = answer.late
        return answer

    async def route(self, problem: words.Problem, ready: words.Ready) -> words.Routing:
        """The best routing over the ready replicas, within the late requests that the newest solution foresees. Raises:
        SolverError."""
        routing: words.Routing = await self._routes.ask(_route_onward, problem, dict(ready), dict(self._foreseen))
        return routing

    async def explain(
        self, problem: words.Problem, solution: words.Solution, model: str, kept_because: str = ""
    ) -> Explanation:
        """Why a model is where it is, and why it is not elsewhere. Args: as `explain.explain`. Raises: SolverError."""
        told: Explanation = await self._routes.ask(explain_model, problem, solution, model, kept_because)
        return told

    async def explain_cell(
        self, problem: words.Problem, solution: words.Solution, model: str, cell: str
    ) -> CellExplanation:
        """Why requests of a cell go where they go. Raises: SolverError."""
        told: CellExplanation = await self._routes.ask(explain_cell, problem, solution, model, cell)
        return told

    async def frontier(
        self, problem: words.Problem, solution: words.Solution, model: str | None
    ) -> AsyncIterator[tuple[frontier.Standing, tuple[frontier.Point, ...]]]:
        """The position of the policies and the curve so far, point by point; one caller at a time. Raises:
        SolverError."""
        try:
            standing = await self._studies.ask(_begin_frontier, problem, solution, model)
            has_more, points = True, ()
            while has_more:
                yield standing, points
                has_more, points = await self._studies.ask(_step_frontier)
            yield standing, points
        finally:
            self._studies.stop()

    async def close(self) -> None:
        """End the processes for good, whatever they are doing."""
        self._plans.close()
        self._studies.close()
        self._routes.close()


class _Worker:
    """A worker process, started at the first call and again after it died or was stopped."""

    def __init__(self) -> None:
        self.solve = _solve_mending
        self._pool: ProcessPoolExecutor | None = None
        self._pid: Future[int] | None = None
        self._is_closed = False
        self._turn = asyncio.Lock()

    async def ask(self, work: Callable[..., Any], *question: object, is_ended: bool = False) -> Any:
        """The result of `work` in the process. Question and answer travel in chunks, so calls run one after the other.

        Args: is_ended: end the process when the caller stops waiting for the answer.
        """
        packed = await parcel.pack_gently(*question)
        async with self._turn:
            try:
                answered = await self._answer(work, packed)
            except asyncio.CancelledError:
                if is_ended:
                    self.stop()
                raise
        return await parcel.unpack_gently(answered)

    async def _answer(self, work: Callable[..., Any], packed: parcel.Parcel) -> parcel.Parcel:
        await self.call(_receive, None)
        sent = 0
        while more := parcel.some(packed.pieces, sent):
            await self.call(_receive, more)
            sent += len(more)
        shape = await self.call(_work_on_received, work, packed.shape)
        pieces: list[bytes] = []
        while more := await self.call(_send, len(pieces)):
            pieces += more
        return parcel.Parcel(shape, tuple(pieces))

    async def call(self, work: Callable[..., T], *args: object) -> T:
        if self._is_closed:
            raise SolverError("the solver was closed")
        if self._pool is None:
            self._pool = _pool()
            self._pid = self._pool.submit(os.getpid)
        pool = self._pool
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, work, *args)
        except BrokenProcessPool as error:
            if self._pool is pool:
                self._pool = None
            pool.shutdown(wait=False)
            raise SolverError("the solver's process died; another is started at the next call") from error

    def stop(self) -> None:
        """End the process at once; a call in progress raises SolverError."""
        pool, self._pool = self._pool, None
        if pool is None or self._pid is None:
            return
        with contextlib.suppress(ProcessLookupError, BrokenProcessPool, CancelledError):
            os.kill(self._pid.result(), signal.SIGKILL)
        pool.shutdown(wait=True, cancel_futures=True)

    def close(self) -> None:
        """The same, and no later call starts another process."""
        self._is_closed = True
        self.stop()


class _Lent:
    """An executor that belongs to somebody else: a started solve runs on, and its answer is not awaited."""

    def __init__(self, executor: Executor) -> None:
        self.solve = solve_and_check  # who knows which process gets it, and what that planned before
        self._executor = executor

    async def ask(self, work: Callable[..., Any], *question: object, is_ended: bool = False) -> Any:
        """The result of `work` on the executor; question and answer travel whole."""
        packed = await parcel.pack_gently(*question)
        return await parcel.unpack_gently(await self.call(_work_on, work, packed))

    async def call(self, work: Callable[..., T], *args: object) -> T:
        try:
            return await asyncio.wrap_future(self._executor.submit(work, *args))
        except (BrokenExecutor, OSError) as error:
            raise SolverError(f"the executor that solves placements failed: {error}") from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise SolverError("the executor that solves placements cancelled this one") from error
        except Exception as error:
            if type(error).__module__.partition(".")[0] == "distributed":  # as when its workers die
                raise SolverError(f"the executor that solves placements failed: {error}") from error
            raise

    def close(self) -> None:
        """Does nothing: the executor's owner closes it."""


_planner = Replanner()
"""In a worker process: the last solve, from which the next is reoptimised."""
_last: words.Routing | None = None
"""In a worker process: the duals of the last routing, from which the next one starts."""
_sweeps: list[frontier.Sweep] = []
"""In a worker process: the frontier in progress."""
_received: list[bytes] = []
"""In a worker process: the received pieces of the question."""
_answered: list[bytes] = []
"""In a worker process: the pieces of the answer that were not fetched yet."""


def _receive(pieces: tuple[bytes, ...] | None) -> None:
    """Store some pieces; None starts a new question."""
    if pieces is None:
        _received.clear()
    else:
        _received.extend(pieces)


def _work_on_received(work: Callable[..., Any], shape: Any) -> Any:
    """The shape of the answer; `_send` returns its pieces."""
    whole = parcel.Parcel(shape, tuple(_received))
    _received.clear()
    answer = _work_on(work, whole)
    _answered[:] = answer.pieces
    return answer.shape


def _send(first: int) -> tuple[bytes, ...]:
    """Pieces of the answer from this index on; none at the end."""
    pieces = parcel.some(_answered, first)
    if not pieces:
        _answered.clear()
    return pieces


def _work_on(work: Callable[..., Any], question: parcel.Parcel) -> parcel.Parcel:
    return parcel.pack(work(*parcel.unpack(question)))


def _solve_mending(problem: words.Problem, present: tuple[words.Placed, ...]) -> Proposal:
    return solve_and_check(problem, present, _planner)


def solve_and_check(
    problem: words.Problem, present: tuple[words.Placed, ...], planner: Replanner | None = None
) -> Proposal:
    """Solve, verify, and route the kept placement: the work of one plan, in one process.

    Args: planner: remembers the solves before this one.
    """
    planner = planner or Replanner()
    solution = planner.solve(problem)
    violations = check.check(problem, solution)
    if violations and planner.mended:
        planner.forget()
        solution = planner.solve(problem)
        violations = check.check(problem, solution)
    _refuse(violations)
    kept = {(one.model, one.pool): one.replicas for one in present}
    trusting = replace(problem, clusters=tuple(replace(cluster, reachable=True) for cluster in problem.clusters))
    return Proposal(
        solution=solution,
        kept=engine.route(trusting, kept),
        reasons=reasons(problem, solution),
        late=engine.late_parts(solution),
    )


def _route_onward(problem: words.Problem, ready: words.Ready, foreseen: Mapping[str, float]) -> words.Routing:
    global _last
    routing = route_and_check(problem, ready, _last, foreseen)
    _last = replace(routing, flows=(), unserved=())
    return routing


def _begin_frontier(problem: words.Problem, solution: words.Solution, model: str | None) -> frontier.Standing:
    _sweeps[:] = [frontier.Sweep(problem, solution, model)]
    return _sweeps[0].standing()


def _step_frontier() -> tuple[bool, tuple[frontier.Point, ...]]:
    """Whether there was one more point, and all points so far."""
    has_more = _sweeps[0].step()
    return has_more, _sweeps[0].points()


def route_and_check(
    problem: words.Problem,
    ready: words.Ready,
    last: words.Routing | None = None,
    foreseen: Mapping[str, float] | None = None,
) -> words.Routing:
    """Route and verify. Args: last: the routing before, which makes it faster. foreseen: see `engine.route`."""
    routing = engine.route(problem, ready, last, foreseen)
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
    """Leave Ctrl-C and standard output to the controller (the solver prints a banner), and end with the controller."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()
