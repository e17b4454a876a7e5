"""A rollout ends, whatever routing does meanwhile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

import placement as words
from federation.control import rollout
from federation.state.keys import PlacementKey
from federation.wire import messages
from tests.builders import L4
from tests.sim.engine import Engine
from tests.sim.fleet import SimAgent, SimFleet

FIRST, OTHER = "iad", "nrt"


class Wavering(Engine):
    """Sends Tokyo's users to whichever of two clusters has the fewer of them, as round trips that grow with load do.

    Whoever asks twice must ask otherwise: `waver` makes the count of Tokyo's users another one each second.
    """

    def __init__(self, fleet: SimFleet) -> None:
        super().__init__()
        self.fleet = fleet

    async def route(self, problem: words.Problem, ready: words.Ready) -> words.Routing:
        routed = await super().route(problem, ready)
        (now,) = [route.now for route in self.fleet.hub.routes.routes if route.cell == "Tokyo"]
        there = sum(share.share for share in now if share.cluster == FIRST)
        serving = FIRST if there < 0.5 else OTHER
        flows = tuple(
            structs.replace(flow, cluster=serving) if flow.cell == "Tokyo" and flow.cluster in (FIRST, OTHER) else flow
            for flow in routed.flows
        )
        return replace(routed, flows=flows)

    def waver(self) -> None:
        """One second has passed."""
        self.fleet.ask("nrt", 30.0 + 0.001 * (self.fleet.clock.now_s % 7))
        self.fleet.check()


async def test_what_is_not_wanted_goes_though_requests_of_others_never_come_to_rest(tmp_path: Path) -> None:
    """Somebody would pay for replicas that serve nobody, for as long as two clusters are equally near."""
    fleet = SimFleet(7, tmp_path)
    await fleet.start_controller()
    await fleet.run(600, fleet.check)
    before = fleet.wanted()
    dear = max(("fra-1", "fra-2", "par"), key=lambda name: before[name])
    wavering = Wavering(fleet)
    fleet.steer._solver = wavering  # type: ignore[assignment]
    fleet.resize(dear, 8, 30.0)
    await fleet.run(600, wavering.waver)
    assert fleet.wanted()[dear] == 0, fleet.said[-1]
    assert fleet.ready()[dear] == 0, f"wanted {fleet.wanted()}, ready {fleet.ready()}"
    moving = [route for route in fleet.hub.routes.routes if route.now != route.target]
    assert [route.cell for route in moving] == ["Tokyo"], "the case is the one that is meant"
    await fleet.stop_controller()


class Overtaken(Engine):
    """While it routes, a plan is made, with marks of its own."""

    def __init__(self, fleet: SimFleet) -> None:
        super().__init__()
        self.fleet = fleet

    async def route(self, problem: words.Problem, ready: words.Ready) -> words.Routing:
        self.fleet.hub.planned_s = self.fleet.clock.now_s
        self.fleet.hub.postponed = frozenset({PlacementKey("chat", "iad", L4)})
        return await super().route(problem, ready)


async def test_a_step_goes_by_the_marks_of_the_plan_that_it_carries_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster that has just come back would lose its replicas to an old target, in the name of the next one."""
    seen: list[rollout.Situation] = []
    next_step = rollout.next_step

    def watched(situation: rollout.Situation) -> rollout.Step:
        seen.append(situation)
        return next_step(situation)

    fleet = SimFleet(7, tmp_path)
    await fleet.start_controller()
    await fleet.run(600, fleet.check)
    monkeypatch.setattr("federation.control.rollout.next_step", watched)
    fleet.steer._solver = Overtaken(fleet)  # type: ignore[assignment]
    fleet.hub.planned_s, fleet.hub.postponed = float("-inf"), frozenset()
    await fleet.steer.once("test")
    assert [(one.weighed, one.postponed) for one in seen] == [(frozenset(), frozenset())]
    await fleet.stop_controller()


class Late(SimFleet):
    """One cluster's reports may say that nothing is ready there, as reports do that are older than what is."""

    late = ""

    async def _observed(self, agent: SimAgent) -> messages.Report:
        report = await super()._observed(agent)
        if agent.name != self.late:
            return report
        rows = tuple(structs.replace(one, ready=0) for one in report.replicas)
        return structs.replace(report, replicas=rows)


async def test_what_is_ready_after_all_is_stopped_for_a_reason_that_holds_or_not_at_all(tmp_path: Path) -> None:
    """Replicas that serve would be stopped by older knowledge; or agent and controller would disagree for ever."""
    fleet = Late(7, tmp_path)
    await fleet.start_controller()
    await fleet.run(600, fleet.check)
    before = fleet.ready()
    dear = max(("fra-1", "fra-2", "par"), key=lambda name: before[name])
    assert before[dear] > 0
    fleet.late = dear
    fleet.resize(dear, 8, 30.0)
    ordered: set[str] = set()

    def watch() -> None:
        fleet.check()
        ordered.update(one.stop_reason for one in fleet.hub.plan.desired if one.cluster == dear)
        if messages.NOT_READY in ordered and fleet.late:
            assert fleet.ready()[dear] == before[dear], f"{before}, {fleet.ready()}"

    await fleet.run(90, watch)
    assert messages.NOT_READY in ordered, "the case is the one that is meant"
    assert fleet.ready()[dear] == before[dear], "those that are ready stay"
    fleet.late = ""
    await fleet.run(600, watch)
    assert fleet.ready() == fleet.wanted(), "it ends where the plan wants it"
    acks = {name: state.ack for name, state in fleet.hub.world.clusters.items()}
    assert all(ack is not None and ack.ok for ack in acks.values()), acks
    assert any("serve instead" in one for one in ordered), ordered
    await fleet.stop_controller()
