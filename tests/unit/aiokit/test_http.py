"""HTTP within bounds, over real sockets: who is slow, idle or too many keeps nobody else out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web

from federation.aiokit import http
from federation.aiokit.door import TOLD, Room

Answer = tuple[int, dict[str, str], bytes]
LARGE = b"x" * (32 * 1024 * 1024)


def full(request: web.Request, is_own: bool) -> web.StreamResponse | None:
    if request.path == "/health":
        return None
    return web.json_response({"own": is_own}, status=429 if is_own else 503)


async def hold(request: web.Request) -> web.Response:
    await asyncio.sleep(30)
    return web.Response()


async def large(request: web.Request) -> web.Response:
    return web.Response(body=http.Shared(LARGE, "text/plain"))


@contextlib.asynccontextmanager
async def serving(room: Room, tls: ssl.SSLContext | None = None) -> AsyncIterator[http.HttpSite]:
    app = web.Application(middlewares=[http.bounded(full)])
    app.router.add_get("/", ok)
    app.router.add_get("/health", ok)
    app.router.add_get("/hold", hold)
    app.router.add_get("/large", large)
    site = http.HttpSite(app, room=room, tls=tls)
    site.port = await site.start("127.0.0.1", 0)  # type: ignore[attr-defined]
    try:
        yield site
    finally:
        await site.stop()


async def ok(request: web.Request) -> web.Response:
    return web.Response(text="ok")


async def opened(
    site: http.HttpSite, sent: bytes = b"", peer: str = "127.0.0.1"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port, local_addr=(peer, 0))  # type: ignore[attr-defined]
    writer.write(sent)
    await asyncio.sleep(0)
    return reader, writer


async def asked(site: http.HttpSite, path: str, peer: str = "127.0.0.1") -> tuple[int, bytes]:
    reader, writer = await opened(site, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode(), peer)
    async with asyncio.timeout(5):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), body


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  sockets have no event
            await asyncio.sleep(0.01)


async def test_half_open_requests_keep_nobody_out() -> None:
    """Anyone could make the API deaf by opening connections and sending half a line."""
    async with serving(Room(all=20, per_peer=20)) as site:
        halves = [await opened(site, b"GET / HTTP/1.1\r\nHost:") for _ in range(60)]
        assert await asked(site, "/") == (200, b"ok")
        assert site.door.count <= 20
        assert site.door.gave_way >= 40
        assert site.door.refused == 0
        for _, writer in halves:
            writer.close()


async def test_when_all_are_at_work_it_is_said_and_health_is_told() -> None:
    """A full controller would look like a dead one, and be restarted."""
    async with serving(Room(all=8, per_peer=6)) as site:
        held = [await opened(site, b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(6)]
        await until(lambda: site.door.count == 6)
        await asyncio.sleep(0.05)
        assert await asked(site, "/") == (429, json.dumps({"own": True}).encode())
        assert await asked(site, "/", "127.0.0.2") == (200, b"ok")
        held += [await opened(site, b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n", "127.0.0.2") for _ in range(2)]
        await until(lambda: site.door.count == 8)
        await asyncio.sleep(0.05)
        assert await asked(site, "/", "127.0.0.3") == (503, json.dumps({"own": False}).encode())
        assert await asked(site, "/health") == (200, b"ok")
        idle = [await opened(site, peer="127.0.0.3") for _ in range(2 * TOLD)]
        assert await asked(site, "/health") == (200, b"ok")
        for _, writer in (*held, *idle):
            writer.close()
        await until(lambda: site.door.count == 0)
        assert await asked(site, "/") == (200, b"ok")


async def test_headers_that_do_not_come_end_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections of those who went away without a word would stay for ever."""
    monkeypatch.setattr(http, "HEADERS_S", 0.2)
    async with serving(Room(all=20, per_peer=20)) as site:
        silent, quiet = await opened(site)
        slow, writer = await opened(site, b"GET / HTTP/1.1\r\nHost: ")
        async with asyncio.timeout(3):
            while not slow.at_eof():
                writer.write(b"x")
                await asyncio.sleep(0.05)
                with contextlib.suppress(ConnectionError, TimeoutError):
                    await asyncio.wait_for(slow.read(1), 0.01)
            assert await silent.read() == b""
        for one in (quiet, writer):
            one.close()
        await until(lambda: site.door.count == 0)


async def test_who_does_not_read_holds_a_chunk_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps on slow lines would hold a copy of the world each."""
    monkeypatch.setattr(http, "ANSWER_S", 0.3)
    async with serving(Room(all=20, per_peer=20)) as site:
        buffered: list[int] = []
        write = http.Connection.pause_writing

        def noted(self: http.Connection) -> None:
            assert self.transport is not None
            buffered.append(self.transport.get_write_buffer_size())
            write(self)

        monkeypatch.setattr(http.Connection, "pause_writing", noted)
        _, writer = await opened(site, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await until(lambda: bool(buffered))
        assert max(buffered) <= 4 * http.CHUNK_BYTES
        await until(lambda: site.door.count == 0)
        writer.close()


async def test_a_large_answer_arrives_whole() -> None:
    """The map of a large fleet would get half a document."""
    async with serving(Room(all=20, per_peer=20)) as site:
        assert await asked(site, "/large") == (200, LARGE)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
async def test_half_a_handshake_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With TLS the flood is before the first request: connections that never shake hands would be counted by nobody."""
    monkeypatch.setattr(http, "HANDSHAKE_S", 0.5)
    context = await asyncio.to_thread(certified, tmp_path)
    trusting = ssl.create_default_context(cafile=str(tmp_path / "crt"))
    async with serving(Room(all=10, per_peer=10), context) as site:
        halves = [await opened(site, b"\x16\x03\x01") for _ in range(40)]
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port, ssl=trusting)  # type: ignore[attr-defined]
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(5):
            assert (await reader.read()).endswith(b"ok")
        assert site.door.count <= 10
        await until(lambda: site.door.count == 0)
        for _, one in (*halves, (reader, writer)):
            one.close()


def certified(directory: Path) -> ssl.SSLContext:
    """What to serve with: a certificate of 127.0.0.1, signed by itself."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key", "-out", "crt"]
    command += ["-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True, cwd=directory)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(directory / "crt", directory / "key")
    return context
