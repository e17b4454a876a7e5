"""The guard of the blast radius asks the engine for the effect of documents before they are in force.

When the engine cannot be asked, or does not answer in time, the part that needs no engine still counts: nobody is
locked out, and no model loses all replicas unnoticed.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Protocol

import placement as engine
from federation.adapters.solver import SolverError
from federation.control import blast
from federation.control.placement_cycle import Proposal
from federation.control.problem import Formulated
from federation.loops.hub import Hub
from federation.policy.documents import Documents
from federation.state.reduce import CordonsSet, DocumentsAccepted, reduce
from federation.state.world import Cordon, World

ANSWER_WITHIN_S = 45.0
"""Machine seconds: less than a client of the API waits."""


class Engine(Protocol):
    """The solver that is asked."""

    async def solve(self, problem: engine.Problem, present: tuple[engine.Placed, ...]) -> Proposal: ...


class Guard:
    """Predicts the effect of documents."""

    def __init__(self, hub: Hub, solver: Engine | None, limits: blast.BlastLimits) -> None:
        self._hub = hub
        self._solver = solver
        self.limits = limits

    async def foresee(self, following: Documents) -> blast.Effect:
        """The effect of these documents."""
        hub = self._hub
        now_s = hub.clock.monotonic_s()
        before = hub.world
        after = reduce(before, DocumentsAccepted(documents=following, now_s=now_s)).world
        if blast.say_the_same(before.documents, following):
            return blast.NOTHING
        return await self._foresee(after, now_s)

    async def refuses_drain(self, cluster: str) -> tuple[str, ...]:
        """Why a person has to confirm a drain: users that no other cluster can serve. Moving that many replicas is its
        purpose."""
        hub = self._hub
        cordons = {**hub.world.cordons, cluster: Cordon(reason="", drain=True)}
        after = reduce(hub.world, CordonsSet(cordons=cordons)).world
        effect = await self._foresee(after, hub.clock.monotonic_s())
        return effect.refusals(replace(self.limits, replicas_fraction=float("inf")))

    async def _foresee(self, after: World, now_s: float) -> blast.Effect:
        hub = self._hub
        before, plan = hub.world, hub.plan
        if not any(plan.desired_by_key().values()):
            return blast.NOTHING
        formulated = await hub.formulate(after, now_s)
        now = await asyncio.to_thread(blast.now, plan, hub.routes, hub.demand_rps(), hub.last_solve)
        effect = await asyncio.to_thread(blast.at_once, before.documents, after.documents, formulated, now)
        if effect.refusals(self.limits):
            return effect
        if self._solver is None or not before.is_settled(now_s):
            return replace(effect, why_not="the clusters are not heard yet")
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                answer = await self._solver.solve(formulated.problem, formulated.present)
        except (SolverError, TimeoutError) as error:
            return replace(effect, why_not=str(error) or f"no answer within {ANSWER_WITHIN_S:.0f} s")
        return await asyncio.to_thread(blast.with_answer, effect, formulated, answer.solution, now)

    async def foreseen(self, following: Documents, formulated: Formulated, solution: engine.Solution) -> blast.Effect:
        """The effect, by the engine's existing answer to the problem with these documents."""
        hub = self._hub
        before, plan = hub.world.documents, hub.plan
        now = await asyncio.to_thread(blast.now, plan, hub.routes, hub.demand_rps(), hub.last_solve)
        effect = await asyncio.to_thread(blast.at_once, before, following, formulated, now)
        return await asyncio.to_thread(blast.with_answer, effect, formulated, solution, now)
