"""Room to grow: what an autoscaler could still add. Taken for free, it would be given replicas that never start."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agents.inventory import growth
from agents.inventory.objects import NodePool
from agents.inventory.pools import NodeFacts, facts
from federation.wire import messages
from tests.builders import L4, L4_SPOT
from tests.unit.agents.test_inventory import node

YAML_STATUS = """\
time: 2026-10-02 14:29:22.999645779 +0000 UTC
autoscalerStatus: Running
clusterWide:
  health: {status: Healthy}
nodeGroups:
- name: eks-gpu-l4-9ac1f3
  health:
    status: Healthy
    cloudProviderTarget: 1
    minSize: 0
    maxSize: 4
    nodeCounts: {registered: {total: 1, ready: 1}}
  scaleUp: {status: NoActivity}
- name: eks-cpu-11aa
  health: {status: Healthy, cloudProviderTarget: 3, minSize: 1, maxSize: 9}
"""
"""As Cluster Autoscaler's FAQ shows `kubectl get configmap cluster-autoscaler-status`, since 1.30."""
TEXT_STATUS = """\
Cluster-autoscaler status at 2021-10-06 20:30:11:
NodeGroups:
  Name:        eks-gpu-l4-9ac1f3
  Health:      Healthy (ready=1 unready=0 notStarted=0 longNotStarted=0 registered=1 longUnregistered=0 \
cloudProviderTarget=1 (minSize=0, maxSize=4))
               LastProbeTime:      2021-10-06 20:30:11
  ScaleUp:     NoActivity (ready=1 cloudProviderTarget=1)
"""
"""As before 1.30."""


def members(label: str = "eks.amazonaws.com/nodegroup", group: str = "gpu-l4", **labels: str) -> list[NodeFacts]:
    """One node of a group, which took 90 seconds to be ready."""
    given = {"nvidia.com/gpu.product": "NVIDIA-L4", "nvidia.com/gpu.memory": "23034", label: group, **labels}
    made = node(0, {"labels": given, "allocatable": {"cpu": "48", "memory": "188Gi", "nvidia.com/gpu": "4"}})
    return [facts(made, provisioning_s=90.0)]


@pytest.mark.parametrize("status", [YAML_STATUS, TEXT_STATUS], ids=["yaml", "text"])
def test_a_node_group_that_may_grow_is_told_with_what_its_nodes_have(status: str) -> None:
    """The map would not show that an autoscaler could add devices."""
    found, conditions = growth.cluster_autoscaler(status, members())
    assert conditions == ()
    assert found == (
        messages.Growth(
            group="eks-gpu-l4-9ac1f3",
            source="cluster-autoscaler",
            pool=L4,
            nodes=3,
            devices=12,
            provisioning_s=90.0,
        ),
    )


@pytest.mark.parametrize(
    "change",
    [
        ("cloudProviderTarget: 1", "cloudProviderTarget: 4"),
        ("    status: Healthy\n    cloud", "    status: Unhealthy\n    cloud"),
        ("NoActivity", "Backoff"),
        ("maxSize: 4", "maxSize: many"),
        ("eks-gpu-l4-9ac1f3", "eks-gpu-l40-9ac1f3"),
    ],
)
def test_a_group_that_cannot_grow_promises_nothing(change: tuple[str, str]) -> None:
    """The map would promise devices that no autoscaler adds."""
    assert change[0] in YAML_STATUS
    assert growth.cluster_autoscaler(YAML_STATUS.replace(*change), members())[0] == ()


def test_a_group_that_backs_off_promises_nothing_in_the_older_format() -> None:
    """Replicas would be promised to a provider that has no such machines left."""
    assert growth.cluster_autoscaler(TEXT_STATUS.replace("NoActivity", "Backoff"), members())[0] == ()


