"""What clusters of every vendor look like, and what they truly offer. Each shape is a file that names its source.

A wrong pool sends replicas where nothing can run them, or leaves paid devices idle.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agents.inventory import usage
from agents.inventory.objects import Claim, Node, Pod, Slice
from agents.inventory.pools import Inventory, facts, inventory
from federation.wire import messages, quantity
from tests.builders import a_report

SHAPES = sorted((Path(__file__).parent / "shapes").glob("*.yaml"))


def node(number: int, given: dict[str, Any]) -> Node:
    """A node as its kubelet and its labellers would write it."""
    ready = {"type": "Ready", "status": "True"}
    raw = {
        "metadata": {
            "name": f"node-{number}",
            "labels": given.get("labels", {}),
            "deletionTimestamp": given.get("deletionTimestamp", ""),
        },
        "spec": {"unschedulable": given.get("unschedulable", False), "taints": given.get("taints", [])},
        "status": {
            "allocatable": given.get("allocatable", {}),
            "conditions": [*given.get("conditions", []), ready],
        },
    }
    return msgspec.convert(raw, Node)


def pod(given: dict[str, Any]) -> Pod:
    """A running pod of one container."""
    requests = {"cpu": given.get("cpu", "0"), "memory": given.get("memory", "0"), **given.get("devices", {})}
    raw = {
        "metadata": {},
        "spec": {"nodeName": given["node"], "containers": [{"resources": {"requests": requests}}]},
        "status": {"phase": "Running"},
    }
    return msgspec.convert(raw, Pod)


def report_of(found: Inventory) -> messages.Report:
    """What an agent would say of it."""
    return a_report("c", pools=found.pools, nodes=found.unwell, conditions=found.conditions)


def take_stock(shape: dict[str, Any]) -> Inventory:
    """The inventory of a shape."""
    pods = [pod(one) for one in shape.get("pods", [])]
    pods += [msgspec.convert({"metadata": {}, **one}, Pod) for one in shape.get("raw_pods", [])]
    claims = [
        {"results": [{"driver": driver, "pool": pool, "device": device, "request": "r"}]}
        for driver, pool, device in shape.get("claims", [])
    ]
    return inventory(
        [facts(node(number, one)) for number, one in enumerate(shape.get("nodes", []))],
        usage.by_node((one.spec.node_name, usage.of_pod(one)) for one in pods),
        dynamic=[
            msgspec.convert({"metadata": {"name": f"slice-{number}"}, "spec": one}, Slice)
            for number, one in enumerate(shape.get("slices", []))
        ],
        claims=[msgspec.convert({"metadata": {}, "status": {"allocation": {"devices": one}}}, Claim) for one in claims],
    )


@pytest.mark.parametrize("path", SHAPES, ids=lambda path: path.stem)
def test_a_clusters_devices_are_what_its_vendor_documents(path: Path) -> None:
    """Replicas would be sent where nothing can run them, or devices that are paid for would stay idle."""
    shape = yaml.safe_load(path.read_text())
    assert shape["documentation"]
    found = take_stock(shape)
    assert [one.key.text for one in found.pools] == [one["pool"] for one in shape["pools"]]
    for pool, wanted in zip(found.pools, shape["pools"], strict=True):
        assert (pool.vram_gib if pool.vram_known else None) == wanted["vram_gib"]
        assert (pool.allocatable, pool.free) == (wanted["allocatable"], wanted["free"])
        assert pool.verified == wanted.get("verified", True)
        assert pool.leaving == wanted.get("leaving", 0)
        assert pool.sharing == wanted.get("sharing", "none")
        access = found.access[pool.key]
        assert (access.resource, access.device_class) == (wanted.get("resource", ""), wanted.get("device_class", ""))
        for name in ("region", "zones", "instance_types"):
            if name in wanted:
                assert msgspec.to_builtins(getattr(pool, name)) in (wanted[name], tuple(wanted[name]))
        if "room" in wanted:
            assert pool.room is not None
            rows = [[one.nodes, one.devices, one.cpu_millis, one.memory_mib] for one in pool.room]
            assert rows == wanted["room"]
    assert sorted({one.type for one in found.conditions}) == shape.get("conditions", [])
    if "condition_objects" in shape:
        assert [one.object for one in found.conditions] == shape["condition_objects"]
    assert [one.name for one in found.unwell] == shape.get("unwell", [])
    for one in shape.get("fits", []):
        pool = next(pool for pool in found.pools if pool.key.text == one["pool"])
        fit = messages.replicas_that_fit(
            pool.room or (),
            devices=one["devices"],
            cpu_millis=quantity.millis(one["cpu"]) or 0,
            memory_mib=quantity.mib(one["memory"]) or 0,
        )
        assert fit == one["replicas"], one


def test_an_owner_may_have_virtual_nodes_used() -> None:
    """Who bursts into a cloud's containers on purpose could not say so."""
    given = {"type": "virtual-kubelet", "nvidia.com/gpu.product": "Tesla-T4"}
    virtual = node(0, {"labels": given, "allocatable": {"nvidia.com/gpu": "1"}})
    assert "virtual node" in facts(virtual).unusable
    assert facts(virtual, tolerated=("virtual-kubelet.io/provider",)).unusable == ""


