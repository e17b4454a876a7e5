"""The broker inside the controller beside clients that ask for too much: what others have, and what it costs us."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiomqtt
import pytest

from federation.adapters import embedded_broker
from federation.adapters.embedded_broker import EmbeddedBroker, _Broker
from federation.aiokit import broker
from federation.wire import topics

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def serving(clients: int = 100) -> AsyncIterator[tuple[EmbeddedBroker, _Broker]]:
    served = EmbeddedBroker(clients=clients)
    await served.start()
    assert served._broker is not None
    try:
        yield served, served._broker
    finally:
        await served.stop()


def packet(kind: int, body: bytes) -> bytes:
    length, size = len(body), b""
    while True:
        length, digit = divmod(length, 128)
        size += bytes([digit | (0x80 if length else 0)])
        if not length:
            return bytes([kind]) + size + body


def text(value: str) -> bytes:
    return struct.pack("!H", len(value)) + value.encode()


def connecting(name: str, keepalive_s: int = 60) -> bytes:
    return packet(0x10, text("MQTT") + b"\x04\x02" + struct.pack("!H", keepalive_s) + text(name))


def publishing(topic: str, data: bytes, *, retain: bool = False, qos: int = 0) -> bytes:
    identifier = b"\x00\x01" if qos else b""
    return packet(0x30 | (qos << 1) | int(retain), text(topic) + identifier + data)


def subscribing(pattern: str) -> bytes:
    return packet(0x82, b"\x00\x01" + text(pattern) + b"\x00")


async def opened(served: EmbeddedBroker, sent: bytes = b"") -> Streams:
    reader, writer = await asyncio.open_connection(served.address.host, served.address.port)
    writer.write(sent)
    return reader, writer


async def connected(served: EmbeddedBroker, name: str, keepalive_s: int = 60) -> Streams:
    reader, writer = await opened(served, connecting(name, keepalive_s))
    async with asyncio.timeout(5):
        assert await reader.readexactly(4) == b"\x20\x02\x00\x00"
    return reader, writer


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  what is inside has no event
            await asyncio.sleep(0.02)


async def ended(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(10):
        try:
            await reader.read()
        except ConnectionError:
            return


async def agent_is_heard(served: EmbeddedBroker) -> None:
    async with (
        broker.client(served.own_address, identifier="controller") as controller,
        broker.client(served.address, identifier="agent") as agent,
    ):
        await controller.subscribe(topics.subscription("report"), qos=1)
        await agent.publish(topics.topic("fra", "report"), b"here", qos=1)
        async with asyncio.timeout(5):
            async for message in controller.messages:
                if message.payload == b"here":
                    return


async def test_retained_messages_have_a_bound_and_the_newest_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anyone on the machine could fill the controller's memory by messages that are kept for ever."""
    monkeypatch.setattr(embedded_broker, "RETAINED_BYTES", 1_000_000)
    async with serving() as (served, inside):
        async with broker.client(served.address, identifier="flood") as client:
            for number in range(60):
                await client.publish(topics.topic(f"c{number}", "report"), b"x" * 100_000, qos=1, retain=True)
            await until(lambda: topics.topic("c59", "report") in inside._retained_messages)
            assert 800_000 < inside.retained_bytes <= 1_000_000
            kept = [topics.topic(f"c{number}", "report") for number in range(51, 60)]
            assert list(inside._retained_messages) == kept
            await client.publish(kept[0], b"small", qos=1, retain=True)
            await client.publish(kept[1], b"", qos=1, retain=True)
            await until(lambda: list(inside._retained_messages) == [*kept[2:], kept[0]])
            assert inside.retained_bytes == sum(
                embedded_broker._cost(topic, one.data) for topic, one in inside._retained_messages.items()
            )
        await agent_is_heard(served)


