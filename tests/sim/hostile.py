"""An hour of a fleet with a liar, failing replicas and every fault of the network: a story per seed.

`story(seed, directory)` runs one and raises `Broken` with its one-line reproduction when the oracle objects.
"""

from __future__ import annotations

import functools
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import msgspec

from agents.backend import Observation
from agents.simulated import SimulatedBackend
from federation.control.latency import distance_km
from federation.state.phases import Phase
from federation.state.reduce import BrokerFound, BrokerLost
from federation.wire import messages, topics
from tests.builders import PLACES
from tests.sim.fleet import DEVICES, REPORT_S, SimAgent, SimFleet, Weather
from tests.sim.lies import COSTLY, KINDS, LIES, TWO_AGENTS
from tests.sim.oracle import MOST_RPS, Broken, Oracle

WARMUP_S = 60.0
TOLERATION_S = 120.0
START_S, STORY_S, QUIET_S = 600.0, 3600.0, 1800.0
YEAR_S = 365.25 * 86400.0
COSTLY_S, COSTLY_SHARE = 90.0, 0.05
"""The lie that makes large questions of small ones is told seldom, and not for long: long enough to be believed."""
LOOK_S, WHOLE_S = 60.0, 300.0
"""A story ends when, looked at so often, all has been whole for so long; at the latest after `QUIET_S`."""
WHOLE = 0.99
WEATHERS = (Weather(), Weather(loss=0.05, repeat=0.05, delay_s=12.0))
CAUSES: dict[str, messages.Cause] = {"image": "image", "crash": "crash"}


class FaultyBackend(SimulatedBackend):
    """A cluster whose replicas may not start (`fault` image or crash), or whose devices read 0 for a while."""

    fault = ""
    is_blind = False
    restarts = 0

    def ready(self) -> dict[tuple[str, messages.PoolKey], int]:
        now_s = self._clock.monotonic_s()
        for ones in self._running.values() if self.fault else ():
            for one in ones:
                warms = one.ready_at_s > now_s - 1.0
                if one.ready_at_s != float("inf") and (warms or self.fault == "crash"):
                    one.ready_at_s = now_s + WARMUP_S
        return super().ready()

    async def observe(self) -> Observation:
        seen = await super().observe()
        if self.is_blind:
            pools = tuple(msgspec.structs.replace(one, allocatable=0, free=0) for one in seen.pools)
            seen = replace(seen, pools=pools)
        if not self.fault:
            return seen
        self.restarts += self.fault == "crash"
        rows = tuple(
            msgspec.structs.replace(one, cause=CAUSES[self.fault], reason=self.fault, restarts=self.restarts)
            if one.ready < one.desired
            else one
            for one in seen.replicas
        )
        return replace(seen, replicas=rows)


