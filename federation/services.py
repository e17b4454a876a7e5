"""The API's view of a running controller: reads the shared state, asks the solver, keeps operators' orders."""

from __future__ import annotations

import asyncio
import difflib
from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

import placement as words
from federation.adapters.link import Link
from federation.adapters.solver import Solver, SolverError
from federation.adapters.store import NEWEST, Store, StoreError, StoreFull, Superseded
from federation.aiokit.tasks import Tasks
from federation.api import render, views
from federation.api.server import Refused, not_found
from federation.control import decide, nearness, setbacks
from federation.control.desired import version
from federation.control.placement_cycle import Solve
from federation.control.plan import Change, Near
from federation.control.rollout_cycle import changes_between
from federation.loops.frontier import Frontiers
from federation.loops.hub import Hub
from federation.loops.policies import Kept, NeedsForce, PolicyIntake, Rejected
from federation.state.demand import unconfirmed
from federation.state.keys import PlacementKey
from federation.state.reduce import Confirmed, CordonsSet, Note, waits
from federation.state.world import Cordon, World
from federation.traffic.snapshot import Index
from placement.explain.cell import CellExplanation
from placement.explain.frontier import Point
from placement.explain.model import Explanation

PLANS_AT_A_TIME = 20


class ControllerServices:
    """The controller as the API sees it."""

    def __init__(self, *, hub: Hub, store: Store, solver: Solver, desk: PolicyIntake, link: Link, tasks: Tasks) -> None:
        self.hub = hub
        self.metrics = hub.metrics
        self.clock = hub.clock
        self.desk = desk
        self.link = link
        self._store = store
        self._solver = solver
        self._frontiers = Frontiers(hub, solver, tasks)

    def scene(self) -> render.Scene:
        """This instant."""
        hub = self.hub
        return render.Scene(
            world=hub.world,
            plan=hub.plan,
            routes=hub.routes,
            epoch=hub.epoch,
            now_s=self.clock.monotonic_s(),
            at_s=self.clock.wall_s(),
            speed=self.clock.speed,
            message=hub.message,
            gateways=hub.gateways,
            foresight=hub.foresight,
            nearest_ms=hub.last_solve.outcome.nearest_ms if hub.last_solve is not None else None,
        )

    def why_not_ready(self) -> str:
        """Why this controller should not be asked yet, or nothing."""
        if self.hub.superseded or self.hub.rivalled():
            return self.hub.superseded or self.hub.rivalled()
        if not self.link.is_connected:
            return "not connected to the broker"
        if self.hub.world.deaf:
            return "not hearing the broker"
        if self.hub.routes.version and not self.hub.world.is_settled(self.clock.monotonic_s()):
            return "waiting for the clusters' reports; remembered routes are not served before"
        return ""

    def events_after(self, event_id: int) -> Sequence[views.EventView]:
        """Events after this id; all that are kept when the id is unknown (it is another start's)."""
        events = list(self.hub.events)
        if events and event_id > events[-1].id:
            event_id = 0
        return [msgspec.convert(one, views.EventView, from_attributes=True) for one in events if one.id > event_id]

    async def change(self, timeout_s: float) -> None:
        """Return when something has changed, or after the timeout."""
        await self.hub.change(timeout_s)

    def index(self) -> Index:
        """The routes from which requests are answered."""
        return self.hub.index

    async def plans(self, limit: int) -> Sequence[views.PlanView]:
        """The newest plans, newest first. Few are in memory at once: a plan of a large fleet has megabytes."""
        views_made: list[views.PlanView] = []
        before = NEWEST
        while len(views_made) < limit:
            page = await self._store.plans(min(PLANS_AT_A_TIME, limit - len(views_made)), before=before)
            if not page:
                break
            views_made += [render.plan_view(plan) for plan in page]
            before = page[-1].generation
        return views_made

    async def plan(self, generation: int) -> views.PlanView | None:
        """One plan; None if it is not kept."""
        plan = await self._store.plan(generation)
        return None if plan is None else render.plan_view(plan)

    def policies(self) -> Sequence[views.PolicyFileView]:
        """The policy files in force."""
        return [msgspec.convert(one, views.PolicyFileView, from_attributes=True) for one in self.desk.files()]

    async def explain(self, model: str, cluster: str | None, of: views.Explained = "plan") -> views.ExplanationView:
        """Why a model is where it is, by the plan in force or by the newest solve. Raises: Refused."""
        solve = self._solve_of(model)
        kept = solve.outcome.kept_because(model)
        problem, newest = solve.formulated.problem, solve.proposal.solution
        try:
            if of == "plan" and kept:
                planned = await asyncio.to_thread(decide.appraise, solve.outcome.question, solve.outcome.decision)
                found = await self._solver.explain(problem, planned, model, kept)
            else:
                found = await self._solver.explain(problem, newest, model)
        except SolverError as error:
            raise Refused(503, "SolverFailed", str(error), "try again") from error
        view = msgspec.structs.replace(self._explanation(found), of=of, kept_because=kept)
        view = self._with_setbacks(model, view)
        if cluster is None:
            return view
        verdicts = tuple(one for one in view.clusters if one.cluster == cluster)
        if not verdicts:
            raise not_found(f"cluster {cluster} not found", "clusters")
        return msgspec.structs.replace(view, clusters=verdicts)

    async def explain_cell(self, model: str, cell: str) -> views.CellExplanationView:
        """Why a cell's requests to a model go where they go. Raises: Refused."""
        solve = self._solve_of(model)
        problem = solve.formulated.problem
        asking = sorted(one.cell for one in problem.demands if one.model == model and one.requests_per_second > 0)
        if cell not in asking:
            near = difflib.get_close_matches(cell, asking, n=1)
            hint = f"did you mean {near[0]}?" if near else f"cells that ask: {', '.join(asking[:5]) or 'none'}"
            raise Refused(404, "NotFound", f"nobody in cell {cell} asks for {model}", hint)
        try:
            found = await self._solver.explain_cell(problem, solve.proposal.solution, model, cell)
        except SolverError as error:
            raise Refused(503, "SolverFailed", str(error), "try again") from error
        return msgspec.convert(self._of_plan(found), views.CellExplanationView)

    async def frontier(self, model: str) -> views.FrontierView:
        """The curve of cost against round trip, as far as it is computed. Raises: Refused."""
        solve = self._solve_of(model) if model else self._any_solve()
        curve = await self._frontiers.ask(solve, model)
        if curve.failed:
            raise Refused(503, "SolverFailed", curve.failed, "try again")
        standing = curve.standing
        return views.FrontierView(
            model=model,
            epoch=curve.epoch,
            generation=curve.generation,
            is_done=curve.ended_s is not None,
            wanted=curve.wanted,
            points=tuple(_point_view(one) for one in curve.points),
            in_parts=standing.in_parts,
            on_curve=None if standing.on_curve is None else _point_view(standing.on_curve),
            planned=None if standing.planned is None else _point_view(standing.planned),
            says=curve.says,
            seconds=round(curve.seconds, 2),
        )

    def _any_solve(self) -> Solve:
        """The same of any model."""
        solve = self.hub.last_solve
        if solve is None:
            raise Refused(409, "NotPlanned", "no plan has been made since this controller started", "try again soon")
        return solve

    def _solve_of(self, model: str) -> Solve:
        """The problem and solution of the newest plan. Raises: Refused without one, or if the model is not in it."""
        solve = self._any_solve()
        names = {one.name for one in solve.formulated.problem.models}
        if model not in names:
            leaving = [one for one in self.hub.plan.forced if model in {gone.metadata.name for gone in one.withdrawn}]
            if leaving:
                left = sum(one.replicas for one in self.hub.plan.desired if one.model == model)
                text = f"{model} is {leaving[0].words(model)}; {left} replicas are left"
                hint = "they serve by its last documents until they are gone, step by step; `isochrone get policies`"
                raise Refused(409, "Withdrawn", text, hint)
            hint = f"placed models: {', '.join(sorted(names)) or 'none'}"
            raise Refused(404, "NotFound", f"model {model} is not placed", hint)
        return solve

    def _with_setbacks(self, model: str, view: views.ExplanationView) -> views.ExplanationView:
        """The explanation with clusters in which the model did not become ready marked so: the engine sees no room
        there."""
        now_s = self.clock.monotonic_s()
        told = {
            key.cluster: setbacks.sentence(one, now_s)
            for key, one in self.hub.world.setbacks.backoffs.items()
            if key.model == model
        }
        clusters = tuple(
            msgspec.structs.replace(one, code="BackOff", reason=told[one.cluster])
            if one.cluster in told and not one.replicas
            else one
            for one in view.clusters
        )
        return msgspec.structs.replace(view, clusters=clusters)

    def _explanation(self, found: Explanation) -> views.ExplanationView:
        return msgspec.convert(self._of_plan(found), views.ExplanationView)

    def _of_plan(self, found: Explanation | CellExplanation) -> dict[str, object]:
        """The plan in force that an explanation is of, with it."""
        made: dict[str, object] = msgspec.to_builtins(found)
        return made | {"epoch": self.hub.plan.epoch, "generation": self.hub.plan.generation}

    def _leads(self) -> None:
        """Orders are accepted only by the controller that carries them out. Raises: Refused beside a leading
        controller."""
        why = self.hub.rivalled()
        if why:
            raise Refused(409, "NotLeading", why, "ask that controller")

    async def apply(self, name: str, payload: bytes, actor: str, force: str = "") -> views.AppliedView:
        """Accept documents; they are durable when this returns. Args: force: the reason to override the guard. Raises:
        Refused."""
        self._leads()
        try:
            accepted = await self.desk.accept(name, payload, actor=actor, force=force)
        except Rejected as error:
            raise self._rejected(error) from error
        except StoreError as error:
            raise self._not_stored(error, "what is accepted stays") from error
        return msgspec.convert(accepted, views.AppliedView, from_attributes=True)

    async def roll_back(self, name: str, revision: int | None, actor: str, force: str = "") -> views.AppliedView:
        """Put an earlier revision of a policy file in force again. Args: force: as `apply`. Raises: Refused."""
        self._leads()
        try:
            accepted = await self.desk.roll_back(name, revision, actor=actor, force=force)
        except KeyError:
            raise not_found(f"no earlier revision of policy {name} is kept", "policies") from None
        except Kept as error:
            raise Refused(409, "Conflict", str(error), error.hint) from error
        except Rejected as error:
            raise self._rejected(error) from error
        except StoreError as error:
            raise self._not_stored(error, "what is accepted stays") from error
        return msgspec.convert(accepted, views.AppliedView, from_attributes=True)

    async def withdraw(self, name: str, actor: str, force: str = "") -> views.WithdrawnView:
        """Take a policy file out of force. Args: force: the reason to override the guard. Raises: Refused."""
        self._leads()
        try:
            names = await self.desk.withdraw(name, actor=actor, force=force)
        except KeyError:
            raise not_found(f"policy {name} not found", "policies") from None
        except Kept as error:
            raise Refused(409, "Conflict", str(error), error.hint) from error
        except Rejected as error:
            raise self._rejected(error) from error
        except StoreError as error:
            raise self._not_stored(error, "the policy stays") from error
        return views.WithdrawnView(name=name, documents=names)

    def _not_stored(self, error: StoreError, stays: str) -> Refused:
        """Translates store errors: an operator's order is durable or refused."""
        if isinstance(error, Superseded):
            self.hub.supersede(str(error))
            return Refused(409, "Superseded", str(error), "ask that controller, and stop this one")
        if isinstance(error, StoreFull):
            return Refused(507, "InsufficientStorage", str(error), f"free disk space, then try again; {stays}")
        return Refused(503, "StoreFailed", str(error), f"mend the store, then try again; {stays}")

    @staticmethod
    def _rejected(error: Rejected) -> Refused:
        hint = "correct the file; what was accepted before stays in force"
        problems = tuple(msgspec.convert(one, views.ProblemView, from_attributes=True) for one in error.problems)
        if isinstance(error, NeedsForce):
            return Refused(409, "NeedsForce", str(error), error.problems[0].hint, problems)
        if not any(one.unread for one in error.problems):
            return Refused(409, "Contradiction", str(error), hint, problems)
        return Refused(422, "Invalid", str(error), hint, problems)

    async def cordon(self, cluster: str, reason: str, *, drain: bool, force: bool = False) -> None:
        """Store a cordon or drain, then act on it. Args: force: a drain whatever harm it does. Raises: Refused."""
        self._leads()
        refusals = await self.desk.refuses_drain(cluster) if drain and not force else ()
        if refusals:
            text = f"{cluster} would be drained of users whom no other cluster can serve: {'; '.join(refusals)}"
            raise Refused(409, "NeedsForce", text, 'if this is intended, drain it with --force --reason "…"')
        await self._set_cordon(cluster, Cordon(reason=reason, drain=drain))
        verb = "drained" if drain else "cordoned"
        self.hub.tell(Note(reason="Cordoned", object=f"cluster/{cluster}", message=f"{cluster} is {verb}: {reason}"))

    async def uncordon(self, cluster: str) -> None:
        """Remove a cordon or drain. Raises: Refused."""
        self._leads()
        await self._set_cordon(cluster, None)
        self.hub.tell(Note(reason="Uncordoned", object=f"cluster/{cluster}", message=f"{cluster} takes load again"))

    async def confirm(self, cluster: str, model: str, reason: str) -> None:
        """Confirm the claims of a cluster that wait. The confirmation is in the audit log, its effect in the next
        plan.

        Args: model: confirm the users of this model only; empty: everything that waits. Raises: Refused.
        """
        self._leads()
        world = self.hub.world
        if not waits(world, cluster, model):
            models = ", ".join(unconfirmed(world, cluster))
            what = f"no demand for model {model}" if model else "nothing"
            hint = (
                f"demand for {models} waits"
                if models
                else "what is declared (devices, prices) is raised in its document"
            )
            raise Refused(409, "NothingWaits", f"{what} of {cluster} waits for confirmation", hint)
        subject = f"cluster/{cluster}" + (f" model/{model}" if model else "")
        try:
            await self._store.keep_word("confirm", subject, reason, at_s=self.clock.wall_s(), actor="api")
        except StoreError as error:
            raise self._not_stored(error, f"{cluster} is believed no more than before") from error
        self.hub.apply(Confirmed(cluster=cluster, model=model, reason=reason, now_s=self.clock.monotonic_s()))

    async def _set_cordon(self, cluster: str, cordon: Cordon | None) -> None:
        try:
            await self._store.set_cordon(cluster, cordon, at_s=self.clock.wall_s(), actor="api")
        except StoreError as error:
            raise self._not_stored(error, f"{cluster} stays as it is") from error
        cordons = {name: word for name, word in self.hub.world.cordons.items() if name != cluster}
        if cordon is not None:
            cordons[cluster] = cordon
        self.hub.apply(CordonsSet(cordons=cordons))

    async def diff(self, name: str, payload: bytes) -> views.DiffView:
        """What would move if these documents were accepted. Changes nothing. Raises: Refused."""
        try:
            world = self.desk.what_if(name, payload)
        except Rejected as error:
            raise self._rejected(error) from error
        hub = self.hub
        before = hub.plan.target_by_key()
        scene = render.overview(self.scene())
        if world.documents == hub.world.documents:
            return _no_difference(scene)
        formulated = await hub.formulate(world, self.clock.monotonic_s())
        try:
            answer = await self._solver.solve(formulated.problem, formulated.present)
        except SolverError as error:
            raise Refused(503, "SolverFailed", str(error), "try again") from error
        after = formulated.ours(answer.solution.replicas)
        why = {PlacementKey(m, *formulated.keys[pool]): text for (m, pool), text in answer.reasons.items()}
        changes = changes_between(before, after, why)
        refused = await self.desk.refusals(world.documents, formulated, answer)
        near_after, _ = await asyncio.to_thread(_near_of, formulated.problem, answer.solution.flows)
        new_ms = _mean_latency(answer.solution.flows)
        old_ms = _mean_latency_now(scene)
        restarts = _restarts(hub, world)
        gone = {key.model for key, count in before.items() if count} - {one.name for one in formulated.problem.models}
        lost_rps = sum(rps for (model, _), rps in hub.demand_rps().items() if model in gone)
        return views.DiffView(
            changed=bool(changes or restarts),
            refused=refused,
            restarts=restarts,
            usd_per_hour_before=scene.usd_per_hour,
            usd_per_hour_after=answer.solution.cost.accelerators,
            near_before=scene.near,
            near_after=render.near_view(near_after),
            changes=tuple(_move_view(change) for change in changes),
            latency=tuple(
                views.LatencyChangeView(model=m, cell=c, before_ms=old_ms.get((m, c)), after_ms=new_ms.get((m, c)))
                for m, c in sorted(old_ms.keys() | new_ms.keys())
                if _differs(old_ms.get((m, c)), new_ms.get((m, c)))
            ),
            unserved_rps_before=scene.unserved_rps,
            unserved_rps_after=lost_rps + sum(one.requests_per_second for one in answer.solution.unserved),
        )


