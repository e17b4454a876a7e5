"""PowerDNS's remote backend over HTTP, beside PowerDNS: answers from the newest route snapshot, fetched or remembered.

It keeps the last snapshot, on disk too, and checks every front door. Names therefore resolve, and avoid failed front
doors, while the controller is gone. It listens on loopback only, because PowerDNS cannot authenticate.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import aiohttp
import msgspec
import structlog
from aiohttp import web

from federation.aiokit.address import is_loopback
from federation.traffic import dns
from federation.traffic.snapshot import Index, RouteSnapshot

log = structlog.get_logger("dns")
WAIT_S = 30.0
RETRY_S = 2.0
CHECK_S, CHECK_TIMEOUT_S, SICK_AFTER = 2.0, 1.0, 2


class InsecureDns(ValueError):
    """The backend would be served beyond this machine. The message says which options to give."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsSettings:
    """One backend. `server` is the controller's URL; with `state_path` None nothing is remembered over a restart."""

    zone: dns.Zone
    server: str
    token: str
    ca_file: str | None = None
    places: dns.Places = field(default_factory=dns.Places)
    host: str = "127.0.0.1"
    port: int = 8481
    state_path: Path | None = None


class DnsBackend:
    """Serves PowerDNS. `run` follows the controller and checks front doors, for ever."""

    def __init__(self, settings: DnsSettings) -> None:
        self._settings = settings
        self._index = Index(RouteSnapshot())
        self._sick: frozenset[str] = frozenset()
        self._misses: dict[str, int] = {}
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self) -> None:
        """Read the remembered snapshot, then serve. Raises: InsecureDns, OSError."""
        settings = self._settings
        if not is_loopback(settings.host):
            raise InsecureDns(f"the backend is for PowerDNS on this machine: listen on 127.0.0.1, not {settings.host}")
        await asyncio.to_thread(self._remember)
        app = web.Application()
        app.router.add_get("/dns/lookup/{name}/{kind}", self._lookup)
        app.router.add_get("/dns/getAllDomainMetadata/{name}", self._metadata)
        app.router.add_get("/dns/getDomainMetadata/{name}/{kind}", self._metadata)
        app.router.add_get("/dns/getDomainInfo/{name}", self._info)
        app.router.add_get("/dns/getAllDomains", self._domains)
        app.router.add_get("/healthz", self._health)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, settings.host, settings.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop serving."""
        if self._runner is not None:
            await self._runner.cleanup()

    def _remember(self) -> None:
        path = self._settings.state_path
        if path is None or not path.exists():
            return
        try:
            self._index = Index(msgspec.json.decode(path.read_bytes(), type=RouteSnapshot))
        except (msgspec.DecodeError, OSError) as error:
            log.warning("the remembered routes cannot be read; waiting for the controller", cause=str(error))

    # ---- following

    async def follow(self) -> None:
        """Follow every change of routes for ever; without an answer the held snapshot stays."""
        url = f"{self._settings.server}/v1/route/snapshot"
        headers = {"Authorization": f"Bearer {self._settings.token}"}
        timeout = aiohttp.ClientTimeout(total=WAIT_S + 10)
        trust = ssl.create_default_context(cafile=self._settings.ca_file)
        connector = aiohttp.TCPConnector(ssl=trust)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as client:
            while True:
                version = self._index.snapshot.version
                given = headers | ({"If-None-Match": f'"{version}"'} if version else {})
                try:
                    async with client.get(url, params={"wait": str(WAIT_S)}, headers=given) as answer:
                        if answer.status == 200:
                            await self._take(await answer.read())
                        elif answer.status != 304:
                            log.warning("the controller refused; routes are kept", status=answer.status)
                            await asyncio.sleep(RETRY_S)
                except (aiohttp.ClientError, TimeoutError) as error:
                    log.info("no controller; routes are kept", cause=str(error))
                    await asyncio.sleep(RETRY_S)

    async def _take(self, body: bytes) -> None:
        try:
            snapshot = msgspec.json.decode(body, type=RouteSnapshot)
        except msgspec.DecodeError as error:
            log.warning("the routes cannot be read; those before are kept", cause=str(error))
            await asyncio.sleep(RETRY_S)
            return
        self._index = Index(snapshot)
        if self._settings.state_path is not None:
            try:
                await asyncio.to_thread(_write, self._settings.state_path, body)
            except OSError as error:
                log.warning("the routes are not remembered", cause=str(error))

    async def check(self) -> None:
        """Check every front door for ever."""
        while True:
            doors = {one.name: (one.address, one.port) for one in self._index.snapshot.clusters if one.address}
            answers = await asyncio.gather(*(_is_there(*door) for door in doors.values()))
            self._misses = {
                name: 0 if there else self._misses.get(name, 0) + 1 for name, there in zip(doors, answers, strict=True)
            }
            sick = frozenset(name for name, misses in self._misses.items() if misses >= SICK_AFTER)
            if sick != self._sick:
                log.warning("front doors that do not answer", clusters=sorted(sick))
            self._sick = sick
            await asyncio.sleep(CHECK_S)

    # ---- PowerDNS

    async def _lookup(self, request: web.Request) -> web.Response:
        name, kind = unquote(request.match_info["name"]), request.match_info["kind"]
        records = dns.answer(
            self._settings.zone, self._index, self._settings.places, name, kind, _client(request.headers), self._sick
        )
        return _result([_row(record) for record in records] or False)

    async def _metadata(self, request: web.Request) -> web.Response:
        return _result({} if "kind" not in request.match_info else [])

    async def _info(self, request: web.Request) -> web.Response:
        mine = unquote(request.match_info["name"]).rstrip(".").lower() == self._settings.zone.name
        return _result(self._domain() if mine else False)

    async def _domains(self, request: web.Request) -> web.Response:
        return _result([self._domain()])

    def _domain(self) -> dict[str, object]:
        return {"id": 1, "zone": f"{self._settings.zone.name}.", "kind": "native", "serial": 1}

    async def _health(self, request: web.Request) -> web.Response:
        known = bool(self._index.snapshot.version)
        return web.Response(text="ok\n" if known else "no routes are known yet\n", status=200 if known else 503)


def _result(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode({"result": value}), content_type="application/json")


def _row(record: dns.Record) -> dict[str, object]:
    return {
        "qname": f"{record.name}.",
        "qtype": record.kind,
        "content": record.content,
        "ttl": record.ttl_s,
        "auth": True,
        "domain_id": 1,
        "scopeMask": record.scope,
    }


def _client(headers: Mapping[str, str]) -> dns.Network | None:
    """The client's subnet as PowerDNS reports it; otherwise the resolver's address."""
    for name in ("X-RemoteBackend-real-remote", "X-RemoteBackend-remote"):
        with contextlib.suppress(ValueError):
            return ipaddress.ip_network(headers.get(name, ""), strict=False)
    return None


async def _is_there(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def _write(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_bytes(body)
    temporary.replace(path)
