"""Many agents in one process: MQTT 3.1.1 by hand, an agent's rules of reporting, and nothing of Kubernetes.

`python -m tests.bench.light PORT INTERVAL_S FILE`: FILE holds the first reports of its clusters, as JSON lines. A line
on standard input is an order: `stats` prints a JSON line, `cut` breaks every connection at once. Ends with its input.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import resource
import struct
import sys
from collections import Counter
from pathlib import Path

import msgspec

from agents.returning import Returning
from federation.aiokit.mqtt import encoded as text
from federation.aiokit.mqtt import packet, packets
from federation.wire import messages, topics

CONNACK, PUBLISH = 2, 3
KEEPALIVE_S = 20
WARM_UP_S = 5.0
TOLD = ("desired", "peers", "traffic", "session")


class LightAgent(asyncio.Protocol):
    """The agent of one cluster over its connections. Rules as in `agents/app.py`; replicas are warm after a while."""

    def __init__(self, first: messages.Report, port: int, interval_s: float, counted: Counter[str]) -> None:
        self.name = first.cluster
        self._port, self._interval_s, self._counted = port, interval_s, counted
        self._rng = random.Random(f"light/{self.name}")
        self._boot_id = f"light-{self._rng.getrandbits(48):012x}"
        self._report = msgspec.structs.replace(first, boot_id=self._boot_id, seq=0, interval_s=interval_s)
        self._returning = Returning(self._rng, interval_s=interval_s)
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._ids = itertools.cycle(range(1, 65536))
        self._over = asyncio.Event()
        self._said: tuple[messages.Workload, ...] = ()
        self.is_connected = False

    async def run(self) -> None:
        """Stay connected, and report, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            self._over.clear()
            try:
                await loop.create_connection(lambda: self, "127.0.0.1", self._port)
                await self._over.wait()
            except OSError:
                self._counted["refused"] += 1
            await asyncio.sleep(self._returning.next_s())

    def cut(self) -> None:
        """Break the connection without a goodbye."""
        if self._transport is not None:
            self._transport.abort()

    # ---- the protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._buffer.clear()
        will = text(topics.topic(self.name, "status")) + text(self._status(online=False))
        flags = 0b00101110  # clean session, a will of quality 1, retained
        head = text("MQTT") + bytes([4, flags]) + struct.pack(">H", KEEPALIVE_S)
        transport.write(packet(0x10, head, text(f"isochrone-agent-{self.name}-{self._boot_id}"), will))

    def connection_lost(self, error: Exception | None) -> None:
        self.is_connected = False
        self._transport = None
        self._counted["lost"] += 1
        self._over.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        for first, body in packets(self._buffer):
            self._on_packet(first, body)

    def _on_packet(self, first: int, body: bytes) -> None:
        kind = first >> 4
        if kind == CONNACK and self._transport is not None:
            self.is_connected = True
            self._returning.connected()
            self._publish("status", self._status(online=True))
            wanted = b"".join(text(topics.topic(self.name, told)) + b"\x01" for told in TOLD)  # type: ignore[arg-type]
            self._transport.write(packet(0x82, struct.pack(">H", next(self._ids)), wanted))
            self.report()
        elif kind == PUBLISH and self._transport is not None:
            (size,) = struct.unpack_from(">H", body)
            at = 2 + size
            if first & 0b110:
                self._transport.write(packet(0x40, body[at : at + 2]))
                at += 2
            self._counted["told_bytes"] += len(body)
            self._hear(body[2 : 2 + size].rpartition(b"/")[2].decode(), body[at:])

    def _publish(self, kind: topics.Kind, payload: bytes) -> None:
        if self._transport is not None:
            topic = text(topics.topic(self.name, kind))
            self._transport.write(packet(0x33, topic, struct.pack(">H", next(self._ids)), payload))

    def _status(self, *, online: bool) -> bytes:
        return messages.encode(messages.Status(cluster=self.name, boot_id=self._boot_id, online=online))

    # ---- the agent

    def _hear(self, kind: str, payload: bytes) -> None:
        self._counted[kind] += 1
        if kind not in ("desired", "session"):
            return
        message = messages.decode(payload)
        if isinstance(message, messages.Session):
            self._returning.told(message.spread_s)
            return
        assert isinstance(message, messages.Desired)
        now = (message.epoch, message.generation)
        ok = message.checksum != "" and now >= (self._report.epoch, self._report.generation)
        if ok:
            self._report = msgspec.structs.replace(self._report, epoch=now[0], generation=now[1])
            if message.workloads != self._said:
                self._said = message.workloads
                asyncio.get_running_loop().call_later(WARM_UP_S, self._warm, message.workloads)
        ack = messages.Ack(
            cluster=self.name,
            boot_id=self._boot_id,
            epoch=message.epoch,
            generation=message.generation,
            checksum=message.checksum,
            ok=ok,
            error="" if ok else "older",
            accepted_epoch=self._report.epoch,
            accepted_generation=self._report.generation,
        )
        self._publish("ack", messages.encode(ack))

    def _warm(self, workloads: tuple[messages.Workload, ...]) -> None:
        if workloads is not self._said:
            return
        running = [one for one in workloads if one.replicas]
        used = Counter[messages.PoolKey]()
        for one in running:
            used[one.pool] += one.replicas * one.devices
        self._report = msgspec.structs.replace(
            self._report,
            replicas=tuple(
                messages.ReplicaReport(model=one.model, pool=one.pool, desired=one.replicas, ready=one.replicas)
                for one in running
            ),
            pools=tuple(
                msgspec.structs.replace(pool, free=max(0, pool.allocatable - used[pool.key]))
                for pool in self._report.pools
            ),
            endpoints=tuple(
                messages.ReplicaEndpoint(model=model, address="10.1.0.1", port=8000)
                for model in sorted({one.model for one in running})
            ),
        )

    def report(self) -> None:
        """Say everything."""
        self._report = msgspec.structs.replace(self._report, seq=self._report.seq + 1)
        payload = messages.encode(self._report)
        self._counted["reports"] += 1
        self._counted["report_bytes"] += len(payload)
        self._publish("report", payload)

    async def keep_reporting(self) -> None:
        """Every interval, for ever."""
        await asyncio.sleep(self._rng.uniform(0.0, self._interval_s))
        while True:
            if self.is_connected:
                self.report()
            await asyncio.sleep(self._interval_s * self._rng.uniform(0.9, 1.0))


async def serve(port: int, interval_s: float, first: list[bytes]) -> None:
    """Until standard input ends."""
    counted = Counter[str]()
    agents = [LightAgent(msgspec.json.decode(line, type=messages.Report), port, interval_s, counted) for line in first]
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    going = [loop.create_task(body) for one in agents for body in (one.run(), one.keep_reporting())]
    while line := await reader.readline():
        if line == b"cut\n":
            for one in agents:
                one.cut()
        said = {"connected": sum(one.is_connected for one in agents), **counted}
        print(json.dumps(said), flush=True)
    for task in going:
        task.cancel()


def main() -> None:
    """As the module says."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]).read_bytes().splitlines()))


if __name__ == "__main__":
    main()
