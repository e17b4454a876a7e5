"""The fast loop: routing for the replicas that are ready, and the next step of the rollout. Commits before publishing.

Runs when something that serves has changed, and while shares or replicas are still on their way. It never waits for a
placement solve. What decides is in `control/rollout_cycle.py` and the modules that it names.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace

import structlog

import placement as engine
from federation.adapters import store
from federation.adapters.solver import Solver, SolverError
from federation.control import (
    blast,
    leadership,
    rollout,
    rollout_cycle,
    routing,
    setbacks,
    shift,
    spot_learning,
    staged,
    versions,
)
from federation.control import desired as intent
from federation.control.placement_cycle import NewPlacement
from federation.control.plan import Forced, Routes, Versions
from federation.control.rollout_cycle import Beliefs, Decided, Serving, TableMemory
from federation.loops.hub import Hub
from federation.state.keys import PlacementKey
from federation.state.reduce import Note, SetbacksSeen, SpotSeen
from federation.state.world import World

log = structlog.get_logger("steer")
REST = 1.0
"""A step is followed by a rest of so many times as long as it took."""
ANSWERS_KEPT = 5
"""Of routing: as many questions as one step may ask."""


class Steer:
    """The fast loop of one controller."""

    def __init__(self, hub: Hub, solver: Solver, database: store.Store, pace: staged.Pace | None = None) -> None:
        self._hub = hub
        self._solver = solver
        self._store = database
        self._table = TableMemory()
        self._digests: tuple[object, Mapping[str, str]] | None = None
        self._answers: tuple[tuple[engine.Problem, engine.Ready, engine.Routing], ...] = ()
        self._shares: tuple[engine.Routing, routing.Targets] | None = None
        self._over_told_s: dict[str, float] = {}
        self._spot: spot_learning.Seen | None = None
        """Model -> when people were last told that clusters serve it above the target utilisation."""
        self._waiting: tuple[str, ...] = ()
        self._tried_s: Mapping[str, float] = {}
        """Model -> since when its newest version is tried."""
        self._pace = pace or staged.Pace()
        self._staged_s = float("-inf")
        """When something that a person ordered to stop was last stopped."""
        self._kept_orders = rollout_cycle.orders(hub.plan.forced)
        """Which orders of people the newest stored plan has."""
        self._shift = shift.ShiftMemory()
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

    async def once(self, why: str, new: NewPlacement | None = None) -> None:
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

    async def _look_at_spot(self, now_s: float) -> None:
        hub, before = self._hub, self._spot
        if before is not None and now_s - before.at_s < spot_learning.EVERY_S:
            return
        desired, wall_s = hub.plan.desired_by_key(), hub.clock.wall_s()
        self._spot, counts = await hub.beside(spot_learning.look, hub.world, desired, before, now_s, wall_s)
        if counts is not hub.world.spot:
            hub.apply(SpotSeen(counts=counts))

    async def _step(self, why: str, new: NewPlacement | None) -> None:
        hub = self._hub
        # 1. Freeze what is believed.
        now_s = hub.clock.monotonic_s()
        setbacks_seen, notes = await hub.beside(setbacks.look, hub.world, hub.plan.desired_by_key(), now_s)
        if setbacks_seen is not hub.world.setbacks:
            hub.apply(SetbacksSeen(setbacks=setbacks_seen, notes=notes))
        await self._look_at_spot(now_s)
        world = hub.world
        lost = routing.without_replicas(world, hub.routes) if world.brake is not None else frozenset()
        if world.brake is not None and not lost:
            return  # what the brake protects stays as it is
        beliefs = await self._beliefs(world, now_s, new)
        # 2. See which replicas may serve.
        serving = await hub.beside(rollout_cycle.serving, beliefs, self._shift)
        self._tell(serving.outlook.notes)
        # 3. Ask the engine who serves whom.
        ordered = staged.next_counts(self._pace, beliefs.plan, beliefs.target, world.ready_replicas(), beliefs.placed)
        routed = await self._route(beliefs, serving, ordered)
        if self._shares is None or self._shares[0] is not routed:
            self._shares = routed, await hub.beside(routing.target_shares, beliefs.formulated.problem, routed)
            notes, self._over_told_s = routing.over_target(routed, self._over_told_s, now_s)
            self._tell(notes)
        # 4. Move shares, and take the next step of the rollout.
        routes, self._table = await hub.beside(
            rollout_cycle.next_routes, beliefs, self._table, serving, self._shares[1]
        )
        remembered = await hub.beside(rollout_cycle.remember_shift, beliefs, serving, routes)
        step = await hub.beside(rollout_cycle.next_step, beliefs, serving, shift.peak_rps(remembered), ordered)
        self._waiting = step.waiting
        if world.brake is not None or hub.world.brake is not None:
            routes = rollout_cycle.numbered(
                hub.routes, routing.only(hub.routes, routes.routes, lost), hub.clock.wall_s()
            )
            await self._commit(routes, await self._as_it_is(beliefs), why)
            return
        # 5. Let people's orders go step by step, and versions of models advance.
        careful = await hub.beside(self._staged, beliefs, step, routes)
        desired = await hub.beside(rollout_cycle.forget_gone, careful.desired, world, beliefs.plan, beliefs.target)
        stops = rollout_cycle.stop_reasons(beliefs.plan, desired, careful.stops)
        advanced = await hub.beside(versions.advance, world, beliefs.plan, desired, self._tried_s, now_s)
        digests = await hub.beside(self._digests_of, world, careful.forced, desired, stops, advanced.versions)
        # 6. Commit, then remember.
        decided = Decided(
            desired=desired, stops=stops, digests=digests, advanced=advanced, forced=careful.forced, new=new
        )
        await self._commit(routes, decided, why)
        self._shift, self._tried_s = remembered, advanced.since_s
        self._staged_s = now_s if careful.has_stopped else self._staged_s
        self._tell(careful.notes)

    async def _beliefs(self, world: World, now_s: float, new: NewPlacement | None) -> Beliefs:
        hub = self._hub
        plan, planned_s, postponed, aside = hub.plan, hub.planned_s, hub.postponed, hub.aside
        formulated = await hub.formulate(world, now_s, aside, routes=True)
        return Beliefs(
            world=world,
            plan=plan,
            routes=hub.routes,
            formulated=formulated,
            target=plan.target_by_key() if new is None else new.placement.by_key(),
            traffic=rollout_cycle.traffic_of(world, formulated),
            demand_rps=hub.demand_rps(),
            epoch=hub.epoch,
            planned_s=planned_s,
            postponed=postponed,
            aside=aside.keys(),
            now_s=now_s,
            wall_s=hub.clock.wall_s(),
        )

    async def _route(self, beliefs: Beliefs, serving: Serving, ordered: Mapping[PlacementKey, int]) -> engine.Routing:
        """Who serves whom: what `choose_routing` asks is put to the engine until it has chosen."""
        hub, problem = self._hub, beliefs.formulated.problem
        by_order = {key.model for key in ordered}
        aims = {key: count for key, count in beliefs.target.items() if key.model not in by_order} | dict(ordered)
        proposal = hub.last_solve.proposal if hub.last_solve is not None else None
        serve_less = by_order | rollout_cycle.short_by_choice(problem, proposal)
        asking = rollout_cycle.choose_routing(beliefs, serving, aims, serve_less)
        asked = await hub.beside(rollout_cycle.answer, asking, None)
        while not isinstance(asked, engine.Routing):
            asked = await hub.beside(rollout_cycle.answer, asking, await self._ask(problem, asked))
        return asked

    async def _ask(self, problem: engine.Problem, ready: engine.Ready) -> engine.Routing:
        """The engine's routing; what was asked last is not asked again."""
        for asked, used, routed in self._answers:
            if asked is problem and used == ready:
                return routed
        routed = await self._solver.route(problem, ready)
        self._answers = (*self._answers[-ANSWERS_KEPT + 1 :], (problem, ready, routed))
        return routed

    def _staged(self, beliefs: Beliefs, step: rollout.Step, routes: Routes) -> staged.StagedStep:
        """What of a step people's orders let go now."""
        hub, plan, demand_rps = self._hub, beliefs.plan, beliefs.demand_rps
        situation = staged.StagedSituation(
            world=beliefs.world,
            plan=plan,
            placed=beliefs.placed,
            after=step.desired,
            stops=step.stops,
            target=beliefs.target,
            asked_rps=blast.asked_rps(demand_rps) if plan.forced else {},
            unserved_rps=blast.unserved_rps(routes, demand_rps) if plan.forced else {},
            last_step_s=self._staged_s,
            now_s=beliefs.now_s,
            thought_s=beliefs.wall_s - (beliefs.now_s - hub.carried_s),
        )
        return staged.step(self._pace, situation)

    async def _as_it_is(self, beliefs: Beliefs) -> Decided:
        """Nothing that agents are told changes."""
        plan = beliefs.plan
        desired, stops = plan.desired_by_key(), plan.stops_by_key()
        digests = await self._hub.beside(self._digests_of, beliefs.world, plan.forced, desired, stops, plan.versions)
        as_it_is = versions.Advance(settled=plan.settled, versions=plan.versions)
        return Decided(desired=desired, stops=stops, digests=digests, advanced=as_it_is, forced=plan.forced)

    async def _commit(self, routes: Routes, decided: Decided, why: str) -> None:
        """Store the next plan and the routing that goes with it, then let the other loops see them."""
        hub, plan, advanced = self._hub, self._hub.plan, decided.advanced
        if not decided.changes(plan, self._kept_orders):
            if advanced.settled != plan.settled or decided.forced != plan.forced:
                # Stored with the next plan; seen again until then.
                hub.plan = replace(plan, settled=advanced.settled, forced=decided.forced)
            if routes is not hub.routes:
                await self._store.save_routes(routes)
                hub.routes = routes
                hub.wake()
            return
        following = await hub.beside(
            rollout_cycle.next_plan,
            plan,
            decided,
            epoch=hub.epoch,
            wall_s=hub.clock.wall_s(),
            why=why,
            waiting=self._waiting,
            known=hub.known(),
        )
        try:
            await self._store.commit(following, routes)
        except store.Stale:
            raise
        except store.StoreError:
            # Nobody is told a plan that a restart would not know of; shares still leave what is lost. The plan before
            # it is known to be outdated then: what is ready is stopped by none of its steps.
            hub.planned_s = hub.planned_s if decided.new is None else float("-inf")
            hub.routes = routes
            hub.wake()
            return
        hub.plan, hub.routes = following, routes
        self._kept_orders = rollout_cycle.orders(decided.forced)
        hub.message = following.summary
        self._tell(advanced.notes)
        if following.changes or decided.new is not None:
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
            documents = staged.in_force(world.documents, forced)
            self._digests = basis, intent.digests(basis[1], documents, desired, stops, tried)
        return self._digests[1]

    def _tell(self, notes: Iterable[Note]) -> None:
        for note in notes:
            self._hub.tell(note)
