"""Applies traffic objects, and holds them to the order as `agents/kube/keeper.py` does.

It touches only objects with the agent's labels in the models' namespace. It asks which kinds are installed for each new
order, and once a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection
from typing import Any

import msgspec
import structlog

from agents.gateway import objects
from agents.kube.api import Api, ApiError
from agents.kube.keeper import Drifts, Keeper, Live
from agents.manifests import names
from federation.aiokit.clock import Clock
from federation.wire import messages

log = structlog.get_logger("agent")
MANAGER = "isochrone-agent-traffic"
"""Field manager. It differs from that of workloads, so that a name that both would use becomes a reported conflict."""


TRY_AGAIN_S = 600.0
ASK_AGAIN_S = 60.0
"""How often the installed kinds are read again without a new order."""
POOLS = (objects.POOL, objects.POOL_IMPORT)
PICKER, TIMEOUTS = "endpointPickerRef", "timeouts"
UNFIT = {
    PICKER: "InferencePool needs an endpoint picker here (its definition is older than 1.6), so Services are used",
    TIMEOUTS: "HTTPRoute has no timeouts here (Gateway API is older than 1.2): long answers may be cut",
}
LABEL = f"{names.TRAFFIC_LABEL}=true"


class _Resource(msgspec.Struct):
    name: str


class _Resources(msgspec.Struct):
    resources: list[_Resource] = []


class TrafficApplier:
    """Applies the traffic of one cluster. `missing` says which objects cannot be created, and why.

    `failed`: kind and name of an object -> the failure.
    """

    def __init__(self, api: Api, namespace: str, drifts: Drifts, clock: Clock) -> None:
        self._api = api
        self._namespace = namespace
        self._keeper = Keeper(api, MANAGER, LABEL, drifts, clock)
        self._held: set[tuple[objects.Kind, str]] = set()
        self._one_at_a_time = asyncio.Lock()
        self._deleted = 0
        self._clock = clock
        self._installed: list[objects.Kind] = []
        self._unfit: dict[str, str] = {}
        """Features that the installed definitions refuse -> their message. Forgotten after a while: they may be
        upgraded."""
        self._unfit_s = float("-inf")
        self._asked: messages.Traffic | None = None
        self._asked_s = 0.0
        self.missing: tuple[str, ...] = ()
        self.failed: dict[str, str] = {}

    @property
    def writes(self) -> int:
        """Requests that may have changed something."""
        return self._keeper.writes + self._deleted

    async def steer(self, traffic: messages.Traffic, *, left: Collection[str] = ()) -> None:
        """Make the cluster's objects match. Failures are recorded, and the next call tries again.

        Args: left: models whose changed objects stay as somebody changed them (`selfHeal: off`).
        """
        async with self._one_at_a_time:
            await self._steer(traffic, left)

    async def _steer(self, traffic: messages.Traffic, left: Collection[str]) -> None:
        try:
            if self._asked is not traffic or self._clock.monotonic_s() - self._asked_s >= ASK_AGAIN_S:
                self._installed = await self._find_installed()
                self._asked, self._asked_s = traffic, self._clock.monotonic_s()
        except (ApiError, msgspec.MsgspecError) as error:
            log.warning("traffic objects are left as they are: the cluster cannot be asked", cause=str(error))
            self.failed = {"traffic": f"the cluster cannot be asked: {error}"}
            return
        if self._clock.monotonic_s() - self._unfit_s >= TRY_AGAIN_S:
            self._unfit, self._unfit_s = {}, self._clock.monotonic_s()
        wanted = self._fitting(traffic)
        for text in sorted(set(wanted.missing) - set(self.missing)):
            log.warning("traffic: something is missing", cause=text)
        self.missing = wanted.missing
        self.failed = {}
        kept = {(kind, body["metadata"]["name"]) for kind, body in wanted.objects}
        try:
            live = await self._look({kind for kind, _ in kept | self._held})
        except (ApiError, msgspec.MsgspecError) as error:
            self.failed = {"traffic": f"what is there cannot be read: {error}"}
            return
        ordered = {(self._path(kind), name) for kind, name in kept}
        self._keeper.forget(lambda path, body: (path, body["metadata"]["name"]) not in ordered)
        unfit = len(self._unfit)
        for kind, body in wanted.objects:
            heal = body["metadata"]["labels"][names.MODEL_LABEL] not in left
            await self._guarded(self._settle(kind, body, live, heal=heal), (kind, body["metadata"]["name"]))
            if len(self._unfit) > unfit:
                await self._steer(traffic, left)  # before anything is written that stands on what was refused
                return
        for key in sorted(self._held - kept, key=lambda one: (one[0].kind, one[1])):
            if any(one.model for one in traffic.models):  # nothing named is no order to remove anything
                await self._guarded(self._delete(*key, live), key)

    def _fitting(self, traffic: messages.Traffic) -> objects.Wanted:
        """The objects, as far as the installed definitions take them."""
        fit = [kind for kind in self._installed if kind not in POOLS or PICKER not in self._unfit]
        wanted = objects.wanted(traffic, self._namespace, fit)
        made = [
            (kind, objects.without_timeouts(body) if kind == objects.HTTP_ROUTE and TIMEOUTS in self._unfit else body)
            for kind, body in wanted.objects
        ]
        told = tuple(f"{UNFIT[what]}: {said}" for what, said in sorted(self._unfit.items()))
        return objects.Wanted(objects=tuple(made), missing=(*wanted.missing, *told))

    def _is_unfit(self, kind: objects.Kind, error: ApiError) -> bool:
        """Whether an older definition refused a feature; the feature is left out from then on."""
        what = PICKER if kind in POOLS and error.status in (400, 422) and PICKER in error.message else ""
        if kind == objects.HTTP_ROUTE and TIMEOUTS in error.message and "not declared in schema" in error.message:
            what = TIMEOUTS
        if not what or what in self._unfit:
            return False
        self._unfit[what] = error.message[:200]
        return True

    async def _look(self, kinds: Collection[objects.Kind]) -> Live:
        found: Live = {}
        for kind in sorted(kinds, key=lambda one: one.plural):
            try:
                found.update(await self._keeper.look(self._path(kind), kind.api_version, kind.kind))
            except ApiError as error:
                if error.status != 404:  # uninstalled since it was held
                    raise
        return found

    async def _find_installed(self) -> list[objects.Kind]:
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
            if isinstance(error, ApiError) and self._is_unfit(key[0], error):
                return
            log.warning("not written", object=name, cause=str(error))
            self.failed[name] = str(error)

    async def _settle(self, kind: objects.Kind, body: dict[str, Any], live: Live, *, heal: bool) -> None:
        name, path = body["metadata"]["name"], self._path(kind)
        main = {key: value for key, value in body.items() if key != "status"}
        try:
            await self._keeper.settle(path, main, live, heal=heal)
        except ApiError as error:
            # A ServiceImport may be that of an installed implementation of multi-cluster Services: it is left to it.
            if error.status != 409 or kind != objects.IMPORT:
                raise
        if "status" in body:
            head = {key: main[key] for key in ("apiVersion", "kind")} | {"metadata": {"name": name}}
            await self._keeper.settle(path, {**head, "status": body["status"]}, live, heal=heal, part="status")
        self._held.add((kind, name))

    async def _delete(self, kind: objects.Kind, name: str, live: Live) -> None:
        path = self._path(kind)
        there = live.get((path, name))
        if there is not None:
            self._deleted += 1
            await self._api.delete(f"{path}/{name}", there["metadata"]["uid"])
        self._held.discard((kind, name))

    def _path(self, kind: objects.Kind) -> str:
        root = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
        return f"{root}/namespaces/{self._namespace}/{kind.plural}"
