"""The guard of the blast radius: asks the engine what documents would do before they are in force.

When the engine cannot be asked, or gives no answer in time, what can be foreseen without it still counts: nobody is
locked out, and no model goes to nothing unseen.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import msgspec

import placement as engine
from federation.adapters.solver import Answer, SolverError
from federation.control import blast, staged
from federation.control.plan import Forced, Plan, Routes
from federation.control.problem import Formulated
from federation.loops.hub import Hub, Thought
from federation.policy.documents import FORCE_ANNOTATION, Documents
from federation.policy.load import ParsedFile
from federation.state.reduce import CordonsSet, DocumentsAccepted, reduce
from federation.state.world import Cordon, World

ANSWER_WITHIN_S = 45.0
"""Of the machine: less than a caller of the API waits."""
DIGEST_CHARACTERS = 12


class Engine(Protocol):
    """Who is asked."""

    async def solve(self, problem: engine.Problem, present: tuple[engine.Placed, ...]) -> Answer: ...


class Guard:
    """Foresees what documents would do."""

    def __init__(self, hub: Hub, solver: Engine | None, limits: blast.Limits) -> None:
        self._hub = hub
        self._solver = solver
        self.limits = limits

    async def foresee(self, following: Documents) -> blast.Effect:
        """What would happen with these documents in force."""
        hub = self._hub
        now_s = hub.clock.monotonic_s()
        before = hub.world
        after = reduce(before, DocumentsAccepted(documents=following, now_s=now_s)).world
        if _says_the_same(before.documents, following):
            return blast.NOTHING
        return await self._foresee(after, now_s)

    async def refuses_drain(self, cluster: str) -> tuple[str, ...]:
        """Why a person has to say that a drain is meant: users whom no other can serve. That much moves is its aim."""
        hub = self._hub
        cordons = {**hub.world.cordons, cluster: Cordon(reason="", drain=True)}
        after = reduce(hub.world, CordonsSet(cordons=cordons)).world
        effect = await self._foresee(after, hub.clock.monotonic_s())
        return effect.refusals(replace(self.limits, replicas_fraction=float("inf")))

    async def _foresee(self, after: World, now_s: float) -> blast.Effect:
        hub = self._hub
        before, plan, thought = hub.world, hub.plan, hub.thought
        if not any(plan.desired_by_key().values()):
            return blast.NOTHING
        formulated = await hub.formulate(after, now_s)
        now = await asyncio.to_thread(_now, plan, hub.routes, hub.demand_rps(), thought)
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
        """The same, by what the engine has answered already to the question with these documents."""
        hub = self._hub
        before, plan, thought = hub.world.documents, hub.plan, hub.thought
        now = await asyncio.to_thread(_now, plan, hub.routes, hub.demand_rps(), thought)
        effect = await asyncio.to_thread(blast.at_once, before, following, formulated, now)
        return await asyncio.to_thread(blast.with_answer, effect, formulated, solution, now)


def _now(plan: Plan, routes: Routes, demand_rps: Mapping[tuple[str, str], float], thought: Thought | None) -> blast.Now:
    """What is so today. What the newest plan leaves unserved, though routing has not got there yet, is so today too."""
    asked, unserved = blast.asked_rps(demand_rps), blast.unserved_rps(routes, demand_rps)
    if thought is None:
        return blast.Now(plan=plan, asked_rps=asked, unserved_rps=unserved)
    planned: dict[str, float] = {}
    for one in thought.answer.solution.unserved:
        planned[one.model] = planned.get(one.model, 0.0) + one.requests_per_second
    return blast.Now(
        plan=plan,
        asked_rps=asked,
        unserved_rps={model: max(rps, planned.get(model, 0.0)) for model, rps in unserved.items()},
        alternative=thought.formulated.ours(thought.answer.solution.replicas),
    )


def order(effect: blast.Effect, before: World, *, subject: str, actor: str, reason: str, at_s: float) -> Forced:
    """A forced change, with what the person who ordered it was told of."""
    withdrawn = tuple(one for one in before.documents.models if one.metadata.name in effect.emptied)
    return Forced(
        object=subject,
        actor=actor,
        reason=reason,
        at_s=at_s,
        models=effect.models,
        withdrawn=withdrawn,
        policies=staged.last_policies(before.documents, withdrawn),
        replicas=effect.replicas,
        unserved_rps={one.model: max(one.now_rps, one.then_rps) for one in effect.shortages},
        error_share=staged.error_share(before),
    )


def digest(file: ParsedFile) -> str:
    """What identifies the content of a file, whatever allows it."""
    plain = [msgspec.to_builtins(one.document) for one in file.documents]
    for one in plain:
        one["metadata"].get("annotations", {}).pop(FORCE_ANNOTATION, None)
    return f"sha256:{hashlib.sha256(msgspec.json.encode(plain, order='deterministic')).hexdigest()}"


def shown(digest: str) -> str:
    """As much of a digest as an annotation has to name."""
    return digest[: len("sha256:") + DIGEST_CHARACTERS]


def allowed_by(file: ParsedFile) -> str:
    """The reason that an annotation in the file gives for what its content does, or nothing."""
    wanted = digest(file)
    for one in file.documents:
        named, _, reason = one.document.metadata.annotations.get(FORCE_ANNOTATION, "").partition(" ")
        if len(named) >= len(shown(wanted)) and wanted.startswith(named) and reason.strip():
            return reason.strip()[:500]
    return ""


def how_to_force(file: ParsedFile | None) -> str:
    """What to do when it is meant."""
    by_hand = 'if it is meant, hand it in with --force --reason "…"'
    if file is None:
        return by_hand
    return f'{by_hand}, or add to metadata.annotations: {FORCE_ANNOTATION}: "{shown(digest(file))} REASON"'


def _says_the_same(before: Documents, after: Documents) -> bool:
    """Whether they differ in nothing that is acted on: what else metadata has does nothing."""
    return _spoken(before) == _spoken(after)


def _spoken(documents: Documents) -> list[tuple[str, object]]:
    models = [(one.metadata.name, one.spec) for one in documents.models]
    policies = [(one.metadata.name, one.spec) for one in documents.policies]
    return [*models, *policies, *((one.metadata.name, one.spec) for one in documents.clusters)]
