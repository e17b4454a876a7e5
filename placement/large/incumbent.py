"""The incumbent: the plan as it stands, in whole replicas and flows of single groups, improved by local search.

An event (`drop_clusters`, `carried_over`) first re-routes groups over the replicas that run; `improve` then starts and
stops replicas near the groups that the event touched. All steps are those of `local_search`, which keep the hard rules.
`reoptimise` decides by linear and small mixed-integer programmes what changes after an event.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from placement.index import Index
from placement.large import local_search
from placement.large.arrays import Bools, Floats, Ints
from placement.large.duals import Duals, option_usd
from placement.large.encoding import Encoded, IndexMap, carry_over

PAYS = 0.05
"""An idle option is tried when its reduced cost is at most this share of its price."""
UNSERVED_RPS = 1e-6

Rates = dict[str, dict[tuple[str, str], float]]


class Incumbent:
    """Replicas and flows of an encoded problem, changed in place.

    Args: prices: duals of the master. replicas: [O]. groups, nodes, rps: [flows] each.
    """

    def __init__(
        self,
        index: Index,
        encoded: Encoded,
        prices: Duals,
        replicas: Ints,
        groups: Ints,
        nodes: Ints,
        rps: Floats,
    ) -> None:
        self.encoded, self._arrays = encoded, encoded.arrays
        models = index.problem.models
        self._priority = np.array([model.priority for model in models], np.int64)
        keeps_last = np.array([model.min_regions > 0 for model in models], dtype=bool)
        self._facts = local_search.facts(self._arrays, prices, keeps_last)
        self._state = local_search.state(self._arrays, replicas, groups, nodes, rps)
        brings = prices.capacity[self._arrays.option_node] * self._arrays.option_rps
        self._pays = option_usd(self._arrays, prices) - brings < PAYS * self._arrays.option_usd
        self._clusters = {name: at for at, name in enumerate(encoded.clusters)}

    # ---- events: re-route at once

    def drop_clusters(self, clusters: Iterable[str]) -> Ints:
        """Remove these clusters for good and re-route the groups that they served, which are returned."""
        lost = [self._clusters[name] for name in clusters]
        nodes = np.flatnonzero(np.isin(self._arrays.node_cluster, lost))
        touched = local_search.leave(self._facts, self._state, nodes)
        local_search.close(self._facts, self._state, nodes)
        self._serve(touched)
        return touched

    def carried_over(self, index: Index, encoded: Encoded, prices: Duals, index_map: IndexMap) -> Incumbent:
        """Carry this plan over to another encoded problem: drop replicas and flows that no longer fit, then re-route
        with the replicas that remain. Args: prices: duals there. index_map: positions there in terms of those here.
        """
        arrays = encoded.arrays
        replicas = np.clip(carry_over(self._state.replicas, index_map.options), arrays.option_least, arrays.option_most)
        to = np.full(len(self._arrays.node_model), -1, np.int64)
        known = np.flatnonzero(index_map.nodes >= 0)
        to[index_map.nodes[known]] = known
        groups, nodes, rps = local_search.flows(self._state)
        times = arrays.group_rps / np.maximum(self._arrays.group_rps, UNSERVED_RPS)
        is_there = to[nodes] >= 0
        flows = groups[is_there], to[nodes[is_there]], (rps * times[groups])[is_there]
        made = Incumbent(index, encoded, prices, replicas, *flows)
        for pool in np.flatnonzero(made._state.free < 0).tolist():
            options = np.flatnonzero(arrays.option_pool == pool)
            options = options[np.argsort(-arrays.option_devices[options], kind="stable")]
            local_search.clear(made._facts, made._state, pool, options)
        made._drop_beyond_limits()
        local_search.release_excess(made._facts, made._state, np.arange(len(arrays.node_model)))
        made._serve(np.flatnonzero(made._state.left > UNSERVED_RPS))
        return made

    def _drop_beyond_limits(self) -> None:
        """Stop replicas beyond limits, as after a rise of prices: low priority first, then high cost per request."""
        arrays = self._arrays
        usd = arrays.option_usd / arrays.option_rps
        for limit in np.flatnonzero(arrays.is_limit).tolist():
            options = arrays.rule_option[arrays.rule_of == limit]
            order = np.lexsort((options, -usd[options], self._priority[arrays.option_model[options]]))
            local_search.drop_beyond(self._facts, self._state, limit, options[order])

    # ---- changes of replicas

    def hand_over(self, groups: Ints, options: Ints, wanted: Ints) -> None:
        """Leave these groups unserved for now, and bring these options to the wanted replicas as far as possible."""
        local_search.release(self._facts, self._state, groups)
        local_search.approach(self._facts, self._state, options, wanted)

    def take(self, options: Ints, replicas: Ints, groups: Ints, nodes: Ints, rps: Floats) -> None:
        """Set the replicas of these options, and add these flows of groups that are unserved."""
        local_search.approach(self._facts, self._state, options, replicas)
        local_search.enter(self._facts, self._state, groups, nodes, rps)

    def spare(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Raise the replicas of (model, pool) pairs to these counts; the new ones serve nobody yet."""
        options = [(model.name, one.pool.name) for model, one in self.encoded.options]
        wanted = np.array([counts.get(key, 0) for key in options], dtype=np.int64)
        more = np.flatnonzero(wanted > self._state.replicas)
        local_search.approach(self._facts, self._state, more, wanted[more])

    def tidy(self, nodes: Ints, *, rounds: int) -> None:
        """Move the excess load of overloaded nodes, serve unserved groups, and run local search around these nodes."""
        local_search.release_excess(self._facts, self._state, np.arange(len(self._arrays.node_model)))
        left = np.flatnonzero(self._state.left > UNSERVED_RPS)
        self._serve(left)
        self._serve_with_more(left)
        changed = np.flatnonzero(np.isin(self._arrays.option_node, nodes))
        local_search.improve(self._facts, self._state, changed[self._is_hopeful(changed)], rounds)

    def improve(self, *, rounds: int, near: Ints | None = None) -> float:
        """Local search; gives USD per hour saved. Args: near: only around these groups."""
        unserved = np.flatnonzero(self._state.left > UNSERVED_RPS)
        self._serve(unserved)
        saved = self._serve_with_more(unserved)
        options = np.arange(len(self._pays)) if near is None else self._options(near)
        return saved + local_search.improve(self._facts, self._state, options[self._is_hopeful(options)], rounds)

    def _is_hopeful(self, options: Ints) -> Bools:
        made: Bools = self._pays[options] | (self._state.replicas[options] > 0)
        return made

    def _serve_with_more(self, groups: Ints) -> float:
        """Start replicas for these groups where that lowers the cost; gives USD per hour saved."""
        saved = 0.0
        priority = self._priority[self._arrays.group_model[groups]]
        for one in sorted(set(priority.tolist()), reverse=True):
            mine = groups[(priority == one) & (self._state.left[groups] > UNSERVED_RPS)]
            if len(mine):
                saved += local_search.improve(self._facts, self._state, self._options(mine), 1)
        return saved

    def _serve(self, groups: Ints) -> None:
        if local_search.is_crowded(self._state):
            self._state = local_search.compacted(self._state)
        priority = self._priority[self._arrays.group_model[groups]]
        for one in sorted(set(priority.tolist()), reverse=True):
            local_search.fill(self._facts, self._state, groups[priority == one])

    def _options(self, groups: Ints) -> Ints:
        """The options on the nearest nodes of these groups."""
        near = np.zeros(len(self._arrays.node_model), dtype=bool)
        nodes = self._facts.near[groups].reshape(-1)
        near[nodes[nodes >= 0]] = True
        return np.flatnonzero(near[self._arrays.option_node])

    # ---- reading

    def copy(self) -> Incumbent:
        """Another that changes by itself."""
        made = copy.copy(self)
        made._state = local_search.copy(self._state)
        own = {name: getattr(self._facts, name).copy() for name in ("option_usd", "option_least", "option_most")}
        made._facts = self._facts._replace(**own)
        return made

    @property
    def replicas(self) -> Ints:
        """[O] replicas of each option."""
        return self._state.replicas.copy()

    def flows(self) -> tuple[Ints, Ints, Floats]:
        """(group, node, requests per second) of every flow."""
        return local_search.flows(self._state)

    def served_by(self, nodes: Ints) -> tuple[Ints, Floats]:
        """(group, requests per second) of every flow to these nodes."""
        return local_search.served(self._state, nodes)

    @property
    def group_rps(self) -> Floats:
        """[G] demand of each group."""
        return self._arrays.group_rps.copy()

    @property
    def load_rps(self) -> Floats:
        """[N] requests per second that each node serves."""
        return self._state.load.copy()

    @property
    def away_rps(self) -> Floats:
        """[C] requests per second that leave their continent, by cap."""
        return self._state.away.copy()

    @property
    def bounds(self) -> tuple[Ints, Ints]:
        """[O] the fewest and the most replicas that may run."""
        return self._facts.option_least.copy(), self._facts.option_most.copy()

    @property
    def free_devices(self) -> Ints:
        """[P] free devices of each pool."""
        return self._state.free.copy()

    @property
    def usd_per_hour(self) -> float:
        """USD per hour of the whole plan."""
        return local_search.usd_per_hour(self._facts, self._state)

    def counts(self) -> dict[tuple[str, str], int]:
        """(model, pool) -> replicas."""
        made = {}
        for option in np.flatnonzero(self._state.replicas):
            model, one = self.encoded.options[option]
            made[model.name, one.pool.name] = int(self._state.replicas[option])
        return made

    def rates(self) -> Rates:
        """Model -> (cell, cluster) -> requests per second."""
        return rates_by_name(self.encoded, *local_search.flows(self._state))

    @property
    def unserved(self) -> Floats:
        """[G] unserved requests per second."""
        return self._state.left.copy()

    @property
    def unserved_rps(self) -> float:
        """Of all groups."""
        return float(self._state.left.sum())


def rates_by_name(encoded: Encoded, groups: Ints, nodes: Ints, rps: Floats) -> Rates:
    """Flows by name: model -> (cell, cluster) -> requests per second."""
    rates: Rates = defaultdict(dict)
    clusters = encoded.arrays.node_cluster[nodes]
    for group, cluster, rate in zip(groups.tolist(), clusters.tolist(), rps.tolist(), strict=True):
        model, cell = encoded.groups[group]
        to = (cell, encoded.clusters[cluster])
        rates[model][to] = rates[model].get(to, 0.0) + rate
    return rates
