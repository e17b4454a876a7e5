"""Local search over whole replicas: stop one, start one, start one where another was, and what follows from it.

A move changes replica counts and carries the requests along; it is kept when the total cost in USD per hour falls, and
else undone to the last digit. Where requests go in a move is chosen by price and scarcity together (`arc_key`), so that
scarce devices are left to those who need them; whether the move is kept is decided by money alone.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from placement.compiled import compiled
from placement.instance import Floats, Instance, Ints

DUST_RPS = 1e-7
LEAST_GAIN_USD = 1e-6
LOG_LENGTH = 1_000_000


class State(NamedTuple):
    """A plan under way. The arrays after `replicas` follow from it and from `flows`; all are changed in place."""

    arc_start: Ints
    arc_node: Ints
    arc_usd: Floats
    arc_key: Floats
    arc_group: Ints
    unserved_usd: Floats
    into_start: Ints
    into_arc: Ints
    node_option_start: Ints
    node_option: Ints
    pool_option_start: Ints
    pool_option: Ints
    option_node: Ints
    option_pool: Ints
    option_model: Ints
    option_region: Ints
    option_spot: Ints
    option_devices: Ints
    option_rps: Floats
    option_usd: Floats
    option_start_usd: Floats
    option_current: Ints
    option_least: Ints
    option_most: Ints
    model_floor: Ints
    model_min_regions: Ints
    model_spot_fraction: Floats
    replicas: Ints
    flows: Floats
    unserved: Floats
    stock: Ints
    capacity: Floats
    load: Floats
    model_total: Ints
    model_spot: Ints
    model_regions: Ints
    region_count: Ints
    log_arc: Ints
    log_rps: Floats
    log_end: Ints
    heap_key: Floats
    heap_item: Ints
    queue_key: Floats
    queue_item: Ints
    reach: Floats
    reached: Ints
    stopped: Ints


def _by(values: Ints, count: int) -> tuple[Ints, Ints]:
    """(where each value's positions begin, the positions sorted by value)."""
    order = np.argsort(values, kind="stable")
    return np.searchsorted(values[order], np.arange(count + 1)).astype(np.int64), order.astype(np.int64)


def begin(instance: Instance, replicas: Ints, flows: Floats, unserved: Floats, scarcity: Floats) -> State:
    """A state to improve. Args: scarcity: [N] the price of capacity that `arc_key` adds to `arc_usd`."""
    nodes, models = len(instance.node_model), len(instance.model_min_replicas)
    options = len(instance.option_model)
    regions = int(instance.option_region.max()) + 1 if options else 1
    into_start, into_arc = _by(instance.arc_node, nodes)
    node_option_start, node_option = _by(instance.option_node, nodes)
    pool_option_start, pool_option = _by(instance.option_pool, len(instance.pool_devices))
    used = np.bincount(
        instance.option_pool, weights=replicas * instance.option_devices, minlength=len(instance.pool_devices)
    )
    region_count = np.zeros((models, regions), np.int64)
    np.add.at(region_count, (instance.option_model, instance.option_region), replicas)
    longest = int(np.diff(into_start).max()) if nodes else 0
    return State(
        arc_start=instance.arc_start,
        arc_node=instance.arc_node,
        arc_usd=instance.arc_usd,
        arc_key=instance.arc_usd + scarcity[instance.arc_node],
        arc_group=instance.arc_group,
        unserved_usd=instance.group_unserved_usd,
        into_start=into_start,
        into_arc=into_arc,
        node_option_start=node_option_start,
        node_option=node_option,
        pool_option_start=pool_option_start,
        pool_option=pool_option,
        option_node=instance.option_node,
        option_pool=instance.option_pool,
        option_model=instance.option_model,
        option_region=instance.option_region,
        option_spot=instance.option_spot,
        option_devices=instance.option_devices,
        option_rps=instance.option_rps,
        option_usd=instance.option_usd,
        option_start_usd=instance.option_start_usd,
        option_current=instance.option_current,
        option_least=instance.option_least,
        option_most=instance.option_most,
        model_floor=instance.model_min_replicas,
        model_min_regions=instance.model_min_regions,
        model_spot_fraction=instance.model_spot_fraction,
        replicas=replicas.copy(),
        flows=flows.copy(),
        unserved=unserved.copy(),
        stock=instance.pool_devices - used.astype(np.int64),
        capacity=np.bincount(instance.option_node, weights=replicas * instance.option_rps, minlength=nodes).astype(
            np.float64
        ),
        load=np.bincount(instance.arc_node, weights=flows, minlength=nodes).astype(np.float64),
        model_total=np.bincount(instance.option_model, weights=replicas, minlength=models).astype(np.int64),
        model_spot=np.bincount(instance.option_model, weights=replicas * instance.option_spot, minlength=models).astype(
            np.int64
        ),
        model_regions=(region_count > 0).sum(axis=1),
        region_count=region_count,
        log_arc=np.zeros(LOG_LENGTH, np.int64),
        log_rps=np.zeros(LOG_LENGTH),
        log_end=np.zeros(1, np.int64),
        heap_key=np.zeros(longest + 2),
        heap_item=np.zeros(longest + 2, np.int64),
        queue_key=np.zeros(options + 2),
        queue_item=np.zeros(options + 2, np.int64),
        reach=np.zeros(nodes),
        reached=np.zeros(nodes, np.int64),
        stopped=np.zeros(64, np.int64),
    )


def cost_usd(state: State) -> float:
    """USD per hour of everything: devices, starts, lateness, what is unserved."""
    started = np.maximum(0, state.replicas - state.option_current)
    return float(
        (state.replicas * state.option_usd).sum()
        + (started * state.option_start_usd).sum()
        + (state.flows * state.arc_usd).sum()
        + (state.unserved * state.unserved_usd).sum()
    )


# ---- a heap of (key, item), least key first


@compiled
def _push(keys: Floats, items: Ints, size: int, key: float, item: int) -> int:
    at = size
    while at > 0:
        parent = (at - 1) >> 1
        if keys[parent] <= key:
            break
        keys[at] = keys[parent]
        items[at] = items[parent]
        at = parent
    keys[at] = key
    items[at] = item
    return size + 1


@compiled
def _pop(keys: Floats, items: Ints, size: int) -> tuple[float, int, int]:
    """(least key, its item, the size after)."""
    key, item = keys[0], items[0]
    size -= 1
    if size > 0:
        last_key, last_item, at = keys[size], items[size], 0
        while True:
            child = 2 * at + 1
            if child >= size:
                break
            if child + 1 < size and keys[child + 1] < keys[child]:
                child += 1
            if keys[child] >= last_key:
                break
            keys[at] = keys[child]
            items[at] = items[child]
            at = child
        keys[at] = last_key
        items[at] = last_item
    return key, item, size


# ---- changes that can be undone


@compiled
def _flow(state: State, arc: int, rps: float) -> None:
    """Add requests to an arc; arc -1 - g is what group g leaves unserved."""
    if arc >= 0:
        state.flows[arc] += rps
        state.load[state.arc_node[arc]] += rps
    else:
        state.unserved[-1 - arc] += rps
    end = state.log_end[0]
    state.log_arc[end] = arc
    state.log_rps[end] = rps
    state.log_end[0] = end + 1


@compiled
def _undo(state: State, to: int) -> None:
    for at in range(state.log_end[0] - 1, to - 1, -1):
        arc, rps = state.log_arc[at], state.log_rps[at]
        if arc >= 0:
            state.flows[arc] -= rps
            state.load[state.arc_node[arc]] -= rps
            if abs(state.flows[arc]) < 1e-12:
                state.flows[arc] = 0.0
        else:
            state.unserved[-1 - arc] -= rps
            if abs(state.unserved[-1 - arc]) < 1e-12:
                state.unserved[-1 - arc] = 0.0
    state.log_end[0] = to


@compiled
def _count(state: State, option: int, change: int) -> None:
    """Add one replica, or take one away."""
    model, region = state.option_model[option], state.option_region[option]
    state.replicas[option] += change
    state.stock[state.option_pool[option]] -= change * state.option_devices[option]
    state.capacity[state.option_node[option]] += change * state.option_rps[option]
    state.model_total[model] += change
    state.model_spot[model] += change * state.option_spot[option]
    before = state.region_count[model, region]
    state.region_count[model, region] = before + change
    if before == 0:
        state.model_regions[model] += 1
    elif before + change == 0:
        state.model_regions[model] -= 1


@compiled
def _may_stop(state: State, option: int) -> bool:
    """Whether the model's floors and its spot fraction hold without one of these replicas."""
    model = state.option_model[option]
    if state.replicas[option] <= state.option_least[option] or state.model_total[model] <= state.model_floor[model]:
        return False
    if not state.option_spot[option]:
        most = state.model_spot_fraction[model] * (state.model_total[model] - 1)
        if state.model_spot[model] > most + 1e-9:
            return False
    is_last = state.region_count[model, state.option_region[option]] == 1
    return not (is_last and state.model_regions[model] <= state.model_min_regions[model])


@compiled
def _may_start(state: State, option: int) -> bool:
    if state.replicas[option] >= state.option_most[option]:
        return False
    if not state.option_spot[option]:
        return True
    model = state.option_model[option]
    most = state.model_spot_fraction[model] * (state.model_total[model] + 1)
    return bool(state.model_spot[model] + 1 <= most + 1e-9)


@compiled
def _start_usd(state: State, option: int) -> float:
    """What one more replica costs."""
    usd: float = state.option_usd[option]
    if state.replicas[option] >= state.option_current[option]:
        usd += state.option_start_usd[option]
    return usd


@compiled
def _stop_usd(state: State, option: int) -> float:
    """What one replica fewer saves."""
    usd: float = state.option_usd[option]
    if state.replicas[option] > state.option_current[option]:
        usd += state.option_start_usd[option]
    return usd


# ---- requests that go elsewhere


@compiled
def _elsewhere(state: State, group: int, node: int) -> tuple[int, float]:
    """The arc of `group` with room that is best by key and does not lead to `node`; unserved when there is none."""
    best, best_key = -1 - group, state.unserved_usd[group]
    for arc in range(state.arc_start[group], state.arc_start[group + 1]):
        other = state.arc_node[arc]
        if other != node and state.capacity[other] - state.load[other] > DUST_RPS and state.arc_key[arc] < best_key:
            best, best_key = arc, state.arc_key[arc]
    return best, best_key


@compiled
def _relocate(state: State, node: int, rps: float, budget_usd: float) -> float:
    """Move `rps` off `node`, least regret first; what it costs, or infinity when that is beyond the budget.

    The caller undoes what was done when it does not like the answer.
    """
    keys, items, size, cost = state.heap_key, state.heap_item, 0, 0.0
    for at in range(state.into_start[node], state.into_start[node + 1]):
        arc = state.into_arc[at]
        if state.flows[arc] > DUST_RPS:
            _, key = _elsewhere(state, state.arc_group[arc], node)
            size = _push(keys, items, size, key - state.arc_key[arc], arc)
    while rps > DUST_RPS:
        if size == 0 or state.log_end[0] > LOG_LENGTH - 4:
            return np.inf
        regret, arc, size = _pop(keys, items, size)
        group = state.arc_group[arc]
        other, key = _elsewhere(state, group, node)
        if key - state.arc_key[arc] > regret + 1e-12:
            size = _push(keys, items, size, key - state.arc_key[arc], arc)
            continue
        part = min(rps, state.flows[arc])
        if other >= 0:
            there = state.arc_node[other]
            part = min(part, state.capacity[there] - state.load[there])
            usd = state.arc_usd[other]
        else:
            usd = state.unserved_usd[group]
        _flow(state, arc, -part)
        _flow(state, other, part)
        cost += (usd - state.arc_usd[arc]) * part
        rps -= part
        if cost > budget_usd:
            return np.inf
        if state.flows[arc] > DUST_RPS and rps > DUST_RPS:
            _, key = _elsewhere(state, group, node)
            size = _push(keys, items, size, key - state.arc_key[arc], arc)
    return cost


@compiled
def _worst(state: State, group: int, key: float) -> tuple[int, float]:
    """Where `group` is served worst, if worse than `key`: the arc or what is unserved, and its key; else the key."""
    if state.unserved[group] > DUST_RPS:
        return -1 - group, state.unserved_usd[group]
    worst, worst_key = 0, key
    for arc in range(state.arc_start[group], state.arc_start[group + 1]):
        if state.flows[arc] > DUST_RPS and state.arc_key[arc] > worst_key + 1e-7:
            worst, worst_key = arc, state.arc_key[arc]
    return worst, worst_key


@compiled
def _attract(state: State, node: int) -> float:
    """Fill the room at `node` with requests that are served worse elsewhere; what that saves."""
    keys, items, size, saved = state.heap_key, state.heap_item, 0, 0.0
    room = state.capacity[node] - state.load[node]
    if room <= DUST_RPS:
        return 0.0
    for at in range(state.into_start[node], state.into_start[node + 1]):
        arc = state.into_arc[at]
        _, key = _worst(state, state.arc_group[arc], state.arc_key[arc])
        if key > state.arc_key[arc]:
            size = _push(keys, items, size, state.arc_key[arc] - key, arc)
    while room > DUST_RPS and size > 0 and state.log_end[0] < LOG_LENGTH - 4:
        _, arc, size = _pop(keys, items, size)
        group = state.arc_group[arc]
        other, key = _worst(state, group, state.arc_key[arc])
        if key <= state.arc_key[arc]:
            continue
        there = state.flows[other] if other >= 0 else state.unserved[group]
        usd = state.arc_usd[other] if other >= 0 else state.unserved_usd[group]
        part = min(room, there)
        _flow(state, other, -part)
        _flow(state, arc, part)
        saved += part * (usd - state.arc_usd[arc])
        room -= part
        _, key = _worst(state, group, state.arc_key[arc])
        if key > state.arc_key[arc]:
            size = _push(keys, items, size, state.arc_key[arc] - key, arc)
    return saved


# ---- moves


@compiled
def _try_stop(state: State, option: int, least_usd: float) -> float:
    """Stop a replica if that gains more than `least_usd`; the gain, or minus infinity and nothing changed."""
    node, begun = state.option_node[option], state.log_end[0]
    saved = _stop_usd(state, option)
    over = state.load[node] - (state.capacity[node] - state.option_rps[option])
    cost = _relocate(state, node, over, saved - least_usd) if over > DUST_RPS else 0.0
    if saved - cost > least_usd:
        _count(state, option, -1)
        return saved - cost
    _undo(state, begun)
    return -np.inf


@compiled
def _make_room(state: State, option: int, limit_usd: float, stopped: int) -> tuple[float, int]:
    """Stop replicas of others in the pool until `option` fits; (gain, how many), infinite when it cannot be."""
    pool, gain = state.option_pool[option], 0.0
    while state.stock[pool] < 0:
        best, best_gain = -1, -np.inf
        for at in range(state.pool_option_start[pool], state.pool_option_start[pool + 1]):
            other = state.pool_option[at]
            if state.option_node[other] == state.option_node[option] or not _may_stop(state, other):
                continue
            begun = state.log_end[0]
            got = _try_stop(state, other, -limit_usd)
            if got > -np.inf:
                _count(state, other, 1)
                _undo(state, begun)
                got /= state.option_devices[other]
                if got > best_gain:
                    best, best_gain = other, got
        if best < 0 or stopped >= len(state.stopped):
            return -np.inf, stopped
        gain += _try_stop(state, best, -limit_usd)
        state.stopped[stopped] = best
        stopped += 1
    return gain, stopped


@compiled
def _neighbours(state: State, node: int) -> int:
    """Queue the replicas whose requests `node` could take over, the most saving per request first; how many."""
    count = 0
    for at in range(state.into_start[node], state.into_start[node + 1]):
        group = state.arc_group[state.into_arc[at]]
        for arc in range(state.arc_start[group], state.arc_start[group + 1]):
            other = state.arc_node[arc]
            if other != node and state.flows[arc] > DUST_RPS:
                if state.reach[other] == 0.0:
                    state.reached[count] = other
                    count += 1
                state.reach[other] += state.flows[arc]
    size = 0
    for at in range(count):
        other = state.reached[at]
        room = state.capacity[other] - state.load[other]
        for place in range(state.node_option_start[other], state.node_option_start[other + 1]):
            option = state.node_option[place]
            if state.replicas[option] <= state.option_least[option]:
                continue
            to_move = max(0.0, state.option_rps[option] - room)
            if state.reach[other] >= 0.5 * to_move:
                key = -_stop_usd(state, option) / max(to_move, 1e-3 * state.option_rps[option])
                size = _push(state.queue_key, state.queue_item, size, key, option)
        state.reach[other] = 0.0
    return size


@compiled
def _try_start(state: State, option: int, others: int, limit_usd: float) -> float:
    """Start a replica, in the place of others if need be, and stop up to `others` that it makes idle.

    Gives the gain, or 0 and nothing changed.
    """
    state.log_end[0] = 0
    node, stopped = state.option_node[option], 0
    total = -_start_usd(state, option)
    _count(state, option, 1)
    total += _attract(state, node)
    if state.stock[state.option_pool[option]] < 0:
        gain, stopped = _make_room(state, option, limit_usd, stopped)
        total += gain
    if total > -np.inf:
        size = _neighbours(state, node)
        tries = 0
        while tries < others and size > 0 and stopped < len(state.stopped):
            _, other, size = _pop(state.queue_key, state.queue_item, size)
            tries += 1
            if not _may_stop(state, other):
                continue
            gain = _try_stop(state, other, 1e-9)
            if gain > -np.inf:
                state.stopped[stopped] = other
                stopped += 1
                total += gain
    if total > LEAST_GAIN_USD:
        return total
    for at in range(stopped - 1, -1, -1):
        _count(state, state.stopped[at], 1)
    _undo(state, 0)
    _count(state, option, -1)
    return 0.0


# ---- passes


@compiled
def balance(state: State, nodes: Ints) -> float:
    """Let each of `nodes` in turn attract what is served worse elsewhere; what that saves."""
    saved = 0.0
    for node in nodes:
        state.log_end[0] = 0
        saved += _attract(state, node)
    return saved


@compiled
def stop(state: State, options: Ints) -> tuple[float, int]:
    """Stop replicas of `options` while that gains; (gain, how many)."""
    gain, count = 0.0, 0
    for option in options:
        while _may_stop(state, option):
            state.log_end[0] = 0
            got = _try_stop(state, option, 1e-9)
            if got == -np.inf:
                break
            gain += got
            count += 1
    return gain, count


@compiled
def start(state: State, options: Ints, others: int, limit_usd: float, tries: int) -> tuple[float, int, int]:
    """Start replicas of `options` while that gains; (gain, how many, tries left).

    Args: others: how many may be stopped for each. limit_usd: how much stopping replicas of other models in a full pool
        may cost; below zero only free devices are taken.
    """
    gain, count = 0.0, 0
    for option in options:
        while tries > 0 and _may_start(state, option):
            if limit_usd < 0 and state.stock[state.option_pool[option]] < state.option_devices[option]:
                break
            tries -= 1
            got = _try_start(state, option, others, limit_usd)
            if got <= 0.0:
                break
            gain += got
            count += 1
    return gain, count, tries


@compiled
def force_stop(state: State, option: int) -> None:
    """Stop a replica whatever it costs."""
    state.log_end[0] = 0
    _try_stop(state, option, -1e18)


@compiled
def force_start(state: State, option: int) -> bool:
    """Start a replica for a floor, in the place of others if need be; whether it could be."""
    state.log_end[0] = 0
    _count(state, option, 1)
    gain, stopped = _make_room(state, option, 1e18, 0)
    if gain > -np.inf:
        _attract(state, state.option_node[option])
        return True
    for at in range(stopped - 1, -1, -1):
        _count(state, state.stopped[at], 1)
    _undo(state, 0)
    _count(state, option, -1)
    return False


def by_distance(state: State) -> State:
    """The same state, where requests prefer what costs their users least, scarce or not."""
    return state._replace(arc_key=state.arc_usd)
