"""The MQTT broker inside the controller, for a laptop or a small federation. Loopback only.

Its clients share the controller's memory, descriptors and loop, so each of their demands has a bound: packets, retained
messages, bytes that wait for a slow reader, subscriptions, rate, and silence.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import socket
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import structlog
from amqtt.adapters import ReaderAdapter, StreamReaderAdapter, StreamWriterAdapter, WriterAdapter
from amqtt.broker import Broker
from amqtt.errors import AMQTTError, BrokerError
from amqtt.mqtt.constants import QOS_2
from amqtt.mqtt.packet import PUBACK
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.mqtt.publish import PublishPacket
from amqtt.session import Session

from federation.aiokit.address import is_loopback
from federation.aiokit.broker import BrokerAddress
from federation.aiokit.descriptors import AGENTS_AT_MOST
from federation.aiokit.door import Door, Guest, Room
from federation.wire import messages, topics

log = structlog.get_logger("broker")
TOPIC_CHARACTERS = 256
PACKET_BYTES = messages.MAX_MESSAGE_BYTES + 1024
CONNECT_BYTES = 16 * 1024
CONNECT_S = 10.0
"""The time for the first packet to arrive whole."""
LONGEST_HEADER_BYTES = 5
PACKET_S = 20.0
"""The time for any other packet, once it has begun."""
SILENT_S = 300
"""The longest silence of a client, whatever it asks for: others need its connection."""
RATE_PER_S, BURST = 50.0, 1_000.0
"""Packets of one agent: a sustained rate, and a burst."""
RATE_BYTES_PER_S, BURST_BYTES = 1.0 * 1024 * 1024, 8.0 * 1024 * 1024
LIGHT = 0.8
"""The part of the burst reserved for clients that sent little lately."""
ACKNOWLEDGEMENT = 0.02
"""The weight of an acknowledgement, relative to a packet: delaying it would delay the broker's own sending."""
RETAINED_BYTES = 192 * 1024 * 1024
UNSENT_BYTES = 16 * 1024 * 1024
"""Bytes that may wait for one reader. For the controller, agents are paused instead (`_Flow`)."""
BEHIND_BYTES, FAR_BEHIND_BYTES = 2 * 1024 * 1024, 32 * 1024 * 1024
"""Bytes that wait for the controller: above the first, agents that sent much lately are not read; above the second,
none."""
UNSENT_BYTES_IN_ALL = 192 * 1024 * 1024
OVERHEAD_BYTES = 4 * 1024
"""Memory of a message besides its payload."""
RETAINED_AT_ONCE = 1_000
"""Retained messages in flight to one reader: packet identifiers are 65,535, and amqtt loops for ever without a free
one."""
SUBSCRIPTIONS = 32
"""Per client; an agent has four, a controller three."""
WAITING = 4
"""Messages of one client that were read and not yet distributed; beyond this, it is not read."""
LINGER_S = 2.0
UNAVAILABLE = b"\x20\x02\x00\x03"
"""CONNACK: server unavailable."""


class BrokerDown(Exception):
    """The embedded broker could not be started. The message says why and what to do."""


class _Refused(Exception):
    """A client exceeded a bound; its connection ends."""


class _Subscriptions(dict[str, Any]):
    """Filters and their subscribers. amqtt iterates over them while others come and go: each iteration sees a snapshot.

    `wildcards` are the filters that contain a wildcard.
    """

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.wildcards: set[str] = set()

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        if _is_wildcard(name):
            self.wildcards.add(name)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        self.wildcards.discard(name)

    def __iter__(self) -> Iterator[str]:
        return iter(list(super().__iter__()))

    def items(self) -> Any:
        return list(super().items())


class _Sending(set["asyncio.Task[Any]"]):
    """Messages in transmission. amqtt keeps all messages behind the first unfinished one; here each leaves when it is
    done.

    It reports itself as empty, so that amqtt has nothing to tidy up.
    """

    def append(self, task: asyncio.Task[Any]) -> None:
        self.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self.discard(task)
        if not task.cancelled():
            task.exception()  # a reader that did not acknowledge in time, or is gone

    def __bool__(self) -> bool:
        return False


class _Flow:
    """Back-pressure on agents: on those that sent much lately, and on all, while the controller is behind."""

    def __init__(self) -> None:
        self.few, self.all = asyncio.Event(), asyncio.Event()
        self.wait_for(0)

    def wait_for(self, unsent_bytes: int) -> None:
        """The number of bytes that wait for the controller."""
        for event, most in ((self.few, BEHIND_BYTES), (self.all, FAR_BEHIND_BYTES)):
            if unsent_bytes > most:
                event.clear()
            else:
                event.set()


