"""One model in whole replicas over classes of demand, with all its rules, while everything else is held.

What bounds leave no choice about is no column, so after an event the programme is as small as what the event touches.
Columns: n[option], a[start], z[class], x[way], y[region], and what may be missed at a price. Rows: starts, budget,
caps, served[class], capacity[node], rules, spot, regions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from placement import costs, highs
from placement.index import Index
from placement.large.arrays import Bools, Floats, Ints
from placement.large.master import Coarse

GAP = 0.005
SHORT = 1e-4
ROUNDING = 1e-9
SPREAD_WORK = 20
"""Times as many nodes for a model of which no domain may hold more than a part: its domains depend on each other, so
what is rounded in one is wrong in another, and the first answer may leave users unserved."""
LUMPS = costs.UNEVEN_PART / costs.UNPROTECTED_PART
"""Of the price of a rule that yields to users: a whole replica may be far beyond what the few who need it ask for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What flows that stay take: `load_rps` [N] of nodes, `away_rps` [C] of caps."""

    load_rps: Floats
    away_rps: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One model's `replicas` [its options], its `ways` and their `flows`, which classes [K] go `short`, and whether it
    `misses` a floor."""

    replicas: Floats
    ways: Ints
    flows: Floats
    short: Bools
    misses: bool


def searched(
    index: Index,
    plan: Coarse,
    at: int,
    ways: Ints,
    lower: Floats,
    upper: Floats,
    work: int,
    *,
    gap: float = GAP,
    usd: float = 0.0,
    held: Held | None = None,
    beside: Floats,
    misses: bool = False,
    yields: bool = False,
) -> Part | None:
    """The best replicas of a model within these bounds [its options], for the classes of these ways alone, or None.

    Args: work: nodes of branch and bound. gap, usd: of the cost this part, or so much per hour, may be left. held: what
        the others' flows take. beside: [R] minus what other models' replicas take of limits. misses: floors may be
        missed, at a price. yields: those may that are missed rather than that users go unserved.
    """
    question = _Question(index, plan, at, ways, lower, upper, misses, yields)
    question.add_starts()
    question.add_flows(held)
    if not (question.add_rules(beside) and question.add_regions()):
        return None
    is_spread = index.problem.models[at].yields
    work = SPREAD_WORK * work if is_spread else work
    found = highs.solve(question.table, gap=gap, left=usd, node_limit=work, plain=not is_spread)
    if found is None:
        return None
    replicas = question.lower
    replicas[question.free] = np.round(found.values[question.counts])
    flows = found.values[question.flows]
    rps = plan.classes.rps
    served = np.bincount(plan.way_class[ways], weights=flows, minlength=len(rps))
    asking = np.isin(np.arange(len(rps)), plan.way_class[ways])
    short = asking & (rps - served > SHORT * rps)
    return Part(replicas=replicas, ways=ways, flows=flows, short=short, misses=misses)


