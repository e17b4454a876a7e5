"""A harmful change that a person forced is carried out in steps. It halts when users suffer more than was predicted.

The rollout decides which replicas could stop at this step; this module lets only a part of them stop, so that people
have time to undo the change. It applies to the models that an order names, and to every withdrawn model.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import msgspec

from federation.control.blast import Effect
from federation.control.plan import Forced, Plan
from federation.policy.documents import Documents, Model, PlacementPolicy
from federation.state.keys import PlacementKey
from federation.state.phases import Phase
from federation.state.reduce import Note
from federation.state.world import World

ERRORS_FRACTION = 0.05
"""Halts an order when the failing part of a cluster's answers rises by this much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """The speed of forced changes."""

    stops_fraction: float = 0.1
    """Part of the replicas of the affected models that may stop per step; at least one replica."""
    step_s: float = 30.0
    """Between two steps: long enough to see the effect of the last one."""
    unserved_fraction: float = 0.05
    """Halts an order when this part of a model's requests is unserved beyond the prediction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedSituation:
    """The inputs of a step.

    Args: after, stops: the counts that the rollout would tell agents, and the reason for each lowered count. target:
        the planned counts. asked_rps, unserved_rps: by model. last_step_s, now_s: monotonic seconds. thought_s: the
        instant of the beliefs behind the plan in force, on the wall clock, as `Forced.at_s` is.
    """

    world: World
    plan: Plan
    placed: frozenset[str]
    after: Mapping[PlacementKey, int]
    stops: Mapping[PlacementKey, str]
    target: Mapping[PlacementKey, int]
    asked_rps: Mapping[str, float]
    unserved_rps: Mapping[str, float]
    last_step_s: float
    now_s: float
    thought_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedStep:
    """The counts that agents may be told, the reason for each lowered count, the orders after this step, and whether a
    replica was stopped."""

    desired: dict[PlacementKey, int]
    stops: dict[PlacementKey, str]
    forced: tuple[Forced, ...]
    notes: tuple[Note, ...]
    has_stopped: bool


def order(effect: Effect, before: World, *, subject: str, actor: str, reason: str, at_s: float) -> Forced:
    """A change that a person forced, with its predicted harm. Args: subject: the policy file."""
    withdrawn = tuple(one for one in before.documents.models if one.metadata.name in effect.emptied)
    return Forced(
        object=subject,
        actor=actor,
        reason=reason,
        at_s=at_s,
        models=effect.models,
        withdrawn=withdrawn,
        policies=last_policies(before.documents, withdrawn),
        replicas=effect.replicas,
        unserved_rps={one.model: max(one.now_rps, one.then_rps) for one in effect.shortages},
        error_share=error_share(before),
    )


def resume(
    forced: Collection[Forced],
    subject: str,
    world: World,
    unserved_rps: Mapping[str, float],
    *,
    actor: str,
    reason: str,
) -> tuple[Forced, ...]:
    """The orders, with those of `subject` no longer halted: the present harm becomes their allowed harm.

    Args: unserved_rps: by model, at present.
    """
    errors = error_share(world)
    return tuple(
        replace(one, halted="", actor=actor, reason=reason, unserved_rps=unserved_rps, error_share=errors)
        if one.object == subject and one.halted
        else one
        for one in forced
    )


def step(pace: Pace, situation: StagedSituation) -> StagedStep:
    """The part of the rollout's step that may be carried out."""
    s = situation
    before = s.plan.desired_by_key()
    desired, stops = dict(s.after), dict(s.stops)
    notes: list[Note] = []
    orders = [_looked_at(pace, s, one, notes) for one in s.plan.forced]
    by_model = {model: one for one in orders for model in _models(one)}
    held = {model for model, one in by_model.items() if one.halted}
    fleet: dict[str, int] = defaultdict(int)
    for key, count in before.items():
        fleet[key.model] += count
    lower = sorted(key for key, count in before.items() if desired.get(key, count) < count)
    bound = [key for key in lower if key.model in by_model or key.model not in s.placed]
    is_time = s.now_s - s.last_step_s >= pace.step_s
    known = _documents_known(s.world.documents, orders)
    left = max(1, math.ceil(pace.stops_fraction * sum(fleet[model] for model in {key.model for key in bound})))
    stopped: dict[str, int] = defaultdict(int)
    for key in bound:
        wanted = before[key] - desired[key]
        given = 0 if key.model in held or not is_time else min(wanted, left)
        if given and key.model not in known:
            given = wanted  # who has no document of it can only be told to delete it whole
        left = max(0, left - given)
        desired[key] = before[key] - given
        if not given:
            stops.pop(key, None)
            continue
        if key.model in by_model:
            order = by_model[key.model]
            stopped[order.object] += given
            words = order.words(key.model)
            stops[key] = words if key.model not in s.placed else f"{stops.get(key, '')}; {words}".removeprefix("; ")
    orders = [replace(one, stopped=one.stopped + stopped[one.object]) for one in orders]
    going = tuple(one for one in orders if not _is_done(s, one, desired))
    for one in orders:
        if one not in going:
            ended = "is undone by newer documents" if _is_undone(s.world.documents, one) else "is carried out"
            text = f"what {one.actor} forced ({one.reason}) {ended}: {one.stopped} replicas stopped"
            notes.append(Note(reason="ForcedChangeDone", object=one.object, message=text))
    return StagedStep(
        desired=desired,
        stops=stops,
        forced=going,
        notes=tuple(notes),
        has_stopped=any(desired[key] < before[key] for key in bound),
    )


