"""Replicas that do not become ready where the plan wanted them: others serve, and what heals is given its load back."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import msgspec

from agents.backend import Observation
from agents.simulated import SimulatedBackend
from federation.control.setbacks import DEATHS, MARGIN_S
from federation.wire import messages
from tests.sim.controller import PLAN_S
from tests.sim.fleet import DEVICES, SimAgent, SimFleet

WARMUP_S = 60.0


class FailingBackend(SimulatedBackend):
    """A cluster whose registry may be away: what starts then is never ready, what was ready stays so."""

    failing = False
    restarts = 0

    def ready(self) -> dict[messages.ModelPool, int]:
        now_s = self._clock.monotonic_s()
        for ones in self._running.values() if self.failing else ():
            for one in ones:
                if one.ready_at_s > now_s - 1.0 and one.ready_at_s != float("inf"):
                    one.ready_at_s = now_s + WARMUP_S
        return super().ready()

    def observe(self) -> Observation:
        seen = super().observe()
        rows = tuple(
            msgspec.structs.replace(one, cause="image", reason="ImagePullBackOff: manifest unknown")
            if self.failing and one.ready < one.desired
            else one
            for one in seen.replicas
        )
        rows = tuple(msgspec.structs.replace(one, restarts=self.restarts) for one in rows)
        return replace(seen, replicas=rows)


class Fleet(SimFleet):
    """A fleet of such clusters."""

    def _agent(self, name: str) -> SimAgent:
        agent = super()._agent(name)
        agent.backend.__class__ = FailingBackend
        return agent

    def fail(self, *names: str) -> None:
        for name in self.NAMES:
            backend = self.agents[name].backend
            assert isinstance(backend, FailingBackend)
            backend.failing = name in names

    def served(self) -> dict[str, float]:
        """Cell -> share of its requests that goes to clusters with a ready replica."""
        ready = self.ready()
        return {
            route.cell: sum(share.share for share in route.now if ready[share.cluster] > 0)
            for route in self.hub.routes.routes
        }


async def test_users_of_a_cluster_whose_image_cannot_be_pulled_are_served_by_others(tmp_path: Path) -> None:
    """54 of 64 requests a second were unserved beside free, permitted devices, for as long as anybody watched."""
    fleet = Fleet(5, tmp_path)
    await fleet.start_controller()
    fleet.resize("fra-2", DEVICES, 0.5)
    fleet.fail("fra-2")  # the plan's first choice for Berlin
    whole_s: list[float] = []
    lost_requests = 0.0

    def watch() -> None:
        nonlocal lost_requests
        fleet.check()
        served = fleet.served()
        if served.keys() >= {"Berlin", "New York", "Tokyo"} and min(served.values()) > 0.999:
            whole_s.append(fleet.clock.now_s)
        lost_requests += 60.0 * (1.0 - served.get("Berlin", 0.0))

    await fleet.run(900, watch)
    assert whole_s, "\n".join(fleet.said[-9:])
    aim_s = WARMUP_S + MARGIN_S + PLAN_S + WARMUP_S
    assert whole_s[0] <= aim_s, f"{whole_s[0]} s"
    print(
        f"others serve after {whole_s[0]:.0f} s of at most {aim_s:.0f}; {lost_requests:.0f} requests of Berlin unserved"
    )
    before = fleet.ready()
    fleet.fail()
    steps: list[int] = []

    def follow() -> None:
        fleet.check()
        assert min(fleet.served().values()) > 0.999, "a return that takes users away from those who serve them"
        steps.append(fleet.ready()["fra-2"])

    await fleet.run(3 * 3600, follow)
    assert steps[-1] > before["fra-2"], "it is tried again"
    rises = [new - old for old, new in pairwise(steps) if new > old]
    assert rises[0] == 1, f"one first: {rises}"
    await fleet.stop_controller()


async def test_a_model_that_fails_everywhere_is_not_carried_through_the_fleet(tmp_path: Path) -> None:
    """Each cluster would hold devices for the length of a warm-up, one after another, for nothing."""
    fleet = Fleet(5, tmp_path)
    await fleet.start_controller()
    fleet.fail(*fleet.NAMES)
    await fleet.run(1500, fleet.check)
    tried = {key[1] for key in fleet.hub.world.setbacks.backoffs}
    assert any(event.reason == "ModelFails" for event in fleet.hub.events)
    fleet.fail()
    await fleet.run(3600, fleet.check)
    assert min(fleet.served().values()) > 0.999, f"tried {tried}: {fleet.ready()}\n" + "\n".join(fleet.said[-9:])
    await fleet.stop_controller()


async def test_what_died_before_and_is_ready_serves_while_nothing_else_can_start(tmp_path: Path) -> None:
    """Users would be turned away from replicas that stand ready, and those be stopped, as no plan counts on them."""
    fleet = Fleet(5, tmp_path)
    await fleet.start_controller()
    await fleet.run(600, fleet.check)
    before = fleet.ready()
    most = max(before, key=lambda name: before[name])
    assert before[most] < sum(before.values()), "others are ready, and not for all"
    fleet.fail(*fleet.NAMES)
    backend = fleet.agents[most].backend
    assert isinstance(backend, FailingBackend)
    for _ in range(DEATHS):
        backend.restarts += 1
        await fleet.run(60, fleet.check)
    assert {one.cause for one in fleet.hub.world.setbacks.backoffs.values()} == {"crash"}

    def watch() -> None:
        fleet.check()
        assert min(fleet.served().values()) > 0.999
        assert sum(fleet.ready().values()) >= sum(before.values())

    await fleet.run(1800, watch)
    await fleet.stop_controller()
