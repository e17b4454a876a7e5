"""Every test of the simulator runs in one thread, and writes no log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.sim import quiet
from tests.sim.loop import at_once


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(asyncio.BaseEventLoop, "run_in_executor", at_once)
    with quiet.quiet():
        yield
