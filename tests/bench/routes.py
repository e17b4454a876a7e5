"""Routes as they are asked for and as they are pushed: the API on one core, and gateways by xDS."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from typing import Any

import grpc
from aiohttp import web
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

from federation.adapters.xds import XdsListen, XdsServer
from federation.api import render
from federation.api import server as api
from federation.metrics import Metrics
from federation.policy.documents import Gateway, Traffic
from federation.traffic import xds
from federation.traffic.snapshot import CellEntry, ClusterEntry, Index, ModelEntry, RouteSnapshot
from federation.traffic.table import GatewayTable, Group, ModelTable
from tests.bench.demo_size import result

TOKEN = "a-token-for-benches"
CELLS, CLUSTERS, MODELS = 1000, 100, 5
CONNECTIONS, SECONDS = 16, 5.0
GATEWAYS, UPDATES = 100, 20
OWN_CELLS = 10


def routes() -> Iterator[dict[str, object]]:
    """Look-ups per second and their p99; updates per second to 100 gateways, and how long the last one waits."""
    ours, bound = _over_http(_serve_routes), _over_http(_serve_constant)
    yield result("look-ups", ours[0], "1/s", "aiohttp handler that returns a constant", bound[0])
    yield result("look-up p99", ours[1], "ms", "aiohttp handler that returns a constant", bound[1])
    index = Index(_snapshot())
    begun_s = time.perf_counter()
    for number in range(20_000):
        index.at(f"model-{number % MODELS}", (number * 7) % 180 - 90.0, (number * 13) % 360 - 180.0)
    yield result("look-up in process", 20_000 / (time.perf_counter() - begun_s), "1/s", "look-ups over HTTP", ours[0])
    yield from asyncio.run(_gateways())


def _snapshot() -> RouteSnapshot:
    clusters = tuple(
        ClusterEntry(f"cluster-{n}", f"192.0.2.{n % 250 + 1}", 443, n * 1.7 % 180 - 90, n * 3.3 % 360 - 180)
        for n in range(CLUSTERS)
    )
    cells = tuple(
        CellEntry(
            f"cell-{n}",
            "DE",
            n * 0.618 % 180 - 90,
            n * 1.618 % 360 - 180,
            ((n % CLUSTERS, 700_000), ((n + 1) % CLUSTERS, 300_000)),
        )
        for n in range(CELLS)
    )
    models = tuple(ModelEntry(f"model-{n}", 30, cells, ((0, 1),), ()) for n in range(MODELS))
    return RouteSnapshot(version="bench", clusters=clusters, models=models)


class _Services:
    """As much of the controller as a route needs."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self._index = Index(_snapshot())

    def index(self) -> Index:
        return self._index

    def scene(self) -> render.Scene:
        """Nobody asks for the world here."""
        raise NotImplementedError


def _serve_routes() -> web.Application:
    return api.application(_Services(), token=TOKEN, web_dir=None, version="bench")  # type: ignore[arg-type]


def _serve_constant() -> web.Application:
    async def constant(request: web.Request) -> web.Response:
        return web.Response(body=b'{"cluster": "cluster-1"}', content_type="application/json")

    app = web.Application()
    app.router.add_get("/v1/route", constant)
    return app


def _over_http(make: Any) -> tuple[float, float]:
    """(requests per second, p99 in ms) of an application that has one core; the load has another."""
    there, here = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_server, args=(make, there), daemon=True)
    process.start()
    try:
        port = here.recv()
        _pin(1)
        return asyncio.run(_load(port))
    finally:
        process.kill()
        process.join()


def _pin(core: int) -> None:
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(cores) > core:
        os.sched_setaffinity(0, {cores[core]})


