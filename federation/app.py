"""Composition root: builds and wires one controller, and owns its start and its stop.

The order is part of the contract. Start: read the store, take the epoch, believe the documents, then listen. Stop:
first the loops that decide, then the links, last the store.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import structlog

from federation.adapters import executors
from federation.adapters.beacon import Beacon
from federation.adapters.embedded_broker import EmbeddedBroker
from federation.adapters.learnt import Learnt
from federation.adapters.link import Link
from federation.adapters.solver import Solver
from federation.adapters.store import Remembered, Store
from federation.adapters.xds import XdsServer
from federation.aiokit import descriptors
from federation.aiokit.address import is_loopback
from federation.aiokit.broker import BrokerAddress
from federation.aiokit.clock import Clock
from federation.aiokit.door import Room
from federation.aiokit.http import HttpSite
from federation.aiokit.tasks import Tasks
from federation.api import server
from federation.latency.estimator import NO_PRIOR
from federation.loops import beacon as beacons
from federation.loops import keep, tick
from federation.loops.foresee import Foresee
from federation.loops.hub import Hub
from federation.loops.plan import Planner
from federation.loops.policies import PolicyIntake
from federation.loops.prices import PriceLoop
from federation.loops.publish import Publisher
from federation.loops.scrape import ScrapeLoop
from federation.loops.spot import SpotLoop
from federation.loops.steer import Steer
from federation.loops.traffic import TrafficLoop
from federation.metrics import Doors, Metrics
from federation.services import ControllerServices
from federation.settings import BeaconListen, Listen, Settings
from federation.state.reduce import BrokerFound, BrokerLost, CordonsSet, Heard, Note
from federation.state.shipped import shipped_continents, shipped_instances, shipped_latency, shipped_spot_risks
from federation.state.world import World
from federation.wire import messages

log = structlog.get_logger("controller")
HELD_BACK = 4
"""One connection in this many is kept from streams and long polls."""
BEACON_SCRIPT = Path(__file__).with_name("web") / "beacon.js"
WEB_DIR = Path(__file__).parent / "web" / "dist"


def version() -> str:
    """The installed version of the product."""
    return metadata.version("isochrone")


@dataclass(kw_only=True, eq=False)
class Controller:
    """One running controller. `start` returns it complete; it runs until `stop`.

    `broker` is the address at which agents reach its broker; `url` that of the API; `token` opens the API.
    """

    settings: Settings
    clock: Clock
    token: str
    metrics: Metrics
    hub: Hub
    desk: PolicyIntake
    link: Link
    publisher: Publisher
    steer: Steer
    planner: Planner
    traffic: TrafficLoop
    xds: XdsServer | None
    embedded: EmbeddedBroker | None
    """The broker in this process, unless the settings name another."""
    broker: BrokerAddress
    url: str
    ending: AsyncExitStack
    """Stops everything that was started, in reverse order."""

    @classmethod
    async def start(cls, settings: Settings, *, clock: Clock | None = None, token: str | None = None) -> Controller:
        """Serve, listen, decide. If this raises, everything that was started is stopped again.

        Args: token: opens the API; None generates one. clock: simulated in the demo.
        Raises: BrokerDown, StoreError, InsecureAddress, InsecureListen, OSError, ValueError, each with the next step.
        """
        async with AsyncExitStack() as ending:
            controller = await _started(settings, clock or Clock(), token or secrets.token_urlsafe(24), ending)
            controller.ending = ending.pop_all()
        return controller

    async def stop(self) -> None:
        """End everything that was started; whatever was committed stays."""
        await self.ending.aclose()

    @property
    def sign_in_url(self) -> str:
        """The link that opens the map already signed in."""
        return f"{self.url}/signin?token={self.token}"


async def _started(settings: Settings, clock: Clock, token: str, ending: AsyncExitStack) -> Controller:
    """The controller; whatever must be stopped later is pushed on `ending`."""
    metrics, rng = Metrics(), random.Random(settings.seed)
    shares = _descriptor_shares(settings)
    listen = settings.listen
    tls = server.tls_context(listen.host, listen.cert_file, listen.key_file)
    store = Store(settings.data_dir / "isochrone.sqlite" if settings.data_dir else None)
    ending.push_async_callback(store.close)
    embedded = await _embedded_broker(settings, shares.agents, ending)
    broker = embedded.address if embedded is not None else _broker_address(settings)
    solver = await _solver(settings, ending)
    hub, remembered = await _hub(settings, store, clock, metrics)
    desk = PolicyIntake(hub, store, solver, settings.blast)
    desk.restore(remembered.policies)
    hub.apply(CordonsSet(cordons=remembered.cordons))
    learnt = Learnt(settings.data_dir)
    prices = PriceLoop(hub, settings.price_feeds, learnt, shipped_instances(), settings.price_period_s)
    prices.remember()
    spot = SpotLoop(hub, learnt)
    spot.remember()
    ending.push_async_callback(spot.keep)
    if settings.policies_dir is not None:
        await desk.read(settings.policies_dir)
    await solver.warm()
    link = _link(hub, embedded.own_address if embedded is not None else broker, rng, lambda: publisher.everything())
    hub.waiting = link.waiting
    publisher = Publisher(hub, link)
    steer = Steer(hub, solver, store, settings.pace)
    planner = Planner(hub, solver, steer)
    xds = None
    if settings.xds is not None:
        xds = XdsServer(
            settings.xds,
            now_s=clock.monotonic_s,
            on_status=lambda status: traffic.hear(status),
            on_sent=lambda type_url, resources: traffic.sent(type_url, resources),
            most=shares.gateways,
        )
    traffic = TrafficLoop(hub, xds)
    tasks = Tasks()
    services = ControllerServices(hub=hub, store=store, solver=solver, desk=desk, link=link, tasks=tasks)
    app = server.application(
        services,
        token=token,
        web_dir=WEB_DIR if WEB_DIR.is_dir() else None,
        version=version(),
        held=shares.api - shares.api // HELD_BACK,
    )
    site = HttpSite(app, room=Room(all=shares.api, per_peer=shares.api // 2), tls=tls)
    metrics.registry.register(Doors({"api": site.door} | ({"broker": embedded.door} if embedded else {})))
    ending.push_async_callback(site.stop)
    if xds is not None:
        ending.push_async_callback(xds.stop)
    ending.push_async_callback(tasks.stop)
    loops: dict[str, Callable[[], Awaitable[None]]] = {
        "link": link.run,
        "tick": lambda: tick.run(hub),
        "steer": lambda: steer.run(settings.steer_spacing_s),
        "plan": lambda: planner.run(settings.plan_period_s, settings.plan_spacing_s),
        "publish": publisher.run,
        "traffic": traffic.run,
        "keep": lambda: keep.run(hub, store),
        "foresee": Foresee(hub).run,
        "spot": spot.run,
    }
    if settings.price_feeds:
        loops["prices"] = prices.run
    if settings.prometheus is not None:
        loops["scrape"] = ScrapeLoop(hub, settings.prometheus).run
    directory = settings.policies_dir
    if directory is not None:
        loops["policies"] = lambda: desk.watch(directory)
    for name, body in loops.items():
        tasks.supervise(name, body, clock=Clock(), rng=rng)
    if xds is not None:
        await xds.start()
    port = await site.start(listen.host, listen.port)
    if settings.beacon is not None:
        await _serve_beacon(hub, settings.beacon, listen, shares, tasks, rng, ending)
    text = f"epoch {remembered.epoch}, {len(hub.world.clusters)} clusters in the catalogue"
    hub.tell(Note(reason="Started", object="controller", message=f"controller started: {text}"))
    return Controller(
        settings=settings,
        clock=clock,
        token=token,
        metrics=metrics,
        hub=hub,
        desk=desk,
        link=link,
        publisher=publisher,
        steer=steer,
        planner=planner,
        traffic=traffic,
        xds=xds,
        embedded=embedded,
        broker=broker,
        url=f"{'https' if tls else 'http'}://{listen.host}:{port}",
        ending=ending,
    )


async def _serve_beacon(
    hub: Hub,
    settings: BeaconListen,
    api: Listen,
    shares: descriptors.Shares,
    tasks: Tasks,
    rng: random.Random,
    ending: AsyncExitStack,
) -> None:
    """Open the door for browsers. Raises: InsecureListen, OSError."""
    most = max(16, shares.api // 4)
    is_private = is_loopback(settings.host)
    tls = None if is_private else server.tls_context(settings.host, api.cert_file, api.key_file)
    beacon = Beacon(
        origins=settings.origins,
        script=BEACON_SCRIPT.read_bytes(),
        targets=lambda cell, place: beacons.targets_of(hub, cell, place),
        now_s=asyncio.get_running_loop().time,
        is_proxied=settings.is_proxied,
    )
    site = HttpSite(
        beacon.application(), room=Room(all=most, per_peer=most if is_private else max(4, most // 8)), tls=tls
    )
    ending.push_async_callback(site.stop)
    await site.start(settings.host, settings.port)
    tasks.supervise("beacon", lambda: beacons.run(hub, beacon), clock=Clock(), rng=rng)


def _descriptor_shares(settings: Settings) -> descriptors.Shares:
    shares = descriptors.shares(
        descriptors.raised(), serves_agents=settings.broker_url is None, serves_gateways=settings.xds is not None
    )
    log.info(
        "connections are bounded by file descriptors",
        descriptors=shares.descriptors,
        api=shares.api,
        agents=shares.agents,
        gateways=shares.gateways,
    )
    return shares


async def _embedded_broker(settings: Settings, most: int, ending: AsyncExitStack) -> EmbeddedBroker | None:
    """A broker in this process, where the settings name no other. Args: most: clients at one time."""
    if settings.broker_url is not None:
        return None
    embedded = EmbeddedBroker(port=settings.broker_port, clients=most)
    ending.push_async_callback(embedded.stop)
    await embedded.start()
    return embedded


def _broker_address(settings: Settings) -> BrokerAddress:
    assert settings.broker_url is not None, "without it the broker is in this process"
    return BrokerAddress.parse(
        settings.broker_url,
        ca_file=settings.broker_ca_file,
        cert_file=settings.broker_cert_file,
        key_file=settings.broker_key_file,
        password_file=settings.broker_password_file,
    )


async def _solver(settings: Settings, ending: AsyncExitStack) -> Solver:
    """The engine in processes of its own; placements are solved on an executor where the settings name one."""
    lent = None
    if settings.solver_url is not None:
        lent = await asyncio.to_thread(executors.connect, settings.solver_url)
        ending.push_async_callback(asyncio.to_thread, lent.close)
    solver = Solver(lent.executor if lent is not None else None)
    ending.push_async_callback(solver.close)
    return solver


async def _hub(settings: Settings, store: Store, clock: Clock, metrics: Metrics) -> tuple[Hub, Remembered]:
    """The state that the loops share, initialised from the store. Raises: StoreError."""
    early: list[Note] = []
    store.tell = early.append
    remembered = await store.open()
    world = World(
        timing=settings.timing,
        started_s=clock.monotonic_s(),
        continents=shipped_continents(),
        spot_risks=shipped_spot_risks(),
        public=shipped_latency() if settings.knows_public_latency else NO_PRIOR,
    )
    hub = Hub(
        world=world,
        plan=remembered.plan,
        routes=remembered.routes,
        epoch=remembered.epoch,
        clock=clock,
        metrics=metrics,
    )
    store.tell = hub.tell
    for note in early:
        hub.tell(note)
    for loss in remembered.losses:
        hub.tell(Note(type="Warning", reason="StoreDamaged", object="controller", message=loss))
    hub.adopts |= remembered.is_incomplete
    hub.may_take_over |= settings.take_over or not remembered.is_epoch_known
    hub.is_ordered_to_lead = hub.doubts_rivals = settings.take_over
    return hub, remembered


def _link(hub: Hub, address: BrokerAddress, rng: random.Random, publish_all: Callable[[], Awaitable[None]]) -> Link:
    """The connection to the broker. Args: publish_all: called after each connection."""
    clock = hub.clock

    def hear(message: messages.Message, retained: bool, arrived_s: float) -> None:
        wall_s = clock.wall_s() - (clock.monotonic_s() - arrived_s)
        hub.apply(Heard(message=message, now_s=arrived_s, retained=retained, wall_s=wall_s))

    def refuse(topic: str, cause: str) -> None:
        hub.metrics.reports_total.labels(result="invalid").inc()
        hub.hear_refused(topic, cause)

    async def connected() -> None:
        hub.apply(BrokerFound(now_s=clock.monotonic_s()))
        await publish_all()

    return Link(
        address,
        clock=clock,
        rng=rng,
        on_message=hear,
        on_refused=refuse,
        on_connected=connected,
        on_lost=lambda: hub.apply(BrokerLost(now_s=clock.monotonic_s())),
        heartbeat=hub.heartbeat,
        on_rival=hub.hear_rival,
    )
