"""The slow loop: where should replicas be? On a period, and sooner when the world has changed enough.

One cycle: freeze what we believe, formulate, solve, check, decide. The decision is handed to the steering step, which
commits it with the routing that goes with it. What takes seconds in a large fleet runs beside the event loop, in a
thread or in the solver's process: beliefs are frozen, so nothing is shared that may change meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import structlog

from federation.adapters.solver import Answer, Solver, SolverError
from federation.adapters.store import StoreError, Superseded
from federation.control import decide, nearness, replacement
from federation.control.plan import Costs, MissedFloor, Plan, ReachedLimit, Replicas
from federation.control.problem import Formulated
from federation.loops.hub import Hub, Thought
from federation.loops.steer import NewTarget, Steer
from federation.policy.documents import Disruption
from federation.state.reduce import Note
from federation.state.world import PlacementKey, World

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
        now_s = hub.clock.monotonic_s()
        world = hub.world
        refusal = why_not_now(world, now_s)
        if refusal:
            return refusal
        if hub.may_take_over:
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
        elif outvoted := hub.outvoted():
            return outvoted
        hub.adopt()
        history = decide.without_future(hub.plan.history, hub.clock.wall_s())
        if history is not hub.plan.history:
            text = "changes of placement are marked later than this machine's clock: it went back, or was wrong before"
            hub.tell(Note(type="Warning", reason="ClockWentBack", object="controller", message=text))
            hub.plan = replace(hub.plan, history=history)
        try:
            formulated, answer, outcome = await self._ask_isolating(world, now_s)
        except SolverError as error:
            hub.metrics.solver_failures_total.inc()
            return f"nothing changes: {error}"
        except Exception as error:  # the loop lives on: what runs stays, and the next cycle tries again
            log.exception("planning failed")
            hub.metrics.solver_failures_total.inc()
            return f"nothing changes: planning failed with {describe_error(error)}"
        if hub.world.braked:
            return f"nothing moves: {hub.world.braked}"
        hub.planned_s, hub.postponed = now_s, outcome.postponed
        hub.thought = Thought(
            formulated=formulated,
            answer=answer,
            question=outcome.question,
            decision=outcome.decision,
            nearest_ms=outcome.nearest,
            at_s=hub.clock.wall_s(),
        )
        hub.metrics.plan_duration_seconds.labels(loop="plan").observe(time.perf_counter() - started_s)
        if outcome.new is None:
            hub.carried_s = now_s
            return outcome.sentence
        for verdict in outcome.decision.verdicts:
            if verdict.accepted:
                hub.metrics.moves_total.labels(reason=verdict.code).inc(verdict.moves)
        await self._steer.once(why, replace(outcome.new, trigger=why))
        hub.carried_s = now_s
        return outcome.sentence

    async def _ask(self, world: World, now_s: float, aside: Mapping[str, str]) -> tuple[Formulated, Answer, Outcome]:
        """What to ask, the engine's answer, and what comes of it. Raises: SolverError; anything, by a fault of ours."""
        hub = self._hub
        hub.given_up = replacement.still(world, hub.given_up)
        formulated = await hub.formulate(world, now_s, aside)
        answer = await self._solver.solve(formulated.problem, formulated.present)
        if await self._gives_up(world, formulated, answer, now_s):
            formulated = await hub.formulate(world, now_s, aside)
            answer = await self._solver.solve(formulated.problem, formulated.present)
        outcome = await asyncio.to_thread(judge, world, formulated, answer, hub.plan, hub.clock.wall_s(), aside)
        if outcome.decision.budgets:
            formulated = within_budgets(formulated, outcome.decision.budgets)
            answer = await self._solver.solve(formulated.problem, formulated.present)
            outcome = await asyncio.to_thread(judge, world, formulated, answer, hub.plan, hub.clock.wall_s(), aside)
        return formulated, answer, outcome

    async def _gives_up(self, world: World, formulated: Formulated, answer: Answer, now_s: float) -> bool:
        """Whether the return of something silent is no longer waited for, as that costs its users more."""
        hub = self._hub
        hub.replace_at_s = float("inf")
        if not replacement.silent(world, formulated):
            return False
        present = {(one.model, one.pool): one.replicas for one in formulated.present}
        without = await self._solver.route(formulated.problem, present)
        found = await asyncio.to_thread(replacement.losses, world, formulated, answer.kept, without, now_s)
        given_up = dict(hub.given_up)
        for loss in found:
            for cluster, due_s in sorted(loss.due_s.items()):
                since_s = world.clusters[cluster].since_s
                if due_s <= now_s:
                    given_up[loss.model, cluster] = since_s
                    text = loss.says(cluster, now_s, since_s)
                    hub.tell(Note(type="Warning", reason="Replaced", object=f"model/{loss.model}", message=text))
                hub.replace_at_s = min(hub.replace_at_s, due_s if due_s > now_s else float("inf"))
        is_new = given_up != hub.given_up
        hub.given_up = given_up
        return is_new

    async def _ask_isolating(self, world: World, now_s: float) -> tuple[Formulated, Answer, Outcome]:
        """The same; where it fails by a fault of ours, without the models that it fails on: those stay as they are."""
        try:
            found = await self._ask(world, now_s, {})
        except SolverError:
            raise
        except Exception as error:
            log.exception("planning all models together failed")
            aside = await self._failing(world, now_s, [one.metadata.name for one in world.documents.models])
            if not aside:
                raise
            found = await self._ask(world, now_s, aside)
            log.warning("planned without some models", models=sorted(aside), cause=describe_error(error))
        else:
            aside = {}
        self._set_aside(aside)
        return found

    async def _failing(self, world: World, now_s: float, names: list[str]) -> dict[str, str]:
        """Of these models, those that planning fails on by themselves, by halving; and how it fails."""
        if not names:
            return {}
        others = {one.metadata.name: "" for one in world.documents.models if one.metadata.name not in names}
        try:
            await self._ask(world, now_s, others)
        except SolverError:
            return {}
        except Exception as error:
            if len(names) == 1:
                return {names[0]: f"planning fails on it with {describe_error(error)}"}
            half = len(names) // 2
            first = await self._failing(world, now_s, names[:half])
            return first | await self._failing(world, now_s, names[half:])
        return {}

    def _set_aside(self, aside: Mapping[str, str]) -> None:
        hub = self._hub
        for name in sorted(aside.keys() - hub.aside.keys()):
            text = f"{name} stays where it is: {aside[name]}; the other models are planned without it"
            hub.tell(Note(type="Warning", reason="ModelSetAside", object=f"model/{name}", message=text))
        for name in sorted(hub.aside.keys() - aside.keys()):
            hub.tell(Note(reason="ModelPlannedAgain", object=f"model/{name}", message=f"{name} is planned again"))
        hub.aside = aside


