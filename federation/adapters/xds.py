"""The aggregated discovery service: gateways connect by gRPC and receive their configuration. A thin shell around
`Stream`.

Beyond loopback it requires mutual TLS, and a gateway gets only what its certificate's name entitles it to.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
from google.protobuf import any_pb2

from federation.aiokit.address import is_loopback
from federation.aiokit.descriptors import GATEWAYS_AT_MOST
from federation.traffic.status import GatewayStatus
from federation.traffic.stream import Request, Response, Stream
from federation.traffic.xds import Resource, Snapshot

log = structlog.get_logger("xds")
MAX_REQUEST_BYTES = 4 * 1024 * 1024
LONGEST_ERROR = 600
OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.so_reuseport", 0),
    # A connection that has not spoken HTTP/2, or has no stream, keeps a descriptor from gateways.
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 60_000),
    ("grpc.max_concurrent_streams", 4),
)
LONGEST_NAME = 256


class InsecureXds(ValueError):
    """Gateways would be served in plain text beyond this machine. The message says which options to give."""


@dataclass(frozen=True, slots=True, kw_only=True)
class XdsListen:
    """Where gateways connect. Beyond loopback all three files are required."""

    host: str = "127.0.0.1"
    port: int = 18000
    cert_file: Path | None = None
    key_file: Path | None = None
    ca_file: Path | None = None
    """Authorities that gateways' certificates are verified by."""


OnStatus = Callable[[GatewayStatus], None]
OnSent = Callable[[str, int], None]


class XdsServer:
    """Serves each gateway the newest snapshot of its cluster.

    Args: on_status: called when a gateway connects, disconnects, accepts or refuses. on_sent: called with (type,
        resources) for every response. most: streams of gateways at once.
    """

    def __init__(
        self,
        listen: XdsListen,
        *,
        now_s: Callable[[], float],
        on_status: OnStatus,
        on_sent: OnSent,
        most: int = GATEWAYS_AT_MOST,
    ) -> None:
        self._listen = listen
        self._most = most
        self._now_s = now_s
        self._on_status = on_status
        self._on_sent = on_sent
        self._snapshots: dict[str, Snapshot] = {}
        self._changed: dict[str, asyncio.Event] = {}
        self._server: Any = None
        self.port = 0

    async def start(self) -> None:
        """Begin to serve. Raises: InsecureXds, OSError."""
        listen = self._listen
        files = (listen.cert_file, listen.key_file, listen.ca_file)
        if not all(files) and not is_loopback(listen.host):
            raise InsecureXds(
                f"gateways would be served on {listen.host} in plain text: give --xds-cert, --xds-key and --xds-ca, "
                "or --xds-listen 127.0.0.1:18000"
            )
        self._server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=self._most)
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(self, self._server)
        host = f"[{listen.host}]" if ":" in listen.host else listen.host
        address = f"{host}:{listen.port}"
        try:
            if all(files):
                cert, key, authority = [await asyncio.to_thread(file.read_bytes) for file in files if file is not None]
                credentials = grpc.ssl_server_credentials(
                    [(key, cert)], root_certificates=authority, require_client_auth=True
                )
                self.port = self._server.add_secure_port(address, credentials)
            else:
                self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"gateways cannot be served on {address}: {error}") from error
        await self._server.start()

    async def stop(self) -> None:
        """Close all streams; gateways keep their configuration."""
        if self._server is not None:
            await self._server.stop(grace=0.1)

    def offer(self, cluster: str, snapshot: Snapshot) -> None:
        """Serve this snapshot to the gateways of `cluster`."""
        if self._snapshots.get(cluster) != snapshot:
            self._snapshots[cluster] = snapshot
            self._wake(cluster)

    def withdraw(self, cluster: str) -> None:
        """Send the gateways of `cluster` nothing more; they keep their configuration."""
        self._snapshots.pop(cluster, None)

    def _wake(self, cluster: str) -> None:
        self._changed.pop(cluster, asyncio.Event()).set()

    # ---- the service; its methods' names are the protocol's

    async def StreamAggregatedResources(self, requests: AsyncIterator[Any], context: Any) -> None:
        """State of the world."""
        await self._converse(requests, context, delta=False)

    async def DeltaAggregatedResources(self, requests: AsyncIterator[Any], context: Any) -> None:
        """Incremental."""
        await self._converse(requests, context, delta=True)

    async def _converse(self, requests: AsyncIterator[Any], context: Any, *, delta: bool) -> None:
        first = await context.read()
        if first is grpc.aio.EOF:
            return
        node, cluster = first.node.id, first.node.cluster
        refusal = self._why_not(cluster, node, context)
        if refusal:
            log.warning(
                "gateway refused",
                node=node[:LONGEST_NAME],
                cluster=cluster[:LONGEST_NAME],
                cause=refusal[:LONGEST_ERROR],
            )
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, refusal)
        talk = _Talk(self, context, GatewayStatus(node=node, cluster=cluster, connected=True, since_s=self._now_s()))
        await talk.run(first, delta=delta)

    def _why_not(self, cluster: str, node: str, context: Any) -> str:
        if not cluster or not node:
            return "node.cluster must name the gateway's cluster and node.id the gateway"
        if max(len(cluster), len(node)) > LONGEST_NAME:
            return f"node.cluster and node.id have {LONGEST_NAME} characters at most"
        auth = context.auth_context()
        if auth.get("transport_security_type") != [b"ssl"]:
            return ""  # loopback, or the server had not started
        names = {one.decode(errors="replace") for one in auth.get("x509_subject_alternative_name", [])}
        if cluster not in names:
            return f"this certificate is not for gateways of {cluster}: its subject alternative names do not have it"
        return ""

    def snapshot_of(self, cluster: str) -> Snapshot | None:
        """The snapshot offered to a cluster's gateways; None while nothing is known."""
        return self._snapshots.get(cluster)

    def change_of(self, cluster: str) -> asyncio.Event:
        """An event that is set at the next offer to `cluster`."""
        return self._changed.setdefault(cluster, asyncio.Event())

    def heard(self, status: GatewayStatus) -> None:
        """Record a gateway's status."""
        self._on_status(status)

    def sent(self, type_url: str, resources: int) -> None:
        """Record a sent response."""
        self._on_sent(type_url, resources)


