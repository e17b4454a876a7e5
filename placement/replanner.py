"""Problem after problem: a large plan is re-optimised where only numbers differ, and solved from scratch otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from placement import engine
from placement.index import Cut, Index
from placement.problem import Problem
from placement.solution import Solution, counts_of
from placement.survival import spares

if TYPE_CHECKING:
    from placement.large.reoptimise import Reoptimiser

DRIFT = 0.003
"""A re-optimised plan may have a gap larger by this than the last full solve; otherwise it is solved from scratch."""


class Replanner:
    """Solves problems in sequence, each large one from the plan before.

    A re-optimised plan changes only what has to change, so an answer depends on the problems before it; the answers of
    `engine.solve` do not.
    """

    def __init__(self) -> None:
        self._mending: Reoptimiser | None = None
        self._gap = 0.0
        self._cuts: dict[str, tuple[Cut, ...]] = {}
        self.mended = False
        """Whether the newest plan was re-optimised."""

    def solve(self, problem: Problem) -> Solution:
        """The placement, as `engine.solve`. Raises: RuntimeError as there."""
        self.mended = False
        if not engine.is_large(problem):
            self._mending = None
            return engine.solve(problem)
        index = Index(problem)
        index.cuts = self._cuts
        solution = self._mend(index) or self._from_scratch(index)
        self._cuts = spares.tight_cuts(index, counts_of(solution))
        return solution

    def forget(self) -> None:
        """Solve the next problem from scratch."""
        self._mending = None

    def _mend(self, index: Index) -> Solution | None:
        """None where the problem differs in more than numbers, or the plan is not good enough."""
        mending = self._mending
        if mending is None or not mending.update(index):
            return None
        made = engine.solution_of(index, mending.answer)
        if spares.learn_cuts(index, counts_of(made)):
            mending.spare(spares.with_spares(index, counts_of(made)))
            made = engine.solution_of(index, mending.answer)
        if _goes_short(made) or made.gap > self._gap + DRIFT:
            return None
        self.mended = True
        return made

    def _from_scratch(self, index: Index) -> Solution:
        from placement.large import plan, reoptimise  # numba takes a second to load, which small worlds need not pay

        self._mending = None
        planned = plan.plan(index)
        made = engine.solution_of(index, planned.answer(index))
        self._gap = made.gap
        if not _goes_short(made):
            self._mending = reoptimise.Reoptimiser(index, planned)
        return made


def _goes_short(solution: Solution) -> bool:
    """Whether users or floors are short; then each problem is solved from scratch, as priorities decide who is."""
    return bool(solution.unserved or solution.shortfalls)
