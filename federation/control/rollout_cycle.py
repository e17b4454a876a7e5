"""What one step of the rollout decides: which replicas may serve, the next routing table, and the next plan.

`loops/steer.py` gathers the beliefs, asks the engine and commits; each function here is one phase of its step.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Generator, Mapping
from dataclasses import dataclass, field, replace

import placement as engine
from federation.control import rollout, routing, setbacks, shift, versions
from federation.control.placement_cycle import NewPlacement, Proposal
from federation.control.plan import Change, Forced, Plan, Replicas, Route, Routes
from federation.control.problem import Formulated
from federation.policy.documents import Traffic
from federation.state.keys import ModelCell, ModelCluster, PlacementKey
from federation.state.phases import Phase
from federation.state.world import Known, World
from federation.wire.messages import NOT_READY

BY_CHOICE = frozenset({engine.UnservedCode.PRICE, engine.UnservedCode.MAX_REPLICAS, engine.UnservedCode.BUDGET})
"""Users that go unserved for one of these are not to be served by the replicas that the target gives up."""
UNSERVED_TOLERANCE_RPS = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Beliefs:
    """What a step is decided on, frozen.

    Args: target: where replicas are going, the new placement's where there is one. traffic: policy of each placed
        model. planned_s: the instant that the newest placement was solved for. postponed: where a change that has to
        wait out the dwell would have more replicas. aside: models that planning fails on. now_s, planned_s: of the
        controller's monotonic clock; wall_s: Unix seconds.
    """

    world: World
    plan: Plan
    routes: Routes
    formulated: Formulated
    target: Mapping[PlacementKey, int]
    traffic: Mapping[str, Traffic]
    demand_rps: Mapping[ModelCell, float]
    epoch: int
    planned_s: float
    postponed: frozenset[PlacementKey]
    aside: Collection[str]
    now_s: float
    wall_s: float

    @property
    def placed(self) -> frozenset[str]:
        """Models that have a placement policy and are planned."""
        return frozenset(model.name for model in self.formulated.problem.models)


def traffic_of(world: World, formulated: Formulated) -> dict[str, Traffic]:
    """Model -> how its policy lets shares move."""
    return {
        model.name: policy.spec.traffic if (policy := world.documents.policy_of(model.name)) else Traffic()
        for model in formulated.problem.models
    }


# ---- which replicas may serve


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Replicas that may serve, and what the shift of shares has to respect.

    `ready`: (model, pool name) -> replicas that may be sent requests. `trusted`: ready replicas that are known to be
    good for their load.
    """

    ready: Mapping[tuple[str, str], int]
    outlook: shift.Outlook
    trusted: Mapping[PlacementKey, int]


def serving(beliefs: Beliefs, memory: shift.ShiftMemory) -> Serving:
    """Which replicas may serve now."""
    world = beliefs.world
    outlook = shift.look(memory, world, beliefs.routes, beliefs.traffic, beliefs.now_s)
    trusted = trustworthy(world.surely_ready_replicas(), outlook, beliefs.formulated, beliefs.demand_rps)
    return Serving(ready=servable(world, beliefs.formulated, beliefs.plan), outlook=outlook, trusted=trusted)


def trustworthy(
    ready: Mapping[PlacementKey, int],
    outlook: shift.Outlook,
    formulated: Formulated,
    demand_rps: Mapping[ModelCell, float],
) -> dict[PlacementKey, int]:
    """Ready replicas that may receive traffic; a barred cluster counts for the load that it carried before the shift.

    Args: demand_rps: (model, cell) -> requests per second.
    """
    pools = {pool.name: pool for pool in formulated.problem.pools}
    models = {model.name: model for model in formulated.problem.models}
    kept: dict[PlacementKey, int] = {}
    left_rps = {
        key: sum(part * demand_rps.get(ModelCell((key.model, cell)), 0.0) for cell, part in bar.before.items())
        for key, bar in outlook.barred.items()
    }
    for key, count in sorted(ready.items(), key=lambda item: item[0]):
        model, cluster, pool_key = key
        pool, place = pools.get(formulated.pool_name(cluster, pool_key)), ModelCluster(model, cluster)
        if place in left_rps and pool is not None and model in models:
            shape = models[model].shape_for(pool)
            each_rps = shape.requests_per_second * models[model].target_utilisation if shape is not None else 1.0
            count = min(count, math.ceil(left_rps[place] / each_rps - 1e-6))
            left_rps[place] = max(0.0, left_rps[place] - count * each_rps)
        if count > 0:
            kept[key] = count
    return kept


