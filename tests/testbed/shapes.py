"""Nodes and devices as vendors' components would register them, for control planes whose kubelets are simulated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.testbed.cluster import ControlPlane

L4 = {"nvidia.com/gpu.product": "NVIDIA-L4", "nvidia.com/gpu.memory": "23034"}
A100 = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB", "nvidia.com/gpu.memory": "81920"}
H100_MIXED = {
    "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
    "nvidia.com/gpu.memory": "81559",
    "nvidia.com/mig.strategy": "mixed",
    "nvidia.com/mig-1g.20gb.memory": "19968",
    "nvidia.com/mig-3g.40gb.memory": "40192",
}
T4_SHARED = {
    "nvidia.com/gpu.product": "Tesla-T4-SHARED",
    "nvidia.com/gpu.memory": "16384",
    "nvidia.com/gpu.replicas": "4",
    "nvidia.com/gpu.sharing-strategy": "time-slicing",
}
MI300X = {"amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM", "amd.com/gpu.vram": "192G"}


def add_node(
    plane: ControlPlane,
    name: str,
    labels: Mapping[str, str],
    devices: Mapping[str, int],
    *,
    cpu: str = "64",
    memory: str = "512Gi",
) -> None:
    """Register a node with these labels and extended resources."""
    amounts = {"cpu": cpu, "memory": memory, "pods": "110"} | {key: str(count) for key, count in devices.items()}
    if "nvidia.com/gpu.product" in labels and "nvidia.com/gpu" in devices:
        shared_by = int(labels.get("nvidia.com/gpu.replicas", "1"))
        labels = {"nvidia.com/gpu.count": str(devices["nvidia.com/gpu"] // shared_by), **labels}
    metadata = {
        "name": name,
        "labels": {"kubernetes.io/hostname": name, "topology.kubernetes.io/region": "r1", **labels},
        "annotations": {"kwok.x-k8s.io/node": "fake"},
    }
    status = {"capacity": amounts, "allocatable": amounts}
    plane.request("POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": status})


def add_dynamic_devices(plane: ControlPlane, node: str, product: str, count: int, *, memory: str) -> None:
    """Publish GPUs of a node as NVIDIA's driver for Dynamic Resource Allocation does, and its device class."""
    expression = 'device.driver == "gpu.nvidia.com"'
    plane.apply(
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "DeviceClass",
            "metadata": {"name": "gpu.nvidia.com"},
            "spec": {"selectors": [{"cel": {"expression": expression}}]},
        }
    )
    devices: list[dict[str, Any]] = [
        {
            "name": f"gpu-{number}",
            "attributes": {"type": {"string": "gpu"}, "productName": {"string": product}},
            "capacity": {"memory": {"value": memory}},
        }
        for number in range(count)
    ]
    plane.apply(
        {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceSlice",
            "metadata": {"name": f"{node}-gpu.nvidia.com"},
            "spec": {
                "driver": "gpu.nvidia.com",
                "nodeName": node,
                "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
                "devices": devices,
            },
        }
    )


def occupy(plane: ControlPlane, name: str, node: str, devices: Mapping[str, int], *, cpu: str = "1") -> None:
    """A pod of somebody else, on this node."""
    amounts = {"cpu": cpu} | {key: str(count) for key, count in devices.items()}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "nodeName": node,
            "containers": [{"name": "c", "image": "busy", "resources": {"requests": amounts, "limits": amounts}}],
        },
    }
    plane.request("POST", "/api/v1/namespaces/default/pods", pod)