def test_a_cause_of_backing_off_does_not_make_a_status_unreadable() -> None:
    """Clouds' errors hold links and wildcards: one group that is out of stock would hide the growth of all others."""
    out_of_stock = """\
- name: eks-gpu-b
  health: {status: Healthy, cloudProviderTarget: 0, maxSize: 4}
  scaleUp:
    status: Backoff
    backoffInfo: {errorCode: OUT_OF_RESOURCES, errorMessage: "no capacity in *, see https://x.test/?a=1&b=2"}
"""
    found, conditions = growth.cluster_autoscaler(YAML_STATUS + out_of_stock, members())
    assert ([one.group for one in found], conditions) == (["eks-gpu-l4-9ac1f3"], ())


@pytest.mark.parametrize(
    ("status", "written_s"),
    [
        (YAML_STATUS, 1790951362.0),
        (TEXT_STATUS, 1633552211.0),
        (TEXT_STATUS.replace("20:30:11:", "13:30:11.6 -0700 PDT:"), 1633552211.0),
        (TEXT_STATUS.partition("\n               LastProbeTime")[0], 1633552211.0),
    ],
    ids=["yaml", "text", "another-time-zone", "without-a-last-line-end"],
)
def test_what_an_autoscaler_left_behind_promises_nothing(status: str, written_s: float) -> None:
    """The ConfigMap stays when the autoscaler is removed: replicas would wait for nodes that nobody adds."""
    assert len(growth.cluster_autoscaler(status, members(), written_s + 600.0)[0]) == 1
    found, conditions = growth.cluster_autoscaler(status, members(), written_s + 1000.0)
    assert found == ()
    assert [one.type for one in conditions] == ["StaleAutoscalerStatus"]


def test_a_group_without_a_real_limit_stays_within_what_a_report_may_say() -> None:
    """The controller would refuse the whole report for one number."""
    status = YAML_STATUS.replace("maxSize: 4", "maxSize: 100000")
    given = {"nvidia.com/gpu.product": "NVIDIA-L4-SHARED", "nvidia.com/gpu.replicas": "16", "agentpool": "gpu-l4"}
    shared = facts(node(0, {"labels": given, "allocatable": {"nvidia.com/gpu": "128"}}))
    found, _ = growth.cluster_autoscaler(status, [shared])
    assert found[0].devices == growth.MAX_DEVICES


@pytest.mark.parametrize(
    "status",
    [
        "nodeGroups: [[[",
        "- 1",
        "nodeGroups: 7",
        "nodeGroups: [x]",
        "a: &b {}",
        "x" * 600_000,
        YAML_STATUS.replace("cloudProviderTarget: 1", "cloudProviderTarget: -1"),
    ],
    ids=["broken", "list", "number", "words", "anchor", "long", "negative"],
)
def test_a_status_that_cannot_be_read_is_said(status: str) -> None:
    """A new format of the autoscaler's status would hide growth without a word."""
    found, conditions = growth.cluster_autoscaler(status, members())
    assert found == ()
    assert [one.type for one in conditions] == ["BadAutoscalerStatus"]


def pool(**fields: Any) -> NodePool:
    """A Karpenter NodePool of at most eight GPUs, four in use."""
    raw: dict[str, Any] = {
        "metadata": {"name": "gpu"},
        "spec": {"template": {}, "limits": {"cpu": "1000", "nvidia.com/gpu": "8"}},
        "status": {"resources": {"nvidia.com/gpu": "4"}},
    }
    return msgspec.convert(raw | fields, NodePool)


def test_karpenter_may_add_what_its_limit_leaves() -> None:
    """The map would promise devices beyond the owner's limit."""
    spot = members("karpenter.sh/nodepool", "gpu", **{"karpenter.sh/capacity-type": "spot"})
    found, _ = growth.karpenter([pool()], spot)
    assert [(one.pool, one.devices, one.provisioning_s) for one in found] == [(L4_SPOT, 4, 90.0)]


