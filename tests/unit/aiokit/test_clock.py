"""Time as an argument: a fast clock is as long in its own seconds, and never goes back."""

from __future__ import annotations

import time

import pytest

from federation.aiokit.clock import Clock


async def test_a_fast_clock_takes_less_of_the_machines_time() -> None:
    """Tests and the demo would take as long as the hours that they tell of."""
    clock = Clock(speed=100.0)
    begun_s, ours_s = time.monotonic(), clock.monotonic_s()
    await clock.sleep(10.0)
    assert clock.monotonic_s() - ours_s >= 9.9
    assert time.monotonic() - begun_s < 5.0


async def test_a_timeout_is_in_the_clocks_seconds() -> None:
    """A time-out of a fast clock would wait as long as one of the machine."""
    clock = Clock(speed=1000.0)
    with pytest.raises(TimeoutError):
        async with clock.timeout(10.0):
            await clock.sleep(3600.0)


def test_wall_time_counts_on_from_its_start() -> None:
    """The demo's map would show today instead of the simulated day."""
    clock = Clock(speed=2.0, start_wall_s=1000.0)
    assert 1000.0 <= clock.wall_s() < 1010.0
    assert clock.machine_s(clock.ours_s(3.0)) == 3.0


def test_a_clock_that_stands_still_is_refused() -> None:
    """A speed of 0 would divide by it at the first wait."""
    with pytest.raises(ValueError, match="above zero"):
        Clock(speed=0.0)
