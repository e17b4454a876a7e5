"""A real agent process against a real control plane and broker, with the test in the controller's place."""

from __future__ import annotations

import contextlib
import http.client
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import paho.mqtt.client as paho
import yaml
from paho.mqtt.enums import CallbackAPIVersion

from federation.wire import messages, topics
from tests.testbed.cluster import ControlPlane
from tests.testbed.processes import Process, wait

T = TypeVar("T")
CLUSTER = "fra"
WRITES = ("PATCH", "POST", "PUT", "DELETE")


class Agent:
    """The agent as a process, as its users start it."""

    def __init__(self, directory: Path, kubeconfig: Path, broker_url: str, *, interval_s: float = 1.0) -> None:
        self.state = directory / "state.json"
        self.limits = directory / "limits.yaml"
        self._command = [sys.executable, "-m", "federation.cli", "agent", "kubernetes", "--cluster", CLUSTER]
        self._command += ["--broker", broker_url, "--kubeconfig", str(kubeconfig), "--interval", str(interval_s)]
        self._command += ["--state", str(self.state)]
        self._log = directory / "agent.log"
        self.process = self._make()

    def _make(self) -> Process:
        more = ["--limits", str(self.limits)] if self.limits.exists() else []
        return Process("agent", self._command + more, log_file=self._log)

    def start(self) -> None:
        """Start it (anew)."""
        self.process = self._make()
        self.process.start()

    def restart(self) -> None:
        """End it as a crash does, and start it."""
        self.process.kill()
        self.start()

    def log_tail(self) -> str:
        """Its last words."""
        return self.process.log_tail()


class Controller:
    """In the controller's place: gives orders, hears what the agent says, and greets each start of it."""

    def __init__(self, port: int) -> None:
        self.report: messages.Report | None = None
        self.acks: list[messages.Ack] = []
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._hear
        self._client.on_connect = lambda client, *_: client.subscribe(f"isochrone/v1/{CLUSTER}/#", qos=1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    @property
    def boot_id(self) -> str:
        """Of the start of the agent that reported last."""
        return self.report.boot_id if self.report is not None else ""

    def _hear(self, _client: Any, _data: Any, raw: Any) -> None:
        message = messages.decode(raw.payload)
        if isinstance(message, messages.Report):
            if message.boot_id != self.boot_id and not raw.retain:
                said = messages.Session(cluster=CLUSTER, boot_id=message.boot_id)
                self._client.publish(topics.topic(CLUSTER, "session"), messages.encode(said), qos=1)
            self.report = message
        elif isinstance(message, messages.Ack):
            self.acks.append(message)

    def first_report(self, *, timeout_s: float = 30.0) -> messages.Report:
        """The newest report, once there is one."""
        wait(lambda: self.report, "report", timeout_s=timeout_s)
        assert self.report is not None
        return self.report

    def order(self, desired: messages.Desired, *, seal: bool = True) -> None:
        """Publish, retained."""
        self.send(messages.encode(messages.seal(desired) if seal else desired))

    def send(self, payload: bytes) -> None:
        """Publish these bytes where orders are read, retained."""
        self._client.publish(topics.topic(CLUSTER, "desired"), payload, qos=1, retain=True).wait_for_publish(10)

    def steer(self, traffic: messages.Traffic) -> None:
        """Say where requests go, retained."""
        payload = messages.encode(traffic)
        self._client.publish(topics.topic(CLUSTER, "traffic"), payload, qos=1, retain=True).wait_for_publish(10)

    def answer(self, desired: messages.Desired, *, seal: bool = True) -> messages.Ack:
        """Give an order; the acknowledgement of exactly it."""
        before = len(self.acks)
        self.order(desired, seal=seal)

        def found() -> messages.Ack | None:
            wanted = (desired.epoch, desired.generation)
            return next((a for a in self.acks[before:] if (a.epoch, a.generation) == wanted), None)

        return wait(found, "acknowledgement")  # type: ignore[return-value]

    def close(self) -> None:
        """Hang up."""
        self._client.disconnect()
        self._client.loop_stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    """An agent opens all its watches at once; the default of 5 would leave some waiting for a second try."""


class KillingProxy:
    """Between an agent and its API server: counts what changes something, and can kill the agent at any of it.

    Args: kubeconfig: the agent's; `kubeconfig` is the one that leads through here.
    """

    def __init__(self, plane: ControlPlane, kubeconfig: Path, directory: Path) -> None:
        self.writes: list[tuple[str, str]] = []
        self.first_request_s: float | None = None
        self.kill: Callable[[], None] = lambda: None
        self.kill_at: tuple[int, bool] | None = None
        """(which write from now on, whether the API server hears it before the agent dies)."""
        self.killed = threading.Event()
        document = yaml.safe_load(kubeconfig.read_text())
        authorities = document["clusters"][0]["cluster"]["certificate-authority"]
        self._host, self._port = plane.server_url.removeprefix("https://").split(":")
        self._tls = ssl.create_default_context(cafile=authorities)
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        document["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{self._server.server_port}"}
        self.kubeconfig = directory / "through-proxy.kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(document))
        self._thread = threading.Thread(target=self._server.serve_forever, name="killing-proxy", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _is_last(self, method: str, path: str) -> tuple[bool, bool]:
        """Whether the agent dies at this request, and whether the API server hears it."""
        with self._lock:
            if self.first_request_s is None:
                self.first_request_s = time.monotonic()
            if method not in WRITES:
                return False, True
            self.writes.append((method, path))
            if self.kill_at is None:
                return False, True
            number, heard = self.kill_at
            self.kill_at = (number - 1, heard) if number > 1 else None
            return number == 1, heard or number > 1

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                return

            def handle_one_request(self) -> None:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    super().handle_one_request()
                    return
                self.close_connection = True

            def _pass(self) -> None:
                last, heard = proxy._is_last(self.command, self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                if heard:
                    self._forward(body, answer=not last)
                if last:
                    proxy.kill()
                    proxy.killed.set()
                    self.close_connection = True

            def _forward(self, body: bytes, *, answer: bool) -> None:
                upstream = http.client.HTTPSConnection(proxy._host, int(proxy._port), context=proxy._tls, timeout=400)
                with contextlib.closing(upstream):
                    headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "accept-encoding")}
                    upstream.request(self.command, self.path, body=body or None, headers=headers)
                    got = upstream.getresponse()
                    if not answer:
                        got.read()
                        return
                    self.send_response(got.status)
                    self.send_header("Content-Type", got.headers.get("Content-Type", "application/json"))
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    for chunk in _chunks(got):
                        self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                        self.wfile.flush()
                    self.wfile.write(b"0\r\n\r\n")

            do_GET = do_PATCH = do_POST = do_PUT = do_DELETE = _pass

        return Handler


def _chunks(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    while chunk := answer.read1(65536):
        yield chunk
