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

from agents.kube.credentials import Access, Tokens
from federation.aiokit.clock import Clock

REQUEST_S = 15.0
PAGE = 200
"""Objects of one answer: what is in memory at once while a large cluster is listed."""
MAX_LINE_BYTES = 8 * 1024 * 1024
TRIES = 4
SILENCE_S = 150.0
CLOSING_S = 0.25
"""What aiohttp's documentation grants TLS connections to close after the session has."""
PASSING = (429, 500, 502, 503, 504)


class ApiError(Exception):
    """The API server refused, or could not be asked (`status` 0)."""

    def __init__(self, status: int, message: str, reason: str = "") -> None:
        super().__init__(f"{status} {message}" if status else message)
        self.status, self.message, self.reason = status, message, reason


class _Status(msgspec.Struct):
    message: str = ""
    reason: str = ""


class Api:
    """One API server."""

    def __init__(self, access: Access, *, clock: Clock) -> None:
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
        """One object or list. Raises: ApiError."""
        return await self._request("GET", _url(path, query))

    async def apply(self, path: str, body: Mapping[str, Any], manager: str) -> None:
        """Server-side apply, without force: what another manager owns is a conflict. Raises: ApiError."""
        await self._persist("PATCH", _url(path, {"fieldManager": manager}), msgspec.json.encode(body))

    async def delete(self, path: str, uid: str) -> None:
        """Delete exactly this object; gone already is done. Raises: ApiError."""
        body = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            await self._persist("DELETE", path, msgspec.json.encode(body))
        except ApiError as error:
            if error.status != 404:
                raise

    async def _persist(self, method: str, url: str, body: bytes) -> None:
        """Ask until answered, with a budget of tries."""
        kind = "application/apply-patch+yaml" if method == "PATCH" else "application/json"
        for number in range(TRIES):
            try:
                await self._request(method, url, body, kind)
                return
            except ApiError as error:
                if number == TRIES - 1 or (error.status and error.status not in PASSING):
                    raise
            await asyncio.sleep(0.2 * 2**number)

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
            method, self._access.server + url, data=body, headers=headers, timeout=timeout, allow_redirects=False
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
        raise ApiError(status, said.message or answer.reason or "refused", said.reason)


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
