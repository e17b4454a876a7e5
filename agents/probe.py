"""Round trips between clusters: a listener that accepts and closes, and how long connecting to a peer takes."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import statistics
from collections import defaultdict, deque
from contextlib import suppress

from federation.aiokit.clock import Clock
from federation.wire import messages

WINDOW = 20
"""Samples kept per peer; at one a report, the last few minutes."""
AT_ONCE = 16
TIMEOUT_S = 5.0
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?")
"""Of a host: no scheme, path, user or blank."""


def address_of(probe: str) -> tuple[str, int]:
    """Host and port of `host:port`, `[address]:port`; an empty host where nobody can be measured there."""
    host, _, port = probe.rpartition(":")
    if host.startswith("[") != host.endswith("]"):
        return "", 0
    host = host.removeprefix("[").removesuffix("]")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536):
        return "", 0
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # A name; `0` and `0.0` are addresses too, of whoever asks.
        is_name = _NAME.fullmatch(host) is not None and bool(host.strip(".0"))
        return (host, int(port)) if is_name else ("", 0)
    mapped = getattr(address, "ipv4_mapped", None) or address
    return ("", 0) if mapped.is_unspecified or mapped.is_multicast else (host, int(port))


class Probe:
    """Measures, and can be measured.

    Args: listen: `host:port` to accept on (port 0 takes any); None cannot be measured. advertise: what peers are told,
        when it differs (a load balancer in front).
    """

    def __init__(self, *, clock: Clock, listen: tuple[str, int] | None = None, advertise: str = "") -> None:
        self.endpoint = advertise if address_of(advertise)[0] else ""
        self._clock = clock
        self._listen = listen
        self._server: asyncio.Server | None = None
        self._samples: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=WINDOW))

    async def start(self) -> None:
        """Accept. Who listens on all addresses is advertised by none of them: a peer that connects to 0.0.0.0 measures
        itself.

        Raises: OSError when the port is taken.
        """
        if self._listen is None:
            return
        self._server = await asyncio.start_server(self._accept, *self._listen)
        host, port = self._server.sockets[0].getsockname()[:2]
        if not self.endpoint and not ipaddress.ip_address(host).is_unspecified:
            self.endpoint = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @staticmethod
    async def _accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    async def measure(self, peers: tuple[messages.PeerEndpoint, ...]) -> tuple[messages.PeerRtt, ...]:
        """One sample of each peer, and what the window says; peers that never answered are left out."""
        gate = asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(self._sample(peer, gate) for peer in peers))
        found = []
        for peer in peers:
            samples = sorted(self._samples[peer.cluster])
            if samples:
                found.append(
                    messages.PeerRtt(
                        cluster=peer.cluster,
                        rtt_ms_p50=round(statistics.median(samples), 3),
                        rtt_ms_p95=round(samples[min(len(samples) - 1, int(0.95 * len(samples)))], 3),
                        samples=len(samples),
                    )
                )
        return tuple(found)

    async def _sample(self, peer: messages.PeerEndpoint, gate: asyncio.Semaphore) -> None:
        """A TCP handshake takes one round trip."""
        host, port = address_of(peer.probe)
        if not host:
            return
        async with gate:
            begun_s = self._clock.monotonic_s()
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    _, writer = await asyncio.open_connection(host, port)
            except (OSError, TimeoutError):
                return
            self._samples[peer.cluster].append((self._clock.monotonic_s() - begun_s) * 1000.0)
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def close(self) -> None:
        """Stop accepting."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
