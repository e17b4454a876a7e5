"""The controller's MQTT client, against a broker and against bytes."""

from __future__ import annotations

import asyncio
import struct

import pytest

from federation.adapters.embedded_broker import EmbeddedBroker
from federation.aiokit import mqtt
from federation.aiokit.broker import BrokerAddress
from federation.wire import topics

KEPT, NOW, OTHER = (topics.topic(*one) for one in (("kept", "report"), ("now", "report"), ("now", "desired")))


class Peer:
    """A broker of which the test writes each word."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self.said = bytearray()
        self.writer: asyncio.StreamWriter | None = None

    async def __aenter__(self) -> BrokerAddress:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return BrokerAddress(host="127.0.0.1", port=self._server.sockets[0].getsockname()[1])

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        if self.writer is not None:
            self.writer.close()
            await asyncio.gather(self.writer.wait_closed(), return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.said += await reader.read(4096)
        writer.write(self._answer)
        while data := await reader.read(4096):
            self.said += data
        writer.close()


def client(address: BrokerAddress, heard: list[tuple[str, bytes, bool]]) -> mqtt.Client:
    return mqtt.Client(
        address, identifier="me", on_message=lambda *message: heard.append(message), on_lost=lambda: None
    )


async def test_what_is_published_is_heard_and_what_is_retained_is_told_as_such() -> None:
    """A controller would hear nobody, or take a broker's memory for a sign of life."""
    served = EmbeddedBroker()
    await served.start()
    heard: list[tuple[str, bytes, bool]] = []
    try:
        async with asyncio.timeout(20), client(served.address, heard) as first:
            await first.publish(KEPT, b"x" * 70_000, retain=True)
            await first.subscribe([topics.subscription("report")])
            await first.publish(NOW, b"now")
            await first.publish(OTHER, b"not asked for")
            while len(heard) < 2:  # noqa: ASYNC110  a list has no event
                await asyncio.sleep(0.02)
        assert (NOW, b"now", False) in heard
        assert (KEPT, b"x" * 70_000, True) in heard
        assert len(heard) == 2
    finally:
        await served.stop()


async def test_messages_count_however_they_are_cut() -> None:
    """One that arrives in two pieces, or behind another, would be lost, or end the connection."""
    heard: list[tuple[str, bytes, bool]] = []
    one = mqtt.packet(0x32, struct.pack(">H", 3), b"a/b", struct.pack(">H", 9), b"y" * 300)
    async with asyncio.timeout(10), (peer := Peer(bytes([0x20, 2, 0, 0]))) as address, client(address, heard):
        assert peer.writer is not None
        for at in range(0, len(one), 100):
            peer.writer.write(one[at : at + 100])
            await asyncio.sleep(0.02)
        peer.writer.write(one * 3)
        while len(heard) < 4 or peer.said.count(bytes([0x40, 2, 0, 9])) < 4:  # noqa: ASYNC110  nor have these
            await asyncio.sleep(0.02)
    assert heard == [("a/b", b"y" * 300, False)] * 4


async def test_a_broker_that_refuses_is_told_with_its_reason() -> None:
    """A wrong password would look like a broker that is down."""
    async with asyncio.timeout(10), Peer(bytes([0x20, 2, 0, 4])) as address:
        with pytest.raises(mqtt.MqttError, match="user or password is wrong"):
            async with client(address, []):
                pass


async def test_who_waits_for_an_answer_learns_that_the_broker_is_gone() -> None:
    """The controller would wait for ever for an acknowledgement, and publish nothing more."""
    async with asyncio.timeout(10), (peer := Peer(bytes([0x20, 2, 0, 0]))) as address, client(address, []) as mine:
        asking = asyncio.create_task(mine.publish("a", b"b"))
        await asyncio.sleep(0.05)
        assert peer.writer is not None
        peer.writer.close()
        with pytest.raises(mqtt.MqttError, match="closed the connection"):
            await asking
        assert mine.lost is not None
        with pytest.raises(mqtt.MqttError):
            await mine.publish("a", b"b")
