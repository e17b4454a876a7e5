"""The only door to HiGHS: a linear or mixed-integer programme in, its answer out.

One thread, a fixed seed, and bounds on gap and nodes rather than on time, so that the same programme gives the same
answer on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import highspy
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SEED = 20260101


@dataclass(slots=True)
class Programme:
    """Minimise cost'x subject to row bounds and column bounds; columns and rows are numbered as they are added."""

    cost: list[float] = field(default_factory=list)
    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    is_integer: list[bool] = field(default_factory=list)
    row_lower: list[float] = field(default_factory=list)
    row_upper: list[float] = field(default_factory=list)
    starts: list[int] = field(default_factory=lambda: [0])
    columns: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def column(
        self, cost: float, *, lower: float = 0.0, upper: float = highspy.kHighsInf, integer: bool = False
    ) -> int:
        """Add a variable; gives its number."""
        self.cost.append(cost)
        self.lower.append(lower)
        self.upper.append(upper)
        self.is_integer.append(integer)
        return len(self.cost) - 1

    def row(
        self, terms: Mapping[int, float], *, lower: float = -highspy.kHighsInf, upper: float = highspy.kHighsInf
    ) -> int:
        """Add `lower <= sum(value * x[column]) <= upper`; gives its number."""
        self.columns.extend(terms)
        self.values.extend(terms.values())
        self.starts.append(len(self.columns))
        self.row_lower.append(lower)
        self.row_upper.append(upper)
        return len(self.row_lower) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An answer: a value per column, the objective, and a proven lower bound of it.

    `duals` and `reduced` are USD per hour per unit of each row and of each column's bound; zeros where the programme
    was solved in whole numbers.
    """

    values: np.ndarray[tuple[int], np.dtype[np.float64]]
    objective: float
    bound: float
    duals: np.ndarray[tuple[int], np.dtype[np.float64]]
    reduced: np.ndarray[tuple[int], np.dtype[np.float64]]


def solve(
    programme: Programme,
    *,
    gap: float = 0.0,
    node_limit: int = 1,
    relaxed: bool = False,
    plain: bool = False,
    time_limit_s: float | None = None,
) -> Found | None:
    """The best answer found within the relative `gap` and `node_limit`, or None when there is none.

    Args: relaxed: let integer columns take any value. plain: without the searches in neighbourhoods that find good
        answers of hard programmes and cost most of the time of easy ones. time_limit_s: for baselines alone: answers
        under it are not the same on every machine.
    There is no starting point to give: HiGHS 1.16 has returned a wrong objective from a partial one (seed 382 of the
    random worlds in the tests).
    """
    if not programme.cost:  # HiGHS calls a programme without variables neither feasible nor infeasible
        holds = all(low <= 0.0 <= high for low, high in zip(programme.row_lower, programme.row_upper, strict=True))
        rows, none = np.zeros(len(programme.row_lower)), np.zeros(0)
        return Found(values=none, objective=0.0, bound=0.0, duals=rows, reduced=none) if holds else None
    solver = quiet()
    solver.setOptionValue("mip_rel_gap", gap)
    solver.setOptionValue("mip_max_nodes", node_limit)
    for search in ("rins", "rens", "root_reduced_cost") if plain else ():
        solver.setOptionValue(f"mip_heuristic_run_{search}", False)
    if time_limit_s is not None:
        solver.setOptionValue("time_limit", time_limit_s)
    is_mip = any(programme.is_integer) and not relaxed
    solver.passModel(_lp(programme, is_mip=is_mip))
    solver.run()
    return _found(solver, len(programme.row_lower), is_mip=is_mip)


class Relaxation:
    """A programme in fractions, to which rows are added: each answer begins at the one before."""

    def __init__(self, programme: Programme) -> None:
        self.rows = len(programme.row_lower)
        self._solver = quiet()
        self._solver.passModel(_lp(programme, is_mip=False))

    def add(self, starts: Ints, columns: Ints, values: Floats) -> None:
        """Add rows `sum(value * x[column]) <= 0`; row i has the terms from starts[i] to starts[i + 1]."""
        count = len(starts) - 1
        lower, upper = np.full(count, -highspy.kHighsInf), np.zeros(count)
        begin, which = starts[:-1].astype(np.int32), columns.astype(np.int32)
        self._solver.addRows(count, lower, upper, len(columns), begin, which, values)
        self.rows += count

    def solve(self) -> Found | None:
        """The best answer, or None when there is none."""
        self._solver.run()
        return _found(self._solver, self.rows, is_mip=False)


def _found(solver: highspy.Highs, rows: int, *, is_mip: bool) -> Found | None:
    info = solver.getInfo()
    if info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        return None
    objective = float(info.objective_function_value)
    bound = float(info.mip_dual_bound) if is_mip else objective
    answer = solver.getSolution()
    values = np.asarray(answer.col_value, dtype=np.float64)
    duals, reduced = np.zeros(rows), np.zeros(len(values))
    if not is_mip:
        duals = np.asarray(answer.row_dual, dtype=np.float64)
        reduced = np.asarray(answer.col_dual, dtype=np.float64)
    return Found(values=values, objective=objective, bound=min(bound, objective), duals=duals, reduced=reduced)


def quiet() -> highspy.Highs:
    """A solver that says nothing and gives the same answer on every machine."""
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    solver.setOptionValue("parallel", "off")
    solver.setOptionValue("random_seed", SEED)
    solver.setOptionValue("mip_abs_gap", 1e-7)
    return solver


def _lp(programme: Programme, *, is_mip: bool) -> highspy.HighsLp:
    lp = highspy.HighsLp()
    lp.num_col_ = len(programme.cost)
    lp.num_row_ = len(programme.row_lower)
    lp.col_cost_ = np.array(programme.cost, dtype=np.float64)
    lp.col_lower_ = np.array(programme.lower, dtype=np.float64)
    lp.col_upper_ = np.array(programme.upper, dtype=np.float64)
    lp.row_lower_ = np.array(programme.row_lower, dtype=np.float64)
    lp.row_upper_ = np.array(programme.row_upper, dtype=np.float64)
    lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    lp.a_matrix_.start_ = np.array(programme.starts, dtype=np.int32)
    lp.a_matrix_.index_ = np.array(programme.columns, dtype=np.int32)
    lp.a_matrix_.value_ = np.array(programme.values, dtype=np.float64)
    if is_mip:
        kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
        lp.integrality_ = [kinds[integer] for integer in programme.is_integer]
    return lp