class HostileFleet(SimFleet):
    """The fleet of the other stories, with one cluster whose agent lies when it is told to."""

    def __init__(self, seed: int, directory: Path, *, liar: str) -> None:
        super().__init__(seed, directory)
        self.documents = msgspec.structs.replace(
            self.documents,
            clusters=tuple(
                msgspec.structs.replace(one, spec=msgspec.structs.replace(one.spec, max_requests_per_second=MOST_RPS))
                for one in self.documents.clusters
            ),
        )
        self.liar = liar
        self.lies: tuple[str, ...] = ()
        self.chance = Random(seed * 7919 + 1)
        self.oracle = Oracle(self)
        self._second_seq = 0
        self._others = {
            name: tuple(
                messages.PeerEndpoint(cluster=other, probe=self.backend(other).probe())
                for other in self.NAMES
                if other != name
            )
            for name in self.NAMES
        }

    def _agent(self, name: str) -> SimAgent:
        agent = super()._agent(name)
        agent.backend.__class__ = FaultyBackend
        agent.backend._rtt_ms = lambda peer, chance: true_rtt_ms(name, peer)
        agent.backend._probe = f"192.0.2.{self.NAMES.index(name) + 1}:443"
        return agent

    def backend(self, name: str) -> FaultyBackend:
        """A cluster as it is."""
        found = self.agents[name].backend
        assert isinstance(found, FaultyBackend)
        return found

    async def _observed(self, agent: SimAgent) -> messages.Report:
        report = await super()._observed(agent)
        peers = await agent.backend.measure(self._others[agent.name])
        report = msgspec.structs.replace(report, peers=peers, probe=agent.backend.probe())
        if agent.name != self.liar:
            return report
        for kind in self.lies:
            report = LIES[kind](report, self.chance) if kind in LIES else report
        if TWO_AGENTS in self.lies:
            self._speak_twice(report)
        return report

    def _speak_twice(self, report: messages.Report) -> None:
        self._second_seq += 1
        other = msgspec.structs.replace(
            report, boot_id="boot-of-another", boot_order=10**9, seq=self._second_seq, epoch=0, generation=0
        )
        self._send(topics.topic(self.liar, "report"), messages.encode(other))

    async def publish(
        self,
        message: messages.Desired | messages.Peers | messages.Traffic | messages.Session,
        kind: topics.Kind,
        *,
        retain: bool = True,
    ) -> bool:
        if isinstance(message, messages.Desired):
            self.oracle.given(message)
        return await super().publish(message, kind, retain=retain)

    async def _carry_out(self, agent: SimAgent, desired: messages.Desired) -> None:
        before = sum(agent.backend.ready().values())
        await super()._carry_out(agent, desired)
        self.oracle.carried_out(agent, desired, before, sum(agent.backend.ready().values()))

    async def broker_restarts(self) -> None:
        """It comes back empty, and everybody connects anew."""
        self.hub.apply(BrokerLost(now_s=self.clock.now_s))
        self.forget_broker()
        await self.run(self.chance.uniform(1.0, 30.0), self.oracle.look)
        self.hub.apply(BrokerFound(now_s=self.clock.now_s))
        await self.publisher.everything()
        for agent in self.agents.values():
            agent.report_at_s = self.clock.now_s if agent.connected else agent.report_at_s

    async def controller_dies(self) -> None:
        """It is started again after a while, on its database."""
        await self.stop_controller()
        await self.run_without_controller(self.chance.uniform(1.0, 120.0))
        self.oracle.forget()
        await self.start_controller()


@functools.cache
def true_rtt_ms(one: str, other: str) -> float:
    """What the way between two clusters takes: fibre and half as much again."""
    here, there = PLACES[one[:3]], PLACES[other[:3]]
    return 2.0 + 1.5 * distance_km(here[0], here[1], there[0], there[1]) / 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a story came to. Seconds of this machine's processor, and counts."""

    seed: int
    took_s: float
    stops: int
    braked_s: int
    refused: int
    said: str


def reproduction(seed: int) -> str:
    """The line that makes this story happen again."""
    return f"python -m tests.sim --seed {seed}"


