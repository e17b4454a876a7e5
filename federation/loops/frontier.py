"""What near costs, worked out when somebody asks: point by point in a process of its own, one curve at a time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from federation.adapters.solver import Solver, SolverError
from federation.aiokit.clock import Clock
from federation.aiokit.tasks import Tasks
from federation.control.placement_cycle import Solve
from federation.loops.hub import Hub
from placement.explain.frontier import POINTS, Point, Standing, says

KEPT_S = 30.0
"""The machine's seconds for which a finished curve is told to who asks again, whatever was planned meanwhile."""
WAIT_S = 1.0
"""Who asks for a curve that is not finished waits so long for it to be."""


@dataclass(slots=True, kw_only=True)
class Curve:
    """A curve in the making: `points` so far, the cheapest first. `wanted` are as many as it may have.

    `generation` and `epoch` are of the plan that it was asked of.
    """

    model: str
    solve: Solve
    epoch: int
    generation: int
    wanted: int = POINTS
    points: tuple[Point, ...] = ()
    standing: Standing = field(default_factory=lambda: Standing(planned=None, on_curve=None, in_parts=True))
    seconds: float = 0.0
    """What the points have taken so far."""
    ended_s: float | None = None
    failed: str = ""

    @property
    def says(self) -> str:
        """Where policies stand, once the curve is there."""
        return "" if self.ended_s is None else says(self.points, self.standing)


class Frontiers:
    """The curves that were asked for lately, by model; the fleet's by an empty name."""

    def __init__(self, hub: Hub, solver: Solver, tasks: Tasks) -> None:
        self._hub = hub
        self._solver = solver
        self._tasks = tasks
        self._curves: dict[str, tuple[Curve, asyncio.Task[None]]] = {}
        self._turn = asyncio.Lock()
        self._machine = Clock()

    async def ask(self, solve: Solve, model: str) -> Curve:
        """The curve as far as it is: begun when nobody asked for long, waited for a moment when it is not finished."""
        known = self._curves.get(model)
        if known is None or self._is_old(known[0], solve):
            plan = self._hub.plan
            curve = Curve(model=model, solve=solve, epoch=plan.epoch, generation=plan.generation)
            known = curve, self._tasks.start(f"frontier-{model or 'fleet'}", self._make(curve))
            self._curves[model] = known
        await asyncio.wait({known[1]}, timeout=WAIT_S)
        if known[0].failed:
            self._curves.pop(model, None)  # who asks again tries again
        return known[0]

    def _is_old(self, curve: Curve, solve: Solve) -> bool:
        is_over = curve.ended_s is not None and self._machine.monotonic_s() - curve.ended_s > KEPT_S
        return is_over and curve.solve is not solve

    async def _make(self, curve: Curve) -> None:
        try:
            async with self._turn:
                began_s = self._machine.monotonic_s()
                answer = curve.solve.proposal.solution
                async for standing, points in self._solver.frontier(
                    curve.solve.formulated.problem, answer, curve.model or None
                ):
                    curve.standing, curve.points = standing, points
                    curve.seconds = self._machine.monotonic_s() - began_s
        except SolverError as error:
            curve.failed = str(error)
        except Exception as error:  # a fault of ours: who asks is told, and the stack is in the log
            curve.failed = f"working it out failed with {type(error).__name__}: {error}"
            raise
        finally:
            curve.ended_s = self._machine.monotonic_s()