class _Reader(StreamReaderAdapter):  # type: ignore[misc]  # amqtt's classes come untyped
    """Counts the packets of one client as amqtt reads them: none may be too long, too slow or too frequent."""

    def __init__(self, reader: asyncio.StreamReader, guest: Guest) -> None:
        super().__init__(reader)
        self.guest = guest
        self.is_full: Callable[[], bool] = lambda: False
        """Whether the broker holds as many messages of this client as it distributes at once."""
        self.flow: _Flow | None = _Flow()
        self.most_bytes = CONNECT_BYTES
        self._header = b""
        self._left = 0
        self._packets, self._bytes = BURST, BURST_BYTES
        self._filled_s = asyncio.get_running_loop().time()

    async def read(self, n: int = -1) -> bytes:
        if self._left:
            return await self._body(n)
        if n != 1:
            raise _Refused("a packet ends before what it says it has")
        if not self._header:
            if self.flow is not None:
                is_light = min(self._packets / BURST, self._bytes / BURST_BYTES) > LIGHT
                await (self.flow.all if is_light else self.flow.few).wait()
            while self.is_full():  # noqa: ASYNC110  amqtt's queues have no event for room
                await asyncio.sleep(0.01)
        byte = await super().read(1)
        self._header += byte
        if len(self._header) == LONGEST_HEADER_BYTES and byte[0] & 0x80:
            raise _Refused("a packet whose length field does not end")
        if len(self._header) > 1 and not byte[0] & 0x80:
            length = sum((one & 0x7F) << (7 * place) for place, one in enumerate(self._header[1:]))
            cost = ACKNOWLEDGEMENT if self._header[0] >> 4 == PUBACK else 1.0
            self._header = b""
            if length > self.most_bytes:
                raise _Refused(f"a packet of {length} bytes, more than {self.most_bytes}")
            self._left = length
            if self.flow is not None:
                await self._pace(cost, length)
        return bytes(byte)

    async def _body(self, n: int) -> bytes:
        if not 0 <= n <= self._left:
            raise _Refused("a packet ends before what it says it has")
        try:
            async with asyncio.timeout(PACKET_S):
                found = await super().read(n)
        except TimeoutError:
            raise _Refused("a packet that does not end") from None
        self._left -= n
        return bytes(found)

    async def _pace(self, cost: float, length: int) -> None:
        """Wait until this client may be read again; meanwhile its data stay with it."""
        now_s = asyncio.get_running_loop().time()
        passed_s, self._filled_s = now_s - self._filled_s, now_s
        self._packets = min(BURST, self._packets + passed_s * RATE_PER_S) - cost
        self._bytes = min(BURST_BYTES, self._bytes + passed_s * RATE_BYTES_PER_S) - length
        debt_s = max(-self._packets / RATE_PER_S, -self._bytes / RATE_BYTES_PER_S)
        if debt_s > 0:
            await asyncio.sleep(debt_s)


class _Handler(BrokerProtocolHandler):  # type: ignore[misc]
    """The protocol with one client, with bounds on waiting bytes and on silence."""

    def __init__(self, broker: _Broker, *, is_controller: bool) -> None:
        super().__init__(broker.plugins_manager)
        self.is_controller = is_controller
        self.unsent_bytes = 0
        self._broker = broker
        self._window = asyncio.Semaphore(RETAINED_AT_ONCE)

    async def mqtt_publish(
        self, topic: str, data: bytes, qos: int | None, retain: bool, ack_timeout: int | None = None
    ) -> Any:
        if retain:
            async with self._window:
                return await super().mqtt_publish(topic, data, qos, retain, ack_timeout)
        size = len(data) + OVERHEAD_BYTES
        if not self._broker.may_wait(self, size):
            return None
        self._broker.unsent(self, size)
        try:
            return await super().mqtt_publish(topic, data, qos, retain, ack_timeout)
        finally:
            self._broker.unsent(self, -size)

    async def handle_publish(self, publish_packet: PublishPacket) -> None:
        if publish_packet.qos == QOS_2:
            self.hang_up("publishes with QoS 2, which has no bound and is not supported")
            return
        await super().handle_publish(publish_packet)

    def handle_read_timeout(self) -> None:
        self.hang_up("is silent for longer than it said")

    def hang_up(self, why: str) -> None:
        """Close the connection; the reading side notices and cleans up."""
        client = self.session.client_id if self.session else ""
        log.warning("a client is disconnected", client=(client or "")[:TOPIC_CHARACTERS], cause=why)
        if self.writer is not None:
            self.writer._writer.transport.abort()


