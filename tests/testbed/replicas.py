"""HTTP servers on loopback that stand for a model's replicas: one port each, and ways to let them fail."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections import deque
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")
TIMEOUT_S = 20.0


def _held_port() -> socket.socket:
    """A socket that keeps a port for us and does not listen: who connects there is refused until a server is opened."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(("127.0.0.1", 0))
    return held


class Replicas:
    """The replicas of several clusters, in a thread of their own. Each answers with its cluster's name.

    `GET /stream/SILENT/COUNT` is answered as a model that thinks and then talks: nothing for so many seconds, then
    COUNT chunks, one a second.

    `counted` has (cluster, monotonic seconds) of every request that was sent to one, dead ones included, health checks
    left out.
    """

    def __init__(self, clusters: tuple[str, ...], *, per_cluster: int) -> None:
        self._held = [_held_port() for _ in range(len(clusters) * per_cluster)]
        ports = [held.getsockname()[1] for held in self._held]
        self.ports = {
            cluster: ports[number * per_cluster : (number + 1) * per_cluster] for number, cluster in enumerate(clusters)
        }
        self.counted: deque[tuple[str, float]] = deque(maxlen=1_000_000)
        self.error_share = dict.fromkeys(clusters, 0.0)
        """Part of requests that a cluster's replicas answer with 500."""
        self.dead: set[str] = set()
        """Clusters whose replicas cut off every connection, as what is left of a lost region does."""
        self.delay_s = dict.fromkeys(clusters, 0.0)
        self._rng = random.Random(0)
        self._servers: dict[tuple[str, int], asyncio.Server] = {}
        self._open: dict[tuple[str, int], set[asyncio.StreamWriter]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="replicas")

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.get_loop().run_forever()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            for cluster, port in list(self._servers):
                self.kill(cluster, port)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(TIMEOUT_S)
            for held in self._held:
                held.close()

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(TIMEOUT_S)

    def running(self, cluster: str) -> list[int]:
        """Ports that answer."""
        return [port for port in self.ports[cluster] if (cluster, port) in self._servers]

    def start(self, cluster: str, port: int) -> None:
        """Open one, if it is not."""
        if (cluster, port) not in self._servers:
            self._run(self._start(cluster, port))

    def kill(self, cluster: str, port: int) -> None:
        """End one as a crash does: what it was answering is cut off."""
        if (cluster, port) in self._servers:
            self._run(self._kill(cluster, port))

    def lose(self, cluster: str) -> None:
        """The region is gone: what was being answered is cut off, and so is whatever comes after."""
        self.dead.add(cluster)
        self._run(self._cut(cluster))

    async def _cut(self, cluster: str) -> None:
        for (name, _), writers in self._open.items():
            if name == cluster:
                for writer in list(writers):
                    writer.transport.abort()

    async def _start(self, cluster: str, port: int) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._answer(cluster, port, reader, writer)

        self._open[cluster, port] = set()
        self._servers[cluster, port] = await asyncio.start_server(serve, "127.0.0.1", port, reuse_port=True)

    async def _kill(self, cluster: str, port: int) -> None:
        self._servers.pop((cluster, port)).close()
        for writer in self._open.pop((cluster, port)):
            writer.transport.abort()

    async def _talk(self, writer: asyncio.StreamWriter, asked: list[bytes]) -> None:
        silent_s, count = map(int, asked)
        await asyncio.sleep(silent_s)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for number in range(count):
            line = b"data: %d\n\n" % number
            writer.write(b"%x\r\n%b\r\n" % (len(line), line))
            await writer.drain()
            await asyncio.sleep(1.0)
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _answer(
        self, cluster: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        opened = self._open.get((cluster, port))
        if opened is None:
            writer.transport.abort()
            return
        opened.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                checks = head.startswith(b"GET /health")
                if not checks:
                    self.counted.append((cluster, self._loop.time()))
                    if self.delay_s[cluster]:
                        await asyncio.sleep(self.delay_s[cluster])
                if cluster in self.dead:
                    writer.transport.abort()
                    return
                if head.startswith(b"GET /stream/"):
                    await self._talk(writer, head.split()[1].split(b"/")[2:])
                    continue
                failed = not checks and self._rng.random() < self.error_share[cluster]
                body = cluster.encode()
                status = b"500 Internal Server Error" if failed else b"200 OK"
                writer.write(b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            opened.discard(writer)
            writer.close()
