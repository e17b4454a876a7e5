"""Serves the beacon, and hands what it collected to the world once a minute."""

from __future__ import annotations

import asyncio

from federation.adapters.beacon import WINDOW_S, Beacon
from federation.control import measuring
from federation.loops.hub import Hub
from federation.state.reduce import RoundTripsMeasured


def targets_of(hub: Hub, cell: str, place: tuple[float, float] | None) -> tuple[str, tuple[measuring.Target, ...]]:
    """The cell of who asks, and what it is to measure."""
    found = cell or (measuring.cell_of(hub.world, *place) if place is not None else "")
    return found, measuring.targets(hub.world, found, hub.clock.monotonic_s())


async def run(hub: Hub, beacon: Beacon) -> None:
    """End a window every minute of the machine's, for ever."""
    while True:
        await asyncio.sleep(WINDOW_S)
        flush(hub, beacon)


def flush(hub: Hub, beacon: Beacon) -> None:
    """What was collected so far."""
    windows = beacon.collected.take()
    if windows:
        hub.apply(RoundTripsMeasured(windows=windows, now_s=hub.clock.monotonic_s()))