class _Broker(Broker):  # type: ignore[misc]
    """amqtt's broker with bounds, and with workarounds for faults that agents met.

    amqtt leaves sockets of refused and departed clients open. It disconnects a client when another subscribes during
    its connection. It sends every retained message to each client that connects, whether subscribed or not.
    """

    def __init__(self, config: dict[str, Any], secret: str) -> None:
        super().__init__(config)
        self._secret = secret
        self._flow = _Flow()
        self._subscriptions = _Subscriptions()
        self._tasks_queue = _Sending()
        self._broadcast_queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=4 * WAITING)
        self.retained_bytes = 0
        self.unsent_bytes = 0
        self._filters: dict[str, set[str]] = defaultdict(set)

    async def _initialize_client_session(
        self, reader: ReaderAdapter, writer: WriterAdapter, remote_address: str, remote_port: int
    ) -> tuple[BrokerProtocolHandler, Session]:
        try:
            async with asyncio.timeout(CONNECT_S):
                _, session = await super()._initialize_client_session(reader, writer, remote_address, remote_port)
        except (TimeoutError, _Refused, OSError, ValueError) as error:
            raise AMQTTError(f"no CONNECT: {error}") from error
        session.keep_alive = min(SILENT_S, session.keep_alive or SILENT_S) * 3 // 2 + 1
        session.delivered_message_queue = asyncio.Queue(maxsize=WAITING)
        is_controller = hmac.compare_digest((session.password or "").encode(), self._secret.encode())
        if isinstance(reader, _Reader):
            reader.guest.busy()
            reader.most_bytes = PACKET_BYTES
            reader.is_full = session.delivered_message_queue.full
            reader.flow = None if is_controller else self._flow
        return _Handler(self, is_controller=is_controller), session

    async def _run_broadcast(self, running_tasks: _Sending) -> None:
        """Distribute one message by a look-up of its topic; amqtt compares each message with the filters of all
        clients."""
        broadcast = await self._broadcast_queue.get()
        topic = broadcast["topic"]
        matching = [one for one in self._subscriptions.wildcards if self._matches(topic, one)]
        for pattern in (topic, *matching):
            for session, qos in tuple(self._subscriptions.get(pattern, ())):
                if session.transitions.state == "connected":
                    self._send(session, topic, broadcast["data"], broadcast.get("qos", qos), retain=False)

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        """Send retained messages in the background: the client acknowledges each by the same connection."""
        pattern, qos = subscription
        subscribers = self._subscriptions.get(pattern, ())
        if not any(subscriber.client_id == session.client_id for subscriber, _ in subscribers):
            return
        kept = self._retained_messages
        matching = [one for one in kept if self._matches(one, pattern)] if _is_wildcard(pattern) else [pattern]
        for one in (kept[name] for name in matching if name in kept):
            self._send(session, one.topic, one.data, min(qos, one.qos or qos), retain=True)

    def _send(self, session: Session, topic: str, data: bytes, qos: int, *, retain: bool) -> None:
        handler = self._get_handler(session)
        if handler is not None:
            sending = handler.mqtt_publish(topic, data, qos, retain=retain)
            self._tasks_queue.append(asyncio.get_running_loop().create_task(sending, name="broker send"))

    async def add_subscription(self, subscription: tuple[str, int], session: Session) -> int:
        mine = self._filters[session.client_id or ""]
        is_too_much = len(mine | {subscription[0]}) > SUBSCRIPTIONS or len(subscription[0]) > TOPIC_CHARACTERS
        code = 0x80 if is_too_much else int(await super().add_subscription(subscription, session))
        if code != 0x80:
            mine.add(subscription[0])
        return code

    def _del_subscription(self, a_filter: str, session: Session) -> int:
        self._filters[session.client_id or ""].discard(a_filter)
        return int(super()._del_subscription(a_filter, session))

    async def _del_all_subscriptions(self, session: Session) -> None:
        for pattern in self._filters.pop(session.client_id or "", ()):
            super()._del_subscription(pattern, session)
            if not self._subscriptions.get(pattern, True):
                del self._subscriptions[pattern]

    async def _broadcast_message(
        self, session: Session | None, topic: str | None, data: bytes | None, force_qos: int | None = None
    ) -> None:
        if _is_ours(topic):
            await super()._broadcast_message(session, topic, data, force_qos)

    async def retain_message(
        self, source_session: Session | None, topic_name: str | None, data: bytes | None, qos: int | None = None
    ) -> None:
        """Retain a message of this protocol; when there are too many bytes, the entry not repeated for longest goes."""
        if topic_name is None or not _is_ours(topic_name):
            return
        kept = self._retained_messages
        self.retained_bytes -= _cost(topic_name, kept[topic_name].data) if topic_name in kept else 0
        if data:
            kept.pop(topic_name, None)
        # Its client, with all that it has, is not to be held by what it said.
        await super().retain_message(None, topic_name, data, qos)
        self.retained_bytes += _cost(topic_name, data) if data else 0
        while self.retained_bytes > RETAINED_BYTES:
            oldest = next(iter(kept))
            self.retained_bytes -= _cost(oldest, kept.pop(oldest).data)
            log.warning("retained messages are dropped: there are too many", most_bytes=RETAINED_BYTES)

    def may_wait(self, handler: _Handler, size: int) -> bool:
        """Whether this many more bytes may wait for a reader; otherwise it, or the slowest reader of all, is
        disconnected."""
        if handler.is_controller:
            return True
        if handler.unsent_bytes + size > UNSENT_BYTES:
            handler.hang_up("does not read what it subscribed to")
            return False
        if self.unsent_bytes + size > UNSENT_BYTES_IN_ALL:
            readers = [one for _, one in self._sessions.values() if isinstance(one, _Handler) and not one.is_controller]
            slowest = max(readers, key=lambda one: one.unsent_bytes, default=handler)
            slowest.hang_up("reads slowest of all, and too much waits")
            return slowest is not handler
        return True

    def unsent(self, handler: _Handler, size: int) -> None:
        """Change the number of bytes that wait for a reader."""
        handler.unsent_bytes += size
        self.unsent_bytes += size
        if handler.is_controller:
            self._flow.wait_for(handler.unsent_bytes)