def describe_error(error: Exception) -> str:
    """`ZeroDivisionError: division by zero`, in one short line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a cycle came to: a new target or none, the sentence about it, the budgets to ask again with, where a
    change that has to wait would have more, and how near anyone could be served."""

    new: NewTarget | None
    question: decide.Question
    decision: decide.Decision
    sentence: str
    postponed: frozenset[PlacementKey]
    nearest: nearness.Nearest


def within_budgets(formulated: Formulated, budgets: Mapping[str, int]) -> Formulated:
    """The same question, with at most so many starts of each of these models."""
    models = tuple(
        replace(model, max_starts=budgets.get(model.name, model.max_starts)) for model in formulated.problem.models
    )
    return replace(formulated, problem=replace(formulated.problem, models=models))


def why_not_now(world: World, now_s: float) -> str:
    """Why nothing may be decided at this instant, or nothing."""
    if world.deaf:
        return "nothing is decided without a broker"
    if not world.documents.clusters:
        return "no clusters: add Cluster documents to the policy directory"
    if not world.is_settled(now_s):
        unheard = sum(1 for state in world.clusters.values() if state.heard_s is None)
        return f"waiting to hear {unheard} of {len(world.clusters)} clusters before deciding anything"
    if world.braked:
        return f"nothing moves: {world.braked}"
    return ""


def judge(
    world: World,
    formulated: Formulated,
    answer: Answer,
    plan: Plan,
    wall_s: float,
    aside: Mapping[str, str] | None = None,
) -> Outcome:
    """Weigh the engine's answer against the present placement, of the `plan` in force; models `aside` keep theirs."""
    solution = answer.solution
    disruption = {
        model.name: policy.spec.disruption if (policy := world.documents.policy_of(model.name)) else Disruption()
        for model in formulated.problem.models
    }
    question = decide.Question(
        problem=formulated.problem,
        present=formulated.present,
        solution=solution,
        kept=answer.kept,
        disruption=disruption,
        history=plan.history,
        now_s=wall_s,
    )
    decision = decide.decide(question)
    earlier = {one.key: one.reason for one in plan.target}
    target = [one for one in plan.target if one.model in (aside or {})]
    for (model, pool), count in sorted(decision.target.items()):
        key = (model, *formulated.keys[pool])
        reason = answer.reasons.get((model, pool)) or earlier.get(key, "kept: leaving is not worth the move")
        target.append(Replicas(model=model, cluster=key[1], pool=key[2], replicas=count, reason=reason))
    sentence = describe(decision, formulated)
    nearest = nearness.nearest(formulated.problem)
    stays = Outcome(
        new=None,
        question=question,
        decision=decision,
        nearest=nearest,
        sentence=sentence,
        postponed=frozenset((model, *formulated.keys[pool]) for model, pool in decision.postponed),
    )
    if {one.key: one.replicas for one in target} == plan.target_by_key():
        return stays
    planned = decide.appraise(question, decision)
    near, near_by_model = nearness.of_flows(formulated.problem, planned.flows, nearest)
    new = NewTarget(
        target=tuple(target),
        trigger="",
        summary=sentence,
        moves=sum(verdict.moves for verdict in decision.verdicts if verdict.accepted),
        costs=Costs(**asdict(planned.cost)),
        near=near,
        near_by_model=near_by_model,
        bound_usd_per_hour=planned.bound_usd_per_hour,
        gap=planned.gap,
        bound_is_loose=planned.is_loose,
        unserved=tuple(one.reason for one in planned.unserved),
        missed_floors=tuple(
            MissedFloor(model=one.model, rule=one.rule, reason=one.reason) for one in planned.shortfalls
        ),
        reached_limits=tuple(
            ReachedLimit(limit=one.limit, subject=one.subject, reason=one.says) for one in planned.reached
        ),
        history=decision.history,
    )
    return replace(stays, new=new)


def describe(decision: decide.Decision, formulated: Formulated) -> str:
    """One sentence: who changes and why, or who would and may not."""
    accepted = [verdict for verdict in decision.verdicts if verdict.accepted]
    if accepted:
        parts = [f"{verdict.model} ({verdict.reason})" for verdict in accepted[:3]]
        more = f" and {len(accepted) - 3} more" if len(accepted) > 3 else ""
        moves = sum(verdict.moves for verdict in accepted)
        return f"placement changes for {', '.join(parts)}{more}; {moves} move{'' if moves == 1 else 's'}"
    if decision.verdicts:
        first = decision.verdicts[0]
        return f"placement stays: {first.model} {first.reason}"
    if not formulated.problem.models:
        return "no model has a placement policy yet"
    return "placement stays: it is the best for what is known"
