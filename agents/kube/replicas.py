"""What our own pods and Deployments say of themselves: ready, scheduled, and in whose words why not. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from agents.inventory import usage
from agents.inventory.objects import ContainerStatus, Deployment, Pod
from agents.inventory.offers import condition
from agents.kube import causes
from agents.kube import endpoints as answering
from agents.manifests import names
from federation.wire import messages, quantity

SHOWN = 300
MOST_SHARED = 20_000
MOST_ENDPOINTS = 5000
"""Of one report, as the wire carries them."""
MOST_RESTARTS = 10_000
"""Counted of one pod."""
STILL = ("ContainerCreating", "PodInitializing")
"""Reasons of a container that is merely being started."""


class PodFacts(NamedTuple):
    """What is held of one pod: its node and what it requests; of ours also the instance, what keeps it, its address."""

    node: str
    use: usage.Use
    instance: str = ""
    reason: str = ""
    endpoint: messages.ReplicaEndpoint | None = None
    cause: messages.Cause = ""
    restarts: int = 0


class DeploymentFacts(NamedTuple):
    """What is held of one of our Deployments."""

    name: str
    uid: str
    model: str
    pool: messages.PoolKey
    plan: tuple[int, int]
    replicas: int
    ready: int
    placed: int | None
    """By the plan, where an autoscaler may add to it; None where `replicas` is the plan's own count."""
    trouble: str
    updated: int = 0
    """Replicas of the newest version."""
    old: int = 0
    """Pods of earlier versions; all of them until its controller has seen the newest."""
    spec_version: int = 0
    """`metadata.generation`: another one means that somebody changed what it says."""


class FailedPod(NamedTuple):
    """One of our pods that the kubelet would not start: a device was gone when it came. It never starts."""

    made_at: str
    instance: str
    cause: messages.Cause
    reason: str


def of_pod(pod: Pod, namespace: str, shared: dict[PodFacts, PodFacts]) -> PodFacts | None:
    """What to hold of a pod; nothing of one that has ended, or that waits and is none of ours.

    Args: shared: pods that are alike become one object, since a cluster has thousands of alike pods.
    """
    if pod.status.phase in ("Succeeded", "Failed"):
        return None
    labels = pod.metadata.labels or {}
    instance = labels.get(names.INSTANCE_LABEL, "") if pod.metadata.namespace == namespace else ""
    if not pod.spec.node_name and not instance:
        return None
    reason = why_not_ready(pod) if instance else ""
    endpoint = answering.of_pod(pod) if instance else None
    use = usage.of_pod(pod) if pod.spec.node_name else usage.NOTHING
    cause = causes.of_pod(pod) if instance else ""
    restarts = sum(one.restart_count for one in pod.status.container_statuses or ()) if instance else 0
    found = PodFacts(pod.spec.node_name, use, instance, reason, endpoint, cause, min(restarts, MOST_RESTARTS))
    if len(shared) > MOST_SHARED:
        shared.clear()
    return shared.setdefault(found, found)


def why_not_ready(pod: Pod) -> str:
    """What Kubernetes says keeps a pod from being ready, in its own words, or nothing."""
    conditions = {one.type: one for one in pod.status.conditions or ()}
    ready = conditions.get("Ready")
    if ready is not None and ready.status == "True":
        return ""
    starting = ""
    for status in pod.status.container_statuses or ():
        waiting = status.state.waiting if status.state is not None else None
        if waiting is not None and waiting.reason:
            text = _said(waiting.reason, waiting.message) + _last_exit(status)
            if waiting.reason not in STILL:
                return text[:SHOWN]
            starting = starting or text
        elif status.state is not None and status.state.terminated is not None:
            ended = status.state.terminated
            return f"{_said(ended.reason or 'Terminated', ended.message)} (exit {ended.exit_code})"[:SHOWN]
    scheduled = conditions.get("PodScheduled")
    if scheduled is not None and scheduled.status == "False":
        return _said(scheduled.reason or "Unschedulable", scheduled.message)[:SHOWN]
    if pod.metadata.deletion_timestamp:
        return "Terminating"
    if starting:
        return starting[:SHOWN]
    if ready is not None and ready.reason:
        return _said(ready.reason, ready.message)[:SHOWN]
    return "Pending" if not pod.spec.node_name else "starting"


def _said(reason: str, message: str) -> str:
    return f"{reason}: {message}" if message else reason


def _last_exit(status: ContainerStatus) -> str:
    ended = status.last_state.terminated if status.last_state is not None else None
    if ended is None:
        return ""
    return f"; last exit {ended.exit_code} ({_said(ended.reason, ended.message)}), {status.restart_count} restarts"


def of_deployment(one: Deployment) -> DeploymentFacts | None:
    """What to hold of a Deployment, or nothing when it is not one of ours."""
    pool = names.pool_of(one.metadata.annotations)
    model = (one.metadata.labels or {}).get(names.MODEL_LABEL, "")
    if pool is None or not model:
        return None
    failed = next((c for c in one.status.conditions or () if c.type == "ReplicaFailure" and c.status == "True"), None)
    return DeploymentFacts(
        name=one.metadata.name,
        uid=one.metadata.uid,
        model=model,
        pool=pool,
        plan=names.plan_of(one.metadata.annotations),
        replicas=one.spec.replicas,
        ready=one.status.ready_replicas,
        placed=quantity.whole((one.metadata.annotations or {}).get(names.AUTOSCALED_ANNOTATION, ""), most=1_000_000),
        trouble=_said(failed.reason, failed.message)[:SHOWN] if failed is not None else "",
        updated=one.status.updated_replicas,
        old=one.status.replicas
        - (one.status.updated_replicas if one.status.observed_generation >= one.metadata.generation else 0),
        spec_version=one.metadata.generation,
    )


