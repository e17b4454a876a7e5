"""The API server over HTTP: lists in pages, watches line by line, server-side apply and delete. Nothing is kept.

Kubernetes "API Concepts" is the source: chunked lists, watch bookmarks, `410 Gone`, server-side apply, preconditions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec

from agents.kube.credentials import ApiAccess, Tokens
from federation.aiokit.clock import Clock

REQUEST_S = 15.0
PAGE = 200
"""Objects of one answer: what is in memory at once while a large cluster is listed."""
MAX_LINE_BYTES = 8 * 1024 * 1024
TRIES = 4
SILENCE_S = 150.0
CLOSING_S = 0.25
"""What aiohttp's documentation grants TLS connections to close after the session has."""
BUSY = 429
PASSING = (BUSY, 500, 502, 503, 504)


class ApiError(Exception):
    """The API server refused, or could not be asked (`status` 0)."""

    def __init__(self, status: int, message: str, reason: str = "", causes: tuple[Cause, ...] = ()) -> None:
        super().__init__(f"{status} {message}" if status else message)
        self.status, self.message, self.reason, self.causes = status, message, reason, causes


class Cause(msgspec.Struct, frozen=True):
    """One of a refusal's causes, as a StatusCause has it: which field, and what is wrong with it."""

    field: str = ""
    message: str = ""


class _Details(msgspec.Struct):
    causes: tuple[Cause, ...] | None = None


class _Status(msgspec.Struct):
    message: str = ""
    reason: str = ""
    details: _Details | None = None


class _PageMeta(msgspec.Struct):
    continue_: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct):
    metadata: _PageMeta
    items: list[dict[str, Any]] | None = None


class Api:
    """One API server."""

    def __init__(self, access: ApiAccess, *, clock: Clock) -> None:
        self._access = access
        self._clock = clock
        self._tokens = Tokens(access)
        connector = aiohttp.TCPConnector(
            limit=16, ssl=access.tls if access.tls is not None else False, keepalive_timeout=60
        )
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=True)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()
        await asyncio.sleep(CLOSING_S)

    async def get(self, path: str, **query: str) -> bytes:
        """One object or list. An API server that is busy, as with a definition that was just installed, is asked again.

        Raises: ApiError.
        """
        for number in range(TRIES):
            try:
                return await self._request("GET", _url(path, query))
            except ApiError as error:
                if error.status != BUSY or number == TRIES - 1:
                    raise
            await asyncio.sleep(0.2 * 2**number)
        raise AssertionError("the last try returns or raises")

    async def apply(self, path: str, body: Mapping[str, Any], manager: str, *, force: bool = False) -> dict[str, Any]:
        """Server-side apply; gives the object as stored. Without `force` what another manager owns is a conflict.

        Raises: ApiError, msgspec.MsgspecError.
        """
        query = {"fieldManager": manager, **({"force": "true"} if force else {})}
        stored = await self._persist("PATCH", _url(path, query), msgspec.json.encode(body))
        return msgspec.json.decode(stored, type=dict[str, Any])

    async def create(self, path: str, body: Mapping[str, Any]) -> None:
        """Make one object, with one try. Raises: ApiError."""
        await self._request("POST", path, msgspec.json.encode(body))

    async def delete(self, path: str, uid: str) -> None:
        """Delete exactly this object; gone already is done. Raises: ApiError."""
        body = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            await self._persist("DELETE", path, msgspec.json.encode(body))
        except ApiError as error:
            if error.status != 404:
                raise

    async def _persist(self, method: str, url: str, body: bytes) -> bytes:
        """Ask until answered, with a budget of tries."""
        kind = "application/apply-patch+yaml" if method == "PATCH" else "application/json"
        number = 0
        while True:
            try:
                return await self._request(method, url, body, kind)
            except ApiError as error:
                number += 1
                if number == TRIES or (error.status and error.status not in PASSING):
                    raise
            await asyncio.sleep(0.1 * 2**number)

    async def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        """All objects of one kind, page by page, as stored. Raises: ApiError, msgspec.MsgspecError."""
        found: list[dict[str, Any]] = []
        more: dict[str, str] = {}
        while True:
            page = msgspec.json.decode(await self.get(path, limit=str(PAGE), **query, **more), type=_Page)
            found += page.items or ()
            if not page.metadata.continue_:
                return found
            more = {"continue": page.metadata.continue_}

    async def _request(self, method: str, url: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
        async with self._answer(method, url, body, kind, aiohttp.ClientTimeout(total=REQUEST_S)) as answer:
            return await answer.read()

    async def lines(self, path: str, *, timeout_s: float, **query: str) -> AsyncIterator[bytes]:
        """The lines of a watch until the server ends it. Raises: ApiError."""
        url = _url(path, {**query, "watch": "1", "allowWatchBookmarks": "true", "timeoutSeconds": str(int(timeout_s))})
        # Bookmarks come about once a minute: a connection that says nothing for much longer is taken for dead.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_S, sock_read=SILENCE_S)
        async with self._answer("GET", url, None, "application/json", timeout) as answer:
            rest = bytearray()
            async for chunk in answer.content.iter_any():
                rest += chunk
                if len(rest) > MAX_LINE_BYTES:
                    raise ApiError(0, f"an event longer than {MAX_LINE_BYTES} bytes")
                *whole, last = bytes(rest).split(b"\n")
                rest = bytearray(last)
                for line in whole:
                    if line:
                        yield line

    def _answer(self, method: str, url: str, body: bytes | None, kind: str, timeout: aiohttp.ClientTimeout) -> _Answer:
        return _Answer(self, method, url, body, kind, timeout)

    async def open(
        self, method: str, url: str, body: bytes | None, kind: str, timeout: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """The answer to one request, once it is a good one. Raises: ApiError."""
        token = await self._tokens.current(self._clock.monotonic_s())
        headers = {"Accept": "application/json", "User-Agent": "isochrone-agent"}
        headers |= {"Authorization": f"Bearer {token}"} if token else {}
        headers |= {"Content-Type": kind} if body is not None else {}
        answer = await self._session.request(
            method,
            self._access.server + url,
            data=body,
            headers=headers,
            timeout=timeout,
            allow_redirects=False,
            server_hostname=self._access.server_name,
            proxy=self._access.proxy,
        )
        if answer.status < 300:
            return answer
        if answer.status == 401:
            self._tokens.forget()
        text = (await answer.content.read(64 * 1024)).decode(errors="replace")
        status = answer.status
        answer.release()
        try:
            said = msgspec.json.decode(text, type=_Status)
        except msgspec.MsgspecError:
            said = _Status(message=text[:200])
        causes = (said.details.causes or ()) if said.details is not None else ()
        raise ApiError(status, said.message or answer.reason or "refused", said.reason, causes)


class _Answer:
    """An open answer as a context; foreign errors become ours."""

    def __init__(self, api: Api, *request: Any) -> None:
        self._api, self._request = api, request

    async def __aenter__(self) -> aiohttp.ClientResponse:
        try:
            self._answer = await self._api.open(*self._request)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiError(0, f"API server: {error or type(error).__name__}") from error
        return self._answer

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, at: object) -> None:
        self._answer.close() if error is not None else self._answer.release()
        if isinstance(error, aiohttp.ClientError | TimeoutError | OSError):
            raise ApiError(0, f"API server: {error or type(error).__name__}") from error


def _url(path: str, query: Mapping[str, str]) -> str:
    return f"{path}?{urlencode(query)}" if query else path
