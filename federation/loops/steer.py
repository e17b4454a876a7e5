"""The fast loop: routing for the replicas that are ready, and the next step of the rollout. Commits before publishing.

Runs when something that serves has changed, and while shares or replicas are still on their way. It never waits for a
placement solve.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import structlog

import placement as engine
from federation.adapters import store
from federation.adapters.solver import Solver, SolverError
from federation.control import blast, leadership, rollout, routing, setbacks, shift, staged, versions
from federation.control import desired as intent
from federation.control.plan import (
    Change,
    Costs,
    Forced,
    History,
    MissedFloor,
    Near,
    Plan,
    ReachedLimit,
    Replicas,
    Route,
    Routes,
    Versions,
)
from federation.control.problem import Formulated
from federation.loops.hub import Hub
from federation.policy.documents import Traffic
from federation.state.phases import Phase
from federation.state.reduce import Note, SetbacksSeen
from federation.state.world import PlacementKey, World
from federation.wire.messages import NOT_READY

log = structlog.get_logger("steer")
REST = 1.0
"""A step is followed by a rest of so many times as long as it took."""
ANSWERS_KEPT = 5
"""Of routing: as many questions as one step may ask."""
BY_CHOICE = frozenset({engine.UnservedCode.PRICE, engine.UnservedCode.MAX_REPLICAS, engine.UnservedCode.BUDGET})
"""Who goes unserved for one of these is not to be served by what the target gives up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTarget:
    """What a placement cycle decided, to be carried out from this step on."""

    target: tuple[Replicas, ...]
    trigger: str
    summary: str
    moves: int
    costs: Costs
    near: Near | None
    near_by_model: Mapping[str, Near]
    bound_usd_per_hour: float
    gap: float
    bound_is_loose: bool
    unserved: tuple[str, ...]
    missed_floors: tuple[MissedFloor, ...]
    reached_limits: tuple[ReachedLimit, ...]
    history: History


