"""What counts as drift, whose it is, and what an order must explain."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agents import fence
from agents.manifests import drift
from federation.wire import messages
from tests.builders import L4

POD: dict[str, Any] = {"containers": [{"name": "model", "image": "a:1", "env": [{"name": "HOME", "value": "/tmp"}]}]}


def changes(live: Any) -> list[str]:
    made = drift.shown(POD, POD)
    return [drift.text(path) for path in drift.differences(made, drift.shown(live, POD))]


def test_what_others_add_is_no_drift() -> None:
    """A mesh's sidecar, or a default of the API server, would be fought for ever."""
    model = {**POD["containers"][0], "imagePullPolicy": "Always"}
    assert changes({"containers": [{"name": "proxy", "image": "mesh"}, model], "dnsPolicy": "ClusterFirst"}) == []


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"image": "b:2"}, ".containers[model].image"),
        ({"env": [{"name": "HOME", "value": "/"}]}, ".containers[model].env[HOME].value"),
        ({"env": [{"name": "PATH", "value": "/"}]}, ".containers[model].env[HOME]"),
    ],
)
def test_what_was_changed_is_named(model: dict[str, Any], expected: str) -> None:
    """On-call would read that something differs, and not what."""
    assert changes({"containers": [{**POD["containers"][0], **model}]}) == [expected]


@pytest.mark.parametrize(
    ("said", "insists"),
    [
        ('conflict with "kubectl" with subresource "scale" using apps/v1', False),
        ('conflict with "kubectl-edit" using apps/v1 at 2026-01-01T00:00:00Z', False),
        ('conflict with "kube-controller-manager" with subresource "scale" using apps/v1', True),
        ('conflict with "keda-operator" with subresource "scale" using apps/v1', True),
        ('conflict with "argocd-controller"', True),
        ("words that no API server of today says", True),
    ],
)
def test_only_what_a_hand_changed_is_taken_back(said: str, insists: bool) -> None:
    """A GitOps controller or an autoscaler would be fought for ever; or kubectl's slip would stay."""
    (owner,) = drift.owners([(".spec.replicas", said)])
    assert owner.insists is insists


def test_the_manager_of_a_changed_field_is_named() -> None:
    """An owner would see a drift and not who caused it."""
    managed = [
        {"manager": "isochrone-agent", "operation": "Apply", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
        {
            "manager": "kubectl-set",
            "fieldsV1": {"f:spec": {"f:containers": {'k:{"name":"model"}': {"f:image": {}}}}},
        },
        {"manager": "kube-controller-manager", "subresource": "status", "fieldsV1": {"f:spec": {}}},
    ]
    paths = [("spec", "containers", "[model]", "image")]
    assert drift.by_whom(managed, paths, "isochrone-agent") == ("kubectl-set",)
    assert drift.by_whom(managed, [("spec", "paused")], "isochrone-agent") == ()


def order(replicas: int, reason: str = "") -> messages.Desired:
    workload = messages.Workload(
        model="chat", pool=L4, replicas=replicas, devices=1, runtime="vllm", image="a:1", cpu="1", memory="1Gi"
    )
    workload = msgspec.structs.replace(workload, stop_reason=reason)
    other = messages.Workload(
        model="other", pool=L4, replicas=1, devices=1, runtime="vllm", image="a:1", cpu="1", memory="1Gi"
    )
    return messages.Desired(cluster="fra", epoch=1, generation=1, workloads=(workload, other))


def ready(count: int) -> tuple[messages.ReplicaReport, ...]:
    return (messages.ReplicaReport(model="chat", pool=L4, desired=count, ready=count),)


@pytest.mark.parametrize(
    ("before", "there", "wanted", "reason", "told", "kept"),
    [
        (3, 3, 0, "", True, [3, 1]),
        (3, 3, 2, "", True, [3, 1]),
        (None, 3, 2, "", True, [1]),
        (3, 3, 0, "iad has 3 ready", False, [0, 1]),
        (3, 1, 1, "", False, [1, 1]),  # nothing ready is lost
        (3, 5, 3, "", False, [3, 1]),  # somebody scaled it up: that is drift and no order
        (3, 3, 4, "", False, [4, 1]),
        (3, 3, 1, messages.NOT_READY, True, [3, 1]),  # the controller's knowledge is older
        (3, 2, 0, messages.NOT_READY, True, [2, 1]),  # the one that is not ready goes
        (None, 2, 0, messages.NOT_READY, True, [2, 1]),
        (3, 1, 1, messages.NOT_READY, False, [1, 1]),
        (3, 5, 3, messages.NOT_READY, False, [3, 1]),
    ],
)
def test_ready_replicas_are_stopped_for_a_reason_or_not_at_all(
    before: int | None, there: int, wanted: int, reason: str, told: bool, kept: list[int]
) -> None:
    """A controller that is wrong about the rest of the fleet would stop what serves."""
    old = order(before) if before is not None else None
    carried, conditions = fence.explained(order(wanted, reason), old, ready(there))
    assert [one.replicas for one in carried.workloads] == kept, "the other workloads are carried out"
    assert [one.type for one in conditions] == (["StopNotExplained"] if told else [])
