"""Devices that are offered through Dynamic Resource Allocation: ResourceSlices in, offers per node out.

Sources, by the title of their documentation: Kubernetes "Dynamic Resource Allocation" (resource.k8s.io/v1: only the
slices of the highest generation of a pool count, and only once all of them are there; device taints; claims) and
"NVIDIA DRA driver for GPUs" (attributes `type`, `productName`, `profile`, `uuid`, `parentUUID`; capacity `memory`) and
"AMD GPU DRA driver" (types `amdgpu` and `amdgpu-partition`, `partitionProfile`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from agents.inventory import market
from agents.inventory.objects import Claim, Device, Slice
from agents.inventory.offers import MIG_PROFILE, Access, Offer, condition
from federation.wire import messages, quantity

DRIVERS = {
    "gpu.nvidia.com": "nvidia",
    "gpu.amd.com": "amd",
    "gpu.intel.com": "intel",
    "gaudi.intel.com": "gaudi",
    "tpu.google.com": "google-tpu",
}
"""Drivers of accelerators. Others (network cards, CPUs) publish devices too, which are none of ours."""
_ACCELERATOR = re.compile(r"(?:.*[.-])?(?:v?gpus?|npus?|tpus?|neuron|gaudi|accelerators?)(?:[.-].*)?", re.IGNORECASE)
"""Drivers that offer accelerators by their names."""
PARTS = {"mig": "profile", "amdgpu-partition": "partitionProfile"}
"""Types of devices that are a part of one, and the attribute that says which."""
WHOLE = ("gpu", "amdgpu")
INTEL = ("gpu.intel.com", "gaudi.intel.com")
_AMD_PROFILE = re.compile(r"[a-z]{3}_nps[0-9]")
_NAME = re.compile(r"[^A-Za-z0-9._-]+")

DeviceId = tuple[str, str, str]
"""(driver, pool, device)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """One kind of devices on one node; `free` are those that no claim holds."""

    node: str
    offer: Offer
    free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dynamic:
    """All that slices and claims say."""

    offered: tuple[Offered, ...] = ()
    conditions: tuple[messages.Condition, ...] = ()


def unread(versions: Iterable[str]) -> tuple[messages.Condition, ...]:
    """What is told of a cluster that serves devices in older versions of the API alone."""
    text = (
        f"resource.k8s.io is served as {', '.join(sorted(versions)) or 'nothing'} and not as v1, which Kubernetes has "
        "since 1.34: devices of DRA drivers are not counted here"
    )
    return (condition("DeviceApiTooOld", "cluster", text),)


def allocated(claims: Iterable[Claim]) -> frozenset[DeviceId]:
    """Devices that claims hold; administrators' access holds nothing."""
    return frozenset(
        (one.driver, one.pool, one.device)
        for claim in claims
        if claim.status.allocation is not None
        for one in claim.status.allocation.devices.results or ()
        if not one.admin_access
    )


def read(slices: Iterable[Slice], held: Collection[DeviceId], markets: Mapping[str, messages.Market]) -> Dynamic:
    """What the slices offer on each node. Args: held: devices that claims hold. markets: node -> its market."""
    pools: dict[tuple[str, str], list[Slice]] = defaultdict(list)
    unknown: set[str] = set()
    for one in slices:
        if one.spec.driver in DRIVERS:
            pools[one.spec.driver, one.spec.pool.name].append(one)
        elif _ACCELERATOR.fullmatch(one.spec.driver) and one.spec.devices:
            unknown.add(one.spec.driver)
    conditions: list[messages.Condition] = [
        condition(
            "UnknownAccelerator", f"resourceslices/{driver}", "a driver that is not known here; nothing is placed"
        )
        for driver in sorted(unknown)
    ]
    counts: dict[tuple[str, messages.PoolKey], list[tuple[Offer, bool]]] = defaultdict(list)
    for (driver, pool), found in sorted(pools.items()):
        names = frozenset(device for one, of, device in held if (one, of) == (driver, pool))
        for node, taken, offer in _devices(driver, pool, found, names, markets, conditions):
            counts[node, offer.key].append((offer, taken))
    offered = []
    for (node, _), found_offers in sorted(counts.items()):
        known = [one.vram_gib for one, _ in found_offers]
        least = None if any(one is None for one in known) else min(one for one in known if one is not None)
        first = found_offers[0][0]
        usable = [taken for one, taken in found_offers if one.devices]
        offer = Offer(key=first.key, access=first.access, devices=len(usable), vram_gib=least, verified=first.verified)
        offered.append(Offered(node=node, offer=offer, free=sum(not taken for taken in usable)))
    return Dynamic(offered=tuple(offered), conditions=tuple(conditions))


