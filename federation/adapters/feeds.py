"""Reads price feeds from files and URLs, within bounds."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from federation.prices.formats import MAX_BYTES
from federation.prices.rows import FeedError

FETCH_S = 60.0
LINK_LOCAL = tuple(map(ipaddress.ip_network, ("169.254.0.0/16", "fe80::/10", "fd00:ec2::/32")))
"""Link-local networks, where clouds serve a machine its credentials: no price feed is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file's path or a URL. `provider` is that of rows that name none."""

    name: str
    provider: str
    location: str

    @property
    def is_url(self) -> bool:
        """Whether it is fetched by HTTP."""
        return "://" in self.location


def source_of(text: str) -> Source:
    """`[PROVIDER=]PATH` or `[PROVIDER=]URL`. Raises: ValueError, with what is expected."""
    head, is_named, rest = text.partition("=")
    provider, location = (head.lower(), rest) if is_named and head.replace("-", "").isalnum() else ("", text)
    if not location:
        raise ValueError(f"{text!r}: expected [PROVIDER=]FILE or [PROVIDER=]URL")
    if "://" in location:
        url = urlsplit(location)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"{text!r}: a URL of http or https is expected")
        if url.username or url.password:
            raise ValueError(f"{url.hostname}: a password in a URL is told to everybody who lists processes")
        stem = url.hostname
    else:
        stem = Path(location).stem
    return Source(
        name=f"{provider}-{stem}" if provider and provider != stem else stem, provider=provider, location=location
    )


class Feeds:
    """Reads feeds: files when they change, URLs when they are due."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, int, int]] = {}
        self._tags: dict[str, str] = {}

    async def fetch(self, source: Source) -> bytes | None:
        """The feed's bytes; None if nothing has changed. Raises: FeedError."""
        try:
            return await (self._asked(source) if source.is_url else asyncio.to_thread(self._file, source))
        except (OSError, aiohttp.ClientError, TimeoutError, ValueError) as error:
            if isinstance(error, FeedError):
                raise
            raise FeedError(f"{_place(source)}: {str(error) or type(error).__name__}") from error

    def _file(self, source: Source) -> bytes | None:
        path = Path(source.location)
        if not path.is_file():
            raise FeedError(f"{path}: no file is there")
        found = path.stat()
        mark = (found.st_mtime_ns, found.st_size, found.st_ino)
        if self._seen.get(source.name) == mark:
            return None
        if found.st_size > MAX_BYTES:
            raise FeedError(f"{path}: longer than {MAX_BYTES // 1024**2} MiB: give the part with accelerators")
        payload = path.read_bytes()
        self._seen[source.name] = mark
        return payload

    async def _asked(self, source: Source) -> bytes | None:
        host = urlsplit(source.location).hostname or ""
        with suppress(ValueError):
            _refuse_link_local(host, str(ipaddress.ip_address(host)))
        timeout = aiohttp.ClientTimeout(total=FETCH_S)
        connector = aiohttp.TCPConnector(resolver=_Resolver())
        headers = {"Accept": "*/*", "User-Agent": "isochrone-controller"}
        if tag := self._tags.get(source.name):
            headers["If-None-Match"] = tag
        async with (
            aiohttp.ClientSession(timeout=timeout, connector=connector) as session,
            session.get(source.location, headers=headers, allow_redirects=False) as answer,
        ):
            if answer.status == 304:
                return None
            if answer.status != 200:
                raise FeedError(f"{_place(source)} answered {answer.status} {answer.reason or ''}".rstrip())
            payload = bytearray()
            async for chunk in answer.content.iter_chunked(256 * 1024):
                payload += chunk
                if len(payload) > MAX_BYTES:
                    raise FeedError(f"{_place(source)}: longer than {MAX_BYTES // 1024**2} MiB")
            self._tags[source.name] = answer.headers.get("ETag", "")
            return bytes(payload)


class _Resolver(aiohttp.ThreadedResolver):
    """The system's name resolution without link-local addresses."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        found = await super().resolve(host, port, family)
        for one in found:
            _refuse_link_local(host, one["host"])
        return found


def _refuse_link_local(host: str, address: str) -> None:
    """Raises: OSError for a link-local address, in IPv4, IPv6, or one inside the other."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None) or found
    if any(mapped in network for network in LINK_LOCAL):
        raise OSError(f"{host} is {address}, a link-local address: no price feed is asked there")


def _place(source: Source) -> str:
    """The place without its query, which may hold a key."""
    url = urlsplit(source.location)
    return f"{url.scheme}://{url.netloc}{url.path}" if source.is_url else source.location