def test_there_are_shapes_of_every_kind() -> None:
    """Fewer than 25 shapes, and what customers run is not covered."""
    assert len(SHAPES) >= 25


HOSTILE = [
    "-1",
    "-23034",
    "1e400",
    "99999999999999999999",
    "NaN",
    "",
    "80GB",
    "22.5",
    "0x10",
    "١٢٣",
    "12 ",
    "0",
    "9" * 63,
]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize("label", ["nvidia.com/gpu.memory", "nvidia.com/gpu.replicas"])
def test_a_label_that_cannot_be_true_is_said_and_gives_no_capacity(label: str, value: str) -> None:
    """One wrong label, or a hostile one, would draw every replica to a cluster that cannot run them."""
    labels = {"nvidia.com/gpu.product": "NVIDIA-L4", "nvidia.com/gpu.memory": "23034", label: value}
    found = take_stock({"nodes": [{"labels": labels, "allocatable": {"cpu": "8", "nvidia.com/gpu": "4"}}]})
    assert sum(pool.allocatable for pool in found.pools) == 0
    assert [one.type for one in found.conditions] == ["BadLabel"]
    assert label in found.conditions[0].message


@pytest.mark.parametrize("value", ["-4", "1e99", "4.5", "many", "99999999", "4Zi", ""])
def test_a_quantity_that_is_no_count_is_said_and_gives_no_capacity(value: str) -> None:
    """A broken device plugin would give the plan devices that do not exist."""
    labels = {"nvidia.com/gpu.product": "NVIDIA-L4", "nvidia.com/gpu.memory": "23034"}
    found = take_stock({"nodes": [{"labels": labels, "allocatable": {"cpu": "8", "nvidia.com/gpu": value}}]})
    assert found.pools == ()
    assert [one.type for one in found.conditions] == ["BadQuantity"]


@pytest.mark.parametrize(
    ("labels", "resource"),
    [
        ({"amd.com/gpu.product-name": "MI300X", "amd.com/gpu.vram": "-64G"}, "amd.com/gpu"),
        ({"amd.com/gpu.product-name": "MI300X", "amd.com/gpu.vram": "65536"}, "amd.com/gpu"),
        ({"amd.com/gpu.product-name": "MI300X", "amd.com/gpu.vram": "99999G"}, "amd.com/gpu"),
        ({"amd.com/gpu.product-name": "../../x"}, "amd.com/gpu"),
        ({"nvidia.com/gpu.product": "a/b:c\n"}, "nvidia.com/gpu"),
        ({"nvidia.com/gpu.product": "x" * 200}, "nvidia.com/gpu"),
        ({"nvidia.com/gpu.product": "NVIDIA-L4"}, "nvidia.com/mig-9g.huge"),
        ({"gpu.intel.com/product": "Max_1100", "gpu.intel.com/device.count": "-3"}, "gpu.intel.com/i915"),
        ({"cloud.google.com/gke-tpu-accelerator": "t", "cloud.google.com/gke-tpu-topology": "2x"}, "google.com/tpu"),
        ({"cloud.google.com/gke-accelerator": "n", "cloud.google.com/gke-gpu-partition-size": "?"}, "nvidia.com/gpu"),
    ],
)
def test_other_vendors_labels_are_not_believed_either(labels: dict[str, str], resource: str) -> None:
    """A forged label would draw models to devices that are something else."""
    found = take_stock({"nodes": [{"labels": labels, "allocatable": {"cpu": "8", resource: "8"}}]})
    assert found.pools == ()
    assert [one.type for one in found.conditions] == ["BadLabel"]
    assert all(one.message.isprintable() for one in found.conditions)


@pytest.mark.parametrize("value", ["-1", "40GB!", "1e999", "5", "99999Ti", ""])
def test_a_devices_memory_that_cannot_be_true_gives_no_capacity(value: str) -> None:
    """A model would start on a device that is too small for it, and crash."""
    device = {"name": "gpu-0", "attributes": {"productName": {"string": "NVIDIA L4"}}}
    device |= {"capacity": {"memory": {"value": value}}}
    spec = {"driver": "gpu.nvidia.com", "pool": {"name": "n"}, "nodeName": "node-0", "devices": [device]}
    found = take_stock({"nodes": [{"allocatable": {"cpu": "8"}}], "slices": [spec]})
    assert sum(pool.allocatable for pool in found.pools) == 0
    assert [one.type for one in found.conditions] == ["BadDevice"]


def test_a_product_name_cannot_escape_its_expression() -> None:
    """A driver's string would choose other devices than its own, or make the claim invalid for ever."""
    name = 'X" || true || "' + "\\\n"
    device = {"name": "gpu-0", "attributes": {"productName": {"string": name}}}
    spec = {"driver": "gpu.nvidia.com", "pool": {"name": "n"}, "nodeName": "node-0", "devices": [device]}
    found = take_stock({"nodes": [{"allocatable": {"cpu": "8"}}], "slices": [spec]})
    (access,) = found.access.values()
    assert access.expression.count('"') == 6, "three strings, and none of them ends early"
    assert "\n" not in access.expression


