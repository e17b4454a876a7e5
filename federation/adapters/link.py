"""The controller's end of MQTT: hears every agent, speaks to each. Reconnects for ever.

A broker is a cache: what it lost is published again after every connection, and a publish that returned proves nothing
until the agent's own answer.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import aiomqtt
import structlog

from federation.aiokit import broker
from federation.aiokit.backoff import Backoff
from federation.aiokit.clock import Clock
from federation.wire import messages, topics

log = structlog.get_logger("link")

OnMessage = Callable[[messages.Message, bool], None]
OnRefused = Callable[[str, str], None]


class Link:
    """One connection to the broker.

    Args: on_message: called with (message, whether it is the broker's memory). on_refused: called with (topic, cause)
        for a payload that is no message, or that speaks for another cluster than its topic's. on_connected: awaited
        after subscribing; it publishes everything. on_lost: called when the connection broke.
    """

    def __init__(
        self,
        address: broker.BrokerAddress,
        *,
        clock: Clock,
        rng: random.Random,
        on_message: OnMessage,
        on_refused: OnRefused,
        on_connected: Callable[[], Awaitable[None]],
        on_lost: Callable[[], None],
    ) -> None:
        self._address = address
        self._clock = clock
        self._backoff = Backoff(rng, base_s=0.5, cap_s=15.0)
        self._identifier = f"isochrone-controller-{rng.getrandbits(48):012x}"
        self._on_message = on_message
        self._on_refused = on_refused
        self._on_connected = on_connected
        self._on_lost = on_lost
        self._client: aiomqtt.Client | None = None

    @property
    def is_connected(self) -> bool:
        """Whether a broker is there."""
        return self._client is not None

    async def publish(self, message: messages.Desired | messages.Peers | messages.Traffic, kind: topics.Kind) -> bool:
        """Publish, retained; False when there is no broker, and then the next connection publishes it."""
        if self._client is None:
            return False
        try:
            await self._client.publish(
                topics.topic(message.cluster, kind), messages.encode(message), qos=1, retain=True
            )
        except aiomqtt.MqttError as error:
            log.warning("publish failed", cluster=message.cluster, kind=kind, error=str(error))
            return False
        return True

    async def run(self) -> None:
        """Stay connected, for ever."""
        while True:
            try:
                await self._session()
            except (aiomqtt.MqttError, OSError) as error:
                delay_s = self._backoff.next_s()
                log.warning("no broker", host=self._address.host, error=str(error), retry_s=round(delay_s, 2))
                await asyncio.sleep(delay_s)

    async def _session(self) -> None:
        async with broker.client(self._address, identifier=self._identifier) as client:
            for kind in topics.FROM_AGENTS:
                await client.subscribe(topics.subscription(kind), qos=1)
            self._client = client
            self._backoff.reset()
            try:
                await self._on_connected()
                async for message in client.messages:
                    self._hear(message)
            finally:
                self._client = None
                self._on_lost()

    def _hear(self, raw: aiomqtt.Message) -> None:
        address = topics.parse(raw.topic.value)
        payload = raw.payload if isinstance(raw.payload, bytes) else b""
        try:
            message = messages.decode(payload)
        except messages.WireError as error:
            self._on_refused(raw.topic.value, str(error))
            return
        if address is None or message.cluster != address[0]:
            self._on_refused(raw.topic.value, f"speaks for {message.cluster}")
            return
        self._on_message(message, bool(raw.retain))
