"""What one node offers: devices by product, MIG profile and market, how a pod asks for them, and what is wrong.

Sources, by the title of their documentation: NVIDIA "Kubernetes Device Plugin" and "GPU Feature Discovery" (labels, MIG
strategies, time-slicing, MPS); AMD "Kubernetes Device Plugin" and "Node Labeller"; Intel "GPU device plugin for
Kubernetes" and its Node Feature Discovery rules; Habana "Device Plugin for Kubernetes"; GKE "About TPUs in GKE" and
"About GPUs in GKE"; Alibaba ACK "Labels of GPU nodes"; CoreWeave "Node labels"; DigitalOcean "Automatic labels"; Node
Feature Discovery "Feature discovery" (PCI labels).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from agents.inventory.objects import Node
from federation.wire import messages, quantity
from federation.wire.conditions import ConditionType

GPU_PRODUCT = "nvidia.com/gpu.product"
GPU_MEMORY = "nvidia.com/gpu.memory"
NVIDIA_GPU = "nvidia.com/gpu"
NVIDIA_MIG = "nvidia.com/mig-"
INTEL_PRODUCT = "gpu.intel.com/product"
GKE_GPU = "cloud.google.com/gke-accelerator"
TPU_TYPE = "cloud.google.com/gke-tpu-accelerator"
TPU_TOPOLOGY = "cloud.google.com/gke-tpu-topology"
AMD_PRODUCTS = ("amd.com/gpu.product-name", "beta.amd.com/gpu.product-name")
AMD_PARTITIONS = ("amd.com/gpu.compute-memory-partition", "amd.com/compute-memory-partition")
"""As the node labeller writes it, and as its documentation has it."""
AMD_PARTITIONED = tuple(f"{compute}_nps{memory}" for compute in ("dpx", "tpx", "qpx", "cpx") for memory in (1, 2, 4, 8))
_AMD_WHOLE_GIB = {"MI300A": 128.0, "MI300X": 192.0, "MI325": 256.0, "MI350": 288.0, "MI355": 288.0}
"""Of cards that can be partitioned, by AMD's data sheets: a partition has less, whatever its label says."""

