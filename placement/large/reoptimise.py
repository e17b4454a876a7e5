"""Re-optimisation of a large plan after an event, from the basis and the incumbent of the plan before it.

The loss of a cluster is repaired by chains of small moves, which no single step of local search finds. The master finds
them in a few pivots from its last basis (warm start). What the master changes is decided for each model in a small
mixed-integer programme, with all other models and flows fixed.

Source: warm starts of the simplex method after changes of bounds and right-hand sides: Bertsimas and Tsitsiklis,
Introduction to Linear Optimization (1997), chapter 5.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from placement.answer import Answer
from placement.index import Index
from placement.large import aggregation, duals, subproblem
from placement.large import plan as large
from placement.large.aggregation import Aggregation
from placement.large.arrays import Bools, Floats, Ints
from placement.large.encoding import carry_over, encode, index_map
from placement.large.incumbent import Incumbent
from placement.large.master import DUST_RPS, SHORT_RPS, WHOLE
from placement.large.model_milp import GAP, Effort, Held, ModelPlan, solve_model
from placement.large.plan import Planned

LEFT = Aggregation(classes=70, near=1.5, alike=2, rest=0)
"""How groups are aggregated that were served on nodes that closed."""
LEFT_ARCS = 6
"""Arcs of each of these classes at the start."""
LEFT_GAP = 0.01
"""After losses, each model's small programme may end this far from its bound."""
LEFT_PART = 0.004
"""After losses, the programmes of all models together may leave this share of the cost of running replicas."""
FRAYED = 2
"""Stop re-optimising and solve from scratch once classes exceed this multiple of the last full solve's."""
ROUNDS = 3
"""Rounds of column generation in which the master may add arcs for classes that have none left."""
STICKS = 0.01
"""The master re-routes a class only if that saves at least this share of its cost: many arcs cost almost the same."""
FOLLOWED = 0.05
"""Re-route a class in whole replicas when the LP moves at least this share of it."""
CHANGED = 0.3
SERVED_THERE = 0.2
"""Re-route a class when at least the share SERVED_THERE of it is served on nodes whose replica count changes by CHANGED
or more in the LP."""
DEAR = 0.1
"""Decide a model a second time, after the others gave back devices, when its replicas cost this share more than in the
LP."""
NEAR = 0.05
"""An option may change in whole numbers when it changes in the LP, or when its reduced cost is at most this share of
its price."""
STEPS = 2
"""Rounds of local search at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Before:
    """A plan before an event: `replicas` [O], and its master's `fractions` [O] and `share` [arcs] of each class."""

    replicas: Ints
    fractions: Floats
    share: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class _Aim:
    """What each model's programme decides: the flows of the classes that `moved` [K], and the options [O] whose
    fraction has a `change` or that are `near` to paying, from the `replicas` [O] before the event."""

    moved: Bools
    replicas: Ints
    change: Floats
    near: Bools
    effort: Effort