class Story:
    """One seed's hour."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.seed = seed
        self.chance = Random(seed)
        self.liar = self.chance.choice(("iad", "iad", "nrt", "par"))
        alone = seed % (2 * len(KINDS))
        self.kinds = (KINDS[alone],) if alone < len(KINDS) else tuple(self.chance.sample(KINDS, 4))
        self.fleet = HostileFleet(seed, directory, liar=self.liar)
        self.honest = [name for name in self.fleet.NAMES if name != self.liar]
        self.ends: list[tuple[float, Callable[[], None]]] = []
        self.did: list[str] = []

    async def tell(self) -> Figures:
        """Run it. Raises: Broken."""
        started_s = time.process_time()
        gc.disable()  # what a story leaves is little, and to look for it costs a tenth of the story
        try:
            await self._happen()
        except AssertionError as error:
            lines = "\n".join((*self.did[-25:], *self.fleet.said[-12:]))
            about = f"the liar is {self.liar}: {', '.join(self.kinds)}; at {self.fleet.clock.now_s:.0f} s"
            raise Broken(f"{error}\n{about}\n{lines}\nreproduce: {reproduction(self.seed)}") from error
        finally:
            await self.fleet.stop_controller()
            gc.enable()
        return Figures(
            seed=self.seed,
            took_s=time.process_time() - started_s,
            stops=self.fleet.oracle.stops,
            braked_s=self.fleet.oracle.braked_s,
            refused=self.fleet.refused,
            said=f"{self.liar}: {', '.join(self.kinds)}",
        )

    async def _happen(self) -> None:
        fleet, chance = self.fleet, self.chance
        await fleet.start_controller()
        await self._run(START_S)
        until_s = fleet.clock.now_s + STORY_S
        while fleet.clock.now_s < until_s:
            self._turn_the_liar()
            kind = chance.choice(FAULTS)
            self.did.append(f"{fleet.clock.now_s:7.0f} {kind}; the liar says {fleet.lies}")
            await getattr(self, f"_{kind}")(chance.choice(self.honest))
            await self._run(chance.uniform(5.0, 240.0))
        await self._quiet()

    def _turn_the_liar(self) -> None:
        told = tuple(k for k in self.kinds if self.chance.random() < (COSTLY_SHARE if k == COSTLY else 0.7))
        self.fleet.lies = told
        if COSTLY in told:
            self._later(COSTLY_S, self._no_more_costly)

    def _no_more_costly(self) -> None:
        self.fleet.lies = tuple(kind for kind in self.fleet.lies if kind != COSTLY)

    async def _run(self, seconds: float) -> None:
        """Let time pass, and end what is to end meanwhile."""
        fleet = self.fleet
        until_s = fleet.clock.now_s + seconds
        while fleet.clock.now_s < until_s:
            self.ends.sort(key=lambda one: one[0])
            while self.ends and self.ends[0][0] <= fleet.clock.now_s:
                self.ends.pop(0)[1]()
            next_s = min(until_s, self.ends[0][0] if self.ends else until_s)
            await fleet.run(max(1.0, next_s - fleet.clock.now_s), fleet.oracle.look)

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        self.ends.append((self.fleet.clock.now_s + seconds, act))

    def _fail(self, names: list[str], fault: str, seconds: float) -> None:
        for name in names:
            self.fleet.backend(name).fault = fault

        def heal() -> None:
            for name in names:
                self.fleet.backend(name).fault = ""

        self._later(seconds, heal)

    # ---- faults

    async def _nothing(self, name: str) -> None:
        """Time passes."""

    async def _image(self, name: str) -> None:
        self._fail([name], "image", self.chance.uniform(60, 900))

    async def _image_everywhere(self, name: str) -> None:
        self._fail(list(self.fleet.NAMES), "image", self.chance.uniform(60, 600))

    async def _crash(self, name: str) -> None:
        self._fail([name], "crash", self.chance.uniform(60, 600))

    async def _blind(self, name: str) -> None:
        self.fleet.backend(name).is_blind = True
        self._later(self.chance.uniform(10, 180), lambda: setattr(self.fleet.backend(name), "is_blind", False))

    async def _three_silences(self, name: str) -> None:
        for _ in range(3):
            self.fleet.cut(name, will=self.chance.random() < 0.5)
            await self._run(self.chance.uniform(5, 60))
            await self.fleet.heal(name)
            await self._run(self.chance.uniform(20, 60))

    async def _lost(self, name: str) -> None:
        self.fleet.cut(name, will=self.chance.random() < 0.5)
        await self._run(self.chance.uniform(10, 400))
        await self.fleet.heal(name)

    async def _agent_clock(self, name: str) -> None:
        self.fleet.agents[name].clock.skew_s = self.chance.choice((-10, -1, 0, 0, 1, 10)) * YEAR_S

    async def _controller_clock(self, name: str) -> None:
        self.fleet.clock.skew_s = self.chance.choice((-10, -1, 0, 0, 1, 10)) * YEAR_S

    async def _all_silent(self, name: str) -> None:
        wills = self.chance.random() < 0.5
        for each in self.fleet.NAMES:
            self.fleet.cut(each, will=wills)
        await self._run(TOLERATION_S * self.chance.uniform(0.2, 4.0))
        for each in self.fleet.NAMES:
            await self.fleet.heal(each)
            await self._run(self.chance.uniform(1.0, 5.0))

    async def _broker(self, name: str) -> None:
        await self.fleet.broker_restarts()

    async def _broker_forgets(self, name: str) -> None:
        self.fleet.forget_broker()

    async def _controller(self, name: str) -> None:
        await self.fleet.controller_dies()

    async def _agent(self, name: str) -> None:
        self.fleet.restart_agent(self.chance.choice(self.fleet.NAMES))

    async def _weather(self, name: str) -> None:
        self.fleet.weather = self.chance.choice(WEATHERS)

    async def _demand(self, name: str) -> None:
        for each in self.fleet.NAMES:
            if self.chance.random() < 0.5:
                self.fleet.ask(each, self.chance.uniform(5, 70))

    async def _price(self, name: str) -> None:
        self.fleet.resize(name, DEVICES, self.chance.uniform(0.3, 3.0))

    # ---- the end

    async def _quiet(self) -> None:
        """Everything heals but the liar, who lies on; then all that honest clusters have is whole."""
        fleet = self.fleet
        fleet.weather = WEATHERS[0]
        fleet.lies = self.kinds
        fleet.clock.skew_s = 0.0
        for _, end in sorted(self.ends, key=lambda one: one[0]):
            end()
        self.ends = []
        for name in fleet.NAMES:
            fleet.agents[name].clock.skew_s = 0.0
            await fleet.heal(name)
        self.did.append(f"{fleet.clock.now_s:7.0f} quiet; the liar says {fleet.lies}")
        await self._run(COSTLY_S)
        self._no_more_costly()
        until_s, whole_s = fleet.clock.now_s + QUIET_S - COSTLY_S, 0.0
        while fleet.clock.now_s < until_s and whole_s < WHOLE_S:
            await self._run(LOOK_S)
            whole_s = whole_s + LOOK_S if not self._missing() else 0.0
        missing = self._missing()
        assert not missing, missing

    def _missing(self) -> str:
        """What honest clusters do not have, or nothing when all is well."""
        fleet = self.fleet
        hub = fleet.hub
        for name in self.honest:
            state = hub.world.clusters[name]
            if state.phase is not Phase.READY:
                return f"{name} is {state.phase.value}"
            if state.heard_s is None or fleet.clock.now_s - state.heard_s > 2 * REPORT_S:
                return f"{name} is not heard"
            told = (hub.epoch, hub.plan.generations[name])
            if fleet.agents[name].accepted.fence != told:
                return f"{name} obeys {fleet.agents[name].accepted}, not {told}"
        ready = fleet.ready()
        for name in self.honest:
            for cell in fleet.agents[name].cells:
                routes = [route for route in hub.routes.routes if route.cell == cell.cell.name]
                served = sum(one.share for route in routes for one in route.now if ready[one.cluster])
                if served < WHOLE:
                    return f"{cell.cell.name} is served to {served:.3f}: {routes}; {ready}"
        return ""


FAULTS = (
    "nothing",
    "image",
    "image_everywhere",
    "crash",
    "blind",
    "three_silences",
    "lost",
    "agent_clock",
    "controller_clock",
    "all_silent",
    "broker",
    "broker_forgets",
    "controller",
    "agent",
    "weather",
    "demand",
    "price",
)


async def story(seed: int, directory: Path) -> Figures:
    """One seed's story. Raises: Broken, with the one line that makes it happen again."""
    return await Story(seed, directory).tell()
