"""The whole product in one process tree on a simulated world: controller, broker, one agent per cluster, and a day.

Time is simulated, for controller and agents alike, and waits for the controller (`pace`). The day begins when the first
plan is in force and its replicas are warm. The score is over the replicas that agents had ready and the shares that the
controller published, against the true latencies that the controller only estimates.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from agents.app import Agent, AgentSettings
from agents.simulated import SimulatedBackend
from federation.aiokit.tasks import Tasks
from federation.app import Controller
from federation.demo import catalogue, replay
from federation.demo.pace import DemoClock, SimulatedTime
from federation.demo.physics import Physics
from federation.demo.scoring import Observed, Score, Summary
from federation.settings import Listen, Settings
from federation.state.keys import PlacementKey
from federation.state.world import Timing
from federation.wire import messages

DAY_S = 86_400.0
REPORTS_PER_DAY = 120
PLANS_PER_DAY = 48
STEPS_PER_DAY = 240
SETTLING_S, STARTING_S = 5_400.0, 14_400.0
"""Simulated seconds before the day: the first plan precedes the first measured round trips, the second knows them and
is carried out; and the longest time that this may take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of the day, for a line in the terminal."""

    day_fraction: float
    usd_per_hour: float
    within_objective_share: float | None
    unserved_share: float
    generation: int
    story: tuple[str, ...]
    message: str


class Demo:
    """One demo, in the loop of this time. `start` gives it, with the first plan served; it runs until `stop`."""

    def __init__(self, physics: Physics, controller: Controller, clock: DemoClock, *, seed: int) -> None:
        self.physics, self.controller, self.clock = physics, controller, clock
        self._rng = random.Random(seed)
        self._tasks = Tasks()
        self._agents: dict[str, Agent] = {}
        self._backends: dict[str, SimulatedBackend] = {}
        self._began_s: float | None = None
        self._cut: frozenset[str] = frozenset()
        self._doors: tuple[float, dict[str, tuple[messages.DemandSample, ...]]] = (-1.0, {})
        self._score = Score(self.physics)
        self._steps: list[tuple[float, float]] = []

    @classmethod
    async def start(cls, simulated: SimulatedTime, *, seed: int = 0, listen: Listen) -> Demo:
        """Start everything and wait until the first plan serves. Raises: TimeoutError; as `Controller.start`."""
        physics, clock = Physics(catalogue.load()), DemoClock(simulated)
        report_s = DAY_S / REPORTS_PER_DAY
        timing = Timing(report_interval_s=report_s, tick_s=report_s / 2, stale_after_s=4 * report_s)
        settings = Settings(
            listen=listen,
            knows_public_latency=False,
            timing=timing,
            plan_period_s=DAY_S / PLANS_PER_DAY,
            plan_spacing_s=DAY_S / PLANS_PER_DAY / 4,
            seed=seed,
        )
        async with AsyncExitStack() as ending:
            with clock.working():
                demo = cls(physics, await Controller.start(settings, clock=clock), clock, seed=seed)
                ending.push_async_callback(demo.stop)
                await demo._connect()
            await demo._wait_until_serving()
            ending.pop_all()
        return demo

    @property
    def day_fraction(self) -> float:
        """The part of the day that has passed; above 1 on the second day."""
        return 0.0 if self._began_s is None else (self.clock.monotonic_s() - self._began_s) / DAY_S

    async def _wait_until_serving(self) -> None:
        async with self.clock.timeout(STARTING_S):
            await self.clock.sleep(SETTLING_S)
            while not self._is_serving():
                await self.clock.sleep(DAY_S / STEPS_PER_DAY)
        self._began_s = self.clock.monotonic_s()
        self.clock.simulated.promise()

    async def _connect(self) -> None:
        """Wait until every agent has reported."""
        folder = catalogue.folder()
        for name in catalogue.DOCUMENT_FILES:
            await self.controller.desk.accept(name, (folder / name).read_bytes(), actor="demo")
        for name in sorted(self.physics.clusters):
            self._agents[name] = self._agent(name)
            self._tasks.start(f"agent-{name}", self._agents[name].run())
        hub = self.controller.hub
        while any(state.heard_s is None for state in hub.world.clusters.values()):
            await hub.change(timeout_s=0.1)

    def _agent(self, name: str) -> Agent:
        rng = random.Random(f"{name}/{self._rng.getrandbits(32)}")
        backend = SimulatedBackend(
            pools=self.physics.pool_reports(name, 0.0),
            clock=self.clock,
            rng=rng,
            rtt_ms=lambda peer, chance: self.physics.measured_rtt_ms(name, peer, chance),
            demand=lambda: self._demand_at(name),
            probe=f"{name}.demo:1",
        )
        self._backends[name] = backend
        settings = AgentSettings(
            cluster=name,
            address=self.controller.broker,
            interval_s=self.controller.settings.timing.report_interval_s,
            version="demo",
        )
        return Agent(settings, backend, clock=self.clock, rng=rng)

    def _demand_at(self, cluster: str) -> tuple[messages.DemandSample, ...]:
        """The present counts of a cluster's front door; computed once for all front doors and nearby moments."""
        now = round(self.day_fraction * STEPS_PER_DAY * 2) / (STEPS_PER_DAY * 2)
        if self._doors[0] != now:
            doors: dict[str, list[messages.DemandSample]] = defaultdict(list)
            for (model, cell), rps in sorted(self.physics.demand(now).items()):
                doors[self.physics.front_door(cell, now)].append(
                    messages.DemandSample(
                        model=model, cell=self.physics.user_cell(cell), requests_per_second=round(rps, 3)
                    )
                )
            self._doors = (now, {door: tuple(samples) for door, samples in doors.items()})
        return self._doors[1].get(cluster, ())

    def _is_serving(self) -> bool:
        hub = self.controller.hub
        target = hub.plan.target_by_key()
        if not target or not hub.routes.routes:
            return False
        ready = hub.world.ready_replicas()
        return all(ready.get(key, 0) >= count for key, count in target.items())

    async def run(self, days: float | None, tell: Callable[[Progress], None]) -> None:
        """Run for `days`, or for ever, and report progress at every step."""
        step_s = DAY_S / STEPS_PER_DAY
        last = self.day_fraction
        while days is None or last < days:
            await self.clock.sleep(step_s)
            now = self.day_fraction
            self._act(now % 1.0)
            begun = last if days is None else min(last, days)
            ended = now if days is None else min(now, days)
            if ended > begun:
                self._count(begun, (ended - begun) * 24.0)
            last = now
            tell(self._progress(now))

    def _act(self, moment: float) -> None:
        """Carry out the story: devices and prices change, clusters are cut off and come back."""
        for name, backend in self._backends.items():
            pools = self.physics.pool_reports(name, moment)
            if pools != backend.offered:
                backend.set_pools(pools)
        down = frozenset(name for name in self._agents if not self.physics.is_alive(name, moment))
        for name in sorted(down - self._cut):
            self._agents[name].cut()
        for name in sorted(self._cut - down):
            self._agents[name].heal()
        self._cut = down

    def _count(self, moment: float, hours: float) -> None:
        self._steps.append((moment, hours))
        self._score.add(moment, hours, self._observed())

    def _observed(self) -> Observed:
        ready: dict[PlacementKey, int] = {}
        held: dict[PlacementKey, int] = {}
        for name, backend in self._backends.items():
            if name in self._cut:
                continue
            ready |= {PlacementKey(model, name, pool): count for (model, pool), count in backend.ready().items()}
            held |= {PlacementKey(model, name, pool): count for (model, pool), count in backend.holding().items()}
        shares = {
            route.key: {share.cluster: share.share for share in route.now}
            for route in self.controller.hub.routes.routes
        }
        return Observed(ready=ready, held=held, shares=shares)

    def _progress(self, moment: float) -> Progress:
        now = Score(self.physics)
        now.add(moment, 1.0, self._observed())
        summary = now.summary()
        return Progress(
            day_fraction=moment,
            usd_per_hour=summary.usd_per_hour,
            within_objective_share=summary.within_objective_share,
            unserved_share=summary.unserved_share,
            generation=self.controller.hub.plan.generation,
            story=tuple(event.says for event in self.physics.story(moment % 1.0)),
            message=self.controller.hub.message,
        )

    def summaries(self) -> dict[str, Summary]:
        """The summary of Isochrone's day, and of the same day under the plans of other tools."""
        return {"ours": self._score.summary()} | replay.summaries(self.physics, self._steps)

    async def stop(self) -> None:
        """Stop everything."""
        await self._tasks.stop()
        await self.controller.stop()
