"""Accepts connections up to a bound, in all and per address.

Idle connections give way to new ones: a connection that has not sent a whole request, or waits for its next one, is
closed for the newcomer, the longest idle first. Half-open connections therefore keep nobody out, however many there
are. When all are busy, the newcomer is accepted all the same, as one of a few that are only refused politely.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from federation.aiokit.tasks import Tasks

log = structlog.get_logger("door")
BACKLOG = 128
TOLD = 16
"""Connections at once that are accepted only to be refused."""
PAUSE_S = 0.2
"""The pause when nothing can be accepted, as without descriptors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The most connections at once."""

    all: int
    per_peer: int


class Guest:
    """One connection. Its owner marks it as busy or idle.

    `full` is empty, or the reason for which it is accepted only to be refused: `"peer"` (its own address has too many),
    `"all"`.
    """

    __slots__ = ("_door", "full", "is_in", "peer", "task", "was_served")

    def __init__(self, door: Door, peer: str, full: str) -> None:
        self._door = door
        self.peer = peer
        self.full = full
        self.is_in = True
        self.task: asyncio.Task[None] | None = None
        self.was_served = False
        """Whether the owner has taken it: a task that is cancelled at once never begins, and closes nothing."""

    def busy(self) -> None:
        """Mark it as busy: it does not give way."""
        self._door.busy(self)

    def idle(self) -> None:
        """Mark it as idle: it waits for the peer."""
        self._door.idle(self)


class Door:
    """Accepts connections while it is open.

    Args: welcome: called with each connection; it owns the socket until it returns, and gives way when cancelled.
    """

    def __init__(self, name: str, room: Room, welcome: Callable[[socket.socket, Guest], Awaitable[None]]) -> None:
        self.room = room
        self.refused = 0
        """Connections that were accepted only to be refused."""
        self.gave_way = 0
        """Idle connections closed for new ones."""
        self._name = name
        self._welcome = welcome
        self._sockets: list[socket.socket] = []
        self._tasks = Tasks()
        self._guests: dict[str, int] = defaultdict(int)
        self._idle: dict[str, OrderedDict[Guest, None]] = {}
        self._told: OrderedDict[Guest, None] = OrderedDict()
        self._count = 0
        self._is_scarce = False

    async def open(self, host: str, port: int) -> int:
        """Listen on every address of `host`; returns the port. Raises: OSError when the port is not available."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            self._sockets.append(_listening(family, (address[0], port or address[1])))
            port = port or int(self._sockets[0].getsockname()[1])
        for one in self._sockets:
            self._tasks.start(f"{self._name} door", self._accept(one))
        return port

    async def close(self) -> None:
        """Accept nothing more, and close all connections."""
        await self._tasks.stop()
        for one in self._sockets:
            one.close()
        self._sockets.clear()

    async def _accept(self, listening: socket.socket) -> None:
        while True:
            await _readable(listening)
            try:
                connection, address = listening.accept()
            except BlockingIOError:
                continue
            except OSError as error:
                await self._wait(error)
                continue
            self._is_scarce = False
            connection.setblocking(False)
            self._enter(connection, _peer(address[0]))
            await asyncio.sleep(0)

    async def _wait(self, error: OSError) -> None:
        """Pause: newcomers wait in the kernel's queue. Reported once while it lasts; asyncio's own servers report it
        each time."""
        if not self._is_scarce:
            log.error("connections wait at the door", door=self._name, cause=str(error))
        self._is_scarce = True
        self._make_room(None)
        await asyncio.sleep(PAUSE_S)

    def _enter(self, connection: socket.socket, peer: str) -> None:
        full = ""
        if self._guests[peer] >= self.room.per_peer and not self._make_room(peer):
            full = "peer"
        elif self._count >= self.room.all and not self._make_room(None):
            full = "all"
        guest = Guest(self, peer, full)
        if full:
            self.refused += 1
            if len(self._told) >= TOLD:
                self._end(self._told.popitem(last=False)[0])
            self._told[guest] = None
        else:
            self._count += 1
            self._guests[peer] += 1
            self.idle(guest)
        guest.task = self._tasks.start(f"{self._name} connection", self._serve(connection, guest))
        guest.task.add_done_callback(lambda _: None if guest.was_served else connection.close())

    async def _serve(self, connection: socket.socket, guest: Guest) -> None:
        guest.was_served = True
        try:
            await self._welcome(connection, guest)
        except (OSError, TimeoutError):
            pass  # who goes away while being welcomed has done nothing wrong
        finally:
            self._leave(guest)

    def _make_room(self, peer: str | None) -> bool:
        """Close the longest idle connection of a peer, or of the peer with the most. Returns whether there was one."""
        if peer is None:
            peer = max(self._idle, key=lambda one: self._guests[one], default=None)
        idle = self._idle.get(peer) if peer is not None else None
        if not idle:
            return False
        guest = next(iter(idle))
        self.gave_way += 1
        self._end(guest)
        return True

    def _end(self, guest: Guest) -> None:
        self._leave(guest)
        if guest.task is not None:
            guest.task.cancel()

    def _leave(self, guest: Guest) -> None:
        """Called once per connection: its place is free at once, though its socket may take a moment to close."""
        if not guest.is_in:
            return
        guest.is_in = False
        if guest.full:
            self._told.pop(guest, None)
            return
        self.busy(guest)
        self._count -= 1
        self._guests[guest.peer] -= 1
        if not self._guests[guest.peer]:
            del self._guests[guest.peer]

    def idle(self, guest: Guest) -> None:
        """Mark it as the most recently idle."""
        if guest.is_in and not guest.full:
            waiting = self._idle.setdefault(guest.peer, OrderedDict())
            waiting[guest] = None
            waiting.move_to_end(guest)

    def busy(self, guest: Guest) -> None:
        """Mark it as busy."""
        waiting = self._idle.get(guest.peer)
        if waiting is not None:
            waiting.pop(guest, None)
            if not waiting:
                del self._idle[guest.peer]

    @property
    def count(self) -> int:
        """The number of open connections."""
        return self._count


async def _readable(one: socket.socket) -> None:
    """Wait until a connection arrives. `loop.sock_accept` would lose a connection that arrives while it is
    cancelled."""
    loop = asyncio.get_running_loop()
    knocks = asyncio.Event()
    loop.add_reader(one, knocks.set)
    try:
        await knocks.wait()
    finally:
        loop.remove_reader(one)


def _listening(family: int, address: tuple[object, ...]) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address)
        one.listen(BACKLOG)
    except OSError as error:
        one.close()
        raise OSError(error.errno, f"cannot listen on {address[0]}:{address[1]}: {error.strerror}") from None
    return one


def _peer(host: str) -> str:
    """The peer of a connection: its address, or for IPv6 the network of one customer."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.ip_network((address, 64), strict=False))
    return host