class _Question:
    """The programme while it is made. `free` [its options] may change; `counts` and `flows` are their columns."""

    def __init__(
        self, index: Index, plan: Coarse, at: int, ways: Ints, lower: Floats, upper: Floats, misses: bool, yields: bool
    ) -> None:
        self._yields = yields
        self._index, self._plan, self._at, self._ways, self._misses = index, plan, at, ways, misses
        self._world, self._model = plan.world, index.problem.models[at]
        self._first = int(np.searchsorted(self._world.option_model, at))
        self._mine = np.arange(self._first, self._first + len(lower))
        lower, upper = lower.copy(), np.maximum(lower, upper)
        if misses and self._spot_is_held():
            spot = self._is_spot() & (self._world.option_least[self._mine] == 0)
            lower[spot] = upper[spot] = 0.0
        self.lower, self._upper = lower, upper
        self.free = np.flatnonzero(upper > lower)
        self._fixed = np.where(upper > lower, 0.0, lower)
        self.table = highs.Table()
        self.counts = self.table.columns(
            self._world.option_usd[self._mine[self.free]], lower=lower[self.free], upper=upper[self.free], integer=True
        )
        self._column = np.full(len(lower), -1)
        self._column[self.free] = self.counts
        self.flows = np.zeros(0, np.int64)

    def _is_spot(self) -> Bools:
        return np.array([one.pool.market == "spot" for one in self._index.options(self._model)], dtype=bool)

    def _spot_is_held(self) -> bool:
        """Held replicas cannot move: when they alone break the spot fraction, no other may be on spot."""
        if self._model.spot_max_fraction >= 1.0:
            return False
        return bool((self._is_spot() & (self._world.option_least[self._mine] > 0)).any())

    def add_starts(self) -> None:
        """What is started costs, and may have a budget."""
        world, table, most = self._world, self.table, self._world.max_starts[self._at]
        limited = bool(np.isfinite(most))
        current = world.option_current[self._mine]
        price = world.option_start_usd[self._mine]
        starting = self.free[((price > 0) | limited)[self.free] & (self._upper > current)[self.free]]
        started = table.columns(price[starting])
        rows = table.rows(len(starting), upper=current[starting].astype(float))
        table.entries(rows, self._column[starting], 1.0)
        table.entries(rows, started, -1.0)
        if limited:
            left = most - np.maximum(0.0, self._fixed - current)[self._upper <= self.lower].sum()
            row = table.rows(1, upper=left)
            table.entries(np.repeat(row, len(started)), started, 1.0)
            if self._misses:
                table.entries(row, table.columns(np.array([costs.OVER_BUDGET_USD_PER_HOUR])), -1.0)

    def add_flows(self, held: Held | None) -> None:
        """Who is served where, within capacity and caps."""
        world, table, classes = self._world, self.table, self._plan.classes
        ways, kinds = self._ways, self._plan.way_class[self._ways]
        asking, asks = np.unique(kinds, return_inverse=True)
        unserved = table.columns(np.full(len(asking), world.unserved_usd[self._at]))
        self.flows = table.columns(classes.usd[kinds, self._plan.way[ways]])
        cap = self._plan.cap_of(kinds, self._plan.way[ways])
        capped, of_cap = np.unique(cap[cap >= 0], return_inverse=True)
        away = held.away_rps[capped] if held is not None else 0.0
        rows = table.rows(len(capped), upper=world.cap_rps[capped] - away)
        table.entries(rows[of_cap], self.flows[cap >= 0], 1.0)
        rows = table.rows(len(asking), lower=classes.rps[asking], upper=classes.rps[asking])
        table.entries(rows, unserved, 1.0)
        table.entries(rows[asks], self.flows, 1.0)
        to = world.node_at[self._at][self._plan.way[ways]]
        nodes = np.unique(np.concatenate([to, world.option_node[self._mine[self.free]]]))
        each_rps = world.option_rps[self._mine]
        there = np.bincount(
            world.option_node[self._mine], weights=each_rps * self._fixed, minlength=len(world.node_model)
        )
        load = held.load_rps[nodes] if held is not None else 0.0
        rows = table.rows(len(nodes), upper=there[nodes] - load)
        table.entries(rows[np.searchsorted(nodes, to)], self.flows, 1.0)
        of_free = np.searchsorted(nodes, world.option_node[self._mine[self.free]])
        table.entries(rows[of_free], self.counts, -each_rps[self.free])

    def add_rules(self, beside: Floats) -> bool:
        """Floors, the spot fraction and limits; False where what is held breaks one."""
        world, table = self._world, self.table
        entry = np.flatnonzero(world.option_model[world.rule_option] == self._at)
        rules, of_rule = np.unique(world.rule_of[entry], return_inverse=True)
        mine, term = world.rule_option[entry] - self._first, world.rule_term[entry]
        fixed = np.bincount(of_rule, weights=term * self._fixed[mine], minlength=len(rules))
        is_limit = world.is_limit[rules]
        lower = world.rule_lower[rules] - fixed
        is_priced = world.rule_is_priced[rules]
        may_miss = (self._misses | is_priced | (self._yields & world.rule_yields[rules])) & ~is_limit
        spot = int((~is_limit).sum()) - 1
        if spot >= 0 and self._model.spot_max_fraction < 1.0:  # the last but limits; it holds whatever is missed
            may_miss[spot] = False
            if self._misses and self._spot_is_held():
                lower[spot] = -np.inf
        if is_limit.any():
            least = world.option_least[self._mine[mine]]
            always = np.bincount(of_rule, weights=term * least, minlength=len(rules)) - fixed
            lower = np.where(is_limit, np.minimum(lower - beside[rules], always), lower)
        is_free = self._column[mine] >= 0
        some = np.bincount(of_rule[is_free], minlength=len(rules)) > 0
        if (~some & ~may_miss & (lower > ROUNDING * np.maximum(1.0, np.abs(world.rule_lower[rules])))).any():
            return False
        at_row = np.cumsum(some) - 1
        rows = table.rows(int(some.sum()), lower=lower[some])
        table.entries(rows[at_row[of_rule[is_free]]], self._column[mine[is_free]], term[is_free])
        missed = np.flatnonzero(some & may_miss)
        usd = world.rule_usd[rules[missed]] * np.where(world.rule_yields[rules[missed]], LUMPS, 1.0)
        table.entries(rows[at_row[missed]], table.columns(usd), 1.0)
        return True

    def add_regions(self) -> bool:
        """In how many regions the model must be; False where it cannot be in so many."""
        table = self.table
        if self._model.min_regions <= 0:
            return True
        clusters = self._index.clusters
        names = [clusters[one.pool.cluster].region for one in self._index.options(self._model)]
        regions, of_region = np.unique(np.array(names), return_inverse=True)
        has = np.bincount(of_region, weights=self._fixed, minlength=len(regions)) > 0
        may = (np.bincount(of_region[self.free], minlength=len(regions)) > 0) & ~has
        wanted = self._model.min_regions - int(has.sum())
        if wanted <= 0:
            return True
        if wanted > may.sum() and not self._misses:
            return False
        present = table.columns(np.zeros(int(may.sum())), upper=1.0, integer=True)
        rows = table.rows(len(present), upper=0.0)
        table.entries(rows, present, 1.0)
        at_row = np.cumsum(may) - 1
        in_it = self.free[may[of_region[self.free]]]
        table.entries(rows[at_row[of_region[in_it]]], self._column[in_it], -1.0)
        row = table.rows(1, lower=float(wanted))
        table.entries(np.repeat(row, len(present)), present, 1.0)
        if self._misses:
            table.entries(row, table.columns(np.array([costs.SHORTFALL_USD_PER_HOUR])), 1.0)
        return True
