"""A plan that stands: bettered step by step, and mended after an event without touching what the event does not.

An event (a cluster lost, a pool shrunk, a price, new demand) first changes who serves whom, with the replicas that run
(milliseconds); `improve` then starts and gives up replicas where that pays, near to what was touched. Both are `local`
steps; everything between two steps keeps all hard rules that can be kept.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from placement import local
from placement.filters import Index
from placement.number import Numbered
from placement.prices import Prices, option_usd
from placement.world import Floats, Ints

PAYS = 0.2
"""Options that are not in use are tried where they cost at most this part above what they bring at these prices."""
UNSERVED_RPS = 1e-6

Rates = dict[str, dict[tuple[str, str], float]]


class Standing:
    """Replicas and flows of a numbered world, changed in place.

    Args: prices: what the plan was found with. replicas: [O]. groups, nodes, rps: the flows.
    """

    def __init__(
        self,
        index: Index,
        numbered: Numbered,
        prices: Prices,
        replicas: Ints,
        groups: Ints,
        nodes: Ints,
        rps: Floats,
    ) -> None:
        self._numbered, self._world = numbered, numbered.world
        models = index.problem.models
        self._priority = np.array([model.priority for model in models], np.int64)
        keeps_last = np.array([model.min_regions > 0 for model in models], dtype=bool)
        self._facts = local.facts(self._world, prices, keeps_last)
        self._state = local.state(self._world, replicas, groups, nodes, rps)
        brings = prices.capacity[self._world.option_node] * self._world.option_rps
        self._pays = option_usd(self._world, prices) - brings < PAYS * self._world.option_usd
        self._rps = self._world.group_rps.copy()
        self._pools = {pool.name: at for at, pool in enumerate(index.problem.pools)}
        self._devices = self._world.pool_devices.copy()

    # ---- events: who serves whom changes at once

    def lose(self, clusters: Iterable[str]) -> Ints:
        """Nothing runs in these clusters any more, and nothing can. Gives the groups that they served."""
        lost = np.flatnonzero(np.isin(self._numbered.clusters, list(clusters)))
        nodes = np.flatnonzero(np.isin(self._world.node_cluster, lost))
        touched = local.leave(self._facts, self._state, nodes)
        for option in np.flatnonzero(np.isin(self._world.option_node, nodes)).tolist():
            local.change(self._facts, self._state, option, -int(self._state.replicas[option]))
            self._facts.option_least[option] = self._facts.option_most[option] = 0
        self._serve(touched)
        return touched

    def shrink(self, pool: str, devices: int) -> Ints:
        """A pool has only so many devices. Gives the groups that it served."""
        at = self._pools[pool]
        self._state.free[at] -= self._devices[at] - devices
        self._devices[at] = devices
        options = np.flatnonzero(self._world.option_pool == at)
        nodes = np.unique(self._world.option_node[options])
        touched = local.served(self._state, nodes)
        for option in options[np.argsort(-self._world.option_devices[options], kind="stable")].tolist():
            while self._state.free[at] < 0 and self._state.replicas[option] > self._facts.option_least[option]:
                local.change(self._facts, self._state, option, -1)
        local.release_excess(self._facts, self._state, nodes)
        self._serve(touched)
        return touched

    def price(self, pool: str, usd_per_device_hour: float) -> Ints:
        """A device of a pool costs so much. Gives the groups near to it."""
        options = np.flatnonzero(self._world.option_pool == self._pools[pool])
        usd = self._world.option_devices[options] * usd_per_device_hour
        self._facts.option_usd[options] = usd
        nodes = np.unique(self._world.option_node[options])
        return local.near(self._facts, nodes)

    def ask(self, rps: Floats) -> None:
        """Demand is [G] now: flows grow and shrink with it, and what a node cannot carry goes elsewhere."""
        before = self._rps
        times = np.divide(rps, before, out=np.ones_like(rps), where=before > 0)
        local.scale(self._facts, self._state, times)
        self._state.left[before <= 0] = rps[before <= 0]
        self._rps = rps.copy()
        local.release_excess(self._facts, self._state, np.arange(len(self._world.node_model)))
        self._serve(np.flatnonzero(self._state.left > UNSERVED_RPS))

    # ---- what pays is done

    def improve(self, *, rounds: int, near: Ints | None = None) -> float:
        """Take steps while they save; gives USD per hour saved. Args: near: only around these groups."""
        saved = 0.0
        for priority in sorted(set(self._priority.tolist()), reverse=True):
            mine = self._priority[self._world.group_model] == priority
            unserved = np.flatnonzero(mine & (self._state.left > UNSERVED_RPS))
            if len(unserved):
                local.fill(self._facts, self._state, unserved)
                saved += local.improve(self._facts, self._state, self._options(unserved), 1)
        if near is None:
            options = np.flatnonzero(self._pays | (self._state.replicas > 0))
        else:
            options = self._options(near)
            options = options[self._pays[options] | (self._state.replicas[options] > 0)]
        return saved + local.improve(self._facts, self._state, options, rounds)

    def _serve(self, groups: Ints) -> None:
        priority = self._priority[self._world.group_model[groups]]
        for one in sorted(set(priority.tolist()), reverse=True):
            local.fill(self._facts, self._state, groups[priority == one])

    def _options(self, groups: Ints) -> Ints:
        """Those where these groups may be served, and those that serve them."""
        near = np.zeros(len(self._world.node_model), dtype=bool)
        nodes = self._facts.near[groups].reshape(-1)
        near[nodes[nodes >= 0]] = True
        return np.flatnonzero(near[self._world.option_node])

    # ---- what it is

    def copy(self) -> Standing:
        """Another that changes by itself."""
        made = copy.copy(self)
        made._state = local.copy(self._state)
        own = {name: getattr(self._facts, name).copy() for name in ("option_usd", "option_least", "option_most")}
        made._facts = self._facts._replace(**own)
        made._devices, made._rps = self._devices.copy(), self._rps.copy()
        return made

    @property
    def replicas(self) -> Ints:
        """[O]"""
        return self._state.replicas.copy()

    @property
    def usd_per_hour(self) -> float:
        """What it costs."""
        return local.usd_per_hour(self._facts, self._state)

    def counts(self) -> dict[tuple[str, str], int]:
        """(model, pool) -> replicas."""
        made = {}
        for option in np.flatnonzero(self._state.replicas):
            model, one = self._numbered.options[option]
            made[model.name, one.pool.name] = int(self._state.replicas[option])
        return made

    def rates(self) -> Rates:
        """Model -> (cell, cluster) -> requests per second."""
        return told(self._numbered, *local.flows(self._state))

    @property
    def unserved_rps(self) -> float:
        """Of all groups."""
        return float(self._state.left.sum())


def told(numbered: Numbered, groups: Ints, nodes: Ints, rps: Floats) -> Rates:
    """Flows by name: model -> (cell, cluster) -> requests per second."""
    rates: Rates = defaultdict(dict)
    clusters = numbered.world.node_cluster[nodes]
    for group, cluster, rate in zip(groups.tolist(), clusters.tolist(), rps.tolist(), strict=True):
        model, cell = numbered.groups[group]
        to = (cell, numbered.clusters[cluster])
        rates[model][to] = rates[model].get(to, 0.0) + rate
    return rates