def of_failed(pod: Pod) -> FailedPod | None:
    """What to hold of one of our pods that the kubelet would not start; others that ended say nothing of the model."""
    instance = (pod.metadata.labels or {}).get(names.INSTANCE_LABEL, "")
    cause = causes.of_reason(pod.status.reason, otherwise="")
    if not instance or not cause:
        return None
    reason = _said(pod.status.reason, pod.status.message)[:SHOWN]
    return FailedPod(instance=instance, made_at=pod.metadata.creation_timestamp, cause=cause, reason=reason)


def report(
    deployments: Iterable[DeploymentFacts],
    pods: Iterable[PodFacts],
    failed: Iterable[FailedPod] = (),
) -> tuple[messages.ReplicaReport, ...]:
    """Our replicas as they are. `failed`: pods that the kubelet would not start, and that others took the place of."""
    mine: dict[str, list[PodFacts]] = defaultdict(list)
    for pod in pods:
        if pod.instance:
            mine[pod.instance].append(pod)
    newest: dict[str, FailedPod] = {}
    for one in sorted(failed):
        newest[one.instance] = one
    return tuple(_replicas(one, mine[one.name], newest.get(one.name)) for one in sorted(deployments))


def unread(ordered: Iterable[messages.Workload], pods: Iterable[PodFacts], why: str) -> tuple[DeploymentFacts, ...]:
    """In place of Deployments that may not be read: what was ordered, and of it what answers."""
    answers = Counter(pod.instance for pod in pods if pod.endpoint is not None)
    found = []
    for one in ordered:
        name = names.instance_name(one.model, one.pool)
        found.append(
            DeploymentFacts(
                name=name,
                uid="",
                model=one.model,
                pool=one.pool,
                plan=(0, 0),
                replicas=one.replicas,
                ready=answers[name],
                placed=None,
                trouble=why[:SHOWN],
            )
        )
    return tuple(found)


def updates(deployments: Iterable[DeploymentFacts], pods: Iterable[PodFacts]) -> Iterable[messages.Condition]:
    """New versions that do not start, where all replicas of the old one serve: reports would show nothing amiss."""
    waiting: dict[str, list[PodFacts]] = defaultdict(list)
    for pod in pods:
        if pod.instance and pod.cause:
            waiting[pod.instance].append(pod)
    for one in sorted(deployments):
        stuck = [pod for pod in waiting[one.name] if pod.cause != "starting"]
        if one.ready >= one.replicas and one.updated <= one.replicas and stuck:
            text = f"a new version does not start, {one.ready} replicas of the old one serve: {stuck[0].reason}"
            yield condition("UpdateWaits", f"model/{one.model} on {one.pool.text}", text)


def endpoints(pods: Iterable[PodFacts]) -> tuple[messages.ReplicaEndpoint, ...]:
    """Where our ready replicas answer, sorted."""
    return tuple(sorted(pod.endpoint for pod in pods if pod.endpoint is not None)[:MOST_ENDPOINTS])


def _replicas(one: DeploymentFacts, pods: list[PodFacts], failed: FailedPod | None) -> messages.ReplicaReport:
    # Not held against the observed generation: pods that serve go on serving while a new count is being carried out.
    ready = min(one.ready, one.replicas)
    reason = ""
    cause: messages.Cause = ""
    if ready < one.replicas:
        # A quota, or an admission that refuses, leaves no pod that could speak.
        mute = bool(one.trouble) and len(pods) < one.replicas
        cause = causes.of_failed_create(one.trouble) if mute else causes.worst(pod.cause for pod in pods)
        said = [*sorted({pod.reason for pod in pods if pod.reason and pod.cause == cause and cause})]
        said += sorted({pod.reason for pod in pods if pod.reason} - set(said))
        reason = one.trouble if mute else "; ".join(said)
        if failed is not None and cause in ("", "starting"):
            cause, reason = failed.cause, failed.reason
        reason = reason or one.trouble or "pods are being made"
    outdated = max(0, ready - max(0, one.ready - one.old))
    if ready >= one.replicas and outdated:
        # The old version serves whole; what keeps the new one is said all the same.
        cause = causes.worst(pod.cause for pod in pods if pod.cause)
        reason = "; ".join(sorted({pod.reason for pod in pods if pod.reason and pod.cause == cause}))
    return messages.ReplicaReport(
        model=one.model,
        pool=one.pool,
        desired=one.replicas,
        ready=ready,
        scheduled=sum(1 for pod in pods if pod.node),
        reason=reason[:SHOWN],
        cause=(cause or "starting") if ready < one.replicas else cause,
        outdated=outdated,
        restarts=sum(pod.restarts for pod in pods),
    )
