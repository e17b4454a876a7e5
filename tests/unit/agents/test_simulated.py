"""The simulated cluster behaves as Kubernetes does where the controller looks."""

from __future__ import annotations

import random

from agents.simulated import SimulatedBackend
from federation.aiokit.clock import Clock
from federation.wire import messages
from tests.builders import L4
from tests.unit.agents.test_session import desired, workload


def pool(devices: int) -> messages.PoolReport:
    return messages.PoolReport(key=L4, vram_gib=24, allocatable=devices, free=devices)


def cluster(devices: int) -> SimulatedBackend:
    return SimulatedBackend(
        pools=(pool(devices),), clock=Clock(), rng=random.Random(1), rtt_ms=lambda peer, chance: 1.0
    )


async def seen(backend: SimulatedBackend) -> tuple[int, int, int, int]:
    """(desired, scheduled, ready, free devices)."""
    found = await backend.observe()
    one = found.replicas[0]
    return one.desired, one.scheduled or 0, one.ready, found.pools[0].free


async def test_replicas_that_lost_their_devices_start_again_when_there_are_some() -> None:
    """The demo would lose its spot replicas for good at the first reclaim, and show a worse product than there is."""
    backend = cluster(8)
    await backend.apply(desired(1, 1, workload(6)))
    assert await seen(backend) == (6, 6, 6, 2)
    backend.set_pools((pool(2),))
    assert await seen(backend) == (6, 2, 2, 0)
    backend.set_pools((pool(8),))
    assert await seen(backend) == (6, 6, 6, 2)
    await backend.close()


async def test_more_replicas_than_devices_wait() -> None:
    backend = cluster(4)
    await backend.apply(desired(1, 1, workload(3, devices=2)))
    assert await seen(backend) == (3, 2, 2, 0)
    assert (await backend.observe()).replicas[0].reason == "no devices"
    await backend.apply(desired(1, 2, workload(1, devices=2)))
    assert await seen(backend) == (1, 1, 1, 2)
    await backend.close()