_PROFILE = r"([1-7])g\.([0-9]{1,4})gb(?:[.+-][a-z]{2,8}){0,3}"
_MIG_SUFFIX = re.compile(rf"-MIG-({_PROFILE})$")
MIG_PROFILE = re.compile(_PROFILE)
"""Slices, gigabytes, and what else a profile has: media engines (+me, +me.all, or without, -me), graphics (+gfx)."""
_AMD_VRAM = re.compile(r"([0-9]{1,5})G")
_AMD_VRAM_KEY = re.compile(r"beta\.amd\.com/gpu\.vram\.([0-9]{1,5})G")
_AMD_DEVICE_KEY = re.compile(r"beta\.amd\.com/gpu\.device-id\.([0-9a-f]{4})")
_AMD_PARTITION = re.compile(r"amd\.com/([a-z]{3}_nps[0-9])")
_PCI = re.compile(r"feature\.node\.kubernetes\.io/pci-(?:([0-9a-f]{4})_)?([0-9a-f]{4})(?:_[0-9a-f_]*)?\.present")
_PCI_VENDORS = {"10de": "nvidia", "1002": "amd", "8086": "intel", "1da3": "habana", "1ae0": "google"}
_PCI_ACCELERATORS = ("0300", "0302", "0380", "1200", "0b40")
"""PCI classes: VGA and 3D controllers, other display, processing accelerators, co-processors."""
INSTANCE_TYPE = "node.kubernetes.io/instance-type"
AWS_GPU = ("eks.amazonaws.com/instance-gpu", "karpenter.k8s.aws/instance-gpu")
"""EKS Auto Mode, and Karpenter on AWS: with -name, -manufacturer, -count and -memory in MiB of one device."""
_AWS_GPUS = (
    ("t4", 0.0, "Tesla-T4"),
    ("t4g", 0.0, "NVIDIA-T4G"),
    ("v100", 0.0, "Tesla-V100-SXM2-16GB"),
    ("v100", 30.0, "Tesla-V100-SXM2-32GB"),
    ("a10g", 0.0, "NVIDIA-A10G"),
    ("l4", 0.0, "NVIDIA-L4"),
    ("l40s", 0.0, "NVIDIA-L40S"),
    ("a100", 0.0, "NVIDIA-A100-SXM4-40GB"),
    ("a100", 70.0, "NVIDIA-A100-SXM4-80GB"),
    ("h100", 0.0, "NVIDIA-H100-80GB-HBM3"),
    ("h200", 0.0, "NVIDIA-H200"),
    ("b200", 0.0, "NVIDIA-B200"),
    ("b300", 0.0, "NVIDIA-B300-SXM6-AC"),
    ("rtx-pro-server-6000", 0.0, "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition"),
)
"""Name in lower case, from so many GiB -> as GPU feature discovery names it. Source: Karpenter, "Instance types"."""
ACK_GPU = "aliyun.accelerator/nvidia"
"""With _name as NVIDIA's own, _count and _mem of one device, as 23028MiB."""
_ACK_MEMORY = re.compile(r"([0-9]{3,7})MiB")
COREWEAVE_GPU = "gpu.nvidia.com"
"""With /class or /model, /count, and /vram of one device in thousands of MiB."""
_COREWEAVE_GPUS = {
    "A40": "NVIDIA-A40",
    "A100_PCIE_40GB": "NVIDIA-A100-PCIE-40GB",
    "A100_PCIE_80GB": "NVIDIA-A100-80GB-PCIe",
    "A100_NVLINK": "NVIDIA-A100-SXM4-40GB",
    "A100_NVLINK_80GB": "NVIDIA-A100-SXM4-80GB",
    "H100_PCIE": "NVIDIA-H100-PCIe",
    "H100_NVLINK_80GB": "NVIDIA-H100-80GB-HBM3",
}
DOKS_GPU = "doks.digitalocean.com/gpu-model"
_DOKS_GPUS = {
    "h100": ("NVIDIA-H100-80GB-HBM3", 79.6),
    "h200": ("NVIDIA-H200", 140.4),
    "l40s": ("NVIDIA-L40S", 44.9),
}
_SIZED_GPUS = tuple(
    (re.compile(pattern), product, gib)
    for pattern, product, gib in (
        (r"Standard_NC[0-9]+as_T4_v3", "Tesla-T4", 15.0),
        (r"Standard_NC[0-9]+r?s_v3", "Tesla-V100-PCIE-16GB", 16.0),
        (r"Standard_NC[0-9]+ads_A100_v4", "NVIDIA-A100-80GB-PCIe", 80.0),
        (r"Standard_ND96a(?:sr|s)_(?:A100_)?v4", "NVIDIA-A100-SXM4-40GB", 40.0),
        (r"Standard_ND96am(?:sr|s)_A100_v4", "NVIDIA-A100-SXM4-80GB", 80.0),
        (r"Standard_NC[0-9]+ads_H100_v5", "NVIDIA-H100-NVL", 94.0),
        (r"Standard_NC80adis_H100_v5", "NVIDIA-H100-NVL", 94.0),
        (r"Standard_ND96is(?:r|rf)?_H100_v5", "NVIDIA-H100-80GB-HBM3", 80.0),
        (r"Standard_ND96isr?_H200_v5", "NVIDIA-H200", 141.0),
        (r"Standard_NV(?:36|72)adm?s_A10_v5", "NVIDIA-A10", 24.0),
        (r"Standard_NV6ads_A10_v5", "NVIDIA-A10-4Q", 4.0),
        (r"Standard_NV12ads_A10_v5", "NVIDIA-A10-8Q", 8.0),
        (r"Standard_NV18ads_A10_v5", "NVIDIA-A10-12Q", 12.0),
        (r"VM\.GPU\.A10\.[12]|BM\.GPU\.A10\.4", "NVIDIA-A10", 22.0),
        (r"BM\.GPU4\.8", "NVIDIA-A100-SXM4-40GB", 40.0),
        (r"BM\.GPU\.A100-v2\.8", "NVIDIA-A100-SXM4-80GB", 80.0),
        (r"BM\.GPU\.L40S(?:-NC)?\.4", "NVIDIA-L40S", 44.0),
        (r"BM\.GPU\.H100\.8", "NVIDIA-H100-80GB-HBM3", 79.0),
        (r"BM\.GPU\.H200\.8", "NVIDIA-H200", 140.0),
    )
)
"""Sizes of virtual machines with NVIDIA's GPUs -> product and GiB of one device; a part of a card is a product of its
own. AKS and OKE label no more than the size. Sources: Azure, "GPU accelerated virtual machine sizes"; Oracle, "Compute
shapes"."""
_INTEL_GIB = {"Max_1550": 128.0, "Max_1100": 48.0, "Flex_170": 16.0, "Flex_140": 6.0}
"""VRAM that Intel's data sheets give for one GPU (a Flex 140 card has two): its labels carry none."""
_TPU_GIB = {
    "tpu-v3-device": 32.0,
    "tpu-v3-slice": 32.0,
    "tpu-v4-podslice": 32.0,
    "tpu-v5-lite-device": 16.0,
    "tpu-v5-lite-podslice": 16.0,
    "tpu-v5p-slice": 95.0,
    "tpu-v6e-slice": 32.0,
}
"""HBM of one chip by Google's "TPU system architecture" pages: GKE's labels carry none."""
VENDOR_RESOURCES = re.compile(
    r"nvidia\.com/(gpu|gpu\.shared|mig-[^/]+)|amd\.com/(gpu|[a-z]{3}_nps[0-9])|gpu\.intel\.com/(i915|xe)|"
    r"habana\.ai/gaudi|google\.com/tpu"
)
"""Extended resources that are accelerators."""
_ACCELERATOR = re.compile(
    r"(?:aws\.amazon\.com|amazonaws\.com)/neuron.*|(?:nvidia|amd)\.com/.+|gpu\.intel\.com/.+|habana\.ai/.+|"
    r"(?:huawei\.com/(?:npu|ascend)|cloud-tpus\.google\.com/|cambricon\.com/|iluvatar\.(?:ai|com)/|enflame\.com/|"
    r"hygon\.com/|metax-tech\.com/|mthreads\.com/|kunlunxin\.com/|baidu\.com/|qualcomm\.com/|furiosa\.ai/|"
    r"rebellions\.ai/|tenstorrent\.com/|graphcore\.ai/|cerebras\.(?:net|com)/|xilinx\.com/|vastaitech\.com/).*|"
    r"[^/]+/(?:.*[._-])?(?:[pvx]?[gnt]pus?|vcuda|[mhx][lp]u|accelerator)(?:[._-].*)?",
    re.IGNORECASE,
)
"""Extended resources that are accelerators by their names: of vendors, of providers, and of plugins that cut them."""
_SHARE = re.compile(r"mem|cores?(?:$|[._-])|millicores|tiles|percent", re.IGNORECASE)
"""Of these, what is a share of a device that is mostly offered as such too."""
_NO_ACCELERATOR = re.compile(
    r"monitoring|hostdev|sriov|rdma|roce|infiniband|mlnx|/(?:res)?(?:hca|ib|cx[0-9])|shared_dev|nics?(?:$|[0-9._-])|"
    r"numa|koordinator\.sh/",
    re.IGNORECASE,
)
"""A look at devices, a network card of the same vendor, or Koordinator's hundredths of devices that are offered too."""
MIB = 1024 * 1024
MOST_VRAM_GIB = quantity.MAX_VRAM_MIB / 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One requirement of a node selector."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How a pod gets a device: an extended resource on nodes with these labels, or a device class and an expression.

    `device_class` is set where devices are offered through Dynamic Resource Allocation; `expression` is CEL then.
    """

    resource: str = ""
    terms: tuple[Term, ...] = ()
    device_class: str = ""
    expression: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Devices of one kind on one node. `vram_gib` None is unknown."""

    key: messages.PoolKey
    access: Access
    devices: int
    vram_gib: float | None
    verified: bool = True
    sharing: messages.Sharing = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOffers:
    """What a node offers, and what people should know of it."""

    offers: tuple[Offer, ...] = ()
    conditions: tuple[messages.Condition, ...] = ()


