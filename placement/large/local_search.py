"""Local search over whole replicas and single groups' flows: add, drop and shift moves, compiled by numba.

A move is kept only if it lowers the cost; otherwise it is undone from a log. Moves: a flow goes to a cheaper node with
room (`_shift`); a replica stops and its flows go to other nodes with room (`_drop`); a replica starts, takes flows that
are cheaper there or unserved, and nodes that this relieves stop replicas (`_add`). Hard rules hold after every move.
Effort is a number of rounds over all replicas, never a time.

All kernels are in this file because numba's cache does not notice changes of functions in another one (see `jit`).

Source: add, drop and interchange heuristics for plant location: Kuehn and Hamburger, Management Science 9 (1963).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from placement.jit import bare, compiled
from placement.large.arrays import Arrays, Bools, Floats, Ints, Singles, best
from placement.large.duals import Duals
from placement.request_costs import request_usd, ways_usd

NEAR_NODES = 12
"""A group's flow may move to this many nodes: those that are cheapest at the duals of the plan."""
DUST_RPS = 1e-9
WORTH_USD = 1e-6
"""A move must save more than this, USD per hour, so that rounding alone causes none."""
ROUNDING = 1e-7
CROWDED = 0.75
HOPEFUL = 0.5
"""`_drop` tries a replica when at least this share of its capacity is idle on its node."""
RELINK, SPLIT, SERVE, COUNT = 0, 1, 2, 3
"""Kinds of log entries: a whole flow moved, a part of a flow moved, unserved demand served, a replica count changed."""
END = -1
"""Of a linked list."""


class Facts(NamedTuple):
    """What moves read: columns of `Arrays`, and indices of them. Shapes as there."""

    group_model: Ints
    group_cell: Ints
    group_permit: Ints
    permit_cap: Ints
    permit_leaves: Bools
    cap_rps: Floats
    near: Ints
    """[G, NEAR_NODES] nodes by rising cost of one request per second there; -1 fills up"""
    near_price: Floats
    """[G, NEAR_NODES] USD per hour of one request per second there"""
    near_first: Ints
    """[N + 1]: where the groups that a node is near to begin in `near_group`."""
    near_group: Ints
    rtt_ms: Singles
    service_ms: Floats
    objective_ms: Floats
    late_usd: Floats
    unserved_usd: Floats
    near_usd: Floats
    node_cluster: Ints
    node_usd: Floats
    option_model: Ints
    option_node: Ints
    option_pool: Ints
    option_devices: Ints
    option_rps: Floats
    option_usd: Floats
    option_start_usd: Floats
    option_current: Ints
    option_least: Ints
    option_most: Ints
    node_first: Ints
    """[N + 1]: where each node's options begin in `node_option`."""
    node_option: Ints
    rule_first: Ints
    """[O + 1]: where each option's terms begin in `rule` and `rule_term`."""
    rule: Ints
    rule_term: Floats
    rule_lower: Floats
    rule_price: Floats
    """[R]: USD per hour of missing a priced rule by one; 0 of hard rules"""
    max_starts: Floats
    keeps_last: Bools
    """[M]: a pool that has replicas of the model keeps one, because the model has a minimum of regions."""


class State(NamedTuple):
    """A plan that moves change in place. A flow [F] is an entry in two doubly linked lists, its node's and its group's.

    `log` [L, 4] records changes so that a move can be undone: (kind, entry or option, entry or node or change, group).
    """

    replicas: Ints
    """[O]"""
    capacity: Floats
    """[N]"""
    load: Floats
    """[N]"""
    free: Ints
    """[P] devices"""
    kept: Floats
    """[R]: the sum of each rule's terms"""
    started: Floats
    """[M]"""
    away: Floats
    """[C] requests per second that leave their continent"""
    left: Floats
    """[G] unserved requests per second"""
    flow_group: Ints
    flow_node: Ints
    flow_rps: Floats
    after: Ints
    """[F, 2]: the next entry of the same node, of the same group"""
    before: Ints
    node_head: Ints
    group_head: Ints
    ends: Ints
    """[3]: entries in use, the first that is free again, length of the log"""
    log: Ints
    log_rps: Floats


