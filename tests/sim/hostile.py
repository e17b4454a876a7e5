"""Forty minutes of a fleet with a liar and every fault there is, at once: a story per seed.

`story(seed, directory)` runs one and raises `Broken` with its one-line reproduction when the oracle objects.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from msgspec.structs import replace

from federation.policy.documents import Cluster, Documents, PlacementPolicy
from federation.state.phases import Phase
from tests.sim.controller import REPORT_S
from tests.sim.fleet import DEVICES, Weather
from tests.sim.hostile_fleet import HostileFleet
from tests.sim.lies import COSTLY, KINDS
from tests.sim.oracle import Broken

TOLERATION_S = 120.0
START_S, STORY_S, QUIET_S = 300.0, 2400.0, 1800.0
YEAR_S = 365.25 * 86400.0
COSTLY_S, COSTLY_SHARE = 90.0, 0.05
"""The lie that makes large questions of small ones is told seldom, and not for long: long enough to be believed."""
LOOK_S, WHOLE_S = 60.0, 300.0
"""A story ends when, looked at so often, all has been whole for so long; at the latest after `QUIET_S`."""
WHOLE = 0.99
WEATHERS = (Weather(), Weather(loss=0.05, repeat=0.05, delay_s=12.0))
KNOWS_S = 60.0
"""A controller that was replaced while it slept knows so by then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a story came to. Seconds of this machine's processor, and counts."""

    seed: int
    took_s: float
    stops: int
    ordered: int
    braked_s: int
    refused: int
    said: str


def reproduction(seed: int) -> str:
    """The line that makes this story happen again."""
    return f"python -m tests.sim --seed {seed}"


End = Callable[[], Awaitable[None] | None]
"""What ends a fault."""


async def ended(end: End) -> None:
    """End a fault."""
    awaited = end()
    if awaited is not None:
        await awaited