def _is_undone(documents: Documents, order: Forced) -> bool:
    """Whether all that it withdrew is placed again."""
    return bool(order.withdrawn) and all(documents.is_placed(one.metadata.name) for one in order.withdrawn)


def next_counts(
    pace: Pace,
    plan: Plan,
    target: Mapping[PlacementKey, int],
    ready: Mapping[PlacementKey, int],
    placed: Collection[str],
) -> dict[PlacementKey, int]:
    """The counts that a person's order leaves after the next step, for models whose target is ready: users leave a
    replica one step before it stops, and not all at once."""
    short = {key.model for key, count in target.items() if ready.get(key, 0) < count}
    halted = {model: bool(one.halted) for one in plan.forced for model in one.models if model in placed}
    desired = {key: n for key, n in plan.desired_by_key().items() if key.model in halted and key.model not in short}
    left = max(1, math.ceil(pace.stops_fraction * sum(desired.values())))
    counts = {}
    for key, count in sorted(desired.items(), key=lambda item: item[0]):
        less = 0 if halted[key.model] else min(left, max(0, count - target.get(key, 0)))
        left -= less
        counts[key] = count - less
    return counts


def in_force(documents: Documents, forced: tuple[Forced, ...]) -> Documents:
    """The documents, with the last documents of models that are being withdrawn: agents and users are served by those
    until the replicas are gone."""
    leaving = {one.metadata.name: one for order in forced for one in order.withdrawn}
    leaving = {name: one for name, one in leaving.items() if not documents.is_placed(name)}
    if not leaving:
        return documents
    known = {one.metadata.name for one in documents.models}
    models = (*documents.models, *(one for name, one in leaving.items() if name not in known))
    policies = [one for order in forced for one in order.policies if set(one.spec.models.match_names) & leaving.keys()]
    return Documents(
        models=tuple(sorted(models, key=lambda one: one.metadata.name)),
        policies=(*documents.policies, *policies),
        clusters=documents.clusters,
    )


def last_policies(before: Documents, withdrawn: tuple[Model, ...]) -> tuple[PlacementPolicy, ...]:
    """The policy of each withdrawn model, for that model alone: the policy itself may go on to govern others."""
    found = ((one.metadata.name, before.policy_of(one.metadata.name)) for one in withdrawn)
    return tuple(
        msgspec.structs.replace(
            policy,
            spec=msgspec.structs.replace(
                policy.spec, models=msgspec.structs.replace(policy.spec.models, match_names=(name,))
            ),
        )
        for name, policy in found
        if policy is not None
    )


def _models(one: Forced) -> set[str]:
    return {*one.models, *(model.metadata.name for model in one.withdrawn)}


def _documents_known(documents: Documents, orders: list[Forced]) -> set[str]:
    return {one.metadata.name for one in in_force(documents, tuple(orders)).models}


def _looked_at(pace: Pace, s: StagedSituation, one: Forced, notes: list[Note]) -> Forced:
    """The order, halted where users suffer by more than was foretold."""
    if one.halted:
        return one
    why = _complaint(pace, s, one)
    if not why:
        return one
    file = one.object.removeprefix("policy/")
    text = (
        f"what {one.actor} forced by {file} is halted after {one.stopped} stops: {why}. Hand in what was in force "
        "before to undo it, or the same again with --force to go on"
    )
    notes.append(Note(type="Warning", reason="ForcedChangeHalted", object=one.object, message=text))
    return replace(one, halted=why)


def _complaint(pace: Pace, s: StagedSituation, one: Forced) -> str:
    gone = {model.metadata.name for model in one.withdrawn}
    for model in sorted(s.placed - gone):
        asked_rps, lost_rps = s.asked_rps.get(model, 0.0), s.unserved_rps.get(model, 0.0)
        foretold_rps = one.unserved_rps.get(model, 0.0)
        if lost_rps > foretold_rps + pace.unserved_fraction * asked_rps + 1e-6:
            return (
                f"{lost_rps:.1f} of {asked_rps:.1f} requests per second for {model} are unserved, "
                f"{foretold_rps:.1f} were foretold"
            )
    for model, share in sorted(error_share(s.world).items()):
        before = one.error_share.get(model, 0.0)
        if model in one.models and model not in gone and share > before + ERRORS_FRACTION:
            return f"{100 * share:.1f} % of requests for {model} fail in a cluster, {100 * before:.1f} % before"
    return ""


def error_share(world: World) -> dict[str, float]:
    """By model: of the cluster where most of its requests fail, by its gateway's word."""
    found: dict[str, float] = {}
    for _, state in sorted(world.clusters.items()):
        if state.phase is Phase.READY and state.report is not None:
            for one in state.report.served:
                found[one.model] = max(found.get(one.model, 0.0), one.error_share)
    return found


def _is_done(s: StagedSituation, one: Forced, desired: Mapping[PlacementKey, int]) -> bool:
    """Whether a plan was made since hysteresis had its time, and nothing is left to stop."""
    policies = [policy for model in one.models if (policy := s.world.documents.policy_of(model)) is not None]
    dwell_s = max((policy.spec.disruption.dwell_seconds for policy in policies), default=0.0)
    if s.thought_s <= one.at_s + dwell_s:
        return False
    mine, placed = _models(one), s.placed
    return not any(
        count > (s.target.get(key, 0) if key.model in placed else 0)
        for key, count in desired.items()
        if key.model in mine
    )
