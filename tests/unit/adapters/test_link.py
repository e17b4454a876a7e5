"""The controller's end of the broker: it finds out that it is deaf, and that it is not alone."""

from __future__ import annotations

import asyncio
import random

import pytest

from federation.adapters.embedded_broker import EmbeddedBroker
from federation.adapters.link import Deaf, Link
from federation.aiokit import broker
from federation.aiokit.clock import Clock
from federation.wire import messages, topics
from tests.builders import a_report

HEARTBEAT_S = 0.2


class Ears:
    """A link with what came of it."""

    def __init__(self, served: EmbeddedBroker, controller: str, heartbeat_s: float = HEARTBEAT_S) -> None:
        self.connected = asyncio.Event()
        self.lost = asyncio.Event()
        self.heard: list[messages.Message] = []
        self.rivals: list[messages.Heartbeat] = []
        self.refused: list[str] = []
        self.link = Link(
            served.address,
            clock=Clock(),
            rng=random.Random(0),
            on_message=lambda message, retained, arrived_s: self.heard.append(message),
            on_refused=lambda topic, cause: self.refused.append(f"{topic}: {cause}"),
            on_connected=self._on_connected,
            on_lost=self._on_lost,
            heartbeat=lambda: messages.Heartbeat(controller=controller, epoch=1, uptime_s=1.0),
            on_rival=self._on_rival,
            heartbeat_s=heartbeat_s,
        )

    def _on_rival(self, said: messages.Heartbeat) -> bool:
        self.rivals.append(said)
        return len(self.rivals) == 1

    async def _on_connected(self) -> None:
        self.lost.clear()
        self.connected.set()

    def _on_lost(self) -> None:
        self.connected.clear()
        self.lost.set()


@pytest.mark.parametrize("kind", topics.FROM_AGENTS)
async def test_a_lost_subscription_is_noticed_and_made_again(kind: topics.Kind) -> None:
    """A controller whose session was stolen would take every cluster for dead while it says that it is ready."""
    served = EmbeddedBroker()
    await served.start()
    ears = Ears(served, "controller-1")
    running = asyncio.create_task(ears.link.run())
    try:
        async with asyncio.timeout(20):
            await ears.connected.wait()
            await asyncio.sleep(3 * HEARTBEAT_S)
            assert ears.link.is_connected, "what is well stays as it is"
            assert served._broker is not None
            del served._broker._subscriptions[topics.subscription(kind)]
            started_s = asyncio.get_running_loop().time()
            await ears.lost.wait()
            assert asyncio.get_running_loop().time() - started_s < 4 * HEARTBEAT_S
            assert not ears.link.is_connected, "it is not ready meanwhile"
            await ears.connected.wait()
            async with broker.client(served.address, identifier="agent") as agent:
                report = messages.Status(cluster="fra", boot_id="boot-0001", online=True)
                await agent.publish(topics.topic("fra", "status"), messages.encode(report), qos=1)
            while not ears.heard:  # noqa: ASYNC110  a list has no event
                await asyncio.sleep(0.02)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await served.stop()


async def test_two_controllers_on_one_broker_hear_each_other_and_stay_connected() -> None:
    """They would throw each other off the broker for ever, and neither would know why."""
    served = EmbeddedBroker()
    await served.start()
    ears = [Ears(served, f"controller-{number}") for number in range(2)]
    running = [asyncio.create_task(one.link.run()) for one in ears]
    try:
        async with asyncio.timeout(20):
            for one in ears:
                await one.connected.wait()
            while not all(one.rivals for one in ears):  # noqa: ASYNC110  lists have no event
                await asyncio.sleep(0.02)
            await asyncio.sleep(5 * HEARTBEAT_S)
        assert [one.lost.is_set() for one in ears] == [False, False]
        assert {said.controller for said in ears[0].rivals} == {"controller-1"}
        assert ears[0].refused == []
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await served.stop()


async def test_a_controller_that_starts_is_answered_at_once() -> None:
    """It would hear every cluster before it hears the controller that leads them, and take them over."""
    served = EmbeddedBroker()
    await served.start()
    never_s = 600.0
    ears = [Ears(served, f"controller-{number}", never_s) for number in range(2)]
    running = []
    try:
        async with asyncio.timeout(10):
            for one in ears:
                running.append(asyncio.create_task(one.link.run()))
                await one.connected.wait()
            while not all(one.rivals for one in ears):  # noqa: ASYNC110  lists have no event
                await asyncio.sleep(0.02)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await served.stop()


async def test_a_backlog_of_others_makes_nobody_deaf() -> None:
    """In the storm of a large fleet the controller would connect anew, be told everything once more, and never catch
    up."""
    served = EmbeddedBroker()
    await served.start()
    ears = Ears(served, "controller-1", heartbeat_s=600.0)
    running = asyncio.create_task(ears.link.run())
    try:
        async with asyncio.timeout(10):
            await ears.connected.wait()
        link, now_s = ears.link, asyncio.get_running_loop().time()
        link._heard_s = dict.fromkeys(topics.FROM_AGENTS, now_s - 5_000.0)
        payload = messages.encode(messages.Status(cluster="fra", boot_id="boot-0001", online=True))
        link._arrived(topics.topic("fra", "status"), payload, False)
        with pytest.raises(Deaf, match="no report heard"):
            link._judge(now_s)
        link._arrived(topics.topic("fra", "report"), messages.encode(a_report("fra")), False)
        link._arrived(topics.topic("fra", "ack"), b"of somebody", False)
        link._judge(now_s)
        link._heard_s["ack"] = now_s - 5_000.0
        with pytest.raises(Deaf, match="no ack heard"):
            link._judge(now_s)
        link._heard_s = dict.fromkeys(topics.FROM_AGENTS, now_s)
        with pytest.raises(Deaf, match="not even the own heartbeat"):
            link._judge(now_s + 1_300.0)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await served.stop()


async def test_what_waits_to_be_read_is_the_newest_and_counts_from_when_it_came() -> None:
    """A cluster would be taken for silent while its report lies there, or an old one would be read for the newest."""
    served = EmbeddedBroker()
    await served.start()
    ears = Ears(served, "controller-1")
    try:
        link = ears.link
        for seq, retained in ((1, True), (2, False), (3, False)):
            report = a_report("fra", seq=seq)
            link._arrived(topics.topic("fra", "report"), messages.encode(report), retained)
        link._arrived(topics.topic("iad", "report"), messages.encode(a_report("iad")), True)
        assert set(link.waiting()) == {"fra"}, "a broker's memory is no sign of life"
        assert link.waiting().get("iad") is None
        assert 0.0 <= link.waiting()["fra"] <= link._clock.monotonic_s()
        for topic in list(link._waiting):
            link._hear(topic, link._waiting.pop(topic))
        assert [(one.cluster, one.seq) for one in ears.heard if isinstance(one, messages.Report)] == [
            ("fra", 3),
            ("iad", 1),
        ]
    finally:
        await served.stop()
