"""What every test gets: no stray event loop, so that warnings can be errors."""

from __future__ import annotations

import asyncio


def pytest_sessionstart() -> None:
    """looptime's plugin otherwise makes a loop in the first synchronous test, and nobody closes it."""
    asyncio.set_event_loop(None)