def facts(arrays: Arrays, prices: Duals, keeps_last: Bools) -> Facts:
    """Facts of an encoded problem, with the nodes that are near to groups at these duals."""
    near, near_price = _near(arrays, prices)
    groups, at = np.nonzero(near >= 0)
    node = near[groups, at]
    by_node = np.argsort(node, kind="stable")
    nodes = len(arrays.node_model)
    option_order = np.argsort(arrays.option_node, kind="stable")
    rule_order = np.argsort(arrays.rule_option, kind="stable")
    return Facts(
        group_model=arrays.group_model,
        group_cell=arrays.group_cell,
        group_permit=arrays.group_permit,
        permit_cap=arrays.permit_cap,
        permit_leaves=arrays.permit_leaves,
        cap_rps=arrays.cap_rps,
        near=near,
        near_price=near_price,
        near_first=np.searchsorted(node[by_node], np.arange(nodes + 1)).astype(np.int64),
        near_group=groups[by_node].astype(np.int64),
        rtt_ms=arrays.rtt_ms,
        service_ms=arrays.service_ms,
        objective_ms=arrays.objective_ms,
        late_usd=arrays.late_usd,
        unserved_usd=arrays.unserved_usd,
        near_usd=arrays.near_usd,
        node_cluster=arrays.node_cluster,
        node_usd=arrays.node_usd,
        option_model=arrays.option_model,
        option_node=arrays.option_node,
        option_pool=arrays.option_pool,
        option_devices=arrays.option_devices,
        option_rps=arrays.option_rps,
        option_usd=arrays.option_usd.copy(),
        option_start_usd=arrays.option_start_usd,
        option_current=arrays.option_current,
        option_least=arrays.option_least.copy(),
        option_most=arrays.option_most.copy(),
        node_first=np.searchsorted(arrays.option_node[option_order], np.arange(nodes + 1)).astype(np.int64),
        node_option=option_order.astype(np.int64),
        rule_first=np.searchsorted(arrays.rule_option[rule_order], np.arange(len(arrays.option_node) + 1)).astype(
            np.int64
        ),
        rule=arrays.rule_of[rule_order].astype(np.int64),
        rule_term=arrays.rule_term[rule_order],
        rule_lower=arrays.rule_lower,
        rule_price=np.where(arrays.rule_is_priced, arrays.rule_usd, 0.0),
        max_starts=arrays.max_starts,
        keeps_last=keeps_last,
    )


def _near(arrays: Arrays, prices: Duals) -> tuple[Ints, Floats]:
    near, _ = best(arrays, prices.capacity, prices.away, NEAR_NODES)
    if not len(arrays.node_model):
        return near, np.full(near.shape, np.inf)
    cluster, model = arrays.node_cluster[near], arrays.group_model[:, None]
    rtt_ms = arrays.rtt_ms[arrays.group_cell[:, None], cluster]
    late = np.where(rtt_ms + arrays.service_ms[model] > arrays.objective_ms[model], arrays.late_usd[model], 0.0)
    arc = ways_usd(rtt_ms, arrays.near_usd[model])
    usd = np.where(near >= 0, arrays.node_usd[near] + arc + late, np.inf)
    order = np.argsort(usd, axis=1, kind="stable")
    return np.take_along_axis(near, order, axis=1), np.take_along_axis(usd, order, axis=1)


def state(arrays: Arrays, replicas: Ints, group: Ints, node: Ints, rps: Floats) -> State:
    """A plan with these replicas [O] and these flows [F]."""
    nodes, groups, flows = len(arrays.node_model), len(arrays.group_rps), len(group)
    most = 2 * (flows + groups) + 1024
    left = arrays.group_rps - np.bincount(group, weights=rps, minlength=groups)
    terms = arrays.rule_term * replicas[arrays.rule_option]
    started = np.maximum(0, replicas - arrays.option_current)
    permit = arrays.group_permit[group]
    leaves = arrays.permit_leaves[permit, arrays.node_cluster[node]]
    cap = arrays.permit_cap[permit][leaves]
    made = State(
        replicas=replicas.astype(np.int64),
        capacity=np.bincount(arrays.option_node, weights=replicas * arrays.option_rps, minlength=nodes).astype(
            np.float64
        ),
        load=np.bincount(node, weights=rps, minlength=nodes).astype(np.float64),
        free=(arrays.pool_devices - arrays.used_devices(replicas)).astype(np.int64),
        kept=np.bincount(arrays.rule_of, weights=terms, minlength=len(arrays.rule_lower)).astype(np.float64),
        started=np.bincount(arrays.option_model, weights=started, minlength=len(arrays.service_ms)).astype(np.float64),
        away=np.bincount(cap, weights=rps[leaves], minlength=len(arrays.cap_rps)).astype(np.float64),
        left=np.maximum(0.0, left),
        flow_group=np.full(most, END, np.int64),
        flow_node=np.full(most, END, np.int64),
        flow_rps=np.zeros(most),
        after=np.full((most, 2), END, np.int64),
        before=np.full((most, 2), END, np.int64),
        node_head=np.full(nodes, END, np.int64),
        group_head=np.full(groups, END, np.int64),
        ends=np.array([0, END, 0], np.int64),
        log=np.zeros((most, 4), np.int64),
        log_rps=np.zeros(most),
    )
    _start(made, group, node, rps)
    return made