def _restarts(hub: Hub, after: World) -> tuple[views.RestartView, ...]:
    """Replicas whose image, arguments or resources would change."""
    was = {one.metadata.name: version(one) for one in hub.world.documents.models}
    running: dict[str, int] = {}
    for key, count in hub.plan.desired_by_key().items():
        running[key.model] = running.get(key.model, 0) + count
    return tuple(
        views.RestartView(model=name, replicas=running[name])
        for one in after.documents.models
        if running.get(name := one.metadata.name) and was.get(name, version(one)) != version(one)
    )


def _no_difference(scene: views.OverviewView) -> views.DiffView:
    return views.DiffView(
        changed=False,
        usd_per_hour_before=scene.usd_per_hour,
        usd_per_hour_after=scene.usd_per_hour,
        near_before=scene.near,
        near_after=scene.near,
        changes=(),
        latency=(),
        unserved_rps_before=scene.unserved_rps,
        unserved_rps_after=scene.unserved_rps,
    )


def _point_view(point: Point) -> views.FrontierPointView:
    return msgspec.convert(point, views.FrontierPointView, from_attributes=True)


def _move_view(change: Change) -> views.MoveView:
    return views.MoveView(
        model=change.model,
        cluster=change.cluster,
        pool=change.pool.text,
        before=change.before,
        after=change.after,
        reason=change.reason,
    )


