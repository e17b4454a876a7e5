"""All agents silent for twenty tolerations: who may be sent requests stays, to the byte, in every output."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from federation.loops.traffic import TrafficLoop
from federation.policy import documents
from federation.state.reduce import BrokerFound, BrokerLost
from federation.traffic import xds
from federation.wire import topics
from tests.sim.fleet import SimFleet

TOLERATION_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Told:
    """What users, gateways, DNS and agents go by."""

    shares: bytes
    snapshot: bytes
    gateways: dict[str, xds.Snapshot]
    answers: tuple[bytes, ...]
    desired: dict[str, bytes]
    ready: dict[str, int]


async def told(fleet: SimFleet, traffic: TrafficLoop) -> Told:
    await traffic.once()
    hub = fleet.hub
    places = ((52.5, 13.4, "DE"), (40.7, -74.0, "US"), (35.7, 139.7, "JP"), (0.0, 0.0, ""))
    return Told(
        shares=msgspec.json.encode(hub.routes.routes),
        snapshot=hub.index.body,
        gateways={name: xds.snapshot(one) for name, one in hub.tables.by_cluster.items()},
        answers=tuple(one.body for place in places if (one := hub.index.at("chat", *place)) is not None),
        desired={name: fleet._retained[topics.topic(name, "desired")] for name in fleet.NAMES},
        ready=fleet.ready(),
    )


async def by_silence(fleet: SimFleet) -> None:
    for name in fleet.NAMES:
        fleet.cut(name)


async def by_last_wills(fleet: SimFleet) -> None:
    for name in fleet.NAMES:
        fleet.cut(name, will=True)


async def by_a_broker_restart(fleet: SimFleet) -> None:
    for name in fleet.NAMES:
        fleet.cut(name, will=True)
    fleet.hub.apply(BrokerLost(now_s=fleet.clock.now_s))
    await fleet.run(20.0, fleet.check)
    fleet.hub.apply(BrokerFound(now_s=fleet.clock.now_s))


@pytest.mark.parametrize("cause", [by_silence, by_last_wills, by_a_broker_restart])
async def test_all_silent_for_twenty_tolerations_changes_nothing_that_users_go_by(
    cause: Callable[[SimFleet], Awaitable[None]], tmp_path: Path
) -> None:
    """Five minutes without the broker, for an expired certificate, would take all users off clusters that serve."""
    fleet = SimFleet(11, tmp_path)
    doors = {name: documents.Gateway(address=f"192.0.2.{n}", port=443) for n, name in enumerate(fleet.NAMES, 1)}
    fleet.documents = msgspec.structs.replace(
        fleet.documents,
        clusters=tuple(
            msgspec.structs.replace(one, spec=msgspec.structs.replace(one.spec, gateway=doors[one.metadata.name]))
            for one in fleet.documents.clusters
        ),
    )
    await fleet.start_controller()
    await fleet.run(900, fleet.check)
    traffic = TrafficLoop(fleet.hub, None)
    before = await told(fleet, traffic)
    assert all(before.gateways.values())
    assert fleet.hub.index.at("chat", 52.5, 13.4, "DE") is not None
    await cause(fleet)
    for _ in range(20):
        await fleet.run(TOLERATION_S, fleet.check)
        assert await told(fleet, traffic) == before
    assert "5 of 5" in fleet.hub.world.braked
    for name in fleet.NAMES:
        await fleet.run(7.0, fleet.check)
        await fleet.heal(name)
    await fleet.run(900, fleet.check)
    assert not fleet.hub.world.braked
    after = await told(fleet, traffic)
    assert (after.shares, after.ready) == (before.shares, before.ready), "they return: nothing had to move"
    await fleet.stop_controller()


async def test_under_the_brake_a_cluster_that_says_that_it_cannot_serve_is_left(tmp_path: Path) -> None:
    """Users would be sent for as long as the brake holds to replicas that are known to be gone."""
    fleet = SimFleet(11, tmp_path)
    await fleet.start_controller()
    await fleet.run(900, fleet.check)
    serving = {route.cell: {one.cluster for one in route.now} for route in fleet.hub.routes.routes}
    (failing,) = serving["Berlin"]
    for name in fleet.NAMES:
        if name != failing:
            fleet.cut(name)
    await fleet.run(60, fleet.check)
    assert fleet.hub.world.braked
    assert {route.cell: {one.cluster for one in route.now} for route in fleet.hub.routes.routes} == serving
    fleet.resize(failing, 0)
    await fleet.run(30)
    left = {route.cell: {one.cluster for one in route.now} for route in fleet.hub.routes.routes}
    assert failing not in left["Berlin"]
    assert {cell: where for cell, where in left.items() if failing not in serving[cell]} == {
        cell: where for cell, where in serving.items() if failing not in where
    }
    await fleet.stop_controller()