def is_crowded(state: State) -> bool:
    """Whether few free entries are left; each flow that is split takes one."""
    return bool(state.ends[0] > CROWDED * len(state.flow_rps))


def compacted(state: State) -> State:
    """The same plan with one entry for each pair of group and node."""
    group, node, rps = flows(state)
    first = np.flatnonzero(np.append(True, (group[1:] != group[:-1]) | (node[1:] != node[:-1]))[: len(group)])
    rps = np.add.reduceat(rps, first) if len(first) else rps
    most = 2 * (len(first) + len(state.left)) + 1024
    made = state._replace(
        flow_group=np.full(most, END, np.int64),
        flow_node=np.full(most, END, np.int64),
        flow_rps=np.zeros(most),
        after=np.full((most, 2), END, np.int64),
        before=np.full((most, 2), END, np.int64),
        node_head=np.full(len(state.node_head), END, np.int64),
        group_head=np.full(len(state.group_head), END, np.int64),
        ends=np.array([0, END, 0], np.int64),
        log=np.zeros((most, 4), np.int64),
        log_rps=np.zeros(most),
    )
    _start(made, group[first], node[first], rps)
    return made


def copy(state: State) -> State:
    """An independent copy."""
    return state._replace(**{name: part.copy() for name, part in state._asdict().items()})


def flows(state: State) -> tuple[Ints, Ints, Floats]:
    """(group, node, requests per second) of every flow, by group and node."""
    used = np.flatnonzero(state.flow_rps > DUST_RPS)
    order = np.lexsort((state.flow_node[used], state.flow_group[used]))
    used = used[order]
    return state.flow_group[used], state.flow_node[used], state.flow_rps[used]


@bare
def _start(s: State, group: Ints, node: Ints, rps: Floats) -> None:
    for at in range(len(group)):
        if rps[at] > 0.0:
            _link(s, _new(s, group[at]), group[at], node[at], rps[at])


@bare
def _new(s: State, group: int) -> int:
    entry = s.ends[1]
    if entry != END:
        s.ends[1] = s.after[entry, 0]
    else:
        entry = s.ends[0]
        s.ends[0] += 1
    s.flow_group[entry] = group
    s.after[entry, 1], s.before[entry, 1] = s.group_head[group], END
    if s.group_head[group] != END:
        s.before[s.group_head[group], 1] = entry
    s.group_head[group] = entry
    return int(entry)


@bare
def _delete(s: State, entry: int) -> None:
    """Free an entry that is in no node's list."""
    before, after, group = s.before[entry, 1], s.after[entry, 1], s.flow_group[entry]
    if before != END:
        s.after[before, 1] = after
    else:
        s.group_head[group] = after
    if after != END:
        s.before[after, 1] = before
    s.flow_rps[entry] = 0.0
    s.after[entry, 0] = s.ends[1]
    s.ends[1] = entry


@bare
def _link(s: State, entry: int, group: int, node: int, rps: float) -> None:
    s.flow_node[entry], s.flow_rps[entry] = node, rps
    s.after[entry, 0], s.before[entry, 0] = s.node_head[node], END
    if s.node_head[node] != END:
        s.before[s.node_head[node], 0] = entry
    s.node_head[node] = entry


@bare
def _unlink(s: State, entry: int) -> None:
    before, after, node = s.before[entry, 0], s.after[entry, 0], s.flow_node[entry]
    if before != END:
        s.after[before, 0] = after
    else:
        s.node_head[node] = after
    if after != END:
        s.before[after, 0] = before


