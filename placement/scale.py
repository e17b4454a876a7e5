"""Large instances: prices from aggregated demand, whole numbers near the fractional plan, local search, a bound.

The way of a plan: `prices.find` gives what scarce devices are worth, a proven lower bound, and a plan in fractions;
`_rounded` makes whole replicas of it within stock; `_settle` searches. After an event `repair` starts from the plan
that runs and touches only what the event reached.

Effort is counted in tries of a move, never in seconds, so the same instance gives the same plan on any machine.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from placement import prices as pricing
from placement import search
from placement.instance import Floats, Instance, Ints
from placement.prices import Fractional, Prices

TRIES = 400_000
"""Moves tried in one plan: some seconds for a thousand clusters."""
PASSES = 4
OTHERS = 6
PROMISING, WORTH_A_SWAP = 0.2, 0.03
"""Only options are tried whose price at the dual prices is at most so far above what they bring, as a part of it."""
SWAP_LIMIT_USD = 50.0
LOOSE_GAP = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A plan: replicas [O], flows [A] and unserved [G], its cost, and the bound that its prices prove.

    `is_loose` says that the distance to the bound is more likely the bound's than the plan's: something is short.
    """

    replicas: Ints
    flows: Floats
    unserved: Floats
    usd_per_hour: float
    prices: Prices

    @property
    def gap(self) -> float:
        """How far from the bound the plan is, as a part of its cost: it is at most so far from the best plan."""
        distance = self.usd_per_hour - self.prices.bound
        return max(0.0, distance / self.usd_per_hour) if self.usd_per_hour > 0 else 0.0

    @property
    def is_loose(self) -> bool:
        """Whether the bound says little."""
        return self.gap > LOOSE_GAP


def solve(instance: Instance, *, tries: int = TRIES, rounds: int = pricing.ROUNDS) -> Answer:
    """A plan for all of it, from nothing."""
    prices, fractional = pricing.find(_within_reach(instance), rounds=rounds)
    replicas = _rounded(instance, fractional)
    flows, unserved = _within_capacity(instance, replicas, fractional.flows)
    state = search.begin(instance, replicas, flows, unserved, prices.capacity)
    _hold_rules(instance, state)
    every = np.arange(len(instance.node_model))
    _settle(instance, state, prices, every, np.arange(len(instance.option_model)), tries)
    return _answer(instance, state, prices)


def reroute(instance: Instance, replicas: Ints, flows: Floats, prices: Prices) -> search.State:
    """What runs, as far as the instance still lets it, with the requests of what is gone sent elsewhere."""
    replicas = np.clip(replicas, instance.option_least, instance.option_most)
    replicas = _within_stock(instance, replicas)
    flows, unserved = _within_capacity(instance, replicas, flows)
    state = search.begin(instance, replicas, flows, unserved, prices.capacity)
    search.balance(state, _reaching(instance, unserved > search.DUST_RPS))
    return state


def repair(instance: Instance, replicas: Ints, flows: Floats, prices: Prices, *, tries: int = TRIES) -> Answer:
    """The plan that runs, mended after an event: what the event did not reach stays.

    Args: replicas, flows: of the plan that runs, for the options and arcs of `instance`. prices: of that plan; the
        bound is proved anew with them, for the instance as it is now.
    """
    prices = pricing.proved(
        instance, device=prices.device, capacity=prices.capacity, floor=prices.floor, spot=prices.spot
    )
    before = np.bincount(instance.option_node, weights=replicas, minlength=len(instance.node_model))
    state = reroute(instance, replicas, flows, prices)
    after = np.bincount(instance.option_node, weights=state.replicas, minlength=len(instance.node_model))
    _hold_rules(instance, state)
    moved = np.abs(state.flows - flows) > search.DUST_RPS
    touched = np.zeros(len(instance.group_rps), dtype=bool)
    touched[instance.arc_group[moved]] = True
    touched |= state.unserved > search.DUST_RPS
    nodes = np.union1d(_reaching(instance, touched), np.flatnonzero(before != after))
    options = np.flatnonzero(np.isin(instance.option_node, nodes))
    _settle(instance, state, prices, nodes, options, tries)
    return _answer(instance, state, prices)


def _within_reach(instance: Instance) -> Instance:
    """Floors that no placement can hold would leave the programme without an answer: they are lowered to what can."""
    most = np.bincount(
        instance.option_model, weights=instance.option_most, minlength=len(instance.model_min_replicas)
    ).astype(np.int64)
    return replace(instance, model_min_replicas=np.minimum(instance.model_min_replicas, most))


def _rounded(instance: Instance, fractional: Fractional) -> Ints:
    """Whole replicas: as many as the fractions need, and where a pool has not the stock, the smallest give way."""
    up = np.ceil(fractional.replicas - 1e-6).astype(np.int64)
    return _within_stock(
        instance,
        np.clip(up, instance.option_least, instance.option_most),
        fractional.replicas - np.floor(fractional.replicas - 1e-6),
    )