def servable(world: World, formulated: Formulated, plan: Plan) -> dict[tuple[str, str], int]:
    """(model, pool name) -> replicas that may be sent requests: ready, wanted, and in a cluster that is routable."""
    wanted = plan.desired_by_key()
    usable = {
        key: min(count, wanted.get(key, 0))
        for key, count in world.ready_replicas().items()
        if world.is_routable(key.cluster)
    }
    return formulated.theirs(usable)


def still_served(world: World, plan: Plan, placed: Collection[str]) -> dict[str, frozenset[str]]:
    """Models that a person withdrew and that are not stopped yet -> clusters that may go on to serve them."""
    leaving = {one.metadata.name for order in plan.forced for one in order.withdrawn} - set(placed)
    wanted = plan.desired_by_key()
    clusters: dict[str, set[str]] = {model: set() for model in sorted(leaving)}
    for key, count in world.ready_replicas().items():
        if key.model in leaving and min(count, wanted.get(key, 0)) > 0 and world.is_routable(key.cluster):
            clusters[key.model].add(key.cluster)
    return {model: frozenset(found) for model, found in clusters.items()}


def kept_by_agents(world: World, plan: Plan, epoch: int) -> dict[PlacementKey, int]:
    """Replicas where an agent did not do all of the newest order, and more is ready than was given up as not ready."""
    denied = {
        name
        for name, state in world.clusters.items()
        if state.phase is Phase.READY
        and state.ack is not None
        and not state.ack.ok
        and (state.ack.epoch, state.ack.generation) == (epoch, plan.generations.get(name))
    }
    ready = world.ready_replicas()
    return {
        one.key: ready[one.key]
        for one in plan.desired
        if one.cluster in denied and one.stop_reason == NOT_READY and ready.get(one.key, 0) > one.replicas
    }


def short_by_choice(problem: engine.Problem, proposal: Proposal | None) -> frozenset[str]:
    """Models of which the newest proposal leaves users unserved by choice: for a limit or for their price.

    Before the first proposal, the models that have a limit.
    """
    if proposal is not None:
        return frozenset(one.model for one in proposal.solution.unserved if one.code in BY_CHOICE)
    in_budgets = {name for one in problem.budgets for name in one.models}
    return frozenset(one.name for one in problem.models if one.max_replicas is not None or one.name in in_budgets)


# ---- who serves whom

Asking = Generator[engine.Ready, engine.Routing, engine.Routing]
"""Yields the replicas to ask the engine's routing of, is sent each answer, and returns the routing to use."""


def choose_routing(
    beliefs: Beliefs,
    replicas: Serving,
    aims: Mapping[PlacementKey, int],
    serve_less: Collection[str],
) -> Asking:
    """Shares among trusted replicas; among all ready ones where that leaves users unserved, and then among those that
    the target does not want too, but for models that are to serve less.

    Args: aims: target of this step. serve_less: models.
    """
    formulated, problem, ready = beliefs.formulated, beliefs.formulated.problem, replicas.ready
    wanted = formulated.theirs(aims)
    believed = {
        key: min(count, ready[key]) for key, count in formulated.theirs(replicas.trusted).items() if key in ready
    }
    used = rollout.to_be_used(problem, wanted, believed)
    routed = yield used
    desired = formulated.theirs(beliefs.plan.desired_by_key())
    if away := rollout.in_the_way(problem, wanted, desired, used):
        routed = yield from _without(used, away, routed)
    if routed.unserved and believed != ready:
        routed = _better(routed, (yield rollout.to_be_used(problem, wanted, ready)))
    short = {one.model for one in routed.unserved}.difference(serve_less)
    if short:
        # A cluster that comes and goes is not given users back for as long as the plan can do without it.
        shaky = {name for name, state in beliefs.world.clusters.items() if state.unsteady_s is not None}
        steady = {key: n for key, n in ready.items() if key in wanted or formulated.keys[key[1]][0] not in shaky}
        kept = {key: count for key, count in wanted.items() if key[0] not in short}
        routed = _better(routed, (yield rollout.to_be_used(problem, kept, steady)))
    return routed


