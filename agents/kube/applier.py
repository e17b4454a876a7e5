"""Carries out an order: server-side apply of objects that differ, and deletion of workloads that the order names for
it.

It runs for new orders and on a timer, and reads the objects each time. The agent may die after any call: the sequence
is such that a repetition completes it. It deletes only objects with the agent's labels and with a plan that is not
newer than the accepted one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import structlog

from agents.inventory.objects import Deployment
from agents.inventory.offers import Access
from agents.kube import replicas as facts
from agents.kube.api import Api, ApiError
from agents.kube.keeper import Keeper, Live
from agents.manifests import build, drift, names
from agents.manifests.build import ClusterSite, Object, Order
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
"""In the sequence of deletion: objects that would start replicas come first."""
OF_MODEL = ("Service", "NetworkPolicy", "ServiceAccount")
LABEL = f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY},!{names.TRAFFIC_LABEL}"
"""Selects the objects of an applier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A failure: the object, and the API server's message."""

    subject: str
    conflict: bool
    message: str


class Applier:
    """Applies orders to one namespace."""

    def __init__(self, api: Api, site: ClusterSite, keeper: Keeper) -> None:
        self._api, self._site, self._keeper = api, site, keeper

    async def carry_out(
        self,
        desired: messages.Desired,
        *,
        access: Mapping[messages.PoolKey, Access],
        ceilings: Mapping[messages.ModelPool, int],
    ) -> tuple[Trouble, ...]:
        """Carry out the whole order; the failure of one workload is returned and does not stop the others."""
        try:
            live = await self._look()
        except (ApiError, msgspec.MsgspecError) as error:
            why = (
                f"{without_rights(self._site.namespace)}: "
                if isinstance(error, ApiError) and error.status == 403
                else ""
            )
            text = f"{why}what is there cannot be read: {error}"
            return (Trouble(subject="cluster", conflict=False, message=text),)
        troubles: list[Trouble] = []
        needed = {one.model for one in desired.workloads if one.replicas}
        instances = {names.instance_name(one.model, one.pool) for one in desired.workloads if one.replicas}
        self._keeper.forget(lambda _, body: not _is_ordered(body, needed, instances))
        for workload in desired.workloads:
            subject = f"{workload.model} on {workload.pool.text}"
            try:
                if workload.replicas == 0:
                    last = workload.model not in needed
                    await self._remove(workload, (desired.epoch, desired.generation), live, last=last)
                    continue
                way = access.get(workload.pool)
                if way is None:
                    text = "no node offers such devices now; what runs is left as it is"
                    troubles.append(Trouble(subject=subject, conflict=False, message=text))
                    continue
                most = ceilings.get(workload.key, workload.replicas)
                await self._put(workload, way, most, f"{desired.epoch}.{desired.generation}", live)
            except ApiError as error:
                conflict = error.status == 409
                troubles.append(Trouble(subject=subject, conflict=conflict, message=_said(error)))
            except msgspec.MsgspecError as error:
                troubles.append(Trouble(subject=subject, conflict=False, message=f"unreadable answer: {error}"))
        return tuple(troubles)

    async def _look(self) -> Live:
        found = {}
        for kind, (group, _) in KINDS.items():
            try:
                found.update(await self._keeper.look(self._path(kind), group.split("/", 2)[2], kind))
            except ApiError as error:
                if error.status != 404:  # a kind that this cluster does not know
                    raise
        return found

    # ---- making

    async def _put(self, workload: messages.Workload, way: Access, most: int, plan: str, live: Live) -> None:
        made = live.get((self._path("Deployment"), names.instance_name(workload.model, workload.pool)))
        there = facts.of_deployment(msgspec.convert(made, Deployment)) if made is not None else None
        # Once there, an autoscaler stays: it owns the count, and without one nobody would set it.
        autoscaled = workload.burst_replicas > 0 or (there is not None and there.placed is not None)
        count = workload.replicas
        if autoscaled and there is not None:
            # What a busy cluster has added to the last plan, it keeps on top of this one.
            added = max(0, there.replicas - (there.placed if there.placed is not None else there.replicas))
            count = max(workload.replicas, min(workload.replicas + added, most))
        order = Order(
            workload=workload,
            access=way,
            site=self._site,
            plan=plan,
            replicas=count,
            most=most,
            autoscaled=autoscaled,
        )
        try:
            await self._settle_all(order, live)
        except ApiError as error:
            # An autoscaler has set the count before: it is left to it, within the bounds that it is given.
            counted = error.status == 409 and [one.field for one in error.causes] == [drift.REPLICAS]
            if not counted or not autoscaled or there is None:
                raise
            await self._settle_all(replace(order, replicas=there.replicas), live)

    async def _settle_all(self, order: Order, live: Live) -> None:
        for one in build.objects(order):
            await self._settle(one, live, heal=order.workload.self_heal)

    async def _settle(self, one: Object, live: Live, *, heal: bool) -> None:
        kind, name = one["kind"], one["metadata"]["name"]
        path = self._path(kind)
        try:
            await self._keeper.settle(path, one, live, heal=heal)
        except ApiError as error:
            if error.status == 404 and kind == "VerticalPodAutoscaler":
                return  # a cluster without them does without
            raise ApiError(error.status, f"{kind} {name}: {error.message}", error.reason, error.causes) from error

    def _path(self, kind: str) -> str:
        group, plural = KINDS[kind]
        return f"{group}/namespaces/{self._site.namespace}/{plural}"

    # ---- deleting

    async def _remove(self, workload: messages.Workload, accepted: tuple[int, int], live: Live, *, last: bool) -> None:
        """Delete one Deployment and its own objects; with `last` also the objects that all pools of the model share."""
        instance = names.instance_name(workload.model, workload.pool)
        deployment = live.get((self._path("Deployment"), instance))
        if deployment is not None and names.plan_of(deployment["metadata"].get("annotations")) > accepted:
            raise ApiError(0, f"Deployment {instance} bears a newer plan: it is not deleted")
        for kind in OF_INSTANCE:
            await self._delete(kind, live, names.INSTANCE_LABEL, instance)
        left = _of(live, self._path("Deployment"), names.MODEL_LABEL, workload.model)
        if left or not last:
            return  # another pool's replicas still need what the model has in common
        for kind in OF_MODEL:
            await self._delete(kind, live, names.MODEL_LABEL, workload.model)

    async def _delete(self, kind: str, live: Live, label: str, value: str) -> None:
        path = self._path(kind)
        for name in _of(live, path, label, value):
            metadata = live[path, name]["metadata"]
            if not metadata.get("deletionTimestamp"):
                try:
                    await self._api.delete(f"{path}/{name}", metadata["uid"])
                except ApiError as error:
                    raise ApiError(error.status, f"{kind}: {error.message}", error.reason) from error
            del live[path, name]


def _is_ordered(body: Mapping[str, Any], models: Collection[str], instances: Collection[str]) -> bool:
    labels = body["metadata"]["labels"]
    instance = labels.get(names.INSTANCE_LABEL)
    return instance in instances if instance is not None else labels[names.MODEL_LABEL] in models


def without_rights(namespace: str) -> str:
    """The cause, and the remedy for the owner, where the agent may not even list in the models' namespace."""
    return (
        f"namespace {namespace}, or the agent's Role or RoleBinding in it, was deleted; apply the agent's manifests "
        "(deploy/kustomize/agent) again and it goes on by itself"
    )


def _of(live: Live, path: str, label: str, value: str) -> list[str]:
    """Names of the objects of one kind that bear a label."""
    return sorted(
        name for (at, name), one in live.items() if at == path and one["metadata"].get("labels", {}).get(label) == value
    )


def _said(error: ApiError) -> str:
    """The API server's message; for a conflict it names the owner of the field."""
    if error.status == 403:
        return f"Forbidden: {error.message}"
    if error.status == 409:
        return f"Conflict: {error.message}"
    return error.message
