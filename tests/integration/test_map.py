"""The latency map in a real browser, served by the real controller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from federation.traffic.status import GatewayStatus
from federation.web import build
from tests.testbed.browser import Browser, Page
from tests.testbed.fixtures import require_chromium
from tests.testbed.fleet import Fleet
from tests.testbed.small_world import MODEL, POLICY

pytestmark = [pytest.mark.real, pytest.mark.slow]
MARKS = "[...document.querySelectorAll('[data-cluster]')]"
EXPECTED = {"fra": "ok", "iad": "ok", "mad": "unknown"}
STATES = f"Object.fromEntries({MARKS}.map(mark => [mark.dataset.cluster, mark.classList[1]]))"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three clusters, of which Madrid's agent was never heard."""
    require_chromium()
    assert (build.DIST / "app.js").is_file(), "`make web` builds the map"
    with Fleet(tmp_path_factory.mktemp("fleet"), silent=("mad",)) as fleet:
        assert fleet.apply("chat.yaml", MODEL, POLICY)[0] == 200
        fleet.until(fleet.is_settled, "placement")
        yield fleet


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with Browser() as browser:
        yield browser


async def opened(browser: Browser, fleet: Fleet, place: str = "", *, width: int = 1440, dark: bool = False) -> Page:
    """The map, signed in by the link that the controller prints, with its clusters drawn."""
    page = await browser.open(fleet.controller.sign_in_url, width, 900, dark=dark)
    await page.wait_for(f"{MARKS}.length === 3")
    if place:
        await page.evaluate(f"location.hash = {place!r}")
    return page


def assert_clean(page: Page, fleet: Fleet) -> None:
    """Nothing on the console, and nothing asked of anyone but the controller."""
    assert page.console_errors == []
    asked = [url for url in page.request_urls if not url.startswith(("data:", "about:", fleet.url))]
    assert asked == [], "an air-gapped operations room would see a broken page, others would be told of it"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_the_map_is_drawn_and_asks_nothing_of_the_internet(
    browser: Browser, fleet: Fleet, tmp_path: Path, dark: bool
) -> None:
    page = await opened(browser, fleet, dark=dark)
    await page.wait_for("document.querySelectorAll('path.arc').length >= 2")
    await page.wait_for(f"Object.entries({EXPECTED}).every(([name, state]) => {STATES}[name] === state)")
    assert "never heard" in await page.evaluate("document.querySelector('[data-cluster=mad]').ariaLabel")
    assert await page.evaluate("document.querySelector('path.land').getBBox().width") > 600
    ground = await page.evaluate(
        "getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/g).map(Number)[0]"
    )
    assert (ground < 80) is dark
    shot = tmp_path / "map.png"
    await page.screenshot(shot)
    assert shot.stat().st_size > 30_000
    assert_clean(page, fleet)


async def test_unknown_never_looks_like_good(browser: Browser, fleet: Fleet) -> None:
    """A cluster that says nothing would be taken for one that is well."""
    page = await opened(browser, fleet)
    colour = "getComputedStyle(document.querySelector('[data-cluster={}] .shape')).fill"
    good, unknown = [await page.evaluate(colour.format(name)) for name in ("fra", "mad")]
    assert good != unknown
    assert "unknown" in await page.evaluate("document.querySelector('[data-cluster=mad]').ariaLabel")


async def test_a_cluster_a_cell_and_a_model_say_why(browser: Browser, fleet: Fleet) -> None:
    page = await opened(browser, fleet, "#cluster/fra")
    panel = "document.querySelector('aside.side').innerText"
    await page.wait_for(f"{panel}.includes('serves') && {panel}.includes('NVIDIA-L4')")
    await page.evaluate("location.hash = '#cell/New York'")
    await page.wait_for(f"{panel}.includes('New York') && {panel}.includes('iad')")
    await page.evaluate("location.hash = '#model/chat-8b'")
    await page.wait_for(f"{panel}.includes('250')")
    assert_clean(page, fleet)


