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
    lost = 0

    async def stubborn() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                lost += 1
                if lost > 2:
                    raise

    owner = tasks.Tasks()
    owner.start("stubborn", stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await owner.stop()
    assert lost == 3


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