class Reoptimiser:
    """A plan with its master, changed in place. `incumbent` has the replicas and flows after each event."""

    def __init__(self, index: Index, planned: Planned) -> None:
        self.incumbent: Incumbent = planned.incumbent
        self._index, self._master, self._pricer = index, planned.master, planned.pricer
        self._prices = planned.prices
        self._touched, self._classes = np.zeros(0, np.int64), self._master.count
        self._master.run()  # with the arcs that were added last
        self._seen()

    def copy(self) -> Reoptimiser:
        """Another that changes by itself."""
        made = copy.copy(self)
        made.incumbent, made._master = self.incumbent.copy(), self._master.copy()
        made._pricer = self._pricer and self._pricer.copy()
        return made

    def drop_clusters(self, clusters: Iterable[str]) -> Ints:
        """Remove these clusters from plan and master; re-route their users at once. Gives the groups concerned."""
        touched = self.incumbent.drop_clusters(clusters)
        least, most = self.incumbent.bounds
        closed = np.flatnonzero((most == 0) & (self._master.arrays.option_most > 0))
        self._master.limit(closed, least[closed], most[closed])
        self._touched = np.union1d(self._touched, touched)
        return touched

    def spare(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Raise the replicas of (model, pool) pairs to these counts, as surviving the loss of a domain needs."""
        self.incumbent.spare(counts)

    def repair(self, *, work: int = large.WORK) -> None:
        """After `drop_clusters`, solve the part of the master that the losses touch, and start replicas accordingly.

        Args: work: nodes of branch and bound for each model.
        """
        master, unserved_rps = self._master, self._master.unserved.sum()
        kinds = self._split()
        self._seen()
        before = self._before(self.incumbent.replicas)
        subproblem.replan(master, kinds, inertia=STICKS)
        if master.unserved.sum() > unserved_rps + SHORT_RPS:
            self._solve(everywhere=True)
        self._seen()
        self._approach(before, everywhere=False, work=work)

    def update(self, index: Index, *, work: int = large.WORK) -> bool:
        """Re-optimise for a problem that differs in numbers alone: devices, prices, latency, demand, intake, budgets,
        running replicas. Args: work: nodes of branch and bound for each model.

        False, with nothing changed, when it differs in more, when models are short by priority, or after many losses:
        then it has to be solved from scratch.
        """
        encoded = encode(index)
        changed = index_map(self.incumbent.encoded, encoded)
        is_frayed = self._master.count > FRAYED * self._classes
        if changed is None or self._pricer is None or self._master.is_prioritised or is_frayed:
            return False
        if not all(aggregation.still_permitted(encoded.arrays, one.classes) for one in (self._master, self._pricer)):
            return False
        arrays = self._master.arrays
        same_demand = aggregation.same_demand(arrays, encoded.arrays)
        are_same = same_demand and aggregation.same_costs(arrays, encoded.arrays)
        kinds = aggregation.carried_over(encoded.arrays, self._pricer.classes, are_same=are_same)
        self._pricer = self._pricer.carried_over(encoded.arrays, kinds, changed)
        self._pricer.resettle(more=large.MORE_ARCS, rounds=ROUNDS)
        self._prices = duals.raised(encoded.arrays, self._pricer.prices)
        self._part_with(np.setdiff1d(np.arange(len(arrays.node_model)), changed.nodes))
        kinds = aggregation.carried_over(encoded.arrays, self._master.classes, are_same=are_same)
        self._index, self._master = index, self._master.carried_over(encoded.arrays, kinds, changed)
        self._seen()
        before = self._before(carry_over(self.incumbent.replicas, changed.options))
        self._solve(everywhere=not same_demand)
        self.incumbent = self.incumbent.carried_over(index, encoded, self._prices, changed)
        self._approach(before, everywhere=not same_demand, work=work)
        return True

    @property
    def answer(self) -> Answer:
        """The plan by name, with the bound of the newest duals; after `drop_clusters` these are from before it."""
        return large.answer_of(
            self._index, self.incumbent, self._prices, large.proved_usd(self.incumbent, self._prices)
        )

    def _part_with(self, nodes: Ints) -> None:
        """Split the groups that these nodes serve from their classes: no node of the next problem takes their place."""
        groups, _ = self.incumbent.served_by(nodes)
        self._touched = np.union1d(self._touched, groups)
        if len(self._touched):
            closed = np.flatnonzero(np.isin(self._master.arrays.option_node, nodes))
            none = np.zeros(len(closed), np.int64)
            self._master.limit(closed, none, none)
            self._split()

    def _split(self) -> Bools:
        """Split the groups that losses touched from their classes; gives the classes [K] to be solved again."""
        touched, self._touched = self._touched, self._touched[:0]
        return self._master.split(touched, LEFT, arcs=LEFT_ARCS)

    def _before(self, replicas: Ints) -> _Before:
        return _Before(replicas=replicas, fractions=self._replicas, share=self._share)

    def _solve(self, *, everywhere: bool) -> None:
        """Solve the whole master. Args: everywhere: price out arcs of all classes, even if none has lost its last."""
        master, unserved_rps = self._master, self._master.unserved.sum()
        master.add_inertia(STICKS)
        master.run()
        if everywhere or master.unserved.sum() > unserved_rps + SHORT_RPS:
            master.resettle(more=large.MORE_PRICED_ARCS, rounds=ROUNDS)
        master.add_inertia(0.0)
        self._seen()

    def _approach(self, before: _Before, *, everywhere: bool, work: int) -> None:
        """Follow the master's changes in whole replicas. Args: everywhere: re-route all classes."""
        master, incumbent = self._master, self.incumbent
        share = np.concatenate([before.share, np.zeros(len(self._share) - len(before.share))])
        arrays = master.arrays
        part = np.bincount(master.arc_class, weights=np.abs(self._share - share), minlength=master.count)
        moved = (part > 2 * FOLLOWED) | everywhere
        change = self._replicas - before.fractions
        moved |= self._served_at(np.unique(arrays.option_node[np.abs(change) > CHANGED])) > SERVED_THERE
        moved |= np.bincount(master.class_of, weights=incumbent.unserved, minlength=master.count) > SHORT_RPS
        incumbent.hand_over(master.members(moved), *self._rounded_up(before.replicas, change))
        runs_usd = float(self._usd_of_models(incumbent.replicas).sum())
        aim = _Aim(
            moved=moved,
            replicas=before.replicas,
            change=change,
            near=master.reduced_usd() < NEAR * arrays.option_usd,
            effort=Effort(
                nodes=work,
                gap=GAP if everywhere else LEFT_GAP,
                usd=0.0 if everywhere else LEFT_PART * runs_usd / len(arrays.service_ms),
            ),
        )
        models = sorted(range(len(arrays.service_ms)), key=lambda at: (-self._index.problem.models[at].priority, at))
        for at in models:
            self._decide(at, aim)
        runs, would = (self._usd_of_models(each) for each in (incumbent.replicas, self._replicas))
        for at in models:
            if runs[at] > (1.0 + DEAR) * would[at]:
                none = np.zeros(0, np.int64)
                incumbent.hand_over(master.members(moved & (master.classes.model == at)), none, none)
                self._decide(at, aim)
        other = np.unique(arrays.option_node[incumbent.replicas != before.replicas])
        incumbent.tidy(np.arange(len(arrays.node_model)) if everywhere else other, rounds=STEPS)

    def _decide(self, at: int, aim: _Aim) -> None:
        """Decide one model's replicas in whole numbers near the master's changes, and the flows of moved classes."""
        master, incumbent, arrays = self._master, self.incumbent, self._master.arrays
        arcs = np.flatnonzero((master.classes.model[master.arc_class] == at) & aim.moved[master.arc_class])
        mine = np.flatnonzero(arrays.option_model == at)
        changes = np.abs(aim.change[mine]) > WHOLE
        if not len(arcs) and not changes.any():
            return
        cluster = arrays.node_cluster[arrays.option_node[mine]]
        least, most = (one[mine] for one in incumbent.bounds)
        now, before = incumbent.replicas[mine], aim.replicas[mine]
        free = np.maximum(0, incumbent.free_devices[arrays.option_pool[mine]]) // arrays.option_devices[mine]
        high = np.minimum(most, now + free)
        low = np.minimum(np.clip(np.minimum(before, np.floor(before + aim.change[mine])) - 1, least, most), high)
        is_open = changes | (aim.near[mine] & np.isin(cluster, master.arc[arcs]))
        held = Held(load_rps=incumbent.load_rps, away_rps=incumbent.away_rps)
        beside = arrays.taken(np.where(arrays.option_model == at, 0, incumbent.replicas))

        def found(lower: Ints, upper: Ints) -> ModelPlan | None:
            bounds = lower.astype(float), upper.astype(float)
            return solve_model(self._index, master, at, arcs, *bounds, aim.effort, held=held, beside=beside)

        made = found(np.where(is_open, low, now), np.where(is_open, high, now))
        if made is None:
            made = found(now, np.where(is_open, high, now))
        elif made.short.any():
            is_open |= np.isin(cluster, master.arc[arcs[made.short[master.arc_class[arcs]]]])
            made = found(np.where(is_open, low, now), np.where(is_open, high, now)) or made
        if made is not None:
            flows = np.zeros(len(master.arc))
            flows[arcs] = made.flows
            used = arcs[made.flows > DUST_RPS]
            incumbent.take(mine, made.replicas.astype(np.int64), *master.apportioned(used, flows))

    def _usd_of_models(self, replicas: Ints | Floats) -> Floats:
        """[M] USD per hour of running these replicas [O]."""
        arrays = self._master.arrays
        usd = np.bincount(arrays.option_model, weights=arrays.option_usd * replicas, minlength=len(arrays.service_ms))
        return usd.astype(np.float64)

    def _rounded_up(self, before: Ints, change: Floats) -> tuple[Ints, Ints]:
        """The options that change, and as many whole replicas of each as are reserved for its model: one for each
        fraction, where the pool has the devices, large ones first."""
        arrays, incumbent = self._master.arrays, self.incumbent
        options = np.flatnonzero(np.abs(change) > WHOLE)
        least, most = incumbent.bounds
        aim = np.clip(before[options] + change[options], least[options], most[options])
        devices, pool = arrays.option_devices[options], arrays.option_pool[options]
        made, free = np.floor(aim + WHOLE).astype(np.int64), incumbent.free_devices
        np.add.at(free, pool, (incumbent.replicas[options] - made) * devices)
        part = aim - made
        for at in np.lexsort((-part, -devices)).tolist():
            if part[at] > WHOLE and free[pool[at]] >= devices[at]:
                made[at] += 1
                free[pool[at]] -= devices[at]
        return options, made

    def _served_at(self, nodes: Ints) -> Floats:
        """[K] the part of each class that these nodes serve."""
        master = self._master
        group, rps = self.incumbent.served_by(nodes)
        served = np.bincount(master.class_of[group], weights=rps, minlength=master.count)
        made: Floats = served / np.maximum(master.classes.rps, DUST_RPS)
        return made

    def _seen(self) -> None:
        master = self._master
        self._replicas = master.replicas
        self._share = master.flows / np.maximum(master.classes.rps, DUST_RPS)[master.arc_class]
