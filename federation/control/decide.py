"""Whether a better placement is worth the move: hysteresis per model, in the terms of its policy.

A model changes at once when its present placement breaks a hard rule that the new one keeps better, or leaves users
unserved that the new one serves. Any other change must gain enough, must have waited out the dwell, and must fit in
this hour's moves. Where it does not fit, the engine solves again with the moves that are left (`Decision.budgets`).
Models share devices and budgets, so a model that may stay can block one that must change; then both change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

import placement as engine
from federation.control.plan import History
from federation.policy.documents import Disruption
from placement import costs, floors, limits
from placement.capacity import overload_rps
from placement.engine import assess
from placement.index import Index
from placement.survival import cuts

HOUR_S = 3600.0
LIMIT_TOLERANCE = 1e-6
OBJECTIVE_TOLERANCE = 0.01
"""Part of the requests that must be in time after a loss; a smaller shortfall, from a few more users, forces no change.
"""
UNSERVED_TOLERANCE = 0.01
"""Part of a model's demand; a smaller gain in served requests forces no change."""

Counts = Mapping[tuple[str, str], int]
"""(model, pool name) -> replicas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveVerdict:
    """Whether one model takes the new placement. `code` is a constant, `reason` a sentence."""

    model: str
    accepted: bool
    code: str
    reason: str
    moves: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The placement to go to, and a verdict for each model that could have changed.

    `budgets`: model -> the most replicas that a worthwhile change may start, where the proposed change moves more than
    the hour has left. `postponed`: (model, pool) where a change that waits out the dwell would have more replicas than
    `target`: a replica that stops there would start again soon.
    """

    target: dict[tuple[str, str], int]
    verdicts: tuple[MoveVerdict, ...]
    history: History
    budgets: dict[str, int]
    postponed: frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The inputs of a decision.

    `present` is the placement in force and `kept` the routing that it would give; `solution` is the engine's proposal;
    `disruption` is the hysteresis of each model's policy.
    """

    problem: engine.Problem
    present: tuple[engine.Placed, ...]
    solution: engine.Solution
    kept: engine.Routing
    disruption: Mapping[str, Disruption]
    history: History
    now_s: float


def decide(question: Question) -> Decision:
    """The placement to go to."""
    now = _counts(question.present)
    new = _counts(question.solution.replicas)
    verdicts: dict[str, MoveVerdict] = {}
    budgets: dict[str, int] = {}
    index = Index(question.problem)
    for model in question.problem.models:
        before, after = _of(now, model.name), _of(new, model.name)
        if before == after:
            continue
        verdicts[model.name] = verdict = _judge(question, index, model, before, after)
        left = _moves_left(question, model)
        if verdict.code == "MovesPerHour" and left > 0:
            budgets[model.name] = left + max(0, sum(after.values()) - sum(before.values()))
    accepted = {name for name, verdict in verdicts.items() if verdict.accepted}
    accepted, target = _settle(index, now, new, accepted)
    final = tuple(
        verdict if verdict.accepted == (name in accepted) else _swept_along(verdict, now, new)
        for name, verdict in sorted(verdicts.items())
    )
    waiting = {verdict.model for verdict in final if verdict.code == "Dwell"}
    postponed = frozenset(key for key, count in new.items() if key[0] in waiting and count > target.get(key, 0))
    return Decision(
        target=target, verdicts=final, history=_remember(question, final), budgets=budgets, postponed=postponed
    )


def appraise(question: Question, decision: Decision) -> engine.Solution:
    """The decided placement with its cost: the proposal for the models that change, the present placement for those
    that stay."""
    new = _counts(question.solution.replicas)
    if decision.target == new:
        return question.solution
    changed = {
        model.name for model in question.problem.models if _of(decision.target, model.name) == _of(new, model.name)
    }
    told, kept = question.solution, question.kept
    flows = [
        *(one for one in told.flows if one.model in changed),
        *(one for one in kept.flows if one.model not in changed),
    ]
    unserved = [
        *(one for one in told.unserved if one.model in changed),
        *(one for one in kept.unserved if one.model not in changed),
    ]
    return assess(told, question.problem, decision.target, tuple(sorted(flows)), tuple(sorted(unserved)))


def _keyed(model: engine.Model, replicas: Mapping[str, int]) -> dict[tuple[str, str], int]:
    return {(model.name, pool): count for pool, count in replicas.items()}


def _of(counts: Counts, model: str) -> dict[str, int]:
    return {pool: n for (name, pool), n in counts.items() if name == model and n > 0}


def count_moves(before: Mapping[str, int], after: Mapping[str, int]) -> int:
    """Pairs of a start in one pool and a stop in another."""
    pools = before.keys() | after.keys()
    starts = sum(max(0, after.get(pool, 0) - before.get(pool, 0)) for pool in pools)
    stops = sum(max(0, before.get(pool, 0) - after.get(pool, 0)) for pool in pools)
    return min(starts, stops)


def _moves_left(question: Question, model: engine.Model) -> int:
    """The moves of this model that the hour has left."""
    hysteresis = question.disruption.get(model.name, Disruption())
    return hysteresis.max_moves_per_hour - len(_recent(question.history, model.name, question.now_s))


def _judge(
    question: Question, index: Index, model: engine.Model, before: dict[str, int], after: dict[str, int]
) -> MoveVerdict:
    moves = count_moves(before, after)

    def verdict(accepted: bool, code: str, reason: str) -> MoveVerdict:
        return MoveVerdict(model=model.name, accepted=accepted, code=code, reason=reason, moves=moves)

    forced = _why_forced(question, index, model, before, after)
    if forced:
        return verdict(True, "HardRule", forced)
    hysteresis = question.disruption.get(model.name, Disruption())
    cost_now = cost_usd_per_hour(index, model, before, question.kept.flows, question.kept.unserved, {})
    cost_new = cost_usd_per_hour(index, model, after, question.solution.flows, question.solution.unserved, before)
    gain_percent = 100.0 * (cost_now - cost_new) / cost_now if cost_now > 0 else 0.0
    saved = f"{cost_now - cost_new:.2f} USD/h ({gain_percent:.1f} %)"
    if gain_percent < hysteresis.min_gain_percent or cost_new >= cost_now:
        text = f"would save {saved}; policy asks {hysteresis.min_gain_percent:g} %"
        return verdict(False, "GainTooSmall", text)
    since_s = question.now_s - question.history.changed_s.get(model.name, float("-inf"))
    if since_s < hysteresis.dwell_seconds:
        text = f"would save {saved}; changed {since_s:.0f} s ago, policy asks {hysteresis.dwell_seconds:g} s"
        return verdict(False, "Dwell", text)
    left = _moves_left(question, model)
    if moves > left:
        made = hysteresis.max_moves_per_hour - left
        text = f"would save {saved} by {moves} moves; {made} made in the last hour, policy allows "
        return verdict(False, "MovesPerHour", f"{text}{hysteresis.max_moves_per_hour}")
    return verdict(True, "Gain", f"saves {saved}")


def _why_forced(
    question: Question, index: Index, model: engine.Model, before: dict[str, int], after: dict[str, int]
) -> str:
    """Why the present placement of `model` cannot stay; empty where it can."""
    if not before:
        return "not placed yet"
    present = _counts(question.present)
    for name in sorted(before):
        pool = index.pools[name]
        if model.shape_for(pool) is None:
            return f"{name} no longer fits"
        if index.clusters[pool.cluster].intake is engine.Intake.DRAINING:
            return f"{pool.cluster} is draining"
        overfull = _devices_used(index, pool, present) > pool.devices
        if overfull and index.clusters[pool.cluster].intake is not engine.Intake.HELD:
            return f"{name} has {pool.devices} devices left, fewer than are in use"
    broken = _beyond_limit(index, model, present, before, after) or _broken_floor(index, model, before, after)
    if broken:
        return broken
    crowded = _crowded(index, model, before)
    if crowded:
        return crowded
    demand = sum(one.requests_per_second for one in index.demands[model.name])
    now_rps = sum(one.requests_per_second for one in question.kept.unserved if one.model == model.name)
    mine = (flow for flow in question.kept.flows if flow.model == model.name)
    now_rps += sum(overload_rps(index, model, _keyed(model, before), mine).values())
    new_rps = sum(one.requests_per_second for one in question.solution.unserved if one.model == model.name)
    if now_rps - new_rps > UNSERVED_TOLERANCE * demand:
        return f"{now_rps:.1f} requests per second are unserved or overload it, {new_rps:.1f} after"
    return ""


def _beyond_limit(
    index: Index, model: engine.Model, present: Counts, before: Mapping[str, int], after: Mapping[str, int]
) -> str:
    """The limit that the present placement exceeds and of which the new one takes less; empty without one."""
    for rule in limits.upper_rules(index):
        now = _taken(index, rule, present)
        one, other = (_taken(index, rule, _keyed(model, counts)) for counts in (before, after))
        if now > rule.upper + LIMIT_TOLERANCE and other < one - LIMIT_TOLERANCE:
            match rule.limit:
                case "max_replicas":
                    return f"{now:.0f} replicas, policy allows {rule.upper:.0f}"
                case "budget":
                    return f"the models of policy {rule.subject} cost {now:.2f} USD/h, its budget is {rule.upper:.2f}"
                case _:
                    assert_never(rule.limit)
    return ""


def _taken(index: Index, rule: limits.UpperRule, counts: Counts) -> float:
    """The part of a limit that these replicas take; a replica that no longer fits its pool costs one device."""
    owners = {name for name, _ in rule.terms}
    total = 0.0
    for (name, pool_name), count in counts.items():
        if name in owners:
            pool = index.pools[pool_name]
            usd = index.models[name].devices_in(pool) * pool.usd_per_device_hour
            total += count * (usd if rule.limit == "budget" else 1.0)
    return total


def _broken_floor(index: Index, model: engine.Model, before: dict[str, int], after: dict[str, int]) -> str:
    """The floor that the present placement misses by more than the new one; empty without one."""
    options = index.options(model)
    for rule in floors.floors(index, model, options):
        now = sum(term * before.get(options[at].pool.name, 0) for at, term in rule.terms.items())
        new = sum(term * after.get(options[at].pool.name, 0) for at, term in rule.terms.items())
        if now < rule.lower - 1e-6 and new > now + 1e-6:
            return _WHY[rule.floor].format(now=now, wanted=rule.lower, subject=rule.subject)
    wanted = max((one.wanted_rps for one in cuts.after_losses(index, model, after)), default=0.0)
    if wanted > 0.0:
        now, new = (min(one.servable_rps for one in cuts.after_losses(index, model, each)) for each in (before, after))
        if now < wanted * (1.0 - OBJECTIVE_TOLERANCE) and new > now * (1.0 + OBJECTIVE_TOLERANCE):
            lost = min(cuts.after_losses(index, model, before), key=lambda one: (one.servable_rps, one.lost)).lost
            return _WHY["survive_within"].format(now=now, wanted=wanted, subject=lost)
    regions, more = (len({index.clusters[index.pools[name].cluster].region for name in one}) for one in (before, after))
    if regions < model.min_regions and more > regions:
        return f"in {regions} regions, policy asks {model.min_regions}"
    total = sum(before.values())
    spot = sum(count for name, count in before.items() if index.pools[name].market == "spot")
    if spot > model.spot_max_fraction * total + 1e-9:
        return f"{spot} of {total} replicas on spot, policy allows {model.spot_max_fraction:.0%}"
    return ""


_WHY: dict[engine.Floor, str] = {
    "min_replicas": "{now:.0f} replicas, policy asks {wanted:.0f}",
    "min_on_demand": "{now:.0f} replicas off spot, policy asks {wanted:.0f}",
    "pin": "{now:.0f} replicas in {subject}, policy pins {wanted:.0f} there",
    "survive": "without {subject} only {now:.1f} of {wanted:.1f} requests per second could be served",
    "survive_within": "without {subject} only {now:.1f} of {wanted:.1f} requests per second would be in time",
    "availability": "the loss of spot in {subject} would leave more unserved than availability.target allows",
    "max_part": "{subject} holds more of what its replicas can serve than policy allows",
}


def cost_usd_per_hour(
    index: Index,
    model: engine.Model,
    replicas: Mapping[str, int],
    flows: Sequence[engine.Flow],
    unserved: Sequence[engine.Unserved],
    started_from: Mapping[str, int],
) -> float:
    """The cost of one model: devices and their risk, egress, latency, late and unserved requests, and starts from
    `started_from`; an empty one charges none."""
    counts = _keyed(model, replicas)
    mine = [flow for flow in flows if flow.model == model.name]
    return costs.model_usd_per_hour(
        index,
        model,
        counts,
        mine,
        unserved_rps=sum(one.requests_per_second for one in unserved if one.model == model.name),
        overload_rps=sum(overload_rps(index, model, counts, mine).values()),
        started_from=_keyed(model, started_from) if started_from else None,
    )


def _crowded(index: Index, model: engine.Model, before: Mapping[str, int]) -> str:
    """The pool whose nodes have room for fewer replicas than are placed there, so that the rest would wait for ever;
    empty without one."""
    for name, count in sorted(before.items()):
        room = index.room.get((model.name, name), count)
        held = index.clusters[index.pools[name].cluster].intake is engine.Intake.HELD
        if count > room and not held:
            return f"{name} has room for {room} of its {count} replicas"
    return ""


def _counts(placed: Sequence[engine.Placed]) -> dict[tuple[str, str], int]:
    return {(one.model, one.pool): one.replicas for one in placed}


def _devices_used(index: Index, pool: engine.Pool, counts: Counts) -> int:
    """Devices of a pool in use; a replica that no longer fits takes one."""
    used = 0
    for model in index.problem.models:
        if count := counts.get((model.name, pool.name), 0):
            used += count * model.devices_in(pool)
    return used


def _settle(index: Index, now: Counts, new: Counts, accepted: set[str]) -> tuple[set[str], dict[tuple[str, str], int]]:
    """A placement that fits: a model that holds the devices of an accepted change changes too."""
    accepted = set(accepted)
    while True:
        mixed: dict[tuple[str, str], int] = {}
        for model in index.problem.models:
            chosen = _of(new if model.name in accepted else now, model.name)
            mixed |= {(model.name, pool): count for pool, count in chosen.items()}
        blocking = _blocking(index, now, new, mixed)
        if not blocking:
            return accepted, mixed
        accepted |= blocking


def _blocking(index: Index, now: Counts, new: Counts, mixed: Counts) -> set[str]:
    """Models whose part of `mixed` differs from the proposal in a pool that `mixed` overfills, or under a limit that it
    exceeds."""
    blocking: set[str] = set()
    for pool in index.problem.pools:
        used = _devices_used(index, pool, mixed)
        if used <= max(pool.devices, _devices_used(index, pool, now)):
            continue
        for model in index.problem.models:
            if mixed.get((model.name, pool.name), 0) != new.get((model.name, pool.name), 0):
                blocking.add(model.name)
    for rule in limits.upper_rules(index):
        if _taken(index, rule, mixed) > rule.upper + LIMIT_TOLERANCE:
            owners = {name for name, _ in rule.terms}
            blocking |= {name for name in owners if _of(mixed, name) != _of(new, name)}
    return blocking


def _swept_along(verdict: MoveVerdict, now: Counts, new: Counts) -> MoveVerdict:
    return MoveVerdict(
        model=verdict.model,
        accepted=True,
        code="MakesRoom",
        reason=f"gives up devices or money that another model must have (by itself it {verdict.reason})",
        moves=count_moves(_of(now, verdict.model), _of(new, verdict.model)),
    )


def _recent(history: History, model: str, now_s: float) -> tuple[float, ...]:
    return tuple(at_s for at_s in history.moved_s.get(model, ()) if now_s - at_s < HOUR_S)


def without_future(history: History, now_s: float) -> History:
    """The history without instants later than now: a clock that was wrong for a moment would forbid changes for years.

    The same object where no instant is later.
    """
    instants = (*history.changed_s.values(), *(at_s for times in history.moved_s.values() for at_s in times))
    if all(at_s <= now_s for at_s in instants):
        return history
    return History(
        changed_s={model: min(at_s, now_s) for model, at_s in history.changed_s.items()},
        moved_s={model: tuple(min(at_s, now_s) for at_s in times) for model, times in history.moved_s.items()},
    )


def _remember(question: Question, verdicts: Sequence[MoveVerdict]) -> History:
    changed = dict(question.history.changed_s)
    moved = {name: _recent(question.history, name, question.now_s) for name in question.history.moved_s}
    for verdict in verdicts:
        if verdict.accepted:
            changed[verdict.model] = question.now_s
            moved[verdict.model] = moved.get(verdict.model, ()) + (question.now_s,) * verdict.moves
    return History(changed_s=changed, moved_s={name: times for name, times in sorted(moved.items()) if times})
