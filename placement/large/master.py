"""The linear programme over classes of demand, whose ways to clusters are added as prices make them worth it.

Columns: n[option], z[class] (unserved), a[start], s[rule] (missed), then x[way] as they are added.
Rows:    served[class], capacity[node], devices[pool], starts, rules, budgets, caps.
z[class] and served[class] of classes that are split off come last.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import highspy
import numpy as np

from placement import highs
from placement.large.aggregation import Classes, Grain, apportion, split
from placement.large.arrays import Bools, Floats, Ints, World
from placement.large.duals import Prices, option_usd, raised
from placement.large.encoding import Since, earlier

INFINITE = highspy.kHighsInf
WHOLE = 1e-6
DUST_RPS = 1e-6
ROUNDS = 16
SHORT_RPS = 1e-3
WORTH_ADDING = 1e-4
"""A way is added when it would save this part of what its class pays."""


class Coarse:
    """One programme, in the solver, and its newest answer."""

    def __init__(self, world: World, classes: Classes) -> None:
        self.world, self.classes = world, classes
        self.options, self.count = len(world.option_model), len(classes.rps)
        self.way_class, self.way = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._has: Bools = np.zeros(classes.usd.shape, dtype=bool)
        self._clusters = world.rtt_ms.shape[1]
        self._node = world.node_at
        self.is_favoured = False
        self.solver = highs.quiet()
        self._build()

    def _build(self) -> None:
        world, classes = self.world, self.classes
        options, count = self.options, self.count
        limited = np.isfinite(world.max_starts)
        starting = np.flatnonzero(
            ((world.option_start_usd > 0) | limited[world.option_model]) & (world.option_most > world.option_current)
        )
        self._starting = starting
        starts, rules = len(starting), len(world.rule_lower)
        nodes, pools = len(world.node_model), len(world.pool_devices)
        models = np.flatnonzero(limited)
        at = np.cumsum([0, count, nodes, pools, starts, rules, len(models), len(world.cap_rps)])
        _, self._capacity, self._devices, self._starts, self._rules, self._budgets, self._caps = (
            slice(at[0], at[1]),
            slice(at[1], at[2]),
            slice(at[2], at[3]),
            slice(at[3], at[4]),
            slice(at[4], at[5]),
            slice(at[5], at[6]),
            slice(at[6], at[7]),
        )
        self._limited = models
        self._first_way = options + count + starts + rules
        self._class_row, self._class_column = np.arange(count), options + np.arange(count)
        self._way_column = np.zeros(0, np.int64)
        self._is_closed = np.zeros(nodes, dtype=bool)
        every, kinds, new = np.arange(options), np.arange(count), np.arange(starts)
        budget = np.searchsorted(models, world.option_model[starting])
        budgeted = limited[world.option_model[starting]]
        column = np.concatenate(
            [
                every,
                every,
                options + kinds,
                starting,
                options + count + new,
                world.rule_option,
                options + count + starts + np.arange(rules),
                (options + count + new)[budgeted],
            ]
        )
        row = np.concatenate(
            [
                at[1] + world.option_node,
                at[2] + world.option_pool,
                kinds,
                at[3] + new,
                at[3] + new,
                at[4] + world.rule_of,
                at[4] + np.arange(rules),
                at[5] + budget[budgeted],
            ]
        )
        value = np.concatenate(
            [
                -world.option_rps,
                world.option_devices.astype(float),
                np.ones(count),
                np.ones(starts),
                -np.ones(starts),
                world.rule_term,
                np.ones(rules),
                np.ones(int(budgeted.sum())),
            ]
        )
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = self._first_way, int(at[-1])
        lp.col_cost_ = np.concatenate(
            [
                world.option_usd,
                world.unserved_usd[classes.model],
                world.option_start_usd[starting],
                np.where(world.is_limit, 0.0, world.rule_usd),
            ]
        )
        free = np.concatenate([np.full(count + starts, INFINITE), np.where(world.is_limit, 0.0, INFINITE)])
        lp.col_lower_ = np.concatenate([world.option_least.astype(float), np.zeros(count + starts + rules)])
        lp.col_upper_ = np.concatenate([world.option_most.astype(float), free])
        stock = np.maximum(world.pool_devices.astype(float), world.used_devices(world.option_least))
        low = np.full(nodes + pools + starts, -INFINITE)
        budgets_and_caps = np.full(len(models) + len(world.cap_rps), -INFINITE)
        lp.row_lower_ = np.concatenate([classes.rps, low, world.rule_lower, budgets_and_caps])
        lp.row_upper_ = np.concatenate(
            [
                classes.rps,
                np.zeros(nodes),
                stock,
                world.option_current[starting].astype(float),
                np.full(rules, INFINITE),
                world.max_starts[models],
                world.cap_rps,
            ]
        )
        order = np.lexsort((row, column))
        lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        counts = np.bincount(column, minlength=self._first_way)
        lp.a_matrix_.start_ = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        lp.a_matrix_.index_ = row[order].astype(np.int32)
        lp.a_matrix_.value_ = value[order]
        self.solver.passModel(lp)

    def run(self) -> None:
        """Solve it as it is."""
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
        """What a part of it gave, instead of `run`: of these columns and rows."""
        self.values, self.activity, self.duals = self.values.copy(), self.activity.copy(), self.duals.copy()
        self.values[columns], self.activity[rows], self.duals[rows] = values, activity, duals
        self._read()

    def take_basis(self, columns: Ints, is_basic: Bools, rows: Ints, row_is_basic: Bools) -> None:
        """Where a part of it ended, so that another may go on from there."""
        self.is_basic, self.row_is_basic = self.is_basic.copy(), self.row_is_basic.copy()
        self.is_basic[columns], self.row_is_basic[rows] = is_basic, row_is_basic

    def _read(self) -> None:
        duals = self.duals
        self.replicas: Floats = self.values[: self.options]
        self.unserved: Floats = self.values[self._class_column]
        self.flows: Floats = self.values[self._way_column]
        self._paid = duals[self._class_row]
        start = np.zeros(len(self.world.service_ms))
        start[self._limited] = np.maximum(0.0, -duals[self._budgets])
        self.prices = Prices(
            device=np.maximum(0.0, -duals[self._devices]),
            capacity=np.maximum(0.0, -duals[self._capacity]),
            rule=np.maximum(0.0, duals[self._rules]),
            start=start,
            away=np.maximum(0.0, -duals[self._caps]),
        )

    @property
    def way_node(self) -> Ints:
        """[ways] where each way leads."""
        made: Ints = self._node[self.classes.model[self.way_class], self.way % self._clusters]
        return made

    def is_of_class(self, rows: Ints) -> Bools:
        """Whether these rows say that a class is served."""
        made: Bools = np.isin(rows, self._class_row)
        return made

    def columns_of(self, kinds: Bools) -> Ints:
        """The columns of these classes [K] and of all that may serve them, in their order."""
        world = self.world
        ways = np.flatnonzero(kinds[self.way_class])
        nodes = np.zeros(len(world.node_model), dtype=bool)
        nodes[self.way_node[ways]] = True
        options = nodes[world.option_node]
        starts = np.flatnonzero(options[self._starting])
        rules = np.zeros(len(world.rule_lower), dtype=bool)
        rules[world.rule_of[options[world.rule_option]]] = True
        missed = self._first_way - len(world.rule_lower)
        made = [
            np.flatnonzero(options),
            self._class_column[kinds],
            missed - len(self._starting) + starts,
            missed + np.flatnonzero(rules),
            self._way_column[ways],
        ]
        return np.sort(np.concatenate(made)).astype(np.int32)

    def copy(self) -> Coarse:
        """The same, solved as far, to be changed by itself."""
        made = copy.copy(self)
        made._has, made._is_closed = self._has.copy(), self._is_closed.copy()
        made.solver = highs.quiet()
        made.solver.passModel(self.solver.getLp())
        made.solver.setBasis(self.solver.getBasis())
        return made

    def stick(self, part: float) -> None:
        """From the next `run` on another way must save its class more than this part of what it pays now.

        An option that is not in use costs this part more, so none replaces another that is as good.
        """
        discount = np.where(self.flows > DUST_RPS, part * np.maximum(0.0, self._paid[self.way_class]), 0.0)
        usd = self.classes.usd[self.way_class, self.way] - discount
        self.solver.changeColsCost(len(self.way), self._way_column.astype(np.int32), usd)
        more = np.where(self.replicas > WHOLE, 0.0, part)
        every = np.arange(self.options, dtype=np.int32)
        self.solver.changeColsCost(self.options, every, self.world.option_usd * (1.0 + more))

    def limit(self, options: Ints, least: Ints, most: Ints) -> None:
        """Other bounds of these options, from the next `run` on."""
        self.solver.changeColsBounds(len(options), options.astype(np.int32), least.astype(float), most.astype(float))
        self._is_closed[self.world.option_node[options[most == 0]]] = True

    def split(self, groups: Ints, grain: Grain, *, ways: int) -> Bools:
        """These groups leave their classes for new ones, each with its best `ways` at the newest prices.

        What was in one class because a node that is closed now was best for all is not alike any more. Nothing is
        solved yet. Gives the classes [K] that are new, less, or served on closed nodes.
        """
        prices = raised(self.world, self.prices)
        prices = replace(prices, capacity=np.where(self._is_closed, np.inf, prices.capacity))
        less, count = np.unique(self.class_of[groups]), self.count
        self.classes = split(self.world, self.classes, prices, grain, groups)
        self.count = len(self.classes.rps)
        self._lessen(less)
        paid = self._append(np.arange(count, self.count), prices, ways)
        self._grown(paid)
        gone = self._is_closed[self.way_node]
        changed = np.arange(self.count) >= count
        changed[less] = True
        changed[self.way_class[gone & (self.flows > DUST_RPS)]] = True
        self.flows = np.where(gone, 0.0, self.flows)
        return changed

    def _lessen(self, less: Ints) -> None:
        """Tell the solver of classes which some have left."""
        for row, rps in zip(self._class_row[less].tolist(), self.classes.rps[less].tolist(), strict=True):
            self.solver.changeRowBounds(row, rps, rps)
        ways = np.flatnonzero(np.isin(self.way_class, less))
        usd = self.classes.usd[self.way_class[ways], self.way[ways]]
        self.solver.changeColsCost(len(ways), self._way_column[ways].astype(np.int32), usd)

    def _append(self, new: Ints, prices: Prices, ways: int) -> Floats:
        """Tell the solver of classes that are new; gives what each pays at these prices."""
        solver, count, each = self.solver, len(new), np.arange(len(new), dtype=np.int32)
        self._class_row = np.append(self._class_row, solver.getNumRow() + each)
        self._class_column = np.append(self._class_column, solver.getNumCol() + each)
        rps, zeros, none = self.classes.rps[new], np.zeros(count), np.zeros(0, np.int32)
        solver.addRows(count, rps, rps, 0, 0 * each, none, np.zeros(0))
        paid = self.world.unserved_usd[self.classes.model[new]]
        rows = self._class_row[new].astype(np.int32)
        solver.addCols(count, paid, zeros, zeros + INFINITE, count, each, rows, np.ones(count))
        self._has = np.concatenate([self._has, np.zeros((count, self.classes.usd.shape[1]), dtype=bool)])
        one, way, usd = self._cheapest(prices, ways, new)
        known = np.isfinite(usd)
        self._add(one[known], way[known])
        np.minimum.at(paid, one - new[0] if count else one, usd)
        return paid

    def _grown(self, duals: Floats) -> None:
        """Nothing is by columns and in rows that came after the newest answer. Args: duals: of these rows."""
        columns, rows = self.solver.getNumCol() - len(self.values), len(duals)
        self.values = np.append(self.values, np.zeros(columns))
        self.is_basic = np.append(self.is_basic, np.zeros(columns, dtype=bool))
        self.activity = np.append(self.activity, np.zeros(rows))
        self.duals = np.append(self.duals, duals)
        self.row_is_basic = np.append(self.row_is_basic, np.zeros(rows, dtype=bool))
        self._read()

    def again(self, world: World, kinds: Classes, since: Since) -> Coarse:
        """The same programme over another world, to be run from where this one ended.

        Args: kinds: the same classes there. since: what was where in this world. The answer is this one's still.
        """
        made = Coarse(world, kinds)
        usable = np.isfinite(kinds.usd[self.way_class, self.way]) & (kinds.most[self.way_class, self.way] > 0)
        made._add(self.way_class[usable], self.way[usable])
        times = kinds.rps / np.maximum(self.classes.rps, DUST_RPS)
        made.flows = (self.flows * times[self.way_class])[usable]
        made.replicas, made.unserved = earlier(self.replicas, since.options), self.unserved
        made._paid = self._paid
        made.solver.setBasis(self._basis_of(made, usable, since))
        return made

    def _basis_of(self, made: Coarse, usable: Bools, since: Since) -> highspy.HighsBasis:
        """This one's basis for another world; what is new there begins at nothing."""
        basis = self.solver.getBasis()
        low, basic = highspy.HighsBasisStatus.kLower, highspy.HighsBasisStatus.kBasic
        columns, rows = basis.col_status, basis.row_status
        first = self._first_way - len(self.world.rule_lower) - len(self._starting)
        of_start = {option: at for at, option in enumerate(self._starting.tolist())}
        start = [of_start.get(option, -1) for option in since.options[made._starting].tolist()]
        told = highspy.HighsBasis()
        told.valid, told.alien = True, True
        told.col_status = [
            *(columns[at] if at >= 0 else low for at in since.options.tolist()),
            *(columns[at] for at in self._class_column.tolist()),
            *(columns[first + at] if at >= 0 else low for at in start),
            *([low] * len(made.world.rule_lower)),
            *(columns[at] for at in self._way_column[usable].tolist()),
        ]
        told.row_status = [
            *(rows[at] for at in self._class_row.tolist()),
            *(rows[self._capacity.start + at] if at >= 0 else basic for at in since.nodes.tolist()),
            *(rows[self._devices.start + at] if at >= 0 else basic for at in since.pools.tolist()),
            *(rows[self._starts.start + at] if at >= 0 else basic for at in start),
            *([basic] * (made._caps.stop - made._rules.start)),
        ]
        return told

    def settle(self, prices: Prices, *, first: int, more: int) -> None:
        """Solve it, with the `first` best ways of each class at these prices, and `more` at a time while they save."""
        self.add_best(prices, first)
        self.resettle(more=more, rounds=ROUNDS)

    def resettle(self, *, more: int, rounds: int) -> None:
        """Solve it again, with `more` ways at a time while they save and at most so often."""
        self.run()
        for _ in range(rounds - 1):
            if not self._add_saving(np.arange(self.count), more):
                return
            self.run()

    def widen(self, kinds: Bools, *, more: int) -> bool:
        """Add up to `more` ways of these classes [K] that save at the newest prices, unused; whether there are any."""
        is_wider = self._add_saving(np.flatnonzero(kinds), more)
        self._grown(np.zeros(0))
        return is_wider

    def _add_saving(self, kinds: Ints, most: int) -> bool:
        one, way, usd = self._cheapest(raised(self.world, self.prices), most, kinds)
        saves = usd < self._paid[one] - WORTH_ADDING * np.abs(self._paid[one]) - 1e-7
        self._add(one[saves], way[saves])
        return bool(saves.any())

    def add_best(self, prices: Prices, count: int) -> None:
        """Add the `count` best ways of each class at these prices."""
        one, way, usd = self._cheapest(prices, count, np.arange(self.count))
        self._add(one[np.isfinite(usd)], way[np.isfinite(usd)])

    def _cheapest(self, prices: Prices, most: int, kinds: Ints) -> tuple[Ints, Ints, Floats]:
        """(class, way, its price) of the best ways of these classes that are not in yet."""
        price = np.full((len(self.world.service_ms), self._clusters), np.inf)
        price[self.world.node_model, self.world.node_cluster] = prices.capacity
        ways = self.classes.usd.shape[1]
        price = price[self.classes.model[kinds]]
        if len(prices.away):
            price = price + self.world.toll(prices.away)[self.classes.permit[kinds]]
        price = np.tile(price, (1, ways // self._clusters)) + self.classes.usd[kinds]
        price[self._has[kinds]] = np.inf
        most = min(most, ways)
        if most < ways:
            way = np.argpartition(price, most - 1, axis=1)[:, :most]
        else:
            way = np.tile(np.arange(ways), (len(kinds), 1))
        usd = np.take_along_axis(price, way, axis=1)
        return np.repeat(kinds, most), way.reshape(-1), usd.reshape(-1)

    def _add(self, one: Ints, way: Ints) -> None:
        count = len(one)
        self._has[one, way] = True
        cap = self.cap_of(one, way)
        entries = np.where(cap >= 0, 3, 2)
        first = np.concatenate([[0], np.cumsum(entries)]).astype(np.int32)
        row = np.empty(first[-1], np.int32)
        row[first[:-1]] = self._class_row[one]
        row[first[:-1] + 1] = self._capacity.start + self._node[self.classes.model[one], way % self._clusters]
        row[first[:-1][cap >= 0] + 2] = self._caps.start + cap[cap >= 0]
        self._way_column = np.append(self._way_column, self.solver.getNumCol() + np.arange(count))
        self.solver.addCols(
            count,
            self.classes.usd[one, way],
            np.zeros(count),
            self.classes.most[one, way],
            len(row),
            first[:-1],
            row,
            np.ones(len(row)),
        )
        self.way_class, self.way = np.concatenate([self.way_class, one]), np.concatenate([self.way, way])

    def apportioned(self, ways: Ints, flows: Floats) -> tuple[Ints, Ints, Floats]:
        """(group, node, requests per second): what the `flows` [ways] of these ways are for single groups."""
        ways = ways[np.lexsort((self.way[ways], self.way_class[ways]))]
        groups, clusters, rps = apportion(self.world, self.classes, self.way_class[ways], self.way[ways], flows[ways])
        return groups, self._node[self.world.group_model[groups], clusters], rps

    @property
    def class_of(self) -> Ints:
        """[G]"""
        made = np.empty(len(self.classes.order), np.int64)
        made[self.classes.order] = np.repeat(np.arange(self.count), np.diff(self.classes.first))
        return made

    def members(self, kinds: Bools) -> Ints:
        """The groups of these classes [K]."""
        sizes = np.diff(self.classes.first)
        made: Ints = self.classes.order[np.repeat(kinds, sizes)]
        return made

    def cap_of(self, one: Ints, way: Ints) -> Ints:
        """The cap that counts what these classes send these ways, or -1."""
        permit = self.classes.permit[one]
        counted = self.world.permit_leaves[permit, way % self._clusters]
        made: Ints = np.where(counted, self.world.permit_cap[permit], -1)
        return made

    def favour(self, priority: Ints) -> None:
        """Serve models of higher priority [M] first, where some of them go short."""
        short = np.bincount(self.classes.model, weights=self.unserved, minlength=len(priority)) > SHORT_RPS
        tiers = sorted(set(priority.tolist()), reverse=True)
        if len(tiers) < 2 or not (short & (priority > tiers[-1])).any():
            return
        columns = self._class_column.astype(np.int32)
        usd = self.world.unserved_usd[self.classes.model]
        for tier in tiers[:-1]:
            wanted = np.where(priority[self.classes.model] >= tier, usd, 0.0)
            self.solver.changeColsCost(self.count, columns, wanted)
            self.run()
            mine = columns[priority[self.classes.model] == tier]
            left = float(self.values[mine].sum()) * (1.0 + WHOLE) + WHOLE
            self.solver.addRow(-INFINITE, left, len(mine), mine, np.ones(len(mine)))
            self.is_favoured = True
        self.solver.changeColsCost(self.count, columns, usd)
        self.run()

    def forgive(self, rules: Bools) -> None:
        """From the next `run` on it costs nothing to miss these rules [R]."""
        columns = self._first_way - len(rules) + np.flatnonzero(rules)
        self.solver.changeColsCost(len(columns), columns.astype(np.int32), np.zeros(len(columns)))

    def reduced_usd(self) -> Floats:
        """[O] what one replica more would add at the newest prices; about zero for those in use."""
        world, prices = self.world, self.prices
        made: Floats = option_usd(world, prices) - prices.capacity[world.option_node] * world.option_rps
        return made
