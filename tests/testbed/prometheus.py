"""A real Prometheus on loopback, and an exporter that speaks the names of vLLM and Envoy."""

from __future__ import annotations

import http.server
import shutil
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml

from tests.testbed.build import find_prometheus
from tests.testbed.processes import Process, free_ports, wait_for_port

START_TIMEOUT_S = 30.0


class Exporter:
    """Gateways and engines of several clusters: `GET /CLUSTER` gives one cluster's metrics.

    `rates` has what counters grow by in a second, `gauges` what is said as it is; both by cluster and series.
    """

    def __init__(self) -> None:
        self.rates: dict[str, dict[str, float]] = defaultdict(dict)
        self.gauges: dict[str, dict[str, float]] = defaultdict(dict)
        self._counts: dict[tuple[str, str], float] = defaultdict(float)
        self._counted_s = time.monotonic()
        self._lock = threading.Lock()
        exporter = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = exporter.text(self.path.strip("/")).encode()
                self.send_response(200)
                self.send_header("content-type", "text/plain; version=0.0.4")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing is logged."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="exporter")

    def text(self, cluster: str) -> str:
        """A cluster's metrics now."""
        with self._lock:
            now_s = time.monotonic()
            for name, series in self.rates.items():
                for one, rate in series.items():
                    self._counts[name, one] += rate * (now_s - self._counted_s)
            self._counted_s = now_s
            lines = [f"{one} {int(self._counts[cluster, one])}" for one in self.rates[cluster]]
            lines += [f"{one} {value:g}" for one, value in self.gauges[cluster].items()]
        return "\n".join(lines) + "\n"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Prometheus:
    """One server that scrapes `http://127.0.0.1:PORT/CLUSTER` every second, with the label `cluster`; it keeps its data
    and its port over a restart.

    Raises: Missing where it is not installed.
    """

    def __init__(self, exporter_port: int, clusters: Iterable[str]) -> None:
        program = find_prometheus()
        (self.port,) = free_ports(1)
        self.directory = Path(tempfile.mkdtemp(prefix="isochrone-prometheus-"))
        jobs = [
            {
                "job_name": name,
                "metrics_path": f"/{name}",
                "static_configs": [{"targets": [f"127.0.0.1:{exporter_port}"], "labels": {"cluster": name}}],
            }
            for name in clusters
        ]
        config = {"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}
        (self.directory / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        command = [
            str(program),
            f"--config.file={self.directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
        self._process = Process("prometheus", command, log_file=self.directory / "prometheus.log")

    @property
    def url(self) -> str:
        """Of its API."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Return once it listens."""
        self._process.start()
        wait_for_port(self._process, self.port, timeout_s=START_TIMEOUT_S)

    def stop(self) -> None:
        """End it in order; it can be started again."""
        self._process.stop()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.stop()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)