class Story:
    """One seed's forty minutes."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.seed = seed
        self.chance = Random(seed)
        self.liar = self.chance.choice(("iad", "iad", "nrt", "par"))
        alone = seed % (2 * len(KINDS))
        self.kinds = (KINDS[alone],) if alone < len(KINDS) else tuple(self.chance.sample(KINDS, 4))
        self.fleet = HostileFleet(seed, directory, liar=self.liar)
        self.honest = [name for name in self.fleet.NAMES if name != self.liar]
        self.ends: list[tuple[float, End]] = []
        self.first = self.fleet.documents
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
            for one in (self.fleet.lead, *self.fleet.others):
                await one.stop()
            gc.enable()
        return Figures(
            seed=self.seed,
            took_s=time.process_time() - started_s,
            stops=self.fleet.oracle.stops,
            ordered=self.fleet.oracle.ordered,
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
                await ended(self.ends.pop(0)[1])
            next_s = min(until_s, self.ends[0][0] if self.ends else until_s)
            await fleet.run(max(1.0, next_s - fleet.clock.now_s), fleet.oracle.look)

    def _later(self, seconds: float, act: End) -> None:
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
        if not self.fleet.others:  # else the other one would lead, as it should, and only an operator ends that
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

    async def _drift(self, name: str) -> None:
        self.did.append(f"        in {name}: {self.fleet.backend(name).drift(self.chance)}")
        self.fleet.agents[name].kept_s = self.fleet.clock.now_s - self.chance.uniform(0.0, REPORT_S)

        def look() -> None:
            agent = self.fleet.agents[name]
            if agent.carried is not None and self.fleet.clock.now_s >= agent.yields_until_s:
                ordered = {(one.model, one.pool): one.replicas for one in agent.carried.workloads if one.replicas}
                assert self.fleet.backend(name).counts() == ordered, f"{name} drifts from {ordered}"

        self._later(2 * REPORT_S + 1.0, look)

    async def _full_disk(self, name: str) -> None:
        self.fleet.disk = self.chance.choice(("full", "full", "takes nothing"))
        self._later(self.chance.uniform(60, 900), lambda: setattr(self.fleet, "disk", ""))

    async def _second_controller(self, name: str) -> None:
        """It has a database of its own, and is quiet beside the one that is there."""
        fleet = self.fleet
        second = await fleet.second() if not fleet.others else None
        if second is None:
            return

        async def end() -> None:
            assert second.hub.plan.generation == 0, f"the second decides: {second.hub.plan.summary}"
            await fleet.end(second)

        self._later(self.chance.uniform(60, 600), end)

    async def _replaced_controller(self, name: str) -> None:
        """Its machine stops, another one takes its database; then it goes on where it was."""
        fleet = self.fleet
        before = fleet.lead
        if fleet.others or not await fleet.replaced(self.chance.uniform(1, 120)):
            return

        async def end() -> None:
            assert before.hub.outvoted(), "who was replaced goes on deciding"
            await fleet.end(before)

        async def wake() -> None:
            await before.resume()
            self._later(KNOWS_S, end)

        self._later(self.chance.uniform(10, 300), wake)

    async def _edit(self, name: str) -> None:
        """A person changes a floor, a most, or a price, and may force it."""
        known = self.fleet.documents
        force = "it is meant" if self.chance.random() < 0.5 else ""
        became = await self.fleet.order(self.chance.choice(EDITS)(known, name, self.chance), force=force)
        self.did.append(f"        {became}")

    async def _forced_stop(self, name: str) -> None:
        """A person takes the model from its users, and gives it back."""
        became = await self.fleet.order(replace(self.fleet.documents, policies=()), force="it is over")
        self.did.append(f"        {became}")
        await self._run(self.chance.uniform(10, 400))
        self.did.append(f"        {await self.fleet.order(self.first)}")

    # ---- the end

    async def _quiet(self) -> None:
        """Everything heals but the liar, who lies on; then all that honest clusters have is whole."""
        fleet = self.fleet
        fleet.weather = WEATHERS[0]
        fleet.lies = self.kinds
        fleet.clock.skew_s = 0.0
        while self.ends:
            self.ends.sort(key=lambda one: one[0])
            await ended(self.ends.pop(0)[1])
        for other in list(fleet.others):
            await fleet.end(other)
        for name in fleet.NAMES:
            fleet.agents[name].clock.skew_s = 0.0
            await fleet.heal(name)
        if fleet.documents != self.first:
            became = await fleet.order(self.first) if fleet.documents.policies else "refused"
            became = await fleet.order(self.first, force="as before") if became.startswith("refused") else became
            assert fleet.documents == self.first, f"what was in force first is {became}"
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
    "drift",
    "full_disk",
    "second_controller",
    "replaced_controller",
    "edit",
    "forced_stop",
)


def _floor(known: Documents, name: str, chance: Random) -> Documents:
    return _available(known, min_replicas=chance.choice((2, 3, 4, 5)))


def _most(known: Documents, name: str, chance: Random) -> Documents:
    return _available(known, max_replicas=chance.choice((None, 8, 12, 16)))


def _available(known: Documents, **fields: int | None) -> Documents:
    def changed(one: PlacementPolicy) -> PlacementPolicy:
        return replace(one, spec=replace(one.spec, availability=replace(one.spec.availability, **fields)))

    return replace(known, policies=tuple(changed(one) for one in known.policies))


def _dearer(known: Documents, name: str, chance: Random) -> Documents:
    usd = chance.uniform(0.3, 3.0)

    def changed(one: Cluster) -> Cluster:
        pools = tuple(replace(pool, usd_per_device_hour=usd) for pool in one.spec.accelerators)
        return replace(one, spec=replace(one.spec, accelerators=pools))

    return replace(known, clusters=tuple(changed(one) if one.metadata.name == name else one for one in known.clusters))


EDITS = (_floor, _most, _dearer)


async def story(seed: int, directory: Path) -> Figures:
    """One seed's story. Raises: Broken, with the one line that makes it happen again."""
    return await Story(seed, directory).tell()
