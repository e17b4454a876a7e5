"""A placement problem as arrays over every pair of users and clusters, for the large engine.

Position is identity. Shapes are in brackets: P pools, O options, N nodes, G groups, M models, R rules,
K sets of permitted clusters, C caps.

  option  a (model, pool) pair that may hold replicas       node   a (model, cluster) pair: requests go to these
  group   a (model, cell) pair: requests come from these

Options are sorted by (model, pool), nodes by (model, cluster), groups by (model, cell). Money is USD per hour, load is
requests per second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from placement.jit import compiled

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrays:
    """A placement problem.

    One request per second of a group at a node costs the node's `node_usd` (egress), `near_usd` for each millisecond of
    round trip, and `late_usd` when they take longer than the objective. `option_rps` is what plans count
    on of one replica; `option_start_usd` the price of each beyond `option_current`. A rule r reads: the sum of
    `rule_term` times replicas over its part of `rule_option` is at least `rule_lower`, or it is missed at `rule_usd`.
    The last of the rules may be limits, which are never missed: what replicas take of them counts as less than nothing,
    and they are over several models where these have a budget together.
    A cap c is of one model and one continent of users: of what groups with it ask for, at most `cap_rps` may leave.
    """

    pool_devices: Ints
    """[P]"""
    option_model: Ints
    """[O], as all that begin with option_"""
    option_pool: Ints
    option_node: Ints
    option_devices: Ints
    """of one replica"""
    option_rps: Floats
    option_usd: Floats
    """of one replica: its devices and risk; with its start where none runs and the model has no budget of starts"""
    option_start_usd: Floats
    option_current: Ints
    option_least: Ints
    option_most: Ints
    node_model: Ints
    """[N], as all that begin with node_"""
    node_cluster: Ints
    node_usd: Floats
    rtt_ms: Singles
    """[cells, clusters]"""
    permitted: Bools
    """[K, clusters]: the distinct sets of permitted clusters, by residency and known latency"""
    permit_cap: Ints
    """[K] the cap on requests that groups with this set send to other continents, or -1"""
    permit_leaves: Bools
    """[K, clusters] whether the cap counts requests served there"""
    cap_rps: Floats
    """[C]"""
    group_model: Ints
    """[G], as all that begin with group_"""
    group_cell: Ints
    group_permit: Ints
    """the permitted set [K] of each"""
    group_rps: Floats
    service_ms: Floats
    """[M]"""
    objective_ms: Floats
    """[M]"""
    late_usd: Floats
    """[M]"""
    unserved_usd: Floats
    """[M]: of one unserved request per second"""
    max_starts: Floats
    """[M]; infinite where there is no budget"""
    near_usd: Floats
    """[M, 1 + 2B]: of one request per second, for each millisecond of round trip; then for each bend of its price the
    round trip, and what each millisecond beyond it costs more"""
    rule_start: Ints
    """[R + 1]: where each rule's part begins"""
    rule_option: Ints
    rule_term: Floats
    rule_lower: Floats
    """[R]"""
    rule_usd: Floats
    """[R]: of missing it by one; infinite of limits"""
    rule_yields: Bools
    """[R]: whether it is missed before users go unserved for it"""
    rule_is_priced: Bools
    """[R]: whether it is an expected cost, no rule of policy"""

    @property
    def model_node(self) -> Ints:
        """[M + 1]: where each model's nodes begin."""
        return np.searchsorted(self.node_model, np.arange(len(self.service_ms) + 1)).astype(np.int64)

    @property
    def rule_of(self) -> Ints:
        """The rule of each of `rule_option`."""
        return np.repeat(np.arange(len(self.rule_lower)), np.diff(self.rule_start))

    @property
    def is_limit(self) -> Bools:
        """[R] whether each rule is a limit."""
        made: Bools = np.isinf(self.rule_usd)
        return made

    def taken(self, replicas: Floats | Ints) -> Floats:
        """[R] minus the use of each limit by these replicas [O]; zero for other rules."""
        terms = np.where(self.is_limit[self.rule_of], self.rule_term, 0.0) * replicas[self.rule_option]
        return np.bincount(self.rule_of, weights=terms, minlength=len(self.rule_lower)).astype(np.float64)

    @property
    def limits_of(self) -> dict[int, list[tuple[int, float]]]:
        """Option -> (limit, its term: minus the use by one replica), of options that limits count."""
        made: dict[int, list[tuple[int, float]]] = {}
        rule_of = self.rule_of
        for at in np.flatnonzero(self.is_limit[rule_of]).tolist():
            made.setdefault(int(self.rule_option[at]), []).append((int(rule_of[at]), float(self.rule_term[at])))
        return made

    @property
    def node_at(self) -> Ints:
        """[M, clusters] the node of each pair, or -1."""
        made = np.full((len(self.service_ms), self.rtt_ms.shape[1]), -1, np.int64)
        made[self.node_model, self.node_cluster] = np.arange(len(self.node_model))
        return made

    def surcharge_usd(self, away: Floats) -> Floats:
        """[K, clusters] USD per hour that one request per second pays at these duals of caps [C]."""
        made = np.zeros(self.permitted.shape)
        capped = np.flatnonzero(self.permit_cap >= 0)
        made[capped] = self.permit_leaves[capped] * away[self.permit_cap[capped]][:, None]
        return made

    @property
    def requests(self) -> Requests:
        """For compiled loops."""
        return Requests(**{name: getattr(self, name) for name in Requests._fields})

    def used_devices(self, replicas: Floats | Ints) -> Floats:
        """[P] devices used by these replicas [O]."""
        weights = replicas * self.option_devices
        return np.bincount(self.option_pool, weights=weights, minlength=len(self.pool_devices)).astype(np.float64)


