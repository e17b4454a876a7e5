"""On what terms a node is had, whether it takes pods, and whether it is about to go: from labels, taints, conditions.

Sources, by the title of their documentation: Karpenter "Well-known labels" and "Disruption"; EKS "Managed node groups"
(capacityType); GKE "Spot VMs", "Flex-start" and "Graceful node shutdown"; AKS "Add a spot node pool", "Node problem
detector" and "Use node auto-drain"; OKE "Preemptible capacity"; CAST AI "Node labels and taints"; Spot "Ocean labels";
kops "Instance groups"; OpenShift "Machines that deploy as spot instances"; Cluster API "Spot instances"; AWS Node
Termination Handler (taints); Virtual Kubelet and Liqo (virtual nodes); Kubernetes "Well-Known Labels, Annotations and
Taints"; NVIDIA "DRA driver for GPUs" (health taints).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from agents.inventory.objects import Node, Taint
from federation.wire import messages

CAPACITY_LABELS: dict[str, dict[str, messages.Market]] = {
    "karpenter.sh/capacity-type": {"spot": "spot", "reserved": "reserved"},
    "eks.amazonaws.com/capacityType": {"SPOT": "spot", "CAPACITY_BLOCK": "reserved"},
    "cloud.google.com/gke-spot": {"true": "spot"},
    "cloud.google.com/gke-preemptible": {"true": "spot"},
    "kubernetes.azure.com/scalesetpriority": {"spot": "spot"},
    "cloud.google.com/gke-flex-start": {"true": "spot"},
    "cloud.google.com/gke-provisioning": {"spot": "spot", "preemptible": "spot", "flex-start": "spot"},
    "oci.oraclecloud.com/oke-is-preemptible": {"true": "spot"},
    "scheduling.cast.ai/spot": {"true": "spot"},
    "spotinst.io/node-lifecycle": {"spot": "spot"},
    "node-role.kubernetes.io/spot-worker": {"": "spot", "true": "spot"},
    "node.kubernetes.io/lifecycle": {"spot": "spot", "Ec2Spot": "spot"},
    "machine.openshift.io/interruptible-instance": {"": "spot", "true": "spot"},
    "cluster.x-k8s.io/interruptible": {"": "spot", "true": "spot"},
    "lifecycle": {"Ec2Spot": "spot", "spot": "spot"},
    "node.alibabacloud.com/spot-strategy": {"SpotWithPriceLimit": "spot", "SpotAsPriceGo": "spot"},
    "yandex.cloud/preemptible": {"true": "spot"},
}
"""Node label -> value -> market; anything else is on-demand. What is given for a time and then taken (flex-start) is
spot too: it cannot be counted on."""
VENDOR_TAINTS = (
    "nvidia.com/gpu",
    "amd.com/gpu",
    "gpu.intel.com/i915",
    "gpu.intel.com/xe",
    "habana.ai/gaudi",
    "google.com/tpu",
)
"""Keys by which clusters keep other pods off their accelerators; ours tolerate them."""
SPOT_TAINTS = (
    "cloud.google.com/gke-spot",
    "cloud.google.com/gke-preemptible",
    "cloud.google.com/gke-flex-start",
    "kubernetes.azure.com/scalesetpriority",
    "karpenter.sh/capacity-type",
    "oci.oraclecloud.com/oke-is-preemptible",
    "scheduling.cast.ai/spot",
)
"""Keys by which clusters keep pods off spot nodes; replicas that were placed on spot tolerate them."""
NOTICES = {
    "aws-node-termination-handler/spot-itn": "a notice of interruption",
    "aws-node-termination-handler/rebalance-recommendation": "a recommendation to rebalance",
    "aws-node-termination-handler/asg-lifecycle-termination": "the end of its instance",
    "aws-node-termination-handler/scheduled-maintenance": "a maintenance",
    "karpenter.sh/disrupted": "its replacement by Karpenter",
    "karpenter.sh/disruption": "its replacement by Karpenter",
    "remediator.kubernetes.azure.com/unschedulable": "its redeployment or preemption",
    "cloud.google.com/impending-node-termination": "its termination",
    "node.cloudprovider.kubernetes.io/shutdown": "its shutdown",
    "ToBeDeletedByClusterAutoscaler": "its removal by the cluster autoscaler",
    "gpu.nvidia.com/xid": "an XID error of a GPU",
    "gpu.nvidia.com/gpu-lost": "a GPU that is lost",
    "gpu.nvidia.com/unmonitored": "a GPU that is not monitored",
    "PreemptScheduled": "its preemption",
    "TerminateScheduled": "its termination",
    "VMEventScheduled": "an event of its virtual machine",
}
"""Taint keys and condition types that say a node or a device is about to go."""
VIRTUAL = {
    ("type", "virtual-kubelet"): "virtual-kubelet.io/provider",
    ("liqo.io/type", "virtual-node"): "virtual-node.liqo.io/not-allowed",
}
"""Labels of nodes that stand for another cluster, which counts its devices itself, or for a cloud's containers -> the
taint that they usually bear. Who has it tolerated wants them used."""
GPU_FAULTS = ("gpu.nvidia.com/xid", "gpu.nvidia.com/gpu-lost", "gpu.nvidia.com/unmonitored")
"""Of these, those that come and go while the node stays."""
BARRING = ("NoSchedule", "NoExecute")


def of(labels: Mapping[str, str], spot: Collection[str] = ()) -> messages.Market:
    """On what terms a node is had. Args: spot: further labels of spot nodes, as `key` or `key=value`."""
    for one in spot:
        key, has_value, value = one.partition("=")
        if key in labels and (not has_value or labels[key] == value):
            return "spot"
    for label, values in CAPACITY_LABELS.items():
        found = values.get(labels[label]) if label in labels else None
        if found is not None:
            return found
    return "on-demand"


OS = "kubernetes.io/os"


def notice(node: Node) -> str:
    """What is said to be about to happen to a node or its devices, or nothing."""
    if node.metadata.deletion_timestamp:
        return f"it is being deleted since {node.metadata.deletion_timestamp}"[:100]
    return next((f"{what} {key} announces {NOTICES[key]}" for what, key in _notices(node)), "")


def leaves(node: Node) -> bool:
    """Whether the node itself is announced to go: what runs there is to be replaced before."""
    return bool(node.metadata.deletion_timestamp) or any(key not in GPU_FAULTS for _, key in _notices(node))


def _notices(node: Node) -> Iterator[tuple[str, str]]:
    """(what says it, its key)."""
    yield from (("taint", taint.key) for taint in node.spec.taints or () if taint.key in NOTICES)
    for one in node.status.conditions or ():
        if one.type in NOTICES and one.status == "True":
            yield "condition", one.type


def why_unusable(node: Node, terms: messages.Market, tolerated: Collection[str] = ()) -> str:
    """Why a node takes none of our pods, or nothing. Args: tolerated: further taint keys that our pods tolerate."""
    if node.spec.unschedulable:
        return "cordoned"
    labels = node.metadata.labels or {}
    if labels.get(OS, "linux") != "linux":
        return f"its operating system is {labels[OS]}: models are served by Linux containers"
    for (label, value), key in VIRTUAL.items():
        if labels.get(label) == value and key not in tolerated:
            return f"a virtual node ({label}: {value}): its devices are another's, and are counted there"
    ready = next((one for one in node.status.conditions or () if one.type == "Ready"), None)
    if ready is None or ready.status != "True":
        return f"not ready: {ready.message if ready is not None and ready.message else 'no heartbeat'}"[:300]
    announced = notice(node)
    if announced:
        return announced
    for taint in node.spec.taints or ():
        if taint.effect in BARRING and not tolerates(taint, spot=terms == "spot", tolerated=tolerated):
            return f"taint {taint.key}:{taint.effect} is not tolerated"
    return ""


def tolerates(taint: Taint, *, spot: bool, tolerated: Collection[str] = ()) -> bool:
    """Whether our replicas tolerate a taint of a node."""
    return taint.key in VENDOR_TAINTS or (spot and taint.key in SPOT_TAINTS) or taint.key in tolerated
