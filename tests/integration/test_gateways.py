"""Real gateways: shares as planned, refusals heard and shown, nobody told what is another's, nothing written twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from agents.gateway.stats import GatewayStats
from federation.adapters.xds import InsecureXds, XdsListen, XdsServer
from federation.aiokit.clock import Clock
from federation.policy.documents import Gateway, Traffic
from federation.traffic import xds
from federation.traffic.status import GatewayStatus
from federation.traffic.table import GatewayTable, Group, ModelTable
from tests.testbed.bad_routes import out_of_bounds, overflowing, to_nowhere
from tests.testbed.envoy import Envoy
from tests.testbed.fixtures import require_envoy
from tests.testbed.processes import free_ports, wait_for_port
from tests.testbed.replicas import Replicas

pytestmark = pytest.mark.real
REQUESTS = 1000
SILENT_S, STREAM_S = 17, int(os.environ.get("ISOCHRONE_STREAM_SECONDS", "30"))
"""A model that thinks, then talks; with the variable for as long as one likes."""


@pytest.fixture(scope="module")
def servers() -> Iterator[Replicas]:
    """Two replicas in each of two clusters."""
    require_envoy()
    with Replicas(("fra", "iad"), per_cluster=2) as servers:
        for cluster, ports in servers.ports.items():
            for port in ports:
                servers.start(cluster, port)
        yield servers


class Told:
    """A server with what gateways said to it."""

    def __init__(self, listen: XdsListen | None = None) -> None:
        self.statuses: list[GatewayStatus] = []
        self.sent: list[str] = []
        self.server = XdsServer(
            listen or XdsListen(port=0),
            now_s=time.monotonic,
            on_status=self.statuses.append,
            on_sent=lambda type_url, count: self.sent.append(xds.SHORT[type_url]),
        )

    async def until(self, ask: Callable[[], object], what: str) -> None:
        for _ in range(500):
            if await asyncio.to_thread(ask):
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"no {what}: {self.statuses[-1:]}, {self.sent}")

    def accepted(self, snapshot: xds.Snapshot) -> bool:
        """Whether the newest word is that all of it is in force."""
        wanted = {short: snapshot.version(type_url) for type_url, short in xds.SHORT.items()}
        return bool(self.statuses) and dict(self.statuses[-1].accepted) == wanted


@pytest.fixture
async def told() -> AsyncIterator[Told]:
    made = Told()
    await made.server.start()
    yield made
    await made.server.stop()


def table(servers: Replicas, fra: float, *, session: str | None = None, unserved: float = 0.0) -> GatewayTable:
    """The gateway of fra, with two replicas of its own and a gateway in iad (a replica stands for it)."""
    shares = {name: part for name, part in (("fra", fra), ("iad", 1 - fra)) if part}
    model = ModelTable(
        model="chat-8b",
        traffic=Traffic(session_header=session),
        health_path="/health",
        groups=(
            Group(cell="", shares=shares, overflow={}, unserved=unserved),
            Group(cell="New York", shares={"iad": 1.0}, overflow={"fra": 10.0}),
        ),
        local=tuple(("127.0.0.1", port) for port in servers.ports["fra"]),
        spill_rps=20.0,
    )
    gateways = {"iad": Gateway(address="127.0.0.1", port=servers.ports["iad"][0])}
    return GatewayTable(cluster="fra", region="eu", zone="", models=(model,), gateways=gateways)


async def ask(envoy: Envoy, count: int, *, tls: Path | None = None, **headers: str) -> Counter[str]:
    """Who answered how often; a status for what is no answer. Args: tls: the authority of the gateway's certificate."""
    found: Counter[str] = Counter()
    trust = ssl.create_default_context(cafile=tls) if tls is not None else True
    scheme, name = ("https", envoy.cluster) if tls is not None else ("http", None)
    async with aiohttp.ClientSession() as client:
        for number in range(count):
            given = {"host": "chat-8b.example", "x-session-id": str(number)} | {
                name.replace("_", "-"): value for name, value in headers.items()
            }
            url = f"{scheme}://127.0.0.1:{envoy.port}/v1"
            async with client.get(url, headers=given, ssl=trust, server_hostname=name) as answer:
                found[await answer.text() if answer.status == 200 else str(answer.status)] += 1
    return found


