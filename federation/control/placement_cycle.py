"""What a placement cycle decides: whether to plan now, what the engine's proposal leads to, and what is told of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import placement as engine
from federation.control import decide, nearness, replacement
from federation.control.plan import History, Placement, Plan, Replicas
from federation.control.problem import Formulated
from federation.control.replacement import GivenUp
from federation.policy.documents import Disruption
from federation.state.keys import ModelCluster, PlacementKey
from federation.state.reduce import Note
from federation.state.world import World

KEPT = "kept: leaving is not worth the move"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """The engine's checked solution, the routing that keeping the present placement would give, and why each count is
    there. `late` is the part of each model's requests that the solution serves late."""

    solution: engine.Solution
    kept: engine.Routing
    reasons: Mapping[tuple[str, str], str]
    late: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPlacement:
    """A placement to go to, and what hysteresis is to remember once it is in force."""

    placement: Placement
    history: History


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a cycle came to. `new` is None where the placement in force stays; `summary` says what was decided, or why
    nothing; `postponed` is where a change that has to wait out the dwell would have more replicas; `nearest_ms` is how
    near users could be served."""

    new: NewPlacement | None
    summary: str
    question: decide.Question
    decision: decide.Decision
    postponed: frozenset[PlacementKey]
    nearest_ms: nearness.Nearest

    def kept_because(self, model: str) -> str:
        """Why the model's placement is kept where the proposal has another; nothing where it has the same."""
        refused = [one.reason for one in self.decision.verdicts if one.model == model and not one.accepted]
        return refused[0] if refused else ""

    def accepted_moves(self) -> dict[str, int]:
        """Code of the reason for which models change -> moves."""
        moves: dict[str, int] = {}
        for verdict in self.decision.verdicts:
            if verdict.accepted:
                moves[verdict.code] = moves.get(verdict.code, 0) + verdict.moves
        return moves


@dataclass(frozen=True, slots=True, kw_only=True)
class Solve:
    """One solve: the problem, the engine's proposal, and what it came to."""

    formulated: Formulated
    proposal: Proposal
    outcome: Outcome


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


def within_budgets(formulated: Formulated, budgets: Mapping[str, int]) -> Formulated:
    """The same problem, with at most so many starts of each of these models."""
    models = tuple(
        replace(model, max_starts=budgets.get(model.name, model.max_starts)) for model in formulated.problem.models
    )
    return replace(formulated, problem=replace(formulated.problem, models=models))


def conclude(
    world: World,
    formulated: Formulated,
    proposal: Proposal,
    plan: Plan,
    wall_s: float,
    aside: Collection[str] = (),
) -> Outcome:
    """Weigh the engine's proposal against the placement in force.

    Args: wall_s: Unix seconds. aside: models that were not asked about; they keep their placement.
    """
    question = decide.Question(
        problem=formulated.problem,
        present=formulated.present,
        solution=proposal.solution,
        kept=proposal.kept,
        disruption={
            model.name: policy.spec.disruption if (policy := world.documents.policy_of(model.name)) else Disruption()
            for model in formulated.problem.models
        },
        history=plan.history,
        now_s=wall_s,
    )
    decision = decide.decide(question)
    stays = Outcome(
        new=None,
        summary=describe(decision, formulated),
        question=question,
        decision=decision,
        postponed=frozenset(PlacementKey(model, *formulated.keys[pool]) for model, pool in decision.postponed),
        nearest_ms=nearness.nearest(formulated.problem),
    )
    target = _target(formulated, proposal, plan, decision, aside)
    if {one.key: one.replicas for one in target} == plan.target_by_key():
        return stays
    planned = decide.appraise(question, decision)
    near, near_by_model = nearness.of_flows(formulated.problem, planned.flows, stays.nearest_ms)
    placement = Placement(
        replicas=target,
        summary=stays.summary,
        moves=sum(verdict.moves for verdict in decision.verdicts if verdict.accepted),
        cost=planned.cost,
        near=near,
        near_by_model=near_by_model,
        bound_usd_per_hour=planned.bound_usd_per_hour,
        gap=planned.gap,
        bound_is_loose=planned.is_loose,
        unserved=planned.unserved,
        shortfalls=planned.shortfalls,
        reached=planned.reached,
    )
    return replace(stays, new=NewPlacement(placement=placement, history=decision.history))


def _target(
    formulated: Formulated, proposal: Proposal, plan: Plan, decision: decide.Decision, aside: Collection[str]
) -> tuple[Replicas, ...]:
    """What was decided, with why each count is there; the models `aside` first, as they are."""
    reasons = {one.key: one.reason for one in plan.placement.replicas}
    target = [one for one in plan.placement.replicas if one.model in aside]
    for (model, pool), count in sorted(decision.target.items()):
        key = PlacementKey(model, *formulated.keys[pool])
        reason = proposal.reasons.get((model, pool)) or reasons.get(key, KEPT)
        target.append(Replicas(model=model, cluster=key.cluster, pool=key.pool, replicas=count, reason=reason))
    return tuple(target)


def describe(decision: decide.Decision, formulated: Formulated) -> str:
    """One sentence: which models change and why, or which would and may not."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class GivingUp:
    """Which silent replicas are waited for no longer. `next_s` is when more of them will be worth replacing."""

    given_up: GivenUp
    notes: tuple[Note, ...] = ()
    next_s: float = float("inf")


def give_up(world: World, losses: Sequence[replacement.Loss], given_up: GivenUp, now_s: float) -> GivingUp:
    """Replace what is silent as soon as its absence costs users more than its return would save."""
    following, notes, next_s = dict(given_up), [], float("inf")
    for loss in losses:
        for cluster, due_s in sorted(loss.due_s.items()):
            if due_s > now_s:
                next_s = min(next_s, due_s)
                continue
            since_s = world.clusters[cluster].since_s
            following[ModelCluster(loss.model, cluster)] = since_s
            text = loss.says(cluster, now_s, since_s)
            notes.append(Note(type="Warning", reason="Replaced", object=f"model/{loss.model}", message=text))
    return GivingUp(given_up=following, notes=tuple(notes), next_s=next_s)


def set_aside_notes(before: Collection[str], after: Mapping[str, str]) -> tuple[Note, ...]:
    """What to tell of models that planning fails on.

    Args: before: those of the last cycle. after: those of this one -> how it fails.
    """
    notes = []
    for name in sorted(after.keys() - set(before)):
        text = f"{name} stays where it is: {after[name]}; the other models are planned without it"
        notes.append(Note(type="Warning", reason="ModelSetAside", object=f"model/{name}", message=text))
    for name in sorted(set(before) - after.keys()):
        notes.append(Note(reason="ModelPlannedAgain", object=f"model/{name}", message=f"{name} is planned again"))
    return tuple(notes)
