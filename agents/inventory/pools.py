"""Everything together: pools with what is allocatable and free, room node by node, and what people should know."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from agents.inventory import market, offers, slices, usage
from agents.inventory.objects import Claim, Node, Slice
from agents.inventory.offers import Access, Offer, Term, condition
from federation.wire import messages, quantity

MAX_POOLS = 128
MAX_CONDITIONS = 64
MAX_NAMED = 8
MAX_UNWELL = 100
MAX_ROOM = 800
"""Rows of all pools together; beyond them the smallest are left out, which only makes a cluster look fuller. With the
other bounds, a report stays well within what the wire carries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """What is kept of one node that has, or may have, accelerators."""

    name: str
    offers: tuple[Offer, ...]
    conditions: tuple[messages.Condition, ...]
    cpu_millis: int
    memory_mib: int
    pods: int
    unusable: str
    notice: str
    leaves: bool
    market: messages.Market
    region: str
    zone: str
    instance_type: str
    taints: tuple[str, ...]
    group: str
    """The node group that an autoscaler knows it by, or nothing."""
    provisioning_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """One cluster at one instant. `access` says how a pod asks for a device of a pool."""

    pools: tuple[messages.PoolReport, ...] = ()
    unwell: tuple[messages.NodeReport, ...] = ()
    conditions: tuple[messages.Condition, ...] = ()
    access: Mapping[messages.PoolKey, Access] = field(default_factory=dict)


GROUP_LABELS = (
    "karpenter.sh/nodepool",
    "eks.amazonaws.com/nodegroup",
    "cloud.google.com/gke-nodepool",
    "kubernetes.azure.com/agentpool",
    "agentpool",
)


def facts(
    node: Node,
    *,
    tolerated: Collection[str] = (),
    spot_labels: Collection[str] = (),
    provisioning_s: float | None = None,
) -> NodeFacts:
    """What is kept of a node. Args: tolerated, spot_labels: what the cluster's owner says of taints and labels."""
    labels = node.metadata.labels or {}
    allocatable = node.status.allocatable or {}
    terms = market.of(labels, spot_labels)
    found = offers.of_node(node, terms)
    cpu_millis, bad_cpu = _amount(node, "cpu", quantity.millis, messages.MAX_NODE_CPU_MILLIS)
    memory_mib, bad_memory = _amount(node, "memory", quantity.mib, messages.MAX_NODE_MEMORY_MIB)
    return NodeFacts(
        name=node.metadata.name,
        offers=found.offers,
        conditions=found.conditions + (bad_cpu + bad_memory if found.offers else ()),
        cpu_millis=cpu_millis,
        memory_mib=memory_mib,
        pods=(quantity.thousandths(allocatable.get("pods", "")) or 0) // 1000,
        unusable=market.why_unusable(node, terms, tolerated),
        notice=market.notice(node),
        leaves=market.leaves(node),
        market=terms,
        region=labels.get("topology.kubernetes.io/region", "")[:63],
        zone=labels.get("topology.kubernetes.io/zone", ""),
        instance_type=labels.get("node.kubernetes.io/instance-type", ""),
        taints=tuple(sorted(f"{one.key}:{one.effect}" for one in node.spec.taints or ())),
        group=next((labels[label] for label in GROUP_LABELS if labels.get(label)), ""),
        provisioning_s=provisioning_s,
    )


