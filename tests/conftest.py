"""What every test gets: no stray event loop, so that warnings can be errors; and time, however busy the machine is."""

from __future__ import annotations

import asyncio
import faulthandler

import pytest
from hypothesis import settings

settings.register_profile("untimed", parent=settings.default, deadline=None)
settings.load_profile("untimed")
END_WITHIN_S = 120.0


def pytest_sessionstart() -> None:
    """looptime's plugin otherwise makes a loop in the first synchronous test, and nobody closes it."""
    asyncio.set_event_loop(None)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """A run that has given its verdict ends: else what a test left running would keep it until somebody kills it.

    The stacks on standard error then say who waits for what.
    """
    faulthandler.dump_traceback_later(END_WITHIN_S, exit=True)
