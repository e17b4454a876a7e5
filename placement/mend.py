"""A large plan after an event: what the event changes is planned again, in fractions and then in whole replicas.

A loss is made good by chains of small moves, which no single step finds. The programme in fractions does, in a few
pivots from where it stands; what it changes is decided for each model in a small programme, with everything else held.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from placement import classes, large, nearby, prices
from placement.coarse import DUST_RPS, SHORT_RPS, WHOLE
from placement.filters import Index
from placement.large import Planned
from placement.number import earlier, number, since
from placement.part import Held, searched
from placement.standing import Standing
from placement.world import Floats, Ints

ROUNDS = 3
"""Of the programme in fractions, to which ways are added where somebody has none left."""
STICKS = 0.01
"""Nothing goes elsewhere in the programme to save less than this part: many ways cost almost the same."""
FOLLOWED = 0.02
"""Users are told anew where at least this part of their class goes elsewhere in the programme."""
CHANGED = 0.3
SERVED_THERE = 0.2
""" And where at least this part of their class is served on nodes where so much of a replica comes or goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Before:
    """Of a plan before an event: `replicas` [O], and the `fractions` [O] and `share` [ways] of its programme."""

    replicas: Ints
    fractions: Floats
    share: Floats


class Mending:
    """A plan with its programme, changed in place. After an event, `standing` has who serves whom with what runs."""

    def __init__(self, index: Index, planned: Planned) -> None:
        self.standing: Standing = planned.standing
        self._index, self._coarse, self._rough = index, planned.coarse, planned.rough
        self._prices = planned.prices
        self._lost = np.zeros(len(self._coarse.world.node_model), dtype=bool)
        self._coarse.run()  # with the ways that were added last
        self._seen()

    def copy(self) -> Mending:
        """Another that changes by itself."""
        made = copy.copy(self)
        made.standing, made._coarse = self.standing.copy(), self._coarse.copy()
        made._rough = self._rough and self._rough.copy()
        made._lost = self._lost.copy()
        return made

    def lose(self, clusters: Iterable[str]) -> Ints:
        """Nothing runs in these clusters any more. Gives the groups that they served."""
        touched = self.standing.lose(clusters)
        least, most = self.standing.bounds
        closed = np.flatnonzero((most == 0) & (self._coarse.world.option_most > 0))
        self._coarse.limit(closed, least[closed], most[closed])
        self._lost[self._coarse.world.option_node[closed]] = True
        return touched

    def follow(self, *, work: int = large.WORK, rounds: int = large.ROUNDS) -> None:
        """After losses, plan again what the programme in fractions changes nearby.

        Args: work: nodes of branch and bound for each model. rounds: of steps at the end.
        """
        before = self._before(self.standing.replicas)
        coarse, unserved_rps = self._coarse, self._coarse.unserved.sum()
        nearby.replan(coarse, self._lost, stick=STICKS)
        self._lost[:] = False
        if coarse.unserved.sum() > unserved_rps + SHORT_RPS:
            self._solve(everywhere=True)
        self._seen()
        self._approach(before, everywhere=False, work=work, rounds=rounds)

    def become(self, index: Index, *, work: int = large.WORK, rounds: int = large.ROUNDS) -> bool:
        """Plan again for a world that differs in numbers alone: devices, prices, latency, demand, intake, what runs.

        False, with nothing changed, where it differs in more, or where models go short by priority.
        """
        numbered = number(index)
        changed = since(self.standing.numbered, numbered)
        if changed is None or self._rough is None or self._coarse.is_favoured:
            return False
        kinds = classes.again(numbered.world, self._coarse.classes)
        rough = classes.again(numbered.world, self._rough.classes)
        if kinds is None or rough is None:
            return False
        self._rough = self._rough.again(numbered.world, rough, changed)
        self._rough.resettle(more=large.MORE_WAYS, rounds=ROUNDS)
        self._prices = prices.raised(numbered.world, self._rough.prices)
        world = self._coarse.world
        is_other = not np.array_equal(world.group_rps, numbered.world.group_rps)
        is_other |= not np.array_equal(world.rtt_ms, numbered.world.rtt_ms, equal_nan=True)
        self._index, self._coarse = index, self._coarse.again(numbered.world, kinds, changed)
        self._seen()
        self._lost = np.zeros(len(numbered.world.node_model), dtype=bool)
        before = self._before(earlier(self.standing.replicas, changed.options))
        self._solve(everywhere=is_other)
        self.standing = self.standing.again(index, numbered, self._prices, changed)
        self._approach(before, everywhere=is_other, work=work, rounds=rounds)
        return True

    @property
    def answer(self) -> large.Answer:
        """The plan by name, with what the newest prices prove; after `lose` they are those from before it."""
        bound = prices.bound_usd(self.standing.numbered.world, self._prices)
        return large.answer_of(self.standing, self._prices, bound)

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

    def _approach(self, before: _Before, *, everywhere: bool, work: int, rounds: int) -> None:
        """What the programme in fractions changed, in whole replicas. Args: everywhere: who serves whom too."""
        coarse, standing = self._coarse, self.standing
        share = np.concatenate([before.share, np.zeros(len(self._share) - len(before.share))])
        world = coarse.world
        part = np.bincount(coarse.way_class, weights=np.abs(self._share - share), minlength=coarse.count)
        moved = (part > 2 * FOLLOWED) | everywhere
        change = self._replicas - before.fractions
        options = np.flatnonzero(np.abs(change) > WHOLE)
        moved |= self._served_at(np.unique(world.option_node[np.abs(change) > CHANGED])) > SERVED_THERE
        moved |= np.bincount(coarse.class_of, weights=standing.unserved, minlength=coarse.count) > SHORT_RPS
        groups = coarse.members(moved)
        least, most = standing.bounds
        aim = before.replicas + change
        wanted = np.clip(np.round(aim[options]), least[options], most[options])
        standing.hand_over(groups, options, wanted.astype(np.int64))
        model, reduced = coarse.classes.model[coarse.way_class], coarse.reduced_usd()
        for at in sorted(range(len(world.service_ms)), key=lambda at: (-self._index.problem.models[at].priority, at)):
            ways = np.flatnonzero((model == at) & moved[coarse.way_class])
            mine = np.flatnonzero(world.option_model == at)
            changes = np.abs(change[mine]) > WHOLE
            if not len(ways) and not changes.any():
                continue
            now = standing.replicas[mine]
            free = np.maximum(0, standing.free_devices[world.option_pool[mine]]) // world.option_devices[mine]
            near = reduced[mine] < large.NEAR * world.option_usd[mine]
            near &= np.isin(world.node_cluster[world.option_node[mine]], coarse.way[ways])
            low = np.clip(np.minimum(before.replicas[mine], np.floor(aim[mine])) - 1, least[mine], most[mine])
            high = np.minimum(most[mine], now + free)
            lower = np.where(changes | near, np.minimum(low, high), now)
            upper = np.where(changes | near, high, now)
            held = Held(load_rps=standing.load_rps, away_rps=standing.away_rps)
            found = searched(
                self._index, coarse, at, ways, lower.astype(float), upper.astype(float), work, held=held
            ) or searched(self._index, coarse, at, ways, now.astype(float), upper.astype(float), work, held=held)
            if found is not None:
                used = ways[found.flows > DUST_RPS]
                flows = np.zeros(len(coarse.way))
                flows[ways] = found.flows
                standing.take(mine, found.replicas.astype(np.int64), *coarse.apportioned(used, flows))
        other = np.unique(world.option_node[standing.replicas != before.replicas])
        standing.tidy(np.arange(len(world.node_model)) if everywhere else other, rounds=rounds)

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
