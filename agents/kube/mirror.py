"""A list of the objects of one kind, kept up to date by a watch. It stores only what `keep` returns for each object."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import msgspec
import structlog

from agents.kube.api import PAGE, Api, ApiError
from agents.kube.credentials import CredentialsError
from federation.aiokit.backoff import Backoff

log = structlog.get_logger("agent")
Decoded = TypeVar("Decoded")
Kept = TypeVar("Kept")
WATCH_S = 290.0
ABSENT_S = 300.0
"""The time until the next request for a kind that the cluster does not know."""


class _ListMeta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _WatchablePage(msgspec.Struct, Generic[Decoded]):
    metadata: _ListMeta
    items: list[Decoded] | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Versioned(msgspec.Struct):
    metadata: _ListMeta


class _WatchError(msgspec.Struct):
    code: int = 0
    message: str = ""


class Mirror(Generic[Decoded, Kept]):
    """One kind. `keep` returns the value to store for an object, or None to store nothing.

    `tried`: the first list was answered or refused. `problem`: why the mirror is incomplete. `absent`: the cluster does
    not know the kind. `forbidden`: the agent may not list it.
    """

    def __init__(
        self,
        api: Api,
        path: str,
        kind: type[Decoded],
        key: Callable[[Decoded], str],
        keep: Callable[[Decoded], Kept | None],
        changed: Callable[[], None],
        *,
        rng: random.Random,
        **query: str,
    ) -> None:
        self.path = path
        self.tried = False
        self.problem = "not listed yet"
        self.absent = False
        self.forbidden = False
        self._api, self._key, self._keep, self._changed, self._query = api, key, keep, changed, query
        self._backoff = Backoff(rng, base_s=0.5, cap_s=30.0)
        self._rng = rng
        self._items: dict[str, Kept] = {}
        self._pages: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_WatchablePage[kind])  # type: ignore[valid-type]
        self._objects: msgspec.json.Decoder[Decoded] = msgspec.json.Decoder(kind)
        self._events = msgspec.json.Decoder(_Event)

    def __iter__(self) -> Iterator[Kept]:
        return iter(self._items.values())

    def get(self, key: str) -> Kept | None:
        """The stored value of one object."""
        return self._items.get(key)

    async def run(self) -> None:
        """Stay up to date until cancelled."""
        while True:
            try:
                version = await self._list()
                self._backoff.reset()
                while version:
                    version = await self._watch(version)
                continue
            except ApiError as error:
                self.absent, self.forbidden = error.status == 404, error.status == 403
                self.problem = f"{self.path}: {error}"
            except (CredentialsError, msgspec.MsgspecError, OSError) as error:
                self.forbidden = False
                self.problem = f"{self.path}: {error}"
            self.tried = True
            if self.absent:
                self._items.clear()
                await asyncio.sleep(ABSENT_S)
            else:
                delay_s = self._backoff.next_s()
                log.info("cannot be watched", kind=self.path, cause=self.problem, retry_s=round(delay_s, 1))
                await asyncio.sleep(delay_s)

    async def _list(self) -> str:
        """List all objects, in pages. Returns the version to watch from."""
        found: dict[str, Kept] = {}
        more: dict[str, str] = {}
        while True:
            page = self._pages.decode(await self._api.get(self.path, limit=str(PAGE), **self._query, **more))
            for one in page.items or ():
                kept = self._keep(one)
                if kept is not None:
                    found[self._key(one)] = kept
            if not page.metadata.continue_:
                break
            more = {"continue": page.metadata.continue_}
        self.tried, self.absent, self.forbidden, self.problem = True, False, False, ""
        if found != self._items:
            self._items = found
            self._changed()
        return str(page.metadata.resource_version)

    async def _watch(self, version: str) -> str:
        """Follow changes until the server ends the watch. Returns the version to continue from; empty to list again."""
        # Not all at once after an API server's restart.
        timeout_s = WATCH_S * self._rng.uniform(0.8, 1.0)
        async for line in self._api.lines(self.path, timeout_s=timeout_s, resourceVersion=version, **self._query):
            event = self._events.decode(line)
            if event.type == "ERROR":
                refused = msgspec.json.decode(event.object, type=_WatchError)
                if refused.code == 410:
                    return ""
                raise ApiError(refused.code, refused.message)
            version = msgspec.json.decode(event.object, type=_Versioned).metadata.resource_version or version
            if event.type != "BOOKMARK":
                self._take(event)
        return version

    def _take(self, event: _Event) -> None:
        one = self._objects.decode(event.object)
        key = self._key(one)
        kept = self._keep(one) if event.type != "DELETED" else None
        if kept == self._items.get(key):
            return
        if kept is None:
            self._items.pop(key, None)
        else:
            self._items[key] = kept
        self._changed()