class _Bad(Exception):
    """A label or a quantity that cannot be true."""


def of_node(node: Node, terms: messages.Market) -> NodeOffers:
    """The devices that a node's labels and allocatable resources describe. Doubt gives a condition and no device.

    Args: terms: on which the node is had.
    """
    labels = node.metadata.labels or {}
    allocatable = node.status.allocatable or {}
    found: list[Offer] = []
    conditions: list[messages.Condition] = []
    for resource, text in sorted(allocatable.items()):
        if not VENDOR_RESOURCES.fullmatch(resource):
            continue
        count = quantity.devices(text)
        if count is None:
            conditions.append(_condition("BadQuantity", node, f"{resource} is {text!r}: no number of devices"))
            continue
        if count == 0:
            continue
        try:
            offer = _offer(resource, count, labels, terms)
            most = _described(resource, labels)
        except _Bad as bad:
            conditions.append(_condition("BadLabel", node, f"{bad}; its {count} {resource} are not counted"))
            continue
        if most is not None and count > most:
            text = f"{count} {resource} are offered and labels describe {most}: those are counted"
            conditions.append(_condition("CountDoubted", node, text))
            offer = replace(offer, devices=most)
        if not offer.verified:
            text = f"no label of the vendor says what its {count} {resource} are: VRAM is unknown"
            conditions.append(_condition("Unverified", node, text))
        found.append(offer)
    conditions += _uncounted(node, allocatable)
    if not found and not conditions:
        conditions += _unoffered(node, labels, allocatable)
    return NodeOffers(offers=_one_of_a_kind(found), conditions=tuple(conditions))


