"""What kind of thing keeps a pod or a Deployment from being ready, by Kubernetes' own reasons. Pure.

The reasons are the kubelet's (`pkg/kubelet/images/types.go`, `container/sync_result.go`), the scheduler's, the device
manager's and admission's. One that is not in the table counts as `starting`: it may pass by itself.
"""

from __future__ import annotations

from collections.abc import Iterable

from agents.inventory.objects import ContainerStatus, Pod
from federation.wire.messages import Cause

TELLING: tuple[Cause, ...] = ("refused", "quota", "image", "config", "crash", "unschedulable", "starting")
"""The most telling first: what no waiting mends wins over what time, or a free device, may mend."""
MANY_RESTARTS = 3
"""A container that was started anew so often and is not ready crashes, though it runs at this moment."""
REASONS: dict[str, Cause] = {
    "ErrImagePull": "image",
    "ImagePullBackOff": "image",
    "InvalidImageName": "image",
    "ImageInspectError": "image",
    "ErrImageNeverPull": "image",
    "RegistryUnavailable": "image",
    "SignatureValidationFailed": "image",
    "CrashLoopBackOff": "crash",
    "Error": "crash",
    "OOMKilled": "crash",
    "Completed": "crash",
    "ContainerCannotRun": "crash",
    "DeadlineExceeded": "crash",
    "StartError": "crash",
    "RunContainerError": "crash",
    "PostStartHookError": "crash",
    "CreateContainerConfigError": "config",
    "CreateContainerError": "config",
    "PreCreateHookError": "config",
    "CreatePodSandboxError": "config",
    "FailedMount": "config",
    "FailedAttachVolume": "config",
    "FailedPrepareDynamicResources": "config",
    "UnexpectedAdmissionError": "config",
    "Unschedulable": "unschedulable",
    "SchedulerError": "unschedulable",
    "SchedulingGated": "unschedulable",
    "NodeAffinity": "unschedulable",
    "ContainerCreating": "starting",
    "PodInitializing": "starting",
}
WORDS: tuple[tuple[str, Cause], ...] = (
    ("exceeded quota", "quota"),
    ("failed quota", "quota"),
    ("denied the request", "refused"),
    ("violates podsecurity", "refused"),
    ("failed calling webhook", "refused"),
    ("is forbidden", "refused"),
    ("is invalid", "refused"),
)
"""Of why a ReplicaSet makes no pods: its condition has one reason for all, `FailedCreate`. The first that is said."""


def of_pod(pod: Pod) -> Cause:
    """What keeps a pod from being ready; nothing of one that is, or that is on its way out."""
    conditions = {one.type: one for one in pod.status.conditions or ()}
    ready = conditions.get("Ready")
    if (ready is not None and ready.status == "True") or pod.metadata.deletion_timestamp:
        return ""
    if pod.status.phase == "Failed":
        return of_reason(pod.status.reason)
    found: list[Cause] = [
        of_container(one)
        for one in (*(pod.status.init_container_statuses or ()), *(pod.status.container_statuses or ()))
    ]
    scheduled = conditions.get("PodScheduled")
    if scheduled is not None and scheduled.status == "False":
        found.append(of_reason(scheduled.reason or "Unschedulable"))
    return worst(found) or "starting"


def of_container(status: ContainerStatus) -> Cause:
    """Of one container that is not ready."""
    state = status.state
    if state is not None and state.waiting is not None and state.waiting.reason:
        cause = of_reason(state.waiting.reason)
        if cause != "starting":
            return cause
    if state is not None and state.terminated is not None and state.terminated.exit_code != 0:
        return of_reason(state.terminated.reason, otherwise="crash")
    if status.restart_count >= MANY_RESTARTS and not status.ready:
        return "crash"
    return "starting"


def of_reason(reason: str, otherwise: Cause = "starting") -> Cause:
    """Of a reason in CamelCase. `OutOfcpu` and its like are the kubelet's for a pod that found its node full."""
    if reason.startswith("OutOf"):
        return "unschedulable"
    return REASONS.get(reason, otherwise)


def of_failed_create(message: str) -> Cause:
    """Why no pod can be made, by what the API server said."""
    return next((cause for words, cause in WORDS if words in message.lower()), "refused")


def worst(causes: Iterable[Cause]) -> Cause:
    """The most telling of several, or nothing."""
    found = set(causes)
    return next((one for one in TELLING if one in found), "")