class _Talk:
    """One gateway on one stream."""

    def __init__(self, server: XdsServer, context: Any, status: GatewayStatus) -> None:
        self._server = server
        self._context = context
        self._status = status

    async def run(self, first: Any, *, delta: bool) -> None:
        """Until the gateway hangs up, or the server stops."""
        stream = Stream(delta=delta)
        read = _read_delta if delta else _read_state
        write = _write_delta if delta else _write_state
        self._server.heard(self._status)
        reading: asyncio.Task[Any] | None = None
        changing: asyncio.Task[Any] | None = None
        loop = asyncio.get_running_loop()
        try:
            message = first
            while message is not grpc.aio.EOF:
                if message is not None:
                    self._hear(stream, read(message))
                change = self._server.change_of(self._status.cluster)
                await self._send_all(stream, write)
                reading = reading or loop.create_task(self._context.read(), name="xds-read")
                changing = loop.create_task(change.wait(), name="xds-change")
                await asyncio.wait((reading, changing), return_when=asyncio.FIRST_COMPLETED)
                changing.cancel()
                message = None
                if reading.done():
                    message, reading = reading.result(), None
        finally:
            for task in (reading, changing):
                if task is not None:
                    task.cancel()
            self._status = GatewayStatus(
                node=self._status.node,
                cluster=self._status.cluster,
                connected=False,
                since_s=self._server._now_s(),
                accepted=self._status.accepted,
                refused=self._status.refused,
            )
            self._server.heard(self._status)

    def _hear(self, stream: Stream, request: Request) -> None:
        verdict = stream.hear(request)
        if verdict is not None:
            self._status = self._status.after(verdict)
            self._server.heard(self._status)

    async def _send_all(self, stream: Stream, write: Callable[[Response], Any]) -> None:
        snapshot = self._server.snapshot_of(self._status.cluster)
        while snapshot is not None and (response := stream.next(snapshot)) is not None:
            await self._context.write(write(response))
            self._server.sent(response.type_url, len(response.resources))
        status = self._status.refusing_only(stream.refusing())
        if status is not self._status:
            self._status = status
            self._server.heard(status)


def _read_state(message: Any) -> Request:
    return Request(
        type_url=message.type_url,
        nonce=message.response_nonce,
        error=_error(message),
        names=tuple(message.resource_names),
        version=message.version_info,
    )


def _read_delta(message: Any) -> Request:
    return Request(
        type_url=message.type_url,
        nonce=message.response_nonce,
        error=_error(message),
        names=tuple(message.resource_names_subscribe),
        dropped=tuple(message.resource_names_unsubscribe),
        held=dict(message.initial_resource_versions),
    )


def _error(message: Any) -> str:
    detail = message.error_detail
    if not message.HasField("error_detail"):
        return ""
    text = " ".join(str(detail.message or f"code {detail.code}").split())
    # Envoy may quote the whole resource; what is wrong with it stands before or after.
    return text if len(text) <= LONGEST_ERROR else f"{text[: LONGEST_ERROR // 2]} … {text[-LONGEST_ERROR // 2 :]}"


def _packed(one: Resource) -> any_pb2.Any:
    return any_pb2.Any(type_url=one.type_url, value=one.body)


def _write_state(response: Response) -> Any:
    return discovery_pb2.DiscoveryResponse(
        version_info=response.version,
        type_url=response.type_url,
        nonce=response.nonce,
        resources=[_packed(one) for one in response.resources],
    )


def _write_delta(response: Response) -> Any:
    return discovery_pb2.DeltaDiscoveryResponse(
        system_version_info=response.version,
        type_url=response.type_url,
        nonce=response.nonce,
        resources=[
            discovery_pb2.Resource(name=one.name, version=one.version, resource=_packed(one))
            for one in response.resources
        ],
        removed_resources=response.removed,
    )
