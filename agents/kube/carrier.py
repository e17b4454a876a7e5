"""Carrying out a desired state: server-side apply of what is wanted, deletion of what is named for deletion.

Every call may be the last before the agent dies: the order is such that doing it all again completes it, and nothing is
deleted that does not bear our labels and a plan that is not newer than the accepted one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec
import structlog

from agents.inventory.objects import Meta
from agents.inventory.offers import Access
from agents.kube.api import Api, ApiError
from agents.kube.replicas import DeploymentFacts
from agents.manifests import build, names
from agents.manifests.build import Object, Order, Site
from federation.wire import messages

log = structlog.get_logger("agent")
KINDS = {
    "ServiceAccount": ("/api/v1", "serviceaccounts"),
    "Service": ("/api/v1", "services"),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
    "ResourceClaimTemplate": ("/apis/resource.k8s.io/v1", "resourceclaimtemplates"),
    "Deployment": ("/apis/apps/v1", "deployments"),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets"),
    "HorizontalPodAutoscaler": ("/apis/autoscaling/v2", "horizontalpodautoscalers"),
    "VerticalPodAutoscaler": ("/apis/autoscaling.k8s.io/v1", "verticalpodautoscalers"),
}
OF_INSTANCE = (
    "HorizontalPodAutoscaler",
    "VerticalPodAutoscaler",
    "Deployment",
    "PodDisruptionBudget",
    "ResourceClaimTemplate",
)
"""In the order of deletion: what would start replicas goes before them."""
OF_MODEL = ("Service", "NetworkPolicy", "ServiceAccount")
CONFLICT_WAIT_S = 0.5


class _Found(msgspec.Struct):
    metadata: Meta


class _Items(msgspec.Struct):
    items: list[_Found]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """What could not be done: the object, and what the API server said."""

    subject: str
    conflict: bool
    message: str


class Carrier:
    """Applies to one namespace. Args: live: the Deployment of that name as last seen, or None."""

    def __init__(self, api: Api, site: Site, live: Callable[[str], DeploymentFacts | None]) -> None:
        self._api, self._site, self._live = api, site, live

    async def carry_out(
        self,
        desired: messages.Desired,
        *,
        access: Mapping[messages.PoolKey, Access],
        ceilings: Mapping[tuple[str, messages.PoolKey], int],
    ) -> tuple[Trouble, ...]:
        """Do all of it; what fails for one workload is told, and the others go on."""
        troubles: list[Trouble] = []
        for workload in desired.workloads:
            subject = f"{workload.model} on {workload.pool.text}"
            try:
                if workload.replicas == 0:
                    await self._remove(workload, (desired.epoch, desired.generation))
                    continue
                way = access.get(workload.pool)
                if way is None:
                    text = "no node offers such devices now; what runs is left as it is"
                    troubles.append(Trouble(subject=subject, conflict=False, message=text))
                    continue
                most = ceilings.get((workload.model, workload.pool), workload.replicas)
                await self._put(workload, way, most, f"{desired.epoch}.{desired.generation}")
            except ApiError as error:
                conflict = error.status == 409
                troubles.append(Trouble(subject=subject, conflict=conflict, message=_said(error)))
        return tuple(troubles)

    # ---- making

    async def _put(self, workload: messages.Workload, way: Access, most: int, plan: str) -> None:
        for yielding in (False, True):
            try:
                for one in self._objects(workload, way, most, plan, yielding=yielding):
                    await self._apply(one)
                return
            except ApiError as error:
                # An autoscaler has set the count before: it is left to it, within the bounds that it is given.
                counted = error.status == 409 and ".spec.replicas" in error.message
                if yielding or not counted or not workload.burst_replicas:
                    raise
            await asyncio.sleep(CONFLICT_WAIT_S)

    def _objects(
        self, workload: messages.Workload, way: Access, most: int, plan: str, *, yielding: bool
    ) -> tuple[Object, ...]:
        live = self._live(names.instance_name(workload.model, workload.pool))
        # Once there, an autoscaler stays: it owns the count, and without one nobody would set it.
        autoscaled = workload.burst_replicas > 0 or (live is not None and live.placed is not None)
        replicas = workload.replicas
        if autoscaled and live is not None:
            # What a busy cluster has added to the last plan, it keeps on top of this one.
            added = max(0, live.replicas - (live.placed if live.placed is not None else live.replicas))
            replicas = live.replicas if yielding else max(workload.replicas, min(workload.replicas + added, most))
        order = Order(
            workload=workload,
            access=way,
            site=self._site,
            plan=plan,
            replicas=replicas,
            most=most,
            autoscaled=autoscaled,
        )
        return build.objects(order)

    async def _apply(self, one: Object) -> None:
        kind, name = one["kind"], one["metadata"]["name"]
        try:
            await self._api.apply(f"{self._path(kind)}/{name}", one, names.MANAGER)
        except ApiError as error:
            if error.status == 404 and kind == "VerticalPodAutoscaler":
                return  # a cluster without them does without
            raise ApiError(error.status, f"{kind} {name}: {error.message}", error.reason) from error

    def _path(self, kind: str) -> str:
        group, plural = KINDS[kind]
        return f"{group}/namespaces/{self._site.namespace}/{plural}"

    # ---- deleting

    async def _remove(self, workload: messages.Workload, accepted: tuple[int, int]) -> None:
        instance = names.instance_name(workload.model, workload.pool)
        ours = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}"
        for one in await self._list("Deployment", f"{ours},{names.INSTANCE_LABEL}={instance}"):
            if names.plan_of(one.annotations) > accepted:
                raise ApiError(0, f"Deployment {one.name} bears a newer plan: it is not deleted")
        for kind in OF_INSTANCE:
            for one in await self._list(kind, f"{ours},{names.INSTANCE_LABEL}={instance}"):
                await self._api.delete(f"{self._path(kind)}/{one.name}", one.uid)
        if await self._list("Deployment", f"{ours},{names.MODEL_LABEL}={workload.model}"):
            return  # another pool's replicas still need what the model has in common
        for kind in OF_MODEL:
            for one in await self._list(kind, f"{ours},{names.MODEL_LABEL}={workload.model},!{names.TRAFFIC_LABEL}"):
                await self._api.delete(f"{self._path(kind)}/{one.name}", one.uid)

    async def _list(self, kind: str, selector: str) -> list[Meta]:
        try:
            raw = await self._api.get(self._path(kind), labelSelector=selector)
        except ApiError as error:
            if error.status == 404:
                return []  # a kind that this cluster does not know
            raise ApiError(error.status, f"{kind}: {error.message}", error.reason) from error
        return [one.metadata for one in msgspec.json.decode(raw, type=_Items).items]


def _said(error: ApiError) -> str:
    """The API server's own words; a conflict's name who owns what."""
    if error.status == 403:
        return f"Forbidden: {error.message}"
    if error.status == 409:
        return f"Conflict: {error.message}"
    return error.message