async def opened(envoy: Envoy) -> None:
    """Return once users are let in and every endpoint was found healthy."""
    await asyncio.to_thread(wait_for_port, envoy._process, envoy.port, timeout_s=20.0)
    for _ in range(200):
        clusters = await asyncio.to_thread(envoy.admin, "/clusters")
        if "/failed" not in clusters and "health_flags::healthy" in clusters:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(clusters)


@pytest.mark.parametrize("delta", [True, False], ids=["incremental", "state-of-the-world"])
@pytest.mark.parametrize("session", [None, "x-session-id"], ids=["spread", "sticky"])
async def test_a_gateway_shares_requests_out_as_planned(
    told: Told, servers: Replicas, delta: bool, session: str | None
) -> None:
    """The plan would be a number on a map."""
    # Sessions are drawn by their hash: a thousand of them are off by 1.5 % (one sigma).
    near = 0.02 if session is None else 0.06
    told.server.offer("fra", xds.snapshot(table(servers, 0.7, session=session)))
    with Envoy("fra", xds_port=told.server.port, delta=delta) as envoy:
        await opened(envoy)
        assert (await ask(envoy, REQUESTS))["fra"] / REQUESTS == pytest.approx(0.7, abs=near)
        assert await ask(envoy, 10, x_isochrone_cell="New York") == {"iad": 10}
        assert await ask(envoy, 10, x_isochrone_from="iad") == {"fra": 10}, "what was sent on is served here"
        assert await ask(envoy, 5, host="unknown.example") == {"404": 5}
        assert await ask(envoy, 5, host="any.example", x_gateway_model_name="chat-8b") != {"404": 5}
        following = xds.snapshot(table(servers, 0.2, session=session))
        told.server.offer("fra", following)
        await told.until(lambda: told.accepted(following), "word of the new shares")
        assert (await ask(envoy, REQUESTS))["fra"] / REQUESTS == pytest.approx(0.2, abs=near)
        told.sent.clear()
        for _ in range(10):
            told.server.offer("fra", xds.snapshot(table(servers, 0.2, session=session)))
            await asyncio.sleep(0.01)
        assert told.sent == [], "an unchanged plan writes nothing"


async def test_browsers_can_measure_the_way_to_a_gateway(told: Told, servers: Replicas) -> None:
    """Pages would measure a model's answer, or be forbidden to see how long it took."""
    told.server.offer("fra", xds.snapshot(table(servers, 1.0)))
    with Envoy("fra", xds_port=told.server.port) as envoy:
        await opened(envoy)
        async with aiohttp.ClientSession() as client:
            for host in ("chat-8b.example", "fra.models.example"):
                given = {"host": host, "origin": "https://chat.example"}
                url = f"http://127.0.0.1:{envoy.port}{xds.MEASURE_PATH}"
                async with client.get(url, headers=given) as answer:
                    assert (answer.status, await answer.read()) == (204, b"")
                    told_by = [answer.headers[name] for name in ("Access-Control-Allow-Origin", "Timing-Allow-Origin")]
                    assert told_by == ["*", "*"]
                    assert answer.headers["Cache-Control"] == "no-store"


