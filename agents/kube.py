"""A real Kubernetes cluster as an agent's backend: reads nodes and pods, applies Deployments and Services.

It carries out typed intent (a model, a count, an image), never a manifest from the wire. It touches only objects that
bear our labels, in one namespace, by server-side apply, so that doing it again changes nothing. Readiness is what
Kubernetes says of the Deployment.

Names and labels: NVIDIA GPU feature discovery (`nvidia.com/gpu.product`, `gpu.memory` in MiB), the device plugin's
resources (`nvidia.com/gpu`, `nvidia.com/mig-<profile>`), and the capacity-type labels of Karpenter and the clouds.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import structlog
from kubernetes.aio import client, config
from kubernetes.aio.client.exceptions import ApiException

from agents.backend import BackendError, Observation
from agents.demand import DemandFile
from agents.gateway.endpoints import endpoints
from agents.gateway.writer import Writer
from agents.probe import Probe
from federation.wire import messages

log = structlog.get_logger("agent")
MANAGER = "isochrone-agent"
MODEL_LABEL = "isochrone.dev/model"
POOL_ANNOTATION = "isochrone.dev/pool"
FENCE_ANNOTATION = "isochrone.dev/plan"
PRODUCT_LABEL = "nvidia.com/gpu.product"
MEMORY_LABEL = "nvidia.com/gpu.memory"
WHOLE = "nvidia.com/gpu"
MIG_PREFIX = "nvidia.com/mig-"
CAPACITY_LABELS = {
    "karpenter.sh/capacity-type": {"spot": "spot", "reserved": "reserved"},
    "eks.amazonaws.com/capacityType": {"SPOT": "spot", "CAPACITY_BLOCK": "reserved"},
    "cloud.google.com/gke-spot": {"true": "spot"},
    "kubernetes.azure.com/scalesetpriority": {"spot": "spot"},
}
"""Node label -> value -> market; anything else is on-demand."""
PROBES: Mapping[str, str | None] = {
    "vllm": "/health",
    "triton": "/v2/health/ready",
    "torchserve": "/ping",
    "tensorflow-serving": None,
    "nemo": "/v1/health/ready",
    "custom": None,
}
"""Readiness path by runtime; None asks only whether the port opens."""
TRIES = 4
WATCH_S = 1.0
"""How often readiness is looked at between reports."""


def market_of(labels: Mapping[str, str]) -> messages.Market:
    """On what terms a node is had."""
    for label, values in CAPACITY_LABELS.items():
        market = values.get(labels.get(label, ""))
        if market is not None:
            return market  # type: ignore[return-value]
    return "on-demand"


def resource_of(pool: messages.PoolKey) -> str:
    """The extended resource that a pod requests."""
    return f"{MIG_PREFIX}{pool.mig_profile}" if pool.mig_profile else WHOLE


def object_name(model: str, pool: messages.PoolKey) -> str:
    """The Deployment of a model in a pool: a DNS label, unique even when it had to be cut."""
    slug = re.sub(r"[^a-z0-9]+", "-", f"{model}-{pool.text}".lower()).strip("-")
    digest = hashlib.sha256(f"{model}|{pool.text}".encode()).hexdigest()[:6]
    return f"{slug[:56].rstrip('-')}-{digest}"


def devices_of(node: Any) -> dict[messages.PoolKey, int]:
    """Pool -> allocatable devices of one node."""
    labels: dict[str, str] = node.metadata.labels or {}
    product = labels.get(PRODUCT_LABEL, "")
    if not product:
        return {}
    market = market_of(labels)
    found = {}
    for resource, text in (node.status.allocatable or {}).items():
        profile = resource.removeprefix(MIG_PREFIX) if resource.startswith(MIG_PREFIX) else ""
        if (resource == WHOLE or profile) and int(text) > 0:
            found[messages.PoolKey(product=product, mig_profile=profile, market=market)] = int(text)
    return found


def vram_gib(node: Any, pool: messages.PoolKey) -> float:
    """VRAM of one device; a MIG slice's is in its profile's name."""
    if pool.mig_profile:
        match = re.search(r"\.(\d+)gb", pool.mig_profile)
        return float(match.group(1)) if match else 0.0
    return round(int((node.metadata.labels or {}).get(MEMORY_LABEL, "0")) / 1024, 1)


def is_usable(node: Any) -> str:
    """Why a node takes no pods, or nothing."""
    if node.spec.unschedulable:
        return "cordoned"
    ready = next((one for one in node.status.conditions or [] if one.type == "Ready"), None)
    if ready is None or ready.status != "True":
        return f"not ready: {ready.message if ready is not None and ready.message else 'no heartbeat'}"[:300]
    return ""


def requested(pod: Any) -> dict[str, int]:
    """Accelerator resource -> devices that a pod requests."""
    found: dict[str, int] = defaultdict(int)
    for container in pod.spec.containers or []:
        limits = (container.resources.limits if container.resources else None) or {}
        for resource, text in limits.items():
            if resource == WHOLE or resource.startswith(MIG_PREFIX):
                found[resource] += int(text)
    return dict(found)


def deployment(workload: messages.Workload, namespace: str, plan: str) -> dict[str, Any]:
    """The Deployment of one workload, as it is applied."""
    labels = {"app.kubernetes.io/name": workload.model, "app.kubernetes.io/managed-by": "isochrone"}
    name = object_name(workload.model, workload.pool)
    selector = {MODEL_LABEL: workload.model, "isochrone.dev/instance": name}
    resources = {"cpu": workload.cpu, "memory": workload.memory, resource_of(workload.pool): str(workload.devices)}
    path = PROBES.get(workload.runtime)
    check = {"httpGet": {"path": path, "port": workload.port}} if path else {"tcpSocket": {"port": workload.port}}
    terms: list[dict[str, Any]] = [{"key": PRODUCT_LABEL, "operator": "In", "values": [workload.pool.product]}]
    if workload.min_vram_gib and not workload.pool.mig_profile:
        mib = int(workload.min_vram_gib * 1024)
        terms.append({"key": MEMORY_LABEL, "operator": "Gt", "values": [str(max(0, mib - 1))]})
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {**labels, **selector},
            "annotations": {POOL_ANNOTATION: workload.pool.text, FENCE_ANNOTATION: plan},
        },
        "spec": {
            "replicas": workload.replicas,
            "selector": {"matchLabels": selector},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "template": {
                "metadata": {"labels": {**labels, **selector}},
                "spec": {
                    "automountServiceAccountToken": False,
                    "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
                    "affinity": {
                        "nodeAffinity": {
                            "requiredDuringSchedulingIgnoredDuringExecution": {
                                "nodeSelectorTerms": [
                                    {"matchExpressions": terms + one} for one in market_terms(workload.pool.market)
                                ]
                            }
                        }
                    },
                    "tolerations": [{"key": WHOLE, "operator": "Exists", "effect": "NoSchedule"}],
                    "containers": [
                        {
                            "name": "model",
                            "image": workload.image,
                            "args": list(workload.args),
                            "ports": [{"name": "http", "containerPort": workload.port}],
                            "resources": {"requests": resources, "limits": resources},
                            "readinessProbe": {**check, "periodSeconds": 5},
                            "securityContext": {
                                "allowPrivilegeEscalation": False,
                                "capabilities": {"drop": ["ALL"]},
                            },
                        }
                    ],
                },
            },
        },
    }


def market_terms(market: str) -> list[list[dict[str, Any]]]:
    """Alternatives of node selector requirements: on any label that says `market`; on-demand is that none says else."""
    if market == "on-demand":
        return [
            [
                {"key": label, "operator": "NotIn", "values": sorted(values)}
                for label, values in sorted(CAPACITY_LABELS.items())
            ]
        ]
    return [
        [{"key": label, "operator": "In", "values": [value]}]
        for label, values in sorted(CAPACITY_LABELS.items())
        for value, meaning in sorted(values.items())
        if meaning == market
    ]


def service(workload: messages.Workload, namespace: str) -> dict[str, Any]:
    """One Service for a model, over all its pools here."""
    labels = {"app.kubernetes.io/name": workload.model, "app.kubernetes.io/managed-by": "isochrone"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": workload.model,
            "namespace": namespace,
            "labels": {**labels, MODEL_LABEL: workload.model},
        },
        "spec": {
            "selector": {MODEL_LABEL: workload.model},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeSettings:
    """How the cluster is reached. `kubeconfig` None uses the pod's own service account."""

    kubeconfig: Path | None = None
    namespace: str = "isochrone-models"