class Requests(NamedTuple):
    """What decides the cost of a request, for compiled loops; each field as in `Arrays`."""

    group_model: Ints
    group_cell: Ints
    group_permit: Ints
    group_rps: Floats
    rtt_ms: Singles
    service_ms: Floats
    objective_ms: Floats
    late_usd: Floats
    near_usd: Floats
    unserved_usd: Floats


@compiled
def _best(requests: Requests, groups: Ints, price: Floats, surcharge: Floats, most: int) -> tuple[Ints, Floats]:
    """([groups, most] cheapest clusters of each group at these prices, or -1; [groups, most] USD per hour there).

    Args: price: [M, clusters]. surcharge: [K, clusters], infinite where groups with this set may not be served.
    """
    clusters = requests.rtt_ms.shape[1]
    top = np.full((len(groups), most), -1, np.int64)
    top_usd = np.full((len(groups), most), np.inf)
    usd = np.empty(clusters)
    for at in range(len(groups)):
        group = groups[at]
        model, row = requests.group_model[group], requests.rtt_ms[requests.group_cell[group]]
        mine, near, extra = price[model], requests.near_usd[model], surcharge[requests.group_permit[group]]
        late, objective, service = requests.late_usd[model], requests.objective_ms[model], requests.service_ms[model]
        best, best_usd = top[at], top_usd[at]
        # Loops without branches, which take a fifth of the time.
        for cluster in range(clusters):
            usd[cluster] = near[0] * row[cluster] + mine[cluster] + extra[cluster]
        for bend in range(1, len(near), 2):
            for cluster in range(clusters):
                usd[cluster] += near[bend + 1] * max(0.0, row[cluster] - near[bend])
        for cluster in range(clusters):
            usd[cluster] += late if row[cluster] + service > objective else 0.0
        # Insertion into the list of the `most` cheapest, which is short.
        for cluster in range(clusters):
            paid = usd[cluster]
            if paid < best_usd[most - 1]:
                place = most - 1
                while place > 0 and best_usd[place - 1] > paid:
                    best_usd[place] = best_usd[place - 1]
                    best[place] = best[place - 1]
                    place -= 1
                best_usd[place] = paid
                best[place] = cluster
    return top, top_usd


def best(arrays: Arrays, capacity: Floats, away: Floats, most: int, groups: Ints | None = None) -> tuple[Ints, Floats]:
    """([groups, most] cheapest nodes of each group at these duals of capacity [N] and caps [C], or -1; [groups, most]
    USD per hour there). Args: groups: all where None."""
    price = np.full((len(arrays.service_ms), arrays.rtt_ms.shape[1]), np.inf)
    price[arrays.node_model, arrays.node_cluster] = capacity + arrays.node_usd
    surcharge = np.where(arrays.permitted, arrays.surcharge_usd(away), np.inf)
    groups = np.arange(len(arrays.group_rps)) if groups is None else groups
    cluster, usd = _best(arrays.requests, groups, price, surcharge, most)
    nodes: Ints = arrays.node_at[arrays.group_model[groups][:, None], cluster]
    return np.where(cluster >= 0, nodes, -1), usd


def served_usd(arrays: Arrays, capacity: Floats, away: Floats) -> float:
    """USD per hour when each group takes its cheapest node at these duals of capacity [N] and caps [C], or stays
    unserved."""
    _, usd = best(arrays, capacity, away, 1)
    return float((arrays.group_rps * np.minimum(arrays.unserved_usd[arrays.group_model], usd[:, 0])).sum())