def _one_of_a_kind(offers: list[Offer]) -> tuple[Offer, ...]:
    """A node that offers one kind in two ways (MIG strategies in transition) is believed where it offers more."""
    best: dict[messages.PoolKey, Offer] = {}
    for offer in offers:
        if offer.key not in best or offer.devices > best[offer.key].devices:
            best[offer.key] = offer
    return tuple(best[key] for key in sorted(best))


def _condition(kind: ConditionType, node: Node, message: str) -> messages.Condition:
    return condition(kind, f"node/{node.metadata.name}", message)


def condition(kind: ConditionType, subject: str, message: str) -> messages.Condition:
    """A condition whose text is cut to what the wire carries and holds nothing unprintable."""
    clean = "".join(one if one.isprintable() else "?" for one in message)
    return messages.Condition(type=kind, object=subject[:300], message=clean[:300])


def _offer(resource: str, count: int, labels: Mapping[str, str], terms: messages.Market) -> Offer:
    if resource.startswith("nvidia.com/"):
        return _nvidia(resource, count, labels, terms)
    if resource.startswith("amd.com/"):
        return _amd(resource, count, labels, terms)
    if resource.startswith("gpu.intel.com/"):
        return _intel(resource, count, labels, terms)
    if resource == "google.com/tpu":
        return _tpu(resource, count, labels, terms)
    key = messages.PoolKey(product="Intel-Gaudi", market=terms)
    # Habana's plugin names one resource for every generation, and no label tells them apart.
    return Offer(key=key, access=Access(resource=resource), devices=count, vram_gib=None, verified=False)


def _unverified(vendor: str, resource: str, count: int, terms: messages.Market, absent: str) -> Offer:
    key = messages.PoolKey(product=f"{vendor}-unverified", market=terms)
    access = Access(resource=resource, terms=(Term(key=absent, operator="DoesNotExist"),))
    return Offer(key=key, access=access, devices=count, vram_gib=None, verified=False)


# ---- NVIDIA


