"""Carries traffic objects into a cluster: server-side apply, only what differs from what was applied before.

It touches objects that bear our labels, in the models' namespace. What another controller owns (a ServiceImport of an
installed multi-cluster Services implementation) is left to it. Which kinds are installed is asked every time.
"""

from __future__ import annotations

import json
import weakref
from typing import Any

import aiohttp
import structlog
from kubernetes.aio.client.exceptions import ApiException

from agents.gateway import objects
from federation.wire import messages

log = structlog.get_logger("agent")
MANAGER = "isochrone-agent"
TIMEOUT_S = 10
APPLY = "application/apply-patch+yaml"


class Writer:
    """Of one cluster. `writes` counts requests that change something; `missing` says what cannot be made, and why."""

    def __init__(self, api: Any, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self._applied: dict[tuple[objects.Kind, str], dict[str, Any]] = {}
        self.writes = 0
        self.missing: tuple[str, ...] = ()

    @classmethod
    def of(cls, owner: object, api: Any, namespace: str) -> Writer:
        """The one of a backend; made when it is asked for first."""
        return _writers.setdefault(owner, cls(api, namespace))

    async def steer(self, traffic: messages.Traffic) -> None:
        """Make the cluster's objects say this. What fails is said, and tried again with the next message."""
        try:
            installed = await self._installed()
        except (ApiException, aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("traffic objects are left as they are: the cluster cannot be asked", cause=str(error))
            return
        wanted = objects.wanted(traffic, self._namespace, installed)
        for text in sorted(set(wanted.missing) - set(self.missing)):
            log.warning("traffic: something is missing", cause=text)
        self.missing = wanted.missing
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
            path = f"/apis/{kind.group}/{kind.version}"
            try:
                answer = await self._call("GET", path)
            except ApiException as error:
                if error.status == 404:
                    continue
                raise
            if any(one["name"] == kind.plural for one in answer.get("resources", [])):
                found.append(kind)
        return found

    async def _guarded(self, doing: Any, key: tuple[objects.Kind, str]) -> None:
        try:
            await doing
        except ApiException as error:
            log.warning("not written", object=f"{key[0].kind}/{key[1]}", cause=f"{error.status} {error.reason}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("not written", object=f"{key[0].kind}/{key[1]}", cause=str(error))

    async def _apply(self, kind: objects.Kind, body: dict[str, Any]) -> None:
        name = body["metadata"]["name"]
        path = f"{self._path(kind)}/{name}?fieldManager={MANAGER}"
        status = body.get("status")
        main = {key: value for key, value in body.items() if key != "status"}
        # A ServiceImport may be another controller's: then it stays as that one has it.
        path += "" if kind == objects.IMPORT else "&force=true"
        self.writes += 1
        try:
            await self._call("PATCH", path, main)
        except ApiException as error:
            if error.status != 409 or kind != objects.IMPORT:
                raise
        if status is not None:
            head = {key: main[key] for key in ("apiVersion", "kind")} | {"metadata": {"name": name}}
            self.writes += 1
            await self._call(
                "PATCH",
                f"{self._path(kind)}/{name}/status?fieldManager={MANAGER}&force=true",
                {**head, "status": status},
            )
        self._applied[kind, name] = body

    async def _delete(self, kind: objects.Kind, name: str) -> None:
        self.writes += 1
        try:
            await self._call("DELETE", f"{self._path(kind)}/{name}")
        except ApiException as error:
            if error.status != 404:
                raise
        del self._applied[kind, name]

    def _path(self, kind: objects.Kind) -> str:
        root = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
        return f"{root}/namespaces/{self._namespace}/{kind.plural}"

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Accept": "application/json"} | ({"Content-Type": APPLY} if body is not None else {})
        asked = await self._api.param_serialize(
            method, path, header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        answer = await self._api.call_api(*asked, _request_timeout=TIMEOUT_S)
        payload = await answer.read()
        if not 200 <= answer.status < 300:
            raise ApiException(
                status=answer.status, reason=f"{answer.reason}: {payload.decode(errors='replace')[:300]}"
            )
        return json.loads(payload) if payload else {}


_writers: weakref.WeakKeyDictionary[object, Writer] = weakref.WeakKeyDictionary()
