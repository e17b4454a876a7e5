"""What is told to agents: once when it is new, and again only while nobody has answered."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from federation.aiokit.clock import Clock
from federation.control import desired as intent
from federation.control.plan import Plan, Replicas, Routes
from federation.loops.hub import Hub
from federation.loops.publish import Publisher
from federation.metrics import Metrics
from federation.state.reduce import Heard
from federation.wire import messages, topics
from tests.builders import L4, a_model, a_policy, a_report, a_world, heard

NAMES = ("fra-1", "fra-2", "iad-1")


class Standing(Clock):
    """A clock that is set by hand."""

    now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s


class Taking:
    """A link to a broker that takes everything, or nothing."""

    def __init__(self) -> None:
        self.sent: list[tuple[topics.Kind, str]] = []
        self.takes = True

    async def publish(self, message: messages.Desired, kind: topics.Kind, *, retain: bool = True) -> bool:
        if self.takes:
            self.sent.append((kind, message.cluster))
        return self.takes

    def taken(self) -> Counter[str]:
        """How many messages of each kind, since it was asked last."""
        found = Counter[str](kind for kind, _ in self.sent)
        self.sent.clear()
        return found


def published(told: int = 1) -> tuple[Hub, Taking, Publisher]:
    """Every cluster runs one replica by plan `told`, and was heard."""
    world = a_world(*NAMES, models=(a_model(),), policies=(a_policy("chat"),))
    world = heard(world, *(a_report(name, probe=f"{name}.example:1") for name in NAMES), now_s=100.0)
    hub = Hub(
        world=world, plan=a_plan(world.documents, told), routes=Routes(), epoch=1, clock=Standing(), metrics=Metrics()
    )
    link = Taking()
    return hub, link, Publisher(hub, link)  # type: ignore[arg-type]


def a_plan(documents: object, generation: int) -> Plan:
    rows = tuple(Replicas(model="chat", cluster=name, pool=L4, replicas=generation) for name in NAMES)
    plan = Plan(epoch=1, generation=generation, desired=rows, generations=dict.fromkeys(NAMES, generation))
    told = intent.workloads(documents, plan.desired_by_key(), {}, {})  # type: ignore[arg-type]
    return replace(plan, digests={name: intent.digest(told[name]) for name in NAMES})


async def test_a_mark_publishes_what_is_new_and_the_interval_what_is_not_acknowledged() -> None:
    """In a storm of agents each new one would have all orders of the fleet made, sealed and sent once more."""
    hub, link, publisher = published()
    await publisher.unacknowledged()
    assert link.taken() == {"desired": 3, "peers": 3}
    for _ in range(5):
        await publisher.unacknowledged()
    assert link.taken() == {}
    ack = messages.Ack(
        cluster="fra-1",
        boot_id="boot-0001",
        epoch=1,
        generation=1,
        checksum="",
        ok=True,
        accepted_epoch=1,
        accepted_generation=1,
    )
    hub.apply(Heard(message=ack, now_s=100.0))
    Standing.now_s += 10.0
    await publisher.unacknowledged()
    assert link.taken() == {"desired": 2}, "whoever has not answered is told again"
    hub.plan = a_plan(hub.world.documents, 2)
    await publisher.unacknowledged()
    assert link.taken() == {"desired": 3}, "a new order waits for no interval"


async def test_what_the_broker_did_not_take_is_published_again() -> None:
    """An order that was lost with a connection would wait for the next change."""
    _, link, publisher = published()
    link.takes = False
    await publisher.unacknowledged()
    link.takes = True
    await publisher.unacknowledged()
    assert link.taken()["desired"] == 3


async def test_each_start_is_told_once_that_it_is_in_force() -> None:
    """Each new agent of a storm would have all others told again."""
    hub, link, publisher = published()
    await publisher.sessions()
    await publisher.sessions()
    assert link.taken() == {"session": 3}
    hub.world = heard(hub.world, a_report("iad-1", boot_id="boot-0002"), now_s=160.0)
    await publisher.sessions()
    assert link.sent == [("session", "iad-1")]
