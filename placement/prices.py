"""What scarce devices are worth: the dual prices of a large instance, and the lower bound that they prove.

Any prices at all give a valid bound (weak duality), so they may come from anywhere; good ones come from programmes over
aggregated demand. Groups are put together when, at the newest prices, they would be served by the same few nodes: then
their average behaves as each of them does, and a few thousand classes price as well as two hundred thousand groups.
Two or three rounds settle it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from placement import relax
from placement.compiled import compiled
from placement.instance import Floats, Instance, Ints

ROUNDS = 3
CLASSES = 1500
ARCS_PER_CLASS = 12
WHOLE_OPTIONS = 4000
"""Up to so many options the last programme is also rounded part by part, which costs some of its solves more."""
SAME_NODES = 3
"""Groups are alike when these many of their cheapest nodes are the same..."""
NEAR = 1.5
"""...of those that cost at most half more than the cheapest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """USD per hour. `device`: [P] of one more device. `capacity`: [N] of one request per second. `floor`, `spot`: [M].

    `bound` is what they prove: no plan costs less.
    """

    device: Floats
    capacity: Floats
    floor: Floats
    spot: Floats
    bound: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fractional:
    """An almost optimal plan in fractions: replicas [O], flows [A], unserved [G]."""

    replicas: Floats
    flows: Floats
    unserved: Floats


def find(instance: Instance, *, rounds: int = ROUNDS, classes: int = CLASSES) -> tuple[Prices, Fractional]:
    """Prices and the fractional plan that goes with the newest of them."""
    zeros = np.zeros(len(instance.model_min_replicas))
    best = proved(
        instance,
        device=np.zeros(len(instance.pool_devices)),
        capacity=np.zeros(len(instance.node_model)),
        floor=zeros,
        spot=zeros,
    )
    if not len(instance.group_rps):
        return best, _idle(instance)
    is_small = len(instance.option_model) <= WHOLE_OPTIONS
    for turn in range(rounds):
        kind = classes_of(instance, best.capacity, classes)
        coarse = aggregate(instance, kind, best.capacity)
        answer, whole = relax.solve_whole(coarse) if is_small and turn == rounds - 1 else (relax.solve(coarse),) * 2
        if not len(answer.replicas):
            break
        made = proved(
            instance,
            device=answer.device_usd,
            capacity=answer.capacity_usd,
            floor=answer.floor_usd,
            spot=answer.spot_usd,
        )
        between = proved(
            instance,
            device=(best.device + made.device) / 2,
            capacity=(best.capacity + made.capacity) / 2,
            floor=(best.floor + made.floor) / 2,
            spot=(best.spot + made.spot) / 2,
        )
        best = max(best, made, between, key=lambda one: one.bound)
    return best, _spread(instance, coarse, kind, whole)


def proved(instance: Instance, *, device: Floats, capacity: Floats, floor: Floats, spot: Floats) -> Prices:
    """These prices with the bound that they prove. Node prices are raised to what their cheapest device costs."""
    model = instance.option_model
    usd = (
        instance.option_usd
        + device[instance.option_pool] * instance.option_devices
        - floor[model]
        + spot[model] * (instance.option_spot - instance.model_spot_fraction[model])
    )
    cheapest = np.full(len(instance.node_model), np.inf)
    np.minimum.at(cheapest, instance.option_node, usd / instance.option_rps)
    capacity = np.maximum(capacity, np.where(np.isfinite(cheapest), np.maximum(0.0, cheapest), np.inf))
    served = served_usd(
        instance.arc_start,
        instance.arc_node,
        instance.arc_usd,
        instance.group_rps,
        instance.group_unserved_usd,
        capacity,
    )
    base = usd - capacity[instance.option_node] * instance.option_rps

    def term(count: Ints) -> Floats:
        started = np.maximum(0, count - instance.option_current)
        cost: Floats = base * count + instance.option_start_usd * started
        return cost

    now = np.clip(instance.option_current, instance.option_least, instance.option_most)
    kept = np.minimum(np.minimum(term(instance.option_least), term(instance.option_most)), term(now)).sum()
    fixed = np.bincount(
        instance.option_pool,
        weights=instance.option_least * instance.option_devices,
        minlength=len(instance.pool_devices),
    )
    stock = np.maximum(instance.pool_devices, fixed)
    bound = served + kept - (device * stock).sum() + (floor * instance.model_min_replicas).sum()
    return Prices(device=device, capacity=capacity, floor=floor, spot=spot, bound=float(bound))