async def test_the_keyboard_reaches_a_cluster_and_opens_it(browser: Browser, fleet: Fleet) -> None:
    page = await opened(browser, fleet)
    for _ in range(25):
        await page.press("Tab")
        if await page.evaluate("document.activeElement.dataset?.cluster ?? ''"):
            break
    name = await page.evaluate("document.activeElement.dataset.cluster")
    assert name in ("fra", "iad", "mad")
    await page.press("Enter")
    await page.wait_for(f"document.querySelector('.sheet h2')?.innerText === {name!r}")
    await page.press("Escape")
    await page.wait_for("location.hash.length <= 1")


async def test_what_happens_is_drawn_without_a_reload(browser: Browser, fleet: Fleet) -> None:
    page = await opened(browser, fleet)
    await asyncio.to_thread(fleet.request, "POST", "/v1/clusters/iad/cordon", b'{"reason": "a test"}')
    await page.wait_for("document.querySelector('[data-cluster=iad] .mark') !== null")
    await page.wait_for("document.querySelector('.dock').innerText.includes('iad is cordoned: a test')")
    await asyncio.to_thread(fleet.request, "POST", "/v1/clusters/iad/uncordon", b"{}")
    await page.wait_for("document.querySelector('[data-cluster=iad] .mark') === null")
    assert_clean(page, fleet)


@pytest.mark.parametrize("width", [390, 800])
async def test_a_small_screen_scrolls_down_and_never_sideways(browser: Browser, fleet: Fleet, width: int) -> None:
    page = await opened(browser, fleet, width=width)
    assert await page.evaluate("document.documentElement.scrollWidth") <= width


async def test_who_is_not_signed_in_is_told_how(browser: Browser, fleet: Fleet) -> None:
    page = await browser.open(fleet.url)
    await page.wait_for("document.body.innerText.includes('isochrone map')")
    assert await page.evaluate(f"{MARKS}.length") == 0


async def test_a_map_that_lost_its_controller_stops_looking_well(browser: Browser, tmp_path: Path) -> None:
    """The worst map is one that shows yesterday's green during an outage."""
    require_chromium()
    with Fleet(tmp_path) as fleet:
        await asyncio.to_thread(fleet.apply, "chat.yaml", MODEL, POLICY)
        await asyncio.to_thread(fleet.until, fleet.is_settled, "placement")
        page = await opened(browser, fleet)
        await page.wait_for(f"{MARKS}.every(mark => mark.classList.contains('ok'))")
    await page.wait_for("document.querySelector('.banners').innerText.includes('Live data lost')", timeout_s=30)
    await page.wait_for(f"{MARKS}.every(mark => mark.classList.contains('unknown'))", timeout_s=30)


async def test_what_a_gateway_refused_is_on_the_map(browser: Browser, fleet: Fleet) -> None:
    """Whoever is on call would see green while a region goes on with yesterday's routes."""
    refused = GatewayStatus(
        node="iad-gw",
        cluster="iad",
        connected=True,
        since_s=0.0,
        refused={"routes": "route: unknown cluster 'nowhere'"},
    )
    fleet.do(lambda: fleet.controller.traffic.hear(refused))
    try:
        page = await opened(browser, fleet, "#cluster/iad")
        panel = "document.querySelector('aside.side').innerText"
        await page.wait_for(f"{panel}.includes('refused new routes') && {panel}.includes('nowhere')")
        await page.wait_for(f"{STATES}.iad === 'degraded'")
    finally:
        fleet.do(lambda: fleet.controller.traffic.hear(replace(refused, refused={})))


async def test_what_nearer_would_cost_is_drawn_for_the_fleet_and_for_a_model(
    browser: Browser, fleet: Fleet, tmp_path: Path
) -> None:
    """Who weighs milliseconds against dollars would have to leave the map."""
    page = await opened(browser, fleet)
    for place, model in (("", ""), ("model/chat-8b", "chat-8b")):
        await page.evaluate(f"location.hash = {place!r}")
        if model:
            await page.wait_for(f"document.querySelector('.sheet h2')?.textContent === {model!r}")
        await page.click(".sheet section details summary")
        stands = "document.querySelector('.frontier')?.textContent.includes('policy stands')"
        await page.wait_for(stands, timeout_s=90.0)  # the first curve starts a process
        assert await page.evaluate("document.querySelectorAll('.frontier .curve').length") <= 1
    await page.screenshot(tmp_path / "frontier.png")
    assert_clean(page, fleet)