async def test_a_session_stays_where_its_cache_is(told: Told, servers: Replicas) -> None:
    """A random draw would compute every user's prompt anew on every request; a step must move its part alone."""

    async def owners(envoy: Envoy) -> dict[str, str]:
        found = {}
        for number in range(300):
            (found[str(number)],) = await ask(envoy, 1, x_session_id=str(number))
        return found

    told.server.offer("fra", xds.snapshot(table(servers, 0.8, session="x-session-id")))
    with Envoy("fra", xds_port=told.server.port) as envoy:
        await opened(envoy)
        before = await owners(envoy)
        assert await owners(envoy) == before
        following = xds.snapshot(table(servers, 0.6, session="x-session-id"))
        told.server.offer("fra", following)
        await told.until(lambda: told.accepted(following), "word of the new shares")
        after = await owners(envoy)
    moved = sum(before[key] != after[key] for key in before) / len(before)
    assert 0.1 < moved < 0.35, f"{moved:.0%} of sessions changed cluster for a step of 20 %"


async def test_a_full_receiver_sheds_what_others_send_by_priority(told: Told, servers: Replicas) -> None:
    """The loss of one region would fell the next, and that one the one after."""
    told.server.offer("fra", xds.snapshot(table(servers, 1.0, unserved=0.5)))
    with Envoy("fra", xds_port=told.server.port) as envoy:
        await opened(envoy)
        sent_on = await ask(envoy, 100, x_isochrone_from="iad")
        assert sent_on["429"] > 40, f"it takes 20 a second from others: {sent_on}"
        high = await ask(envoy, 60, x_isochrone_from="iad", x_isochrone_priority="high")
        assert high == {"fra": 60}
        own = await ask(envoy, 400)
        assert own["503"] / 400 == pytest.approx(0.5, abs=0.1), "what nobody has room for is turned away at the door"
        assert await ask(envoy, 100, x_isochrone_priority="high") == {"fra": 100}


async def test_an_agent_reads_how_its_replicas_answer(told: Told, servers: Replicas) -> None:
    """A shift would go on into a cluster that fails its users: nobody would tell the controller."""
    told.server.offer("fra", xds.snapshot(table(servers, 1.0)))
    with Envoy("fra", xds_port=told.server.port) as envoy:
        await opened(envoy)
        stats = GatewayStats(f"http://127.0.0.1:{envoy.admin_port}", Clock())
        assert await stats.read() == (), "nothing is known of before"
        servers.error_share["fra"] = 1.0
        await ask(envoy, 10, x_isochrone_from="iad", x_isochrone_priority="high")
        servers.error_share["fra"] = 0.0
        await ask(envoy, 30, x_isochrone_from="iad", x_isochrone_priority="high")
        (sample,) = await stats.read()
        servers.error_share["fra"] = 1.0
        await ask(envoy, 10)
        servers.error_share["fra"] = 0.0
        await ask(envoy, 30)
        await ask(envoy, 40, x_isochrone_cell="New York")
        (own,) = await stats.read()
    assert own.error_share == pytest.approx(0.25, abs=0.01), "its own users' requests, and not what iad answered"
    assert sample.model == "chat-8b"
    assert sample.requests_per_second > 0
    assert sample.error_share == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        pytest.param(overflowing, "routes", "sum of weights", id="weight-overflow"),
        pytest.param(out_of_bounds, "endpoints", "priority", id="endpoints-out-of-bounds"),
        pytest.param(to_nowhere, "routes", "unknown cluster", id="unknown-cluster"),
    ],
)
async def test_what_a_gateway_refuses_is_heard_and_the_last_good_one_serves(
    told: Told, servers: Replicas, spoil: Callable[[xds.Snapshot], xds.Snapshot], kind: str, words: str
) -> None:
    """One bad update would take every region down, or nobody would know that it was not taken."""
    good = xds.snapshot(table(servers, 0.7))
    told.server.offer("fra", good)
    with Envoy("fra", xds_port=told.server.port) as envoy:
        await opened(envoy)
        told.server.offer("fra", spoil(good))
        await told.until(lambda: told.statuses[-1].refused, "refusal")
        assert words in told.statuses[-1].refused[kind].lower()
        assert (await ask(envoy, 300))["fra"] / 300 == pytest.approx(0.7, abs=0.02)
        following = xds.snapshot(table(servers, 0.4))
        told.server.offer("fra", following)
        await told.until(lambda: told.accepted(following) and not told.statuses[-1].refused, "word of the cure")
        assert (await ask(envoy, 300))["fra"] / 300 == pytest.approx(0.4, abs=0.02)


