"""A whole fleet at once: the controller as it is shipped, a real broker, and agents as light clients in processes of
their own. All connect, a plan is made and carried out, it is quiet, ten maps are open, all connections break and come
back.

`make bench CASE=fleet` has all sizes; `python -m tests.bench.mass SIZE…` some.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml
from msgspec import structs

from federation.policy import documents
from federation.wire import messages
from tests.bench import fleet
from tests.bench.demo_size import result
from tests.bench.worlds import a_world_with_places
from tests.testbed.mosquitto import Mosquitto
from tests.testbed.processes import Process, free_ports

SIZES = (1_000, 2_000, 5_000, 10_000)
EMBEDDED_MOST = 1_000
"""Larger fleets have a broker of their own."""
MODELS, CELLS_MOST = 4, 2_000
INTERVAL_S = 10.0
PROCESSES = 4
PER_FILE = 40
"""Cluster documents in a policy file, which has bounds."""
TOKEN = "bench-token"
LOOK_S, HEALTH_S = 2.0, 0.1
STEADY_S, MAPS_S, MAPS = 60.0, 60.0, 10
AT_MOST_S = 600.0
SHIPPED = Path(__file__).parents[2] / "deploy" / "mosquitto" / "limits.conf"


def mass(sizes: tuple[int, ...] = SIZES) -> Iterator[dict[str, object]]:
    """All phases of each size."""
    for size in sizes:
        with _Fleet(size) as running:
            yield from running.phases()


class _Health:
    """Asks /healthz again and again, each time by a new connection; the longest that it waited, in ms."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.worst_ms = 0.0
        self._asked_s: float | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ends = threading.Event()
        self._thread.start()

    def _run(self) -> None:
        while not self._ends.wait(HEALTH_S):
            self._asked_s = time.monotonic()
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self._url}/healthz", timeout=120) as answer:
                answer.read()
            self.worst_ms = max(self.worst_ms, 1000 * (time.monotonic() - self._asked_s))
            self._asked_s = None

    def take(self) -> float:
        """The worst since it was taken last, what still waits included."""
        asked_s = self._asked_s
        waiting_ms = 1000 * (time.monotonic() - asked_s) if asked_s is not None else 0.0
        worst_ms, self.worst_ms = max(self.worst_ms, waiting_ms), 0.0
        return worst_ms

    def close(self) -> None:
        """Ask no more."""
        self._ends.set()