def _without(used: engine.Ready, away: engine.Ready, routed: engine.Routing) -> Asking:
    """The routing without the replicas that stand in the way of others, for the models of which that leaves nobody
    unserved who is served by `routed`; where it does, without one replica of each, if that can be."""
    for most in (max(away.values()), 1):
        less = {key: used[key] - min(count, most) for key, count in away.items()}
        other = yield {**used, **less}
        worse = _worse(routed, other)
        if worse:
            less = {key: count for key, count in less.items() if key[0] not in worse}
            other = (yield {**used, **less}) if less else routed
        if other is not routed:
            return other
    return routed


def answer(asking: Asking, routed: engine.Routing | None) -> engine.Ready | engine.Routing:
    """The next replicas to ask of, or the routing to use. Args: routed: the last answer, None at the start."""
    try:
        return next(asking) if routed is None else asking.send(routed)
    except StopIteration as ended:
        chosen: engine.Routing = ended.value
        return chosen


def _unserved_by_model(routed: engine.Routing) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for one in routed.unserved:
        found[one.model] += one.requests_per_second
    return found


def _better(one: engine.Routing, other: engine.Routing) -> engine.Routing:
    """The one that leaves fewer users unserved."""
    now_rps, then_rps = (sum(each.requests_per_second for each in routed.unserved) for routed in (one, other))
    return other if then_rps + UNSERVED_TOLERANCE_RPS < now_rps else one


def _worse(one: engine.Routing, other: engine.Routing) -> frozenset[str]:
    """Models of which `other` leaves more users unserved."""
    now, then = _unserved_by_model(one), _unserved_by_model(other)
    return frozenset(name for name, rps in then.items() if rps > now.get(name, 0.0) + UNSERVED_TOLERANCE_RPS)


# ---- the next routing table