class Steer:
    """The fast loop of one controller."""

    def __init__(self, hub: Hub, solver: Solver, database: store.Store, pace: staged.Pace | None = None) -> None:
        self._hub = hub
        self._solver = solver
        self._store = database
        self._stepped_s: dict[str, float] = {}
        self._arrived: _Asked | None = None
        self._digests: tuple[object, Mapping[str, str]] | None = None
        self._answers: tuple[tuple[engine.Problem, engine.Ready, engine.Routing], ...] = ()
        self._shares: tuple[engine.Routing, routing.Targets] | None = None
        self._over_told_s: dict[str, float] = {}
        """Model -> when people were last told that clusters serve it above the target utilisation."""
        self._waiting: tuple[str, ...] = ()
        self._tried_s: Mapping[str, float] = {}
        """Model -> since when its newest version is tried."""
        self._pace = pace or staged.Pace()
        self._staged_s = float("-inf")
        """When something that a person ordered to stop was last stopped."""
        self._kept_orders = _orders(hub.plan.forced)
        """Which orders of people the newest stored plan has."""
        self._shift = shift.Memory()
        """Lost with the process: timers start anew then, and what does harm is seen to do it again."""

    async def run(self, spacing_s: float) -> None:
        """Steer whenever it is asked for, for ever, no closer together than `spacing_s` of the machine's seconds, nor
        than a step takes in a large fleet."""
        hub = self._hub
        while True:
            why, took_s = await hub.resteer.wait(2 * hub.world.timing.tick_s), 0.0
            quiet = hub.may_take_over or hub.outvoted()
            if hub.world.is_settled(hub.clock.monotonic_s()) and not quiet:
                begun_s = time.perf_counter()
                with hub.clock.working():
                    await self.once(why)
                took_s = time.perf_counter() - begun_s
            await hub.clock.sleep(hub.clock.ours_s(max(spacing_s, REST * took_s)))

    async def once(self, why: str, new: NewTarget | None = None) -> None:
        """One step. Raises nothing for what can be expected: the next step tries again."""
        hub, started_s = self._hub, time.perf_counter()
        if hub.clock.monotonic_s() >= hub.replace_at_s:
            hub.replace_at_s = float("inf")
            hub.replan.set("what is silent is worth replacing")
        async with hub.committing:
            hub.adopt()
            try:
                await self._step(why, new)
            except SolverError as error:
                hub.metrics.solver_failures_total.inc()
                log.error("routing kept as it is", cause=str(error))
            except store.Superseded as error:
                hub.supersede(str(error))
            except store.StoreError as error:
                hub.tell(Note(type="Warning", reason="StoreFailed", object="controller", message=str(error)))
            except Exception:  # one model's fault: the planner finds out whose, and the next step goes without it
                log.exception("routing kept as it is")
                hub.replan.set("a step failed")
        hub.metrics.plan_duration_seconds.labels(loop="steer").observe(time.perf_counter() - started_s)

    async def take_over(self) -> None:
        """Go beyond the epochs that agents obey, and start from what runs when nothing else is remembered."""
        hub = self._hub
        async with hub.committing:
            hub.forget_orders()
            rivals = tuple(hub.rivals.values()) if hub.is_ordered_to_lead else ()
            epoch = leadership.highest_epoch(hub.world, ordered=hub.is_ordered_to_lead, rivals=rivals) + 1
            if epoch > hub.epoch:
                await self._store.take_epoch(epoch)
                hub.epoch = epoch
                text = f"epoch {epoch}: agents obeyed {epoch - 1} of an earlier controller"
                hub.tell(Note(reason="TookOver", object="controller", message=text))
            hub.adopt()

    async def _step(self, why: str, new: NewTarget | None) -> None:
        hub = self._hub
        now_s = hub.clock.monotonic_s()
        told = hub.plan.desired_by_key()
        found, notes = await hub.beside(setbacks.look, hub.world, told, now_s)
        if found is not hub.world.setbacks:
            hub.apply(SetbacksSeen(setbacks=found, notes=notes))
        world, plan, demand_rps = hub.world, hub.plan, hub.demand_rps()
        planned_s, postponed = hub.planned_s, hub.postponed
        failed = routing.without_replicas(world, hub.routes) if world.brake is not None else frozenset()
        if world.brake is not None and not failed:
            return  # what the brake protects stays as it is
        formulated = await hub.formulate(world, now_s)
        target = plan.target_by_key() if new is None else {one.key: one.replicas for one in new.target}
        traffic = {
            model.name: policy.spec.traffic if (policy := world.documents.policy_of(model.name)) else Traffic()
            for model in formulated.problem.models
        }
        placed = frozenset(model.name for model in formulated.problem.models)
        routes_now = hub.routes

        def look() -> tuple[dict[tuple[str, str], int], shift.Outlook, dict[PlacementKey, int]]:
            outlook = shift.look(self._shift, world, routes_now, traffic, now_s)
            trusted = trustworthy(world.surely_ready_replicas(), outlook, formulated, demand_rps)
            return servable(world, formulated, plan), outlook, trusted

        ready, outlook, trusted = await hub.beside(look)
        for note in outlook.notes:
            hub.tell(note)
        ordered = staged.next_counts(self._pace, plan, target, world.ready_replicas(), placed)
        by_order = {key[0] for key in ordered}
        unordered = {key: count for key, count in target.items() if key[0] not in by_order}
        lessened = by_order | self._lessened(formulated.problem)
        routed = await self._route(formulated, {**unordered, **ordered}, ready, trusted, lessened)
        if self._shares is None or self._shares[0] is not routed:
            self._shares = routed, await hub.beside(routing.target_shares, formulated.problem, routed)
            notes, self._over_told_s = routing.over_target(routed, self._over_told_s, now_s)
            for note in notes:
                hub.tell(note)
        shares = self._shares[1]

        def follow() -> tuple[Routes, shift.Memory, rollout.Step]:
            leaving = still_served(world, plan, traffic.keys())
            routes = self._next_routes(world, formulated, shares, ready, traffic, leaving, outlook, now_s)
            load_rps = routing.load_rps(routes.routes, demand_rps)
            remembered = shift.after(outlook.memory, routes_now, routes, load_rps, traffic, now_s)
            step = rollout.next_step(
                rollout.Situation(
                    problem=formulated.problem,
                    target=target,
                    desired=told,
                    ready=world.ready_replicas(),
                    trusted=trusted,
                    load_rps=shift.peak_rps(remembered),
                    heard=frozenset(n for n, state in world.clusters.items() if state.phase is Phase.READY),
                    weighed=frozenset(n for n, state in world.clusters.items() if state.since_s <= planned_s),
                    postponed=postponed,
                    most=setbacks.limits(world.setbacks, now_s),
                    kept=kept_by_agents(world, plan, hub.epoch),
                    stuck=versions.stuck(world),
                    ordered=ordered,
                )
            )
            return routes, remembered, step

        routes, remembered, step = await hub.beside(follow)
        self._waiting = step.waiting
        aside = hub.aside
        after = {k: n for k, n in step.desired.items() if k[0] not in aside}
        after |= {k: n for k, n in told.items() if k[0] in aside}
        if world.brake is not None or hub.world.brake is not None:
            routes = self._numbered(routing.only(hub.routes, routes.routes, failed))
            as_it_is = versions.Advance(settled=plan.settled, versions=plan.versions)
            await self._commit(world, routes, told, plan.stops_by_key(), why, None, as_it_is, plan.forced)
            return
        careful = await hub.beside(
            staged.step,
            self._pace,
            staged.Situation(
                world=world,
                plan=plan,
                placed=placed,
                after=after,
                stops=step.stops,
                target=target,
                asked_rps=blast.asked_rps(demand_rps) if plan.forced else {},
                unserved_rps=blast.unserved_rps(routes, demand_rps) if plan.forced else {},
                last_step_s=self._staged_s,
                now_s=now_s,
                thought_s=hub.clock.wall_s() - (now_s - hub.carried_s),
            ),
        )
        desired = await hub.beside(forget_gone, careful.desired, world, plan, target)
        stops = {
            key: careful.stops.get(key) or kept
            for key, kept in {**dict.fromkeys(careful.stops, ""), **plan.stops_by_key()}.items()
            if key in desired and desired[key] <= told.get(key, 0)
        }
        advanced = await hub.beside(versions.advance, world, plan, desired, self._tried_s, now_s)
        await self._commit(world, routes, desired, stops, why, new, advanced, careful.forced)
        self._shift, self._tried_s = remembered, advanced.since_s
        self._staged_s = now_s if careful.has_stopped else self._staged_s
        for note in careful.notes:
            hub.tell(note)

    async def _route(
        self,
        formulated: Formulated,
        target: Mapping[PlacementKey, int],
        ready: Mapping[tuple[str, str], int],
        trusted: Mapping[PlacementKey, int],
        lessened: Collection[str],
    ) -> engine.Routing:
        """Shares among what is trusted; among all that is ready where that leaves users unserved, and then among what
        the target does not want too, but for models that are to serve less."""
        problem, wanted = formulated.problem, formulated.theirs(target)
        believed = {key: min(count, ready[key]) for key, count in formulated.theirs(trusted).items() if key in ready}
        used = rollout.to_be_used(problem, wanted, believed)
        routed = await self._ask(problem, used)
        told = await self._hub.beside(formulated.theirs, self._hub.plan.desired_by_key())
        if away := await self._hub.beside(rollout.in_the_way, problem, wanted, told, used):
            routed = await self._without(problem, used, away, routed)
        if routed.unserved and believed != ready:
            routed = _better(routed, await self._ask(problem, rollout.to_be_used(problem, wanted, ready)))
        short = {one.model for one in routed.unserved}.difference(lessened)
        if short:
            # Who comes and goes is not given users back for as long as the plan can do without.
            shaky = {name for name, state in self._hub.world.clusters.items() if state.unsteady_s is not None}
            steady = {key: n for key, n in ready.items() if key in wanted or formulated.keys[key[1]][0] not in shaky}
            aims = {key: count for key, count in wanted.items() if key[0] not in short}
            routed = _better(routed, await self._ask(problem, rollout.to_be_used(problem, aims, steady)))
        return routed

    async def _without(
        self,
        problem: engine.Problem,
        used: Mapping[tuple[str, str], int],
        away: Mapping[tuple[str, str], int],
        routed: engine.Routing,
    ) -> engine.Routing:
        """The routing without what stands in the way of others, for the models of which that leaves nobody unserved
        who is served by `routed`; where it does, without one replica of each, if that can be."""
        for most in (max(away.values()), 1):
            less = {key: used[key] - min(count, most) for key, count in away.items()}
            other = await self._ask(problem, {**used, **less})
            worse = _worse(routed, other)
            if worse:
                less = {key: count for key, count in less.items() if key[0] not in worse}
                other = await self._ask(problem, {**used, **less}) if less else routed
            if other is not routed:
                return other
        return routed

    def _lessened(self, problem: engine.Problem) -> frozenset[str]:
        """Models of which the newest plan leaves users unserved by choice, as a limit or their price says."""
        thought = self._hub.thought
        if thought is not None:
            return frozenset(one.model for one in thought.answer.solution.unserved if one.code in BY_CHOICE)
        in_budgets = {name for one in problem.budgets for name in one.models}
        return frozenset(one.name for one in problem.models if one.max_replicas is not None or one.name in in_budgets)

    async def _ask(self, problem: engine.Problem, ready: engine.Ready) -> engine.Routing:
        """The engine's routing; what was asked last is not asked again."""
        for asked, used, routed in self._answers:
            if asked is problem and used == ready:
                return routed
        routed = await self._solver.route(problem, ready)
        self._answers = (*self._answers[-ANSWERS_KEPT + 1 :], (problem, ready, routed))
        return routed

    def _next_routes(
        self,
        world: World,
        formulated: Formulated,
        targets: routing.Targets,
        ready: Mapping[tuple[str, str], int],
        traffic: Mapping[str, Traffic],
        leaving: Mapping[str, frozenset[str]],
        outlook: shift.Outlook,
        now_s: float,
    ) -> Routes:
        steps = {}
        for model, rules in traffic.items():
            passed = int((now_s - self._stepped_s.setdefault(model, now_s)) // rules.step_seconds)
            self._stepped_s[model] += passed * rules.step_seconds
            # A cycle that comes late makes no larger step: the point of steps is to see what each of them does.
            steps[model] = min(passed, max(1, int(world.timing.tick_s // rules.step_seconds)))
        serving: dict[str, frozenset[str]] = {}
        for model, pool in ready:
            serving[model] = serving.get(model, frozenset()) | {formulated.keys[pool][0]}
        serving |= leaving
        traffic = {**traffic, **dict.fromkeys(leaving, Traffic())}
        previous = self._hub.routes
        asked = _Asked(routes=previous, targets=targets, serving=serving, traffic=traffic)
        if self._arrived is not None and not outlook.barred and asked.is_as(self._arrived):
            return previous
        rows = routing.next_routes(
            previous.by_key(), targets, serving=serving, traffic=traffic, steps=steps, outlook=outlook
        )
        if aside := self._hub.aside:
            kept = [one for one in previous.routes if one.model in aside]
            rows = tuple(sorted([*(one for one in rows if one.model not in aside), *kept], key=_by_key))
        if len(rows) == len(previous.routes) and all(map(_has_arrived, rows, previous.routes)):
            self._arrived = asked
        return self._numbered(rows)

    def _numbered(self, rows: tuple[Route, ...]) -> Routes:
        """The next version of the routing table, or the same where nothing has changed."""
        previous = self._hub.routes
        if rows == previous.routes:
            return previous
        return Routes(version=previous.version + 1, at_s=self._hub.clock.wall_s(), routes=rows)

    async def _commit(
        self,
        world: World,
        routes: Routes,
        desired: Mapping[PlacementKey, int],
        stops: Mapping[PlacementKey, str],
        why: str,
        new: NewTarget | None,
        advanced: versions.Advance,
        forced: tuple[Forced, ...],
    ) -> None:
        hub, plan = self._hub, self._hub.plan
        digests = await hub.beside(self._digests_of, world, forced, desired, stops, advanced.versions)
        changed = new is not None or desired != plan.desired_by_key() or digests != plan.digests
        changed = changed or advanced.versions != plan.versions
        changed = changed or not self._kept_orders.issuperset(_orders(forced))  # a restart has to know of them
        if not changed:
            if advanced.settled != plan.settled or forced != plan.forced:
                hub.plan = replace(
                    plan, settled=advanced.settled, forced=forced
                )  # kept with the next commit: seen again until then
            if routes is not hub.routes:
                await self._store.save_routes(routes)
                hub.routes = routes
                hub.wake()
            return
        following = replace(
            await hub.beside(self._following, desired, stops, digests, why, new),
            settled=advanced.settled,
            versions=advanced.versions,
            forced=forced,
            known=hub.known(),
        )
        try:
            await self._store.commit(following, routes)
        except store.Stale:
            raise
        except store.StoreError:
            # Nobody is told a plan that a restart would not know of; shares still leave what is lost. The plan before
            # it is known to be outdated then: what is ready is stopped by none of its steps.
            hub.planned_s = hub.planned_s if new is None else float("-inf")
            hub.routes = routes
            hub.wake()
            return
        hub.plan, hub.routes = following, routes
        self._kept_orders = _orders(forced)
        hub.message = following.summary
        for note in advanced.notes:
            hub.tell(note)
        if following.changes or new is not None:
            object_name = f"plan/{following.epoch}.{following.generation}"
            hub.tell(Note(reason="Committed", object=object_name, message=following.summary))
        hub.republish.set("commit")
        hub.resteer.set("commit")
        hub.wake()

    def _digests_of(
        self,
        world: World,
        forced: tuple[Forced, ...],
        desired: Mapping[PlacementKey, int],
        stops: Mapping[PlacementKey, str],
        tried: Mapping[str, Versions],
    ) -> Mapping[str, str]:
        """Cluster -> digest of what it is to be told; computed when something that it depends on has changed."""
        basis = (world.documents, tuple(sorted(world.clusters)), forced, dict(desired), dict(stops), tried)
        if self._digests is None or self._digests[0] != basis:
            told = intent.workloads(staged.in_force(world.documents, forced), desired, stops, tried)
            self._digests = basis, {name: intent.digest(told.get(name, ())) for name in basis[1]}
        return self._digests[1]

    def _following(
        self,
        desired: Mapping[PlacementKey, int],
        stops: Mapping[PlacementKey, str],
        digests: Mapping[str, str],
        why: str,
        new: NewTarget | None,
    ) -> Plan:
        hub, plan = self._hub, self._hub.plan
        generation = plan.generation + 1
        target = plan.target if new is None else new.target
        reasons = {one.key: one.reason for one in plan.desired} | {one.key: one.reason for one in target}
        changes = changes_between(plan.desired_by_key(), desired, {one.key: one.reason for one in target})
        following = replace(
            plan,
            epoch=hub.epoch,
            generation=generation,
            at_s=hub.clock.wall_s(),
            trigger=why or "rollout",
            summary=summarise(changes, self._waiting),
            desired=tuple(
                Replicas(
                    model=k[0],
                    cluster=k[1],
                    pool=k[2],
                    replicas=n,
                    reason=reasons.get(k, "") if n else "leaving",
                    stop_reason=stops.get(k, ""),
                )
                for k, n in sorted(desired.items(), key=lambda item: item[0])
            ),
            changes=changes,
            moves=0,
            generations={
                name: generation if digests[name] != plan.digests.get(name) else plan.generations[name]
                for name in sorted(digests)
            },
            digests=dict(digests),
        )
        if new is None:
            return following
        return replace(
            following,
            target=new.target,
            trigger=new.trigger,
            summary=new.summary,
            moves=new.moves,
            costs=new.costs,
            near=new.near,
            near_by_model=new.near_by_model,
            bound_usd_per_hour=new.bound_usd_per_hour,
            gap=new.gap,
            bound_is_loose=new.bound_is_loose,
            unserved=new.unserved,
            missed_floors=new.missed_floors,
            reached_limits=new.reached_limits,
            history=new.history,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What the next step of a routing table depends on, once every share is where its target wants it."""

    routes: Routes
    targets: routing.Targets
    serving: Mapping[str, frozenset[str]]
    traffic: Mapping[str, Traffic]

    def is_as(self, other: _Asked) -> bool:
        """Whether the same is asked."""
        return (
            self.routes is other.routes
            and self.targets is other.targets
            and self.serving == other.serving
            and self.traffic == other.traffic
        )


def _has_arrived(row: Route, before: Route) -> bool:
    return row is before and row.now is row.target


def trustworthy(
    ready: Mapping[PlacementKey, int],
    outlook: shift.Outlook,
    formulated: Formulated,
    demand_rps: Mapping[tuple[str, str], float],
) -> dict[PlacementKey, int]:
    """Ready replicas that a shift may count on: of a barred receiver what it had before."""
    pools = {pool.name: pool for pool in formulated.problem.pools}
    models = {model.name: model for model in formulated.problem.models}
    kept: dict[PlacementKey, int] = {}
    left_rps = {
        key: sum(part * demand_rps.get((key[0], cell), 0.0) for cell, part in bar.before.items())
        for key, bar in outlook.barred.items()
    }
    for key, count in sorted(ready.items(), key=lambda item: item[0]):
        model, cluster, pool_key = key
        pool = pools.get(formulated.pool_name(cluster, pool_key))
        if (model, cluster) in left_rps and pool is not None and model in models:
            shape = models[model].shape_for(pool)
            each_rps = shape.requests_per_second * models[model].target_utilisation if shape is not None else 1.0
            count = min(count, math.ceil(left_rps[model, cluster] / each_rps - 1e-6))
            left_rps[model, cluster] = max(0.0, left_rps[model, cluster] - count * each_rps)
        if count > 0:
            kept[key] = count
    return kept


def _orders(forced: tuple[Forced, ...]) -> frozenset[tuple[str, float]]:
    return frozenset((one.object, one.at_s) for one in forced)


def _by_key(route: Route) -> tuple[str, str]:
    return route.model, route.cell


def _unserved_rps(routed: engine.Routing) -> float:
    return sum(one.requests_per_second for one in routed.unserved)


def _better(one: engine.Routing, other: engine.Routing) -> engine.Routing:
    """The one that leaves fewer users unserved."""
    return other if _unserved_rps(other) + 1e-6 < _unserved_rps(one) else one


def _worse(one: engine.Routing, other: engine.Routing) -> frozenset[str]:
    """Models of which `other` leaves more users unserved."""
    now, then = _unserved_by_model(one), _unserved_by_model(other)
    return frozenset(name for name, rps in then.items() if rps > now.get(name, 0.0) + 1e-6)


def _unserved_by_model(routed: engine.Routing) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for one in routed.unserved:
        found[one.model] += one.requests_per_second
    return found


def servable(world: World, formulated: Formulated, plan: Plan) -> dict[tuple[str, str], int]:
    """(model, pool name) -> replicas that may be sent requests: seen ready, wanted, in a cluster that is routable."""
    wanted = plan.desired_by_key()
    usable = {
        key: min(count, wanted.get(key, 0))
        for key, count in world.ready_replicas().items()
        if world.is_routable(key[1])
    }
    return formulated.theirs(usable)


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


def still_served(world: World, plan: Plan, placed: Collection[str]) -> dict[str, frozenset[str]]:
    """Models that a person withdrew and that are not stopped yet -> clusters that may go on to serve them."""
    leaving = {one.metadata.name for order in plan.forced for one in order.withdrawn} - set(placed)
    wanted = plan.desired_by_key()
    serving: dict[str, set[str]] = {model: set() for model in sorted(leaving)}
    for key, count in world.ready_replicas().items():
        if key[0] in leaving and min(count, wanted.get(key, 0)) > 0 and world.is_routable(key[1]):
            serving[key[0]].add(key[1])
    return {model: frozenset(clusters) for model, clusters in serving.items()}


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
            state = world.clusters.get(key[1])
            report = state.report if state is not None else None
            seen = report is None or any((r.model, r.pool) == (key[0], key[2]) for r in report.replicas)
            was_told = told.get(key) == 0 and versions.is_carried_out(world, plan, key[1])
            if state is None or (was_told and not seen):
                continue
        kept[key] = count
    return kept


def changes_between(
    before: Mapping[PlacementKey, int], after: Mapping[PlacementKey, int], reasons: Mapping[PlacementKey, str]
) -> tuple[Change, ...]:
    """Every desired count that differs."""
    keys = sorted(before.keys() | after.keys())
    return tuple(
        Change(
            model=key[0],
            cluster=key[1],
            pool=key[2],
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
