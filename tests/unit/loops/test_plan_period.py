"""When plans are made."""

from __future__ import annotations

import asyncio

from federation.control.plan import Plan, Routes
from federation.demo.pace import DemoClock, SimulatedTime
from federation.loops.hub import Hub
from federation.loops.plan import Planner
from federation.metrics import Metrics
from tests.builders import a_world


class Noting(Planner):
    """Notes when it would plan."""

    def __init__(self, hub: Hub) -> None:
        super().__init__(hub, None, None)  # type: ignore[arg-type]
        self.hub, self.at_s = hub, list[int]()

    async def once(self, why: str) -> str:
        self.at_s.append(round(self.hub.clock.monotonic_s()))
        return "noted"


def test_an_event_does_not_put_the_next_period_off() -> None:
    """Demand that rises after an event would be planned for up to twice as late, and each day by chance another."""
    simulated = SimulatedTime(speed=1e6)

    async def story() -> list[int]:
        clock = DemoClock(simulated)
        hub = Hub(world=a_world("fra-1"), plan=Plan(), routes=Routes(), epoch=1, clock=clock, metrics=Metrics())
        planner = Noting(hub)
        clock.call_later(1_600.0, lambda: hub.replan.set("an event"))
        running = asyncio.get_running_loop().create_task(planner.run(900.0, 10.0), name="plan")
        await clock.sleep(3_000.0)
        running.cancel()
        return planner.at_s

    with asyncio.Runner(loop_factory=simulated.loop) as runner:
        assert runner.run(story()) == [900, 1_600, 1_800, 2_700]