def test_the_report_of_a_huge_and_hostile_cluster_is_still_heard() -> None:
    """One cluster that says too much would be refused whole, and taken for silent."""
    nodes: list[dict[str, Any]] = []
    for number in range(1500):
        labels = {"nvidia.com/gpu.product": f"P{'x' * 50}{number % 300}", "nvidia.com/gpu.memory": "23034"}
        labels |= {"topology.kubernetes.io/zone": f"z{number}", "node.kubernetes.io/instance-type": f"i{number}"}
        taints = [{"key": "nvidia.com/gpu", "value": str(number), "effect": "NoSchedule"}]
        taints += [{"key": f"{'t' * 200}{number}", "effect": "NoSchedule"}] if number % 3 == 0 else []
        amounts = {"cpu": str(number), "memory": f"{number}Gi", "pods": "9", "nvidia.com/gpu": str(1 + number % 7)}
        nodes.append({"labels": labels, "taints": taints, "allocatable": amounts, "unschedulable": number % 5 == 0})
        nodes.append({"labels": labels | {"nvidia.com/gpu.memory": "?" * 60}, "allocatable": amounts})
    found = take_stock({"nodes": nodes})
    report = report_of(found)
    assert len(messages.encode(report)) < messages.MAX_MESSAGE_BYTES * 0.75, "demand and replicas need their part"
    assert messages.decode(messages.encode(report)) == report
    assert {one.type for one in found.conditions} == {"BadLabel", "TooManyPools"}


_TEXT = st.text(max_size=70)
_LABELS = st.sampled_from(
    [
        "nvidia.com/gpu.product",
        "nvidia.com/gpu.memory",
        "nvidia.com/gpu.replicas",
        "nvidia.com/gpu.sharing-strategy",
        "nvidia.com/mig-1g.5gb.memory",
        "amd.com/gpu.vram",
        "amd.com/gpu.product-name",
        "gpu.intel.com/product",
        "gpu.intel.com/device.count",
        "cloud.google.com/gke-tpu-accelerator",
        "cloud.google.com/gke-tpu-topology",
        "topology.kubernetes.io/region",
    ]
)
_RESOURCES = st.sampled_from(
    [
        "cpu",
        "memory",
        "pods",
        "nvidia.com/gpu",
        "nvidia.com/mig-1g.5gb",
        "amd.com/gpu",
        "gpu.intel.com/xe",
        "google.com/tpu",
    ]
)


@pytest.mark.parametrize("name, text", [("cpu", "10000001"), ("cpu", "-4"), ("memory", "9E"), ("memory", "much")])
def test_a_node_of_impossible_size_counts_for_nothing_and_says_so(name: str, text: str) -> None:
    """Refused on the wire, it would silence the cluster; believed, it would draw every replica."""
    sound = {"cpu": "8", "memory": "32Gi", "pods": "10", "nvidia.com/gpu": "1"}
    labels = {"nvidia.com/gpu.product": "NVIDIA-L4", "nvidia.com/gpu.memory": "23034"}
    found = take_stock({"nodes": [{"labels": labels, "allocatable": sound | {name: text}}]})
    report = report_of(found)
    assert messages.decode(messages.encode(report)) == report
    assert [(one.type, name in one.message) for one in found.conditions] == [("BadQuantity", True)]
    room = (found.pools[0].room or ())[0]
    assert (room.cpu_millis if name == "cpu" else room.memory_mib) == 0


@given(st.dictionaries(_LABELS, _TEXT), st.dictionaries(_RESOURCES, _TEXT | st.integers().map(str)))
def test_no_label_or_quantity_stops_the_agent(labels: dict[str, str], allocatable: dict[str, str]) -> None:
    """One odd node would silence a whole cluster."""
    found = take_stock({"nodes": [{"labels": labels, "allocatable": allocatable}]})
    report = report_of(found)
    assert messages.decode(messages.encode(report)) == report, "the controller would refuse the whole report"


def test_an_owners_word_makes_spot_of_labels_that_nobody_knows() -> None:
    """Models that must not run on what can be taken back would run on it."""
    given = {"allocatable": {"cpu": "8", "nvidia.com/gpu": "1"}, "labels": {"nvidia.com/gpu.product": "NVIDIA-L4"}}
    labels = [{}, {"example.com/spot": "yes"}, {"example.com/life": "spot"}, {"example.com/life": "long"}]
    nodes = [node(at, given | {"labels": given["labels"] | one}) for at, one in enumerate(labels)]
    said = ("example.com/spot", "example.com/life=spot")
    assert [facts(one, spot_labels=said).market for one in nodes] == ["on-demand", "spot", "spot", "on-demand"]
    assert {facts(one).market for one in nodes} == {"on-demand"}