def _nvidia(resource: str, count: int, labels: Mapping[str, str], terms: messages.Market) -> Offer:
    product = labels.get(GPU_PRODUCT, "")
    if not product:
        return _nvidia_of_provider(resource, count, labels, terms)
    product = _product(GPU_PRODUCT, product)
    access = Access(resource=resource, terms=(Term(key=GPU_PRODUCT, operator="In", values=(product,)),))
    kind = resource.removeprefix("nvidia.com/")
    replicas = _replicas(labels, kind)
    sharing = _sharing(labels, product, kind, replicas)
    base, shared = product.removesuffix("-SHARED"), "-SHARED" if sharing != "none" else ""
    if kind.startswith("mig-"):
        profile = kind.removeprefix("mig-").removesuffix(".shared")
        if not MIG_PROFILE.fullmatch(profile):
            raise _Bad(f"{resource} names no MIG profile")
        base = _MIG_SUFFIX.sub("", base)
        vram_gib = _nvidia_vram(labels, f"nvidia.com/mig-{profile}.memory")
        vram_gib = _profile_vram(profile) if vram_gib is None else vram_gib
    elif single := _MIG_SUFFIX.search(base):
        # Strategy `single`: whole-GPU names throughout, and the memory is the slice's.
        profile, base = single[1], base[: single.start()]
        vram_gib = _nvidia_vram(labels, GPU_MEMORY)
        vram_gib = _profile_vram(profile) if vram_gib is None else vram_gib
    else:
        profile = ""
        vram_gib = _nvidia_vram(labels, GPU_MEMORY)
    if vram_gib is not None and sharing != "none":
        vram_gib = round(vram_gib / replicas, 1)
    key = messages.PoolKey(product=base + shared, mig_profile=profile, market=terms)
    return Offer(key=key, access=access, devices=count, vram_gib=vram_gib, sharing=sharing)


def _nvidia_of_provider(resource: str, count: int, labels: Mapping[str, str], terms: messages.Market) -> Offer:
    """Where no GPU feature discovery runs: by what the provider or its provisioner labels, in NVIDIA's names."""
    for prefix in AWS_GPU:
        if labels.get(f"{prefix}-name") and labels.get(f"{prefix}-manufacturer", "nvidia") == "nvidia":
            return _nvidia_of_aws(prefix, resource, count, labels, terms)
    named = _named_by_provider(labels) if resource == NVIDIA_GPU else None
    if named is None:
        return _nvidia_of_gke(resource, count, labels, terms)
    keys, product, vram_gib = named
    return Offer(
        key=messages.PoolKey(product=product, market=terms),
        access=Access(
            resource=resource, terms=tuple(Term(key=one, operator="In", values=(labels[one],)) for one in keys)
        ),
        devices=count,
        vram_gib=vram_gib,
    )


def _named_by_provider(labels: Mapping[str, str]) -> tuple[tuple[str, ...], str, float | None] | None:
    """(labels that name the product, sorted; the product; GiB of one device), or None where no provider does."""
    if name := labels.get(f"{ACK_GPU}_name"):
        keys = [f"{ACK_GPU}_name"]
        memory = _ACK_MEMORY.fullmatch(labels.get(f"{ACK_GPU}_mem", ""))
        mib = quantity.whole(memory[1], least=256, most=quantity.MAX_VRAM_MIB) if memory is not None else None
        keys += [f"{ACK_GPU}_mem"] if mib is not None else []
        return tuple(sorted(keys)), _product(keys[0], name), round(mib / 1024, 1) if mib is not None else None
    for label in (f"{COREWEAVE_GPU}/class", f"{COREWEAVE_GPU}/model"):
        if name := labels.get(label):
            vram = quantity.whole(labels.get(f"{COREWEAVE_GPU}/vram", ""), least=1, most=int(MOST_VRAM_GIB))
            keys = [label] + ([f"{COREWEAVE_GPU}/vram"] if vram is not None else [])
            product = _COREWEAVE_GPUS.get(name, f"NVIDIA-{_product(label, name)}".replace("_", "-"))
            return tuple(keys), product, None if vram is None else round(vram * 1000 / 1024, 1)
    if labels.get(DOKS_GPU, "") in _DOKS_GPUS:
        return (DOKS_GPU,), *_DOKS_GPUS[labels[DOKS_GPU]]
    size = labels.get(INSTANCE_TYPE, "")
    for pattern, product, gib in _SIZED_GPUS:
        if pattern.fullmatch(size):
            return (INSTANCE_TYPE,), product, gib
    return None


