"""A warm-started subproblem of the master: the classes that an event touches are solved again, all others are fixed.

Groups that lose their node move to nodes nearby, which hardly changes prices farther away, so some hundred classes are
solved, not all. Other classes are included only when the new duals would let them save much by making way.
"""

from __future__ import annotations

import highspy
import numpy as np

from placement import highs
from placement.large.arrays import Bools, Floats
from placement.large.duals import raised
from placement.large.master import DUST_RPS, WHOLE, RestrictedMaster

ROUNDS = 2
ARCS = 2
"""Arcs added to each class after a round, where their reduced cost is negative."""
MATTERS = 0.02
"""Include other classes when together they could save this share of the total cost."""
GOES = 0.2
"""A class is included when it could save at least this share of its own cost."""
OTHERS = 60
"""At most this many other classes are included, those with the largest savings."""
AT_BOUND = 1e-9
PRIMAL = 4
"""HiGHS's number of the primal simplex strategy: from this basis it takes half the time of the dual one."""


def replan(master: RestrictedMaster, kinds: Bools, *, inertia: float) -> None:
    """Solve the master again for these classes [K], and for others that would move at the new duals.

    Args: inertia: a new arc must save its class more than this share of its cost, and an idle option costs this share
        more.
    """
    for more in reversed(range(ROUNDS)):
        if not kinds.any():
            return
        _Subproblem(master, kinds, inertia).solve()
        if not more:
            return
        is_wider = master.widen(kinds, more=ARCS)
        saves_usd, pays_usd = _may_save(master)
        others = np.zeros(0, np.int64)
        if saves_usd[~kinds].sum() >= MATTERS * pays_usd.sum():
            others = np.flatnonzero(~kinds & (saves_usd > GOES * pays_usd))
            others = others[np.argsort(-saves_usd[others], kind="stable")[:OTHERS]]
        if not is_wider and not len(others):
            return
        kinds = kinds.copy()
        kinds[others] = True


def _may_save(master: RestrictedMaster) -> tuple[Floats, Floats]:
    """([K] most USD per hour that each class could save at the newest duals, [K] USD per hour that it pays)."""
    capacity = raised(master.arrays, master.prices).capacity
    usd = master.classes.usd[master.arc_class, master.arc] + capacity[master.arc_node]
    least = np.full(master.count, np.inf)
    np.minimum.at(least, master.arc_class, usd)
    used = master.flows > DUST_RPS
    kind, rps = master.arc_class[used], master.flows[used]
    saves, pays = (
        np.bincount(kind, weights=rps * each, minlength=master.count).astype(np.float64)
        for each in (usd[used] - least[kind], usd[used])
    )
    return saves, pays