class _Map:
    """An open map: reads the stream as a browser does, and counts worlds."""

    def __init__(self, port: int) -> None:
        self.worlds, self.bytes = 0, 0
        self._socket = socket.create_connection(("127.0.0.1", port))
        head = f"GET /v1/stream HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        self._socket.sendall(head.encode())
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._socket.recv(1 << 20):
                self.bytes += len(data)
                self.worlds += data.count(b"event: world")

    def close(self) -> None:
        """Close the map."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class _Fleet:
    """Broker, controller and agents of one size, as processes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.directory = Path(tempfile.mkdtemp(prefix="isochrone-mass-"))
        self.broker = Mosquitto(extra_config=SHIPPED.read_text()) if size > EMBEDDED_MOST else None
        (self.port, self.broker_port) = free_ports(2)
        self.url = f"http://127.0.0.1:{self.port}"
        self.agents: list[subprocess.Popen[bytes]] = []
        self.controller: Process | None = None
        self.health: _Health | None = None

    def __enter__(self) -> _Fleet:
        try:
            self._start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _start(self) -> None:
        problem, users, places = a_world_with_places(
            1, clusters=self.size, cells=min(self.size, CELLS_MOST), models=MODELS
        )
        given = fleet.documents_of(problem, fleet.degrees(places))
        self._write_policies(given)
        reports = fleet.reports_of(problem, fleet.degrees(users), places, 1)
        for at in range(PROCESSES):
            lines = (
                messages.encode(structs.replace(one, probe=f"{one.cluster}.example:7946"))
                for one in reports[at::PROCESSES]
            )
            (self.directory / f"agents-{at}.jsonl").write_bytes(b"\n".join(lines))
        if self.broker is not None:
            self.broker.start()
            self.broker_port = self.broker.port
        command = [sys.executable, "-m", "federation.cli", "controller", "--log-format", "json"]
        command += ["--policies", str(self.directory / "policies"), "--data", str(self.directory / "data")]
        command += ["--listen", f"127.0.0.1:{self.port}", "--report-interval", str(INTERVAL_S)]
        if self.broker is not None:
            command += ["--broker", self.broker.url]
        else:
            command += ["--broker-port", str(self.broker_port)]
        environment = {"ISOCHRONE_TOKEN": TOKEN, "ISOCHRONE_CONFIG": str(self.directory / "config.json")}
        self.log = self.directory / "controller.log"
        self.controller = Process("controller", command, log_file=self.log, environment=environment)
        self.controller.start()
        self._wait(lambda: self._metric("isochrone_plan_epoch") >= 1, "the controller's API")
        self.health = _Health(self.url)

    def _write_policies(self, given: documents.Documents) -> None:
        policies = self.directory / "policies"
        policies.mkdir()
        clusters = [
            structs.replace(
                one,
                spec=structs.replace(one.spec, gateway=documents.Gateway(address=f"10.0.{at // 250}.{at % 250 + 1}")),
            )
            for at, one in enumerate(given.clusters)
        ]
        parts: list[Sequence[msgspec.Struct]] = [
            clusters[at : at + PER_FILE] for at in range(0, len(clusters), PER_FILE)
        ]
        for at, part in enumerate([*parts, [*given.models, *given.policies]]):
            text = yaml.dump_all((msgspec.to_builtins(one) for one in part), Dumper=yaml.CSafeDumper)
            (policies / f"part-{at:03}.yaml").write_text(text)

    def _close(self) -> None:
        if self.health is not None:
            self.health.close()
        for one in self.agents:
            one.kill()
            one.wait()
        if self.controller is not None:
            self.controller.stop()
        if self.broker is not None:
            self.broker.close()
        if keep := os.environ.get("FLEET_LOG"):
            shutil.copy(self.log, keep)
        shutil.rmtree(self.directory, ignore_errors=True)

    # ---- asking

    def _get(self, path: str) -> str:
        asked = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(asked, timeout=120) as answer:
            return str(answer.read().decode())

    def _metrics(self) -> dict[str, float]:
        """Nothing while the controller does not answer."""
        try:
            rows = (line.rpartition(" ") for line in self._get("/metrics").splitlines() if not line.startswith("#"))
            return {name: float(value) for name, _, value in rows}
        except OSError:
            return {}

    def _metric(self, name: str) -> float:
        return self._metrics().get(name, 0.0)

    def _wait(self, is_over: Callable[[], bool], what: str) -> float:
        """Seconds until it is so, or infinity."""
        begun_s = time.monotonic()
        assert self.controller is not None
        while not is_over():
            self.controller.check()
            if time.monotonic() - begun_s > AT_MOST_S:
                print(f"gave up on {what}", file=sys.stderr)
                return float("inf")
            time.sleep(LOOK_S)
        return time.monotonic() - begun_s

    def _given_up(self) -> float:
        """How often a cluster was taken for gone, so far."""
        found = self._metrics()
        return sum(found.get(f'isochrone_cluster_changes_total{{to="{to}"}}', 0.0) for to in ("unreachable", "lost"))

    def _order(self, order: str) -> Counter[str]:
        """Tell all agents' processes; what they counted, all together."""
        said = Counter[str]()
        for one in self.agents:
            assert one.stdin is not None and one.stdout is not None
            one.stdin.write(f"{order}\n".encode())
            one.stdin.flush()
        for one in self.agents:
            assert one.stdout is not None
            said.update(json.loads(one.stdout.readline()))
        return said

    # ---- the phases

    def phases(self) -> Iterator[dict[str, object]]:
        """Everything in order, each with what it cost."""
        with self._measured("storm") as lines:
            begun_s = time.monotonic()
            self._start_agents()
            self._wait(lambda: self._metric('isochrone_clusters{state="ready"}') >= self.size, "all being heard")
            lines.append(self._line("storm until all are heard", time.monotonic() - begun_s, "s"))
        yield from lines
        with self._measured("first plan") as lines:
            self._wait(lambda: self._metric("isochrone_plan_generation") >= 1, "a plan")
            lines.append(self._line("storm until the first plan", time.monotonic() - begun_s, "s"))
            self._wait(self._is_carried_out, "the plan being carried out")
            lines.append(self._line("storm until it is carried out", time.monotonic() - begun_s, "s"))
        yield from lines
        with self._measured("steady") as lines:
            time.sleep(STEADY_S)
        yield from lines
        with self._measured(f"{MAPS} maps") as lines:
            maps = [_Map(self.port) for _ in range(MAPS)]
            time.sleep(MAPS_S)
            lines.append(self._line("worlds that a map got, the fewest", min(one.worlds for one in maps), "in 60 s"))
            lines.append(self._line("bytes that a map got", sum(one.bytes for one in maps) / MAPS / 1e6, "MB in 60 s"))
        yield from lines
        with self._measured(f"agents cut, {MAPS} maps") as lines:
            lines.append(self._returned("agents cut", lambda: self._order("cut")))
        yield from lines
        if self.broker is not None:
            with self._measured(f"broker lost, {MAPS} maps") as lines:
                lines.append(self._returned("broker lost", self._lose_broker))
            yield from lines
        for one in maps:
            one.close()

    def _start_agents(self) -> None:
        for at in range(PROCESSES):
            command = [sys.executable, "-m", "tests.bench.light", str(self.broker_port), str(INTERVAL_S)]
            command.append(str(self.directory / f"agents-{at}.jsonl"))
            self.agents.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))

    def _is_carried_out(self) -> bool:
        found = self._metrics()
        wanted = {name: n for name, n in found.items() if name.startswith("isochrone_model_replicas{")}
        desired = {name: n for name, n in wanted.items() if 'state="desired"' in name}
        ready = {name: wanted.get(name.replace('"desired"', '"ready"'), 0.0) for name in desired}
        return sum(desired.values()) > 0 and all(ready[name] >= n for name, n in desired.items())

    def _lose_broker(self) -> None:
        assert self.broker is not None
        self.broker.restart_empty()

    def _returned(self, what: str, cut: Callable[[], Any]) -> dict[str, object]:
        """How long after a cut everybody has been heard again since."""
        cut()
        cut_s = time.monotonic()

        def are_back() -> bool:
            asked_s = time.monotonic()
            found = self._metrics()
            ages = [age for name, age in found.items() if name.startswith("isochrone_cluster_report_age")]
            is_ready = found.get('isochrone_clusters{state="ready"}', 0.0) >= self.size
            is_back = max(ages, default=1e9) < asked_s - cut_s and not found.get("isochrone_brake_active")
            return is_back and is_ready and self._order("stats")["connected"] >= self.size

        self._wait(are_back, "all being heard again")
        return self._line(f"{what} until all are heard again, and no brake", time.monotonic() - cut_s, "s")

    @contextlib.contextmanager
    def _measured(self, phase: str) -> Iterator[list[dict[str, object]]]:
        lines: list[dict[str, object]] = []
        assert self.controller is not None and self.health is not None
        pid = self.controller.pid
        self.health.take()
        begun_s, cpu_s, written = time.monotonic(), _cpu_s(pid), _written(pid)
        given_up, counted = self._given_up(), self._order("stats") if self.agents else Counter[str]()
        yield lines
        took_s = time.monotonic() - begun_s
        said = self._order("stats")
        said.subtract(counted)
        lines += [
            self._line(f"{phase}: longest wait of /healthz", self.health.take(), "ms"),
            self._line(f"{phase}: CPU of the controller", (_cpu_s(pid) - cpu_s) / took_s, "cores"),
            self._line(f"{phase}: written to disk", (_written(pid) - written) / took_s * 60 / 1e6, "MB/min"),
            self._line(f"{phase}: resident memory", _memory_mib(pid), "MiB"),
            self._line(f"{phase}: wrongly unreachable", self._given_up() - given_up, "events"),
            self._line(f"{phase}: told to agents", said["told_bytes"] / took_s * 60 / 1e6, "MB/min"),
            self._line(f"{phase}: reports sent", said["reports"] / took_s, "per s"),
        ]

    def _line(self, name: str, value: float, unit: str) -> dict[str, object]:
        return result(f"{self.size} clusters, {name}", round(value, 3), unit, "", None, 1)


def _cpu_s(pid: int) -> float:
    """Of the controller itself: solvers are processes of their own."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _written(pid: int) -> int:
    match = re.search(r"^write_bytes: (\d+)", Path(f"/proc/{pid}/io").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1])


def _memory_mib(pid: int) -> float:
    match = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) / 1024


def main() -> None:
    """Some sizes."""
    for one in mass(tuple(map(int, sys.argv[1:])) or SIZES):
        print(json.dumps({"case": "fleet", **one}), flush=True)


if __name__ == "__main__":
    main()
