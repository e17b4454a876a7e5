"""A seeded fleet in simulated time: the production controller and agents' rules over a network that is not kind.

Run in one thread without a real clock: hours pass in seconds, and a seed gives the same story again. What is production
code: reduce, formulate, the engine with its verifier, decide, rollout, shares, the store, the loops' steps, the
publisher, the agents' fencing and the simulated cluster. What is written here: time, the broker and the faults.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import msgspec

from agents import fence
from agents.app import HOLDING, LOOK_AGAIN, YIELDING
from agents.simulated import SimulatedBackend
from federation.adapters.store import Remembered, Store
from federation.loops.hub import Hub
from federation.loops.plan import Planner
from federation.loops.publish import Publisher
from federation.loops.steer import Steer
from federation.policy import documents
from federation.state.phases import Phase
from federation.state.reduce import DocumentsAccepted
from federation.wire import messages, topics
from tests.builders import L4, a_cluster, a_model, a_policy, some_demand
from tests.sim.controller import REPORT_S, TICK_S, Disk, SimController, SimStore
from tests.sim.engine import Engine
from tests.sim.loop import SimClock

DEVICES = 8
FLOOR = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How unkind the network is. Probabilities per message; seconds."""

    loss: float = 0.0
    repeat: float = 0.0
    delay_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class SimAgent:
    """One cluster with its agent. `carried` is the order that is carried out, as a state file would say."""

    name: str
    backend: SimulatedBackend
    clock: SimClock
    cells: tuple[messages.DemandSample, ...]
    report_at_s: float
    connected: bool = True
    accepted: fence.AcceptedOrder = field(default_factory=fence.AcceptedOrder)
    boot_id: str = "boot-0001"
    boot_order: int = 1
    seq: int = 0
    carried: messages.Desired | None = None
    held: messages.Desired | None = None
    kept_s: float = float("-inf")
    holds_until_s: float = float("-inf")
    yields_until_s: float = float("-inf")


