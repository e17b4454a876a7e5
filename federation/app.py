"""Composition root: builds and wires one controller, owns its start and its stop.

Order is part of the contract. Starting: remember, take the epoch, believe the documents, then listen. Stopping: first
the loops that decide, then the links, last the store.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import msgspec
import structlog
from aiohttp import web

from federation.adapters.embedded_broker import EmbeddedBroker
from federation.adapters.link import Link
from federation.adapters.solver import Solver, SolverError
from federation.adapters.store import Store, StoreFull
from federation.aiokit.broker import BrokerAddress
from federation.aiokit.clock import Clock
from federation.aiokit.tasks import Tasks
from federation.api import render, server, views
from federation.api.server import Refused
from federation.control import decide, latency
from federation.control.plan import Change
from federation.control.problem import formulate
from federation.loops import tick
from federation.loops.hub import Hub
from federation.loops.plan import Planner
from federation.loops.policies import Desk, Rejected
from federation.loops.publish import Publisher
from federation.loops.steer import Steer, changes_between
from federation.metrics import Metrics
from federation.settings import Settings
from federation.state.reduce import BrokerFound, BrokerLost, CordonsSet, Heard, Note
from federation.state.world import Cordon, PlacementKey, World
from federation.wire import messages
from placement import explain as reasons

log = structlog.get_logger("controller")
WEB_DIR = Path(__file__).parent / "web" / "dist"


def version() -> str:
    """The installed version of the product."""
    return metadata.version("isochrone")


class Controller:
    """One controller: `start`, then it runs until `stop`.

    Args: token: what opens the API; None makes one. clock: the demo's runs faster.
    Raises: on `start`, BrokerDown, StoreError, InsecureAddress, InsecureListen, OSError, each with what to do.
    """

    def __init__(self, settings: Settings, *, clock: Clock | None = None, token: str | None = None) -> None:
        self.settings = settings
        self.clock = clock or Clock()
        self.token = token or secrets.token_urlsafe(24)
        self.metrics = Metrics()
        self.url = ""
        self._rng = random.Random(settings.seed)
        self._tasks = Tasks()
        self._solver = Solver()
        self._store = Store(settings.data_dir / "isochrone.sqlite" if settings.data_dir else None)
        self._embedded: EmbeddedBroker | None = None
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Serve, listen, decide."""
        listen = self.settings.listen
        tls = server.tls_context(listen.host, listen.cert_file, listen.key_file)
        self.broker = await self._broker_address()
        remembered = await self._store.open()
        world = World(timing=self.settings.timing, started_s=self.clock.monotonic_s())
        self.hub = Hub(
            world=world,
            plan=remembered.plan,
            routes=remembered.routes,
            epoch=remembered.epoch,
            clock=self.clock,
            metrics=self.metrics,
        )
        self.desk = Desk(self.hub, self._store)
        self.desk.restore(remembered.policies)
        self.hub.apply(CordonsSet(cordons=remembered.cordons))
        if self.settings.policies_dir is not None:
            await self.desk.read(self.settings.policies_dir)
        await self._solver.warm()
        self._wire()
        await self._serve(tls)
        text = f"epoch {remembered.epoch}, {len(self.hub.world.clusters)} clusters in the catalogue"
        self.hub.tell(Note(reason="Started", object="controller", message=f"controller started: {text}"))

    async def stop(self) -> None:
        """End everything that was started; whatever was committed stays."""
        await self._tasks.stop()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._embedded is not None:
            await self._embedded.stop()
        await self._solver.close()
        await self._store.close()

    async def _broker_address(self) -> BrokerAddress:
        settings = self.settings
        if settings.broker_url is not None:
            return BrokerAddress.parse(
                settings.broker_url,
                ca_file=settings.broker_ca_file,
                cert_file=settings.broker_cert_file,
                key_file=settings.broker_key_file,
            )
        self._embedded = EmbeddedBroker(port=settings.broker_port)
        await self._embedded.start()
        return self._embedded.address

    def _wire(self) -> None:
        hub, settings = self.hub, self.settings
        self.link = Link(
            self.broker,
            clock=self.clock,
            rng=self._rng,
            on_message=lambda message, retained: hub.apply(
                Heard(message=message, now_s=self.clock.monotonic_s(), retained=retained)
            ),
            on_refused=self._on_refused,
            on_connected=self._on_connected,
            on_lost=lambda: hub.apply(BrokerLost(now_s=self.clock.monotonic_s())),
        )
        self.publisher = Publisher(hub, self.link)
        self.steer = Steer(hub, self._solver, self._store)
        self.planner = Planner(hub, self._solver, self.steer)
        loops = {
            "link": self.link.run,
            "tick": lambda: tick.run(hub),
            "steer": lambda: self.steer.run(settings.steer_spacing_s),
            "plan": lambda: self.planner.run(settings.plan_period_s, settings.plan_spacing_s),
            "publish": self.publisher.run,
        }
        directory = settings.policies_dir
        if directory is not None:
            loops["policies"] = lambda: self.desk.watch(directory)
        for name, body in loops.items():
            self._tasks.supervise(name, body, clock=Clock(), rng=self._rng)

    def _on_refused(self, topic: str, cause: str) -> None:
        self.metrics.reports_total.labels(result="invalid").inc()
        log.warning("message refused", topic=topic, cause=cause)

    async def _on_connected(self) -> None:
        self.hub.apply(BrokerFound(now_s=self.clock.monotonic_s()))
        await self.publisher.everything()

    async def _serve(self, tls: object) -> None:
        listen = self.settings.listen
        web_dir = WEB_DIR if WEB_DIR.is_dir() else None
        app = server.application(self, token=self.token, web_dir=web_dir, version=version())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, listen.host, listen.port, ssl_context=tls)  # type: ignore[arg-type]
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"{'https' if tls else 'http'}://{listen.host}:{port}"

    @property
    def sign_in_url(self) -> str:
        """The link that opens the map already signed in."""
        return f"{self.url}/signin?token={self.token}"

    # ---- what the API asks

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
        )

    def is_ready(self) -> str:
        """Why this controller should not be asked yet, or nothing."""
        return "" if self.link.is_connected else "not connected to the broker"

    def events_after(self, event_id: int) -> Sequence[views.EventView]:
        """Events newer than one; all that are kept when it is unknown here (another start's numbers)."""
        events = list(self.hub.events)
        if events and event_id > events[-1].id:
            event_id = 0
        return [views.EventView(**msgspec.structs.asdict(msgspec.convert(one, views.EventView, from_attributes=True))) for one in events if one.id > event_id]

    async def change(self, timeout_s: float) -> None:
        """Return when something has changed, or after the timeout."""
        await self.hub.change(timeout_s)

    async def plans(self, limit: int) -> Sequence[views.PlanView]:
        """The newest plans, newest first."""
        return [render.plan_view(plan) for plan in await self._store.plans(limit)]

    def policies(self) -> Sequence[views.PolicyFileView]:
        """The policy files in force."""
        return self.desk.files()

    async def explain(self, model: str, cluster: str | None) -> views.ExplanationView:
        """Why a model is where it is. Raises: Refused."""
        thought = self.hub.thought
        if thought is None:
            raise Refused(409, "NotPlanned", "no plan has been made since this controller started", "try again soon")
        names = {one.name for one in thought.formulated.problem.models}
        if model not in names:
            hint = f"placed models: {', '.join(sorted(names)) or 'none'}"
            raise Refused(404, "NotFound", f"model {model} is not placed", hint)
        try:
            found = await self._solver.explain(thought.formulated.problem, thought.answer.solution, model)
        except SolverError as error:
            raise Refused(503, "SolverFailed", str(error), "try again") from error
        view = self._explanation(found)
        if cluster is None:
            return view
        verdicts = tuple(one for one in view.clusters if one.cluster == cluster)
        if not verdicts:
            raise Refused(404, "NotFound", f"cluster {cluster} not found", "GET /v1/clusters lists what there is")
        return msgspec.structs.replace(view, clusters=verdicts)

    def _explanation(self, found: reasons.Explanation) -> views.ExplanationView:
        made = msgspec.to_builtins(found)
        made |= {"epoch": self.hub.plan.epoch, "generation": self.hub.plan.generation}
        return msgspec.convert(made, views.ExplanationView)

    async def apply(self, name: str, payload: bytes, actor: str) -> views.AppliedView:
        """Accept documents; they are durable when this returns. Raises: Refused."""
        try:
            accepted = await self.desk.accept(name, payload, actor=actor)
        except Rejected as error:
            raise self._rejected(error) from error
        except StoreFull as error:
            raise Refused(507, "InsufficientStorage", str(error), "free disk space; what is accepted stays") from error
        return accepted

    @staticmethod
    def _rejected(error: Rejected) -> Refused:
        hint = "correct the file; what was accepted before stays in force"
        return Refused(422, "Invalid", str(error), hint, error.problems)

    async def cordon(self, cluster: str, reason: str, *, drain: bool) -> None:
        """Keep an operator's word, then act on it."""
        await self._set_cordon(cluster, Cordon(reason=reason, drain=drain))
        verb = "drained" if drain else "cordoned"
        self.hub.tell(Note(reason="Cordoned", object=f"cluster/{cluster}", message=f"{cluster} is {verb}: {reason}"))

    async def uncordon(self, cluster: str) -> None:
        """Take an operator's word back."""
        await self._set_cordon(cluster, None)
        self.hub.tell(Note(reason="Uncordoned", object=f"cluster/{cluster}", message=f"{cluster} takes load again"))

    async def _set_cordon(self, cluster: str, cordon: Cordon | None) -> None:
        await self._store.set_cordon(cluster, cordon, at_s=self.clock.wall_s(), actor="api")
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
        formulated = formulate(
            world, target=before, desired=hub.plan.desired_by_key(), now_s=self.clock.monotonic_s()
        )
        try:
            answer = await self._solver.solve(formulated.problem, formulated.present)
        except SolverError as error:
            raise Refused(503, "SolverFailed", str(error), "try again") from error
        after = formulated.ours(answer.solution.replicas)
        why = {(m, *formulated.keys[pool]): text for (m, pool), text in answer.reasons.items()}
        changes = changes_between(before, after, why)
        new_ms = _mean_latency(answer.solution.flows)
        old_ms = _mean_latency_now(scene)
        return views.DiffView(
            changed=bool(changes),
            usd_per_hour_before=scene.usd_per_hour,
            usd_per_hour_after=answer.solution.cost.accelerators,
            changes=tuple(_move_view(change) for change in changes),
            latency=tuple(
                views.LatencyChangeView(model=m, cell=c, before_ms=old_ms.get((m, c)), after_ms=new_ms.get((m, c)))
                for m, c in sorted(old_ms.keys() | new_ms.keys())
                if _differs(old_ms.get((m, c)), new_ms.get((m, c)))
            ),
            unserved_rps_before=scene.unserved_rps,
            unserved_rps_after=sum(one.requests_per_second for one in answer.solution.unserved),
        )
