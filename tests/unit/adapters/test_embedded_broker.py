"""The broker inside the controller: what it must not do over weeks of agents that come and go."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from federation.adapters.embedded_broker import BrokerDown, EmbeddedBroker, _Subscriptions
from federation.aiokit import broker


def open_sockets() -> int:
    """Sockets of this process."""
    count = 0
    for one in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            count += str(one.readlink()).startswith("socket:")
    return count


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts sockets in /proc, which is Linux's")
async def test_clients_that_come_and_go_leave_no_socket() -> None:
    """A controller that runs out of descriptors hears no agent any more."""
    served = EmbeddedBroker()
    await served.start()
    before = open_sockets()
    for number in range(10):
        async with broker.client(served.address, identifier="agent") as client:
            await client.publish("isochrone/v1/x/report", b"{}", qos=1)
        _, writer = await asyncio.open_connection(served.address.host, served.address.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n" if number % 2 else b"")
        writer.close()
        await writer.wait_closed()
    async with asyncio.timeout(10):
        while open_sockets() > before:  # noqa: ASYNC110  descriptors have no event
            await asyncio.sleep(0.05)
    await served.stop()


def test_who_subscribes_while_others_connect_throws_nobody_out() -> None:
    """After a restart of the controller all agents come at once; those thrown out would be silent for ten seconds."""
    subscriptions = _Subscriptions({"a": [], "b": []})
    for name in subscriptions:
        subscriptions[f"{name}/more"] = []
    for name, _ in subscriptions.items():
        del subscriptions[name]
    assert not subscriptions


async def test_a_client_is_sent_only_what_it_subscribed_to() -> None:
    """Every agent would be sent what all others reported and were told."""
    served = EmbeddedBroker()
    await served.start()
    async with (
        broker.client(served.address, identifier="controller") as controller,
        broker.client(served.address, identifier="other") as other,
    ):
        await other.publish("isochrone/v1/other/report", b"secret", qos=1, retain=True)
        await controller.subscribe("isochrone/v1/+/report", qos=1)
        assert (await anext(aiter(controller.messages))).payload == b"secret"
        async with broker.client(served.address, identifier="mine") as mine:
            await controller.publish("isochrone/v1/mine/desired", b"for me", qos=1, retain=True)
            await mine.subscribe("isochrone/v1/mine/desired", qos=1)
            async with asyncio.timeout(5):
                first = await anext(aiter(mine.messages))
        assert (first.topic.value, first.payload) == ("isochrone/v1/mine/desired", b"for me")
    await served.stop()


async def test_a_taken_port_is_said_with_a_way_out() -> None:
    """A second controller on a machine would end in a stack trace."""
    first = EmbeddedBroker()
    await first.start()
    with pytest.raises(BrokerDown, match="is the port taken"):
        await EmbeddedBroker(port=first.address.port).start()
    await first.stop()


def test_it_is_never_open_to_other_machines() -> None:
    """A broker without identities would take orders from the whole network."""
    with pytest.raises(ValueError, match="loopback only"):
        EmbeddedBroker(host="0.0.0.0")
