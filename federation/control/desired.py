"""From desired counts to the typed intent that one cluster is told."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping

import msgspec

from federation.control.plan import Versions
from federation.policy.documents import Autoscaling, Documents, Model, Resources, Runtime
from federation.state.keys import ClusterPool, PlacementKey
from federation.wire.messages import PoolKey, Workload


def workloads(
    documents: Documents,
    desired: Mapping[PlacementKey, int],
    stops: Mapping[PlacementKey, str],
    versions: Mapping[str, Versions],
) -> dict[str, tuple[Workload, ...]]:
    """Cluster -> what its agent is told, sorted; clusters with nothing are left out.

    Args: stops: why a count is lower than it was: an agent stops nothing that is ready without it. versions: of models
        whose newest document is not known to start yet.
    """
    models = {document.metadata.name: document for document in documents.models}
    told: dict[str, list[Workload]] = {}
    for key, replicas in sorted(desired.items(), key=lambda item: item[0]):
        model, cluster, pool = key
        document = models.get(model)
        stop_reason = stops.get(key, "")
        if document is None:
            if replicas == 0:
                told.setdefault(cluster, []).append(_farewell(model, pool, stop_reason))
            continue
        if model in versions:
            document = versions[model].told(document, ClusterPool(cluster, pool))
        policy = documents.policy_of(model)
        scaling = policy.spec.autoscaling if policy is not None else Autoscaling()
        one = _workload(document, scaling, pool, replicas, stop_reason)
        if policy is not None and policy.spec.self_heal == "off":
            one = msgspec.structs.replace(one, self_heal=False)
        told.setdefault(cluster, []).append(one)
    return {cluster: tuple(items) for cluster, items in told.items()}


def digests(
    clusters: Iterable[str],
    documents: Documents,
    desired: Mapping[PlacementKey, int],
    stops: Mapping[PlacementKey, str],
    versions: Mapping[str, Versions],
) -> dict[str, str]:
    """Cluster -> digest of what its agent is told, of all `clusters`. Args: the others as in `workloads`."""
    told = workloads(documents, desired, stops, versions)
    return {name: digest(told.get(name, ())) for name in clusters}


def digest(items: tuple[Workload, ...]) -> str:
    """What identifies the content: equal workloads give equal digests."""
    return hashlib.sha256(msgspec.json.encode(items, order="deterministic")).hexdigest()


def version(document: Model) -> str:
    """What identifies how replicas of a model are started: a change of it starts each of them anew."""
    return _version(document.spec.runtime, document.spec.resources)


@functools.lru_cache(maxsize=1024)
def _version(runtime: Runtime, resources: Resources) -> str:
    return hashlib.sha256(msgspec.json.encode((runtime, resources), order="deterministic")).hexdigest()[:12]


def _workload(document: Model, scaling: Autoscaling, pool: PoolKey, replicas: int, stop_reason: str) -> Workload:
    spec = document.spec
    shape = spec.accelerator_for(pool) or spec.accelerators[0]
    return Workload(
        model=document.metadata.name,
        pool=pool,
        replicas=replicas,
        devices=shape.count,
        runtime=spec.runtime.preset,
        image=spec.runtime.image,
        args=spec.runtime.args,
        port=spec.runtime.serves_on,
        cpu=spec.resources.cpu,
        memory=spec.resources.memory,
        min_vram_gib=shape.min_vram_gib,
        warmup_s=spec.warmup_seconds,
        burst_replicas=scaling.burst_replicas,
        vertical_scaling=scaling.vertical,
        stop_reason=stop_reason[:300],
    )


def _farewell(model: str, pool: PoolKey, stop_reason: str) -> Workload:
    """The order to delete a model whose document is gone; only its name and pool matter."""
    return Workload(
        model=model,
        pool=pool,
        replicas=0,
        devices=1,
        runtime="custom",
        image="none",
        cpu="0",
        memory="0",
        stop_reason=stop_reason[:300],
    )