class KubeBackend:
    """A real cluster."""

    def __init__(self, settings: KubeSettings, *, probe: Probe, demand: DemandFile) -> None:
        self.changed = asyncio.Event()
        self._settings = settings
        self._probe = probe
        self._demand = demand
        self._api: Any = None
        self._version = ""
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        configuration = client.Configuration()
        if self._settings.kubeconfig is not None:
            await config.load_kube_config(str(self._settings.kubeconfig), client_configuration=configuration)
        else:
            config.load_incluster_config(client_configuration=configuration)
        self._api = client.ApiClient(configuration)
        self._apps, self._core = client.AppsV1Api(self._api), client.CoreV1Api(self._api)
        await self._probe.start()
        self._watcher = asyncio.get_running_loop().create_task(self._watch(), name="agent-watch")

    async def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        await self._probe.close()
        if self._api is not None:
            await self._api.close()

    async def _watch(self) -> None:
        """Set `changed` when readiness differs from what was seen last."""
        seen: object = None
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                found = [
                    (one.metadata.name, one.spec.replicas, one.status.ready_replicas) for one in await self._ours()
                ]
            except BackendError:
                continue
            if found != seen:
                seen = found
                self.changed.set()

    # ---- reading

    async def observe(self) -> Observation:
        async with _errors():
            nodes = (await self._core.list_node(_request_timeout=10)).items
            pods = (await self._core.list_pod_for_all_namespaces(_request_timeout=10)).items
            if not self._version:
                self._version = (await client.VersionApi(self._api).get_code(_request_timeout=10)).git_version
        deployments = await self._ours()
        live = [pod for pod in pods if pod.spec.node_name and pod.status.phase not in ("Succeeded", "Failed")]
        waiting = [pod for pod in pods if pod.metadata.labels and MODEL_LABEL in pod.metadata.labels]
        return Observation(
            pools=_pools(nodes, live),
            nodes=_nodes(nodes),
            replicas=tuple(_replicas(one, waiting) for one in deployments),
            endpoints=endpoints(waiting),
            kubernetes_version=self._version,
        )

    async def _ours(self) -> list[Any]:
        async with _errors():
            found = await self._apps.list_namespaced_deployment(
                self._settings.namespace, label_selector="app.kubernetes.io/managed-by=isochrone", _request_timeout=10
            )
        return [one for one in found.items if _pool_of(one) is not None]

    async def steer(self, traffic: messages.Traffic) -> None:
        await Writer.of(self, self._api, self._settings.namespace).steer(traffic)

    async def fence(self) -> tuple[int, int]:
        highest = (0, 0)
        for one in await self._ours():
            epoch, _, generation = (one.metadata.annotations or {}).get(FENCE_ANNOTATION, "").partition(".")
            if epoch.isdigit() and generation.isdigit():
                highest = max(highest, (int(epoch), int(generation)))
        return highest

    async def measure(self, peers: tuple[messages.PeerEndpoint, ...]) -> tuple[messages.PeerRtt, ...]:
        return await self._probe.measure(peers)

    def demand(self) -> tuple[messages.DemandSample, ...]:
        return self._demand.read()

    def probe(self) -> str:
        return self._probe.endpoint

    # ---- writing

    async def apply(self, desired: messages.Desired) -> str:
        plan = f"{desired.epoch}.{desired.generation}"
        troubles = []
        for workload in desired.workloads:
            try:
                await self._carry_out(workload, plan)
            except BackendError as error:
                troubles.append(f"{workload.model} on {workload.pool.text}: {error}")
        self.changed.set()
        return "; ".join(troubles)

    async def _carry_out(self, workload: messages.Workload, plan: str) -> None:
        namespace, name = self._settings.namespace, object_name(workload.model, workload.pool)
        if workload.replicas == 0:
            await self._retry(self._apps.delete_namespaced_deployment, name, namespace)
            others = [one for one in await self._ours() if one.metadata.labels.get(MODEL_LABEL) == workload.model]
            if not [one for one in others if one.metadata.name != name]:
                await self._retry(self._core.delete_namespaced_service, workload.model, namespace)
            return
        applied = {"field_manager": MANAGER, "force": True, "_content_type": "application/apply-patch+yaml"}
        body = deployment(workload, namespace, plan)
        await self._retry(self._apps.patch_namespaced_deployment, name, namespace, body, **applied)
        made = service(workload, namespace)
        await self._retry(self._core.patch_namespaced_service, workload.model, namespace, made, **applied)

    async def _retry(self, call: Any, *args: Any, **kwargs: Any) -> None:
        """Call with a budget of tries; gone already is done. Raises: BackendError."""
        for number in range(TRIES):
            try:
                await call(*args, _request_timeout=10, **kwargs)
                return
            except ApiException as error:
                if error.status == 404 and "delete" in call.__name__:
                    return
                passing = error.status in (409, 429) or error.status >= 500
                if not passing or number == TRIES - 1:
                    raise BackendError(f"{error.status} {error.reason}") from error
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if number == TRIES - 1:
                    raise BackendError(f"API server: {error or type(error).__name__}") from error
            await asyncio.sleep(0.2 * 2**number)