async def test_what_is_not_ours_is_neither_kept_nor_passed_on() -> None:
    """Foreign topics would fill the broker's memory and reach other agents."""
    async with serving() as (served, inside):
        _, writer = await connected(served, "junk")
        for topic in ("junk", "isochrone/v1/a/b/c", topics.topic("x" * 400, "report"), "$SYS/x"):
            writer.write(publishing(topic, b"junk", retain=True))
        await asyncio.sleep(0.2)
        assert not inside._retained_messages
        await agent_is_heard(served)
        writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        publishing("isochrone/v1/x/report", b"x" * 10_000_000),
        packet(0x82, b"\x00\x01" + text("a/b") * 500_000),
        packet(0x30, text("isochrone/v1/x/report"))[:1] + b"\x05" + text("isochrone/v1/x/report"),
        publishing("isochrone/v1/x/report", b"x", qos=2),
        b"\x30\xff\xff\xff\xff\xff",
    ],
    ids=["long", "many-filters", "lying-length", "qos-2", "endless-length"],
)
async def test_who_sends_what_nobody_may_is_thrown_out(sent: bytes) -> None:
    """A message of 256 MB would be read into memory before anyone looks at it."""
    async with serving() as (served, _):
        reader, writer = await connected(served, "liar")
        writer.write(sent)
        await ended(reader)
        writer.close()
        await agent_is_heard(served)


async def test_a_first_packet_that_is_long_or_late_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that never signs in could take all connections of the agents."""
    monkeypatch.setattr(embedded_broker, "CONNECT_S", 0.3)
    async with serving() as (served, _):
        for sent in (b"", b"\x10", b"\x10\xff\xff\x7f", connecting("x" * 60_000), b"GET / HTTP/1.1\r\n\r\n"):
            reader, writer = await opened(served, sent)
            await ended(reader)
            writer.close()
        await until(lambda: served.door.count == 0)


async def test_silence_ends_a_connection_that_said_how_long_it_would_be() -> None:
    """Connections of the dead would take the places of agents."""
    async with serving() as (served, _):
        reader, writer = await connected(served, "silent", keepalive_s=1)
        await ended(reader)
        writer.close()


async def test_who_does_not_read_is_thrown_out_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One stuck subscriber would keep every message of the fleet in memory."""
    monkeypatch.setattr(embedded_broker, "UNSENT_BYTES", 4_000_000)
    async with serving() as (served, inside):
        _, writer = await connected(served, "stuck")
        writer.write(subscribing("isochrone/v1/+/report"))
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        most = 0
        async with broker.client(served.address, identifier="agent") as agent:
            for _ in range(80):
                await agent.publish(topics.topic("fra", "report"), b"x" * 100_000, qos=1)
                most = max(most, inside.unsent_bytes)
        assert 2_000_000 < most <= 4_000_000
        await until(lambda: inside.unsent_bytes == 0)
        assert "stuck" not in inside._sessions or inside._sessions["stuck"][0].transitions.state != "connected"
        writer.close()
        await agent_is_heard(served)


async def test_all_that_waits_has_a_bound_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow readers together would take the controller's memory."""
    monkeypatch.setattr(embedded_broker, "UNSENT_BYTES_IN_ALL", 6_000_000)
    async with serving() as (served, inside):
        stuck = [await connected(served, f"stuck-{number}") for number in range(10)]
        for _, writer in stuck:
            writer.write(subscribing("isochrone/v1/+/report"))
            writer.transport.pause_reading()  # type: ignore[attr-defined]
        most = 0
        async with broker.client(served.address, identifier="agent") as agent:
            for _ in range(60):
                await agent.publish(topics.topic("fra", "report"), b"x" * 100_000, qos=1)
                most = max(most, inside.unsent_bytes)
        assert most <= 6_000_000
        for _, writer in stuck:
            writer.transport.abort()
        await until(lambda: inside.unsent_bytes == 0)
        await agent_is_heard(served)


