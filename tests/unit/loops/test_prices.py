"""From a feed that somebody has to a plan that follows it: real files, a real HTTP server, the controller's own hub."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from federation.adapters.feeds import Source, source_of
from federation.adapters.learnt import Learnt
from federation.aiokit.clock import Clock
from federation.api import render
from federation.control.plan import Plan, Routes
from federation.control.problem import formulate
from federation.loops.hub import Hub
from federation.loops.prices import PriceLoop
from federation.metrics import Metrics
from federation.state.shipped import shipped_instances
from tests.builders import a_report, a_world, heard

HEADER = "InstanceType,AcceleratorName,AcceleratorCount,Price,Region,SpotPrice\n"


def a_loop(*sources: Source, memory: Path | None = None) -> tuple[Hub, PriceLoop]:
    """A fleet of one cluster in `fra`, whose catalogue has an L4 for one USD, and the loop that reads its feeds."""
    world = heard(a_world("fra"), a_report("fra"), now_s=0.0)
    hub = Hub(world=world, plan=Plan(), routes=Routes(), epoch=1, clock=Clock(), metrics=Metrics())
    loop = PriceLoop(hub, sources, Learnt(memory), shipped_instances(), 0.0)
    loop.remember()
    return hub, loop


def cost(hub: Hub) -> float:
    """USD per device-hour of the pool, as the engine is told."""
    problem = formulate(hub.world, target={}, desired={}, now_s=1.0).problem
    return round(problem.pools[0].usd_per_device_hour, 4)


def told(hub: Hub) -> list[str]:
    """What was told of feeds."""
    return [one.reason for one in hub.events if one.object.startswith("feed/")]


async def test_a_file_of_prices_moves_the_plan_and_its_loss_does_not(tmp_path: Path) -> None:
    """Prices would change when somebody edits YAML; and a catalogue that is gone would take the models with it."""
    path = tmp_path / "vms.csv"
    hub, loop = a_loop(source_of(f"test={path}"))
    await loop.once()
    assert (cost(hub), told(hub)) == (1.0, ["PriceFeedFailed"])
    path.write_text(HEADER + "g6.xlarge,L4,1,0.80,fra,0.3\n")
    await loop.once()
    assert (cost(hub), told(hub)[1:]) == (0.8, ["PriceFeedRead"])
    path.write_text(HEADER + "g6.xlarge,L4,1,0.70,fra,0.3\n")
    await loop.once()
    assert cost(hub) == 0.7
    path.write_text(HEADER + "g6.xlarge,L4,1,700,fra,0.3\n")
    await loop.once()
    assert (cost(hub), told(hub)[2:]) == (0.7, ["PricesDoubted"])
    path.write_text("<html>503</html>")
    await loop.once()
    path.unlink()
    await loop.once()
    assert (cost(hub), told(hub)[3:]) == (0.7, ["PriceFeedFailed", "PriceFeedFailed"])
    shown = render.prices(
        render.Scene(
            world=hub.world,
            plan=hub.plan,
            routes=hub.routes,
            epoch=1,
            now_s=1.0,
            at_s=hub.clock.wall_s(),
            speed=1.0,
            message="",
        )
    )
    ours = next(one for one in shown if one.pool == "NVIDIA-L4/on-demand")
    assert (ours.usd_per_device_hour, ours.source, ours.catalogue_usd) == (0.7, "feed test-vms", 1.0)
    assert ours.offer == "L4 of g6.xlarge on-demand in test fra"
    assert ours.age_s is not None
    assert 0.0 <= ours.age_s < 60.0


async def test_prices_outlive_a_restart(tmp_path: Path) -> None:
    """A controller that starts while the feed is down would plan by the catalogue and move everything, twice."""
    path, kept = tmp_path / "vms.csv", tmp_path / "data" / "prices.json"
    kept.parent.mkdir()
    path.write_text(HEADER + "g6.xlarge,L4,1,0.80,fra,0.3\n")
    _, loop = a_loop(source_of(f"test={path}"), memory=kept.parent)
    await loop.once()
    path.unlink()
    hub, loop = a_loop(source_of(f"test={path}"), memory=kept.parent)
    assert cost(hub) == 0.8
    await loop.once()
    assert cost(hub) == 0.8
    assert kept.stat().st_mode & 0o077 == 0
    kept.write_bytes(kept.read_bytes()[:-9])
    assert cost(a_loop(source_of(f"test={path}"), memory=kept.parent)[0]) == 1.0
    hub, _ = a_loop(memory=kept.parent)
    assert hub.world.prices.feeds == (), "of feeds that are not given any more nothing is believed"


async def test_a_price_api_is_asked_within_bounds(tmp_path: Path) -> None:
    """A feed that redirects to a machine's own credentials, or that never ends, would leak or stop the controller."""
    state = {"status": 200, "asked": 0}

    async def answer(request: web.Request) -> web.Response:
        state["asked"] += 1
        if request.headers.get("If-None-Match") == "v1":
            return web.Response(status=304)
        if state["status"] == 302:
            return web.Response(status=302, headers={"Location": "http://169.254.169.254/latest/meta-data/"})
        rows = [{"provider": "test", "region": "fra", "product": "NVIDIA-L4", "usdPerDeviceHour": 0.6}]
        body = msgspec.json.encode({"prices": rows})
        return web.Response(body=body, status=state["status"], headers={"ETag": "v1"})

    app = web.Application()
    app.router.add_get("/prices", answer)
    async with TestServer(app) as served:
        hub, loop = a_loop(source_of(str(served.make_url("/prices?key=secret"))))
        await loop.once()
        await loop.once()
        assert (cost(hub), state["asked"], told(hub)) == (0.6, 2, ["PriceFeedRead"])
        state["status"] = 302
        loop._feeds._tags.clear()
        await loop.once()
        assert (cost(hub), told(hub)) == (0.6, ["PriceFeedRead", "PriceFeedFailed"])
        assert "answered 302" in hub.events[-1].message
        assert "secret" not in hub.events[-1].message
    hub, loop = a_loop(source_of("http://169.254.169.254/latest/"))
    await loop.once()
    assert "link-local" in hub.events[-1].message


async def test_the_nearest_word_counts() -> None:
    """An owner's own contract would be overruled by a list, or hardware that is paid for would cost its list price."""
    hub, _ = a_loop()
    assert cost(hub) == 1.0
    pool = msgspec.structs.replace(a_report("fra").pools[0], usd_per_device_hour=0.9)
    hub.world = heard(hub.world, a_report("fra", seq=2, pools=(pool,)))
    assert cost(hub) == 0.9


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("aws=catalogs/v8/aws/vms.csv", ("aws-vms", "aws", "catalogs/v8/aws/vms.csv")),
        ("prices.yaml", ("prices", "", "prices.yaml")),
        ("http://p:9090/api/v1/query?query=x", ("p", "", "http://p:9090/api/v1/query?query=x")),
        ("azure=https://prices.example/api", ("azure-prices.example", "azure", "https://prices.example/api")),
    ],
)
def test_a_feed_is_named_by_what_is_given(text: str, wanted: tuple[str, str, str]) -> None:
    """Events would speak of feeds that nobody can find."""
    source = source_of(text)
    assert (source.name, source.provider, source.location) == wanted


@pytest.mark.parametrize("text", ["", "aws=", "ftp://x/y", "https://user:pass@x/y", "https:///y"])
def test_what_is_no_feed_is_refused_at_the_start(text: str) -> None:
    """A typo would leave every price to the catalogue, or a password in the list of processes."""
    with pytest.raises(ValueError, match=r"expected|password"):
        source_of(text)
