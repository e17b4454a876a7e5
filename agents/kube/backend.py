"""The backend: mirrors of what matters, read into a report; a desired state, carried out."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import structlog

from agents import limits as local
from agents.backend import BackendError, Observation
from agents.demand import DemandFile
from agents.gateway.writer import Writer
from agents.inventory import growth, slices, usage
from agents.inventory.objects import Claim, ClaimStatus, Deployment, Node, NodePool, Pod, Slice
from agents.inventory.offers import condition
from agents.inventory.pools import MAX_CONDITIONS, Inventory, NodeFacts, facts, inventory
from agents.kube import credentials, replicas
from agents.kube.api import Api, ApiError
from agents.kube.carrier import LABEL, Carrier, Trouble, without_rights
from agents.kube.keeper import Drifts, Keeper
from agents.kube.mirror import Mirror
from agents.manifests import names
from agents.manifests.build import Site
from agents.probe import Probe
from federation.aiokit.clock import Clock
from federation.wire import messages

log = structlog.get_logger("agent")
FIRST_SYNC_S = 60.0
GROWTH_S = 60.0
"""How often autoscalers are asked: they think in minutes."""
REFUSED_S = 600.0
"""How long a pod that a kubelet would not start tells why replicas are missing: it stays there for days."""
AUTOSCALER_STATUS = "/api/v1/namespaces/kube-system/configmaps/cluster-autoscaler-status"
DEVICES = "/apis/resource.k8s.io"
NODE_POOLS = "/apis/karpenter.sh/v1/nodepools"


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeSettings:
    """How the cluster is reached, and what its owner allows. `kubeconfig` None uses the pod's own service account."""

    kubeconfig: Path | None = None
    namespace: str = "isochrone-models"
    limits: local.Limits = local.NONE


class _ConfigMap(msgspec.Struct):
    data: dict[str, str] | None = None


class _Version(msgspec.Struct, rename="camel"):
    git_version: str = ""


class _GroupVersion(msgspec.Struct):
    version: str = ""


class _Group(msgspec.Struct):
    versions: list[_GroupVersion] = []


class _NodePools(msgspec.Struct):
    items: list[NodePool]


