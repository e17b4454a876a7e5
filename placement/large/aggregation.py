"""Demand aggregation: groups that would be served alike are one class; `apportion` disaggregates its flows.

Thousands of cells ask for each model, and few of them matter by themselves. An arc of a class costs the mean of its
members, so a plan for classes is a plan for the groups at no higher cost; `apportion` gains from their differences.
Duals are found on classes with two arcs to each cluster (`by_lateness`). That relaxes the problem a little, so its
solution is no plan, but its duals are almost exact with few and coarse classes.

Source: Rogers, Plante, Wong and Evans, Aggregation and disaggregation techniques and methodology in optimization,
Operations Research 39 (1991).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from placement.jit import compiled
from placement.large.arrays import Arrays, Floats, Ints, Requests, best
from placement.large.duals import Duals
from placement.request_costs import request_usd

TINY_RPS = 1e-30
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregation:
    """How finely groups are aggregated.

    Groups are in one class when their `alike` cheapest nodes are the same, counting nodes at most `near` times as
    expensive as the cheapest. The `classes` of highest cost are kept; the others are merged by their `rest` cheapest.
    """

    classes: int
    near: float
    alike: int
    rest: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Classes:
    """K classes, each of one model and one set of permitted clusters (so of one cap too).

    `order` [G] lists groups by class, and `first` [K + 1] says where each class begins. `usd` [K, arcs] is the mean
    cost of one request per second on each arc, infinite where there is none, and `most` [K, arcs] the largest flow on
    it. An arc leads to the cluster `arc % clusters`.
    """

    order: Ints
    first: Ints
    model: Ints
    permit: Ints
    rps: Floats
    usd: Floats
    most: Floats


def whole(arrays: Arrays, start: Duals, grain: Aggregation | None) -> Classes:
    """Classes with one arc to each cluster, at the mean cost of the members: a plan can be made of their flows.

    Args: start: duals at which groups are compared. grain: None makes each group a class.
    """
    every = np.arange(len(arrays.group_rps))
    return _whole(arrays, *(_classify(arrays, start, grain, every) if grain else _each(arrays)))


def by_lateness(arrays: Arrays, start: Duals, grain: Aggregation) -> Classes:
    """Classes with two arcs to each cluster: on time, capped by the demand that meets the objective there, and late."""
    return _by_lateness(arrays, *_classify(arrays, start, grain, np.arange(len(arrays.group_rps))))


def split(arrays: Arrays, before: Classes, start: Duals, grain: Aggregation, groups: Ints) -> Classes:
    """The classes before without these groups, followed by new classes of these groups."""
    new = _whole(arrays, *_classify(arrays, start, grain, groups))
    leaves = np.zeros(len(arrays.group_rps), dtype=bool)
    leaves[groups] = True
    count, sizes, leaves = len(before.rps), np.diff(before.first), leaves[before.order]
    gone, kind = before.order[leaves], np.repeat(np.arange(count), sizes)[leaves]
    sizes = sizes - np.bincount(kind, minlength=count)
    usd, rps = np.concatenate([before.usd, new.usd]), np.concatenate([before.rps, new.rps])
    one, first = np.unique(kind, return_index=True)
    gone_rps: Floats = np.bincount(kind, weights=arrays.group_rps[gone], minlength=count)[one].astype(np.float64)
    left_rps = np.where(sizes[one] > 0, np.maximum(0.0, before.rps[one] - gone_rps), 0.0)
    less = _whole(arrays, gone, np.append(first, len(gone)), before.model[one], before.permit[one], gone_rps)
    tells = np.flatnonzero(left_rps > ROUNDING * before.rps[one])  # an empty class has no mean cost
    sums = before.usd[one[tells]] * before.rps[one[tells], None]
    with np.errstate(invalid="ignore"):
        left_usd = (sums - less.usd[tells] * gone_rps[tells, None]) / left_rps[tells, None]
    usd[one[tells]] = np.where(np.isfinite(sums), left_usd, np.inf)
    rps[one] = left_rps
    return Classes(
        order=np.concatenate([before.order[~leaves], new.order]),
        first=np.concatenate([[0], np.cumsum(sizes), sizes.sum() + new.first[1:]]),
        model=np.concatenate([before.model, new.model]),
        permit=np.concatenate([before.permit, new.permit]),
        rps=rps,
        usd=usd,
        most=np.broadcast_to(np.inf, usd.shape),
    )


def still_permitted(arrays: Arrays, before: Classes) -> bool:
    """Whether the members of each class still share one set of permitted clusters, in another problem of the groups."""
    permit = arrays.group_permit[before.order]
    return bool((permit == np.repeat(_of_members(before, permit), np.diff(before.first))).all())


def same_demand(arrays: Arrays, other: Arrays) -> bool:
    """Whether demand and costs of requests, egress aside, are equal in two problems of the same groups."""
    return _are_equal(
        (arrays.group_cell, other.group_cell),
        (arrays.group_rps, other.group_rps),
        (arrays.service_ms, other.service_ms),
        (arrays.objective_ms, other.objective_ms),
        (arrays.late_usd, other.late_usd),
        (arrays.near_usd, other.near_usd),
        (arrays.rtt_ms.view(np.int32), other.rtt_ms.view(np.int32)),  # where it is not known too
    )


def same_costs(arrays: Arrays, other: Arrays) -> bool:
    """Whether each group may go to the same nodes in two worlds of the same groups, at the same cost of egress."""
    return _are_equal(
        (arrays.node_model, other.node_model),
        (arrays.node_cluster, other.node_cluster),
        (arrays.node_usd, other.node_usd),
        (arrays.group_permit, other.group_permit),
        (arrays.permitted, other.permitted),
    )


def _are_equal(*pairs: tuple[NDArray[Any], NDArray[Any]]) -> bool:
    return all(one is another or np.array_equal(one, another) for one, another in pairs)


def carried_over(arrays: Arrays, before: Classes, *, are_same: bool = False) -> Classes:
    """The same classes of the same groups with the numbers of another world, where they `hold`.

    Args: are_same: groups ask and go alike in both worlds, which saves most of the time.
    """
    if are_same:
        return before
    order, first, count = before.order, before.first, len(before.rps)
    permit = _of_members(before, arrays.group_permit[order])
    kind = np.repeat(np.arange(count), np.diff(first))
    rps = np.bincount(kind, weights=arrays.group_rps[order], minlength=count).astype(np.float64)
    make = _whole if before.usd.shape[1] == arrays.rtt_ms.shape[1] else _by_lateness
    return make(arrays, order, first, before.model, permit, rps)


def _of_members(classes: Classes, values: Ints) -> Ints:
    """[K] the first member's; zero where there is none. Args: values: of members, in their order."""
    some = np.diff(classes.first) > 0
    made = np.zeros(len(some), np.int64)
    made[some] = values[classes.first[:-1][some]]
    return made