@dataclass(frozen=True, slots=True, kw_only=True)
class TableInputs:
    """What the next step of a routing table depends on, once every share is where its target wants it."""

    routes: Routes
    targets: routing.Targets
    serving: Mapping[str, frozenset[str]]
    traffic: Mapping[str, Traffic]

    def is_as(self, other: TableInputs) -> bool:
        """Whether the next table is the same."""
        return (
            self.routes is other.routes
            and self.targets is other.targets
            and self.serving == other.serving
            and self.traffic == other.traffic
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TableMemory:
    """What steps of the routing table remember.

    `stepped_s`: model -> the instant up to which its shares have moved. `arrived`: the inputs of the last table in
    which every share was at its target.
    """

    stepped_s: Mapping[str, float] = field(default_factory=dict)
    arrived: TableInputs | None = None


def next_routes(
    beliefs: Beliefs, memory: TableMemory, replicas: Serving, targets: routing.Targets
) -> tuple[Routes, TableMemory]:
    """The next routing table, and what to remember for the one after it."""
    previous, now_s = beliefs.routes, beliefs.now_s
    leaving = still_served(beliefs.world, beliefs.plan, beliefs.traffic.keys())
    stepped_s, steps = dict(memory.stepped_s), {}
    for model, rules in beliefs.traffic.items():
        passed = int((now_s - stepped_s.setdefault(model, now_s)) // rules.step_seconds)
        stepped_s[model] += passed * rules.step_seconds
        # A step that comes late is no larger: the point of steps is to see what each of them does.
        steps[model] = min(passed, max(1, int(beliefs.world.timing.tick_s // rules.step_seconds)))
    clusters: dict[str, frozenset[str]] = {}
    for model, pool in replicas.ready:
        clusters[model] = clusters.get(model, frozenset()) | {beliefs.formulated.keys[pool][0]}
    clusters |= leaving
    traffic = {**beliefs.traffic, **dict.fromkeys(leaving, Traffic())}
    inputs = TableInputs(routes=previous, targets=targets, serving=clusters, traffic=traffic)
    memory = replace(memory, stepped_s=stepped_s)
    if memory.arrived is not None and not replicas.outlook.barred and inputs.is_as(memory.arrived):
        return previous, memory
    rows = routing.next_routes(
        previous.by_key(), targets, serving=clusters, traffic=traffic, steps=steps, outlook=replicas.outlook
    )
    if beliefs.aside:
        kept = [one for one in previous.routes if one.model in beliefs.aside]
        rows = tuple(
            sorted([*(one for one in rows if one.model not in beliefs.aside), *kept], key=lambda route: route.key)
        )
    if len(rows) == len(previous.routes) and all(map(_has_arrived, rows, previous.routes)):
        memory = replace(memory, arrived=inputs)
    return numbered(previous, rows, beliefs.wall_s), memory


def remember_shift(beliefs: Beliefs, replicas: Serving, routes: Routes) -> shift.ShiftMemory:
    """What the shift of shares remembers once these routes are in force."""
    load_rps = routing.load_rps(routes.routes, beliefs.demand_rps)
    return shift.after(replicas.outlook.memory, beliefs.routes, routes, load_rps, beliefs.traffic, beliefs.now_s)


def numbered(previous: Routes, rows: tuple[Route, ...], wall_s: float) -> Routes:
    """The next version of the routing table, or the same where nothing has changed."""
    if rows == previous.routes:
        return previous
    return Routes(version=previous.version + 1, at_s=wall_s, routes=rows)


def _has_arrived(row: Route, before: Route) -> bool:
    return row is before and row.now is row.target


# ---- what agents are told next


def next_step(
    beliefs: Beliefs, replicas: Serving, load_rps: Mapping[ModelCluster, float], ordered: Mapping[PlacementKey, int]
) -> rollout.Step:
    """The counts that agents are told next, on the way to the target.

    Args: load_rps: (model, cluster) -> the peak that routes send there. ordered: counts that people forced.
    """
    world, plan = beliefs.world, beliefs.plan
    told = plan.desired_by_key()
    step = rollout.next_step(
        rollout.Situation(
            problem=beliefs.formulated.problem,
            target=beliefs.target,
            desired=told,
            ready=world.ready_replicas(),
            trusted=replicas.trusted,
            load_rps=load_rps,
            heard=frozenset(n for n, state in world.clusters.items() if state.phase is Phase.READY),
            weighed=frozenset(n for n, state in world.clusters.items() if state.since_s <= beliefs.planned_s),
            postponed=beliefs.postponed,
            most=setbacks.limits(world.setbacks, beliefs.now_s),
            kept=kept_by_agents(world, plan, beliefs.epoch),
            stuck=versions.stuck(world),
            ordered=ordered,
        )
    )
    if not beliefs.aside:
        return step
    desired = {key: count for key, count in step.desired.items() if key.model not in beliefs.aside}
    return replace(step, desired=desired | {key: n for key, n in told.items() if key.model in beliefs.aside})


def forget_gone(
    desired: Mapping[PlacementKey, int], world: World, plan: Plan, target: Mapping[PlacementKey, int]
) -> dict[PlacementKey, int]:
    """Without the zeros whose deletion the cluster itself has confirmed: it was told, and reported nothing since.

    That nothing is seen there is not enough: somebody may have deleted what the agent is about to start anew.
    """
    told = plan.desired_by_key()
    kept = {}
    for key, count in desired.items():
        if count == 0 and target.get(key, 0) == 0:
            state = world.clusters.get(key.cluster)
            report = state.report if state is not None else None
            seen = report is None or any(replica.key == (key.model, key.pool) for replica in report.replicas)
            was_told = told.get(key) == 0 and versions.is_carried_out(world, plan, key.cluster)
            if state is None or (was_told and not seen):
                continue
        kept[key] = count
    return kept


def stop_reasons(
    plan: Plan, desired: Mapping[PlacementKey, int], stops: Mapping[PlacementKey, str]
) -> dict[PlacementKey, str]:
    """Why each count is lower than it was: this step's reason, or the one that the plan before it gave.

    Args: stops: of this step; an empty reason stands for the earlier one.
    """
    told = plan.desired_by_key()
    return {
        key: stops.get(key) or earlier
        for key, earlier in {**dict.fromkeys(stops, ""), **plan.stops_by_key()}.items()
        if key in desired and desired[key] <= told.get(key, 0)
    }


# ---- the next plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What a step tells agents from now on.

    Args: digests: cluster -> digest of what it is told. placement: None where the one in force stays.
    """

    desired: Mapping[PlacementKey, int]
    stops: Mapping[PlacementKey, str]
    digests: Mapping[str, str]
    advanced: versions.Advance
    forced: tuple[Forced, ...]
    new: NewPlacement | None = None

    def changes(self, plan: Plan, stored_orders: frozenset[tuple[str, float]]) -> bool:
        """Whether a new plan has to be committed. Args: stored_orders: which orders of people the stored plan has."""
        return (
            self.new is not None
            or self.desired != plan.desired_by_key()
            or self.digests != plan.digests
            or self.advanced.versions != plan.versions
            or not stored_orders.issuperset(orders(self.forced))  # a restart has to know of them
        )


def orders(forced: Collection[Forced]) -> frozenset[tuple[str, float]]:
    """What identifies the orders of people: the policy file, and when it was given."""
    return frozenset((one.object, one.at_s) for one in forced)


def next_plan(
    plan: Plan,
    decided: Decided,
    *,
    epoch: int,
    wall_s: float,
    why: str,
    waiting: tuple[str, ...],
    known: Mapping[str, Known],
) -> Plan:
    """The plan that follows. Args: why: what asked for this step. waiting: what the rollout waits for, in sentences."""
    generation = plan.generation + 1
    new, desired, digests = decided.new, decided.desired, decided.digests
    placement = plan.placement if new is None else new.placement
    reasons = {one.key: one.reason for one in placement.replicas}
    changes = changes_between(plan.desired_by_key(), desired, reasons)
    told = {one.key: one.reason for one in plan.desired} | reasons
    return replace(
        plan,
        epoch=epoch,
        generation=generation,
        at_s=wall_s,
        trigger=why or "rollout",
        summary=summarise(changes, waiting) if new is None else new.placement.summary,
        placement=placement,
        desired=tuple(
            Replicas(
                model=key.model,
                cluster=key.cluster,
                pool=key.pool,
                replicas=count,
                reason=told.get(key, "") if count else "leaving",
                stop_reason=decided.stops.get(key, ""),
            )
            for key, count in sorted(desired.items(), key=lambda item: item[0])
        ),
        changes=changes,
        moves=0 if new is None else new.placement.moves,
        history=plan.history if new is None else new.history,
        generations={
            name: generation if digests[name] != plan.digests.get(name) else plan.generations[name]
            for name in sorted(digests)
        },
        digests=dict(digests),
        settled=decided.advanced.settled,
        versions=decided.advanced.versions,
        forced=decided.forced,
        known=known,
    )


def changes_between(
    before: Mapping[PlacementKey, int], after: Mapping[PlacementKey, int], reasons: Mapping[PlacementKey, str]
) -> tuple[Change, ...]:
    """Every desired count that differs."""
    keys = sorted(before.keys() | after.keys())
    return tuple(
        Change(
            model=key.model,
            cluster=key.cluster,
            pool=key.pool,
            before=before.get(key, 0),
            after=after.get(key, 0),
            reason=reasons.get(key, "no longer needed here"),
        )
        for key in keys
        if before.get(key, 0) != after.get(key, 0)
    )


def summarise(changes: tuple[Change, ...], waiting: tuple[str, ...]) -> str:
    """One sentence: what this step does, or what it waits for."""
    starts = sum(max(0, change.after - change.before) for change in changes)
    stops = sum(max(0, change.before - change.after) for change in changes)
    wait = f"; {waiting[0]}" + (f" and {len(waiting) - 1} more" if len(waiting) > 1 else "") if waiting else ""
    if not changes:
        return f"what agents are told was brought up to date{wait}"
    where = sorted({change.cluster for change in changes})
    places = ", ".join(where[:3]) + (f" and {len(where) - 3} more" if len(where) > 3 else "")
    acts = [f"{count} {verb}" for count, verb in ((starts, "start"), (stops, "stop")) if count]
    return f"replicas: {' and '.join(acts)} in {places}{wait}"
