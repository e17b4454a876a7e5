"""The slow loop: where should replicas be? On a period, and sooner when the world has changed enough.

One cycle freezes what is believed, formulates, solves, concludes, and hands the placement to the steering step, which
commits it with the routing that goes with it. What decides is in `control/placement_cycle.py`. What takes seconds in a
large fleet runs beside the event loop, in a thread or in the solver's process: beliefs are frozen, so nothing is shared
that may change meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace

import structlog

from federation.adapters.solver import Solver, SolverError
from federation.adapters.store import StoreError, Superseded
from federation.control import decide, placement_cycle, replacement
from federation.control.placement_cycle import Outcome, Proposal, Solve
from federation.control.problem import Formulated
from federation.loops.hub import Hub
from federation.loops.steer import Steer
from federation.state.reduce import Note
from federation.state.world import World

log = structlog.get_logger("plan")


class Planner:
    """The slow loop of one controller."""

    def __init__(self, hub: Hub, solver: Solver, steer: Steer) -> None:
        self._hub = hub
        self._solver = solver
        self._steer = steer

    async def run(self, period_s: float, spacing_s: float) -> None:
        """Plan for ever: at every whole `period_s` of the clock and at marks, no closer together than `spacing_s`."""
        hub = self._hub
        while True:
            left_s = period_s - hub.clock.monotonic_s() % period_s
            why = await hub.replan.wait(left_s) or "the planning period"
            with hub.clock.working():
                hub.message = await self.once(why)
            hub.wake()
            log.info(hub.message, trigger=why)
            await hub.clock.sleep(spacing_s)

    async def once(self, why: str) -> str:
        """One cycle; gives one sentence about what it did, or why nothing."""
        hub, started_s = self._hub, time.perf_counter()
        # 1. Freeze what is believed, and see whether this controller may decide now.
        now_s, world = hub.clock.monotonic_s(), hub.world
        if refusal := placement_cycle.why_not_now(world, now_s) or await self._why_not_leading():
            return refusal
        # 2. Start from what runs and from what hysteresis remembers.
        hub.adopt()
        self._forget_future()
        # 3. Formulate, solve, conclude.
        try:
            solve = await self._solve_isolating(world, now_s)
        except SolverError as error:
            hub.metrics.solver_failures_total.inc()
            return f"nothing changes: {error}"
        except Exception as error:  # the loop lives on: what runs stays, and the next cycle tries again
            log.exception("planning failed")
            hub.metrics.solver_failures_total.inc()
            return f"nothing changes: planning failed with {describe_error(error)}"
        if hub.world.braked:
            return f"nothing moves: {hub.world.braked}"
        # 4. Remember the solve, for the explanations and for the next steps.
        outcome = solve.outcome
        hub.planned_s, hub.postponed = now_s, outcome.postponed
        hub.last_solve = solve
        hub.metrics.plan_duration_seconds.labels(loop="plan").observe(time.perf_counter() - started_s)
        # 5. Hand a new placement to the step that commits it.
        if outcome.new is not None:
            for code, moves in outcome.accepted_moves().items():
                hub.metrics.moves_total.labels(reason=code).inc(moves)
            await self._steer.once(why, outcome.new)
        hub.carried_s = now_s
        return outcome.summary

    async def _why_not_leading(self) -> str:
        """Why another controller decides, or nothing; takes over where that is due."""
        hub = self._hub
        if not hub.may_take_over:
            return hub.outvoted()
        if not hub.is_ordered_to_lead and (why_not := hub.rivalled() or hub.listens()):
            return why_not
        try:
            await self._steer.take_over()
        except Superseded as error:
            hub.supersede(str(error))
            return hub.superseded
        except StoreError as error:
            return f"nothing changes: {error}"
        hub.may_take_over = hub.is_ordered_to_lead = False
        return ""

    def _forget_future(self) -> None:
        hub = self._hub
        history = decide.without_future(hub.plan.history, hub.clock.wall_s())
        if history is not hub.plan.history:
            text = "changes of placement are marked later than this machine's clock: it went back, or was wrong before"
            hub.tell(Note(type="Warning", reason="ClockWentBack", object="controller", message=text))
            hub.plan = replace(hub.plan, history=history)

    async def _solve(self, world: World, now_s: float, aside: Mapping[str, str]) -> Solve:
        """The engine's proposal for this world, and what it comes to.

        Args: aside: models that are not asked about. Raises: SolverError; anything, by a fault of ours.
        """
        hub = self._hub
        hub.given_up = replacement.still(world, hub.given_up)
        formulated = await hub.formulate(world, now_s, aside)
        proposal = await self._solver.solve(formulated.problem, formulated.present)
        if await self._gives_up(world, formulated, proposal, now_s):
            formulated = await hub.formulate(world, now_s, aside)
            proposal = await self._solver.solve(formulated.problem, formulated.present)
        outcome = await self._conclude(world, formulated, proposal, aside)
        if outcome.decision.budgets:
            formulated = placement_cycle.within_budgets(formulated, outcome.decision.budgets)
            proposal = await self._solver.solve(formulated.problem, formulated.present)
            outcome = await self._conclude(world, formulated, proposal, aside)
        return Solve(formulated=formulated, proposal=proposal, outcome=outcome)

    async def _conclude(
        self, world: World, formulated: Formulated, proposal: Proposal, aside: Mapping[str, str]
    ) -> Outcome:
        wall_s, plan = self._hub.clock.wall_s(), self._hub.plan
        return await asyncio.to_thread(
            placement_cycle.conclude, world, formulated, proposal, plan, wall_s, aside.keys()
        )

    async def _gives_up(self, world: World, formulated: Formulated, proposal: Proposal, now_s: float) -> bool:
        """Whether the return of something silent is waited for no longer, as that costs its users more."""
        hub = self._hub
        hub.replace_at_s = float("inf")
        if not replacement.silent(world, formulated):
            return False
        present = {(one.model, one.pool): one.replicas for one in formulated.present}
        without = await self._solver.route(formulated.problem, present)
        losses = await asyncio.to_thread(replacement.losses, world, formulated, proposal.kept, without, now_s)
        found = placement_cycle.give_up(world, losses, hub.given_up, now_s)
        for note in found.notes:
            hub.tell(note)
        hub.replace_at_s = found.next_s
        is_new = found.given_up != hub.given_up
        hub.given_up = found.given_up
        return is_new

    async def _solve_isolating(self, world: World, now_s: float) -> Solve:
        """The same; where it fails by a fault of ours, without the models that it fails on: those stay as they are."""
        aside: dict[str, str] = {}
        try:
            solve = await self._solve(world, now_s, aside)
        except SolverError:
            raise
        except Exception as error:
            log.exception("planning all models together failed")
            aside = await self._failing(world, now_s, [one.metadata.name for one in world.documents.models])
            if not aside:
                raise
            solve = await self._solve(world, now_s, aside)
            log.warning("planned without some models", models=sorted(aside), cause=describe_error(error))
        for note in placement_cycle.set_aside_notes(self._hub.aside, aside):
            self._hub.tell(note)
        self._hub.aside = aside
        return solve

    async def _failing(self, world: World, now_s: float, names: list[str]) -> dict[str, str]:
        """Of these models, those that planning fails on by themselves, by halving; and how it fails."""
        if not names:
            return {}
        others = {one.metadata.name: "" for one in world.documents.models if one.metadata.name not in names}
        try:
            await self._solve(world, now_s, others)
        except SolverError:
            return {}
        except Exception as error:
            if len(names) == 1:
                return {names[0]: f"planning fails on it with {describe_error(error)}"}
            half = len(names) // 2
            first = await self._failing(world, now_s, names[:half])
            return first | await self._failing(world, now_s, names[half:])
        return {}


def describe_error(error: Exception) -> str:
    """`ZeroDivisionError: division by zero`, in one short line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