def _devices(
    driver: str,
    pool: str,
    slices: list[Slice],
    held: Collection[str],
    markets: Mapping[str, messages.Market],
    conditions: list[messages.Condition],
) -> Iterable[tuple[str, bool, Offer]]:
    """(node, whether it is taken, offer) of every device of the newest complete generation of one pool.

    Args: held: names of the pool's devices that claims hold.
    """
    subject = f"resourceslices/{driver}/{pool}"
    newest = max(one.spec.pool.generation for one in slices)
    current = [one for one in slices if one.spec.pool.generation == newest]
    wanted = current[0].spec.pool.resource_slice_count
    if len(current) != wanted:
        text = f"{len(current)} of {wanted} slices of generation {newest}: its devices are not counted yet"
        conditions.append(condition("IncompletePool", subject, text))
        return
    seen: set[str] = set()
    cut = _cut(driver, current)
    drained = _drained(current, held)
    for one in sorted(current, key=lambda each: each.metadata.name):
        for device in one.spec.devices or ():
            if device.name in seen:
                conditions.append(condition("BadDevice", subject, f"device {device.name!r} appears twice"))
                continue
            seen.add(device.name)
            if _text(device, driver, "type") in WHOLE and _text(device, driver, "uuid") in cut:
                text = f"device {device.name} is cut into parts, which are counted in its place"
                conditions.append(condition("CutDevice", subject, text))
                continue
            node = one.spec.node_name or device.node_name
            if not node:
                text = f"device {device.name} belongs to no single node, and is not counted"
                conditions.append(condition("NotOfOneNode", subject, text))
                continue
            offer = _offer(driver, device, markets.get(node, "on-demand"), subject, conditions)
            if offer is not None:
                yield node, device.name in held or not drained.isdisjoint(_counter_sets(device)), offer


def _counter_sets(device: Device) -> frozenset[str]:
    """Of the silicon that a device is cut from."""
    return frozenset(str(one.get("counterSet", "")) for one in device.consumes_counters or ())


def _drained(slices: Iterable[Slice], held: Collection[str]) -> frozenset[str]:
    """Counter sets that a held device draws on: who asks for all of the same silicon waits, though its name is free."""
    devices = (device for one in slices for device in one.spec.devices or () if device.name in held)
    return frozenset(name for device in devices for name in _counter_sets(device))


def _cut(driver: str, slices: Iterable[Slice]) -> frozenset[str]:
    """UUIDs of whole devices whose parts are offered beside them, and not cut from them on demand."""
    devices = [device for one in slices for device in one.spec.devices or () if not device.consumes_counters]
    return frozenset(_text(device, driver, "parentUUID") for device in devices) - {""}


