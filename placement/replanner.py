"""World after world: a large plan is mended where the world differs in numbers alone, and else made anew."""

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
"""So much further from its bound than the last plan that was made anew a mended one may be."""


class Replanner:
    """Plans, each from the one before it where that is large.

    A mended plan leaves alone what need not change. What it gives depends on what it was asked before; `engine.solve`
    is the same for plans that do not.
    """

    def __init__(self) -> None:
        self._mending: Reoptimiser | None = None
        self._gap = 0.0
        self._cuts: dict[str, tuple[Cut, ...]] = {}
        self.mended = False
        """Whether the newest plan was."""

    def solve(self, problem: Problem) -> Solution:
        """The placement, as `engine.solve` says. Raises: RuntimeError as there."""
        self.mended = False
        if not engine.is_large(problem):
            self._mending = None
            return engine.solve(problem)
        index = Index(problem)
        index.cuts = self._cuts
        solution = self._mend(index) or self._anew(index)
        self._cuts = spares.tight_cuts(index, counts_of(solution))
        return solution

    def forget(self) -> None:
        """The next plan is made anew."""
        self._mending = None

    def _mend(self, index: Index) -> Solution | None:
        """None where the world differs in more than numbers, or the plan is not good enough."""
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

    def _anew(self, index: Index) -> Solution:
        from placement.large import plan, reoptimise  # numba takes a second to load, which small worlds need not pay

        self._mending = None
        planned = plan.plan(index)
        made = engine.solution_of(index, planned.answer(index))
        self._gap = made.gap
        if not _goes_short(made):
            self._mending = reoptimise.Reoptimiser(index, planned)
        return made


def _goes_short(solution: Solution) -> bool:
    """In a shortage who goes short is weighed anew each time."""
    return bool(solution.unserved or solution.shortfalls)