def _server(make: Any, pipe: Any) -> None:
    _pin(0)

    async def serve() -> None:
        runner = web.AppRunner(make(), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        pipe.send(runner.addresses[0][1])
        await asyncio.sleep(3600)

    asyncio.run(serve())


async def _load(port: int) -> tuple[float, float]:
    """Connections that ask one after the other, in plain bytes, so that the load is not what is measured."""
    times_s: list[float] = []
    until_s = time.perf_counter() + SECONDS

    async def ask(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        turn = number
        while time.perf_counter() < until_s:
            turn += 1
            path = f"/v1/route?model=model-{turn % MODELS}&lat={turn * 7 % 180 - 90}&lon={turn * 13 % 360 - 180}"
            begun_s = time.perf_counter()
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
            await reader.readexactly(int(length.split(b":")[1]))
            times_s.append(time.perf_counter() - begun_s)
        writer.close()
        await writer.wait_closed()

    begun_s = time.perf_counter()
    await asyncio.gather(*(ask(number) for number in range(CONNECTIONS)))
    took_s = time.perf_counter() - begun_s
    return len(times_s) / took_s, 1000 * statistics.quantiles(times_s, n=100)[98]


# ---- gateways


def _table(name: str, turn: int) -> GatewayTable:
    share = 0.5 + 0.001 * (turn % 400)
    gateways = {f"cluster-{n}": Gateway(address=f"192.0.2.{n + 1}") for n in range(GATEWAYS)}
    shares = {name: share, "cluster-0" if name != "cluster-0" else "cluster-1": 1 - share}
    models = tuple(
        ModelTable(
            model=f"model-{n}",
            traffic=Traffic(),
            health_path="/health",
            groups=tuple(
                Group(cell=f"cell-{cell}" if cell else "", shares=shares, overflow={"cluster-2": 10.0})
                for cell in range(OWN_CELLS + 1)
            ),
            local=(("10.0.0.1", 8000), ("10.0.0.2", 8000)),
            spill_rps=100.0,
        )
        for n in range(MODELS)
    )
    regions = {other: other for other in gateways}
    return GatewayTable(cluster=name, region=name, zone="", models=models, gateways=gateways, regions=regions)


async def _gateways() -> list[dict[str, object]]:
    """Every gateway gets new shares in all its endpoints, again and again; all say yes."""
    sent = 0

    def count(type_url: str, resources: int) -> None:
        nonlocal sent
        sent += resources

    server = XdsServer(XdsListen(port=0), now_s=time.monotonic, on_status=lambda status: None, on_sent=count)
    await server.start()
    names = [f"cluster-{n}" for n in range(GATEWAYS)]
    for name in names:
        server.offer(name, xds.snapshot(_table(name, 0)))
    waiting: dict[str, asyncio.Event] = {name: asyncio.Event() for name in names}
    tasks = [asyncio.create_task(_gateway(name, server.port, waiting)) for name in names]
    await asyncio.gather(*(event.wait() for event in waiting.values()))
    building_s = 0.0
    sent, begun_s, rounds_s = 0, time.perf_counter(), []
    for turn in range(1, UPDATES + 1):
        round_s = time.perf_counter()
        for event in waiting.values():
            event.clear()
        for name in names:
            built_s = time.perf_counter()
            made = xds.snapshot(_table(name, turn))
            building_s += time.perf_counter() - built_s
            server.offer(name, made)
            await asyncio.sleep(0)
        await asyncio.gather(*(event.wait() for event in waiting.values()))
        rounds_s.append(time.perf_counter() - round_s)
    took_s = time.perf_counter() - begun_s
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await server.stop()
    updates = UPDATES * GATEWAYS
    return [
        result("xDS updates to 100 gateways", updates / took_s, "1/s", "building them alone", updates / building_s),
        result("xDS resources to 100 gateways", sent / took_s, "1/s", "building them alone", sent / building_s),
        result(
            "new shares at the last of 100 gateways",
            statistics.median(rounds_s),
            "s",
            "building them alone",
            building_s / UPDATES,
        ),
    ]


async def _gateway(name: str, port: int, waiting: dict[str, asyncio.Event]) -> None:
    """A gateway's half of the incremental protocol, with nothing behind it."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel)
        call = stub.DeltaAggregatedResources()
        first = discovery_pb2.DeltaDiscoveryRequest(type_url=xds.CDS)
        first.node.id, first.node.cluster = f"{name}-gw", name
        await call.write(first)
        await call.write(discovery_pb2.DeltaDiscoveryRequest(type_url=xds.RDS, resource_names_subscribe=["isochrone"]))
        subscribed = False
        while True:
            response = await call.read()
            await call.write(
                discovery_pb2.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
            )
            if response.type_url == xds.CDS and not subscribed:
                subscribed = True
                names = [one.name for one in response.resources]
                await call.write(discovery_pb2.DeltaDiscoveryRequest(type_url=xds.EDS, resource_names_subscribe=names))
            if response.type_url in (xds.EDS, xds.RDS):
                waiting[name].set()