class KubeBackend:
    """A real cluster."""

    def __init__(
        self, settings: KubeSettings, *, probe: Probe, demand: DemandFile, clock: Clock, rng: random.Random
    ) -> None:
        self.changed = asyncio.Event()
        self.limits = settings.limits
        self.namespace = settings.namespace
        self._settings = settings
        self._probe = probe
        self._demand = demand
        self._clock = clock
        self._rng = rng
        self._watchers: list[asyncio.Task[None]] = []
        self._shared: dict[replicas.PodFacts, replicas.PodFacts] = {}
        self._troubles: tuple[Trouble, ...] = ()
        self._ordered: tuple[messages.Workload, ...] = ()
        self._growth: tuple[messages.Growth, ...] = ()
        self._growth_conditions: tuple[messages.Condition, ...] = ()
        self._growth_s = float("-inf")
        self._traffic: messages.Traffic | None = None
        self._left: frozenset[str] = frozenset()
        self._seen_specs: dict[str, tuple[str, int]] = {}
        self.touched = False

    async def start(self) -> None:
        try:
            access = await credentials.load(self._settings.kubeconfig)
        except credentials.CredentialsError as error:
            raise BackendError(str(error)) from error
        self._api = Api(access, clock=self._clock)
        namespace = self._settings.namespace
        self._nodes = self._mirror("/api/v1/nodes", Node, lambda one: one.metadata.name, self._keep_node, self._quiet)
        self._pods = self._mirror(
            "/api/v1/pods",
            Pod,
            lambda one: one.metadata.uid,
            self._keep_pod,
            self._quiet,
            # Pods that have ended hold nothing, and there may be many of them.
            fieldSelector="status.phase!=Succeeded,status.phase!=Failed",
        )
        self._refused = self._mirror(
            f"/api/v1/namespaces/{namespace}/pods",
            Pod,
            lambda one: one.metadata.uid,
            replicas.of_failed,
            self._quiet,
            fieldSelector="status.phase=Failed",
            labelSelector=f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}",
        )
        self._slices = self._mirror(
            "/apis/resource.k8s.io/v1/resourceslices", Slice, lambda one: one.metadata.name, _same, self._quiet
        )
        self._claims = self._mirror(
            "/apis/resource.k8s.io/v1/resourceclaims", Claim, lambda one: one.metadata.uid, _allocated, self._quiet
        )
        self._deployments = self._mirror(
            f"/apis/apps/v1/namespaces/{namespace}/deployments",
            Deployment,
            lambda one: one.metadata.name,
            replicas.of_deployment,
            self._deployments_changed,
            labelSelector=f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}",
        )
        site = Site(
            namespace=namespace,
            gateways=self.limits.gateways,
            model_store=self.limits.destinations(),
            dns=self.limits.resolvers(),
            tolerated=self.limits.tolerated_taints,
            spot_labels=self.limits.spot_labels,
        )
        self._drifts = Drifts(self._api, namespace, self._clock)
        keeper = Keeper(self._api, names.MANAGER, LABEL, self._drifts, self._clock)
        self._carrier = Carrier(self._api, site, keeper)
        self._writer = Writer(self._api, namespace, self._drifts, self._clock)
        await self._probe.start()
        loop = asyncio.get_running_loop()
        self._mirrors: tuple[Mirror[Any, Any], ...] = (
            self._nodes,
            self._pods,
            self._refused,
            self._deployments,
            self._slices,
            self._claims,
        )
        self._watchers = [loop.create_task(one.run(), name=f"agent-watch-{one.path}") for one in self._mirrors]
        await self._first_sync()

    async def _first_sync(self) -> None:
        """Wait a moment for the first lists; an API server that is away is no reason not to start."""
        try:
            async with asyncio.timeout(self._clock.machine_s(FIRST_SYNC_S)):
                while any(one.problem == "not listed yet" for one in self._mirrors):  # noqa: ASYNC110  five conditions
                    await asyncio.sleep(0.02)
        except TimeoutError:
            log.warning("the cluster cannot be read yet", cause=self._mirrors[0].problem)

    def _mirror(
        self,
        path: str,
        kind: type[Any],
        key: Callable[[Any], str],
        keep: Callable[[Any], Any],
        changed: Callable[[], None],
        **query: str,
    ) -> Mirror[Any, Any]:
        return Mirror(self._api, path, kind, key, keep, changed, rng=self._rng, **query)

    def _quiet(self) -> None:
        """A change that the next report on its interval says soon enough."""

    def _deployments_changed(self) -> None:
        """A status is worth a report; a Deployment that is gone, or says something else, a look at everything."""
        specs = {one.name: (one.uid, one.spec_version) for one in self._deployments}
        if specs != self._seen_specs:
            self._seen_specs, self.touched = specs, True
        self.changed.set()

    def _keep_node(self, node: Node) -> NodeFacts:
        limits = self.limits
        made = facts(
            node,
            tolerated=limits.tolerated_taints,
            spot_labels=limits.spot_labels,
            provisioning_s=growth.provisioning_s(node),
        )
        if made.unusable != (self._nodes.get(made.name) or made).unusable:
            self.changed.set()  # a device that is lost, or is about to be, is worth a report at once
        return made

    def _keep_pod(self, pod: Pod) -> replicas.PodFacts | None:
        made = replicas.of_pod(pod, self._settings.namespace, self._shared)
        before = self._pods.get(pod.metadata.uid)
        if (made.endpoint if made else None) != (before.endpoint if before else None):
            self.changed.set()  # gateways are to know at once who answers
        return made

    async def close(self) -> None:
        for task in self._watchers:
            task.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        await self._probe.close()
        if hasattr(self, "_api"):
            await self._api.close()

    # ---- reading

    async def observe(self) -> Observation:
        for one in (self._nodes, self._pods, self._refused, self._deployments):
            if one.problem and not (one.forbidden and one is self._deployments):
                raise BackendError(one.problem)
        for one in (self._slices, self._claims):
            if one.problem and not one.absent:
                raise BackendError(one.problem)
        try:
            # Mirrors of a server that is gone look like mirrors of one that is quiet.
            version = msgspec.json.decode(await self._api.get("/version"), type=_Version).git_version
        except ApiError as error:
            raise BackendError(str(error)) from error
        await self._look_rarely()
        found = self._inventory()
        deployments = self._deployments_seen()
        conditions = [
            *self._told(),
            *replicas.updates(deployments, self._pods),
            *found.conditions,
            *self._growth_conditions,
        ]
        return Observation(
            pools=found.pools,
            nodes=found.unwell,
            replicas=replicas.report(deployments, self._pods, self._lately_refused()),
            endpoints=replicas.endpoints(self._pods),
            kubernetes_version=version[:60],
            growth=self._growth,
            conditions=tuple(conditions[:MAX_CONDITIONS]),
        )

    def _deployments_seen(self) -> tuple[replicas.DeploymentFacts, ...]:
        """Our Deployments; where they may not be read, what was ordered, as far as pods say that it is ready."""
        if not self._deployments.forbidden:
            return tuple(self._deployments)
        return replicas.unread(self._ordered, self._pods, self._forbidden())

    def _forbidden(self) -> str:
        """Why our Deployments cannot be read though the cluster can, and what its owner does; or nothing."""
        if not self._deployments.forbidden:
            return ""
        return f"{without_rights(self.namespace)} ({self._deployments.problem})"

    def _inventory(self) -> Inventory:
        nodes = [one for one in self._nodes if one.offers or one.conditions or not self._slices.absent]
        wanted = {one.name for one in nodes}
        used = usage.by_node((pod.node, pod.use) for pod in self._pods if pod.node in wanted)
        return inventory(nodes, used, dynamic=self._slices, claims=self._claims)

    def _lately_refused(self) -> list[replicas.FailedPod]:
        since = datetime.fromtimestamp(self._clock.wall_s() - REFUSED_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return [one for one in self._refused if one.made_at >= since]

    def _told(self) -> tuple[messages.Condition, ...]:
        """What could not be carried out, for as long as it is so, and what somebody changed."""
        forbidden = self._forbidden()
        return (
            *((condition("Forbidden", f"namespace/{self.namespace}", forbidden),) if forbidden else ()),
            *self._demand.conditions(),
            *self._drifts.conditions(),
            *(
                condition("Conflict" if one.conflict else "NotCarriedOut", f"model/{one.subject}", one.message)
                for one in self._troubles
            ),
            *(condition("TrafficNotWritten", name, cause) for name, cause in sorted(self._writer.failed.items())),
            *(condition("TrafficKindMissing", "cluster", text) for text in self._writer.missing),
        )

    async def _look_rarely(self) -> None:
        """At what changes slowly: autoscalers, and devices in a version of the API that is not read."""
        if self._clock.monotonic_s() - self._growth_s < GROWTH_S:
            return
        self._growth_s = self._clock.monotonic_s()
        nodes = list(self._nodes)
        found: list[messages.Growth] = []
        conditions: list[messages.Condition] = []
        for look in (self._cluster_autoscaler, self._karpenter, self._older_devices):
            try:
                some, told = await look(nodes)
            except ApiError as error:
                if error.status not in (403, 404):  # no such autoscaler, or none of our business
                    log.info("autoscalers and devices cannot be asked for", cause=str(error))
                continue
            except msgspec.MsgspecError as error:
                told, some = (condition("BadAutoscalerStatus", "cluster", str(error)),), ()
            found += some
            conditions += told
        self._growth, self._growth_conditions = tuple(found[:512]), tuple(conditions)

    async def _cluster_autoscaler(self, nodes: list[NodeFacts]) -> growth.Found:
        status = msgspec.json.decode(await self._api.get(AUTOSCALER_STATUS), type=_ConfigMap)
        return growth.cluster_autoscaler((status.data or {}).get("status", ""), nodes, self._clock.wall_s())

    async def _karpenter(self, nodes: list[NodeFacts]) -> growth.Found:
        pools = msgspec.json.decode(await self._api.get(NODE_POOLS, limit="256"), type=_NodePools)
        return growth.karpenter(pools.items, nodes)

    async def _older_devices(self, nodes: list[NodeFacts]) -> growth.Found:
        """Whether there are devices in a version of the API that is not read; without any there is no such group."""
        if not self._slices.absent:
            return (), ()
        group = msgspec.json.decode(await self._api.get(DEVICES), type=_Group)
        return (), slices.unread(one.version for one in group.versions)

    async def fence(self) -> tuple[int, int]:
        if self._deployments.problem:
            raise BackendError(self._forbidden() or self._deployments.problem)
        return max((one.plan for one in self._deployments), default=(0, 0))

    async def measure(self, peers: tuple[messages.PeerEndpoint, ...]) -> tuple[messages.PeerRtt, ...]:
        return await self._probe.measure(peers)

    def demand(self) -> tuple[messages.DemandSample, ...]:
        return self._demand.read()

    def probe(self) -> str:
        return self._probe.endpoint

    # ---- writing

    async def apply(self, desired: messages.Desired) -> str:
        self._ordered = tuple(one for one in desired.workloads if one.replicas)
        problem = self._forbidden()
        problem = problem or next((one.problem for one in (self._nodes, self._deployments) if one.problem), "")
        if problem:
            return f"the cluster cannot be read: {problem}"
        found = self._inventory()
        before = self._troubles
        self._left = frozenset(one.model for one in desired.workloads if not one.self_heal)
        self._troubles = await self._carrier.carry_out(
            desired, access=found.access, ceilings=local.ceilings(self.limits, desired, found.pools)
        )
        if self._troubles != before:
            self.changed.set()
        return "; ".join(f"{one.subject}: {one.message}" for one in self._troubles)

    async def steer(self, traffic: messages.Traffic) -> None:
        self._traffic = traffic
        await self._writer.steer(traffic, left=self._left)

    async def keep(self, desired: messages.Desired | None) -> None:
        self.touched = False
        told = self._drifts.conditions()
        if desired is not None:
            await self.apply(desired)
        if self._traffic is not None:
            await self.steer(self._traffic)
        if self._drifts.conditions() != told:
            self.changed.set()


def _same(one: Slice) -> Slice:
    return one


def _allocated(claim: Claim) -> Claim | None:
    """A claim that holds devices; of the others nothing is kept."""
    if claim.status.allocation is None:
        return None
    return Claim(metadata=type(claim.metadata)(), status=ClaimStatus(allocation=claim.status.allocation))
