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
from placement.large.aggregation import Grain
from placement.large.arrays import Bools, Floats, Ints
from placement.large.encoding import earlier, number, since
from placement.large.incumbent import Standing
from placement.large.master import DUST_RPS, SHORT_RPS, WHOLE
from placement.large.model_milp import GAP, Held, Part, searched
from placement.large.plan import Planned

LEFT = Grain(classes=70, near=1.5, alike=2, rest=0)
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
    have a `change` or are `near` to paying, from the `replicas` [O] before. Searches may leave `gap` or `usd`."""

    moved: Bools
    replicas: Ints
    change: Floats
    near: Bools
    work: int
    gap: float
    usd: float


class Mending:
    """A plan with its programme, changed in place. After an event, `standing` has who serves whom with what runs."""

    def __init__(self, index: Index, planned: Planned) -> None:
        self.standing: Standing = planned.standing
        self._index, self._coarse, self._rough = index, planned.coarse, planned.rough
        self._prices = planned.prices
        self._touched, self._classes = np.zeros(0, np.int64), self._coarse.count
        self._coarse.run()  # with the ways that were added last
        self._seen()

    def copy(self) -> Mending:
        """Another that changes by itself."""
        made = copy.copy(self)
        made.standing, made._coarse = self.standing.copy(), self._coarse.copy()
        made._rough = self._rough and self._rough.copy()
        return made

    def lose(self, clusters: Iterable[str]) -> Ints:
        """Nothing runs in these clusters any more. Gives the groups that they served."""
        touched = self.standing.lose(clusters)
        least, most = self.standing.bounds
        closed = np.flatnonzero((most == 0) & (self._coarse.world.option_most > 0))
        self._coarse.limit(closed, least[closed], most[closed])
        self._touched = np.union1d(self._touched, touched)
        return touched

    def spare(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Replicas by (model, pool), more than there are, as the loss of a domain needs them."""
        self.standing.spare(counts)

    def follow(self, *, work: int = large.WORK) -> None:
        """After losses, plan again what the programme in fractions changes nearby.

        Args: work: nodes of branch and bound for each model.
        """
        coarse, unserved_rps = self._coarse, self._coarse.unserved.sum()
        kinds = self._split()
        self._seen()
        before = self._before(self.standing.replicas)
        subproblem.replan(coarse, kinds, stick=STICKS)
        if coarse.unserved.sum() > unserved_rps + SHORT_RPS:
            self._solve(everywhere=True)
        self._seen()
        self._approach(before, everywhere=False, work=work)

    def become(self, index: Index, *, work: int = large.WORK) -> bool:
        """Plan again for a world that differs in numbers alone: devices, prices, latency, demand, intake, budgets, what
        runs.

        False, with nothing changed, where it differs in more, where models go short by priority, or after many losses.
        """
        numbered = number(index)
        changed = since(self.standing.numbered, numbered)
        is_frayed = self._coarse.count > FRAYED * self._classes
        if changed is None or self._rough is None or self._coarse.is_favoured or is_frayed:
            return False
        if not all(aggregation.hold(numbered.world, one.classes) for one in (self._coarse, self._rough)):
            return False
        world = self._coarse.world
        ask_alike = aggregation.ask_alike(world, numbered.world)
        are_same = ask_alike and aggregation.go_alike(world, numbered.world)
        kinds = aggregation.again(numbered.world, self._rough.classes, are_same=are_same)
        self._rough = self._rough.again(numbered.world, kinds, changed)
        self._rough.resettle(more=large.MORE_WAYS, rounds=ROUNDS)
        self._prices = duals.raised(numbered.world, self._rough.prices)
        self._part_with(np.setdiff1d(np.arange(len(world.node_model)), changed.nodes))
        kinds = aggregation.again(numbered.world, self._coarse.classes, are_same=are_same)
        self._index, self._coarse = index, self._coarse.again(numbered.world, kinds, changed)
        self._seen()
        before = self._before(earlier(self.standing.replicas, changed.options))
        self._solve(everywhere=not ask_alike)
        self.standing = self.standing.again(index, numbered, self._prices, changed)
        self._approach(before, everywhere=not ask_alike, work=work)
        return True

    @property
    def answer(self) -> Answer:
        """The plan by name, with what the newest prices prove; after `lose` they are those from before it."""
        return large.answer_of(self._index, self.standing, self._prices, large.proved_usd(self.standing, self._prices))

    def _part_with(self, nodes: Ints) -> None:
        """Those whom these nodes serve are told apart, as nothing can run there in the world to come."""
        groups, _ = self.standing.served_by(nodes)
        self._touched = np.union1d(self._touched, groups)
        if len(self._touched):
            closed = np.flatnonzero(np.isin(self._coarse.world.option_node, nodes))
            none = np.zeros(len(closed), np.int64)
            self._coarse.limit(closed, none, none)
            self._split()

    def _split(self) -> Bools:
        """Whom losses touched leave their classes; gives the classes [K] to be solved again."""
        touched, self._touched = self._touched, self._touched[:0]
        return self._coarse.split(touched, LEFT, ways=LEFT_WAYS)

    def _before(self, replicas: Ints) -> _Before:
        return _Before(replicas=replicas, fractions=self._replicas, share=self._share)

    def _solve(self, *, everywhere: bool) -> None:
        """Args: everywhere: any class may need another way, not only one that has none left."""
        coarse, unserved_rps = self._coarse, self._coarse.unserved.sum()
        coarse.stick(STICKS)
        coarse.run()
        if everywhere or coarse.unserved.sum() > unserved_rps + SHORT_RPS:
            coarse.resettle(more=large.MORE_PRICED_WAYS, rounds=ROUNDS)
        coarse.stick(0.0)
        self._seen()

    def _approach(self, before: _Before, *, everywhere: bool, work: int) -> None:
        """What the programme in fractions changed, in whole replicas. Args: everywhere: who serves whom too."""
        coarse, standing = self._coarse, self.standing
        share = np.concatenate([before.share, np.zeros(len(self._share) - len(before.share))])
        world = coarse.world
        part = np.bincount(coarse.way_class, weights=np.abs(self._share - share), minlength=coarse.count)
        moved = (part > 2 * FOLLOWED) | everywhere
        change = self._replicas - before.fractions
        moved |= self._served_at(np.unique(world.option_node[np.abs(change) > CHANGED])) > SERVED_THERE
        moved |= np.bincount(coarse.class_of, weights=standing.unserved, minlength=coarse.count) > SHORT_RPS
        standing.hand_over(coarse.members(moved), *self._rounded_up(before.replicas, change))
        runs_usd = float(self._usd_of_models(standing.replicas).sum())
        aim = _Aim(
            moved=moved,
            replicas=before.replicas,
            change=change,
            near=coarse.reduced_usd() < NEAR * world.option_usd,
            work=work,
            gap=GAP if everywhere else LEFT_GAP,
            usd=0.0 if everywhere else LEFT_PART * runs_usd / len(world.service_ms),
        )
        models = sorted(range(len(world.service_ms)), key=lambda at: (-self._index.problem.models[at].priority, at))
        for at in models:
            self._decide(at, aim)
        runs, would = (self._usd_of_models(each) for each in (standing.replicas, self._replicas))
        for at in models:
            if runs[at] > (1.0 + DEAR) * would[at]:
                none = np.zeros(0, np.int64)
                standing.hand_over(coarse.members(moved & (coarse.classes.model == at)), none, none)
                self._decide(at, aim)
        other = np.unique(world.option_node[standing.replicas != before.replicas])
        standing.tidy(np.arange(len(world.node_model)) if everywhere else other, rounds=STEPS)

    def _decide(self, at: int, aim: _Aim) -> None:
        """One model's replicas in whole numbers, near to what the programme in fractions changed, and its flows."""
        coarse, standing, world = self._coarse, self.standing, self._coarse.world
        ways = np.flatnonzero((coarse.classes.model[coarse.way_class] == at) & aim.moved[coarse.way_class])
        mine = np.flatnonzero(world.option_model == at)
        changes = np.abs(aim.change[mine]) > WHOLE
        if not len(ways) and not changes.any():
            return
        cluster = world.node_cluster[world.option_node[mine]]
        least, most = (one[mine] for one in standing.bounds)
        now, before = standing.replicas[mine], aim.replicas[mine]
        free = np.maximum(0, standing.free_devices[world.option_pool[mine]]) // world.option_devices[mine]
        high = np.minimum(most, now + free)
        low = np.minimum(np.clip(np.minimum(before, np.floor(before + aim.change[mine])) - 1, least, most), high)
        is_open = changes | (aim.near[mine] & np.isin(cluster, coarse.way[ways]))
        held = Held(load_rps=standing.load_rps, away_rps=standing.away_rps)
        beside = world.taken(np.where(world.option_model == at, 0, standing.replicas))

        def found(lower: Ints, upper: Ints) -> Part | None:
            bounds = lower.astype(float), upper.astype(float)
            return searched(
                self._index, coarse, at, ways, *bounds, aim.work, gap=aim.gap, usd=aim.usd, held=held, beside=beside
            )

        made = found(np.where(is_open, low, now), np.where(is_open, high, now))
        if made is None:
            made = found(now, np.where(is_open, high, now))
        elif made.short.any():
            is_open |= np.isin(cluster, coarse.way[ways[made.short[coarse.way_class[ways]]]])
            made = found(np.where(is_open, low, now), np.where(is_open, high, now)) or made
        if made is not None:
            flows = np.zeros(len(coarse.way))
            flows[ways] = made.flows
            used = ways[made.flows > DUST_RPS]
            standing.take(mine, made.replicas.astype(np.int64), *coarse.apportioned(used, flows))

    def _usd_of_models(self, replicas: Ints | Floats) -> Floats:
        """[M] what so many replicas [O] cost to run."""
        world = self._coarse.world
        usd = np.bincount(world.option_model, weights=world.option_usd * replicas, minlength=len(world.service_ms))
        return usd.astype(np.float64)

    def _rounded_up(self, before: Ints, change: Floats) -> tuple[Ints, Ints]:
        """The options that change, and as many whole replicas of each as are reserved for its model: one for each
        fraction, where the pool has the devices, large ones first."""
        world, standing = self._coarse.world, self.standing
        options = np.flatnonzero(np.abs(change) > WHOLE)
        least, most = standing.bounds
        aim = np.clip(before[options] + change[options], least[options], most[options])
        devices, pool = world.option_devices[options], world.option_pool[options]
        made, free = np.floor(aim + WHOLE).astype(np.int64), standing.free_devices
        np.add.at(free, pool, (standing.replicas[options] - made) * devices)
        part = aim - made
        for at in np.lexsort((-part, -devices)).tolist():
            if part[at] > WHOLE and free[pool[at]] >= devices[at]:
                made[at] += 1
                free[pool[at]] -= devices[at]
        return options, made

    def _served_at(self, nodes: Ints) -> Floats:
        """[K] the part of each class that these nodes serve."""
        coarse = self._coarse
        group, rps = self.standing.served_by(nodes)
        served = np.bincount(coarse.class_of[group], weights=rps, minlength=coarse.count)
        made: Floats = served / np.maximum(coarse.classes.rps, DUST_RPS)
        return made

    def _seen(self) -> None:
        coarse = self._coarse
        self._replicas = coarse.replicas
        self._share = coarse.flows / np.maximum(coarse.classes.rps, DUST_RPS)[coarse.way_class]