@bare
def _cap(f: Facts, group: int, node: int) -> int:
    """The cap that counts this group's requests at this node, or -1."""
    if not len(f.cap_rps):
        return -1
    permit = f.group_permit[group]
    return f.permit_cap[permit] if f.permit_leaves[permit, f.node_cluster[node]] else -1


@bare
def _count(f: Facts, s: State, group: int, node: int, rps: float) -> None:
    """Add `rps` of a group to the load of a node, and to the cap that counts it."""
    s.load[node] += rps
    cap = _cap(f, group, node)
    if cap >= 0:
        s.away[cap] += rps


@bare
def _room(f: Facts, s: State, group: int, node: int, old: int) -> float:
    """Requests per second of a group that a node can take from node `old`, or from unserved demand where that is -1."""
    room = s.capacity[node] - s.load[node]
    cap = _cap(f, group, node)
    if cap >= 0 and (old < 0 or _cap(f, group, old) < 0):
        room = min(room, f.cap_rps[cap] - s.away[cap])
    return float(room)


@bare
def _log(s: State, kind: int, one: int, other: int, rps: float) -> None:
    at = s.ends[2]
    s.log[at, 0], s.log[at, 1], s.log[at, 2], s.log_rps[at] = kind, one, other, rps
    s.ends[2] += 1


@bare
def _is_full(s: State) -> bool:
    """Whether entries or log are full; then a move ends there, and is undone as usual when it does not pay."""
    return bool((s.ends[1] == END and s.ends[0] >= len(s.flow_rps)) or s.ends[2] >= len(s.log_rps))


@bare
def _move(f: Facts, s: State, entry: int, node: int, rps: float) -> float:
    """Move up to `rps` of a flow to another node; gives the requests per second moved."""
    if _is_full(s):
        return 0.0
    old, group = s.flow_node[entry], s.flow_group[entry]
    if rps >= s.flow_rps[entry] - DUST_RPS:
        rps = s.flow_rps[entry]
        _unlink(s, entry)
        _link(s, entry, group, node, rps)
        _log(s, RELINK, entry, old, rps)
    else:
        made = _new(s, group)
        _link(s, made, group, node, rps)
        s.flow_rps[entry] -= rps
        _log(s, SPLIT, made, entry, rps)
    _count(f, s, group, old, -rps)
    _count(f, s, group, node, rps)
    return float(rps)


@bare
def _serve(f: Facts, s: State, group: int, node: int, rps: float) -> float:
    """Serve up to `rps` of a group's unserved demand; gives the requests per second served."""
    if _is_full(s):
        return 0.0
    made = _new(s, group)
    _link(s, made, group, node, rps)
    s.left[group] -= rps
    _count(f, s, group, node, rps)
    _log(s, SERVE, made, group, rps)
    return float(rps)


@bare
def _change(f: Facts, s: State, option: int, by: int) -> None:
    """Change the replica count of an option, with capacity, devices, starts and rules."""
    started = max(0, s.replicas[option] - f.option_current[option])
    s.replicas[option] += by
    s.started[f.option_model[option]] += max(0, s.replicas[option] - f.option_current[option]) - started
    s.capacity[f.option_node[option]] += by * f.option_rps[option]
    s.free[f.option_pool[option]] -= by * f.option_devices[option]
    for at in range(f.rule_first[option], f.rule_first[option + 1]):
        s.kept[f.rule[at]] += by * f.rule_term[at]


@bare
def _undo(f: Facts, s: State, mark: int) -> None:
    """Undo everything that was logged since `mark`, newest first."""
    while s.ends[2] > mark:
        s.ends[2] -= 1
        at = s.ends[2]
        kind, one, other, rps = s.log[at, 0], s.log[at, 1], s.log[at, 2], s.log_rps[at]
        if kind == COUNT:
            _change(f, s, one, -other)
            continue
        group = s.flow_group[one]
        _count(f, s, group, s.flow_node[one], -rps)
        _unlink(s, one)
        if kind == RELINK:
            _link(s, one, group, other, rps)
            _count(f, s, group, other, rps)
        elif kind == SPLIT:
            _delete(s, one)
            s.flow_rps[other] += rps
            _count(f, s, group, s.flow_node[other], rps)
        else:
            _delete(s, one)
            s.left[other] += rps


