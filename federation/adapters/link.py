"""The controller's end of MQTT: receives from every agent, sends to each, reconnects for ever.

The broker is a cache: everything is published again after every connection, and a publish proves nothing until the
agent acknowledges. A connection proves nothing either: the controller sends itself a heartbeat by each of its
subscriptions, and if it misses one for two intervals it is deaf and reconnects.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog

from federation.aiokit import broker, mqtt
from federation.aiokit.backoff import Backoff
from federation.aiokit.clock import Clock
from federation.aiokit.tasks import together
from federation.wire import messages, topics

log = structlog.get_logger("link")

OnMessage = Callable[[messages.Message, bool, float], None]
OnRefused = Callable[[str, str], None]
REPORT = topics.FROM_AGENTS[0]
SLICE_S = 0.02
"""The time for which messages are read in one go before others get the loop."""
HEARTBEAT_S = 5.0
"""Seconds of the machine between two heartbeats of a controller."""
MISSED = 2
"""Intervals without its own heartbeat after which a controller is deaf."""


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A message that waits to be read, and its arrival by the controller's clock."""

    payload: bytes
    retained: bool
    at_s: float


class _Waiting(Mapping[str, float]):
    """Clusters by their waiting messages; a look-up takes constant time."""

    def __init__(self, by_topic: Mapping[str, _Arrived]) -> None:
        self._by_topic = by_topic

    def __getitem__(self, cluster: str) -> float:
        one = self._by_topic[topics.topic(cluster, REPORT)]
        if one.retained:
            raise KeyError(cluster)
        return one.at_s

    def __iter__(self) -> Iterator[str]:
        for topic, one in self._by_topic.items():
            address = topics.parse(topic)
            if address is not None and address[1] == REPORT and not one.retained:
                yield address[0]

    def __len__(self) -> int:
        return len(self._by_topic)


class Deaf(mqtt.MqttError):
    """The broker accepts publishes and delivers nothing: a lost subscription, or a stolen session."""


