"""A mixed-integer programme for one model over demand classes, with all its rules, while other models are fixed.

Options whose bounds coincide are no columns, so after an event the programme is as small as what the event touches.

Columns: n[option], a[start], z[class] (unserved), x[arc], y[region], and slacks of rules that may be missed.
Rows:    starts, budget, caps, served[class], capacity[node], rules, spot, regions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from placement import costs, highs
from placement.index import Index
from placement.large.arrays import Bools, Floats, Ints
from placement.large.master import RestrictedMaster

GAP = 0.005
SHORT = 1e-4
ROUNDING = 1e-9
SPREAD_WORK = 20
"""Factor on the nodes of branch and bound for a model with `max_part`: its domains depend on each other, so rounding in
one affects the others, and the first solution may leave users unserved."""
LUMPS = costs.UNEVEN_PART / costs.UNPROTECTED_PART
"""Factor on the penalty of rules that yield to users: a whole replica may exceed what the few who need it ask for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Use by fixed flows: `load_rps` [N] of nodes, `away_rps` [C] of caps."""

    load_rps: Floats
    away_rps: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """When branch and bound ends: after so many `nodes`, or at a distance to the bound of at most the share `gap` of
    the cost, or of `usd` per hour."""

    nodes: int
    gap: float = GAP
    usd: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlan:
    """One model's `replicas` [its options], the `flows` on its `arcs`, which classes [K] are `short`, and whether it
    `misses` a floor."""

    replicas: Floats
    arcs: Ints
    flows: Floats
    short: Bools
    misses: bool


def solve_model(
    index: Index,
    plan: RestrictedMaster,
    at: int,
    arcs: Ints,
    lower: Floats,
    upper: Floats,
    effort: Effort,
    *,
    held: Held | None = None,
    beside: Floats,
    misses: bool = False,
    yields: bool = False,
) -> ModelPlan | None:
    """The best replicas of a model within these bounds [its options], for the classes of these arcs alone, or None.

    Args: at: the position of the model. arcs: positions in the master. held: what flows that stay take. beside: [R]
        minus what other models' replicas take of limits. misses: floors may be missed, at a price. yields: those may
        that are missed rather than that users go unserved.
    """
    question = _ModelProgramme(index, plan, at, arcs, lower, upper, misses, yields)
    question.add_starts()
    question.add_flows(held)
    if not (question.add_rules(beside) and question.add_regions()):
        return None
    is_spread = index.problem.models[at].yields
    nodes = SPREAD_WORK * effort.nodes if is_spread else effort.nodes
    found = highs.solve(question.table, gap=effort.gap, left=effort.usd, node_limit=nodes, plain=not is_spread)
    if found is None:
        return None
    replicas = question.lower
    replicas[question.free] = np.round(found.values[question.counts])
    flows = found.values[question.flows]
    rps = plan.classes.rps
    served = np.bincount(plan.arc_class[arcs], weights=flows, minlength=len(rps))
    asking = np.isin(np.arange(len(rps)), plan.arc_class[arcs])
    short = asking & (rps - served > SHORT * rps)
    return ModelPlan(replicas=replicas, arcs=arcs, flows=flows, short=short, misses=misses)


class _ModelProgramme:
    """The programme under construction. `free` are the options that may change; `counts` and `flows` are columns."""

    def __init__(
        self,
        index: Index,
        plan: RestrictedMaster,
        at: int,
        arcs: Ints,
        lower: Floats,
        upper: Floats,
        misses: bool,
        yields: bool,
    ) -> None:
        self._yields = yields
        self._index, self._plan, self._at, self._ways, self._misses = index, plan, at, arcs, misses
        self._arrays, self._model = plan.arrays, index.problem.models[at]
        self._first = int(np.searchsorted(self._arrays.option_model, at))
        self._mine = np.arange(self._first, self._first + len(lower))
        lower, upper = lower.copy(), np.maximum(lower, upper)
        if misses and self._spot_is_held():
            spot = self._is_spot() & (self._arrays.option_least[self._mine] == 0)
            lower[spot] = upper[spot] = 0.0
        self.lower, self._upper = lower, upper
        self.free = np.flatnonzero(upper > lower)
        self._fixed = np.where(upper > lower, 0.0, lower)
        self.table = highs.Table()
        self.counts = self.table.columns(
            self._arrays.option_usd[self._mine[self.free]], lower=lower[self.free], upper=upper[self.free], integer=True
        )
        self._column = np.full(len(lower), -1)
        self._column[self.free] = self.counts
        self.flows = np.zeros(0, np.int64)

    def _is_spot(self) -> Bools:
        return np.array([one.pool.market == "spot" for one in self._index.options(self._model)], dtype=bool)

    def _spot_is_held(self) -> bool:
        """Whether held replicas count for the spot fraction; then no other may be on spot if it is missed."""
        if self._model.spot_max_fraction >= 1.0:
            return False
        return bool((self._is_spot() & (self._arrays.option_least[self._mine] > 0)).any())

    def add_starts(self) -> None:
        """Columns and rows of starts, and their budget."""
        arrays, table, most = self._arrays, self.table, self._arrays.max_starts[self._at]
        limited = bool(np.isfinite(most))
        current = arrays.option_current[self._mine]
        price = arrays.option_start_usd[self._mine]
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
        """Columns of flows and unserved demand, rows of demand, capacity and caps."""
        arrays, table, classes = self._arrays, self.table, self._plan.classes
        arcs, kinds = self._ways, self._plan.arc_class[self._ways]
        asking, asks = np.unique(kinds, return_inverse=True)
        unserved = table.columns(np.full(len(asking), arrays.unserved_usd[self._at]))
        self.flows = table.columns(classes.usd[kinds, self._plan.arc[arcs]])
        cap = self._plan.cap_of(kinds, self._plan.arc[arcs])
        capped, of_cap = np.unique(cap[cap >= 0], return_inverse=True)
        away = held.away_rps[capped] if held is not None else 0.0
        rows = table.rows(len(capped), upper=arrays.cap_rps[capped] - away)
        table.entries(rows[of_cap], self.flows[cap >= 0], 1.0)
        rows = table.rows(len(asking), lower=classes.rps[asking], upper=classes.rps[asking])
        table.entries(rows, unserved, 1.0)
        table.entries(rows[asks], self.flows, 1.0)
        to = arrays.node_at[self._at][self._plan.arc[arcs]]
        nodes = np.unique(np.concatenate([to, arrays.option_node[self._mine[self.free]]]))
        each_rps = arrays.option_rps[self._mine]
        there = np.bincount(
            arrays.option_node[self._mine], weights=each_rps * self._fixed, minlength=len(arrays.node_model)
        )
        load = held.load_rps[nodes] if held is not None else 0.0
        rows = table.rows(len(nodes), upper=there[nodes] - load)
        table.entries(rows[np.searchsorted(nodes, to)], self.flows, 1.0)
        of_free = np.searchsorted(nodes, arrays.option_node[self._mine[self.free]])
        table.entries(rows[of_free], self.counts, -each_rps[self.free])

    def add_rules(self, beside: Floats) -> bool:
        """Rows of floors, spot fraction and limits; False when fixed replicas alone break one."""
        arrays, table = self._arrays, self.table
        entry = np.flatnonzero(arrays.option_model[arrays.rule_option] == self._at)
        rules, of_rule = np.unique(arrays.rule_of[entry], return_inverse=True)
        mine, term = arrays.rule_option[entry] - self._first, arrays.rule_term[entry]
        fixed = np.bincount(of_rule, weights=term * self._fixed[mine], minlength=len(rules))
        is_limit = arrays.is_limit[rules]
        lower = arrays.rule_lower[rules] - fixed
        is_priced = arrays.rule_is_priced[rules]
        may_miss = (self._misses | is_priced | (self._yields & arrays.rule_yields[rules])) & ~is_limit
        spot = int((~is_limit).sum()) - 1
        if spot >= 0 and self._model.spot_max_fraction < 1.0:  # the last but limits; it holds whatever is missed
            may_miss[spot] = False
            if self._misses and self._spot_is_held():
                lower[spot] = -np.inf
        if is_limit.any():
            least = arrays.option_least[self._mine[mine]]
            always = np.bincount(of_rule, weights=term * least, minlength=len(rules)) - fixed
            lower = np.where(is_limit, np.minimum(lower - beside[rules], always), lower)
        is_free = self._column[mine] >= 0
        some = np.bincount(of_rule[is_free], minlength=len(rules)) > 0
        if (~some & ~may_miss & (lower > ROUNDING * np.maximum(1.0, np.abs(arrays.rule_lower[rules])))).any():
            return False
        at_row = np.cumsum(some) - 1
        rows = table.rows(int(some.sum()), lower=lower[some])
        table.entries(rows[at_row[of_rule[is_free]]], self._column[mine[is_free]], term[is_free])
        missed = np.flatnonzero(some & may_miss)
        usd = arrays.rule_usd[rules[missed]] * np.where(arrays.rule_yields[rules[missed]], LUMPS, 1.0)
        table.entries(rows[at_row[missed]], table.columns(usd), 1.0)
        return True

    def add_regions(self) -> bool:
        """Rows of the minimum number of regions; False when it cannot be reached."""
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