@bare
def _usd(f: Facts, group: int, node: int) -> float:
    """USD per hour of one request per second of a group at a node."""
    model = f.group_model[group]
    rtt_ms = f.rtt_ms[f.group_cell[group], f.node_cluster[node]]
    return float(f.node_usd[node]) + request_usd(
        rtt_ms, f.service_ms[model], f.objective_ms[model], f.late_usd[model], f.near_usd[model]
    )


@bare
def _next_best(f: Facts, s: State, group: int, node: int) -> tuple[int, float]:
    """(cheapest near node with room other than this one, or -1; its USD per hour)."""
    near, capacity, load = f.near, s.capacity, s.load
    for at in range(near.shape[1]):
        other = near[group, at]
        if other < 0:
            break
        if other != node and capacity[other] - load[other] > DUST_RPS and _room(f, s, group, other, node) > DUST_RPS:
            return other, f.near_price[group, at]
    return -1, np.inf


@bare
def _best_two(f: Facts, s: State, group: int) -> tuple[int, float, float]:
    """(cheapest near node with room, or -1; its USD per hour; that of the second cheapest)."""
    near, capacity, load, best, usd = f.near, s.capacity, s.load, -1, np.inf
    for at in range(near.shape[1]):
        other = near[group, at]
        if other < 0:
            break
        if capacity[other] - load[other] > DUST_RPS and _room(f, s, group, other, -1) > DUST_RPS:
            if best >= 0:
                return best, usd, f.near_price[group, at]
            best, usd = other, f.near_price[group, at]
    return best, usd, np.inf


@bare
def _more_missed_usd(f: Facts, s: State, option: int, by: int) -> float:
    """USD per hour by which the penalty of priced rules rises when a count changes."""
    usd = 0.0
    for at in range(f.rule_first[option], f.rule_first[option + 1]):
        rule = f.rule[at]
        if f.rule_price[rule] > 0.0:
            missed = f.rule_lower[rule] - s.kept[rule]
            usd += f.rule_price[rule] * (max(0.0, missed - by * f.rule_term[at]) - max(0.0, missed))
    return usd


@bare
def _holds(f: Facts, s: State, option: int, by: int) -> bool:
    """Whether hard rules and bounds allow a change of count; a missed rule may not be missed by more."""
    count = s.replicas[option] + by
    if count < f.option_least[option] or count > f.option_most[option]:
        return False
    model = f.option_model[option]
    if by < 0 and count == 0 and f.keeps_last[model]:
        return False
    if by > 0:
        if s.free[f.option_pool[option]] < by * f.option_devices[option]:
            return False
        if count > f.option_current[option] and s.started[model] + by > f.max_starts[model]:
            return False
    for at in range(f.rule_first[option], f.rule_first[option + 1]):
        change = by * f.rule_term[at]
        if f.rule_price[f.rule[at]] > 0.0:
            continue
        if change < 0.0 and s.kept[f.rule[at]] + change < f.rule_lower[f.rule[at]] - ROUNDING:
            return False
    return True


@compiled
def _relieve(f: Facts, s: State, node: int, most_usd: float) -> float:
    """Move a node's excess load to where it costs least; gives USD per hour added, infinite beyond `most_usd`."""
    need = s.load[node] - s.capacity[node]
    if need <= ROUNDING:
        return 0.0
    # Two passes over the node's list: count its flows, then list them with what moving each adds. The list itself
    # changes while flows move.
    count, entry = 0, s.node_head[node]
    while entry != END:
        count, entry = count + 1, s.after[entry, 0]
    entries, more = np.empty(count, np.int64), np.empty(count)
    entry = s.node_head[node]
    for at in range(count):
        entries[at] = entry
        other, usd = _next_best(f, s, s.flow_group[entry], node)
        more[at] = usd - _usd(f, s.flow_group[entry], node) if other >= 0 else np.inf
        entry = s.after[entry, 0]
    total = 0.0
    for at in np.argsort(more, kind="mergesort"):
        entry = entries[at]
        # Flows come by rising cost: when this one is already too expensive, no later one helps.
        if more[at] * need > most_usd - total and more[at] > 0.0 and more[at] * min(need, s.flow_rps[entry]) > most_usd:
            return np.inf
        while need > ROUNDING:
            other, usd = _next_best(f, s, s.flow_group[entry], node)
            if other < 0:
                break
            rps = min(need, s.flow_rps[entry], _room(f, s, s.flow_group[entry], other, node))
            more_usd = usd - _usd(f, s.flow_group[entry], node)
            if total + rps * more_usd > most_usd:
                return np.inf
            moved = _move(f, s, entry, other, rps)
            if moved <= 0.0:
                return np.inf
            need -= moved
            total += moved * more_usd
            if s.flow_node[entry] != node:
                break
        if need <= ROUNDING:
            return total
    return np.inf


