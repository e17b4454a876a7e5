"""From a page in a real browser to what the controller believes: the shipped script, two clusters, one of them slow."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from federation.adapters.beacon import Beacon
from federation.aiokit.clock import Clock
from federation.app import BEACON_SCRIPT
from federation.control.plan import Plan, Routes
from federation.loops import beacon as beacons
from federation.loops.hub import Hub
from federation.metrics import Metrics
from federation.policy import documents
from federation.state.reduce import DocumentsAccepted, RoundTripsMeasured
from tests.builders import a_report, a_world, heard, some_demand, told
from tests.testbed.browser import open_tab, running_browser
from tests.testbed.fixtures import require_chromium

pytestmark = [pytest.mark.real, pytest.mark.slow]
SLOW_S = 0.12


async def a_site(delay_s: float = 0.0) -> TestServer:
    """What a cluster's gateway serves to those who measure."""

    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(delay_s)
        return web.Response(status=204)

    app = web.Application()
    app.router.add_get("/.well-known/isochrone", answer)
    server = TestServer(app)
    await server.start_server()
    return server


def a_hub(**urls: str) -> Hub:
    """Clusters that browsers can measure, and users in Paris."""
    world = a_world(*urls)
    clusters = tuple(
        msgspec.structs.replace(
            one,
            spec=msgspec.structs.replace(
                one.spec, gateway=documents.Gateway(address="192.0.2.1", measure_url=urls[one.metadata.name])
            ),
        )
        for one in world.documents.clusters
    )
    world = told(
        world, DocumentsAccepted(documents=msgspec.structs.replace(world.documents, clusters=clusters), now_s=0.0)
    )
    demand = some_demand("chat", "paris", 1.0, country="FR", at="par")
    world = heard(world, *(a_report(name, demand=(demand,)) for name in urls))
    return Hub(world=world, plan=Plan(), routes=Routes(), epoch=1, clock=Clock(), metrics=Metrics())


async def test_users_browsers_tell_which_cluster_is_slow(tmp_path: Path) -> None:
    """The way from users to clusters would be a guess by distance, for ever."""
    require_chromium()
    fast, slow = await a_site(), await a_site(SLOW_S)
    hub = a_hub(fra=str(fast.make_url("/.well-known/isochrone")), iad=str(slow.make_url("/.well-known/isochrone")))

    async def page(request: web.Request) -> web.Response:
        how = {"cell": 'data-cell="paris"', "place": 'data-lat="48.913" data-lon="2.41"', "header": ""}
        tag = f'<script async src="{script}" data-sample="1" {how[request.match_info["how"]]}></script>'
        headers = {"Server-Timing": 'isochrone-cell;desc="paris"'} if request.match_info["how"] == "header" else {}
        return web.Response(
            text=f"<!doctype html><title>chat</title><link rel=icon href=data:,>{tag}",
            content_type="text/html",
            headers=headers,
        )

    pages = web.Application()
    pages.router.add_get("/{how}", page)
    site = TestServer(pages)
    await site.start_server()
    beacon = Beacon(
        origins=(str(site.make_url("/")).rstrip("/"),),
        script=BEACON_SCRIPT.read_bytes(),
        targets=lambda cell, place: beacons.targets_of(hub, cell, place),
        now_s=asyncio.get_running_loop().time,
    )
    served = TestServer(beacon.application())
    await served.start_server()
    script = str(served.make_url("/beacon.js"))
    try:
        async with running_browser() as browser:
            for how in ("cell", "place", "header"):
                tab = await open_tab(browser, str(site.make_url(f"/{how}")))
                async with asyncio.timeout(20.0):
                    while len(beacon.collected._rtts) < 2:  # noqa: ASYNC110  a dict has no event
                        await asyncio.sleep(0.05)
                assert tab.console_errors == []
                taken = {one.cluster: one for one in beacon.collected.take()}
                assert {one.cell for one in taken.values()} == {"paris"}
                assert taken["fra"].rtt_ms[0] < 1000 * SLOW_S <= taken["iad"].rtt_ms[0] < 1000 * SLOW_S + 500
                crowd = [one._replace(rtt_ms=one.rtt_ms * 3, senders=3) for one in taken.values()]
                hub.apply(RoundTripsMeasured(windows=tuple(crowd), now_s=hub.clock.monotonic_s()))
        assert hub.world.measured["paris", "iad"].rtt_ms > 1000 * SLOW_S
    finally:
        for one in (fast, slow, site, served):
            await one.close()
