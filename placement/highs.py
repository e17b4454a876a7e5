"""The only door to HiGHS: a linear or mixed-integer programme in, its solution out.

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
ALIKE = 1e-7
"""Objectives that differ by less are equal."""


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
        """Add a variable; gives its position."""
        self.cost.append(cost)
        self.lower.append(lower)
        self.upper.append(upper)
        self.is_integer.append(integer)
        return len(self.cost) - 1

    def row(
        self, terms: Mapping[int, float], *, lower: float = -highspy.kHighsInf, upper: float = highspy.kHighsInf
    ) -> int:
        """Add `lower <= sum(value * x[column]) <= upper`; gives its position."""
        self.columns.extend(terms)
        self.values.extend(terms.values())
        self.starts.append(len(self.columns))
        self.row_lower.append(lower)
        self.row_upper.append(upper)
        return len(self.row_lower) - 1

    @property
    def height(self) -> int:
        """How many rows it has."""
        return len(self.row_lower)

    @property
    def has_integers(self) -> bool:
        """Whether any variable must be whole."""
        return any(self.is_integer)

    @property
    def is_empty(self) -> bool:
        """Whether it has no variables."""
        return not self.cost

    def holds_at_nothing(self) -> bool:
        """Whether the rows allow sums of zero."""
        return all(low <= 0.0 <= high for low, high in zip(self.row_lower, self.row_upper, strict=True))

    def lp(self, *, is_mip: bool) -> highspy.HighsLp:
        """For the solver."""
        lp = highspy.HighsLp()
        lp.num_col_ = len(self.cost)
        lp.num_row_ = len(self.row_lower)
        lp.col_cost_ = np.array(self.cost, dtype=np.float64)
        lp.col_lower_ = np.array(self.lower, dtype=np.float64)
        lp.col_upper_ = np.array(self.upper, dtype=np.float64)
        lp.row_lower_ = np.array(self.row_lower, dtype=np.float64)
        lp.row_upper_ = np.array(self.row_upper, dtype=np.float64)
        lp.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_ = np.array(self.starts, dtype=np.int32)
        lp.a_matrix_.index_ = np.array(self.columns, dtype=np.int32)
        lp.a_matrix_.value_ = np.array(self.values, dtype=np.float64)
        if is_mip:
            lp.integrality_ = _kinds(self.is_integer)
        return lp


class Table:
    """A programme built from blocks of arrays, in any order; entries at the same position are added up."""

    def __init__(self) -> None:
        self._columns: list[tuple[Floats, Floats, Floats, NDArray[np.bool_]]] = []
        self._rows: list[tuple[Floats, Floats]] = []
        self._entries: list[tuple[Ints, Ints, Floats]] = []
        self._width = self._height = 0

    def columns(
        self, cost: Floats, *, lower: Floats | float = 0.0, upper: Floats | float = np.inf, integer: bool = False
    ) -> Ints:
        """Add a block of variables; gives their positions."""
        count = len(cost)
        kinds = np.full(count, integer)
        self._columns.append((cost, np.broadcast_to(lower, count), np.broadcast_to(upper, count), kinds))
        self._width += count
        return np.arange(self._width - count, self._width)

    def rows(self, count: int, *, lower: Floats | float = -np.inf, upper: Floats | float = np.inf) -> Ints:
        """Add a block of rows without entries; gives their positions."""
        self._rows.append((np.broadcast_to(lower, count), np.broadcast_to(upper, count)))
        self._height += count
        return np.arange(self._height - count, self._height)

    def entries(self, rows: Ints, columns: Ints, values: Floats | float) -> None:
        """Add entries [n] at these rows [n] and columns [n]."""
        self._entries.append((rows, columns, np.broadcast_to(values, len(columns))))

    @property
    def height(self) -> int:
        """How many rows it has."""
        return self._height

    @property
    def has_integers(self) -> bool:
        """Whether any variable must be whole."""
        return any(kinds.any() for _, _, _, kinds in self._columns)

    @property
    def is_empty(self) -> bool:
        """Whether it has no variables."""
        return not self._width

    def holds_at_nothing(self) -> bool:
        """Whether the rows allow sums of zero."""
        return all(bool(((low <= 0.0) & (high >= 0.0)).all()) for low, high in self._rows)

    def lp(self, *, is_mip: bool) -> highspy.HighsLp:
        """For the solver."""
        lp = highspy.HighsLp()
        lp.num_col_, lp.num_row_ = self._width, self._height
        cost, lower, upper, kinds = (np.concatenate(part) for part in zip(*self._columns, strict=True))
        lp.col_cost_, lp.col_lower_, lp.col_upper_ = cost, lower, upper
        none: Ints = np.zeros(0, np.int64)
        low, high = zip(*self._rows, strict=True) if self._rows else ((none,), (none,))
        lp.row_lower_, lp.row_upper_ = np.concatenate(low).astype(float), np.concatenate(high).astype(float)
        row, column, value = zip(*self._entries, strict=True) if self._entries else ((none,), (none,), (none,))
        rows, columns = np.concatenate(row), np.concatenate(column)
        place, which = np.unique(columns * max(1, self._height) + rows, return_inverse=True)
        lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        counts = np.bincount(place // max(1, self._height), minlength=self._width)
        lp.a_matrix_.start_ = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        lp.a_matrix_.index_ = (place % max(1, self._height)).astype(np.int32)
        lp.a_matrix_.value_ = np.bincount(which, weights=np.concatenate(value), minlength=len(place)).astype(float)
        if is_mip:
            lp.integrality_ = _kinds(kinds.tolist())
        return lp


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
    programme: Programme | Table,
    *,
    gap: float = 0.0,
    left: float = 0.0,
    node_limit: int = 1,
    relaxed: bool = False,
    plain: bool = False,
    asks_twice: bool = False,
    time_limit_s: float | None = None,
) -> Found | None:
    """The best answer found within `gap` (relative) or `left` (absolute), and `node_limit`; None when there is none.

    Args: relaxed: let integer columns take any value. plain: without the searches, restarts and symmetries that find
        good answers of hard programmes and cost most of the time of easy ones. time_limit_s: for baselines alone:
        answers under it are not the same on every machine. asks_twice: what is called infeasible is solved again
        without presolve, which has called so what has an answer.
    There is no starting point to give: HiGHS 1.16 has returned a wrong objective from a partial one (seed 382 of the
    random worlds in the tests).
    """
    if programme.is_empty:  # HiGHS calls a programme without variables neither feasible nor infeasible
        rows, none = np.zeros(programme.height), np.zeros(0)
        nothing = Found(values=none, objective=0.0, bound=0.0, duals=rows, reduced=none)
        return nothing if programme.holds_at_nothing() else None
    solver = quiet()
    solver.setOptionValue("mip_rel_gap", gap)
    solver.setOptionValue("mip_abs_gap", max(left, ALIKE))
    solver.setOptionValue("mip_max_nodes", node_limit)
    if plain:
        for search in ("rins", "rens", "root_reduced_cost", "feasibility_jump"):
            solver.setOptionValue(f"mip_heuristic_run_{search}", False)
        solver.setOptionValue("mip_allow_restart", False)
        solver.setOptionValue("mip_detect_symmetry", False)
        solver.setOptionValue("mip_root_presolve_only", True)
    if time_limit_s is not None:
        solver.setOptionValue("time_limit", time_limit_s)
    is_mip = programme.has_integers and not relaxed
    solver.passModel(programme.lp(is_mip=is_mip))
    solver.run()
    if asks_twice and solver.getModelStatus() == highspy.HighsModelStatus.kInfeasible:
        solver.setOptionValue("presolve", "off")
        solver.run()
    return _found(solver, programme.height, is_mip=is_mip)


class Relaxation:
    """A linear programme to which rows are added; each solve starts from the basis before (warm start)."""

    def __init__(self, programme: Programme) -> None:
        self.rows = programme.height
        self._solver = quiet()
        self._solver.passModel(programme.lp(is_mip=False))

    def add(self, starts: Ints, columns: Ints, values: Floats) -> None:
        """Add rows `sum(value * x[column]) <= 0`; row i has the terms from starts[i] to starts[i + 1]."""
        count = len(starts) - 1
        lower, upper = np.full(count, -highspy.kHighsInf), np.zeros(count)
        begin, which = starts[:-1].astype(np.int32), columns.astype(np.int32)
        self._solver.addRows(count, lower, upper, len(columns), begin, which, values)
        self.rows += count

    def solve(self) -> Found | None:
        """The optimal solution, or None when there is none."""
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
    """A silent solver that gives the same solution on every machine."""
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    solver.setOptionValue("parallel", "off")
    solver.setOptionValue("random_seed", SEED)
    return solver


def _kinds(is_integer: list[bool]) -> list[highspy.HighsVarType]:
    kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
    return [kinds[integer] for integer in is_integer]