@compiled
def _drop(f: Facts, s: State, option: int) -> float:
    """Stop a replica if that lowers the cost; gives USD per hour saved, or 0."""
    node = f.option_node[option]
    if s.replicas[option] <= 0 or s.capacity[node] - s.load[node] < HOPEFUL * f.option_rps[option]:
        return 0.0
    if not _holds(f, s, option, -1) or _is_full(s):
        return 0.0
    mark = s.ends[2]
    saves = f.option_usd[option] - _more_missed_usd(f, s, option, -1)
    if s.replicas[option] > f.option_current[option]:
        saves += f.option_start_usd[option]
    _change(f, s, option, -1)
    _log(s, COUNT, option, -1, 0.0)
    more = _relieve(f, s, node, saves)
    if more < saves - WORTH_USD:
        return float(saves - more)
    _undo(f, s, mark)
    return 0.0


@compiled
def _add(f: Facts, s: State, option: int) -> float:
    """Start a replica if that lowers the cost, with the replicas that relieved nodes can then stop; gives the saving.

    Three acts: collect who would gain, serve them in order of gain, let relieved nodes drop replicas.
    """
    if not _holds(f, s, option, 1) or _is_full(s):
        return 0.0
    mark, node = s.ends[2], f.option_node[option]
    saves = -f.option_usd[option] - _more_missed_usd(f, s, option, 1)
    if s.replicas[option] >= f.option_current[option]:
        saves -= f.option_start_usd[option]
    room = s.capacity[node] + f.option_rps[option] - s.load[node]
    # Who would gain: unserved demand (what = -1 - group) and flows to dearer nodes (what = entry). The first pass
    # counts, so that the second can fill arrays of that size.
    count = 0
    for at in range(f.near_first[node], f.near_first[node + 1]):
        group = f.near_group[at]
        count += s.left[group] > DUST_RPS
        entry = s.group_head[group]
        while entry != END:
            count += s.flow_node[entry] != node
            entry = s.after[entry, 1]
    gain, what = np.empty(count), np.empty(count, np.int64)
    count = 0
    for at in range(f.near_first[node], f.near_first[node + 1]):
        group = f.near_group[at]
        usd = _usd(f, group, node)
        if s.left[group] > DUST_RPS:
            gain[count], what[count] = f.unserved_usd[f.group_model[group]] - usd, -1 - group
            count += 1
        entry = s.group_head[group]
        while entry != END:
            other = s.flow_node[entry]
            if other != node:
                more = _usd(f, group, other) - usd
                if more > WORTH_USD:
                    gain[count], what[count] = more, entry
                    count += 1
            entry = s.after[entry, 1]
    if count == 0:
        return 0.0
    # Serve them by falling gain while there is room.
    _change(f, s, option, 1)
    _log(s, COUNT, option, 1, 0.0)
    relieved = np.empty(count, np.int64)
    nodes = 0
    for at in np.argsort(-gain[:count], kind="mergesort"):
        if room <= DUST_RPS:
            break
        if what[at] < 0:
            group = -1 - what[at]
            rps = min(room, s.left[group], _room(f, s, group, node, -1))
            moved = _serve(f, s, group, node, rps) if rps > DUST_RPS else 0.0
        else:
            group, old = s.flow_group[what[at]], s.flow_node[what[at]]
            rps = min(room, s.flow_rps[what[at]], _room(f, s, group, node, old))
            moved = _move(f, s, what[at], node, rps) if rps > DUST_RPS else 0.0
            if moved > 0.0:
                relieved[nodes] = old
                nodes += 1
        saves += gain[at] * moved
        room -= moved
    # Nodes that lost load may stop replicas, which is part of this move's saving.
    last = -1
    for other in np.sort(relieved[:nodes]):
        if other == last:
            continue
        last = other
        for place in range(f.node_first[other], f.node_first[other + 1]):
            saves += _drop(f, s, f.node_option[place])
    if saves > WORTH_USD:
        return float(saves)
    _undo(f, s, mark)
    return 0.0


