"""What pods request of their nodes, as the scheduler counts it ("Resource Management for Pods and Containers")."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from agents.inventory.objects import Container, Pod
from agents.inventory.offers import VENDOR_RESOURCES
from federation.wire import quantity


class Use(NamedTuple):
    """What one pod, or all pods of a node, hold. A plain tuple, since there are as many as pods."""

    cpu_millis: int = 0
    memory_mib: int = 0
    pods: int = 0
    devices: tuple[tuple[str, int], ...] = ()
    """(extended resource, count), sorted."""


NOTHING = Use()


def of_pod(pod: Pod) -> Use:
    """What a pod holds: the larger of its containers together and any init container, plus what the pod costs."""
    total: dict[str, int] = {}
    sidecars: dict[str, int] = {}
    starting: dict[str, int] = {}
    for one in pod.spec.containers or ():
        _add(total, _requests(one))
    for one in pod.spec.init_containers or ():
        if one.restart_policy == "Always":
            _add(sidecars, _requests(one))
        else:
            for name, amount in _requests(one).items():
                starting[name] = max(starting.get(name, 0), amount)
    _add(total, sidecars)
    _add(starting, sidecars)
    whole = _amounts((pod.spec.resources and pod.spec.resources.requests) or {})
    held = {name: max(total.get(name, 0), starting.get(name, 0)) for name in total.keys() | starting.keys()} | whole
    _add(held, _amounts(pod.spec.overhead or {}))
    devices = tuple(sorted((name, amount) for name, amount in held.items() if amount and name not in ("cpu", "memory")))
    return Use(held.get("cpu", 0), held.get("memory", 0), 1, devices)


def _requests(container: Container) -> dict[str, int]:
    """Requests; what is only limited is requested alike."""
    if container.resources is None:
        return {}
    return _amounts((container.resources.limits or {}) | (container.resources.requests or {}))


def _amounts(texts: Mapping[str, str]) -> dict[str, int]:
    """Millicores, MiB and devices; what is none of these is not read. The API server admits only valid quantities."""
    found: dict[str, int] = {}
    for name, text in texts.items():
        if name == "cpu":
            found[name] = quantity.millis(text) or 0
        elif name == "memory":
            found[name] = quantity.mib(text, up=True) or 0
        elif VENDOR_RESOURCES.fullmatch(name):
            found[name] = quantity.devices(text) or 0
    return found


def _add(total: dict[str, int], more: Mapping[str, int]) -> None:
    for name, amount in more.items():
        total[name] = total.get(name, 0) + amount


def by_node(uses: Iterable[tuple[str, Use]]) -> dict[str, Use]:
    """Node -> what all its pods hold together. Args: uses: (node, what one pod holds)."""
    cpu: dict[str, int] = {}
    memory: dict[str, int] = {}
    pods: dict[str, int] = {}
    devices: dict[str, dict[str, int]] = {}
    for node, use in uses:
        cpu[node] = cpu.get(node, 0) + use.cpu_millis
        memory[node] = memory.get(node, 0) + use.memory_mib
        pods[node] = pods.get(node, 0) + use.pods
        if use.devices:
            _add(devices.setdefault(node, {}), dict(use.devices))
    return {
        node: Use(cpu[node], memory[node], pods[node], tuple(sorted(devices.get(node, {}).items()))) for node in cpu
    }