async def test_gateways_go_on_without_a_controller_and_take_nothing_anew_when_it_is_back(servers: Replicas) -> None:
    """An outage of the controller would be an outage of every model; its return would be a jump."""
    (port,) = free_ports(1)
    snapshot = xds.snapshot(table(servers, 0.5))
    first = Told(XdsListen(port=port))
    await first.server.start()
    first.server.offer("fra", snapshot)
    with Envoy("fra", xds_port=port) as envoy:
        await opened(envoy)
        await first.server.stop()
        servers.kill("fra", servers.ports["fra"][0])
        found = await ask(envoy, 300)
        servers.start("fra", servers.ports["fra"][0])
        assert sum(found.values()) == found["fra"] + found["iad"], f"a replica failed meanwhile: {found}"
        second = Told(XdsListen(port=port))
        await second.server.start()
        await second.until(lambda: second.statuses, "gateway that is back")
        assert sum((await ask(envoy, 100)).values()) == 100, "nothing is known yet: nothing is taken away"
        second.server.offer("fra", snapshot)
        await asyncio.sleep(0.3)
        assert second.sent == []
        await second.server.stop()


@pytest.mark.slow
@pytest.mark.timeout(120 + 2 * STREAM_S)
async def test_a_long_answer_is_not_cut(told: Told, servers: Replicas) -> None:
    """Long answers would end in the middle, or before their first word, at whichever of two gateways loses patience:
    Envoy gives a route 15 s and a silent stream five minutes (here one second) where it is not told otherwise."""
    (port,) = free_ports(1)
    (model,) = table(servers, 0.0).models
    users = replace(model, groups=(Group(cell="", shares={"iad": 1.0}, overflow={}),))
    there = replace(model, groups=(), local=tuple(("127.0.0.1", one) for one in servers.ports["iad"]))
    gateways = {"iad": Gateway(address="127.0.0.1", port=port)}

    def offer(users: ModelTable) -> None:
        for name, its in (("fra", users), ("iad", there)):
            whole = GatewayTable(cluster=name, region=name, zone="", models=(its,), gateways=gateways)
            told.server.offer(name, xds.snapshot(whole))

    offer(users)
    with (
        Envoy("iad", xds_port=told.server.port, port=port, idle_s=1.0),
        Envoy("fra", xds_port=told.server.port, idle_s=1.0) as gateway,
    ):
        await opened(gateway)
        timeout = aiohttp.ClientTimeout(total=None)
        url = f"http://127.0.0.1:{gateway.port}/stream/{SILENT_S}/{STREAM_S}"
        async with (
            aiohttp.ClientSession(timeout=timeout) as client,
            client.get(url, headers={"host": "chat-8b.example"}) as answer,
        ):
            assert answer.status == 200
            first = await answer.content.readline()
            moved = replace(users, groups=(Group(cell="", shares={"fra": 1.0}, overflow={}),))
            offer(moved)  # what began goes on where it is
            whole = first + await answer.content.read()
    assert whole.count(b"data: ") == STREAM_S


