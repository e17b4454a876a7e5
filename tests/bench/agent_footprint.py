"""A real agent process against a real API server and broker: memory, CPU, and bytes to the broker when nothing happens.

Published figures to compare with: Karmada's agent 266 MiB and 40 millicores at 5,000 nodes; KubeFleet's 33 MB and
2.4 millicores idle.
"""

from __future__ import annotations

import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.bench.demo_size import result
from tests.testbed import shapes
from tests.testbed.agent import Agent, Controller
from tests.testbed.cluster import ControlPlane
from tests.testbed.mosquitto import Mosquitto

SIZES = ((50, 500), (500, 5000))
"""Nodes with four GPUs each, pods that others run there."""
SETTLE_S = 30.0
MEASURE_S = 120.0
AT_ONCE = 6


class Counting:
    """A TCP relay that counts bytes, both ways."""

    def __init__(self, port: int) -> None:
        self.count = 0
        self._to = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._to))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with source:
            while True:
                try:
                    data = source.recv(65536)
                    sink.sendall(data)
                except OSError:
                    data = b""
                if not data:
                    sink.close()
                    return
                self.count += len(data)

    def close(self) -> None:
        """Accept no more."""
        self._server.close()


def agent() -> Iterator[dict[str, object]]:
    """Resident memory, CPU and traffic of an idle agent by the size of its cluster."""
    for nodes, pods in SIZES:
        with ControlPlane(f"size-{nodes}") as plane, Mosquitto() as broker, tempfile.TemporaryDirectory() as directory:
            _fill(plane, nodes, pods)
            relay = Counting(broker.port)
            running = Agent(
                Path(directory), plane.agent_kubeconfig(), f"mqtt://127.0.0.1:{relay.port}", interval_s=10.0
            )
            controller = Controller(broker.port)
            try:
                running.start()
                report = controller.first_report(timeout_s=120.0)
                free = sum(pool.free for pool in report.pools)
                assert free == 4 * nodes - pods // 10, f"{free} devices free"
                time.sleep(SETTLE_S)
                yield from _measure(f"{nodes} nodes, {pods} pods", running.process.pid, relay)
            finally:
                running.process.stop()
                controller.close()
                relay.close()


def _measure(size: str, pid: int, relay: Counting) -> Iterator[dict[str, object]]:
    ticks, sent, begun_s = _cpu_ticks(pid), relay.count, time.monotonic()
    time.sleep(MEASURE_S)
    elapsed_s = time.monotonic() - begun_s
    cpu_s = (_cpu_ticks(pid) - ticks) / os.sysconf("SC_CLK_TCK")
    memory = {name: _memory_kb(pid, name) / 1024 for name in ("VmRSS", "VmHWM")}
    yield result(f"resident memory, {size}", memory["VmRSS"], "MiB", "Karmada agent, 5,000 nodes", 266.0)
    yield result(f"peak resident memory, {size}", memory["VmHWM"], "MiB", "Karmada agent, 5,000 nodes", 266.0)
    yield result(f"CPU idle, {size}", 1000 * cpu_s / elapsed_s, "millicores", "KubeFleet agent, idle", 2.4)
    bytes_per_minute = (relay.count - sent) / elapsed_s * 60
    yield result(f"to and from the broker idle, {size}", bytes_per_minute, "bytes/min", "1 kbit/s", 7500.0)


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _memory_kb(pid: int, name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1])


def _fill(plane: ControlPlane, nodes: int, pods: int) -> None:
    """One pod in ten holds a GPU, each on another node."""

    def node(number: int) -> None:
        labels = shapes.L4 | {"topology.kubernetes.io/zone": f"z{number % 3}"}
        shapes.add_node(plane, f"gpu-{number:04}", labels, {"nvidia.com/gpu": 4}, cpu="96", memory="768Gi")

    def pod(number: int) -> None:
        devices = {"nvidia.com/gpu": 1} if number % 10 == 0 else {}
        where = number // 10 if devices else number
        shapes.occupy(plane, f"pod-{number:05}", f"gpu-{where % nodes:04}", devices)

    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        list(pool.map(node, range(nodes)))
        list(pool.map(pod, range(pods)))
    plane.wait_for_nodes(timeout_s=120.0)
