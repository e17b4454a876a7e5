"""Time as an argument: the only place that reads the ambient clock.

Every shell takes a `Clock`, and all timing (periods, tolerations, dwell) is written in its seconds. They may be shorter
than the machine's, so that tests take less time; the demo's are simulated (`federation/demo/pace.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A scheduled call."""

    def cancel(self) -> None:
        """Cancel the call."""


class Clock:
    """Seconds that may run faster than the machine's.

    Args: speed: how many of our seconds pass in one of the machine's. start_wall_s: what `wall_s` says at first
        (Unix seconds); None takes the machine's.
    """

    def __init__(self, *, speed: float = 1.0, start_wall_s: float | None = None) -> None:
        if speed <= 0:
            raise ValueError("a clock's speed is above zero")
        self.speed = speed
        self._origin_s = time.monotonic()
        self._start_wall_s = time.time() if start_wall_s is None else start_wall_s

    def monotonic_s(self) -> float:
        """For intervals and ages. Never steps back."""
        return (time.monotonic() - self._origin_s) * self.speed

    def wall_s(self) -> float:
        """Unix seconds, for people and for the store. At another speed, counted from the clock's start."""
        if self.speed == 1.0:
            return time.time()
        return self._start_wall_s + self.monotonic_s()

    def machine_s(self, ours_s: float) -> float:
        """The machine's seconds in which `ours_s` of this clock pass."""
        return ours_s / self.speed

    def ours_s(self, machine_s: float) -> float:
        """This clock's seconds in which `machine_s` of the machine pass."""
        return machine_s * self.speed

    async def sleep(self, duration_s: float) -> None:
        """Wait `duration_s` of this clock."""
        await asyncio.sleep(self.machine_s(duration_s))

    def timeout(self, duration_s: float) -> contextlib.AbstractAsyncContextManager[object]:
        """As `asyncio.timeout`, in seconds of this clock. Raises: TimeoutError, on leaving it."""
        return asyncio.timeout(self.machine_s(duration_s))

    def call_later(self, duration_s: float, callback: Callable[[], object]) -> Timer:
        """Call it in the running loop after `duration_s` of this clock."""
        return asyncio.get_running_loop().call_later(self.machine_s(duration_s), callback)

    def working(self) -> contextlib.AbstractContextManager[None]:
        """A context around a controller's computation: simulated time waits for it, the machine's does not."""
        return contextlib.nullcontext()