async def test_half_open_connections_give_way_and_a_full_broker_says_so() -> None:
    """1,500 connections that say nothing would keep every agent out."""
    async with serving(clients=10) as (served, _):
        silent = [await opened(served) for _ in range(50)]
        await agent_is_heard(served)
        agents = [await connected(served, f"agent-{number}") for number in range(10)]
        reader, writer = await opened(served, connecting("one-more"))
        async with asyncio.timeout(5):
            assert await reader.read() == embedded_broker.UNAVAILABLE
        with pytest.raises(aiomqtt.MqttError, match="unavailable"):
            async with broker.client(served.address, identifier="another"):
                pass
        for _, one in (*silent, *agents, (reader, writer)):
            one.close()
        await until(lambda: served.door.count == 0)
        await agent_is_heard(served)


async def test_a_client_has_few_subscriptions() -> None:
    """Each message is held against every filter: a million of them would stop the broker."""
    async with serving() as (served, inside):
        async with broker.client(served.address, identifier="greedy") as client:
            for number in range(40):
                codes = await client.subscribe(f"isochrone/v1/{number}/report")
                assert (codes[0] == 0) == (number < embedded_broker.SUBSCRIPTIONS) or number >= 32
            assert len(inside._subscriptions) == embedded_broker.SUBSCRIPTIONS
            await client.unsubscribe("isochrone/v1/0/report")
            await client.subscribe("isochrone/v1/other/report")
            assert "isochrone/v1/other/report" in inside._subscriptions
        await until(lambda: not inside._filters)


async def test_a_client_is_heard_no_faster_than_it_may_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One agent in a loop would take the controller's whole time."""
    monkeypatch.setattr(embedded_broker, "BURST", 50.0)
    async with serving() as (served, _), broker.client(served.address, identifier="controller") as controller:
        await controller.subscribe(topics.subscription("ack"), qos=0)
        begun_s = time.monotonic()
        async with broker.client(served.address, identifier="loop") as client:
            for number in range(250):
                await client.publish(topics.topic("fra", "ack"), str(number).encode(), qos=0)
            heard = 0
            async with asyncio.timeout(10):
                async for message in controller.messages:
                    heard += 1
                    if message.payload == b"249":
                        break
        assert time.monotonic() - begun_s > 0.8 * (250 - 50) / embedded_broker.RATE_PER_S


async def test_agents_are_not_read_while_the_controller_is_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who floods the controller would get it thrown out of its own broker, or fill its memory."""
    monkeypatch.setattr(embedded_broker, "FAR_BEHIND_BYTES", 1_000_000)
    async with serving() as (served, inside):
        async with broker.client(served.own_address, identifier="controller") as controller:
            await controller.subscribe(topics.subscription("report"), qos=1)
            most = 0

            async def flood(name: str) -> None:
                nonlocal most
                async with broker.client(served.address, identifier=name) as client:
                    for _ in range(70):
                        await client.publish(topics.topic(name, "report"), b"x" * 100_000, qos=1, timeout=30)
                        most = max(most, inside.unsent_bytes)

            async def hear() -> None:
                async for _ in controller.messages:
                    time.sleep(0.002)  # noqa: ASYNC251  the controller has other work

            hearing = asyncio.create_task(hear())
            async with asyncio.timeout(40):
                await asyncio.gather(*(flood(f"flood-{number}") for number in range(5)))
            await until(lambda: inside.unsent_bytes == 0)
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)
        assert 200_000 < most < 2_000_000


async def test_who_hears_much_is_not_slowed_for_saying_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller of a large fleet acknowledges more than it says; were it to wait with that, it would take the broker
    for gone, and connect anew, for ever."""
    monkeypatch.setattr(embedded_broker, "BURST", 20.0)
    monkeypatch.setattr(embedded_broker, "RATE_PER_S", 20.0)
    async with serving() as (served, inside):
        for number in range(500):
            await inside.retain_message(None, topics.topic(f"c{number}", "report"), b"x", 1)
        async with broker.client(served.address, identifier="controller") as controller:
            await controller.subscribe(topics.subscription("report"), qos=1)
            async with asyncio.timeout(5):
                heard = 0
                async for _ in controller.messages:
                    heard += 1
                    if heard == 500:
                        break
                for number in range(5):
                    await controller.publish(topics.topic(f"c{number}", "desired"), b"x", qos=1)
