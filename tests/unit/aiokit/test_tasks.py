"""Background tasks: none outlives its owner, no failure is silent, a loop that fails starts again."""

from __future__ import annotations

import asyncio
import random

import pytest

from federation.aiokit import tasks
from federation.aiokit.clock import Clock


async def test_a_task_that_loses_its_cancellation_is_ended_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The controller would hang on Ctrl-C, with its port taken."""
    monkeypatch.setattr(tasks, "CANCEL_AGAIN_S", 0.01)
    stubborn = Stubborn()
    owner = tasks.Tasks()
    owner.start("stubborn", stubborn.run())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await owner.stop()
    assert stubborn.cancelled == 3


async def test_tasks_that_live_together_end_together_even_if_a_cancellation_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An agent that was told to stop would go on reporting, and nothing could end it but kill -9."""
    monkeypatch.setattr(tasks, "CANCEL_AGAIN_S", 0.01)
    stubborn = Stubborn()
    owner = tasks.Tasks()
    both = owner.start("both", tasks.together(stubborn=stubborn.run(), other=asyncio.sleep(60)))
    await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        await owner.stop()
    assert both.cancelled()
    assert stubborn.cancelled == 3


async def test_of_tasks_that_live_together_the_failure_of_one_ends_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent whose link broke for good would else look alive and hear nothing."""
    monkeypatch.setattr(tasks, "CANCEL_AGAIN_S", 0.01)
    stubborn = Stubborn()

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("a bug")

    async with asyncio.timeout(5):
        with pytest.raises(ValueError, match="a bug"):
            await tasks.together(stubborn=stubborn.run(), fails=fails())
    assert stubborn.cancelled == 3


class Stubborn:
    """Sleeps on through its first two cancellations."""

    def __init__(self) -> None:
        self.cancelled = 0

    async def run(self) -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled += 1
                if self.cancelled > 2:
                    raise


async def test_a_loop_that_fails_starts_again_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """One bad report would else end planning for good, with nobody told."""
    runs = asyncio.Queue[int]()

    async def fragile() -> None:
        runs.put_nowait(1)
        raise ValueError("a bug")

    owner = tasks.Tasks()
    owner.supervise("fragile", fragile, clock=Clock(speed=1000), rng=random.Random(1))
    async with asyncio.timeout(5):
        for _ in range(3):
            await runs.get()
    await owner.stop()
