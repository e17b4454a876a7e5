"""What kind of trouble a pod is in: what the controller's back-off and its way out depend on."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agents.inventory.objects import Pod
from agents.kube import causes, replicas
from agents.manifests import names


def waiting(reason: str, **more: Any) -> dict[str, Any]:
    return {"containerStatuses": [{"state": {"waiting": {"reason": reason}}, **more}]}


def unscheduled(reason: str) -> dict[str, Any]:
    return {"conditions": [{"type": "PodScheduled", "status": "False", "reason": reason}]}


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (waiting("ErrImagePull"), "image"),
        (waiting("ImagePullBackOff"), "image"),
        (waiting("InvalidImageName"), "image"),
        (waiting("ErrImageNeverPull"), "image"),
        (waiting("RegistryUnavailable"), "image"),
        (waiting("CrashLoopBackOff", restartCount=1), "crash"),
        (waiting("CreateContainerConfigError"), "config"),
        (waiting("CreateContainerError"), "config"),
        (waiting("ContainerCreating"), "starting"),
        (waiting("ContainerCreating", restartCount=5), "crash"),
        ({"initContainerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull"}}}]}, "image"),
        ({"containerStatuses": [{"state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}]}, "crash"),
        ({"containerStatuses": [{"state": {"terminated": {"reason": "Error", "exitCode": 1}}}]}, "crash"),
        ({"containerStatuses": [{"state": {"running": {}}, "restartCount": 4}]}, "crash"),
        ({"containerStatuses": [{"state": {"running": {}}, "restartCount": 1}]}, "starting"),
        (unscheduled("Unschedulable"), "unschedulable"),
        ({"phase": "Failed", "reason": "UnexpectedAdmissionError"}, "config"),
        ({"phase": "Failed", "reason": "OutOfnvidia.com/gpu"}, "unschedulable"),
        ({"conditions": [{"type": "Ready", "status": "True"}], **waiting("Error")}, ""),
        ({}, "starting"),
    ],
)
def test_a_pods_trouble_has_a_kind(status: dict[str, Any], cause: str) -> None:
    """A plan would wait for what never starts, or give up on what only needs a minute."""
    assert causes.of_pod(msgspec.convert({"metadata": {"uid": "u"}, "status": status}, Pod)) == cause


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ('pods "x" is forbidden: exceeded quota: small, requested: requests.nvidia.com/gpu=1', "quota"),
        ('pods "x" is forbidden: failed quota: mem: must specify requests.memory', "quota"),
        ('admission webhook "policy.example" denied the request: no registry', "refused"),
        ('pods "x" is forbidden: violates PodSecurity "restricted:latest"', "refused"),
        ("Internal error occurred: failed calling webhook", "refused"),
    ],
)
def test_why_no_pod_can_be_made_has_a_kind(message: str, cause: str) -> None:
    """A quota or a refused image would look alike, and the controller would retry what cannot succeed."""
    assert causes.of_failed_create(message) == cause


def test_of_several_the_most_telling_counts() -> None:
    """One replica that waits for a device would hide that the image of all is bad."""
    assert causes.worst(["starting", "unschedulable", "image", ""]) == "image"
    assert causes.worst(["", ""]) == ""


def test_a_pod_that_the_kubelet_refused_tells_why_its_successors_are_missing() -> None:
    """Devices that are gone leave failed pods and new ones in turn: reports would say that replicas are starting."""
    labels = {names.INSTANCE_LABEL: "chat-x"}
    status = {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "Allocate failed"}
    found = replicas.of_failed(msgspec.convert({"metadata": {"labels": labels}, "status": status}, Pod))
    assert found is not None
    assert (found.cause, found.reason) == ("config", "UnexpectedAdmissionError: Allocate failed")
    evicted = {"phase": "Failed", "reason": "Evicted"}
    assert replicas.of_failed(msgspec.convert({"metadata": {"labels": labels}, "status": evicted}, Pod)) is None
