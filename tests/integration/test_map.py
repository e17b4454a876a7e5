"""The latency map in a real browser, served by the real controller."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, expect

from federation.traffic.status import GatewayStatus
from federation.web import build
from federation.wire import messages
from tests.testbed.browser import Tab, go_to, open_tab, running_browser
from tests.testbed.fixtures import require_chromium
from tests.testbed.fleet import Fleet
from tests.testbed.small_world import MODEL, POLICY

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]
STATES = {"fra": "ok", "iad": "ok", "mad": "unknown"}
LOST_MS = 60_000.0
FRONTIER_MS = 90_000.0


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Three clusters, of which Madrid's agent was never heard."""
    require_chromium()
    assert (build.DIST / "app.js").is_file(), "`make web` builds the map"
    with Fleet(tmp_path_factory.mktemp("fleet"), silent=("mad",)) as fleet:
        assert fleet.apply("chat.yaml", MODEL, POLICY)[0] == 200
        fleet.until(fleet.is_settled, "placement")
        yield fleet


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One Chromium for all; every tab has a storage of its own."""
    require_chromium()
    async with running_browser() as browser:
        yield browser


async def opened(browser: Browser, fleet: Fleet, place: str = "", *, width: int = 1440, dark: bool = False) -> Tab:
    """The map, signed in by the link that the controller prints, with its clusters drawn."""
    tab = await open_tab(browser, fleet.controller.sign_in_url, width=width, dark=dark)
    await expect(marks(tab.page)).to_have_count(len(STATES))
    if place:
        await go_to(tab.page, place)
    return tab


def marks(page: Page) -> Locator:
    """The clusters on the map."""
    return page.locator("[data-cluster]")


def mark(page: Page, name: str) -> Locator:
    """One cluster on the map."""
    return page.locator(f"[data-cluster={name}]")


def panel(page: Page) -> Locator:
    """What is open."""
    return page.locator("aside.side")


async def expect_state(page: Page, name: str, state: str) -> None:
    """A cluster is drawn in this state."""
    await expect(mark(page, name)).to_have_class(re.compile(rf"^cluster {state}\b"), timeout=LOST_MS)


def assert_clean(tab: Tab, fleet: Fleet) -> None:
    """Nothing on the console, and nothing asked of anyone but the controller."""
    assert tab.console_errors == []
    asked = [url for url in tab.request_urls if not url.startswith(("data:", "about:", fleet.url))]
    assert asked == [], "an air-gapped operations room would see a broken page, others would be told of it"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_the_map_is_drawn_and_asks_nothing_of_the_internet(
    browser: Browser, fleet: Fleet, tmp_path: Path, dark: bool
) -> None:
    """An operations room without the internet would see an empty page, and one at night a white one."""
    tab = await opened(browser, fleet, dark=dark)
    page = tab.page
    await expect(page.locator("path.arc").nth(1)).to_be_attached()
    for name, state in STATES.items():
        await expect_state(page, name, state)
    await expect(mark(page, "mad")).to_have_attribute("aria-label", re.compile("never heard"))
    land = await page.locator("path.land").bounding_box()
    assert land is not None
    assert land["width"] > 600
    ground = await page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (int(re.findall(r"\d+", ground)[0]) < 80) is dark
    shot = await page.screenshot(path=tmp_path / "map.png")
    assert len(shot) > 30_000
    assert_clean(tab, fleet)


async def test_the_page_is_read_without_a_word_in_the_log_and_once_for_each_build(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    """Each map that is opened would write stack traces, end its connection, and load all anew."""
    for file, kind in (("", "text/html"), ("app.js", "text/javascript"), ("app.css", "text/css")):
        status, headers, body = await asyncio.to_thread(fleet.request, "GET", f"/{file}", headers={})
        assert (status, headers.get_content_type()) == (200, kind)
        assert body == (build.DIST / (file or "index.html")).read_bytes()
        known = {"If-None-Match": headers["ETag"]}
        again = await asyncio.to_thread(fleet.request, "GET", f"/{file}", headers=known)
        assert (again[0], again[2]) == (304, b"")
    assert [one.message for one in caplog.records if one.name == "aiohttp.server"] == []


async def test_unknown_never_looks_like_good(browser: Browser, fleet: Fleet) -> None:
    """A cluster that says nothing would be taken for one that is well."""
    page = (await opened(browser, fleet)).page
    colour = "one => getComputedStyle(one).fill"
    good, unknown = [await mark(page, name).locator(".shape").evaluate(colour) for name in ("fra", "mad")]
    assert good != unknown
    await expect(mark(page, "mad")).to_have_attribute("aria-label", re.compile("unknown"))


async def test_a_cluster_a_cell_and_a_model_say_why(browser: Browser, fleet: Fleet) -> None:
    """Whoever opens something on the map would have to ask elsewhere why it is so."""
    tab = await opened(browser, fleet, "cluster/fra")
    for place, texts in (
        ("cluster/fra", ("serves", "NVIDIA-L4")),
        ("cell/New York", ("New York", "iad", "network", "queueing not observed", "confidence")),
        ("model/chat-8b", ("250",)),
    ):
        await go_to(tab.page, place)
        for text in texts:
            await expect(panel(tab.page)).to_contain_text(text, use_inner_text=True)
    assert_clean(tab, fleet)


async def test_answers_that_are_observed_stand_beside_the_estimate(browser: Browser, fleet: Fleet) -> None:
    """Replicas that answer late would look as fast as the model's document declares."""
    seen = messages.ServedSample(model="chat-8b", requests_per_second=9.0, error_share=0.02, latency_ms_p95=777.0)
    fleet.do(lambda: setattr(fleet.backends["iad"], "_served", lambda: (seen,)))
    try:
        tab = await opened(browser, fleet, "cluster/iad")
        await expect(panel(tab.page)).to_contain_text("777 ms")
        await expect(panel(tab.page)).to_contain_text("9.0 req/s · 2 % errors")
        await go_to(tab.page, "cell/New York")
        await expect(panel(tab.page)).to_contain_text("answers observed p95 777 ms")
        assert_clean(tab, fleet)
    finally:
        fleet.do(lambda: setattr(fleet.backends["iad"], "_served", tuple))


