"""Who comes in while the door closes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import warnings

import pytest

from federation.aiokit.door import Door, Guest, Room


async def held(connection: socket.socket, guest: Guest) -> None:
    """An owner who waits for ever and closes what is theirs."""
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        connection.close()


@pytest.mark.parametrize("turns", range(6))
async def test_a_door_that_closes_leaves_no_connection_open(turns: int) -> None:
    """Whoever comes at that moment would wait for an answer until their own time-out, and its descriptor be lost."""
    door = Door("test", Room(all=10, per_peer=10), held)
    port = await door.open("127.0.0.1", 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        callers = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0)
        await door.close()
        gc.collect()
        for caller in callers:
            caller.settimeout(2.0)
            with contextlib.suppress(ConnectionResetError):
                assert caller.recv(1) == b""
            caller.close()


async def test_who_gives_way_before_being_welcomed_is_closed() -> None:
    """The place would be free and the connection stay open for ever."""
    door = Door("test", Room(all=1, per_peer=1), held)
    port = await door.open("127.0.0.1", 0)
    callers = [socket.create_connection(("127.0.0.1", port)) for _ in range(4)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert door.count == 1 and door.gave_way == 3
    for caller in callers[:3]:
        caller.settimeout(2.0)
        assert caller.recv(1) == b""
    await door.close()
    for caller in callers:
        caller.close()