@bare
def _shift(f: Facts, s: State, node: int) -> float:
    """Move flows of a node to cheaper nodes with room; gives USD per hour saved."""
    saves, entry = 0.0, s.node_head[node]
    while entry != END:
        after = s.after[entry, 0]
        here = _usd(f, s.flow_group[entry], node)
        other, usd = _next_best(f, s, s.flow_group[entry], node)
        if other >= 0 and usd < here - WORTH_USD:
            rps = min(s.flow_rps[entry], _room(f, s, s.flow_group[entry], other, node))
            saves += _move(f, s, entry, other, rps) * (here - usd)
        entry = after
    s.ends[2] = 0
    return float(saves)


@compiled
def fill(f: Facts, s: State, groups: Ints) -> None:
    """Serve unserved demand of these groups where there is room, by regret: greatest loss by second choice first."""
    regret, best, best_usd = np.empty(len(groups)), np.empty(len(groups), np.int64), np.empty(len(groups))
    for at in range(len(groups)):
        best[at], best_usd[at], second = _best_two(f, s, groups[at])
        second = min(second, f.unserved_usd[f.group_model[groups[at]]])
        regret[at] = (second - best_usd[at]) if best[at] >= 0 else -np.inf
    for at in np.argsort(-regret, kind="mergesort"):
        group, node, usd = groups[at], best[at], best_usd[at]
        while s.left[group] > DUST_RPS:
            if node >= 0 and _room(f, s, group, node, -1) <= DUST_RPS:
                node, usd = _next_best(f, s, group, -1)
            if node < 0 or usd >= f.unserved_usd[f.group_model[group]]:
                break
            moved = _serve(f, s, group, node, min(s.left[group], _room(f, s, group, node, -1)))
            s.ends[2] = 0
            if moved <= 0.0:
                break


@compiled
def improve(f: Facts, s: State, options: Ints, rounds: int) -> float:
    """Moves over these options and their nodes until none saves, for at most `rounds`; gives USD per hour saved."""
    total = 0.0
    for _ in range(rounds):
        saves = 0.0
        for option in options:
            saves += _shift(f, s, f.option_node[option])
        for option in options:
            while True:
                part = _drop(f, s, option)
                s.ends[2] = 0
                saves += part
                if part <= 0.0:
                    break
        for option in options:
            while True:
                part = _add(f, s, option)
                s.ends[2] = 0
                saves += part
                if part <= 0.0:
                    break
        total += saves
        if saves <= WORTH_USD:
            break
    return total


@compiled
def served(s: State, nodes: Ints) -> tuple[Ints, Floats]:
    """(group, requests per second) of every flow to these nodes."""
    count = 0
    for node in nodes:
        entry = s.node_head[node]
        while entry != END:
            count, entry = count + 1, s.after[entry, 0]
    groups, rps = np.empty(count, np.int64), np.empty(count)
    count = 0
    for node in nodes:
        entry = s.node_head[node]
        while entry != END:
            groups[count], rps[count] = s.flow_group[entry], s.flow_rps[entry]
            count, entry = count + 1, s.after[entry, 0]
    return groups, rps


@compiled
def leave(f: Facts, s: State, nodes: Ints) -> Ints:
    """Leave unserved what these nodes serve; gives the groups [...] concerned."""
    groups, count = np.empty(len(s.flow_rps), np.int64), 0
    for node in nodes:
        entry = s.node_head[node]
        while entry != END:
            after = s.after[entry, 0]
            groups[count] = s.flow_group[entry]
            count += 1
            _release(f, s, entry, s.flow_rps[entry])
            entry = after
    return np.unique(groups[:count])


@bare
def _release(f: Facts, s: State, entry: int, rps: float) -> None:
    """Leave `rps` of a flow unserved."""
    group, node = s.flow_group[entry], s.flow_node[entry]
    s.left[group] += rps
    _count(f, s, group, node, -rps)
    if rps >= s.flow_rps[entry] - DUST_RPS:
        _unlink(s, entry)
        _delete(s, entry)
    else:
        s.flow_rps[entry] -= rps


