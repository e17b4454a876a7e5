"""What the loops share."""

from __future__ import annotations

import threading
from dataclasses import replace

import msgspec
import pytest

from federation.aiokit.clock import Clock
from federation.control.plan import Plan, Routes
from federation.loops.hub import Hub
from federation.metrics import Metrics
from federation.state.reduce import BrokerFound, DocumentsAccepted, TimePassed
from federation.state.world import Brake, Timing, World
from federation.wire import messages, topics
from tests.builders import a_model, a_policy, a_report, a_world, heard, replicas, some_demand
from tests.sim.loop import SimClock


def test_under_the_brake_nothing_is_adopted() -> None:
    """Agents would be ordered what the first cluster that comes back says that it runs, while the others are silent."""
    world = a_world("fra", models=(a_model("chat"),), policies=(a_policy("chat"),))
    world = heard(world, a_report("fra", replicas=(replicas("chat", 3, 3),)))
    braked = replace(world, brake=Brake(since_s=0.0, phases={}, silent=("par",), counted=2))
    hub = Hub(world=braked, plan=Plan(), routes=Routes(), epoch=1, clock=Clock(), metrics=Metrics())
    hub.adopt()
    assert not hub.plan.desired
    hub.world = world
    hub.adopt()
    assert [one.replicas for one in hub.plan.desired] == [3]


def test_why_a_cluster_is_not_heard_is_told_once() -> None:
    """A cluster would be lost and nothing say why, or one that sends nothing else push all other events out."""
    hub = Hub(world=a_world("fra"), plan=Plan(), routes=Routes(), epoch=1, clock=Clock(), metrics=Metrics())
    for cluster in ("fra", "nobody"):
        for _ in range(1000):
            hub.hear_refused(topics.topic(cluster, "report"), "a number is not finite")
    hub.hear_refused("elsewhere", "no topic of ours")
    assert [(one.reason, one.object) for one in hub.events] == [("MessageRefused", "cluster/fra")]
    assert "a number is not finite" in hub.events[0].message


@pytest.mark.parametrize("is_ordered", [False, True])
@pytest.mark.parametrize(("epoch", "uptime_s"), [(2**51, 1.0), (3, 1e9)], ids=["a higher epoch", "ours, and elder"])
def test_a_heartbeat_alone_does_not_silence_the_controller_that_agents_obey(
    epoch: int, uptime_s: float, is_ordered: bool
) -> None:
    """A few bytes every ten seconds would keep users on clusters that died, and no `--take-over` would help."""
    clock, names = SimClock(), ("fra", "iad", "nrt")
    world = heard(a_world(*names), *(a_report(name, epoch=3, generation=9) for name in names))
    hub = Hub(world=world, plan=Plan(generation=10), routes=Routes(), epoch=3, clock=clock, metrics=Metrics())
    hub.doubts_rivals = is_ordered

    def quiet_from(start_s: float) -> list[float]:
        """The seconds at which it is quiet beside one that goes by another name each time."""
        found: list[float] = []
        for second in range(0, 90, 10):
            clock.time.now_s = start_s + second
            hub.hear_rival(messages.Heartbeat(controller=f"forged-{second}", epoch=epoch, uptime_s=uptime_s))
            found += [second] if hub.rivalled() else []
        return found

    believed = [] if is_ordered else [0, 10, 20, 30, 40, 50]
    assert quiet_from(0.0) == believed
    assert [one.reason for one in hub.events].count("OtherControllerDoubted") == 1
    assert quiet_from(500.0) == believed, "after a break another may lead"
    other = (epoch, 1) if epoch > 3 else (3, 11)
    hub.world = heard(world, *(a_report(name, seq=2, epoch=other[0], generation=other[1]) for name in ("fra", "iad")))
    assert quiet_from(1000.0) == [*range(0, 90, 10)], "one that agents obey leads"


def test_what_front_doors_are_known_to_count_outlives_the_process() -> None:
    """Each start of a controller would believe whatever a lying member says first."""
    before = Hub(
        world=heard(
            a_world("fra", now_s=5.0), a_report("fra", demand=(some_demand("chat", "Berlin", 30),)), now_s=10.0
        ),
        plan=Plan(),
        routes=Routes(),
        epoch=1,
        clock=Clock(start_wall_s=1e6, speed=2.0),
        metrics=Metrics(),
    )
    stored = msgspec.json.decode(msgspec.json.encode(replace(Plan(), known=before.known())), type=Plan)
    assert stored.known["fra"].since_s == pytest.approx(1e6 + 10.0, abs=1e-3)
    clock = Clock(start_wall_s=1e6 + 500.0, speed=2.0)
    after = Hub(world=World(timing=Timing()), plan=stored, routes=Routes(), epoch=2, clock=clock, metrics=Metrics())
    known = after.world.known["fra"]
    assert (known.rps, known.peak_rps) == (30.0, 30.0)
    assert known.since_s == pytest.approx(10.0 - 500.0, abs=1.0)
    after.apply(DocumentsAccepted(documents=before.world.documents, now_s=clock.monotonic_s()))
    assert after.known()["fra"].since_s == pytest.approx(1e6 + 10.0, abs=1.0), "a plan before it speaks keeps it"


def test_who_connects_listens_for_others_before_it_takes_over() -> None:
    """A second controller that is started by mistake would take every cluster from the one that leads."""
    clock = SimClock()
    hub = Hub(
        world=World(timing=Timing()),
        plan=Plan(),
        routes=Routes(),
        epoch=1,
        clock=clock,
        metrics=Metrics(),
        controller="b",
    )
    clock.time.now_s = 100.0
    hub.apply(BrokerFound(now_s=100.0))
    assert "another controller" in hub.listens()
    assert hub.look_at_s == 101.0, "and is told when it is over"
    assert hub.hear_rival(messages.Heartbeat(controller="a", epoch=1, uptime_s=500.0)), "it is answered"
    assert not hub.hear_rival(messages.Heartbeat(controller="a", epoch=1, uptime_s=505.0))
    clock.time.now_s = 101.0
    hub.apply(TimePassed(now_s=101.0))
    assert not hub.listens()
    assert hub.replan._event.is_set(), "a plan is made at once where nobody answers"
    assert "controller a leads" in hub.rivalled()


async def test_what_is_long_in_a_large_fleet_is_done_beside_the_loop() -> None:
    """Each step of routing ten thousand clusters would hold up their reports, and the answer of /healthz."""
    few, many = a_world("fra-1"), a_world(*(f"fra-{number:03}" for number in range(150)))
    for world, is_beside in ((few, False), (many, True)):
        hub = Hub(world=world, plan=Plan(), routes=Routes(), epoch=1, clock=Clock(), metrics=Metrics())
        assert (await hub.beside(threading.get_ident) != threading.get_ident()) is is_beside