class SimFleet:
    """Five clusters in four regions, three places with users, one model with a floor, and one controller."""

    NAMES: ClassVar = ("fra-1", "fra-2", "par", "iad", "nrt")
    USERS: ClassVar = {"fra-1": ("Berlin", "DE", 60.0), "iad": ("New York", "US", 40.0), "nrt": ("Tokyo", "JP", 30.0)}

    def __init__(self, seed: int, directory: Path, *, floor: int = FLOOR) -> None:
        self.rng = random.Random(seed)
        self.clock = SimClock()
        self.weather = Weather()
        self.engine = Engine()
        self.said: list[str] = []
        self.refused = 0
        self._directory = directory
        self._databases = itertools.count()
        self._database = directory / "0.sqlite"
        self._flying: list[tuple[float, int, str, bytes, bool]] = []
        self._order = itertools.count()
        self.names = itertools.count()
        self._retained: dict[str, bytes] = {}
        policy = a_policy(
            "chat",
            availability=documents.Availability(min_replicas=floor, min_regions=2),
            residency=(
                documents.ResidencyRule(
                    users_in=documents.UsersIn(countries=("DE", "FR")),
                    clusters_in=documents.ClustersIn(jurisdictions=("EU",)),
                ),
            ),
            disruption=documents.Disruption(min_gain_percent=3, dwell_seconds=120, max_moves_per_hour=20),
            failover=documents.Failover(toleration_seconds=120),
            traffic=documents.Traffic(step_percent=20, step_seconds=10),
        )
        self.documents = documents.Documents(
            models=(a_model("chat", rps=10, objective_ms=400),),
            policies=(policy,),
            clusters=tuple(sorted((a_cluster(name) for name in self.NAMES), key=lambda one: one.metadata.name)),
        )
        self.agents = {name: self._agent(name) for name in self.NAMES}
        self._leads: list[SimController] = []
        self.others: list[SimController] = []
        self.disk: Disk = ""

    def _agent(self, name: str) -> SimAgent:
        cell = self.USERS.get(name)
        cells = (some_demand("chat", cell[0], cell[2], country=cell[1], at=name[:3]),) if cell else ()
        backend = SimulatedBackend(
            pools=(self.pool(DEVICES),), clock=self.clock, rng=self.rng, rtt_ms=lambda peer, chance: 40.0
        )
        report_at_s = self.rng.uniform(0, REPORT_S)
        clock = SimClock(self.clock.time)
        return SimAgent(name=name, backend=backend, clock=clock, cells=cells, report_at_s=report_at_s)

    @staticmethod
    def pool(devices: int, usd: float | None = None) -> messages.PoolReport:
        """The one pool of a cluster."""
        return messages.PoolReport(key=L4, vram_gib=24, allocatable=devices, free=devices, usd_per_device_hour=usd)

    # ---- the controller

    @property
    def lead(self) -> SimController:
        """The one that leads, or did until it was killed."""
        return self._leads[0]

    @lead.setter
    def lead(self, controller: SimController) -> None:
        self._leads[:] = [controller]

    @property
    def hub(self) -> Hub:
        """Of the controller that leads, as the other parts are."""
        return self.lead.hub

    @property
    def store(self) -> Store:
        """What it remembers."""
        return self.lead.store

    @property
    def steer(self) -> Steer:
        """Its fast loop."""
        return self.lead.steer

    @property
    def planner(self) -> Planner:
        """Its slow loop."""
        return self.lead.planner

    @property
    def publisher(self) -> Publisher:
        """What tells agents."""
        return self.lead.publisher

    def database(self, path: Path) -> SimStore:
        """A store on this fleet's disk."""
        return SimStore(path, lambda: self.disk)

    async def start_controller(self) -> None:
        """Start it on the database of before."""
        self.lead = await SimController.started(self, self.database(self._database))

    async def stop_controller(self, *, forget: bool = False) -> None:
        """Kill it; with `forget` its disk is lost too."""
        await self.lead.stop()
        if forget:
            self._database = self._directory / f"{next(self._databases) + 1}.sqlite"

    async def hand_in(self, controller: SimController, remembered: Remembered) -> None:
        """Give a controller that starts its documents."""
        controller.hub.apply(DocumentsAccepted(documents=self.documents, now_s=self.clock.now_s))

    async def tell_retained(self, controller: SimController) -> None:
        """What the broker kept, to one that has just connected."""
        for topic, payload in sorted(self._retained.items()):
            self._to_controllers((controller,), topic, payload, retained=True)

    def beat(self, controller: SimController) -> None:
        """A controller's word to the others on the broker."""
        for other in self._listening():
            if other is not controller and other.hub.hear_rival(controller.hub.heartbeat()):
                controller.hub.hear_rival(other.hub.heartbeat())

    async def publish(
        self,
        message: messages.Desired | messages.Peers | messages.Traffic | messages.Session,
        kind: topics.Kind,
        *,
        retain: bool = True,
    ) -> bool:
        """The publisher's link."""
        self._send(topics.topic(message.cluster, kind), messages.encode(message), retain=retain)
        return True

    async def _control(self) -> None:
        for one in self._listening():
            await one.step()

    def _listening(self) -> tuple[SimController, ...]:
        return tuple(one for one in (*self._leads, *self.others) if one.runs)

    # ---- the network

    def _send(self, topic: str, payload: bytes, *, retain: bool = True) -> None:
        """Publish; what is retained the broker has when it arrives."""
        for _ in range(1 + (self.rng.random() < self.weather.repeat)):
            if self.rng.random() >= self.weather.loss:
                at_s = self.clock.now_s + self.rng.uniform(0, self.weather.delay_s)
                heapq.heappush(self._flying, (at_s, next(self._order), topic, payload, retain))

    def forget_broker(self) -> None:
        """The broker starts again, empty."""
        self._retained.clear()
        self._flying.clear()

    async def _deliver(self) -> None:
        while self._flying and self._flying[0][0] <= self.clock.now_s:
            _, _, topic, payload, retain = heapq.heappop(self._flying)
            if retain:
                self._retained[topic] = payload
            address = topics.parse(topic)
            assert address is not None
            if address[1] in topics.FROM_AGENTS:
                self._to_controllers(self._listening(), topic, payload)
            elif self.agents[address[0]].connected:
                await self._hear(self.agents[address[0]], payload)

    def _to_controllers(
        self, controllers: tuple[SimController, ...], topic: str, payload: bytes, *, retained: bool = False
    ) -> None:
        address = topics.parse(topic)
        if address is None or address[1] not in topics.FROM_AGENTS or not controllers:
            return
        try:
            message = messages.decode(payload)
        except messages.WireError:
            self.refused += 1
            return
        assert not isinstance(message, messages.Heartbeat)
        if message.cluster != address[0]:
            self.refused += 1
            return
        for one in controllers:
            one.hear(message, retained=retained)

    # ---- the agents

    async def _hear(self, agent: SimAgent, payload: bytes) -> None:
        message = messages.decode(payload)
        if isinstance(message, messages.Session):
            if message.boot_id == agent.boot_id:
                agent.yields_until_s = agent.holds_until_s = float("-inf")
                await self._obey_held(agent)
            else:
                agent.held, agent.yields_until_s = None, self.clock.now_s + YIELDING * REPORT_S
        elif isinstance(message, messages.Desired) and self.clock.now_s >= agent.yields_until_s:
            agent.held = message
            await self._obey_held(agent)

    async def _obey_held(self, agent: SimAgent) -> None:
        """Carry out the newest order, once it is this agent that is meant by the cluster's name."""
        if agent.held is not None and self.clock.now_s >= agent.holds_until_s:
            desired, agent.held = agent.held, None
            await self._obey(agent, desired)

    async def _obey(self, agent: SimAgent, desired: messages.Desired) -> None:
        seen = agent.backend.observe()
        before = agent.accepted.fence
        devices = fence.usable_devices(seen.pools, seen.replicas, desired)
        verdict = fence.judge(desired, cluster=agent.name, accepted=agent.accepted, devices=devices)
        error = f"{verdict.code.value}: {verdict.reason}" if not verdict.obey else ""
        if verdict.obey:
            reached = (desired.epoch, desired.generation)
            assert reached >= before, f"{agent.name} obeyed {reached} after {before}"
            agent.accepted = fence.AcceptedOrder(
                epoch=desired.epoch, generation=desired.generation, checksum=desired.checksum
            )
            agent.carried, told = fence.explained(desired, agent.carried, seen.replicas)
            error = "; ".join(one.message for one in told)
            await self._carry_out(agent, agent.carried)
        ack = messages.Ack(
            cluster=agent.name,
            boot_id=agent.boot_id,
            epoch=desired.epoch,
            generation=desired.generation,
            checksum=desired.checksum,
            ok=not error,
            error=error[:1000],
            accepted_epoch=agent.accepted.epoch,
            accepted_generation=agent.accepted.generation,
        )
        self._send(topics.topic(agent.name, "ack"), messages.encode(ack))

    async def _carry_out(self, agent: SimAgent, desired: messages.Desired) -> None:
        await agent.backend.apply(desired)

    async def _keep(self, agent: SimAgent) -> None:
        """Hold its cluster to what was accepted, connected or not, once in each interval."""
        now_s = self.clock.now_s
        if now_s >= agent.yields_until_s and now_s - agent.kept_s >= LOOK_AGAIN * REPORT_S:
            agent.kept_s, agent.backend.touched = now_s, False
            await agent.backend.keep(agent.carried)

    async def _report(self, agent: SimAgent) -> None:
        self._send(topics.topic(agent.name, "report"), messages.encode(await self._observed(agent)))

    async def _observed(self, agent: SimAgent) -> messages.Report:
        """The agent's next report."""
        seen = agent.backend.observe()
        agent.seq += 1
        return messages.Report(
            cluster=agent.name,
            boot_id=agent.boot_id,
            boot_order=agent.boot_order,
            seq=agent.seq,
            interval_s=REPORT_S,
            pools=seen.pools,
            replicas=seen.replicas,
            demand=agent.cells,
            epoch=agent.accepted.epoch,
            generation=agent.accepted.generation,
            clock_s=agent.clock.wall_s(),
        )

    def cut(self, name: str, *, will: bool = False) -> None:
        """Its network breaks; its replicas go on. With `will` the broker notices and says so."""
        agent = self.agents[name]
        agent.connected = False
        if will:
            status = messages.Status(cluster=name, boot_id=agent.boot_id, online=False)
            self._send(topics.topic(name, "status"), messages.encode(status))

    async def heal(self, name: str) -> None:
        """Its network is back: it reports, and hears what the broker kept for it."""
        agent = self.agents[name]
        agent.connected = True
        agent.report_at_s = self.clock.now_s
        status = messages.Status(cluster=name, boot_id=agent.boot_id, online=True)
        self._send(topics.topic(name, "status"), messages.encode(status))
        kept = self._retained.get(topics.topic(name, "desired"))
        if kept is not None:
            await self._hear(agent, kept)

    def restart_agent(self, name: str) -> None:
        """It starts again; what it accepted it still knows, by its file or its cluster's objects."""
        agent = self.agents[name]
        agent.boot_order += 1
        agent.holds_until_s = self.clock.now_s + HOLDING * REPORT_S
        agent.held = None
        agent.boot_id = f"boot-{self.rng.getrandbits(32):08x}"
        agent.seq = 0
        agent.report_at_s = self.clock.now_s

    def resize(self, name: str, devices: int, usd: float | None = None) -> None:
        """Its nodes change."""
        self.agents[name].backend.set_pools((self.pool(devices, usd),))

    def ask(self, name: str, rps: float) -> None:
        """Its users ask for more or less."""
        agent = self.agents[name]
        agent.cells = tuple(msgspec.structs.replace(one, requests_per_second=rps) for one in agent.cells)

    # ---- time

    async def run(self, seconds: float, each: Callable[[], None] = lambda: None) -> None:
        """Let time pass, calling `each` every second while a controller leads."""
        ends_s = self.clock.now_s + seconds
        while self.clock.now_s < ends_s:
            self.clock.time.now_s += 1.0
            for agent in self.agents.values():
                if agent.backend.touched:
                    await self._keep(agent)
                if agent.connected and self.clock.now_s >= agent.report_at_s:
                    agent.report_at_s = self.clock.now_s + REPORT_S * self.rng.uniform(0.9, 1.0)
                    await self._obey_held(agent)
                    await self._report(agent)
            await self._deliver()
            await self._control()
            if self.lead.runs:
                each()

    # ---- what is true

    def ready(self) -> dict[str, int]:
        """Cluster -> replicas that serve, as it is and not as it is believed."""
        return {name: sum(agent.backend.ready().values()) for name, agent in self.agents.items()}

    def wanted(self) -> dict[str, int]:
        """Cluster -> replicas that the plan in force wants in the end."""
        found = dict.fromkeys(self.NAMES, 0)
        for (_, cluster, _), count in self.hub.plan.target_by_key().items():
            found[cluster] += count
        return found

    def check(self) -> None:
        """What must hold at every instant, whatever happens."""
        for name, agent in self.agents.items():
            held = sum(agent.backend.holding().values())
            assert held <= agent.backend.offered[0].allocatable, f"{name} holds {held} devices"
        phases = {name: state.phase for name, state in self.hub.world.clusters.items()}
        countries = {name: country for name, country, _ in self.USERS.values()}
        for route in self.hub.routes.routes:
            total = sum(share.share for share in route.now)
            assert total <= 1 + 1e-4, f"{route.cell} is served {total:.3f} times"
            for share in route.now:
                if countries[route.cell] in ("DE", "FR"):
                    assert share.cluster[:3] in ("fra", "par"), f"{route.cell} is served in {share.cluster}"
        if self.hub.world.braked or self.hub.may_take_over or not self.hub.world.is_settled(self.clock.now_s):
            return
        lost = {name for name, phase in phases.items() if phase in (Phase.UNREACHABLE, Phase.LOST)}
        late = {share.cluster for route in self.hub.routes.routes for share in route.now} & lost
        since = {name: self.clock.now_s - self.hub.world.clusters[name].since_s for name in late}
        assert all(age_s <= 2 * TICK_S for age_s in since.values()), f"shares still go to {since}"
