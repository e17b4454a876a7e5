"""The Kubernetes backend: it reads mirrors into a report, and carries out orders."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from agents import limits as local
from agents.backend import BackendError, Observation
from agents.demand import DemandFile
from agents.inventory import growth, usage
from agents.inventory.objects import Claim, ClaimStatus, Deployment, Node, Pod, Slice
from agents.inventory.offers import condition
from agents.inventory.pools import MAX_CONDITIONS, Inventory, NodeFacts, facts, inventory
from agents.kube import credentials, endpoints, replicas
from agents.kube.api import Api
from agents.kube.applier import LABEL, Applier, Trouble, without_rights
from agents.kube.keeper import Drifts, Keeper
from agents.kube.mirror import Mirror
from agents.kube.pollers import Liveness, SlowFacts
from agents.kube.traffic import TrafficApplier
from agents.manifests import names
from agents.manifests.build import GATEWAY_LABEL, ClusterSite
from agents.probe import Probe
from federation.aiokit.clock import Clock
from federation.wire import messages

log = structlog.get_logger("agent")
FIRST_SYNC_S = 60.0
REFUSED_S = 600.0
"""For this long, a pod that a kubelet refused explains missing replicas: the pod itself stays for days."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeSettings:
    """Access to the cluster, and the limits of its owner. `kubeconfig` None uses the pod's own service account."""

    kubeconfig: Path | None = None
    namespace: str = "isochrone-models"
    limits: local.Limits = local.NONE


