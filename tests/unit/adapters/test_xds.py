"""Gateways' port beside connections that are none: what others have."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

from federation.adapters import xds
from federation.adapters.xds import XdsListen, XdsServer
from federation.aiokit.clock import Clock
from federation.control.plan import Plan, Routes
from federation.loops import traffic
from federation.loops.hub import Hub
from federation.loops.traffic import TrafficLoop
from federation.metrics import Metrics
from federation.traffic.status import GatewayStatus
from federation.traffic.xds import CDS
from tests.builders import a_world


@asynccontextmanager
async def serving(most: int) -> AsyncIterator[XdsServer]:
    server = XdsServer(
        XdsListen(port=0),
        now_s=time.monotonic,
        on_status=lambda status: None,
        on_sent=lambda kind, count: None,
        most=most,
    )
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def answer(stub: Any, node: str) -> tuple[Any, Any]:
    """A stream of a gateway, and with which code it ends if it ends at once."""
    asked = discovery_pb2.DiscoveryRequest(node=base_pb2.Node(id=node, cluster="fra"), type_url=CDS)
    call = stub.StreamAggregatedResources()
    await call.write(asked)
    ended = asyncio.create_task(call.code())  # to cancel a read would end the call
    await asyncio.wait({ended}, timeout=0.5)
    return call, ended.result() if ended.done() else None


async def test_streams_have_a_bound_and_names_a_length() -> None:
    """Streams of one process could take every descriptor and all memory."""
    async with serving(2) as server, grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel)
        first, end = await answer(stub, "x" * 300)
        assert end == grpc.StatusCode.PERMISSION_DENIED
        calls = [await answer(stub, f"gw-{number}") for number in range(3)]
        assert [code for _, code in calls] == [None, None, grpc.StatusCode.RESOURCE_EXHAUSTED]
        for call, _ in (*calls, (first, end)):
            call.cancel()


async def test_who_does_not_speak_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections without a word would keep their descriptors for two minutes."""
    options = tuple((name, 500 if name == "grpc.server_handshake_timeout_ms" else value) for name, value in xds.OPTIONS)
    monkeypatch.setattr(xds, "OPTIONS", options)
    async with serving(2) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        async with asyncio.timeout(5):
            while await reader.read(1000):
                pass
        writer.close()


def test_gateways_that_are_gone_are_not_all_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are made up by who dials in: each would stay in memory, on the map and in every answer."""
    monkeypatch.setattr(traffic, "GONE_KEPT", 10)
    hub = Hub(world=a_world("fra"), plan=Plan(), routes=Routes(), epoch=1, clock=Clock(), metrics=Metrics())
    loop = TrafficLoop(hub, None)
    loop.hear(GatewayStatus(node="there", cluster="fra", connected=True, since_s=0.0))
    for number in range(100):
        for connected in (True, False):
            loop.hear(GatewayStatus(node=f"gw-{number}", cluster="fra", connected=connected, since_s=float(number)))
    assert set(hub.gateways) == {"there", *(f"gw-{number}" for number in range(90, 100))}