def _whole(arrays: Arrays, order: Ints, first: Ints, model: Ints, permit: Ints, rps: Floats) -> Classes:
    _, near_usd, late_usd = _sums(arrays, order, first, model)
    usd = (near_usd + late_usd) / np.maximum(rps, TINY_RPS)[:, None]
    usd = _reachable(arrays, usd, model, permit)
    most = np.broadcast_to(np.inf, usd.shape)
    return Classes(order=order, first=first, model=model, permit=permit, rps=rps, usd=usd, most=most)


def _by_lateness(arrays: Arrays, order: Ints, first: Ints, model: Ints, permit: Ints, rps: Floats) -> Classes:
    on, near_usd, late_usd = _sums(arrays, order, first, model)
    off = np.maximum(0.0, rps[:, None] - on)
    with np.errstate(divide="ignore", invalid="ignore"):
        in_time = np.where(on > 0, near_usd / on, np.inf)
        late = np.where(off > 1e-12, late_usd / off, np.inf)
    usd = np.concatenate([_reachable(arrays, in_time, model, permit), _reachable(arrays, late, model, permit)], axis=1)
    most = np.concatenate([on, off], axis=1)
    return Classes(order=order, first=first, model=model, permit=permit, rps=rps, usd=usd, most=most)


def _each(arrays: Arrays) -> tuple[Ints, Ints, Ints, Ints, Floats]:
    count = len(arrays.group_rps)
    return np.arange(count), np.arange(count + 1), arrays.group_model, arrays.group_permit, arrays.group_rps