def _near_of(problem: words.Problem, flows: Sequence[words.Flow]) -> tuple[Near | None, dict[str, Near]]:
    return nearness.of_flows(problem, flows, nearness.nearest(problem))


def _mean_latency(flows: Iterable[words.Flow]) -> dict[tuple[str, str], float]:
    """(model, cell) -> mean over served requests."""
    return _means((flow.model, flow.cell, flow.requests_per_second, flow.latency_ms) for flow in flows)


def _mean_latency_now(scene: views.OverviewView) -> dict[tuple[str, str], float]:
    return _means(
        (one.model, cell.name, route.share, route.latency_ms)
        for cell in scene.cells
        for one in cell.demand
        for route in one.routes
    )


def _means(rows: Iterable[tuple[str, str, float, float]]) -> dict[tuple[str, str], float]:
    weights: dict[tuple[str, str], float] = defaultdict(float)
    sums: dict[tuple[str, str], float] = defaultdict(float)
    for model, cell, weight, value in rows:
        weights[model, cell] += weight
        sums[model, cell] += weight * value
    return {key: round(sums[key] / weight, 1) for key, weight in weights.items() if weight > 0}


def _differs(before_ms: float | None, after_ms: float | None) -> bool:
    return before_ms is None or after_ms is None or abs(before_ms - after_ms) >= 1.0