def _is_wildcard(pattern: str) -> bool:
    return "#" in pattern or "+" in pattern


def _is_ours(topic: str | None) -> bool:
    return topic is not None and len(topic) <= TOPIC_CHARACTERS and topics.parse(topic) is not None


def _cost(topic: str, data: bytes) -> int:
    return len(topic) + len(data) + OVERHEAD_BYTES // 4


class EmbeddedBroker:
    """An MQTT broker on one loopback port. Port 0 takes any free one; `address` says which.

    `own_address` is the controller's; the controller proves itself by a secret of the process.

    Args: clients: the most at once.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, clients: int = AGENTS_AT_MOST) -> None:
        if not is_loopback(host):
            raise ValueError(f"the embedded broker serves loopback only, not {host}; give --broker mqtts://… instead")
        self.address = BrokerAddress(host=host, port=port or _free_port(host))
        self._secret = secrets.token_hex(16)
        self.own_address = replace(self.address, username="controller", password=self._secret)
        self.door = Door("broker", Room(all=clients, per_peer=clients), self._welcome)
        self._broker: _Broker | None = None

    async def start(self) -> None:
        """Serve. Raises: BrokerDown."""
        logging.getLogger("amqtt").setLevel(logging.ERROR)
        logging.getLogger("transitions").setLevel(logging.ERROR)
        where = f"{self.address.host}:{self.address.port}"
        config = {
            "listeners": {"default": {"type": "external", "bind": where}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
        self._broker = _Broker(config, self._secret)
        try:
            await self._broker.start()
            await self.door.open(self.address.host, self.address.port)
        except (BrokerError, OSError) as error:
            await self.stop()
            raise BrokerDown(f"cannot serve MQTT on {where}: {error}; is the port taken? Try --broker-port") from error

    async def _welcome(self, connection: socket.socket, guest: Guest) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, connection)
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        try:
            if guest.full or self._broker is None:
                async with asyncio.timeout(LINGER_S):
                    await reader.read(CONNECT_BYTES)
                writer.write(UNAVAILABLE)
            else:
                await self._broker.external_connected(_Reader(reader, guest), StreamWriterAdapter(writer), "default")
        finally:
            writer.close()
            try:
                async with asyncio.timeout(LINGER_S):
                    await writer.wait_closed()
            except (TimeoutError, OSError):
                pass
            finally:
                transport.abort()

    async def stop(self) -> None:
        """Stop; every client sees its connection close."""
        if self._broker is not None:
            await self._broker.shutdown()
            self._broker = None
        await self.door.close()


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