# ---- who may ask


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and one certificate each for the controller and for the gateways of fra and of iad."""
    directory = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=directory)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=ca")
    for name in ("isochrone", "fra", "iad"):
        own = directory / name
        own.mkdir()
        (own / "ext").write_text(f"subjectAltName=DNS:{name}\n")
        request = ["req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}/tls.key", "-out", f"{name}/csr"]
        openssl(*request, "-subj", f"/CN={name}")
        signing = ["x509", "-req", "-in", f"{name}/csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"]
        openssl(*signing, "-extfile", f"{name}/ext", "-out", f"{name}/tls.crt", "-days", "2")
        (own / "ca.crt").write_bytes((directory / "ca.crt").read_bytes())
    return directory


def mutual(certificates: Path) -> XdsListen:
    own = certificates / "isochrone"
    return XdsListen(port=0, cert_file=own / "tls.crt", key_file=own / "tls.key", ca_file=own / "ca.crt")


async def test_beyond_loopback_there_is_no_plain_text() -> None:
    """Anybody on the network could read every endpoint, or act as a gateway."""
    server = XdsServer(XdsListen(host="0.0.0.0"), now_s=time.monotonic, on_status=print, on_sent=print)
    with pytest.raises(InsecureXds, match="--xds-cert"):
        await server.start()


async def test_a_gateway_is_told_what_its_certificate_entitles_it_to(certificates: Path, servers: Replicas) -> None:
    """Whoever takes over one region's gateway would read, and be sent, the traffic of all."""
    told = Told(mutual(certificates))
    await told.server.start()
    told.server.offer("fra", xds.snapshot(table(servers, 0.5)))
    try:
        with Envoy("fra", xds_port=told.server.port, tls=certificates / "fra") as envoy:
            await told.until(lambda: told.statuses and told.statuses[-1].accepted.get("routes"), "gateway of fra")
            await asyncio.to_thread(wait_for_port, envoy._process, envoy.port, timeout_s=20.0)
        await told.until(lambda: not told.statuses[-1].connected, "end of it")
        told.statuses.clear()
        with Envoy("fra", xds_port=told.server.port, tls=certificates / "iad") as envoy:
            await asyncio.sleep(1.5)
            assert told.statuses == [], "iad's certificate, fra's name"
            assert json.loads(envoy.admin("/stats?format=json&filter=control_plane.connected_state"))["stats"]
    finally:
        await told.server.stop()


@pytest.mark.parametrize(
    ("peer", "answer"),
    [
        pytest.param("iad", "iad", id="the gateway of iad"),
        pytest.param("fra", "503", id="a gateway that bears another name"),
        pytest.param("", "503", id="somebody who speaks plain text"),
    ],
)
async def test_gateways_believe_each_other_by_certificate_or_not_at_all(
    certificates: Path, servers: Replicas, monkeypatch: pytest.MonkeyPatch, peer: str, answer: str
) -> None:
    """Prompts would cross the internet in the clear, or be answered by whoever took over an address."""
    monkeypatch.setattr(xds, "_is_loopback", lambda address: False)  # as it is between regions
    told = Told(mutual(certificates))
    await told.server.start()
    (port,) = free_ports(1) if peer else (servers.ports["iad"][0],)
    (model,) = table(servers, 0.0).models
    users = replace(model, groups=(Group(cell="", shares={"iad": 1.0}, overflow={}),))
    there = replace(model, groups=(), local=tuple(("127.0.0.1", one) for one in servers.ports["iad"]))
    gateways = {"iad": Gateway(address="127.0.0.1", port=port)}
    for name, its in (("fra", users), ("iad", there)):
        whole = GatewayTable(cluster=name, region=name, zone="", models=(its,), gateways=gateways)
        told.server.offer(name, xds.snapshot(whole))
    try:
        with contextlib.ExitStack() as running:
            gateway = Envoy("fra", xds_port=told.server.port, tls=certificates / "fra")
            others = [Envoy(peer, xds_port=told.server.port, port=port, tls=certificates / peer)] if peer else []
            for one in (*others, gateway):
                running.enter_context(one)
                await asyncio.to_thread(wait_for_port, one._process, one.port, timeout_s=20.0)
            authority = certificates / "ca.crt"
            for _ in range(40 if answer == "iad" else 0):  # until fra has found it healthy
                if await ask(gateway, 1, tls=authority) == {answer: 1}:
                    break
                await asyncio.sleep(0.1)
            assert await ask(gateway, 2, tls=authority) == {answer: 2}
            if peer:
                direct = await ask(others[0], 5, tls=authority, x_isochrone_from="fra")
                assert direct == {peer: 5}, "it would have answered whoever believes it"
    finally:
        await told.server.stop()