class _Subproblem:
    """The programme over some columns of the master, with the activity of each shared row as a column of its own.

    That column costs the row's dual. So with costs reduced by the duals every basis is dual feasible, and the solver
    continues from the master's last basis although the rows of fixed classes are missing.

    Columns: those of the classes, then the activity of `shared` rows (rows that are not of one class). Rows: all rows
    with an entry in these columns.
    """

    def __init__(self, master: RestrictedMaster, kinds: Bools, inertia: float) -> None:
        self._master = master
        solver, self._columns = master.solver, master.columns_of(kinds)
        _, self._count, usd, lower, upper, _ = solver.getCols(len(self._columns), self._columns)
        _, self._first, entry, self._value = solver.getColsEntries(len(self._columns), self._columns)
        self._rows, self._row = np.unique(entry, return_inverse=True)
        _, _, low, high, _ = solver.getRows(len(self._rows), self._rows)
        self._column = np.repeat(np.arange(self._count), np.diff(np.append(self._first, len(entry))))
        is_of_class = master.is_of_class(self._rows)
        self._shared = np.flatnonzero(~is_of_class)
        self._before = master.values[self._columns]
        self._price = np.where(is_of_class, np.inf, master.duals[self._rows])
        self._usd = self._without_prices(usd, inertia)
        self._lower = np.concatenate([lower, low[self._shared]])
        self._upper = np.concatenate([upper, high[self._shared]])
        self._asked = np.where(is_of_class, low, 0.0)

    def _without_prices(self, usd: Floats, inertia: float) -> Floats:
        """Reduced costs of the columns; the dual of a class row makes the reduced cost of its cheapest arc zero."""
        master, price = self._master, self._price
        shared = np.where(np.isinf(price), 0.0, price)
        usd = usd - np.bincount(self._column, weights=self._value * shared[self._row], minlength=self._count)
        idle = np.flatnonzero((self._columns < master.options) & (self._before <= WHOLE))
        usd[idle] += inertia * master.arrays.option_usd[self._columns[idle]]
        asks = np.isinf(price[self._row])
        column, row = self._column[asks], self._row[asks]
        paid = np.maximum(0.0, master.duals[self._rows[row]])
        usd[column] -= np.where(self._before[column] > DUST_RPS, inertia * paid, 0.0)
        np.minimum.at(price, row, usd[column])
        usd[column] -= price[row]
        return usd

    def solve(self) -> None:
        """Solve it and write the answer into the master; without an optimal answer the whole master is solved."""
        master, columns, rows, shared = self._master, self._columns, self._rows, self._shared
        held = master.activity[rows] - self._carried(self._before)
        part = highs.quiet()
        part.setOptionValue("simplex_strategy", PRIMAL)
        part.setOptionValue("primal_simplex_bound_perturbation_multiplier", 0.0)
        part.passModel(self._programme(self._asked - held))
        part.setBasis(self._basis())
        part.run()
        if part.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            master.run()
            return
        answer = part.getSolution()
        values = np.asarray(answer.col_value)
        carried, duals = held + self._carried(values[: self._count]), self._price + np.asarray(answer.row_dual)
        master.take(columns, values[: self._count], rows, carried, duals)
        is_basic = np.zeros(len(values), dtype=bool)
        basic = part.getBasicVariables()[1]
        is_basic[basic[basic >= 0]] = True
        master.take_basis(columns, is_basic[: self._count], rows[shared], is_basic[self._count :])

    def _carried(self, values: Floats) -> Floats:
        """[rows] the activity of each row at these values [columns]."""
        weights = self._value * values[self._column]
        return np.bincount(self._row, weights=weights, minlength=len(self._rows)).astype(np.float64)

    def _programme(self, exactly: Floats) -> highspy.HighsLp:
        lp, shared, entries = highspy.HighsLp(), self._shared, len(self._value)
        lp.num_col_, lp.num_row_ = self._count + len(shared), len(self._rows)
        lp.col_cost_ = np.concatenate([self._usd, self._price[shared]])
        lp.col_lower_, lp.col_upper_ = self._lower, self._upper
        lp.row_lower_ = lp.row_upper_ = exactly
        lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        lp.a_matrix_.start_ = np.concatenate([self._first, entries + np.arange(len(shared) + 1)]).astype(np.int32)
        lp.a_matrix_.index_ = np.concatenate([self._row, shared]).astype(np.int32)
        lp.a_matrix_.value_ = np.concatenate([self._value, np.full(len(shared), -1.0)])
        return lp

    def _basis(self) -> highspy.HighsBasis:
        """The master's basis restricted to this part; the basic column of a new class is its cheapest arc."""
        master, shared, status = self._master, self._rows[self._shared], highspy.HighsBasisStatus
        own = master.is_basic[self._columns]
        lacks = master.is_of_class(self._rows)
        lacks[self._row[own[self._column]]] = False
        cheapest = np.flatnonzero(lacks[self._row] & (self._usd[self._column] == 0.0))
        own[self._column[cheapest[np.unique(self._row[cheapest], return_index=True)[1]]]] = True
        is_basic = np.concatenate([own, master.row_is_basic[shared]])
        values: Floats = np.concatenate([self._before, master.activity[shared]])
        names = np.array([status.kLower, status.kUpper, status.kBasic], dtype=object)
        basis = highspy.HighsBasis()
        basis.valid, basis.alien = True, True
        basis.col_status = names[np.where(is_basic, 2, values >= self._upper - AT_BOUND)].tolist()
        basis.row_status = [status.kNonbasic] * len(self._rows)
        return basis
