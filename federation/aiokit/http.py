"""Serves HTTP within bounds: time to receive a request, time to send an answer, and the number of connections."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from aiohttp.typedefs import Middleware

from federation.aiokit.door import Door, Guest, Room

HEADERS_S = 20.0
"""The time for a request's headers to arrive, and the longest wait of a connection for its next request."""
HANDSHAKE_S = 10.0
BODY_S = 20.0
ANSWER_S = 120.0
"""The time for a client to take an answer."""
LINGER_S = 2.0
"""The time for the rest of an unwanted body."""
CHUNK_BYTES = 64 * 1024
"""The part of an answer that is copied for one reader at a time."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Connection(web.RequestHandler):
    """aiohttp's connection, which knows its guest and reports its end."""

    __slots__ = ("guest", "lost")

    def __init__(self, server: web.Server, guest: Guest, **settings: Any) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(server, loop=loop, **settings)
        self.guest = guest
        self.lost: asyncio.Future[None] = loop.create_future()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if not self.lost.done():
            self.lost.set_result(None)


class HttpSite:
    """Serves an application on one address; the application's outermost middleware is `bounded`."""

    def __init__(self, app: web.Application, *, room: Room, tls: ssl.SSLContext | None = None) -> None:
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        self._tls = tls
        self.door = Door("http", room, self._welcome)

    async def start(self, host: str, port: int) -> int:
        """Serve; returns the port. Raises: OSError when the port is not available."""
        await self._runner.setup()
        return await self.door.open(host, port)

    async def stop(self) -> None:
        """Stop; answers in progress have a second."""
        await self._runner.cleanup()
        await self.door.close()

    async def _welcome(self, connection: socket.socket, guest: Guest) -> None:
        server = self._runner.server
        if server is None:
            connection.close()
            return
        protocol = Connection(
            server, guest, keepalive_timeout=HEADERS_S, lingering_time=LINGER_S, access_log=None, tcp_keepalive=True
        )
        handshake = {"ssl_handshake_timeout": HANDSHAKE_S, "ssl_shutdown_timeout": LINGER_S} if self._tls else {}
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
            lambda: protocol, connection, ssl=self._tls, **handshake
        )
        try:
            await protocol.lost
        finally:
            transport.abort()


def bounded(full: Callable[[web.Request, bool], web.StreamResponse | None]) -> Middleware:
    """The outermost middleware: a request is busy until its answer is taken, for at most `ANSWER_S`.

    Args: full: the answer when all places are taken, called with the request and whether the caller's own address has
        too many connections; None where the request is served all the same.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        guest = getattr(request.protocol, "guest", None)
        if not isinstance(guest, Guest):
            return await handler(request)
        guest.busy()
        try:
            response = full(request, guest.full == "peer") if guest.full else None
            if response is None:
                response = await handler(request)
            if guest.full:
                response.force_close()
            await _send(request, response)
            return response
        finally:
            guest.idle()

    return middleware


async def _send(request: web.Request, response: web.StreamResponse) -> None:
    try:
        async with asyncio.timeout(ANSWER_S):
            await response.prepare(request)
            await response.write_eof()
    except ConnectionError:
        pass  # who went away needs no answer; aiohttp finds it out once more, and ends the connection
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()


class Shared(Payload):
    """Bytes that many readers receive: each has a chunk of them in its buffer, never a copy of the whole."""

    _autoclose = True

    def __init__(self, value: bytes, content_type: str) -> None:
        super().__init__(value, content_type=content_type)
        self._size = len(value)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return bytes(self._value).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        await write(writer, self._value)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        await write(writer, self._value if content_length is None else self._value[:content_length])


async def write(writer: AbstractStreamWriter | web.StreamResponse, value: bytes | memoryview) -> None:
    """Write at the reader's pace."""
    view = memoryview(value)
    for start in range(0, len(view), CHUNK_BYTES):
        await writer.write(view[start : start + CHUNK_BYTES])