def test_a_pool_without_nodes_promises_what_its_template_says() -> None:
    """A pool that scales from zero would be invisible."""
    template = {
        "metadata": {"labels": {"nvidia.com/gpu.product": "NVIDIA-L4"}},
        "spec": {"requirements": [{"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot"]}]},
    }
    found, _ = growth.karpenter([pool(spec={"template": template, "limits": {"nvidia.com/gpu": "8"}})], [])
    assert [(one.pool, one.devices, one.provisioning_s) for one in found] == [(L4_SPOT, 4, None)]


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({"spec": {"template": {}}}, []),
        ({"spec": {"template": {}, "limits": {"cpu": "9"}}}, []),
        ({"status": {"resources": {"nvidia.com/gpu": "8"}}}, []),
        ({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}, []),
        ({"spec": {"template": {}, "limits": {"nvidia.com/gpu": "-8"}}}, ["BadNodePool"]),
        ({"spec": {"template": {}, "limits": {"nvidia.com/gpu": "1e60"}}}, ["BadNodePool"]),
    ],
    ids=["no-limit", "no-gpu-limit", "full", "not-ready", "negative", "huge"],
)
def test_no_limit_is_no_promise(fields: dict[str, Any], kinds: list[str]) -> None:
    """A pool without a limit is not endless, and a limit that cannot be true promises nothing."""
    found, conditions = growth.karpenter([pool(**fields)], members("karpenter.sh/nodepool", "gpu"))
    assert found == ()
    assert [one.type for one in conditions] == kinds


NODE = {"cpu": "48", "memory": "188Gi", "nvidia.com/gpu": "4", "nodes": "1"}


@pytest.mark.parametrize(
    ("limits", "devices"),
    [
        ({"nvidia.com/gpu": "40", "nodes": "3"}, 8),
        ({"nvidia.com/gpu": "40", "nodes": 1}, None),
        ({"nvidia.com/gpu": "40", "cpu": "96"}, 4),
        ({"nvidia.com/gpu": "40", "cpu": "48"}, None),
        ({"nvidia.com/gpu": "40", "memory": "200Gi"}, None),
        ({"nvidia.com/gpu": "10k", "cpu": "480"}, 36),
        ({"nvidia.com/gpu": "10k"}, 9996),
    ],
    ids=["nodes", "nodes-full", "cpu", "cpu-full", "memory-full", "large-and-cpu", "large"],
)
def test_the_first_limit_of_a_pool_that_is_reached_stops_it(limits: dict[str, Any], devices: int | None) -> None:
    """Replicas would be promised GPUs that Karpenter does not add: "all instance types exceed limits for nodepool"."""
    status = {"resources": NODE}
    made = pool(spec={"template": {}, "limits": limits}, status=status)
    found, conditions = growth.karpenter([made], members("karpenter.sh/nodepool", "gpu"))
    assert ([one.devices for one in found], conditions) == ([devices] if devices else [], ())


def test_a_pool_of_a_fixed_number_of_nodes_or_on_its_way_out_does_not_grow() -> None:
    """Static capacity follows `spec.replicas`, and no pod that waits."""
    fixed = pool(spec={"template": {}, "replicas": 2, "limits": {"nodes": "4", "nvidia.com/gpu": "8"}})
    leaving = pool(metadata={"name": "gpu", "deletionTimestamp": "2026-01-02T03:04:05Z"})
    assert growth.karpenter([fixed, leaving], members("karpenter.sh/nodepool", "gpu"))[0] == ()


def test_how_long_a_node_took_is_read_from_the_node() -> None:
    """Nobody could tell whether growth takes one minute or ten."""
    made = msgspec.structs.replace(
        node(0, {}),
        metadata=msgspec.convert(
            {"name": "n", "creationTimestamp": "2026-11-25T10:00:00Z"}, type(node(0, {}).metadata)
        ),
        status=msgspec.convert(
            {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-25T10:01:30Z"}]},
            type(node(0, {}).status),
        ),
    )
    assert growth.provisioning_s(made) == 90.0
    assert growth.provisioning_s(node(0, {})) is None