class KubeBackend:
    """A real cluster, watched from `connect` to `close`."""

    def __init__(
        self, settings: KubeSettings, api: Api, *, probe: Probe, demand: DemandFile, clock: Clock, rng: random.Random
    ) -> None:
        """Use `connect`, which also starts the tasks that keep the mirrors up to date."""
        self.changed = asyncio.Event()
        self.limits = settings.limits
        self.namespace = settings.namespace
        self.touched = False
        self._api, self._probe, self._demand, self._clock, self._rng = api, probe, demand, clock, rng
        self._tasks: list[asyncio.Task[None]] = []
        self._shared: dict[replicas.PodFacts, replicas.PodFacts] = {}
        self._troubles: tuple[Trouble, ...] = ()
        self._ordered: tuple[messages.Workload, ...] = ()
        self._traffic: messages.Traffic | None = None
        self._left: frozenset[str] = frozenset()
        self._seen_specs: dict[str, tuple[str, int]] = {}
        namespace, ours = settings.namespace, f"{names.MANAGED_BY_LABEL}={names.MANAGED_BY}"
        self._nodes: Mirror[Node, NodeFacts] = self._mirror(
            "/api/v1/nodes", Node, lambda node: node.metadata.name, self._keep_node, self._quiet
        )
        self._pods: Mirror[Pod, replicas.PodFacts] = self._mirror(
            "/api/v1/pods",
            Pod,
            lambda pod: pod.metadata.uid,
            self._keep_pod,
            self._quiet,
            # Pods that have ended hold nothing, and there may be many of them.
            fieldSelector="status.phase!=Succeeded,status.phase!=Failed",
        )
        self._refused: Mirror[Pod, replicas.FailedPod] = self._mirror(
            f"/api/v1/namespaces/{namespace}/pods",
            Pod,
            lambda pod: pod.metadata.uid,
            replicas.of_failed,
            self._quiet,
            fieldSelector="status.phase=Failed",
            labelSelector=ours,
        )
        self._gateways: Mirror[Pod, str] = self._mirror(
            "/api/v1/pods",
            Pod,
            lambda pod: pod.metadata.uid,
            endpoints.statistics_of,
            self._quiet,
            labelSelector=f"{GATEWAY_LABEL}=true",
        )
        self._slices: Mirror[Slice, Slice] = self._mirror(
            "/apis/resource.k8s.io/v1/resourceslices", Slice, lambda found: found.metadata.name, _same, self._quiet
        )
        self._claims: Mirror[Claim, Claim] = self._mirror(
            "/apis/resource.k8s.io/v1/resourceclaims", Claim, lambda claim: claim.metadata.uid, _allocated, self._quiet
        )
        self._deployments: Mirror[Deployment, replicas.DeploymentFacts] = self._mirror(
            f"/apis/apps/v1/namespaces/{namespace}/deployments",
            Deployment,
            lambda deployment: deployment.metadata.name,
            replicas.of_deployment,
            self._deployments_changed,
            labelSelector=ours,
        )
        self._mirrors: tuple[Mirror[Any, Any], ...] = (
            self._nodes,
            self._pods,
            self._refused,
            self._gateways,
            self._deployments,
            self._slices,
            self._claims,
        )
        self._optional: tuple[Mirror[Any, Any], ...] = (self._slices, self._claims)
        """Kinds that an older cluster may not know."""
        self._liveness = Liveness(api, clock)
        self._slow = SlowFacts(
            api,
            clock,
            nodes=lambda: None if self._nodes.problem else tuple(self._nodes),
            has_slices=lambda: not self._slices.absent,
        )
        self._drifts = Drifts(api, namespace, clock)
        self._applier = Applier(api, _site(settings), Keeper(api, names.MANAGER, LABEL, self._drifts, clock))
        self._traffic_applier = TrafficApplier(api, namespace, self._drifts, clock)

    @classmethod
    async def connect(
        cls, settings: KubeSettings, *, probe: Probe, demand: DemandFile, clock: Clock, rng: random.Random
    ) -> KubeBackend:
        """Start the watches, and wait for the first lists. Raises: BackendError when the cluster cannot be reached at
        all.

        `probe` is started here, and closed with the backend.
        """
        try:
            access = await credentials.load(settings.kubeconfig)
        except credentials.CredentialsError as error:
            raise BackendError(str(error)) from error
        async with AsyncExitStack() as undone:
            api = Api(access, clock=clock)
            undone.push_async_callback(api.close)
            backend = cls(settings, api, probe=probe, demand=demand, clock=clock, rng=rng)
            undone.push_async_callback(backend._end_tasks)
            await probe.start()
            undone.push_async_callback(probe.close)
            await backend._begin()
            undone.pop_all()
        return backend

    async def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        self._tasks += [loop.create_task(one.run(), name=f"agent-watch-{one.path}") for one in self._mirrors]
        await self._first_sync()
        await self._liveness.ask()
        await self._slow.ask()
        self._tasks += [
            loop.create_task(self._liveness.run(), name="agent-liveness"),
            loop.create_task(self._slow.run(), name="agent-slow-facts"),
        ]

    async def _first_sync(self) -> None:
        """Wait a moment for the first lists; the agent also starts without an API server."""
        try:
            async with asyncio.timeout(self._clock.machine_s(FIRST_SYNC_S)):
                while not all(one.tried for one in self._mirrors):  # noqa: ASYNC110  six conditions
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
        """A change that can wait for the next report."""

    def _deployments_changed(self) -> None:
        """A new status is worth a report; a deleted or changed Deployment is worth a check of all objects."""
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
        made = replicas.of_pod(pod, self.namespace, self._shared)
        before = self._pods.get(pod.metadata.uid)
        if (made.endpoint if made else None) != (before.endpoint if before else None):
            self.changed.set()  # gateways are to know at once who answers
        return made

    async def close(self) -> None:
        await self._end_tasks()
        await self._probe.close()
        await self._api.close()

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- reading

    def observe(self) -> Observation:
        for mirror in self._mirrors:
            known = (mirror is self._deployments and mirror.forbidden) or (mirror in self._optional and mirror.absent)
            if mirror.problem and not known:
                raise BackendError(mirror.problem)
        if self._liveness.problem:
            raise BackendError(self._liveness.problem)
        found = self._inventory()
        deployments = self._deployments_seen()
        conditions = [
            *self._told(),
            *replicas.updates(deployments, self._pods),
            *found.conditions,
            *self._slow.conditions,
        ]
        return Observation(
            pools=found.pools,
            nodes=found.unwell,
            replicas=replicas.report(deployments, self._pods, self._lately_refused()),
            endpoints=replicas.endpoints(self._pods),
            kubernetes_version=self._liveness.version[:60],
            growth=self._slow.growth,
            gateways=tuple(sorted(self._gateways)),
            conditions=tuple(conditions[:MAX_CONDITIONS]),
        )

    def _deployments_seen(self) -> tuple[replicas.DeploymentFacts, ...]:
        """The agent's Deployments; where it may not read them, the ordered workloads, as far as pods are ready."""
        if not self._deployments.forbidden:
            return tuple(self._deployments)
        return replicas.unread(self._ordered, self._pods, self._forbidden())

    def _forbidden(self) -> str:
        """Why the agent cannot read its Deployments though it can read the cluster, and the remedy; or empty."""
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
        """Failures of orders while they last, and changes by others."""
        forbidden = self._forbidden()
        return (
            *((condition("Forbidden", f"namespace/{self.namespace}", forbidden),) if forbidden else ()),
            *self._demand.conditions(),
            *self._drifts.conditions(),
            *(
                condition("Conflict" if one.conflict else "NotCarriedOut", f"model/{one.subject}", one.message)
                for one in self._troubles
            ),
            *(
                condition("TrafficNotWritten", name, cause)
                for name, cause in sorted(self._traffic_applier.failed.items())
            ),
            *(condition("TrafficKindMissing", "cluster", text) for text in self._traffic_applier.missing),
        )

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
        self._troubles = await self._applier.carry_out(
            desired, access=found.access, ceilings=local.ceilings(self.limits, desired, found.pools)
        )
        if self._troubles != before:
            self.changed.set()
        return "; ".join(f"{one.subject}: {one.message}" for one in self._troubles)

    async def steer(self, traffic: messages.Traffic) -> None:
        self._traffic = traffic
        await self._traffic_applier.steer(traffic, left=self._left)

    async def keep(self, desired: messages.Desired | None) -> None:
        self.touched = False
        told = self._drifts.conditions()
        if desired is not None:
            await self.apply(desired)
        if self._traffic is not None:
            await self.steer(self._traffic)
        if self._drifts.conditions() != told:
            self.changed.set()


def _site(settings: KubeSettings) -> ClusterSite:
    limits = settings.limits
    return ClusterSite(
        namespace=settings.namespace,
        gateways=limits.gateways,
        model_store=limits.destinations(),
        dns=limits.resolvers(),
        tolerated=limits.tolerated_taints,
        spot_labels=limits.spot_labels,
    )


def _same(one: Slice) -> Slice:
    return one


def _allocated(claim: Claim) -> Claim | None:
    """A claim that holds devices; other claims are not kept."""
    if claim.status.allocation is None:
        return None
    return Claim(metadata=type(claim.metadata)(), status=ClaimStatus(allocation=claim.status.allocation))