def _nvidia_of_aws(prefix: str, resource: str, count: int, labels: Mapping[str, str], terms: messages.Market) -> Offer:
    keys = {f"{prefix}-name": _product(f"{prefix}-name", labels[f"{prefix}-name"])}
    vram_gib = _nvidia_vram(labels, f"{prefix}-memory")
    if vram_gib is not None:  # two generations of one name differ by it
        keys[f"{prefix}-memory"] = labels[f"{prefix}-memory"]
    name = labels[f"{prefix}-name"]
    named = [product for one, least_gib, product in _AWS_GPUS if one == name and (vram_gib or 0.0) >= least_gib]
    return Offer(
        key=messages.PoolKey(product=named[-1] if named else f"nvidia-{name}", market=terms),
        access=Access(
            resource=resource, terms=tuple(Term(key=k, operator="In", values=(v,)) for k, v in sorted(keys.items()))
        ),
        devices=count,
        vram_gib=vram_gib,
    )


def _nvidia_of_gke(resource: str, count: int, labels: Mapping[str, str], terms: messages.Market) -> Offer:
    """GKE's own plugin labels the product in its own words, and no memory."""
    product = labels.get(GKE_GPU, "")
    if not product:
        return _unverified("nvidia", resource, count, terms, GPU_PRODUCT)
    product = _product(GKE_GPU, product)
    profile = labels.get("cloud.google.com/gke-gpu-partition-size", "")
    if profile and not MIG_PROFILE.fullmatch(profile):
        raise _Bad(f"cloud.google.com/gke-gpu-partition-size is {profile!r}: no MIG profile")
    strategy = labels.get("cloud.google.com/gke-gpu-sharing-strategy", "")
    sharing: messages.Sharing = "time-slicing" if strategy == "time-sharing" else "mps" if strategy == "mps" else "none"
    shared = "-SHARED" if sharing != "none" else ""
    keys = {GKE_GPU: product}
    keys |= {"cloud.google.com/gke-gpu-partition-size": profile} if profile else {}
    keys |= {"cloud.google.com/gke-gpu-sharing-strategy": strategy} if strategy else {}
    access = Access(
        resource=resource, terms=tuple(Term(key=k, operator="In", values=(v,)) for k, v in sorted(keys.items()))
    )
    return Offer(
        key=messages.PoolKey(product=product + shared, mig_profile=profile, market=terms),
        access=access,
        devices=count,
        vram_gib=_profile_vram(profile) if profile and sharing == "none" else None,
        sharing=sharing,
    )


def _sharing(labels: Mapping[str, str], product: str, kind: str, replicas: int) -> messages.Sharing:
    strategy = labels.get("nvidia.com/gpu.sharing-strategy", "")
    if strategy == "mps":
        return "mps"
    shared = product.endswith("-SHARED") or kind.endswith(".shared") or replicas > 1
    return "time-slicing" if strategy == "time-slicing" or shared else "none"


def _described(resource: str, labels: Mapping[str, str]) -> int | None:
    """How many whole devices of NVIDIA the labels describe: a plugin that virtualises offers more, and so does a node
    with cards of two models, of which labels describe one. None where they say nothing."""
    if resource not in (NVIDIA_GPU, f"{NVIDIA_GPU}.shared") or _MIG_SUFFIX.search(labels.get(GPU_PRODUCT, "")):
        return None
    counts = (*(f"{one}-count" for one in AWS_GPU), f"{ACK_GPU}_count", f"{COREWEAVE_GPU}/count")
    for label in ("nvidia.com/gpu.count", *counts):
        if label in labels:
            count = quantity.whole(labels[label], least=1, most=quantity.MAX_DEVICES)
            if count is None:
                raise _Bad(f"{label} is {labels[label]!r}: no number of devices")
            return count * _replicas(labels, "gpu")
    return None


def _replicas(labels: Mapping[str, str], kind: str) -> int:
    """Between how many pods a device is shared; the mixed strategy says it per profile."""
    own = f"nvidia.com/{kind.removesuffix('.shared')}.replicas"
    label = own if own in labels else "nvidia.com/gpu.replicas"
    text = labels.get(label)
    if text is None:
        return 1
    value = quantity.whole(text, least=1, most=quantity.MAX_DEVICES)
    if value is None:
        raise _Bad(f"{label} is {text!r}: no number of replicas")
    return value