async def test_the_keyboard_reaches_a_cluster_and_opens_it(browser: Browser, fleet: Fleet) -> None:
    """Who has no mouse could not open a cluster."""
    page = (await opened(browser, fleet)).page
    focused = page.locator("[data-cluster]:focus")
    for _ in range(25):
        await page.keyboard.press("Tab")
        if await focused.count():
            break
    name = await focused.get_attribute("data-cluster")
    assert name in STATES
    await page.keyboard.press("Enter")
    await expect(page.locator(".sheet h2")).to_have_text(name)
    await page.keyboard.press("Escape")
    await expect(page).to_have_url(re.compile(r"^[^#]*#?$"))


async def test_what_happens_is_drawn_without_a_reload(browser: Browser, fleet: Fleet) -> None:
    """A map left open on the wall would show the world as it was."""
    tab = await opened(browser, fleet)
    cordon = mark(tab.page, "iad").locator(".mark")
    await asyncio.to_thread(fleet.request, "POST", "/v1/clusters/iad/cordon", b'{"reason": "a test"}')
    await expect(cordon).to_be_attached()
    await expect(tab.page.locator(".dock")).to_contain_text("iad is cordoned: a test", use_inner_text=True)
    await asyncio.to_thread(fleet.request, "POST", "/v1/clusters/iad/uncordon", b"{}")
    await expect(cordon).not_to_be_attached()
    assert_clean(tab, fleet)


@pytest.mark.parametrize("width", [390, 800])
async def test_a_small_screen_scrolls_down_and_never_sideways(browser: Browser, fleet: Fleet, width: int) -> None:
    """Who is on call with a phone would read half of each line."""
    page = (await opened(browser, fleet, width=width)).page
    assert await page.evaluate("document.documentElement.scrollWidth") <= width


async def test_who_is_not_signed_in_is_told_how(browser: Browser, fleet: Fleet) -> None:
    """A bookmark without a session would end at an empty page."""
    page = (await open_tab(browser, fleet.url)).page
    await expect(page.locator("body")).to_contain_text("isochrone map")
    await expect(marks(page)).to_have_count(0)


async def test_a_map_that_lost_its_controller_stops_looking_well(browser: Browser, tmp_path: Path) -> None:
    """The worst map is one that shows yesterday's green during an outage."""
    with Fleet(tmp_path) as fleet:
        await asyncio.to_thread(fleet.apply, "chat.yaml", MODEL, POLICY)
        await asyncio.to_thread(fleet.until, fleet.is_settled, "placement")
        page = (await opened(browser, fleet)).page
        for name in STATES:
            await expect_state(page, name, "ok")
    await expect(page.locator(".banners")).to_contain_text("Live data lost", timeout=LOST_MS)
    for name in STATES:
        await expect_state(page, name, "unknown")


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
        page = (await opened(browser, fleet, "cluster/iad")).page
        await expect(panel(page)).to_contain_text("refused new routes")
        await expect(panel(page)).to_contain_text("nowhere")
        await expect_state(page, "iad", "degraded")
    finally:
        fleet.do(lambda: fleet.controller.traffic.hear(replace(refused, refused={})))


