"""Capacity of replicas by cluster, devices in use, and load above the target utilisation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from placement.answer import DUST_RPS
from placement.index import Index
from placement.problem import Model
from placement.solution import Flow, Ready

Capacity = dict[str, float]

SPARED_RPS = 1e-4
"""Requests per second of overload that rounding of flows cannot explain."""


def capacity_of(index: Index, model: Model, counts: Mapping[tuple[str, str], int]) -> tuple[Capacity, Capacity]:
    """(cluster -> requests per second at the target utilisation, cluster -> requests per second above it)."""
    usable: Capacity = defaultdict(float)
    beyond: Capacity = defaultdict(float)
    for (name, pool_name), count in counts.items():
        pool = index.pools[pool_name]
        shape = model.shape_for(pool) if name == model.name else None
        if shape is not None:
            whole = count * shape.requests_per_second
            usable[pool.cluster] += whole * model.target_utilisation
            beyond[pool.cluster] += whole * (1.0 - model.target_utilisation)
    return dict(usable), dict(beyond)


def devices_used(index: Index, counts: Mapping[tuple[str, str], int]) -> defaultdict[str, int]:
    """Pool -> devices in use by these replicas."""
    used: defaultdict[str, int] = defaultdict(int)
    for (name, pool_name), count in counts.items():
        model = index.models.get(name)
        used[pool_name] += count * (1 if model is None else model.devices_in(index.pools[pool_name]))
    return used


def overload_rps(index: Index, model: Model, counts: Ready, flows: Iterable[Flow]) -> dict[str, float]:
    """Cluster -> requests per second of these flows of `model` above the target utilisation of its replicas."""
    usable, _ = capacity_of(index, model, counts)
    return overloads(usable, flows)


def overloads(usable: Capacity, flows: Iterable[Flow]) -> dict[str, float]:
    """Cluster -> requests per second of these flows above the usable capacity."""
    load: Capacity = defaultdict(float)
    for flow in flows:
        load[flow.cluster] += flow.requests_per_second
    over = {cluster: rps - usable.get(cluster, 0.0) for cluster, rps in sorted(load.items())}
    return {cluster: rps for cluster, rps in over.items() if rps > SPARED_RPS}


def with_room(usable: Capacity, beyond: Capacity, flows: Sequence[Flow]) -> set[str]:
    """Clusters with free capacity."""
    used: Capacity = defaultdict(float)
    for flow in flows:
        used[flow.cluster] += flow.requests_per_second
    return {name for name, rps in usable.items() if rps + beyond.get(name, 0.0) - used[name] > 10 * DUST_RPS}
