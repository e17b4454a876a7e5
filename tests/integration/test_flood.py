"""Floods against one controller with its broker inside: real processes, real sockets, on loopback.

Throughout, three agents are heard, `/healthz` answers and the controller's memory stays within bounds. Each test prints
what it measured as a line of JSON (`pytest -s`).
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from federation.aiokit import broker
from federation.aiokit.broker import BrokerAddress
from federation.wire import messages, topics
from tests.builders import a_report, replicas
from tests.testbed.processes import Process, free_ports
from tests.testbed.small_world import MODEL, PLACES, POLICY, TOKEN, cluster_document

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
INTERVAL_S = 2.0
SILENT_S = 4 * INTERVAL_S
"""A cluster that is not heard for this long counts as silent."""
HELD_S = 6.0
"""How long a flood lasts."""
HEALTH_S = 2.0
"""Of a machine that others use too: how long `/healthz` may take at most."""
MIB = 1024 * 1024

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextmanager
def descriptors() -> Iterator[None]:
    """Who floods needs descriptors of its own."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < 4096:
        pytest.skip(f"needs 4,096 file descriptors, and may have {before[1]}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 4096), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


class Besieged:
    """A controller and three agents, each a process."""

    def __init__(self, directory: Path, limit: str) -> None:
        self.directory = directory
        policies = directory / "policies"
        policies.mkdir(parents=True)
        documents = [*(cluster_document(name) for name in PLACES), MODEL, POLICY]
        (policies / "all.yaml").write_text(yaml.safe_dump_all(documents), encoding="utf-8")
        self.port, self.broker_port = free_ports(2)
        self.address = BrokerAddress(host="127.0.0.1", port=self.broker_port)
        environment = {**os.environ, "ISOCHRONE_TOKEN": TOKEN, "ISOCHRONE_CONFIG": str(directory / "config.json")}
        command = [sys.executable, "-m", "federation.cli", "controller", "--policies", str(policies)]
        command += ["--data", str(directory / "data"), "--listen", f"127.0.0.1:{self.port}"]
        command += ["--broker-port", str(self.broker_port), "--report-interval", str(INTERVAL_S), "--plan-period", "5"]
        shell = ["/bin/sh", "-c", f'{limit}; exec "$@"', "sh"]
        self.controller = Process("controller", [*shell, *command], log_file=directory / "log", environment=environment)
        self.agents = [
            Process(name, _agent(name, self.broker_port), log_file=directory / f"{name}.log", environment=environment)
            for name in PLACES
        ]
        self.health_s: list[float] = []
        self.heard_s: list[float] = []

    def rss_mib(self) -> float:
        """Resident memory of the controller's process."""
        status = Path(f"/proc/{self.controller.pid}/status").read_text(encoding="utf-8")
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024

    def descriptors(self) -> int:
        """Open file descriptors of the controller's process."""
        return sum(1 for _ in Path(f"/proc/{self.controller.pid}/fd").iterdir())

    def log_bytes(self) -> int:
        return (self.directory / "log").stat().st_size

    async def ask(self, path: str, *, timeout_s: float = 10.0) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own, as a probe or a command makes it."""
        async with asyncio.timeout(timeout_s):
            reader, writer = await self.connect(self.port, request(path, "Connection: close\r\n"))
            try:
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            finally:
                writer.close()
        lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:])
        return int(lines[0].split()[1]), headers, body

    async def connect(self, port: int, sent: bytes = b"", peer: str = "127.0.0.1") -> Streams:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(peer, 0), limit=4096)
        writer.write(sent)
        return reader, writer

    async def watch(self) -> None:
        """Ask for health and for who was heard, for ever."""
        while True:
            begun_s = time.monotonic()
            assert (await self.ask("/healthz"))[0] == 200
            self.health_s.append(time.monotonic() - begun_s)
            status, _, body = await self.ask("/v1/clusters")
            if status == 200:
                ages = [one["report_age_s"] for one in json.loads(body)["items"]]
                self.heard_s.append(max(age if age is not None else 1e9 for age in ages))
            await asyncio.sleep(0.1)

    async def under(self, flood: Callable[[], Awaitable[dict[str, Any]]], name: str) -> dict[str, Any]:
        """What was measured while `flood` went on; it ends by itself."""
        await asyncio.sleep(1.0)
        before_mib, logged = self.rss_mib(), self.log_bytes()
        self.health_s.clear()
        self.heard_s.clear()
        peak = [before_mib]
        watching = asyncio.create_task(self.watch())
        measuring = asyncio.create_task(self._measure(peak))
        begun_s = time.monotonic()
        try:
            found = await flood()
        finally:
            measuring.cancel()
            if not watching.done():
                watching.cancel()
            results = await asyncio.gather(watching, measuring, return_exceptions=True)
        for result in results:
            if not isinstance(result, asyncio.CancelledError | None):
                raise result
        await asyncio.sleep(1.0)
        figures = {
            "flood": name,
            "seconds": round(time.monotonic() - begun_s, 1),
            "rss_mib_before": round(before_mib),
            "rss_mib_peak": round(max(peak)),
            "rss_mib_after": round(self.rss_mib()),
            "descriptors_after": self.descriptors(),
            "healthz_ms_max": round(1000 * max(self.health_s)),
            "healthz_asked": len(self.health_s),
            "report_age_s_max": round(max(self.heard_s), 1),
            "log_bytes": self.log_bytes() - logged,
            **found,
        }
        print(json.dumps(figures))
        assert figures["healthz_ms_max"] < 1000 * HEALTH_S
        assert figures["report_age_s_max"] < SILENT_S, "an agent was not heard"
        assert figures["log_bytes"] < 200_000
        return figures

    async def _measure(self, peak: list[float]) -> None:
        while True:
            peak.append(self.rss_mib())
            await asyncio.sleep(0.05)


def _agent(name: str, broker_port: int) -> list[str]:
    command = [sys.executable, "-m", "federation.cli", "agent", "simulated", "--cluster", name]
    command += ["--broker", f"mqtt://127.0.0.1:{broker_port}", "--interval", str(INTERVAL_S)]
    return [*command, "--pool", "NVIDIA-L4=8", "--rtt-ms", "20"]


def request(path: str, headers: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n{headers}\r\n".encode()


@asynccontextmanager
async def besieged(directory: Path, limit: str) -> AsyncIterator[Besieged]:
    with descriptors():
        siege = Besieged(directory, limit)
        processes = [siege.controller, *siege.agents]
        try:
            for one in processes:
                one.start()
            async with asyncio.timeout(40):
                while not await _all_heard(siege):
                    siege.controller.check()
                    await asyncio.sleep(0.2)
            yield siege
            for one in processes:
                one.check()
        finally:
            for one in reversed(processes):
                one.stop()


async def _all_heard(siege: Besieged) -> bool:
    try:
        status, _, body = await siege.ask("/v1/clusters")
    except OSError:
        return False
    is_heard = status == 200 and all(one["report_age_s"] is not None for one in json.loads(body)["items"])
    return is_heard and b"isochrone_plan_generation 0.0" not in (await siege.ask("/metrics"))[2]


LIMITS = {"soft-1024": "ulimit -Sn 1024", "hard-1024": "ulimit -n 1024"}


@pytest.mark.parametrize("limit", LIMITS.values(), ids=LIMITS.keys())
async def test_half_open_requests(tmp_path: Path, limit: str) -> None:
    """1,100 connections by anyone took the API and the broker down, and wrote 80 MB of log in half a minute."""
    async with besieged(tmp_path / "siege", limit) as siege:

        async def flood() -> dict[str, Any]:
            halves = [await siege.connect(siege.port, b"GET / HTTP/1.1\r\nHost: x\r\nX:") for _ in range(1_500)]
            halves += [await siege.connect(siege.broker_port, b"\x10") for _ in range(500)]
            bodies = [
                await siege.connect(
                    siege.port, request("/v1/diff").replace(b"GET", b"POST")[:-2] + b"Content-Length: 9\r\n\r\n"
                )
                for _ in range(100)
            ]
            await asyncio.sleep(HELD_S)
            found = {"connections": len(halves) + len(bodies), "descriptors": siege.descriptors()}
            for _, writer in (*halves, *bodies):
                writer.transport.abort()
            return found

        figures = await siege.under(flood, "1,500 half-open requests, 500 half-open MQTT, 100 slow bodies")
        assert figures["rss_mib_peak"] - figures["rss_mib_before"] < 60
        assert figures["descriptors"] < (1_000 if limit == LIMITS["hard-1024"] else 1_600)


async def test_slow_streams(tmp_path: Path) -> None:
    """Maps on slow lines, or left open, would each hold a world and a place."""
    async with besieged(tmp_path / "siege", LIMITS["hard-1024"]) as siege:

        async def flood() -> dict[str, Any]:
            streams = []
            for number in range(300):
                reader, writer = await siege.connect(siege.port, request("/v1/stream"), f"127.0.0.{2 + number % 3}")
                writer.transport.pause_reading()  # type: ignore[attr-defined]
                streams.append((reader, writer))
            await asyncio.sleep(HELD_S)
            told: dict[str, int] = {}
            for reader, writer in streams:
                writer.transport.resume_reading()  # type: ignore[attr-defined]
                async with asyncio.timeout(5):
                    head = await reader.readuntil(b"\r\n\r\n")
                status = head.split()[1].decode()
                told[status] = told.get(status, 0) + 1
                if status != "200":
                    assert b"Retry-After: " in head
                    body = json.loads(await reader.readexactly(int(head.split(b"Content-Length: ")[1].split()[0])))
                    assert body["hint"]
                writer.transport.abort()
            return {"streams": len(streams), "told": told}

        figures = await siege.under(flood, "300 slow streams")
        assert figures["rss_mib_peak"] - figures["rss_mib_before"] < 100
        assert set(figures["told"]) <= {"200", "429", "503"}
        assert 100 <= figures["told"]["200"] < 300


async def test_retained_messages(tmp_path: Path) -> None:
    """600 MB of junk stayed in the controller's memory for as long as it ran."""
    async with besieged(tmp_path / "siege", LIMITS["soft-1024"]) as siege:

        async def flood() -> dict[str, Any]:
            refused = 0
            for number in range(60):
                topic = topics.topic(f"junk{number}", "report")
                reader, writer = await siege.connect(siege.broker_port)
                writer.write(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05" + f"j{number:04}".encode())
                await reader.readexactly(4)
                body = struct.pack("!H", len(topic)) + topic.encode() + b"x" * 10_000_000
                try:
                    writer.write(b"\x31" + _length(len(body)) + body)
                    await writer.drain()
                    async with asyncio.timeout(5):
                        await reader.read()
                except ConnectionError:
                    pass
                refused += 1
                writer.transport.abort()

            async def fill(sender: int) -> None:
                async with broker.client(siege.address, identifier=f"junk{sender}", keepalive_s=60) as client:
                    for number in range(30):
                        topic = topics.topic(f"junk{sender}-{number}", "report")
                        await client.publish(topic, b"x" * 1_000_000, qos=1, retain=True, timeout=60)
                    # Of a topic the newest message counts: who may write a cluster's reports can silence it anyhow.
                    bad = topics.topic("fra", "ack") if sender == 0 else topics.topic(f"junk{sender}", "report")
                    for _ in range(2_000):
                        await client.publish(bad, b"not a message", qos=0)
                    await asyncio.sleep(1.0)

            await asyncio.gather(*(fill(sender) for sender in range(10)))
            return {"messages_of_10_mb": refused, "messages_of_1_mb": 300, "bad_messages": 20_000}

        figures = await siege.under(flood, "60 retained messages of 10 MB, 300 of 1 MB, 20,000 bad ones")
        assert figures["rss_mib_peak"] - figures["rss_mib_before"] < 400
        assert figures["rss_mib_after"] - figures["rss_mib_before"] < 350


def _length(length: int) -> bytes:
    found = b""
    while True:
        length, digit = divmod(length, 128)
        found += bytes([digit | (0x80 if length else 0)])
        if not length:
            return found


async def test_made_up_labels(tmp_path: Path) -> None:
    """36,000 series of models that do not exist stayed in the controller and in Prometheus for ever."""
    async with besieged(tmp_path / "siege", LIMITS["soft-1024"]) as siege:
        before = await _series(siege)

        async def flood() -> dict[str, Any]:
            async with broker.client(siege.address, identifier="liar", keepalive_s=60) as client:
                for number in range(12):
                    made_up = tuple(replicas(f"made-up-{number}-{one}", 1, 1) for one in range(3_000))
                    report = a_report("mad", seq=number + 1, boot_id="liar-0001", replicas=made_up)
                    await client.publish(topics.topic("mad", "report"), messages.encode(report), qos=1)
                    await asyncio.sleep(INTERVAL_S / 4)
            await asyncio.sleep(INTERVAL_S)
            return {"label_values": 36_000, "series_before": before, "series_after": await _series(siege)}

        figures = await siege.under(flood, "36,000 made-up label values")
        assert figures["series_after"] <= figures["series_before"] + 20
        assert b"made-up" not in (await siege.ask("/metrics"))[2]
        assert figures["rss_mib_after"] - figures["rss_mib_before"] < 60


async def _series(siege: Besieged) -> int:
    return sum(not line.startswith(b"#") for line in (await siege.ask("/metrics"))[2].splitlines())


async def test_secrets_are_in_no_log_and_no_arguments(tmp_path: Path) -> None:
    """Who may read the log, or list processes, could order any cluster about."""
    async with besieged(tmp_path / "siege", LIMITS["soft-1024"]) as siege:
        for path in ("/v1/overview", "/metrics", "/signin?token=wrong", "/v1/nothing"):
            await siege.ask(path)
        told = _told(siege)
        assert TOKEN not in told
        assert "map: http://" in told


def _told(siege: Besieged) -> str:
    """Arguments of all processes, and all logs."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return listed + "".join(file.read_text(encoding="utf-8") for file in siege.directory.glob("*log"))
