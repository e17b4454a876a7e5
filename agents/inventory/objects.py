"""The few fields of Kubernetes objects that an agent reads; what it does not need is dropped while decoding.

Names are the API's own: core/v1, apps/v1, resource.k8s.io/v1, karpenter.sh/v1.
"""

from __future__ import annotations

from typing import Any

import msgspec


class _SpecPart(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """Decoded from JSON; unknown fields are passed over."""


class Meta(_SpecPart, frozen=True, kw_only=True):
    """ObjectMeta."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str = ""
    generation: int = 0


class Taint(_SpecPart, frozen=True, kw_only=True):
    """Of a node or a device."""

    key: str = ""
    value: str = ""
    effect: str = ""


class KubeCondition(_SpecPart, frozen=True, kw_only=True):
    """Of anything that has conditions."""

    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    last_transition_time: str | None = None


# ---- nodes


class NodeMeta(_SpecPart, frozen=True, kw_only=True):
    """What is read of a node's metadata; its annotations are long and of no use here."""

    name: str = ""
    labels: dict[str, str] | None = None
    creation_timestamp: str | None = None
    deletion_timestamp: str = ""


class NodeSpec(_SpecPart, frozen=True, kw_only=True):
    """core/v1 NodeSpec."""

    unschedulable: bool = False
    taints: tuple[Taint, ...] | None = None


class NodeStatus(_SpecPart, frozen=True, kw_only=True):
    """core/v1 NodeStatus."""

    allocatable: dict[str, str] | None = None
    conditions: tuple[KubeCondition, ...] | None = None


class Node(_SpecPart, frozen=True, kw_only=True):
    """core/v1 Node."""

    metadata: NodeMeta
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


# ---- pods


class ContainerResources(_SpecPart, frozen=True, kw_only=True):
    """core/v1 ResourceRequirements."""

    limits: dict[str, str] | None = None
    requests: dict[str, str] | None = None


class ContainerPort(_SpecPart, frozen=True, kw_only=True):
    """core/v1 ContainerPort."""

    name: str = ""
    container_port: int = 0


class Container(_SpecPart, frozen=True, kw_only=True):
    """core/v1 Container."""

    ports: tuple[ContainerPort, ...] | None = None
    resources: ContainerResources | None = None
    restart_policy: str = ""


class PodSpec(_SpecPart, frozen=True, kw_only=True):
    """core/v1 PodSpec."""

    node_name: str = ""
    containers: tuple[Container, ...] | None = None
    init_containers: tuple[Container, ...] | None = None
    overhead: dict[str, str] | None = None
    resources: ContainerResources | None = None


class Waiting(_SpecPart, frozen=True, kw_only=True):
    """core/v1 ContainerStateWaiting, or what ContainerStateTerminated shares with it."""

    reason: str = ""
    message: str = ""
    exit_code: int | None = None


class ContainerState(_SpecPart, frozen=True, kw_only=True):
    """core/v1 ContainerState."""

    waiting: Waiting | None = None
    terminated: Waiting | None = None


class ContainerStatus(_SpecPart, frozen=True, kw_only=True):
    """core/v1 ContainerStatus."""

    state: ContainerState | None = None
    last_state: ContainerState | None = None
    restart_count: int = 0
    ready: bool = False


class PodStatus(_SpecPart, frozen=True, kw_only=True):
    """core/v1 PodStatus."""

    phase: str = ""
    reason: str = ""
    message: str = ""
    pod_ip: str = msgspec.field(name="podIP", default="")
    conditions: tuple[KubeCondition, ...] | None = None
    container_statuses: tuple[ContainerStatus, ...] | None = None
    init_container_statuses: tuple[ContainerStatus, ...] | None = None


class PodMeta(_SpecPart, frozen=True, kw_only=True):
    """What is read of a pod's metadata."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] | None = None
    creation_timestamp: str = ""
    deletion_timestamp: str = ""


class Pod(_SpecPart, frozen=True, kw_only=True):
    """core/v1 Pod."""

    metadata: PodMeta
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


# ---- deployments


class DeploymentSpec(_SpecPart, frozen=True, kw_only=True):
    """apps/v1 DeploymentSpec."""

    replicas: int = 1


class DeploymentStatus(_SpecPart, frozen=True, kw_only=True):
    """apps/v1 DeploymentStatus."""

    ready_replicas: int = 0
    updated_replicas: int = 0
    replicas: int = 0
    observed_generation: int = 0
    conditions: tuple[KubeCondition, ...] | None = None


class Deployment(_SpecPart, frozen=True, kw_only=True):
    """apps/v1 Deployment."""

    metadata: Meta
    spec: DeploymentSpec = DeploymentSpec()
    status: DeploymentStatus = DeploymentStatus()


# ---- dynamic resource allocation


class Attribute(_SpecPart, frozen=True, kw_only=True):
    """resource.k8s.io/v1 DeviceAttribute: one of these."""

    string: str | None = None
    int: Any = None
    bool: Any = None
    version: str | None = None


class Capacity(_SpecPart, frozen=True, kw_only=True):
    """resource.k8s.io/v1 DeviceCapacity."""

    value: str = ""


class Device(_SpecPart, frozen=True, kw_only=True):
    """resource.k8s.io/v1 Device."""

    name: str = ""
    attributes: dict[str, Attribute] | None = None
    capacity: dict[str, Capacity] | None = None
    taints: tuple[Taint, ...] | None = None
    consumes_counters: tuple[dict[str, Any], ...] | None = None
    node_name: str = ""
    all_nodes: bool = False
    allow_multiple_allocations: bool = False


class SlicePool(_SpecPart, frozen=True, kw_only=True):
    """resource.k8s.io/v1 ResourcePool."""

    name: str = ""
    generation: int = 0
    resource_slice_count: int = 1


class SliceSpec(_SpecPart, frozen=True, kw_only=True):
    """resource.k8s.io/v1 ResourceSliceSpec."""

    driver: str = ""
    pool: SlicePool = SlicePool()
    node_name: str = ""
    all_nodes: bool = False
    devices: tuple[Device, ...] | None = None


class Slice(_SpecPart, frozen=True, kw_only=True):
    """resource.k8s.io/v1 ResourceSlice."""

    metadata: PodMeta
    spec: SliceSpec


class DeviceResult(_SpecPart, frozen=True, kw_only=True):
    """resource.k8s.io/v1 DeviceRequestAllocationResult."""

    driver: str = ""
    pool: str = ""
    device: str = ""
    admin_access: bool | None = None


class DeviceAllocation(_SpecPart, frozen=True, kw_only=True):
    """resource.k8s.io/v1 DeviceAllocationResult."""

    results: tuple[DeviceResult, ...] | None = None


class Allocation(_SpecPart, frozen=True, kw_only=True):
    """resource.k8s.io/v1 AllocationResult."""

    devices: DeviceAllocation = DeviceAllocation()


class ClaimStatus(_SpecPart, frozen=True, kw_only=True):
    """resource.k8s.io/v1 ResourceClaimStatus."""

    allocation: Allocation | None = None


class Claim(_SpecPart, frozen=True, kw_only=True):
    """resource.k8s.io/v1 ResourceClaim."""

    metadata: PodMeta
    status: ClaimStatus = ClaimStatus()


# ---- autoscalers


class Requirement(_SpecPart, frozen=True, kw_only=True):
    """karpenter.sh/v1 NodeSelectorRequirementWithMinValues."""

    key: str = ""
    operator: str = ""
    values: tuple[str, ...] | None = None


class TemplateSpec(_SpecPart, frozen=True, kw_only=True):
    """karpenter.sh/v1 NodeClaimTemplateSpec."""

    requirements: tuple[Requirement, ...] | None = None
    taints: tuple[Taint, ...] | None = None


class TemplateMeta(_SpecPart, frozen=True, kw_only=True):
    """What its nodes are labelled with."""

    labels: dict[str, str] | None = None


class Template(_SpecPart, frozen=True, kw_only=True):
    """karpenter.sh/v1 NodeClaimTemplate."""

    metadata: TemplateMeta = TemplateMeta()
    spec: TemplateSpec = TemplateSpec()


class NodePoolSpec(_SpecPart, frozen=True, kw_only=True):
    """karpenter.sh/v1 NodePoolSpec."""

    template: Template = Template()
    limits: dict[str, Any] | None = None
    replicas: int | None = None


class NodePoolStatus(_SpecPart, frozen=True, kw_only=True):
    """karpenter.sh/v1 NodePoolStatus."""

    resources: dict[str, Any] | None = None
    conditions: tuple[KubeCondition, ...] | None = None


class NodePool(_SpecPart, frozen=True, kw_only=True):
    """karpenter.sh/v1 NodePool."""

    metadata: Meta
    spec: NodePoolSpec = NodePoolSpec()
    status: NodePoolStatus = NodePoolStatus()
