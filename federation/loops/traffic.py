"""Tells gateways where their users' requests go, and hears what they say to it. Woken by every change of the hub.

What it builds depends on the plan, on who is heard and on where replicas answer; not on the last decimal of demand,
which is weighed as it was when the shares last changed, so that a quiet world writes nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import structlog

from federation.adapters.xds import XdsServer
from federation.control.plan import Routes
from federation.loops.hub import Hub
from federation.state.keys import ModelCell, ModelCluster
from federation.state.reduce import Note
from federation.state.world import CellDemand, World
from federation.traffic import snapshot, table, xds
from federation.traffic.snapshot import Index
from federation.traffic.status import GatewayStatus
from federation.traffic.table import Address, Tables

log = structlog.get_logger("traffic")
SPACING_S = 0.02
"""A burst of changes makes one table."""
REST = 3.0
"""The loop rests for so many times as long as tables took: in a storm of changes they get a quarter of a core."""
LOOK_S = 60.0
GONE_KEPT = 1_000
"""Gateways that are gone and still told of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """All that gateways are told by; what is as it was is the same object."""

    endpoints: Mapping[ModelCluster, tuple[Address, ...]]
    tables: Tables
    index: Index


def _make(
    world: World,
    routes: Routes,
    endpoints: Mapping[ModelCluster, tuple[Address, ...]],
    before: Tables,
    index: Index,
) -> _Made:
    """Pure, and of a large fleet the work of a second."""
    endpoints = table.remembered_endpoints(world, endpoints)
    tables = table.tables(world, routes, endpoints, before)
    routed = snapshot.build(world, routes)
    return _Made(
        endpoints=endpoints,
        tables=before if tables.is_as(before) else tables,
        index=index if routed.version == index.snapshot.version else Index(routed),
    )


class TrafficLoop:
    """The loop of one controller. Without a server it makes the tables only."""

    def __init__(self, hub: Hub, server: XdsServer | None) -> None:
        self._hub = hub
        self._server = server
        self._endpoints: Mapping[ModelCluster, tuple[Address, ...]] = {}
        self._routes: Routes | None = None
        self._demand: Mapping[ModelCell, CellDemand] = {}
        self._seen: tuple[object, ...] | None = None
        self._offered: dict[str, table.GatewayTable] = {}
        self._complained: tuple[str, ...] = ()

    async def run(self) -> None:
        """Look at every change, for ever."""
        while True:
            changed, begun_s = self._hub.watch(), time.perf_counter()
            await self.once()
            took_s = time.perf_counter() - begun_s
            await self._hub.change(LOOK_S, changed)
            await asyncio.sleep(max(SPACING_S, REST * took_s))

    async def once(self) -> None:
        """Build what is new, and offer it."""
        hub = self._hub
        world, routes = hub.world, hub.routes
        # Before anybody was counted there are replicas and no routes: it is gateways that count who comes.
        is_known = routes.version or hub.plan.placement.replicas
        if not is_known or not world.is_settled(hub.clock.monotonic_s()) or hub.may_take_over or hub.outvoted():
            return  # not known is not empty: gateways go on with what they have
        documents = hub.documents_in_force()
        seen = (documents, routes, hub.serving, world.cordons)
        if seen == self._seen:
            return
        if documents is not world.documents:
            world = replace(world, documents=documents)
        if routes is not self._routes:
            self._routes, self._demand = routes, world.demand
        is_same = self._demand is world.demand
        frozen = world if is_same else replace(world, demand=world.demand.update(self._demand))
        made = await hub.beside(_make, frozen, routes, self._endpoints, hub.tables, hub.index)
        self._seen, self._endpoints = seen, made.endpoints
        is_new = made.tables is not hub.tables or made.index is not hub.index
        hub.tables, hub.index = made.tables, made.index
        self._complain(made.tables)
        await self._offer(made.tables, world)
        if is_new:
            hub.republish.set("traffic")
            hub.wake()

    async def _offer(self, tables: Tables, world: World) -> None:
        """Tell the gateways whose tables are others than those that they were offered."""
        if self._server is None:
            return
        for name, one in tables.by_cluster.items():
            # A gateway whose own cluster was never heard knows more of it than we do.
            if self._offered.get(name) is not one and world.clusters[name].report is not None:
                self._server.offer(name, xds.snapshot(one))
                self._offered[name] = one
                await asyncio.sleep(0)
        self._offered = {name: one for name, one in self._offered.items() if name in tables.by_cluster}

    def _complain(self, tables: Tables) -> None:
        for text in sorted(set(tables.missing) - set(self._complained)):
            self._hub.tell(Note(type="Warning", reason="NoGateway", object="controller", message=text))
        self._complained = tables.missing

    def hear(self, status: GatewayStatus) -> None:
        """A gateway came, went, accepted or refused."""
        hub = self._hub
        before = hub.gateways.get(status.node)
        hub.gateways = _kept({**hub.gateways, status.node: status})
        hub.metrics.gateways.labels(state="connected").set(sum(one.connected for one in hub.gateways.values()))
        subject = f"cluster/{status.cluster}"
        if before is None or before.connected != status.connected:
            verb = "is connected" if status.connected else "is gone: it goes on with the last good configuration"
            hub.tell(
                Note(
                    type="Normal" if status.connected else "Warning",
                    reason="GatewayConnected" if status.connected else "GatewayGone",
                    object=subject,
                    message=f"gateway {status.node} of {status.cluster} {verb}",
                )
            )
        if before is None and status.cluster not in hub.world.clusters:
            text = f"gateway {status.node} is of {status.cluster}, which no Cluster document names: it is told nothing"
            hub.tell(Note(type="Warning", reason="GatewayUnknown", object=subject, message=text))
        known = before.refused if before is not None else {}
        for kind, error in sorted(status.refused.items()):
            if known.get(kind) != error:
                text = f"gateway {status.node} refused new {kind}, and goes on with the last good: {error}"
                hub.metrics.gateway_refusals_total.labels(kind=kind).inc()
                hub.tell(Note(type="Warning", reason="GatewayRefused", object=subject, message=text))
        for kind in sorted(known.keys() - status.refused.keys()):
            text = f"gateway {status.node} takes new {kind} again"
            hub.tell(Note(reason="GatewayAccepted", object=subject, message=text))

    def sent(self, type_url: str, resources: int) -> None:
        """A response went out to a gateway."""
        self._hub.metrics.gateway_resources_total.labels(kind=xds.SHORT[type_url]).inc(resources)


def _kept(gateways: Mapping[str, GatewayStatus]) -> Mapping[str, GatewayStatus]:
    """All that are connected, and of those that are gone the last: names are the gateways' own, and as many as they
    make up."""
    gone = sorted((one for one in gateways.values() if not one.connected), key=lambda one: one.since_s)
    forgotten = {one.node for one in gone[:-GONE_KEPT]}
    return {node: one for node, one in gateways.items() if node not in forgotten} if forgotten else gateways
