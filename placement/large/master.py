"""The restricted master problem: a linear programme over demand classes, solved by column generation.

An arc (class, cluster) enters as a column when its reduced cost at the newest duals is negative, cheapest first.

Columns: n[option], z[class] (unserved), a[start], s[rule] (missed), then x[arc] as they are added.
Rows:    served[class], capacity[node], devices[pool], started, rules, budgets, caps.
z[class] and served[class] of classes that are split off later come last.

Source: Dantzig and Wolfe, Decomposition principle for linear programs, Operations Research 8 (1960); Desaulniers,
Desrosiers and Solomon (eds.), Column Generation (2005), chapter 1.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import highspy
import numpy as np

from placement import highs
from placement.large.aggregation import Aggregation, Classes, apportion, split
from placement.large.arrays import Arrays, Bools, Floats, Ints
from placement.large.duals import Duals, option_usd, raised
from placement.large.encoding import IndexMap, carry_over

INFINITE = highspy.kHighsInf
WHOLE = 1e-6
DUST_RPS = 1e-6
ROUNDS = 16
SHORT_RPS = 1e-3
WORTH_ADDING = 1e-4
"""An arc is added when its reduced cost is negative by more than this share of what its class pays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Positions of the blocks of a master without arcs.

    Columns, after one of each option: `unserved` [K], `starts` [S], `missed` [R]. Rows: `served` [K], `capacity` [N],
    `devices` [P], `started` [S], `rules` [R], `budgets` [B], `caps` [C]. `starting` [S] are the options whose starts
    cost or are counted, `limited` [B] the models whose starts have a budget.
    """

    starting: Ints
    limited: Ints
    unserved: Ints
    starts: Ints
    missed: Ints
    served: Ints
    capacity: Ints
    devices: Ints
    started: Ints
    rules: Ints
    budgets: Ints
    caps: Ints


def _formulated(arrays: Arrays, classes: Classes) -> tuple[highs.Table, Layout]:
    """The programme without arcs, and where its blocks are."""
    has_budget = np.isfinite(arrays.max_starts)
    is_counted = (arrays.option_start_usd > 0) | has_budget[arrays.option_model]
    starting = np.flatnonzero(is_counted & (arrays.option_most > arrays.option_current))
    limited = np.flatnonzero(has_budget)
    table = highs.Table()
    options = table.columns(
        arrays.option_usd, lower=arrays.option_least.astype(float), upper=arrays.option_most.astype(float)
    )
    stock = np.maximum(arrays.pool_devices.astype(float), arrays.used_devices(arrays.option_least))
    layout = Layout(
        starting=starting,
        limited=limited,
        unserved=table.columns(arrays.unserved_usd[classes.model]),
        starts=table.columns(arrays.option_start_usd[starting]),
        missed=table.columns(
            np.where(arrays.is_limit, 0.0, arrays.rule_usd), upper=np.where(arrays.is_limit, 0.0, INFINITE)
        ),
        served=table.rows(len(classes.rps), lower=classes.rps, upper=classes.rps),
        capacity=table.rows(len(arrays.node_model), upper=0.0),
        devices=table.rows(len(stock), upper=stock),
        started=table.rows(len(starting), upper=arrays.option_current[starting].astype(float)),
        rules=table.rows(len(arrays.rule_lower), lower=arrays.rule_lower),
        budgets=table.rows(len(limited), upper=arrays.max_starts[limited]),
        caps=table.rows(len(arrays.cap_rps), upper=arrays.cap_rps),
    )
    table.entries(layout.served, layout.unserved, 1.0)
    table.entries(layout.capacity[arrays.option_node], options, -arrays.option_rps)
    table.entries(layout.devices[arrays.option_pool], options, arrays.option_devices.astype(float))
    table.entries(layout.started, options[starting], 1.0)
    table.entries(layout.started, layout.starts, -1.0)
    table.entries(layout.rules[arrays.rule_of], options[arrays.rule_option], arrays.rule_term)
    table.entries(layout.rules, layout.missed, 1.0)
    counted = has_budget[arrays.option_model[starting]]
    budget = np.searchsorted(limited, arrays.option_model[starting[counted]])
    table.entries(layout.budgets[budget], layout.starts[counted], 1.0)
    return table, layout


class RestrictedMaster:
    """The programme in the solver with its newest solution; `arc_class` and `arc` [arcs] say what its arcs are."""

    def __init__(self, arrays: Arrays, classes: Classes) -> None:
        self.arrays, self.classes = arrays, classes
        self.options, self.count = len(arrays.option_model), len(classes.rps)
        self.arc_class, self.arc = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._has: Bools = np.zeros(classes.usd.shape, dtype=bool)
        self._clusters = arrays.rtt_ms.shape[1]
        self._node = arrays.node_at
        self.is_prioritised = False
        self._is_closed = np.zeros(len(arrays.node_model), dtype=bool)
        table, self._layout = _formulated(arrays, classes)
        self._class_row, self._class_column = self._layout.served, self._layout.unserved
        self._arc_column = np.zeros(0, np.int64)
        self.solver = highs.quiet()
        self.solver.passModel(table.lp(is_mip=False))

    def run(self) -> None:
        """Solve it with the arcs that it has."""
        self.solver.run()
        answer = self.solver.getSolution()
        self.values: Floats = np.asarray(answer.col_value)
        self.activity: Floats = np.asarray(answer.row_value)
        self.duals: Floats = np.asarray(answer.row_dual)
        self.is_basic: Bools = np.zeros(len(self.values), dtype=bool)
        self.row_is_basic: Bools = np.zeros(len(self.duals), dtype=bool)
        if len(self.values):  # what has no columns has no basis
            basic = self.solver.getBasicVariables()[1]
            self.is_basic[basic[basic >= 0]] = True
            self.row_is_basic[-1 - basic[basic < 0]] = True
        self._read()

    def take(self, columns: Ints, values: Floats, rows: Ints, activity: Floats, duals: Floats) -> None:
        """Set the solution of these columns and rows, in place of `run`, from a subproblem."""
        self.values, self.activity, self.duals = self.values.copy(), self.activity.copy(), self.duals.copy()
        self.values[columns], self.activity[rows], self.duals[rows] = values, activity, duals
        self._read()

    def take_basis(self, columns: Ints, is_basic: Bools, rows: Ints, row_is_basic: Bools) -> None:
        """Set the basis of these columns and rows, from which the next subproblem starts."""
        self.is_basic, self.row_is_basic = self.is_basic.copy(), self.row_is_basic.copy()
        self.is_basic[columns], self.row_is_basic[rows] = is_basic, row_is_basic

    def _read(self) -> None:
        duals, at = self.duals, self._layout
        self.replicas: Floats = self.values[: self.options]
        self.unserved: Floats = self.values[self._class_column]
        self.flows: Floats = self.values[self._arc_column]
        self._paid = duals[self._class_row]
        start = np.zeros(len(self.arrays.service_ms))
        start[at.limited] = np.maximum(0.0, -duals[at.budgets])
        self.prices = Duals(
            device=np.maximum(0.0, -duals[at.devices]),
            capacity=np.maximum(0.0, -duals[at.capacity]),
            rule=np.maximum(0.0, duals[at.rules]),
            start=start,
            away=np.maximum(0.0, -duals[at.caps]),
        )

    @property
    def arc_node(self) -> Ints:
        """[arcs] the node of each arc."""
        made: Ints = self._node[self.classes.model[self.arc_class], self.arc % self._clusters]
        return made

    def is_of_class(self, rows: Ints) -> Bools:
        """[rows] whether each is the demand row of a class."""
        made: Bools = np.isin(rows, self._class_row)
        return made

    def columns_of(self, kinds: Bools) -> Ints:
        """The columns of these classes [K], of their arcs, and of the options on these arcs' nodes, ascending."""
        arrays = self.arrays
        arcs = np.flatnonzero(kinds[self.arc_class])
        nodes = np.zeros(len(arrays.node_model), dtype=bool)
        nodes[self.arc_node[arcs]] = True
        options = nodes[arrays.option_node]
        starts = options[self._layout.starting]
        rules = np.zeros(len(arrays.rule_lower), dtype=bool)
        rules[arrays.rule_of[options[arrays.rule_option]]] = True
        made = [
            np.flatnonzero(options),
            self._class_column[kinds],
            self._layout.starts[starts],
            self._layout.missed[rules],
            self._arc_column[arcs],
        ]
        return np.sort(np.concatenate(made)).astype(np.int32)

    def copy(self) -> RestrictedMaster:
        """An independent copy with solver, solution and basis."""
        made = copy.copy(self)
        made._has, made._is_closed = self._has.copy(), self._is_closed.copy()
        made.solver = highs.quiet()
        made.solver.passModel(self.solver.getLp())
        made.solver.setBasis(self.solver.getBasis())
        return made

    def add_inertia(self, part: float) -> None:
        """From the next `run` on, a new arc must save its class more than this share of what it pays now.

        An idle option costs this share more, so that it does not replace one that is as good.
        """
        discount = np.where(self.flows > DUST_RPS, part * np.maximum(0.0, self._paid[self.arc_class]), 0.0)
        usd = self.classes.usd[self.arc_class, self.arc] - discount
        self.solver.changeColsCost(len(self.arc), self._arc_column.astype(np.int32), usd)
        more = np.where(self.replicas > WHOLE, 0.0, part)
        every = np.arange(self.options, dtype=np.int32)
        self.solver.changeColsCost(self.options, every, self.arrays.option_usd * (1.0 + more))

    def limit(self, options: Ints, least: Ints, most: Ints) -> None:
        """Set the bounds of these options for the next `run`; a node without any option left is closed."""
        self.solver.changeColsBounds(len(options), options.astype(np.int32), least.astype(float), most.astype(float))
        self._is_closed[self.arrays.option_node[options[most == 0]]] = True

    def split(self, groups: Ints, grain: Aggregation, *, arcs: int) -> Bools:
        """Split these groups from their classes into new ones, each with its `arcs` cheapest arcs at the newest duals.

        Members grouped because a node was best for all of them are no longer alike once that node is closed. Nothing is
        solved yet. Gives which classes [K] are new, smaller, or served on closed nodes.
        """
        prices = raised(self.arrays, self.prices)
        prices = replace(prices, capacity=np.where(self._is_closed, np.inf, prices.capacity))
        less, count = np.unique(self.class_of[groups]), self.count
        self.classes = split(self.arrays, self.classes, prices, grain, groups)
        self.count = len(self.classes.rps)
        self._lessen(less)
        paid = self._append(np.arange(count, self.count), prices, arcs)
        self._grown(paid)
        gone = self._is_closed[self.arc_node]
        changed = np.arange(self.count) >= count
        changed[less] = True
        changed[self.arc_class[gone & (self.flows > DUST_RPS)]] = True
        self.flows = np.where(gone, 0.0, self.flows)
        return changed

    def _lessen(self, less: Ints) -> None:
        """Update demand rows and arc costs of classes that lost members."""
        for row, rps in zip(self._class_row[less].tolist(), self.classes.rps[less].tolist(), strict=True):
            self.solver.changeRowBounds(row, rps, rps)
        arcs = np.flatnonzero(np.isin(self.arc_class, less))
        usd = self.classes.usd[self.arc_class[arcs], self.arc[arcs]]
        self.solver.changeColsCost(len(arcs), self._arc_column[arcs].astype(np.int32), usd)

    def _append(self, new: Ints, prices: Duals, arcs: int) -> Floats:
        """Add rows and columns of new classes; gives what each pays at these duals [new]."""
        solver, count, each = self.solver, len(new), np.arange(len(new), dtype=np.int32)
        self._class_row = np.append(self._class_row, solver.getNumRow() + each)
        self._class_column = np.append(self._class_column, solver.getNumCol() + each)
        rps, zeros, none = self.classes.rps[new], np.zeros(count), np.zeros(0, np.int32)
        solver.addRows(count, rps, rps, 0, 0 * each, none, np.zeros(0))
        paid = self.arrays.unserved_usd[self.classes.model[new]]
        rows = self._class_row[new].astype(np.int32)
        solver.addCols(count, paid, zeros, zeros + INFINITE, count, each, rows, np.ones(count))
        self._has = np.concatenate([self._has, np.zeros((count, self.classes.usd.shape[1]), dtype=bool)])
        one, arc, usd = self._cheapest(prices, arcs, new)
        known = np.isfinite(usd)
        self._add(one[known], arc[known])
        np.minimum.at(paid, one - new[0] if count else one, usd)
        return paid

    def _grown(self, duals: Floats) -> None:
        """Extend the solution with zeros for columns and rows added since. Args: duals: [rows added]."""
        columns, rows = self.solver.getNumCol() - len(self.values), len(duals)
        self.values = np.append(self.values, np.zeros(columns))
        self.is_basic = np.append(self.is_basic, np.zeros(columns, dtype=bool))
        self.activity = np.append(self.activity, np.zeros(rows))
        self.duals = np.append(self.duals, duals)
        self.row_is_basic = np.append(self.row_is_basic, np.zeros(rows, dtype=bool))
        self._read()

    def carried_over(self, arrays: Arrays, kinds: Classes, index_map: IndexMap) -> RestrictedMaster:
        """The same programme over another encoded problem, with the same arcs and this one's basis as a warm start.

        Args: kinds: the same classes there. index_map: positions there in terms of those here. Until `run`, its
            solution is this one's.
        """
        made = RestrictedMaster(arrays, kinds)
        usable = np.isfinite(kinds.usd[self.arc_class, self.arc]) & (kinds.most[self.arc_class, self.arc] > 0)
        made._add(self.arc_class[usable], self.arc[usable])
        times = kinds.rps / np.maximum(self.classes.rps, DUST_RPS)
        made.flows = (self.flows * times[self.arc_class])[usable]
        made.replicas, made.unserved = carry_over(self.replicas, index_map.options), self.unserved
        made._paid = self._paid
        made.solver.setBasis(self._basis_of(made, usable, index_map))
        return made

    def _basis_of(self, made: RestrictedMaster, usable: Bools, index_map: IndexMap) -> highspy.HighsBasis:
        """This one's basis for another problem; columns that are new there are nonbasic at their lower bound."""
        basis = self.solver.getBasis()
        low, basic = highspy.HighsBasisStatus.kLower, highspy.HighsBasisStatus.kBasic
        columns, rows = basis.col_status, basis.row_status
        here, there = self._layout, made._layout
        of_start = {option: at for at, option in enumerate(self._layout.starting.tolist())}
        start = [of_start.get(option, -1) for option in index_map.options[made._layout.starting].tolist()]
        rates_by_name = highspy.HighsBasis()
        rates_by_name.valid, rates_by_name.alien = True, True
        rates_by_name.col_status = [
            *(columns[at] if at >= 0 else low for at in index_map.options.tolist()),
            *(columns[at] for at in self._class_column.tolist()),
            *(columns[here.starts[at]] if at >= 0 else low for at in start),
            *([low] * len(made.arrays.rule_lower)),
            *(columns[at] for at in self._arc_column[usable].tolist()),
        ]
        rates_by_name.row_status = [
            *(rows[at] for at in self._class_row.tolist()),
            *(rows[here.capacity[at]] if at >= 0 else basic for at in index_map.nodes.tolist()),
            *(rows[here.devices[at]] if at >= 0 else basic for at in index_map.pools.tolist()),
            *(rows[here.started[at]] if at >= 0 else basic for at in start),
            *([basic] * (len(there.rules) + len(there.budgets) + len(there.caps))),
        ]
        return rates_by_name

    def settle(self, prices: Duals, *, first: int, more: int) -> None:
        """Column generation from the `first` cheapest arcs of each class at these duals, `more` a class and round."""
        self.add_best(prices, first)
        self.resettle(more=more, rounds=ROUNDS)

    def resettle(self, *, more: int, rounds: int) -> None:
        """Column generation from the arcs that it has, `more` arcs a class and round, for at most so many rounds."""
        self.run()
        for _ in range(rounds - 1):
            if not self._price_out(np.arange(self.count), more):
                return
            self.run()

    def widen(self, kinds: Bools, *, more: int) -> bool:
        """Add up to `more` arcs of negative reduced cost to each of these classes [K], at zero flow; whether any is."""
        is_wider = self._price_out(np.flatnonzero(kinds), more)
        self._grown(np.zeros(0))
        return is_wider

    def _price_out(self, kinds: Ints, most: int) -> bool:
        one, arc, usd = self._cheapest(raised(self.arrays, self.prices), most, kinds)
        saves = usd < self._paid[one] - WORTH_ADDING * np.abs(self._paid[one]) - 1e-7
        self._add(one[saves], arc[saves])
        return bool(saves.any())

    def add_best(self, prices: Duals, count: int) -> None:
        """Add the `count` cheapest arcs of each class at these duals."""
        one, arc, usd = self._cheapest(prices, count, np.arange(self.count))
        self._add(one[np.isfinite(usd)], arc[np.isfinite(usd)])

    def _cheapest(self, prices: Duals, most: int, kinds: Ints) -> tuple[Ints, Ints, Floats]:
        """([n] class, [n] arc, [n] its cost at these duals) of the cheapest arcs of these classes not yet in."""
        price = np.full((len(self.arrays.service_ms), self._clusters), np.inf)
        price[self.arrays.node_model, self.arrays.node_cluster] = prices.capacity
        arcs = self.classes.usd.shape[1]
        price = price[self.classes.model[kinds]]
        if len(prices.away):
            price = price + self.arrays.surcharge_usd(prices.away)[self.classes.permit[kinds]]
        price = np.tile(price, (1, arcs // self._clusters)) + self.classes.usd[kinds]
        price[self._has[kinds]] = np.inf
        most = min(most, arcs)
        if most < arcs:
            arc = np.argpartition(price, most - 1, axis=1)[:, :most]
        else:
            arc = np.tile(np.arange(arcs), (len(kinds), 1))
        usd = np.take_along_axis(price, arc, axis=1)
        return np.repeat(kinds, most), arc.reshape(-1), usd.reshape(-1)

    def _add(self, one: Ints, arc: Ints) -> None:
        count = len(one)
        self._has[one, arc] = True
        cap = self.cap_of(one, arc)
        entries = np.where(cap >= 0, 3, 2)
        first = np.concatenate([[0], np.cumsum(entries)]).astype(np.int32)
        row = np.empty(first[-1], np.int32)
        row[first[:-1]] = self._class_row[one]
        row[first[:-1] + 1] = self._layout.capacity[self._node[self.classes.model[one], arc % self._clusters]]
        row[first[:-1][cap >= 0] + 2] = self._layout.caps[cap[cap >= 0]]
        self._arc_column = np.append(self._arc_column, self.solver.getNumCol() + np.arange(count))
        self.solver.addCols(
            count,
            self.classes.usd[one, arc],
            np.zeros(count),
            self.classes.most[one, arc],
            len(row),
            first[:-1],
            row,
            np.ones(len(row)),
        )
        self.arc_class, self.arc = np.concatenate([self.arc_class, one]), np.concatenate([self.arc, arc])

    def apportioned(self, arcs: Ints, flows: Floats) -> tuple[Ints, Ints, Floats]:
        """([n] group, [n] node, [n] requests per second): the `flows` [arcs] of these arcs by single groups."""
        arcs = arcs[np.lexsort((self.arc[arcs], self.arc_class[arcs]))]
        groups, clusters, rps = apportion(self.arrays, self.classes, self.arc_class[arcs], self.arc[arcs], flows[arcs])
        return groups, self._node[self.arrays.group_model[groups], clusters], rps

    @property
    def class_of(self) -> Ints:
        """[G] the class of each group."""
        made = np.empty(len(self.classes.order), np.int64)
        made[self.classes.order] = np.repeat(np.arange(self.count), np.diff(self.classes.first))
        return made

    def members(self, kinds: Bools) -> Ints:
        """The groups of these classes [K]."""
        sizes = np.diff(self.classes.first)
        made: Ints = self.classes.order[np.repeat(kinds, sizes)]
        return made

    def cap_of(self, one: Ints, arc: Ints) -> Ints:
        """[n] the cap that counts the flow of these classes on these arcs, or -1."""
        permit = self.classes.permit[one]
        counted = self.arrays.permit_leaves[permit, arc % self._clusters]
        made: Ints = np.where(counted, self.arrays.permit_cap[permit], -1)
        return made

    def prioritise(self, priority: Ints) -> None:
        """Minimise unserved demand of higher priorities [M] first (lexicographically), where some of it is unserved."""
        short = np.bincount(self.classes.model, weights=self.unserved, minlength=len(priority)) > SHORT_RPS
        tiers = sorted(set(priority.tolist()), reverse=True)
        if len(tiers) < 2 or not (short & (priority > tiers[-1])).any():
            return
        columns = self._class_column.astype(np.int32)
        usd = self.arrays.unserved_usd[self.classes.model]
        for tier in tiers[:-1]:
            wanted = np.where(priority[self.classes.model] >= tier, usd, 0.0)
            self.solver.changeColsCost(self.count, columns, wanted)
            self.run()
            mine = columns[priority[self.classes.model] == tier]
            left = float(self.values[mine].sum()) * (1.0 + WHOLE) + WHOLE
            self.solver.addRow(-INFINITE, left, len(mine), mine, np.ones(len(mine)))
            self.is_prioritised = True
        self.solver.changeColsCost(self.count, columns, usd)
        self.run()

    def waive(self, rules: Bools) -> None:
        """From the next `run` on, missing these rules [R] costs nothing."""
        columns = self._layout.missed[rules]
        self.solver.changeColsCost(len(columns), columns.astype(np.int32), np.zeros(len(columns)))

    def reduced_usd(self) -> Floats:
        """[O] reduced cost of one replica more at the newest duals; about zero for options in use."""
        arrays, prices = self.arrays, self.prices
        made: Floats = option_usd(arrays, prices) - prices.capacity[arrays.option_node] * arrays.option_rps
        return made