async def test_what_nearer_would_cost_is_drawn_for_the_fleet_and_for_a_model(
    browser: Browser, fleet: Fleet, tmp_path: Path
) -> None:
    """Who weighs milliseconds against dollars would have to leave the map."""
    tab = await opened(browser, fleet)
    page = tab.page
    for place, model in (("", ""), ("model/chat-8b", "chat-8b")):
        await go_to(page, place)
        if model:
            await expect(page.locator(".sheet h2")).to_have_text(model)
        await page.locator(".sheet section details summary").first.click()
        # The first curve starts a process.
        await expect(page.locator(".frontier")).to_contain_text("policy stands", timeout=FRONTIER_MS)
        assert await page.locator(".frontier .curve").count() <= 1
    await page.screenshot(path=tmp_path / "frontier.png")
    assert_clean(tab, fleet)


async def test_the_heat_shows_what_users_experience_and_how_that_is_known(
    browser: Browser, fleet: Fleet, tmp_path: Path
) -> None:
    """The latency map would show no latency, and a guess over the distance like a measurement."""
    tab = await opened(browser, fleet)
    page = tab.page
    await expect(page.locator(".heat")).not_to_be_attached()
    await page.get_by_label("Heat").select_option("rtt")
    await expect(page).to_have_url(re.compile(r"heat=rtt"))
    await expect(page.locator(".heat path[class=heat-0]")).to_have_attribute("d", re.compile(r"^M.+Z$"))
    basis = page.locator(".heat .basis")
    assert any([await one.get_attribute("d") for one in await basis.all()]), "nobody measures users themselves here"
    await expect(page.locator(".legend")).to_contain_text("under 25 ms")
    stroke = "one => getComputedStyle(one).stroke"
    unserved, unknown = page.locator(".legend .cell.unserved"), page.locator(".legend .cluster.unknown .shape")
    assert await unserved.evaluate(stroke) != await unknown.evaluate(stroke), "unserved users are an alarm"
    for word in ("measured", "inferred", "prior"):
        await expect(page.locator(".legend")).to_contain_text(word)
    await page.screenshot(path=tmp_path / "heat.png")
    await go_to(page, "cell/New York?heat=late")
    await expect(panel(page)).to_contain_text(re.compile(r"(inferred|prior) .*(ago|estimated over)"))
    await expect(panel(page)).to_contain_text("confidence")
    assert_clean(tab, fleet)


async def test_isochrones_show_the_land_within_the_objective(browser: Browser, fleet: Fleet, tmp_path: Path) -> None:
    """Where nobody asks yet, nobody would know whether a model is near enough."""
    tab = await opened(browser, fleet)
    page = tab.page
    toggle = page.get_by_label("Isochrones")
    await expect(toggle).to_be_disabled()
    await page.get_by_label("Model").select_option("chat-8b")
    await toggle.press("Space")
    await expect(page.locator("path.within-area")).to_have_attribute("d", re.compile(r"^M.+Z$"))
    await expect(page.locator("path.isoline.objective")).to_have_attribute("d", re.compile(r"^M"))
    await expect(page.locator(".isoline-label").first).to_have_text(re.compile(r"^\d+ ms$"))
    await expect(page.locator(".legend")).to_contain_text("of ready replicas")
    land = await page.locator("path.catcher").bounding_box()
    assert land is not None
    await page.mouse.move(land["x"] + land["width"] * 0.78, land["y"] + land["height"] * 0.3)
    await expect(page.locator(".tooltip")).to_contain_text(re.compile(r"ms from here.*to (fra|iad)"))
    await page.screenshot(path=tmp_path / "isochrones.png")
    await page.mouse.click(land["x"] + land["width"] * 0.78, land["y"] + land["height"] * 0.3)
    await expect(panel(page)).to_contain_text("Place")
    await expect(panel(page)).to_contain_text(re.compile(r"(inferred|prior estimated) over .*confidence"))
    await go_to(page, "cell/New York?model=chat-8b")
    await page.get_by_role("link", name="latencies from here").press("Enter")
    await expect(page.locator(".sheet h2")).to_contain_text("° N")
    await expect(panel(page)).to_contain_text("iad")
    assert_clean(tab, fleet)
