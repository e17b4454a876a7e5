"""An MQTT 3.1.1 client for a reader of thousands of topics: it reads all available packets at once.

The general client takes a packet from the socket with several calls, each of which yields to other threads; beside a
computing thread it reads a hundred messages a second. This client has what a controller needs: a clean session,
subscriptions, and publications of quality 1.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from federation.aiokit.broker import BrokerAddress

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, PINGREQ, DISCONNECT = 0x10, 2, 3, 4, 0x82, 9, 0xC0, 0xE0
REFUSALS = {
    1: "it does not speak MQTT 3.1.1",
    2: "it refuses the client's identifier",
    3: "it is not available",
    4: "user or password is wrong",
    5: "not authorised",
}
ANSWER_S = 30.0
"""The time for the broker to answer: it may have thousands of messages to deliver first."""
OnMessage = Callable[[str, bytes, bool], None]


class MqttError(OSError):
    """The broker cannot be reached, refuses, or is gone."""


class Client(asyncio.Protocol):
    """One connection: entering connects, leaving closes.

    Args: on_message: called with (topic, payload, whether it is retained) for each message as it arrives. on_lost:
        called once when the connection is over, however it ends.
    """

    def __init__(
        self,
        address: BrokerAddress,
        *,
        identifier: str,
        on_message: OnMessage,
        on_lost: Callable[[], None],
        keepalive_s: int = 20,
    ) -> None:
        self._address = address
        self._identifier = identifier
        self._on_message = on_message
        self._on_lost = on_lost
        self._keepalive_s = keepalive_s
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._waits: dict[int, asyncio.Future[bytes]] = {}
        """Pending answers of the broker by packet identifier; 0 is the connection."""
        self._numbers = itertools.cycle(range(1, 65536))
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._heard_s = 0.0
        self._pinging: asyncio.Task[None] | None = None
        self.lost: MqttError | None = None
        """Why the connection is over; None while it is open."""

    # ---- for its user

    async def __aenter__(self) -> Self:
        loop, one = asyncio.get_running_loop(), self._address
        connected = self._waits[0] = loop.create_future()
        try:
            async with asyncio.timeout(ANSWER_S):
                tls = one.tls_context()
                await loop.create_connection(lambda: self, one.host, one.port, ssl=tls)
                self._write(self._hello())
                code = (await connected)[1]
        except TimeoutError:
            self._abort()
            raise MqttError("the broker does not answer") from None
        except BaseException:
            self._abort()
            raise
        if code:
            self._abort()
            raise MqttError(REFUSALS.get(code, f"the broker refuses with code {code}"))
        self._pinging = loop.create_task(self._ping(), name="mqtt ping")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self._pinging is not None:
            self._pinging.cancel()
        if self._transport is not None and self.lost is None:
            with suppress(OSError):
                self._write(bytes([DISCONNECT, 0]))
            self._transport.close()

    async def subscribe(self, filters: Sequence[str]) -> None:
        """Subscribe; retained messages follow. Raises: MqttError."""
        number = next(self._numbers)
        wanted = b"".join(encoded(one) + b"\x01" for one in filters)
        answer = await self._asked(number, packet(SUBSCRIBE, struct.pack(">H", number), wanted))
        if any(code > 2 for code in answer[2:]):
            raise MqttError(f"the broker refuses a subscription of {', '.join(filters)}")

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Returns once the broker has the message. Raises: MqttError."""
        number = next(self._numbers)
        flags = (PUBLISH << 4) | 2 | int(retain)
        await self._may_write.wait()
        await self._asked(number, packet(flags, encoded(topic), struct.pack(">H", number), payload))

    async def _asked(self, number: int, raw: bytes) -> bytes:
        """The broker's answer to a packet."""
        if self.lost is not None:
            raise self.lost
        waits = self._waits[number] = asyncio.get_running_loop().create_future()
        self._write(raw)
        try:
            async with asyncio.timeout(ANSWER_S):
                answer: bytes = await waits
                return answer
        except TimeoutError:
            raise MqttError("the broker does not answer") from None
        finally:
            self._waits.pop(number, None)

    # ---- the protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As asyncio calls it."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._heard_s = asyncio.get_running_loop().time()

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio calls it."""
        self._end(MqttError(str(exc) if exc is not None else "the broker closed the connection"))

    def data_received(self, data: bytes) -> None:
        """As asyncio calls it."""
        self._heard_s = asyncio.get_running_loop().time()
        self._buffer += data
        answers = []
        for first, body in packets(self._buffer):
            kind = first >> 4
            if kind == PUBLISH:
                answers.append(self._published(first, body))
            elif kind in (CONNACK, PUBACK, SUBACK):
                number = 0 if kind == CONNACK else int.from_bytes(body[:2], "big")
                waits = self._waits.get(number)
                if waits is not None and not waits.done():
                    waits.set_result(body)
        if answers:
            self._write(b"".join(answers))

    def pause_writing(self) -> None:
        """As asyncio calls it."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """As asyncio calls it."""
        self._may_write.set()

    def _published(self, first: int, body: bytes) -> bytes:
        """Hand a message over; returns the acknowledgement if it requires one."""
        at = 2 + int.from_bytes(body[:2], "big")
        topic = body[2:at].decode("utf-8", errors="replace")
        answer = b""
        if first & 0b110:
            answer = bytes([PUBACK << 4, 2]) + body[at : at + 2]
            at += 2
        self._on_message(topic, body[at:], bool(first & 1))
        return answer

    def _hello(self) -> bytes:
        one = self._address
        flags = 2 | (0x80 if one.username is not None else 0) | (0x40 if one.password is not None else 0)
        named = [encoded(part) for part in (self._identifier, one.username, one.password) if part is not None]
        return packet(CONNECT, encoded("MQTT"), bytes([4, flags]), struct.pack(">H", self._keepalive_s), *named)

    async def _ping(self) -> None:
        """Ping the broker for ever, and end the connection when it does not answer."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._keepalive_s / 2)
            if loop.time() - self._heard_s > 1.5 * self._keepalive_s:
                self._abort()
                self._end(MqttError("nothing is heard of the broker"))
                return
            self._write(bytes([PINGREQ, 0]))

    def _write(self, raw: bytes) -> None:
        if self._transport is not None:
            self._transport.write(raw)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _end(self, error: MqttError) -> None:
        if self.lost is not None:
            return
        self.lost = error
        self._may_write.set()
        for waits in self._waits.values():
            if not waits.done():
                waits.set_exception(error)
                waits.exception()  # whoever waits gets it; of whom nobody waits for, nothing is told
        self._on_lost()


def packet(first: int, *parts: bytes) -> bytes:
    """A control packet. Args: first: its first byte, kind and flags."""
    body = b"".join(parts)
    length, left = bytearray(), len(body)
    while True:
        left, low = divmod(left, 128)
        length.append(low | (128 if left else 0))
        if not left:
            return bytes([first]) + bytes(length) + body


def packets(buffer: bytearray) -> Iterator[tuple[int, bytes]]:
    """(first byte, body) of each complete packet; exhausting the iterator removes them from the buffer."""
    at = 0
    while len(buffer) - at >= 2:
        size, shift, head = 0, 0, at + 1
        while head < len(buffer):
            size |= (buffer[head] & 127) << shift
            head, shift = head + 1, shift + 7
            if not buffer[head - 1] & 128:
                break
        else:
            break
        if len(buffer) < head + size:
            break
        yield buffer[at], bytes(buffer[head : head + size])
        at = head + size
    del buffer[:at]


def encoded(value: str | bytes) -> bytes:
    """A string or a payload, prefixed with its length."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(raw)) + raw
