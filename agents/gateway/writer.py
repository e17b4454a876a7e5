"""Carries traffic objects into a cluster: server-side apply, only what differs from what was applied before.

It touches objects that bear our labels, in the models' namespace, and forces nothing: what another manager owns stays
as that one has it. Which kinds are installed is asked every time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import msgspec
import structlog

from agents.gateway import objects
from agents.inventory.objects import Meta
from agents.kube.api import Api, ApiError
from agents.manifests import names
from federation.wire import messages

log = structlog.get_logger("agent")
MANAGER = "isochrone-agent-traffic"
"""Field manager: another than that of workloads, so that a name that both would use is a conflict and is told."""


class _Resource(msgspec.Struct):
    name: str


class _Resources(msgspec.Struct):
    resources: list[_Resource] = []


class _Found(msgspec.Struct):
    metadata: Meta


class _Items(msgspec.Struct):
    items: list[_Found]


class Writer:
    """Of one cluster. `writes` counts requests that change something; `missing` says what cannot be made, and why.

    `failed`: kind and name of an object -> why it is not as it should be.
    """

    def __init__(self, api: Api, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self._applied: dict[tuple[objects.Kind, str], dict[str, Any]] = {}
        self._one_at_a_time = asyncio.Lock()
        self.writes = 0
        self.missing: tuple[str, ...] = ()
        self.failed: dict[str, str] = {}

    async def steer(self, traffic: messages.Traffic) -> None:
        """Make the cluster's objects say this. What fails is said, and tried again when this is called again."""
        async with self._one_at_a_time:
            await self._steer(traffic)

    async def _steer(self, traffic: messages.Traffic) -> None:
        try:
            installed = await self._installed()
        except (ApiError, msgspec.MsgspecError) as error:
            log.warning("traffic objects are left as they are: the cluster cannot be asked", cause=str(error))
            self.failed = {"traffic": f"the cluster cannot be asked: {error}"}
            return
        wanted = objects.wanted(traffic, self._namespace, installed)
        for text in sorted(set(wanted.missing) - set(self.missing)):
            log.warning("traffic: something is missing", cause=text)
        self.missing = wanted.missing
        self.failed = {}
        kept = set()
        for kind, body in wanted.objects:
            key = (kind, body["metadata"]["name"])
            kept.add(key)
            if self._applied.get(key) != body:
                await self._guarded(self._apply(kind, body), key)
        for key in sorted(self._applied.keys() - kept, key=lambda one: (one[0].kind, one[1])):
            if any(one.model for one in traffic.models):  # nothing named is no order to remove anything
                await self._guarded(self._delete(*key), key)

    async def _installed(self) -> list[objects.Kind]:
        found = []
        for kind in objects.KINDS:
            if kind in objects.BUILT_IN:
                continue
            try:
                raw = await self._api.get(f"/apis/{kind.group}/{kind.version}")
            except ApiError as error:
                if error.status == 404:
                    continue
                raise
            if any(one.name == kind.plural for one in msgspec.json.decode(raw, type=_Resources).resources):
                found.append(kind)
        return found

    async def _guarded(self, doing: Awaitable[None], key: tuple[objects.Kind, str]) -> None:
        try:
            await doing
        except (ApiError, msgspec.MsgspecError) as error:
            name = f"{key[0].kind}/{key[1]}"
            log.warning("not written", object=name, cause=str(error))
            self.failed[name] = str(error)

    async def _apply(self, kind: objects.Kind, body: dict[str, Any]) -> None:
        name = body["metadata"]["name"]
        status = body.get("status")
        main = {key: value for key, value in body.items() if key != "status"}
        self.writes += 1
        try:
            await self._api.apply(f"{self._path(kind)}/{name}", main, MANAGER)
        except ApiError as error:
            # A ServiceImport may be that of an installed implementation of multi-cluster Services: it is left to it.
            if error.status != 409 or kind != objects.IMPORT:
                raise
        if status is not None:
            head = {key: main[key] for key in ("apiVersion", "kind")} | {"metadata": {"name": name}}
            self.writes += 1
            await self._api.apply(f"{self._path(kind)}/{name}/status", {**head, "status": status}, MANAGER)
        self._applied[kind, name] = body

    async def _delete(self, kind: objects.Kind, name: str) -> None:
        raw = await self._api.get(
            self._path(kind), labelSelector=f"{names.TRAFFIC_LABEL}=true", fieldSelector=f"metadata.name={name}"
        )
        for one in msgspec.json.decode(raw, type=_Items).items:
            self.writes += 1
            await self._api.delete(f"{self._path(kind)}/{name}", one.metadata.uid)
        del self._applied[kind, name]

    def _path(self, kind: objects.Kind) -> str:
        root = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
        return f"{root}/namespaces/{self._namespace}/{kind.plural}"
