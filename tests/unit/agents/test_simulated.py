"""The simulated cluster behaves as Kubernetes does where the controller looks."""

from __future__ import annotations

import random

from agents.simulated import SimulatedBackend
from federation.aiokit.clock import Clock
from federation.wire import messages
from tests.builders import L4, a_report, a_world, heard
from tests.unit.agents.test_fence import desired, workload


def pool(devices: int) -> messages.PoolReport:
    return messages.PoolReport(key=L4, vram_gib=24, allocatable=devices, free=devices)


def cluster(devices: int) -> SimulatedBackend:
    return SimulatedBackend(
        pools=(pool(devices),), clock=Clock(), rng=random.Random(1), rtt_ms=lambda peer, chance: 1.0
    )


async def seen(backend: SimulatedBackend) -> tuple[int, int, int, int]:
    """(desired, scheduled, ready, free devices)."""
    found = backend.observe()
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
    """The demo's clusters would serve beyond their devices, and its figures would be wrong."""
    backend = cluster(4)
    await backend.apply(desired(1, 1, workload(3, devices=2)))
    assert await seen(backend) == (3, 2, 2, 0)
    assert backend.observe().replicas[0].reason == "no devices"
    await backend.apply(desired(1, 2, workload(1, devices=2)))
    assert await seen(backend) == (1, 1, 1, 2)
    await backend.close()


async def test_round_trips_between_simulated_clusters_follow_from_where_they_are() -> None:
    """Who tries the product with clusters on two continents would be told that their round trips cannot be true."""

    def at(name: str, place: tuple[float, float] | None) -> SimulatedBackend:
        return SimulatedBackend(pools=(), clock=Clock(), rng=random.Random(1), at=place, probe=f"{name}.simulated:1")

    fra, iad, nowhere = at("fra", (50.1, 8.7)), at("iad", (39.0, -77.5)), at("1a", None)
    peers = tuple(
        messages.PeerEndpoint(cluster=name, probe=backend.probe())
        for name, backend in (("fra", fra), ("iad", iad), ("1a", nowhere))
    )
    assert [(one.cluster, round(one.rtt_ms_p50)) for one in await iad.measure(peers)] == [("fra", 100), ("iad", 2)]
    assert await nowhere.measure(peers) == (), "the controller estimates what nobody measures"
    real = messages.PeerEndpoint(cluster="real", probe="192.0.2.1:443")
    assert await fra.measure((real,)) == ()
    world = a_world("fra", "iad")
    report = a_report("iad", peers=await iad.measure(peers[:1]))
    assert heard(world, report).clusters["iad"].findings == ()