@compiled
def served_usd(
    arc_start: Ints, arc_node: Ints, arc_usd: Floats, group_rps: Floats, unserved_usd: Floats, capacity: Floats
) -> float:
    """What all groups pay when each takes what is cheapest for it at these prices of capacity."""
    total = 0.0
    for group in range(len(group_rps)):
        least = unserved_usd[group]
        for arc in range(arc_start[group], arc_start[group + 1]):
            usd = arc_usd[arc] + capacity[arc_node[arc]]
            least = min(least, usd)
        total += group_rps[group] * least
    return total


def classes_of(instance: Instance, capacity: Floats, classes: int) -> Ints:
    """[G] a class for each group. The largest are kept; of the rest those with the same cheapest node are one."""
    keys, cheapest = _keys(
        instance.arc_start, instance.arc_node, instance.arc_usd, capacity, instance.group_class, SAME_NODES, NEAR
    )
    # A group without any arc belongs to its model alone.
    cheapest = np.where(cheapest < 0, len(instance.node_model) + instance.group_model, cheapest)
    _, kind = np.unique(keys, return_inverse=True)
    load = np.bincount(kind, weights=instance.group_rps)
    if len(load) > classes:
        is_large = np.zeros(len(load), dtype=bool)
        is_large[np.argsort(-load, kind="stable")[:classes]] = True
        width = int(instance.group_class.max()) + 1
        rest = len(load) + cheapest * width + instance.group_class
        _, kind = np.unique(np.where(is_large[kind], kind, rest), return_inverse=True)
    return kind.astype(np.int64)


@compiled
def _keys(
    arc_start: Ints, arc_node: Ints, arc_usd: Floats, capacity: Floats, group_class: Ints, most: int, near: float
) -> tuple[Ints, Ints]:
    groups = len(arc_start) - 1
    keys = np.zeros(groups, np.int64)
    cheapest = np.full(groups, -1, np.int64)
    top, top_usd = np.zeros(most, np.int64), np.zeros(most)
    for group in range(groups):
        count = 0
        for arc in range(arc_start[group], arc_start[group + 1]):
            usd = arc_usd[arc] + capacity[arc_node[arc]]
            if count < most:
                at = count
                count += 1
            elif usd < top_usd[most - 1]:
                at = most - 1
            else:
                continue
            while at > 0 and top_usd[at - 1] > usd:
                top_usd[at] = top_usd[at - 1]
                top[at] = top[at - 1]
                at -= 1
            top_usd[at] = usd
            top[at] = arc_node[arc]
        key = np.int64(group_class[group] + 1)
        if count:
            cheapest[group] = top[0]
            alike = 1
            while alike < count and top_usd[alike] <= top_usd[0] * near + 1e-9:
                alike += 1
            nodes = np.sort(top[:alike])
            for at in range(alike):
                key = key * np.int64(1_000_003) + nodes[at] + 1
        keys[group] = key
    return keys, cheapest


