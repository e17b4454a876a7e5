"""Composition root: builds and wires one controller, owns its start and its stop.

Order is part of the contract. Starting: remember, take the epoch, believe the documents, then listen. Stopping: first
the loops that decide, then the links, last the store.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import ssl
from importlib import metadata
from pathlib import Path

import structlog

from federation.adapters import executors
from federation.adapters.embedded_broker import EmbeddedBroker
from federation.adapters.link import Link
from federation.adapters.solver import Solver
from federation.adapters.store import Store
from federation.adapters.xds import XdsServer
from federation.aiokit import descriptors
from federation.aiokit.broker import BrokerAddress
from federation.aiokit.clock import Clock
from federation.aiokit.door import Room
from federation.aiokit.http import Site
from federation.aiokit.tasks import Tasks
from federation.api import server
from federation.loops import keep, tick
from federation.loops.hub import Hub
from federation.loops.plan import Planner
from federation.loops.policies import Desk
from federation.loops.publish import Publisher
from federation.loops.steer import Steer
from federation.loops.traffic import TrafficLoop
from federation.metrics import Doors, Metrics
from federation.services import ControllerServices
from federation.settings import Settings
from federation.state.reduce import BrokerFound, BrokerLost, CordonsSet, Heard, Note
from federation.state.shipped import shipped_continents, shipped_spot_risks
from federation.state.world import World
from federation.wire import messages

log = structlog.get_logger("controller")
HELD_BACK = 4
"""One connection of so many is kept from streams and long polls."""
WEB_DIR = Path(__file__).parent / "web" / "dist"


def version() -> str:
    """The installed version of the product."""
    return metadata.version("isochrone")


class Controller:
    """One controller: `start`, then it runs until `stop`.

    Args: token: what opens the API; None makes one. clock: the demo's is simulated.
    Raises: on `start`, BrokerDown, StoreError, InsecureAddress, InsecureListen, OSError, ValueError, each with what to
        do.
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
        self._lent: executors.Lent | None = None
        self._store = Store(settings.data_dir / "isochrone.sqlite" if settings.data_dir else None)
        self._embedded: EmbeddedBroker | None = None
        self._site: Site | None = None
        self.xds: XdsServer | None = None

    async def start(self) -> None:
        """Serve, listen, decide."""
        self._shares = descriptors.shares(
            descriptors.raised(),
            serves_agents=self.settings.broker_url is None,
            serves_gateways=self.settings.xds is not None,
        )
        log.info(
            "connections are bounded by file descriptors",
            descriptors=self._shares.descriptors,
            api=self._shares.api,
            agents=self._shares.agents,
            gateways=self._shares.gateways,
        )
        listen = self.settings.listen
        tls = server.tls_context(listen.host, listen.cert_file, listen.key_file)
        self.broker = await self._broker_address()
        if self.settings.solver_url is not None:
            self._lent = await asyncio.to_thread(executors.connect, self.settings.solver_url)
            self._solver = Solver(self._lent.executor)
        early: list[Note] = []
        self._store.tell = early.append
        remembered = await self._store.open()
        world = World(
            timing=self.settings.timing,
            started_s=self.clock.monotonic_s(),
            continents=shipped_continents(),
            spot_risks=shipped_spot_risks(),
        )
        self.hub = Hub(
            world=world,
            plan=remembered.plan,
            routes=remembered.routes,
            epoch=remembered.epoch,
            clock=self.clock,
            metrics=self.metrics,
        )
        self._store.tell = self.hub.tell
        for note in early:
            self.hub.tell(note)
        for loss in remembered.losses:
            self.hub.tell(Note(type="Warning", reason="StoreDamaged", object="controller", message=loss))
        self.hub.adopts |= remembered.is_incomplete
        self.hub.may_take_over |= self.settings.take_over or not remembered.is_epoch_known
        self.hub.is_ordered_to_lead = self.hub.doubts_rivals = self.settings.take_over
        self.desk = Desk(self.hub, self._store, self._solver, self.settings.blast)
        self.desk.restore(remembered.policies)
        self.hub.apply(CordonsSet(cordons=remembered.cordons))
        if self.settings.policies_dir is not None:
            await self.desk.read(self.settings.policies_dir)
        await self._solver.warm()
        self._wire()
        if self.xds is not None:
            await self.xds.start()
        await self._serve(tls)
        text = f"epoch {remembered.epoch}, {len(self.hub.world.clusters)} clusters in the catalogue"
        self.hub.tell(Note(reason="Started", object="controller", message=f"controller started: {text}"))

    async def stop(self) -> None:
        """End everything that was started; whatever was committed stays."""
        await self._tasks.stop()
        if self.xds is not None:
            await self.xds.stop()
        if self._site is not None:
            await self._site.stop()
        if self._embedded is not None:
            await self._embedded.stop()
        await self._solver.close()
        if self._lent is not None:
            await asyncio.to_thread(self._lent.close)
        await self._store.close()

    async def _broker_address(self) -> BrokerAddress:
        settings = self.settings
        if settings.broker_url is not None:
            return BrokerAddress.parse(
                settings.broker_url,
                ca_file=settings.broker_ca_file,
                cert_file=settings.broker_cert_file,
                key_file=settings.broker_key_file,
                password_file=settings.broker_password_file,
            )
        self._embedded = EmbeddedBroker(port=settings.broker_port, clients=self._shares.agents)
        await self._embedded.start()
        return self._embedded.address

    def _wire(self) -> None:
        hub, settings = self.hub, self.settings
        self.link = Link(
            self._embedded.own_address if self._embedded is not None else self.broker,
            clock=self.clock,
            rng=self._rng,
            on_message=self._on_message,
            on_refused=self._on_refused,
            on_connected=self._on_connected,
            on_lost=lambda: hub.apply(BrokerLost(now_s=self.clock.monotonic_s())),
            heartbeat=hub.heartbeat,
            on_rival=hub.hear_rival,
        )
        hub.waiting = self.link.waiting
        self.publisher = Publisher(hub, self.link)
        self.steer = Steer(hub, self._solver, self._store, settings.pace)
        self.planner = Planner(hub, self._solver, self.steer)
        if settings.xds is not None:
            self.xds = XdsServer(
                settings.xds,
                now_s=self.clock.monotonic_s,
                on_status=lambda status: self.traffic.hear(status),
                on_sent=lambda type_url, resources: self.traffic.sent(type_url, resources),
                most=self._shares.gateways,
            )
        self.traffic = TrafficLoop(hub, self.xds)
        loops = {
            "link": self.link.run,
            "tick": lambda: tick.run(hub),
            "steer": lambda: self.steer.run(settings.steer_spacing_s),
            "plan": lambda: self.planner.run(settings.plan_period_s, settings.plan_spacing_s),
            "publish": self.publisher.run,
            "traffic": self.traffic.run,
            "keep": lambda: keep.run(hub, self._store),
        }
        directory = settings.policies_dir
        if directory is not None:
            loops["policies"] = lambda: self.desk.watch(directory)
        for name, body in loops.items():
            self._tasks.supervise(name, body, clock=Clock(), rng=self._rng)

    def _on_message(self, message: messages.Message, retained: bool, arrived_s: float) -> None:
        wall_s = self.clock.wall_s() - (self.clock.monotonic_s() - arrived_s)
        self.hub.apply(Heard(message=message, now_s=arrived_s, retained=retained, wall_s=wall_s))

    def _on_refused(self, topic: str, cause: str) -> None:
        self.metrics.reports_total.labels(result="invalid").inc()
        self.hub.hear_refused(topic, cause)

    async def _on_connected(self) -> None:
        self.hub.apply(BrokerFound(now_s=self.clock.monotonic_s()))
        await self.publisher.everything()

    async def _serve(self, tls: ssl.SSLContext | None) -> None:
        listen = self.settings.listen
        web_dir = WEB_DIR if WEB_DIR.is_dir() else None
        services = ControllerServices(
            hub=self.hub, store=self._store, solver=self._solver, desk=self.desk, link=self.link, tasks=self._tasks
        )
        most = self._shares.api
        app = server.application(
            services, token=self.token, web_dir=web_dir, version=version(), held=most - most // HELD_BACK
        )
        self._site = Site(app, room=Room(all=most, per_peer=most // 2), tls=tls)
        doors = {"api": self._site.door} | ({"broker": self._embedded.door} if self._embedded else {})
        self.metrics.registry.register(Doors(doors))
        port = await self._site.start(listen.host, listen.port)
        self.url = f"{'https' if tls else 'http'}://{listen.host}:{port}"

    @property
    def sign_in_url(self) -> str:
        """The link that opens the map already signed in."""
        return f"{self.url}/signin?token={self.token}"
