"""Time and threads of the simulator: both stand still until they are told otherwise.

What production code hands to a thread (formulating, judging, the store) runs at once in the one thread there is: it is
the same work, and a seed is the same story again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from federation.aiokit.clock import Clock

STARTED_S = 1_800_000_000.0


class SimTime:
    """The instant that it truly is, in seconds since the story began."""

    def __init__(self) -> None:
        self.now_s = 0.0


class SimClock(Clock):
    """One machine's clock. Its wall clock may be wrong by `skew_s`; what it measures intervals with cannot."""

    def __init__(self, time: SimTime | None = None) -> None:
        super().__init__()
        self.time = time or SimTime()
        self.skew_s = 0.0

    @property
    def now_s(self) -> float:
        """Seconds since the story began."""
        return self.time.now_s

    def monotonic_s(self) -> float:
        return self.time.now_s

    def wall_s(self) -> float:
        return STARTED_S + self.time.now_s + self.skew_s


def at_once(loop: asyncio.AbstractEventLoop, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
    """What a loop's `run_in_executor` is in the simulator: the work is done when it returns."""
    done: asyncio.Future[Any] = loop.create_future()
    try:
        done.set_result(func(*args))
    except Exception as error:
        done.set_exception(error)
    return done


class SimLoop(asyncio.SelectorEventLoop):
    """An event loop whose executors do their work at once."""

    run_in_executor = at_once  # type: ignore[assignment]