@asynccontextmanager
async def _errors() -> AsyncIterator[None]:
    """Foreign errors as ours."""
    try:
        yield
    except ApiException as error:
        raise BackendError(f"{error.status} {error.reason}") from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise BackendError(f"API server: {error or type(error).__name__}") from error


def _pools(nodes: Iterable[Any], pods: Iterable[Any]) -> tuple[messages.PoolReport, ...]:
    """Devices of ready, schedulable nodes, and how many of them no pod requests."""
    taken: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for pod in pods:
        for resource, count in requested(pod).items():
            taken[pod.spec.node_name][resource] += count
    allocatable: dict[messages.PoolKey, int] = defaultdict(int)
    free: dict[messages.PoolKey, int] = defaultdict(int)
    vram: dict[messages.PoolKey, float] = {}
    for node in nodes:
        for pool, count in devices_of(node).items():
            usable = count if not is_usable(node) else 0
            allocatable[pool] += usable
            free[pool] += max(0, usable - taken[node.metadata.name][resource_of(pool)])
            least = vram_gib(node, pool)
            vram[pool] = min(vram.get(pool, least), least)
    return tuple(
        messages.PoolReport(key=pool, vram_gib=vram[pool], allocatable=allocatable[pool], free=free[pool])
        for pool in sorted(allocatable)
    )