def _classify(arrays: Arrays, start: Duals, grain: Aggregation, groups: Ints) -> tuple[Ints, Ints, Ints, Ints, Floats]:
    top, usd = best(arrays, start.capacity, start.away, max(1, grain.alike), groups)
    near = (usd <= usd[:, :1] * grain.near + 1e-9) & (top >= 0)
    alike = np.sort(np.where(near, top, -1), axis=1)
    model, permit, rps = arrays.group_model[groups], arrays.group_permit[groups], arrays.group_rps[groups]
    kind = _encoded(model, permit, *alike.T)
    worth = np.bincount(kind, weights=rps * np.minimum(arrays.unserved_usd[model], usd[:, 0]))
    if len(worth) > grain.classes:
        large = np.zeros(len(worth), dtype=bool)
        large[np.argsort(-worth, kind="stable")[: grain.classes]] = True
        apart = np.where(large[kind], kind, -1)
        kind = _encoded(model, apart, permit, *np.where(large[kind, None], -1, top[:, : grain.rest]).T)
    count = int(kind.max()) + 1 if len(kind) else 0
    order = np.argsort(kind, kind="stable")
    first = np.searchsorted(kind[order], np.arange(count + 1)).astype(np.int64)
    member = order[first[:-1]]
    total = np.bincount(kind, weights=rps, minlength=count).astype(np.float64)
    return groups[order], first, model[member], permit[member], total


def _encoded(*columns: Ints) -> Ints:
    """[G] one number for each different row of these columns [G]; numbers rise with the first column."""
    order = np.lexsort(columns[::-1])
    differs = np.zeros(len(order), dtype=bool)
    for column in columns:
        differs[1:] |= column[order][1:] != column[order][:-1]
    kind = np.empty(len(order), np.int64)
    kind[order] = np.cumsum(differs)
    return kind


def _reachable(arrays: Arrays, usd: Floats, model: Ints, permit: Ints) -> Floats:
    """[K, clusters] costs with egress; infinite where the model has no node or the class may not be served."""
    node_usd = np.full((len(arrays.service_ms), usd.shape[1]), np.inf)
    node_usd[arrays.node_model, arrays.node_cluster] = arrays.node_usd
    made: Floats = np.where(arrays.permitted[permit], usd + node_usd[model], np.inf)
    return made


def _sums(arrays: Arrays, order: Ints, first: Ints, model: Ints) -> tuple[Floats, Floats, Floats]:
    return _by_cluster(arrays.requests, order, first, model)


@compiled
def _by_cluster(requests: Requests, order: Ints, first: Ints, model: Ints) -> tuple[Floats, Floats, Floats]:
    """[K, clusters] each: requests per second of members that would be on time there, USD per hour of these, and of the
    others, which would be late."""
    count, clusters = len(first) - 1, requests.rtt_ms.shape[1]
    on, in_time, late = np.zeros((count, clusters)), np.zeros((count, clusters)), np.zeros((count, clusters))
    usd = np.empty(clusters)
    for one in range(count):
        kind = model[one]
        near, late_by = requests.near_usd[kind], requests.late_usd[kind]
        objective, service = requests.objective_ms[kind], requests.service_ms[kind]
        part_on, part_in_time, part_late = on[one], in_time[one], late[one]
        for at in range(first[one], first[one + 1]):
            group = order[at]
            rps, row = requests.group_rps[group], requests.rtt_ms[requests.group_cell[group]]
            # Loops without branches, which take a fifth of the time.
            for cluster in range(clusters):
                usd[cluster] = near[0] * row[cluster]
            for bend in range(1, len(near), 2):
                for cluster in range(clusters):
                    usd[cluster] += near[bend + 1] * max(0.0, row[cluster] - near[bend])
            for cluster in range(clusters):
                is_on = row[cluster] + service <= objective
                part_on[cluster] += rps if is_on else 0.0
                part_in_time[cluster] += rps * usd[cluster] if is_on else 0.0
                part_late[cluster] += 0.0 if is_on else rps * (usd[cluster] + late_by)
    return on, in_time, late


