"""The access list that is shipped for Mosquitto: no agent speaks for another, and orders come from the controller."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from federation.aiokit import mqtt
from federation.aiokit.broker import BrokerAddress
from federation.wire import topics
from tests.testbed.mosquitto import Mosquitto

pytestmark = pytest.mark.real
SHIPPED = Path(__file__).parents[2] / "deploy" / "mosquitto"
TO_AGENTS: tuple[topics.Kind, ...] = ("desired", "peers", "traffic", "session")


class Client(mqtt.Client):
    """One under a user's name, and what it heard, by topic."""

    def __init__(self, port: int, user: str) -> None:
        self.heard: set[str] = set()
        super().__init__(
            BrokerAddress(host="127.0.0.1", port=port, username=user),
            identifier=f"{user}-test",
            on_message=lambda topic, payload, retained: self.heard.add(topic),
            on_lost=lambda: None,
        )


async def test_who_may_say_what() -> None:
    """One stolen agent's certificate would report, or order, for the whole federation; or nobody could be ordered."""
    config = f"{(SHIPPED / 'limits.conf').read_text()}\nacl_file {SHIPPED / 'acl'}\n"
    everyone = [topics.topic(name, kind) for name in ("fra", "iad") for kind in (*topics.FROM_AGENTS, *TO_AGENTS)]
    own = [topics.topic(topics.CONTROLLER, kind) for kind in topics.FROM_AGENTS]
    with Mosquitto(extra_config=config) as served:
        async with (
            asyncio.timeout(20),
            Client(served.port, "isochrone-controller") as controller,
            Client(served.port, "fra") as fra,
            Client(served.port, "iad") as iad,
        ):
            for one in (controller, fra, iad):
                await one.subscribe(everyone + own)
            for topic in everyone:
                await fra.publish(topic, b"fra")
            for topic in (*everyone, *own):
                await controller.publish(topic, b"controller")
            await asyncio.sleep(0.5)
        from_fra = {topics.topic("fra", kind) for kind in topics.FROM_AGENTS}
        assert controller.heard == {*from_fra, *own}
        assert fra.heard == {topics.topic("fra", kind) for kind in TO_AGENTS}
        assert iad.heard == {topics.topic("iad", kind) for kind in TO_AGENTS}