def aggregate(instance: Instance, kind: Ints, capacity: Floats) -> Instance:
    """The same question with one group per class: its members' demand together, and their mean price of each arc."""
    count = int(kind.max()) + 1
    order = np.argsort(kind, kind="stable")
    first = np.searchsorted(kind[order], np.arange(count + 1))
    arc_start, arc_node, arc_usd, arc_most = _merge(
        order,
        first,
        instance.arc_start,
        instance.arc_node,
        instance.arc_usd,
        instance.group_rps,
        capacity,
        len(instance.node_model),
        ARCS_PER_CLASS,
    )
    member = order[first[:-1]]
    return replace(
        instance,
        group_model=instance.group_model[member],
        group_class=instance.group_class[member],
        group_rps=np.bincount(kind, weights=instance.group_rps, minlength=count).astype(np.float64),
        group_unserved_usd=instance.group_unserved_usd[member],
        arc_start=arc_start,
        arc_node=arc_node,
        arc_usd=arc_usd,
        arc_most=arc_most,
    )


@compiled
def _merge(
    order: Ints,
    first: Ints,
    arc_start: Ints,
    arc_node: Ints,
    arc_usd: Floats,
    group_rps: Floats,
    capacity: Floats,
    nodes: int,
    most: int,
) -> tuple[Ints, Ints, Floats, Floats]:
    """The arcs of each class, as an instance has them: those that are cheap for most of its demand, at most `most`."""
    classes = len(first) - 1
    load, paid = np.zeros(nodes), np.zeros(nodes)
    seen = np.zeros(nodes, np.int64)
    starts = np.zeros(classes + 1, np.int64)
    made_node = np.empty(classes * most, np.int64)
    made_usd = np.empty(classes * most)
    made_most = np.empty(classes * most)
    end = 0
    for one in range(classes):
        count, total = 0, 0.0
        for at in range(first[one], first[one + 1]):
            group = order[at]
            rps = group_rps[group] + 1e-12
            total += rps
            for arc in range(arc_start[group], arc_start[group + 1]):
                node = arc_node[arc]
                if load[node] == 0.0:
                    seen[count] = node
                    count += 1
                load[node] += rps
                paid[node] += rps * arc_usd[arc]
        score = np.empty(count)
        for at in range(count):
            node = seen[at]
            usd = paid[node] / load[node] + capacity[node]
            score[at] = usd * (1.5 - 0.5 * load[node] / total)
        ranked = np.argsort(score, kind="mergesort")
        kept = np.sort(seen[ranked[: min(most, count)]])
        for node in kept:
            made_node[end] = node
            made_usd[end] = paid[node] / load[node]
            made_most[end] = load[node]
            end += 1
        starts[one + 1] = end
        for at in range(count):
            load[seen[at]] = 0.0
            paid[seen[at]] = 0.0
    return starts, made_node[:end].copy(), made_usd[:end].copy(), made_most[:end].copy()


def _spread(instance: Instance, coarse: Instance, kind: Ints, answer: relax.Relaxed) -> Fractional:
    """The classes' plan for each of their members, in the same shares, where the member has the arc."""
    nodes = len(instance.node_model)
    if not len(answer.replicas):
        return _idle(instance)
    shares = answer.flows / np.maximum(coarse.arc_most, 1e-30)
    known = coarse.arc_group * nodes + coarse.arc_node
    arc_group = instance.arc_group
    asked = kind[arc_group] * nodes + instance.arc_node
    at = np.minimum(np.searchsorted(known, asked), max(len(known) - 1, 0))
    flows = np.zeros(len(asked))
    if len(known):
        flows = np.where(known[at] == asked, shares[at], 0.0) * instance.group_rps[arc_group]
    served = np.bincount(arc_group, weights=flows, minlength=len(instance.group_rps))
    over = np.where(served > instance.group_rps, instance.group_rps / np.maximum(served, 1e-30), 1.0)
    flows, served = flows * over[arc_group], served * over
    return Fractional(replicas=answer.replicas, flows=flows, unserved=np.maximum(0.0, instance.group_rps - served))


def _idle(instance: Instance) -> Fractional:
    """The plan that serves nobody: where a search can begin when the programme has no answer."""
    return Fractional(
        replicas=instance.option_least.astype(np.float64),
        flows=np.zeros(len(instance.arc_node)),
        unserved=instance.group_rps,
    )