def _nodes(nodes: Iterable[Any]) -> tuple[messages.NodeReport, ...]:
    return tuple(
        messages.NodeReport(
            name=node.metadata.name, pool=pool, devices=count, ready=not is_usable(node), reason=is_usable(node)
        )
        for node in sorted(nodes, key=lambda one: one.metadata.name)
        for pool, count in sorted(devices_of(node).items())
    )


def _pool_of(deployed: Any) -> messages.PoolKey | None:
    text = (deployed.metadata.annotations or {}).get(POOL_ANNOTATION, "")
    match = re.fullmatch(r"([^:/]+)(?::([^/]+))?/(on-demand|spot|reserved)", text)
    if match is None:
        return None
    return messages.PoolKey(product=match[1], mig_profile=match[2] or "", market=match[3])  # type: ignore[arg-type]


def _replicas(deployed: Any, pods: Iterable[Any]) -> messages.ReplicaReport:
    pool = _pool_of(deployed)
    assert pool is not None, "only deployments with a pool are ours"
    instance = deployed.metadata.labels.get("isochrone.dev/instance")
    mine = [
        pod
        for pod in pods
        if pod.metadata.labels.get("isochrone.dev/instance") == instance
        and pod.status.phase not in ("Succeeded", "Failed")
    ]
    # Not held against the observed generation: pods that serve go on serving while a new count is being carried out.
    ready = min(deployed.status.ready_replicas or 0, deployed.spec.replicas or 0)
    return messages.ReplicaReport(
        model=deployed.metadata.labels[MODEL_LABEL],
        pool=pool,
        desired=deployed.spec.replicas or 0,
        ready=ready,
        scheduled=sum(1 for pod in mine if pod.spec.node_name),
        reason="" if ready >= (deployed.spec.replicas or 0) else _why_not_ready(mine),
    )


def _why_not_ready(pods: Iterable[Any]) -> str:
    """What Kubernetes says holds the first pod that is not ready."""
    for pod in pods:
        for status in pod.status.container_statuses or []:
            if status.state and status.state.waiting and status.state.waiting.reason:
                return f"{status.state.waiting.reason}: {status.state.waiting.message or ''}"[:300]
        for condition in pod.status.conditions or []:
            if condition.status == "False" and condition.reason:
                return f"{condition.reason}: {condition.message or ''}"[:300]
    return "pods are being made"
