"""Room to grow: node groups that an autoscaler can still enlarge. It is told apart from what is free.

Sources, by the title of their documentation: Cluster Autoscaler "FAQ" (the ConfigMap `cluster-autoscaler-status`, YAML
since 1.30, text before) and Karpenter "NodePools" (`karpenter.sh/v1`: limits and what is in use of them).
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import yaml

from agents.inventory import market, offers
from agents.inventory.objects import Node, NodePool
from agents.inventory.offers import condition
from agents.inventory.pools import NodeFacts
from federation.wire import messages, quantity

MAX_STATUS_BYTES = 512 * 1024
MAX_GROUPS = 256
MAX_NODES = 100_000
MAX_DEVICES = 1_000_000
"""What a report may say of one group: more is written where "without a limit" is meant."""
LONGEST_PROVISIONING_S = 3600.0
"""A node that seems to have taken longer has rather been unready for a while since."""
_OLD_GROUP = re.compile(
    r"^\s*Name:\s+(\S{1,253})\s*\n\s*Health:\s+(\w+)\s+\([^\n]*cloudProviderTarget=(\d{1,6})\s+"
    r"\(minSize=\d{1,6}, maxSize=(\d{1,6})\)\)[^\n]*(?:\n|\Z)(?:\s*Last\w+:[^\n]*\n)*(?:\s*ScaleUp:\s+(\w+))?",
    re.MULTILINE,
)
_WRITTEN = re.compile(
    r"(?:\s*time:|Cluster-autoscaler status at)\s+\"?(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)[.\d]*(?:\s?([+-]\d{4}))?"
)
"""When a status was written, with the offset from UTC: both formats begin with it."""
STALE_S = 900.0
"""It is written every ten seconds; what is so old was left behind by an autoscaler that runs no more."""

Found = tuple[tuple[messages.Growth, ...], tuple[messages.Condition, ...]]


def provisioning_s(node: Node) -> float | None:
    """From a node's creation to its being ready, or None when it cannot be told."""
    ready = next((one for one in node.status.conditions or () if one.type == "Ready" and one.status == "True"), None)
    if ready is None or not ready.last_transition_time or not node.metadata.creation_timestamp:
        return None
    try:
        begun = datetime.fromisoformat(node.metadata.creation_timestamp)
        took_s = (datetime.fromisoformat(ready.last_transition_time) - begun).total_seconds()
    except (ValueError, TypeError):
        return None
    return took_s if 0 <= took_s <= LONGEST_PROVISIONING_S else None


def cluster_autoscaler(status: str, nodes: Iterable[NodeFacts], now_s: float = 0.0) -> Found:
    """What the Cluster Autoscaler may still add. Args: status: the ConfigMap's `status`. now_s: of the epoch."""
    members = _by_group(nodes)
    growth, conditions = [], []
    written = _WRITTEN.match(status)
    if written is not None:
        try:
            age_s = now_s - datetime.fromisoformat(f"{written[1]}T{written[2]}{written[3] or '+0000'}").timestamp()
        except ValueError:
            age_s = 0.0
        if age_s > STALE_S:
            text = f"was written at {written[1]} {written[2]} and not since: its node groups promise nothing"
            return (), (condition("StaleAutoscalerStatus", "configmap/cluster-autoscaler-status", text),)
    try:
        groups = list(_groups(status))[:MAX_GROUPS]
    except (yaml.YAMLError, ValueError, AttributeError, TypeError, RecursionError) as error:
        text = f"cannot be read: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        return (), (condition("BadAutoscalerStatus", "configmap/cluster-autoscaler-status", text),)
    for name, healthy, target, most in groups:
        if not (0 <= target <= MAX_NODES and 0 <= most <= MAX_NODES):
            text = f"node group {name[:100]}: {target} of {most} nodes cannot be"
            conditions.append(condition("BadAutoscalerStatus", "configmap/cluster-autoscaler-status", text))
            continue
        mine = _members(name, members)
        if healthy and most > target and mine:
            growth.append(_growth(name, "cluster-autoscaler", most - target, mine))
    return tuple(growth), tuple(conditions)


def _groups(status: str) -> Iterator[tuple[str, bool, int, int]]:
    """(name, healthy, wanted now, at most) of each node group."""
    if len(status) > MAX_STATUS_BYTES:
        raise ValueError(f"{len(status)} characters")
    if "NodeGroups:" in status:
        for match in _OLD_GROUP.finditer(status):
            yield match[1], match[2] == "Healthy" and match[5] != "Backoff", int(match[3]), int(match[4])
        return
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    if any(isinstance(one, yaml.AnchorToken | yaml.AliasToken) for one in yaml.scan(status, Loader=loader)):
        raise ValueError("it holds anchors or aliases")
    loaded: Any = yaml.load(status, Loader=loader)
    for one in loaded.get("nodeGroups") or ():
        health = one.get("health") or {}
        numbers = health.get("cloudProviderTarget"), health.get("maxSize")
        scaling = (one.get("scaleUp") or {}).get("status")
        if isinstance(one.get("name"), str) and all(type(number) is int for number in numbers):
            yield one["name"], health.get("status") == "Healthy" and scaling != "Backoff", *numbers  # type: ignore[misc]


