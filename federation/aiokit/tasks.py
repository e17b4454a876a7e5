"""Background tasks with a name and an owner; an exception in one is never lost.

`asyncio.TaskGroup` ends every sibling on a failure, which suits a request but not a controller whose loops must outlive
each other's faults; `supervise` restarts a loop that fails, with a growing delay.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from federation.aiokit.backoff import Backoff
from federation.aiokit.clock import Clock

CANCEL_AGAIN_S = 1.0
log = structlog.get_logger("tasks")


class Tasks:
    """The tasks of one owner; `stop` cancels them all and waits for their end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `coroutine` in the background; an exception is logged with its stack."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def supervise(
        self, name: str, body: Callable[[], Awaitable[None]], *, clock: Clock, rng: random.Random
    ) -> asyncio.Task[Any]:
        """Run `body` for ever: again at once when it returns, after a jittered delay when it raises."""
        return self.start(name, _forever(name, body, clock, rng))

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task failed", task=task.get_name(), exc_info=error)

    async def stop(self) -> None:
        """Cancel everything and wait for it."""
        await _end(self._tasks)


async def together(**coroutines: Coroutine[Any, Any, Any]) -> None:
    """Run all, named, until one fails or the caller is cancelled; then the others are ended too.

    As `asyncio.TaskGroup` does, which however cancels only once. Raises: what the first to fail raised.
    """
    loop = asyncio.get_running_loop()
    tasks = {loop.create_task(coroutine, name=name) for name, coroutine in coroutines.items()}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        await _end({task for task in tasks if not task.done()})
    for task in done:
        task.result()


async def _end(tasks: set[asyncio.Task[Any]]) -> None:
    """Cancel until all have ended, even if the caller is cancelled meanwhile: none is left running.

    Again after a while: `asyncio.wait_for` of Python 3.11, which the MQTT client uses, can lose a cancellation.
    """
    cancelled: asyncio.CancelledError | None = None
    while running := {task for task in tasks if not task.done()}:
        for task in running:
            task.cancel()
        try:
            await asyncio.wait(running, timeout=CANCEL_AGAIN_S)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


async def _forever(name: str, body: Callable[[], Awaitable[None]], clock: Clock, rng: random.Random) -> None:
    backoff = Backoff(rng)
    while True:
        started_s = clock.monotonic_s()
        try:
            await body()
            backoff.reset()
        except Exception as error:
            if clock.monotonic_s() - started_s > 60.0:
                backoff.reset()
            delay_s = backoff.next_s()
            log.error("loop failed and will start again", task=name, delay_s=round(delay_s, 2), exc_info=error)
            await clock.sleep(delay_s)
        await asyncio.sleep(0)