def _within_stock(instance: Instance, replicas: Ints, worth: Floats | None = None) -> Ints:
    """No more than each pool has: the options of least `worth` give way, one replica each in turn."""
    replicas = replicas.copy()
    used = np.bincount(
        instance.option_pool, weights=replicas * instance.option_devices, minlength=len(instance.pool_devices)
    ).astype(np.int64)
    over = used > instance.pool_devices
    if not over.any():
        return replicas
    order = np.flatnonzero(over[instance.option_pool] & (replicas > instance.option_least))
    if worth is not None:
        order = order[np.argsort(worth[order], kind="stable")]
    while len(order):
        left = []
        for option in order:
            pool = instance.option_pool[option]
            if used[pool] > instance.pool_devices[pool]:
                replicas[option] -= 1
                used[pool] -= instance.option_devices[option]
                if replicas[option] > instance.option_least[option]:
                    left.append(option)
        order = np.array(
            [one for one in left if used[instance.option_pool[one]] > instance.pool_devices[instance.option_pool[one]]],
            dtype=np.int64,
        )
    return replicas


def _within_capacity(instance: Instance, replicas: Ints, flows: Floats) -> tuple[Floats, Floats]:
    """Flows that the replicas can carry and the groups ask for, and what is left unserved."""
    nodes, groups = len(instance.node_model), len(instance.group_rps)
    capacity = np.bincount(instance.option_node, weights=replicas * instance.option_rps, minlength=nodes)
    load = np.bincount(instance.arc_node, weights=flows, minlength=nodes)
    fits = np.where(load > capacity, capacity / np.maximum(load, 1e-30), 1.0)
    arc_group = instance.arc_group
    flows = flows * fits[instance.arc_node]
    served = np.bincount(arc_group, weights=flows, minlength=groups)
    asked = np.where(served > instance.group_rps, instance.group_rps / np.maximum(served, 1e-30), 1.0)
    flows = flows * asked[arc_group]
    served = np.bincount(arc_group, weights=flows, minlength=groups)
    return flows, np.maximum(0.0, instance.group_rps - served)


def _reaching(instance: Instance, groups: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Ints:
    """The nodes that any of these groups has an arc to."""
    return np.unique(instance.arc_node[groups[instance.arc_group]])


def _hold_rules(instance: Instance, state: search.State) -> None:
    """Bring the plan within the spot fraction, then up to the floors, as far as the devices go."""
    cheapest = np.lexsort((np.arange(len(instance.option_usd)), instance.option_usd / instance.option_rps))
    for model, fraction in enumerate(instance.model_spot_fraction):
        mine = cheapest[instance.option_model[cheapest] == model]
        spot = mine[(instance.option_spot[mine] > 0) & (instance.option_least[mine] < instance.option_most[mine])]
        for option in spot[::-1]:
            while (
                state.model_spot[model] > fraction * state.model_total[model] + 1e-9
                and state.replicas[option] > instance.option_least[option]
            ):
                search.force_stop(state, option)
        _raise_to_floors(instance, state, model, mine)


def _raise_to_floors(instance: Instance, state: search.State, model: int, mine: Ints) -> None:
    steady = mine[instance.option_spot[mine] == 0] if instance.model_spot_fraction[model] < 1.0 else mine
    for option in steady:
        if state.model_regions[model] >= instance.model_min_regions[model]:
            break
        is_new = state.region_count[model, instance.option_region[option]] == 0
        if is_new and state.replicas[option] < instance.option_most[option]:
            search.force_start(state, option)
    for option in steady:
        while (
            state.model_total[model] < instance.model_min_replicas[model]
            and state.replicas[option] < instance.option_most[option]
            and search.force_start(state, option)
        ):
            pass


def _settle(instance: Instance, state: search.State, prices: Prices, nodes: Ints, options: Ints, tries: int) -> None:
    """Search until nothing gains or the tries are used up."""
    nodes = nodes[np.argsort(prices.capacity[nodes], kind="stable")]
    value = prices.capacity[instance.option_node] * instance.option_rps
    excess = (
        instance.option_usd + prices.device[instance.option_pool] * instance.option_devices - value
    ) / instance.option_usd
    ranked = options[np.argsort(excess[options], kind="stable")]
    for turn in range(PASSES):
        search.balance(state, nodes)
        room = (state.capacity - state.load)[instance.option_node] / instance.option_rps
        running = options[state.replicas[options] > 0]
        _, stopped = search.stop(state, running[np.argsort(-room[running], kind="stable")])
        limit = WORTH_A_SWAP if turn else PROMISING
        _, started, tries = search.start(state, ranked[excess[ranked] <= limit], OTHERS, -1.0, tries)
        worth_a_swap = ranked[excess[ranked] <= WORTH_A_SWAP]
        _, swapped, tries = search.start(state, worth_a_swap, OTHERS, SWAP_LIMIT_USD, tries)
        if tries <= 0 or (turn and stopped + started + swapped == 0):
            break
    search.balance(search.by_distance(state), nodes)


def _answer(instance: Instance, state: search.State, prices: Prices) -> Answer:
    flows, unserved = _within_capacity(instance, state.replicas, np.maximum(0.0, state.flows))
    state.flows[:], state.unserved[:] = flows, unserved
    return Answer(
        replicas=state.replicas,
        flows=flows,
        unserved=unserved,
        usd_per_hour=search.cost_usd(state),
        prices=prices,
    )