def _nvidia_vram(labels: Mapping[str, str], label: str) -> float | None:
    text = labels.get(label)
    if text is None:
        return None
    value = quantity.whole(text, least=256, most=quantity.MAX_VRAM_MIB)
    if value is None:  # GPU Feature Discovery before 0.7 wrote bytes where nothing was cut
        in_bytes = quantity.whole(text, least=256 * MIB, most=quantity.MAX_VRAM_MIB * MIB)
        if in_bytes is None:
            raise _Bad(f"{label} is {text!r}: not MiB")
        value = in_bytes // MIB
    return round(value / 1024, 1)


def _profile_vram(profile: str) -> float:
    """A slice's memory is in its profile's name, in GB."""
    match = MIG_PROFILE.fullmatch(profile)
    assert match is not None, "checked where the profile was read"
    return float(match[2])


# ---- others


def _amd(resource: str, count: int, labels: Mapping[str, str], terms: messages.Market) -> Offer:
    label = next((one for one in AMD_PRODUCTS if labels.get(one)), "amd.com/gpu.device-id")
    value = labels.get(label, "")
    if not value:
        return _amd_of_beta(resource, count, labels, terms)
    value = _product(label, value)
    partition = _AMD_PARTITION.fullmatch(resource)
    said = next((one for one in AMD_PARTITIONS if labels.get(one)), "")
    profile = partition[1] if partition else labels.get(said, "")
    whole = profile in ("", "spx_nps1")
    if not whole and not re.fullmatch(r"[a-z]{3}_nps[0-9]", profile):
        raise _Bad(f"{said} is {profile!r}")
    product = value if label in AMD_PRODUCTS else f"AMD-{value}"
    terms_of = [Term(key=label, operator="In", values=(value,))]
    if whole:  # nodes of one product offer whole cards and partitions by one resource
        terms_of += [Term(key=one, operator="NotIn", values=AMD_PARTITIONED) for one in AMD_PARTITIONS]
    elif not partition:
        terms_of.append(Term(key=said, operator="In", values=(profile,)))
    vram_gib = _amd_vram(labels)
    if not whole and vram_gib is not None:
        most = min((gib for name, gib in _AMD_WHOLE_GIB.items() if name in value.upper()), default=math.inf)
        vram_gib = vram_gib if vram_gib < most else None  # the whole card's: a partition's share is in no label
    return Offer(
        key=messages.PoolKey(product=product, mig_profile="" if whole else profile, market=terms),
        access=Access(resource=resource, terms=tuple(sorted(terms_of, key=lambda one: one.key))),
        devices=count,
        vram_gib=vram_gib,
    )


def _amd_of_beta(resource: str, count: int, labels: Mapping[str, str], terms: messages.Market) -> Offer:
    """By the labels of older labellers, which have the device's id in their name."""
    found = [match for label in sorted(labels) if (match := _AMD_DEVICE_KEY.fullmatch(label))]
    if len(found) != 1:
        return _unverified("amd", resource, count, terms, AMD_PRODUCTS[0])
    return Offer(
        key=messages.PoolKey(product=f"AMD-{found[0][1]}", market=terms),
        access=Access(resource=resource, terms=(Term(key=found[0][0], operator="Exists"),)),
        devices=count,
        vram_gib=_amd_vram(labels),
    )


def _amd_vram(labels: Mapping[str, str]) -> float | None:
    for label in ("amd.com/gpu.vram", "beta.amd.com/gpu.vram"):
        if text := labels.get(label):
            match = _AMD_VRAM.fullmatch(text)
            if match is None or not 0 < int(match[1]) <= MOST_VRAM_GIB:
                raise _Bad(f"{label} is {text!r}: not as 64G")
            return float(match[1])
    sizes = {int(match[1]) for label in labels if (match := _AMD_VRAM_KEY.fullmatch(label))}
    if sizes and not all(0 < size <= MOST_VRAM_GIB for size in sizes):
        raise _Bad("beta.amd.com/gpu.vram is out of bounds")
    return float(min(sizes)) if sizes else None