def _by_group(nodes: Iterable[NodeFacts]) -> dict[str, list[NodeFacts]]:
    groups: dict[str, list[NodeFacts]] = {}
    for node in nodes:
        if node.group and node.offers:
            groups.setdefault(node.group, []).append(node)
    return groups


def _members(name: str, groups: Mapping[str, list[NodeFacts]]) -> list[NodeFacts]:
    """The nodes of a cloud's group: its name holds, between separators, the one on the nodes' label. Never two."""
    found = [label for label in groups if re.search(rf"(^|[-_/]){re.escape(label)}($|[-_/])", name)]
    longest = max((len(label) for label in found), default=0)
    best = [label for label in found if len(label) == longest]
    return groups[best[0]] if len(best) == 1 else []


def _growth(group: str, source: Any, nodes: int, mine: list[NodeFacts]) -> messages.Growth:
    """What so many further nodes like these would bring."""
    kinds = Counter((offer.key, offer.devices) for node in mine for offer in node.offers)
    keys = {key for key, _ in kinds}
    took = [node.provisioning_s for node in mine if node.provisioning_s is not None]
    one_kind = len(keys) == 1
    return messages.Growth(
        group=group[:253],
        source=source,
        pool=keys.pop() if one_kind else None,
        nodes=nodes,
        devices=min(MAX_DEVICES, nodes * min(devices for _, devices in kinds)) if one_kind else None,
        provisioning_s=round(statistics.median(took), 1) if took else None,
    )


def karpenter(pools: Iterable[NodePool], nodes: Iterable[NodeFacts]) -> Found:
    """What Karpenter may still add: a pool's limit of accelerators, less what it has. Without a limit it is unknown."""
    members = _by_group(nodes)
    growth: list[messages.Growth] = []
    conditions: list[messages.Condition] = []
    for pool in sorted(pools, key=lambda one: one.metadata.name)[:MAX_GROUPS]:
        name = pool.metadata.name
        if pool.metadata.deletion_timestamp or pool.spec.replicas is not None:
            continue  # on its way out, or of a fixed number of nodes, which no waiting pod changes
        if any(one.type == "Ready" and one.status == "False" for one in pool.status.conditions or ()):
            continue
        for resource, text in sorted((pool.spec.limits or {}).items()):
            if not offers.VENDOR_RESOURCES.fullmatch(resource):
                continue
            most = _devices(str(text))
            now = _devices(str((pool.status.resources or {}).get(resource, "0")))
            if most is None or now is None:
                text = f"limits {resource} to {str(text)[:40]!r}: no number of devices"
                conditions.append(condition("BadNodePool", f"nodepool/{name}", text))
                continue
            mine = members.get(name, [])
            devices = min(most - now, _nodes_left(pool, mine) * _devices_each(mine, resource))
            if devices > 0:
                growth.append(_of_pool(pool, resource, devices, mine))
    return tuple(growth), tuple(conditions)


def _devices(text: str) -> int | None:
    """A number of devices of a whole pool of nodes; what is written for "endless" is cut."""
    found = quantity.thousandths(text)
    if found is None or found % 1000 or found // 1000 > MAX_NODES * quantity.MAX_DEVICES:
        return None
    return min(found // 1000, MAX_DEVICES)


def _nodes_left(pool: NodePool, mine: list[NodeFacts]) -> int:
    """How many nodes a pool's limits of nodes, CPU and memory leave: the first that is reached stops all growth."""
    left = MAX_NODES
    each = {
        "nodes": 1000,
        "cpu": min((one.cpu_millis for one in mine), default=0),
        "memory": min((one.memory_mib for one in mine), default=0) * quantity.MIB * 1000,
    }
    for resource, one_node in each.items():
        most = quantity.thousandths(str((pool.spec.limits or {}).get(resource, "")))
        if most is not None:
            now = quantity.thousandths(str((pool.status.resources or {}).get(resource, "0"))) or 0
            left = min(left, max(0, most - now) // max(1, one_node))
    return left


def _devices_each(mine: list[NodeFacts], resource: str) -> int:
    """The most that one node of a pool is seen to bring; where none is there, the most that a node can."""
    seen = (offer.devices for node in mine for offer in node.offers if offer.access.resource == resource)
    return max(seen, default=quantity.MAX_DEVICES)


def _of_pool(pool: NodePool, resource: str, devices: int, mine: list[NodeFacts]) -> messages.Growth:
    keys = {one.key for node in mine for one in node.offers if one.access.resource == resource}
    took = [node.provisioning_s for node in mine if node.provisioning_s is not None]
    return messages.Growth(
        group=pool.metadata.name,
        source="karpenter",
        pool=next(iter(keys)) if len(keys) == 1 else _promised(pool, resource),
        devices=devices,
        provisioning_s=round(statistics.median(took), 1) if took else None,
    )


def _promised(pool: NodePool, resource: str) -> messages.PoolKey | None:
    """The devices that the template's own labels promise, where no node of the pool is there to look at."""
    labels = dict(pool.spec.template.metadata.labels or {})
    for one in pool.spec.template.spec.requirements or ():
        if one.operator == "In" and one.values and len(one.values) == 1:
            labels.setdefault(one.key, one.values[0])
    product = labels.get(offers.GPU_PRODUCT, "")
    if resource != offers.NVIDIA_GPU or not product or len(product) > 63:
        return None
    return messages.PoolKey(product=product, market=market.of(labels))
