"""Mirrors against a server that behaves as the API server documents ("API Concepts"): pages, bookmarks, 410, 404.

A mirror that misses one event would promise devices that are taken, for as long as the agent runs.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from agents.inventory.objects import Node
from agents.kube import mirror
from agents.kube.api import Api, ApiError
from agents.kube.credentials import ApiAccess
from agents.kube.mirror import Mirror
from federation.aiokit.clock import Clock

PATH = "/api/v1/nodes"


def node(name: str, version: int, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels, "resourceVersion": str(version)}}


class Server:
    """Serves `lists` (each of pages) and `watches` (each of events), in order, and notes what is asked."""

    def __init__(self, lists: list[list[list[Any]]], watches: list[list[dict[str, Any]]]) -> None:
        self.lists, self.watches = lists, watches
        self.asked: list[dict[str, str]] = []
        self.absent = False
        self._page = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(dict(request.query))
        if self.absent:
            return web.Response(status=404, text="404 page not found")
        if "watch" not in request.query:
            pages = self.lists[0]
            page = pages[self._page]
            self._page += 1
            more = f"page-{self._page}" if self._page < len(pages) else ""
            if not more:
                self.lists.pop(0)
                self._page = 0
            return web.json_response({"metadata": {"resourceVersion": "10", "continue": more}, "items": page})
        stream = web.StreamResponse()
        await stream.prepare(request)
        if not self.watches:
            await asyncio.sleep(60)
        for event in self.watches.pop(0):
            line = json.dumps(event).encode() + b"\n"
            for part in (line[:7], line[7:]):  # lines do not come in one piece
                await stream.write(part)
        return stream


@asynccontextmanager
async def running(server: Server) -> AsyncIterator[Mirror[Node, str]]:
    """A mirror of nodes that holds one label of each, following `server`."""
    application = web.Application()
    application.router.add_get(PATH, server.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    api = Api(ApiAccess(server=f"http://127.0.0.1:{port}", tls=None), clock=Clock())
    made: Mirror[Node, str] = Mirror(
        api,
        PATH,
        Node,
        lambda one: one.metadata.name,
        lambda one: (one.metadata.labels or {}).get("v"),
        lambda: None,
        rng=random.Random(1),
    )
    task = asyncio.get_running_loop().create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await api.close()
        await runner.cleanup()


async def until_holds(made: Mirror[Node, str], expected: list[str]) -> None:
    async with asyncio.timeout(10):
        while made.problem or sorted(made) != expected:  # noqa: ASYNC110  two conditions of another task
            await asyncio.sleep(0.01)


async def test_pages_then_changes_then_an_expired_version() -> None:
    """After a long watch the agent would report nodes that are gone, or miss new ones."""
    server = Server(
        lists=[
            [[node("a", 1, v="a1"), node("unlabelled", 2)], [node("b", 3, v="b1")]],
            [[node("a", 20, v="a3"), node("d", 21, v="d1")]],
        ],
        watches=[
            [
                {"type": "ADDED", "object": node("c", 11, v="c1")},
                {"type": "MODIFIED", "object": node("a", 12, v="a2")},
                {"type": "DELETED", "object": node("b", 13, v="b1")},
                {"type": "MODIFIED", "object": node("c", 14)},
                {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "17"}}},
            ],
            [{"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}],
        ],
    )
    async with running(server) as made:
        await until_holds(made, ["a3", "d1"])
    asked = [(one.get("continue"), one.get("resourceVersion"), one.get("limit")) for one in server.asked]
    assert asked[:4] == [(None, None, "200"), ("page-1", None, "200"), (None, "10", None), (None, "17", None)]
    assert asked[4] == (None, None, "200"), "an expired version is listed anew"


async def test_what_a_watch_missed_is_no_longer_held() -> None:
    """A node that went while nobody watched would be promised for ever."""
    server = Server(
        lists=[[[node("a", 1, v="a1"), node("b", 2, v="b1")]], [[node("b", 2, v="b1")]]],
        watches=[[{"type": "ERROR", "object": {"code": 410}}]],
    )
    async with running(server) as made:
        await until_holds(made, ["b1"])


async def test_a_kind_that_the_cluster_does_not_know_is_absent_and_no_fault() -> None:
    """A cluster without Dynamic Resource Allocation or Karpenter could not be reported."""
    server = Server(lists=[], watches=[])
    server.absent = True
    async with running(server) as made, asyncio.timeout(10):
        while not made.absent:  # noqa: ASYNC110  set by another task
            await asyncio.sleep(0.01)
        assert list(made) == []


async def test_a_line_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server gone wild would fill the agent's memory."""
    monkeypatch.setattr("agents.kube.api.MAX_LINE_BYTES", 100)
    server = Server(lists=[[[]]], watches=[[{"type": "ADDED", "object": node("x" * 500, 11, v="1")}]])
    async with running(server) as made, asyncio.timeout(10):
        while "longer than 100" not in made.problem:  # noqa: ASYNC110  set by another task
            await asyncio.sleep(0.01)


def test_a_refusal_shows_status_and_words() -> None:
    """A condition would say that a call failed and not why."""
    assert str(ApiError(403, "nodes is forbidden")) == "403 nodes is forbidden"
    assert mirror.WATCH_S < 600


async def test_a_server_that_is_busy_for_a_moment_is_asked_again() -> None:
    """Objects of a kind whose definition was just installed would stay unwritten until the next interval."""
    asked = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        if asked < 3:
            return web.json_response({"message": "storage is (re)initializing"}, status=429)
        return web.json_response({"metadata": {}, "items": []})

    app = web.Application()
    app.router.add_get("/things", answer)
    async with TestServer(app) as served:
        api = Api(ApiAccess(server=str(served.make_url("")).rstrip("/"), tls=None), clock=Clock())
        try:
            assert await api.items("/things") == []
        finally:
            await api.close()
    assert asked == 3
