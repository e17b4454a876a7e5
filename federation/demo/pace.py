"""Simulated time that waits for the controller.

Simulated seconds pass quickly while nothing has to be done, and no faster than the work while something has: two
seconds of the controller's processor time take two simulated seconds. A day is therefore the same on a busy machine,
only longer to watch, and reaction times are those that users would see.

* During a plan, a routing or a step of the rollout (`Clock.working`), the processor time of this process and its
  solvers passes, added up as if on one core. Waiting for a core does not count.
* Messages in transit stop time too: it runs when no socket, task or callback of the event loop has work left.
* Otherwise it runs at `speed` to the next due moment; up to `CATCH_UP` times that while it is behind what a watcher was
  promised.

Processor time of agents, broker, scoring and the map counts as the controller's, because they share its process. Where
a system does not report another process's processor time, elapsed time counts for a solver.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import math
import multiprocessing
import selectors
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator

from federation.aiokit.clock import Clock, Timer

LOOK_S = 0.005
"""Seconds of the machine between two looks at the processor time."""
SHORTEST_WAIT_S = 0.001
"""Seconds of the machine: shorter waits are accumulated."""
CATCH_UP = 4.0
UNWATCHED = 50.0
"""The speed, as a multiple of `speed`, before a watcher was promised anything."""


class _Due:
    """A callback at a simulated moment."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        """Cancel the callback."""
        self.callback = None


class SimulatedTime(selectors.DefaultSelector):
    """The selector of an event loop, which knows when there is nothing to do.

    Args: speed: simulated seconds per second of the machine while there is nothing to do.
    """

    def __init__(self, *, speed: float) -> None:
        super().__init__()
        self.speed = speed
        self.now_s = 0.0
        self._loop: asyncio.SelectorEventLoop | None = None
        self._due: list[tuple[float, int, _Due]] = []
        self._numbers = itertools.count()
        self._working = 0
        self._own_cpu_s = time.process_time()
        self._solver_cpu_s: dict[int, float] = {}
        self._shown_s = -math.inf
        """The moment of the machine that corresponds to `now_s`."""
        self._promised: tuple[float, float] | None = None
        """A moment of the machine, and the simulated moment promised for it."""

    def loop(self) -> asyncio.SelectorEventLoop:
        """An event loop that lets this time pass."""
        self._loop = asyncio.SelectorEventLoop(self)
        return self._loop

    def promise(self) -> None:
        """From this moment on a watcher expects `speed`."""
        self._promised = (time.perf_counter(), self.now_s)

    def call_at(self, moment_s: float, callback: Callable[[], object]) -> _Due:
        """Call it in the loop once this simulated moment has come."""
        due = _Due(callback)
        heapq.heappush(self._due, (moment_s, next(self._numbers), due))
        return due

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """A context in which time passes as processors work, until all such contexts are left."""
        self._pass_work()
        self._working += 1
        for solver in multiprocessing.active_children():
            if solver.pid is not None and solver.pid not in self._solver_cpu_s:
                self._solver_cpu_s[solver.pid] = _cpu_s(solver.pid)
        try:
            yield
        finally:
            self._pass_work()
            self._working -= 1
            if not self._working:
                self._solver_cpu_s.clear()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Ready events. Args: timeout: in the machine's seconds, as the loop asks."""
        self._pass_work()
        events = super().select(0)
        if not events and (timeout is None or timeout > 0) and not self._call_due():
            longest_s = math.inf if timeout is None else timeout
            events = self._wait_for_work(longest_s) if self._working else self._run_on(longest_s)
        self._call_due()
        return events

    def _wait_for_work(self, longest_s: float) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(min(longest_s, LOOK_S))
        self._pass_work()
        return events

    def _run_on(self, longest_s: float) -> list[tuple[selectors.SelectorKey, int]]:
        """Advance to the next due moment, or until an event arrives before."""
        while self._due and self._due[0][2].callback is None:
            heapq.heappop(self._due)
        if not self._due:
            return super().select(None if longest_s == math.inf else longest_s)
        due_s, begun_s = self._due[0][0], time.perf_counter()
        rate = self.speed * self._hurry(begun_s)
        shown_s = max(self._shown_s, begun_s - LOOK_S)
        wait_s = shown_s + (due_s - self.now_s) / rate - begun_s
        if wait_s < SHORTEST_WAIT_S:
            self._shown_s, self.now_s = begun_s + wait_s, due_s
            return []
        events = super().select(min(wait_s, longest_s))
        moment_s = time.perf_counter()
        if moment_s >= begun_s + wait_s:
            self._shown_s, self.now_s = begun_s + wait_s, due_s
        else:
            self._shown_s, self.now_s = moment_s, self.now_s + max(0.0, moment_s - shown_s) * rate
        return events

    def _hurry(self, now_s: float) -> float:
        if self._promised is None:
            return UNWATCHED
        began_s, from_s = self._promised
        behind_s = (now_s - began_s) * self.speed - (self.now_s - from_s)
        return min(CATCH_UP, 1.0 + max(0.0, behind_s) / self.speed)

    def _pass_work(self) -> None:
        """Advance by the work since the last look."""
        own_s = time.process_time()
        self.now_s += own_s - self._own_cpu_s
        self._own_cpu_s = own_s
        for pid, before_s in self._solver_cpu_s.items():
            with contextlib.suppress(OSError):
                after_s = _cpu_s(pid)
                self.now_s += after_s - before_s
                self._solver_cpu_s[pid] = after_s

    def _call_due(self) -> bool:
        """Run due callbacks; returns whether there were any."""
        called = False
        while self._due and self._due[0][0] <= self.now_s:
            due = heapq.heappop(self._due)[2]
            if due.callback is not None and self._loop is not None:
                self._loop.call_soon(due.callback)
                called = True
        return called


def _cpu_s(pid: int) -> float:
    """The processor time of a process. Raises: OSError without such a process."""
    if sys.platform == "linux":
        return time.clock_gettime((~pid << 3) | 2)  # as clock_getcpuclockid(3) has it
    return time.perf_counter()


class DemoClock(Clock):
    """Simulated time, for everything that reads a clock. `speed` is for people who watch: nothing is divided by it."""

    def __init__(self, simulated: SimulatedTime) -> None:
        super().__init__()
        self.simulated = simulated
        self.speed = simulated.speed

    def monotonic_s(self) -> float:
        return self.simulated.now_s

    def wall_s(self) -> float:
        return self._start_wall_s + self.simulated.now_s

    def machine_s(self, ours_s: float) -> float:
        return ours_s

    def ours_s(self, machine_s: float) -> float:
        return machine_s

    async def sleep(self, duration_s: float) -> None:
        if duration_s <= 0:
            await asyncio.sleep(0)
            return
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def end() -> None:
            if not over.done():
                over.set_result(None)

        timer = self.call_later(duration_s, end)
        try:
            await over
        finally:
            timer.cancel()

    @contextlib.asynccontextmanager
    async def timeout(self, duration_s: float) -> AsyncIterator[None]:
        async with asyncio.timeout(None) as limit:
            timer = self.call_later(duration_s, lambda: limit.reschedule(0.0))
            try:
                yield
            finally:
                timer.cancel()

    def call_later(self, duration_s: float, callback: Callable[[], object]) -> Timer:
        return self.simulated.call_at(self.simulated.now_s + duration_s, callback)

    def working(self) -> contextlib.AbstractContextManager[None]:
        return self.simulated.working()
