"""A large plan after an event: what the event changes is planned again, in fractions and then in whole replicas.

A loss is made good by chains of small moves, which no single step finds. The programme in fractions does, in a few
pivots from where it stands; what it changes is decided for each model in a small programme, with everything else held.
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
"""Of those who were served on nodes that are gone."""
LEFT_WAYS = 6
LEFT_GAP = 0.01
"""That may be left of each model's small programme, after losses."""
LEFT_PART = 0.004
""" And this part of what runs costs, of all models' programmes together."""
FRAYED = 2
"""With so many times the classes of the plan made anew, the next is made anew too."""
ROUNDS = 3
"""Of the programme in fractions, to which ways are added where somebody has none left."""
STICKS = 0.01
"""Nothing goes elsewhere in the programme to save less than this part: many ways cost almost the same."""
FOLLOWED = 0.05
"""Users are told anew where at least this part of their class goes elsewhere in the programme."""
CHANGED = 0.3
SERVED_THERE = 0.2
""" And where at least this part of their class is served on nodes where so much of a replica comes or goes."""
DEAR = 0.1
"""A model is decided again, after the others gave back what they did not need, where what runs costs this part more
than in the programme in fractions."""
NEAR = 0.05
"""In whole numbers those options are open that change or cost at most this part above what they bring."""
STEPS = 2
"""Rounds of steps at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Before:
    """Of a plan before an event: `replicas` [O], and the `fractions` [O] and `share` [ways] of its programme."""

    replicas: Ints
    fractions: Floats
    share: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class _Aim:
    """What is decided for each model: who is served where of the classes that `moved` [K], and the options [O] that
    have a `change` or are `near` to paying, from the `replicas` [O] before."""

    moved: Bools
    replicas: Ints
    change: Floats
    near: Bools
    effort: Effort


class Reoptimiser:
    """A plan with its programme, changed in place. After an event, `standing` has who serves whom with what runs."""

    def __init__(self, index: Index, planned: Planned) -> None:
        self.incumbent: Incumbent = planned.incumbent
        self._index, self._master, self._pricer = index, planned.master, planned.pricer
        self._prices = planned.prices
        self._touched, self._classes = np.zeros(0, np.int64), self._master.count
        self._master.run()  # with the ways that were added last
        self._seen()

    def copy(self) -> Reoptimiser:
        """Another that changes by itself."""
        made = copy.copy(self)
        made.incumbent, made._master = self.incumbent.copy(), self._master.copy()
        made._pricer = self._pricer and self._pricer.copy()
        return made

    def drop_clusters(self, clusters: Iterable[str]) -> Ints:
        """Nothing runs in these clusters any more. Gives the groups that they served."""
        touched = self.incumbent.drop_clusters(clusters)
        least, most = self.incumbent.bounds
        closed = np.flatnonzero((most == 0) & (self._master.arrays.option_most > 0))
        self._master.limit(closed, least[closed], most[closed])
        self._touched = np.union1d(self._touched, touched)
        return touched

    def spare(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Replicas by (model, pool), more than there are, as the loss of a domain needs them."""
        self.incumbent.spare(counts)

    def repair(self, *, work: int = large.WORK) -> None:
        """After losses, plan again what the programme in fractions changes nearby.

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
        """Plan again for a world that differs in numbers alone: devices, prices, latency, demand, intake, budgets, what
        runs.

        False, with nothing changed, where it differs in more, where models go short by priority, or after many losses.
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
        """The plan by name, with what the newest prices prove; after `lose` they are those from before it."""
        return large.answer_of(
            self._index, self.incumbent, self._prices, large.proved_usd(self.incumbent, self._prices)
        )

    def _part_with(self, nodes: Ints) -> None:
        """Those whom these nodes serve are told apart, as nothing can run there in the world to come."""
        groups, _ = self.incumbent.served_by(nodes)
        self._touched = np.union1d(self._touched, groups)
        if len(self._touched):
            closed = np.flatnonzero(np.isin(self._master.arrays.option_node, nodes))
            none = np.zeros(len(closed), np.int64)
            self._master.limit(closed, none, none)
            self._split()

    def _split(self) -> Bools:
        """Whom losses touched leave their classes; gives the classes [K] to be solved again."""
        touched, self._touched = self._touched, self._touched[:0]
        return self._master.split(touched, LEFT, arcs=LEFT_WAYS)

    def _before(self, replicas: Ints) -> _Before:
        return _Before(replicas=replicas, fractions=self._replicas, share=self._share)

    def _solve(self, *, everywhere: bool) -> None:
        """Args: everywhere: any class may need another way, not only one that has none left."""
        master, unserved_rps = self._master, self._master.unserved.sum()
        master.add_inertia(STICKS)
        master.run()
        if everywhere or master.unserved.sum() > unserved_rps + SHORT_RPS:
            master.resettle(more=large.MORE_PRICED_ARCS, rounds=ROUNDS)
        master.add_inertia(0.0)
        self._seen()

    def _approach(self, before: _Before, *, everywhere: bool, work: int) -> None:
        """What the programme in fractions changed, in whole replicas. Args: everywhere: who serves whom too."""
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
        """One model's replicas in whole numbers, near to what the programme in fractions changed, and its flows."""
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
        """[M] what so many replicas [O] cost to run."""
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