class Link:
    """One connection to the broker.

    Args: on_message: called with (message, whether it is retained, its arrival: it may have waited for long).
        on_refused: called with (topic, cause) for a payload that is not a message, or that speaks for another cluster
        than its topic's. on_connected: awaited after subscribing; it publishes everything. on_lost: called when the
        connection broke. heartbeat: gives the controller's own heartbeat. on_rival: called with the heartbeat of
        another controller; returns whether to answer at once.
    """

    def __init__(
        self,
        address: broker.BrokerAddress,
        *,
        clock: Clock,
        rng: random.Random,
        on_message: OnMessage,
        on_refused: OnRefused,
        on_connected: Callable[[], Coroutine[Any, Any, None]],
        on_lost: Callable[[], None],
        heartbeat: Callable[[], messages.Heartbeat],
        on_rival: Callable[[messages.Heartbeat], bool],
        heartbeat_s: float = HEARTBEAT_S,
    ) -> None:
        self._address = address
        self._clock = clock
        self._backoff = Backoff(rng, base_s=0.5, cap_s=15.0)
        # Not by `rng`, whose seed may be everybody's: two clients under one identifier throw each other out.
        self._identifier = f"isochrone-controller-{secrets.token_hex(8)}"
        self._on_message = on_message
        self._on_refused = on_refused
        self._on_connected = on_connected
        self._on_lost = on_lost
        self._heartbeat = heartbeat
        self._on_rival = on_rival
        self._heartbeat_s = heartbeat_s
        self._is_asked = asyncio.Event()
        self._heard_s: dict[topics.Kind, float] = {}
        """When a subscription last delivered anything: an own heartbeat, or an agent's message."""
        self._arrival_s = 0.0
        """When anything last arrived."""
        self._client: mqtt.Client | None = None
        self._waiting: dict[str, _Arrived] = {}
        """Topic -> its waiting message, in order of first arrival."""
        self._news = asyncio.Event()
        """Set when a message has arrived, or the connection is over."""

    @property
    def is_connected(self) -> bool:
        """Whether a broker is connected."""
        return self._client is not None

    async def publish(
        self,
        message: messages.Desired | messages.Peers | messages.Traffic | messages.Session,
        kind: topics.Kind,
        *,
        retain: bool = True,
    ) -> bool:
        """Publish. Returns False without a broker; the next connection then publishes what is to be retained."""
        if self._client is None:
            return False
        try:
            await self._client.publish(topics.topic(message.cluster, kind), messages.encode(message), retain=retain)
        except mqtt.MqttError as error:
            log.warning("publish failed", cluster=message.cluster, kind=kind, error=str(error))
            return False
        return True

    async def run(self) -> None:
        """Stay connected for ever."""
        while True:
            try:
                await self._session()
            except OSError as error:
                delay_s = self._backoff.next_s()
                log.warning("no broker", host=self._address.host, error=str(error), retry_s=round(delay_s, 2))
                await asyncio.sleep(delay_s)

    async def _session(self) -> None:
        self._waiting.clear()
        self._news.clear()
        async with mqtt.Client(
            self._address, identifier=self._identifier, on_message=self._arrived, on_lost=self._news.set
        ) as client:
            for kind in topics.FROM_AGENTS:
                await client.subscribe([topics.subscription(kind)])
            self._client = client
            self._backoff.reset()
            try:
                await together(greet=self._on_connected(), hear=self._hear_all(client), heartbeat=self._beat(client))
            finally:
                self._client = None
                self._on_lost()

    def waiting(self) -> Mapping[str, float]:
        """Cluster -> arrival of its newest report, for reports that wait; a live view."""
        return _Waiting(self._waiting)

    async def _hear_all(self, client: mqtt.Client) -> None:
        """Read waiting messages for ever. Raises: mqtt.MqttError when the connection is over."""
        while client.lost is None:
            self._news.clear()
            until_s = time.perf_counter() + SLICE_S
            while self._waiting:
                topic = next(iter(self._waiting))
                self._hear(topic, self._waiting.pop(topic))
                if time.perf_counter() > until_s:
                    await asyncio.sleep(0)
                    until_s = time.perf_counter() + SLICE_S
            await self._news.wait()
        raise client.lost

    async def _beat(self, client: mqtt.Client) -> None:
        """Send heartbeats for ever. Raises: Deaf."""
        loop = asyncio.get_running_loop()
        self._arrival_s = loop.time()
        self._heard_s = dict.fromkeys(topics.FROM_AGENTS, self._arrival_s)
        while True:
            payload = messages.encode(self._heartbeat())
            for kind in topics.FROM_AGENTS:
                await client.publish(topics.topic(topics.CONTROLLER, kind), payload)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._heartbeat_s):
                    await self._is_asked.wait()
            self._is_asked.clear()
            self._judge(loop.time())

    def _judge(self, now_s: float) -> None:
        """Check that each subscription delivers: at least the own heartbeat comes back by it.

        The own heartbeat may be late or dropped behind thousands of messages, which prove the subscription as well:
        reconnecting in an overload would add to it.

        Raises: Deaf when nothing arrives at all, or nothing by one subscription while another delivers.
        """
        newest_s = max(self._heard_s.values())
        late_s = {k: newest_s - heard_s for k, heard_s in self._heard_s.items()}
        kind = max(late_s, key=lambda one: late_s[one])
        silent_s = now_s - self._arrival_s
        if silent_s > MISSED * self._heartbeat_s:
            raise Deaf(f"nothing received for {silent_s:.0f} s, not even the own heartbeat: reconnecting")
        if late_s[kind] > MISSED * self._heartbeat_s:
            raise Deaf(f"no {kind} heard for {late_s[kind]:.0f} s, not even the own heartbeat: reconnecting")

    def _arrived(self, topic: str, payload: bytes, retained: bool) -> None:
        """Store an arrived message until its turn. Only the newest of each topic is kept, because each is full state.
        Own heartbeats are recognised by the identity of this process."""
        address = topics.parse(topic)
        self._arrival_s = asyncio.get_running_loop().time()
        if address is not None and address[0] != topics.CONTROLLER:
            self._heard_s[address[1]] = self._arrival_s
        if address is None or address[0] != topics.CONTROLLER:
            self._waiting[topic] = _Arrived(payload, retained, self._clock.monotonic_s())
            self._news.set()
            return
        try:
            said = messages.decode(payload)
        except messages.WireError as error:
            self._on_refused(topic, str(error))
            return
        if not isinstance(said, messages.Heartbeat):
            return
        if said.controller == self._heartbeat().controller:
            self._heard_s[address[1]] = self._arrival_s
        elif address[1] == REPORT and not retained and self._on_rival(said):
            self._is_asked.set()

    def _hear(self, topic: str, arrived: _Arrived) -> None:
        address = topics.parse(topic)
        try:
            message = messages.decode(arrived.payload)
        except messages.WireError as error:
            self._on_refused(topic, str(error))
            return
        speaks_for = None if isinstance(message, messages.Heartbeat) else message.cluster
        if address is None or speaks_for != address[0]:
            self._on_refused(topic, f"speaks for {speaks_for or 'a controller'}")
            return
        self._on_message(message, arrived.retained, arrived.at_s)