def _offer(
    driver: str, device: Device, terms: messages.Market, subject: str, conditions: list[messages.Condition]
) -> Offer | None:
    kind = _text(device, driver, "type") or "gpu"
    if kind not in WHOLE and kind not in PARTS:
        return None  # `vfio` and others are the same silicon offered in another way
    if kind in PARTS and device.consumes_counters:
        return None  # cut from a card on demand, which is counted whole
    if device.allow_multiple_allocations:
        conditions.append(condition("SharedDevice", subject, f"device {device.name} is shared, and is not counted"))
        return None
    vendor = DRIVERS[driver]
    name = _NAME.sub("-", _text(device, driver, _product_attribute(device, driver))).strip("-.")[:100]
    name = f"Intel-{name}" if name and driver in INTEL else name
    profile = _text(device, driver, PARTS[kind]) if kind in PARTS else ""
    if kind in PARTS and not (MIG_PROFILE if kind == "mig" else _AMD_PROFILE).fullmatch(profile):
        text = f"device {device.name} has the profile {profile!r}: none of a part; it is not counted"
        conditions.append(condition("BadDevice", subject, text))
        return None
    vram_gib, doubt = _vram(device, driver)
    if vram_gib is None and not doubt:
        text = (
            f"device {device.name} of {driver} says no memory: its VRAM is unknown, and models that need some stay off"
        )
        conditions.append(condition("MemoryUnknown", subject, text))
    usable = not doubt
    if doubt:
        conditions.append(condition("BadDevice", subject, f"{doubt}; it is not counted"))
    if _unhealthy(device, driver):
        conditions.append(
            condition("DeviceUnhealthy", subject, f"device {device.name}: its driver says so; not counted")
        )
        usable = False
    for taint in device.taints or ():
        announced = market.NOTICES.get(taint.key, f"taint {taint.key}")
        conditions.append(condition("DeviceTainted", subject, f"device {device.name}: {announced}"))
        usable = usable and taint.effect not in market.BARRING
    product = name or f"{vendor}-unverified"
    return Offer(
        key=messages.PoolKey(product=product, mig_profile=messages.partition_name(profile), market=terms),
        access=_access(driver, device, kind, profile),
        devices=1 if usable else 0,
        vram_gib=vram_gib,
        verified=bool(name),
    )


def _access(driver: str, device: Device, kind: str, profile: str) -> Access:
    device_class = "mig.nvidia.com" if driver == "gpu.nvidia.com" and kind == "mig" else driver
    tests = [f"device.driver == {_quoted(driver)}"]
    for name in ("type", _product_attribute(device, driver), *((PARTS[kind],) if profile else ())):
        value = _text(device, driver, name)
        if value:
            tests.append(f"device.attributes[{_quoted(driver)}].{name} == {_quoted(value)}")
    return Access(device_class=device_class, expression=" && ".join(tests))


def _product_attribute(device: Device, driver: str) -> str:
    """Intel's drivers name the product by its model."""
    return "model" if driver in INTEL and not _text(device, driver, "productName") else "productName"


def _unhealthy(device: Device, driver: str) -> bool:
    """What drivers of Intel's say of a device's health: a truth value, or a word."""
    attributes = device.attributes or {}
    found = attributes.get("healthy") or attributes.get(f"{driver}/healthy")
    return (found is not None and found.bool is False) or _text(device, driver, "health") == "Unhealthy"


def _quoted(text: str) -> str:
    """A CEL string: what the driver wrote is data, whatever it holds."""
    return '"' + "".join(one if one.isprintable() and one not in '\\"' else f"\\u{ord(one):04x}" for one in text) + '"'


def _text(device: Device, driver: str, name: str) -> str:
    """An attribute by its short name, which stands for the driver's own."""
    attributes = device.attributes or {}
    found = attributes.get(name) or attributes.get(f"{driver}/{name}")
    return (found.string or "") if found is not None else ""


def _vram(device: Device, driver: str) -> tuple[float | None, str]:
    """VRAM in GiB, None where nothing says it; and why what is said cannot be true."""
    capacity = device.capacity or {}
    found = capacity.get("memory") or capacity.get(f"{driver}/memory")
    if found is None:
        return None, ""
    amount = quantity.mib(found.value)
    if quantity.thousandths(found.value) == 0:
        return None, ""  # what a driver publishes that may not ask
    if amount is None or not 256 <= amount <= quantity.MAX_VRAM_MIB:
        return None, f"device {device.name} has a memory of {found.value[:40]!r}: not bytes"
    return round(amount / 1024, 1), ""