def apportion(arrays: Arrays, classes: Classes, one: Ints, cluster: Ints, rps: Floats) -> tuple[Ints, Ints, Floats]:
    """([n] group, [n] cluster, [n] requests per second): flows of classes disaggregated to their members, by regret.

    Args: one, cluster, rps: [flows] the class, cluster and rate of each, sorted by class.
    """
    start = np.searchsorted(one, np.arange(len(classes.rps) + 1)).astype(np.int64)
    most = len(one) + int(np.diff(classes.first)[np.unique(one)].sum())
    flows = _Flows(start=start, cluster=cluster, rps=rps, node_usd=arrays.node_usd, node_at=arrays.node_at)
    return _apportion(arrays.requests, flows, classes.order, classes.first, most)


class _Flows(NamedTuple):
    """`rps` of classes to each `cluster`: those of class k are from `start[k]` to `start[k + 1]`. The rest is as in
    `Arrays`."""

    start: Ints
    cluster: Ints
    rps: Floats
    node_usd: Floats
    node_at: Ints


@compiled
def _apportion(requests: Requests, flows_of: _Flows, order: Ints, first: Ints, most: int) -> tuple[Ints, Ints, Floats]:
    """Cluster by cluster, the busiest first: it gets the members with the greatest regret, which is what they would pay
    more for their next best cluster of those left.

    Args: order, first: members by class, as in `Classes`. most: no more parts than this come out.
    """
    start, cluster, rps = flows_of.start, flows_of.cluster, flows_of.rps
    to_group, to_cluster, to_rps = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(most)
    end = 0
    for one in range(len(first) - 1):
        if start[one] == start[one + 1]:
            continue
        lo, hi = first[one], first[one + 1]
        flows = np.arange(start[one], start[one + 1])
        flows = flows[np.argsort(-rps[flows], kind="mergesort")]
        members = order[lo:hi].copy()
        left = requests.group_rps[members].copy()
        # price[flow, member] is the cost of one request per second there; the last row is of being unserved.
        price = np.empty((len(flows) + 1, len(members)))
        total = 0.0
        for at in range(len(members)):
            group = members[at]
            model = requests.group_model[group]
            total += requests.group_rps[group]
            price[len(flows), at] = requests.unserved_usd[model]
            for flow in range(len(flows)):
                to = cluster[flows[flow]]
                price[flow, at] = flows_of.node_usd[flows_of.node_at[model, to]] + request_usd(
                    requests.rtt_ms[requests.group_cell[group], to],
                    requests.service_ms[model],
                    requests.objective_ms[model],
                    requests.late_usd[model],
                    requests.near_usd[model],
                )
        served = rps[flows].sum()
        is_all = served >= total * (1.0 - 1e-9) - 1e-9
        for flow in range(len(flows)):
            want = rps[flows[flow]]
            is_last = is_all and flow == len(flows) - 1  # then what rounding leaves goes there, too
            regret = np.zeros(len(members))
            for at in range(len(members)):
                other = np.inf
                for later in range(flow + 1, len(flows) + (0 if is_all else 1)):
                    other = min(other, price[later, at])
                if other < np.inf:
                    regret[at] = price[flow, at] - other
            for at in np.argsort(regret, kind="mergesort"):
                part = left[at] if is_last else min(left[at], want)
                if part <= 0.0:
                    continue
                left[at] -= part
                want -= part
                to_group[end], to_cluster[end], to_rps[end] = members[at], cluster[flows[flow]], part
                end += 1
                if want <= 1e-12 and not is_last:
                    break
    return to_group[:end].copy(), to_cluster[:end].copy(), to_rps[:end].copy()
