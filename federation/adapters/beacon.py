"""The beacon: pages tell how long their users' requests take to clusters. A door of its own, away from the API.

A page includes `/beacon.js`; its browser asks `GET /v1/beacon` what to measure, fetches a small resource of each named
cluster, and posts the round trips to `POST /v1/beacon`. Nothing that is sent is kept but (cell, cluster, milliseconds):
of the address only a keyed hash, in memory, for the minute in which senders are told apart. The key is drawn anew each
minute. Everything is bounded: who asks how often, how long a body is, how many pairs are collected.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from federation.aiokit import http
from federation.aiokit.allowance import Allowance
from federation.control.measuring import Target
from federation.state.measured import MOST_RTT_MS, Window

MOST_BODY_BYTES = 4096
WINDOW_S = 60.0
MOST_COLLECTED = 20_000
"""Pairs in one window."""
MOST_SAMPLES = 64
"""Of one pair in one window: senders beyond add nothing to its median."""
ALL_PER_S, ONE_PER_S = 500.0, 0.2
MOST_KNOWN = 20_000


class RoundTrip(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One measurement."""

    cluster: Annotated[str, Meta(min_length=1, max_length=63)]
    rtt_ms: Annotated[float, Meta(gt=0, le=MOST_RTT_MS)]


class Posted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a page posts: the cell of its users, and what it measured."""

    cell: Annotated[str, Meta(min_length=1, max_length=100)]
    rtts: Annotated[list[RoundTrip], Meta(min_length=1, max_length=8)]


class Collected:
    """The round trips of one window. `take` ends the window."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(16)
        self._rtts: dict[tuple[str, str], dict[bytes, float]] = defaultdict(dict)
        self.dropped = 0

    def sender(self, address: str) -> bytes:
        """Who it is, within this window alone."""
        return hashlib.blake2b(address.encode(), key=self._key, digest_size=8).digest()

    def add(self, sender: bytes, posted: Posted) -> None:
        """Of each sender the newest measurement of a pair counts."""
        for one in posted.rtts:
            pair = posted.cell, one.cluster
            if pair not in self._rtts and len(self._rtts) >= MOST_COLLECTED:
                self.dropped += 1
                continue
            found = self._rtts[pair]
            if sender in found or len(found) < MOST_SAMPLES:
                found[sender] = one.rtt_ms

    def take(self) -> tuple[Window, ...]:
        """What was collected, and a new key."""
        taken = tuple(
            Window(cell, cluster, tuple(found.values()), len(found))
            for (cell, cluster), found in sorted(self._rtts.items())
        )
        self._rtts.clear()
        self._key = secrets.token_bytes(16)
        return taken


class Beacon:
    """The application. Args: origins: of the pages that may use it; `targets`: (cell, or place in degrees) -> what to
    measure; is_proxied: a proxy of ours is in front, whose X-Forwarded-For says who asks."""

    def __init__(
        self,
        *,
        origins: Iterable[str],
        script: bytes,
        targets: Callable[[str, tuple[float, float] | None], tuple[str, Sequence[Target]]],
        now_s: Callable[[], float],
        is_proxied: bool = False,
    ) -> None:
        self._origins = frozenset(origins)
        self._script = script
        self._targets = targets
        self._now_s = now_s
        self._is_proxied = is_proxied
        self._all = Allowance(per_s=ALL_PER_S, most=ALL_PER_S)
        self._each = Allowance(per_s=ONE_PER_S, most=6.0, known=MOST_KNOWN)
        self.collected = Collected()

    def application(self) -> web.Application:
        """What is served. Each route is open to the named origins and to nobody else's pages."""
        app = web.Application(middlewares=[http.bounded(_full), self._guard], client_max_size=MOST_BODY_BYTES)
        app.add_routes(
            [
                web.get("/healthz", _health),
                web.get("/beacon.js", self._serve_script),
                web.get("/v1/beacon", self._what),
                web.post("/v1/beacon", self._take),
                web.options("/v1/beacon", _preflight),
            ]
        )
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: http.Handler) -> web.StreamResponse:
        origin = request.headers.get("Origin", "")
        if request.path == "/healthz" or (request.path == "/beacon.js" and not origin):
            return await handler(request)
        if origin not in self._origins:
            return web.Response(status=403, text="this page's origin is not one that beacons are taken from\n")
        headers = {"Access-Control-Allow-Origin": origin, "Vary": "Origin", "Cache-Control": "no-store"}
        try:
            response = await handler(request)
        except web.HTTPException as error:
            error.headers.update(headers)
            raise
        response.headers.update(headers)
        return response

    async def _serve_script(self, request: web.Request) -> web.Response:
        return web.Response(body=self._script, content_type="text/javascript")

    async def _what(self, request: web.Request) -> web.Response:
        cell, place = request.query.get("cell", "")[:100], None
        if not cell:
            try:
                place = float(request.query["lat"]), float(request.query["lon"])
            except (KeyError, ValueError):
                return web.Response(status=400, text="give cell, or lat and lon in degrees\n")
            if not (-90 <= place[0] <= 90 and -180 <= place[1] <= 180):
                return web.Response(status=400, text="lat is from -90 to 90, lon from -180 to 180\n")
        if not self._may(request):
            return _too_many()
        found, targets = self._targets(cell, place)
        answer = {"cell": found, "measure": [one._asdict() for one in targets]}
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    async def _take(self, request: web.Request) -> web.Response:
        if not self._may(request):
            return _too_many()
        try:
            posted = msgspec.json.decode(await request.read(), type=Posted)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return web.Response(status=400, text=f"{str(error)[:200]}\n")
        self.collected.add(self.collected.sender(self._address(request)), posted)
        return web.Response(status=204)

    def _address(self, request: web.Request) -> str:
        """Whose request it is: behind a proxy of ours the address that it added last."""
        told = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip() if self._is_proxied else ""
        return told[:64] or request.remote or ""

    def _may(self, request: web.Request) -> bool:
        now_s = self._now_s()
        return self._all.takes(b"", now_s) and self._each.takes(
            self.collected.sender(f"{request.method} {self._address(request)}"), now_s
        )


def _too_many() -> web.Response:
    return web.Response(status=429, text="too many from this address, or in all\n", headers={"Retry-After": "60"})


def _full(request: web.Request, is_own: bool) -> web.StreamResponse | None:
    return web.Response(status=429 if is_own else 503, text="busy\n", headers={"Retry-After": "60"})


async def _health(request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _preflight(request: web.Request) -> web.Response:
    headers = {"Access-Control-Allow-Methods": "GET, POST", "Access-Control-Allow-Headers": "Content-Type"}
    return web.Response(status=204, headers=headers)