def _intel(resource: str, count: int, labels: Mapping[str, str], terms: messages.Market) -> Offer:
    value = labels.get(INTEL_PRODUCT, "")
    if not value:
        return _unverified("intel", resource, count, terms, INTEL_PRODUCT)
    value = _product(INTEL_PRODUCT, value)
    cards = labels.get("gpu.intel.com/device.count")
    physical = quantity.whole(cards, least=1, most=64) if cards is not None else count
    if physical is None:
        raise _Bad(f"gpu.intel.com/device.count is {cards!r}: no number of devices")
    # The plugin's `-shared-dev-num` offers every card several times and says so nowhere else.
    shared = count > physical
    vram_gib = _INTEL_GIB.get(value)
    if vram_gib is not None and shared:
        vram_gib = round(vram_gib / -(-count // physical), 1)
    return Offer(
        key=messages.PoolKey(product=f"Intel-{value}" + ("-SHARED" if shared else ""), market=terms),
        access=Access(resource=resource, terms=(Term(key=INTEL_PRODUCT, operator="In", values=(value,)),)),
        devices=count,
        vram_gib=vram_gib,
        sharing="time-slicing" if shared else "none",
    )


def _tpu(resource: str, count: int, labels: Mapping[str, str], terms: messages.Market) -> Offer:
    """A TPU slice is what its type and topology say together, so both are in the product's name."""
    kind, topology = labels.get(TPU_TYPE, ""), labels.get(TPU_TOPOLOGY, "")
    if not kind:
        return _unverified("google-tpu", resource, count, terms, TPU_TYPE)
    kind = _product(TPU_TYPE, kind)
    if topology and not re.fullmatch(r"[0-9]{1,3}(x[0-9]{1,3}){1,2}", topology):
        raise _Bad(f"{TPU_TOPOLOGY} is {topology!r}: not as 2x4")
    chips = math.prod(int(one) for one in topology.split("x")) if topology else count
    if chips > count:  # what starts on one of its nodes waits for the others
        raise _Bad(
            f"{TPU_TOPOLOGY} is {topology!r}: a slice of {chips} chips over several nodes, and a replica is one pod"
        )
    keys = {TPU_TYPE: kind} | ({TPU_TOPOLOGY: topology} if topology else {})
    return Offer(
        key=messages.PoolKey(product=f"{kind}-{topology}" if topology else kind, market=terms),
        access=Access(
            resource=resource, terms=tuple(Term(key=k, operator="In", values=(v,)) for k, v in sorted(keys.items()))
        ),
        devices=count,
        vram_gib=_TPU_GIB.get(kind),
    )


def _product(label: str, value: str) -> str:
    """A label's value as a product's name. Kubernetes admits nothing else; what is recorded elsewhere may hold more."""
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", value):
        raise _Bad(f"{label} is {value[:80]!r}: no product's name")
    return value


def _uncounted(node: Node, allocatable: Mapping[str, str]) -> Iterator[messages.Condition]:
    """Accelerators by a resource that nothing here asks for: Neuron, Ascend, vGPU of Volcano, passthrough, renamed."""
    named = [
        resource
        for resource, text in sorted(allocatable.items())
        if _ACCELERATOR.fullmatch(resource) and not _NO_ACCELERATOR.search(resource) and quantity.thousandths(text) != 0
    ]
    whole = [one for one in named if not _SHARE.search(one)] or named
    found = [f"{allocatable[one]} {one}" for one in whole if not VENDOR_RESOURCES.fullmatch(one)]
    if found:
        text = f"{', '.join(found)}: accelerators by a resource that is not known here; nothing is placed on them"
        yield _condition("UnknownAccelerator", node, text)


def _unoffered(node: Node, labels: Mapping[str, str], allocatable: Mapping[str, str]) -> Iterator[messages.Condition]:
    """Accelerators that the PCI bus shows and no device plugin offers: nothing can run on them yet."""
    for label in sorted(labels):
        match = _PCI.fullmatch(label)
        if match is None or labels[label] != "true" or match[2] not in _PCI_VENDORS:
            continue
        if (match[1] or "") not in _PCI_ACCELERATORS or (match[2] == "8086" and match[1] != "0380"):
            continue  # every Intel server has a VGA controller of Intel's
        text = f"a PCI device of {_PCI_VENDORS[match[2]]} (class {match[1]}) that no device plugin offers"
        yield _condition("NoDevicePlugin", node, text)