@bare
def close(f: Facts, s: State, nodes: Ints) -> None:
    """Stop all replicas on these nodes and allow none there."""
    for node in nodes:
        for at in range(f.node_first[node], f.node_first[node + 1]):
            option = f.node_option[at]
            _change(f, s, option, -s.replicas[option])
            f.option_least[option] = f.option_most[option] = 0


@bare
def clear(f: Facts, s: State, pool: int, options: Ints) -> None:
    """Stop replicas of these options, in their order, until the pool holds no more than its devices."""
    for option in options:
        while s.free[pool] < 0 and s.replicas[option] > f.option_least[option]:
            _change(f, s, option, -1)


@bare
def drop_beyond(f: Facts, s: State, limit: int, options: Ints) -> None:
    """Stop replicas of these options, in their order, until the limit holds."""
    for option in options:
        while s.kept[limit] < f.rule_lower[limit] - ROUNDING and s.replicas[option] > f.option_least[option]:
            _change(f, s, option, -1)


@bare
def approach(f: Facts, s: State, options: Ints, wanted: Ints) -> None:
    """Bring these options to the wanted counts as far as rules, bounds, devices and their load allow."""
    for place in range(len(options)):
        option, node = options[place], f.option_node[options[place]]
        while s.replicas[option] > wanted[place] and _holds(f, s, option, -1):
            if s.load[node] > s.capacity[node] - f.option_rps[option] + ROUNDING:
                break
            _change(f, s, option, -1)
    for place in range(len(options)):
        while s.replicas[options[place]] < wanted[place] and _holds(f, s, options[place], 1):
            _change(f, s, options[place], 1)


@bare
def release(f: Facts, s: State, groups: Ints) -> None:
    """Leave these groups unserved."""
    for group in groups:
        entry = s.group_head[group]
        while entry != END:
            after = s.after[entry, 1]
            _release(f, s, entry, s.flow_rps[entry])
            entry = after


@bare
def enter(f: Facts, s: State, group: Ints, node: Ints, rps: Floats) -> None:
    """Serve unserved demand of groups at these nodes, whether or not they have room."""
    for at in range(len(group)):
        _serve(f, s, group[at], node[at], min(rps[at], s.left[group[at]]))
        s.ends[2] = 0


@compiled
def release_excess(f: Facts, s: State, nodes: Ints) -> None:
    """Move the excess load of these nodes to where it costs least, or leave it unserved; the dearest flows go first."""
    for node in nodes:
        if s.load[node] <= s.capacity[node] + ROUNDING:
            continue
        mark = s.ends[2]
        if _relieve(f, s, node, np.inf) < np.inf:
            s.ends[2] = 0
            continue
        _undo(f, s, mark)
        s.ends[2] = 0
        count, entry = 0, s.node_head[node]
        while entry != END:
            count, entry = count + 1, s.after[entry, 0]
        entries, usd = np.empty(count, np.int64), np.empty(count)
        entry = s.node_head[node]
        for at in range(count):
            entries[at], usd[at] = entry, _usd(f, s.flow_group[entry], node)
            entry = s.after[entry, 0]
        for at in np.argsort(-usd, kind="mergesort"):
            need = s.load[node] - s.capacity[node]
            if need <= ROUNDING:
                break
            _release(f, s, entries[at], min(need, s.flow_rps[entries[at]]))


def usd_per_hour(facts: Facts, state: State) -> float:
    """USD per hour of a plan: replicas, starts, flows and unserved demand."""
    group, node, rps = flows(state)
    model = facts.group_model[group]
    rtt_ms = facts.rtt_ms[facts.group_cell[group], facts.node_cluster[node]]
    late = np.where(rtt_ms + facts.service_ms[model] > facts.objective_ms[model], facts.late_usd[model], 0.0)
    served = rps * (facts.node_usd[node] + ways_usd(rtt_ms, facts.near_usd[model]) + late)
    started = np.maximum(0, state.replicas - facts.option_current)
    lost = state.left * facts.unserved_usd[facts.group_model]
    run = state.replicas * facts.option_usd + started * facts.option_start_usd
    missed = facts.rule_price * np.maximum(0.0, facts.rule_lower - state.kept)
    return float(run.sum() + served.sum() + lost.sum() + missed.sum())