def _amount(
    node: Node, name: str, read: Callable[[str], int | None], most: int
) -> tuple[int, tuple[messages.Condition, ...]]:
    """What a node has of a resource; nothing, and a condition, where what it says cannot be true."""
    text = (node.status.allocatable or {}).get(name, "0")
    value = read(text)
    if value is not None and value <= most:
        return value, ()
    return 0, (condition("BadQuantity", f"node/{node.metadata.name}", f"{name} is {text!r}; none is counted"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Devices of one pool on one node."""

    node: NodeFacts
    offer: Offer
    free: int


def inventory(
    nodes: Iterable[NodeFacts],
    used: Mapping[str, usage.Use],
    *,
    dynamic: Iterable[Slice] = (),
    claims: Iterable[Claim] = (),
) -> Inventory:
    """The cluster as it is. Args: used: node -> what its pods hold. dynamic, claims: Dynamic Resource Allocation."""
    by_name = {one.name: one for one in sorted(nodes, key=lambda each: each.name)}
    markets = {name: one.market for name, one in by_name.items()}
    drawn = slices.read(dynamic, slices.allocated(claims), markets)
    conditions = [one for node in by_name.values() for one in node.conditions] + list(drawn.conditions)
    conditions += [condition("Notice", f"node/{node.name}", node.notice) for node in by_name.values() if node.notice]
    parts: dict[messages.PoolKey, list[_Part]] = defaultdict(list)
    for node in by_name.values():
        held = dict(used.get(node.name, usage.NOTHING).devices)
        for offer in node.offers:
            free = max(0, offer.devices - held.get(offer.access.resource, 0))
            parts[offer.key].append(_Part(node=node, offer=offer, free=free))
    for one in drawn.offered:
        if one.node in by_name:
            parts[one.offer.key].append(_Part(node=by_name[one.node], offer=one.offer, free=one.free))
        else:
            conditions.append(
                condition("NoNode", f"node/{one.node}", "devices are offered on a node that is not there")
            )
    pools, access, unwell = [], {}, []
    rows = MAX_ROOM // max(1, min(len(parts), MAX_POOLS))
    for key in sorted(parts):
        chosen = _one_access(key, parts[key], conditions)
        pools.append(_pool(key, chosen, used, rows))
        access[key] = _joined([part.offer.access for part in chosen])
        unwell += [_unwell(key, part) for part in chosen if part.node.unusable]
    if len(pools) > MAX_POOLS:
        text = f"{len(pools)} pools; the {MAX_POOLS} largest are reported"
        conditions.append(condition("TooManyPools", "cluster", text))
        pools = sorted(sorted(pools, key=lambda one: -one.allocatable)[:MAX_POOLS], key=lambda one: one.key)
    return Inventory(
        pools=tuple(pools),
        unwell=tuple(unwell[:MAX_UNWELL]),
        conditions=_fewest(conditions),
        access=access,
    )


def _fewest(conditions: Iterable[messages.Condition]) -> tuple[messages.Condition, ...]:
    """Each once; of too many of one type the first few, with how many more there are."""
    by_type: dict[str, list[messages.Condition]] = defaultdict(list)
    for one in sorted(set(conditions)):
        by_type[one.type].append(one)
    each = max(1, MAX_CONDITIONS // max(1, 2 * len(by_type)))
    kept: list[messages.Condition] = []
    for kind, found in sorted(by_type.items()):
        kept += found[:each]
        if len(found) > each:
            kept.append(messages.Condition(type=kind, object="cluster", message=f"and {len(found) - each} more"))
    return tuple(kept[:MAX_CONDITIONS])


def _one_access(key: messages.PoolKey, parts: list[_Part], conditions: list[messages.Condition]) -> list[_Part]:
    """A pod can ask for a device in one way only: of two ways to the same kind, the one with more devices counts."""
    ways: dict[tuple[str, str], list[_Part]] = defaultdict(list)
    for part in parts:
        ways[part.offer.access.device_class, part.offer.access.resource].append(part)
    if len(ways) == 1:
        return parts
    best = max(sorted(ways), key=lambda way: sum(part.offer.devices for part in ways[way]))
    for way in sorted(ways):
        if way != best:
            left = sum(part.offer.devices for part in ways[way])
            text = f"{left} devices of {key.text} are had by {way[0] or way[1]} and not by {best[0] or best[1]}"
            conditions.append(condition("TwoWays", f"pool/{key.text}", f"{text}: they are not counted"))
    return ways[best]


def _joined(found: list[Access]) -> Access:
    """One way that serves all nodes of a pool."""
    first = found[0]
    values: dict[tuple[str, str], set[str]] = defaultdict(set)
    for one in found:
        for term in one.terms:
            values[term.key, term.operator].update(term.values)
    common = [key for key in sorted(values) if all(any((t.key, t.operator) == key for t in one.terms) for one in found)]
    terms = tuple(
        Term(key=key, operator=operator, values=tuple(sorted(values[key, operator])))  # type: ignore[arg-type]
        for key, operator in common
    )
    return Access(resource=first.resource, terms=terms, device_class=first.device_class, expression=first.expression)


def _pool(key: messages.PoolKey, parts: list[_Part], used: Mapping[str, usage.Use], rows: int) -> messages.PoolReport:
    usable = [part for part in parts if not part.node.unusable]
    told = [part.offer.vram_gib for part in usable or parts]
    vram = [one for one in told if one is not None]
    known = len(vram) == len(told)
    return messages.PoolReport(
        key=key,
        vram_gib=min(vram) if known else 0.0,
        vram_known=known,
        verified=all(part.offer.verified for part in parts),
        sharing=parts[0].offer.sharing,
        allocatable=sum(part.offer.devices for part in usable),
        free=sum(part.free for part in usable),
        leaving=sum(part.offer.devices for part in parts if part.node.leaves),
        room=_room(usable, used, rows),
        region=_common({part.node.region for part in parts}),
        zones=_some({part.node.zone for part in parts}),
        instance_types=_some({part.node.instance_type for part in parts}),
        taints=_some({taint for part in usable for taint in part.node.taints}),
    )


def _some(values: set[str]) -> tuple[str, ...]:
    return tuple(sorted(values - {""}))[:MAX_NAMED]


def _common(values: set[str]) -> str:
    return min(values) if len(values) == 1 else ""


def _room(parts: list[_Part], used: Mapping[str, usage.Use], most: int) -> tuple[messages.NodeRoom, ...]:
    """What is free node by node. CPU is cut to whole cores and memory to whole GiB, so that alike nodes are one row."""
    rows: Counter[tuple[int, int, int]] = Counter()
    for part in parts:
        use = used.get(part.node.name, usage.NOTHING)
        cpu = max(0, part.node.cpu_millis - use.cpu_millis) // 1000 * 1000
        memory = max(0, part.node.memory_mib - use.memory_mib) // 1024 * 1024
        free = part.free if part.node.pods > use.pods else 0
        if free:
            rows[free, cpu, memory] += 1
    largest = sorted(rows, reverse=True)[:most]
    return tuple(
        messages.NodeRoom(nodes=rows[row], devices=row[0], cpu_millis=row[1], memory_mib=row[2]) for row in largest
    )


def _unwell(key: messages.PoolKey, part: _Part) -> messages.NodeReport:
    return messages.NodeReport(
        name=part.node.name,
        pool=key,
        devices=part.offer.devices,
        ready=not part.node.unusable or bool(part.node.notice),
        reason=(part.node.unusable or part.node.notice)[:300],
    )
