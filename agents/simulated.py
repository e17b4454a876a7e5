"""A cluster that exists only here: devices, prices and warm-up times, for demos and tests."""

from __future__ import annotations

import asyncio
import math
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agents.backend import Observation
from agents.limits import Limits
from federation.aiokit.clock import Clock, Timer
from federation.wire import messages

RttMs = Callable[[str, random.Random], float]
Place = tuple[float, float]
_PLACED = re.compile(r"@(-?\d{1,2}(?:\.\d+)?),(-?\d{1,3}(?:\.\d+)?):")
FIBRE_KM_PER_RTT_MS = 100.0
DETOUR, LEAST_RTT_MS = 1.5, 2.0
"""Ways are so many times as long as the great circle, and what is at their ends takes its time."""


def rtt_ms_between(one: Place, other: Place) -> float:
    """The round trip by fibre between two places, in milliseconds."""
    (lat, lon), (other_lat, other_lon) = (map(math.radians, place) for place in (one, other))
    half = (
        math.sin((other_lat - lat) / 2) ** 2
        + math.cos(lat) * math.cos(other_lat) * math.sin((other_lon - lon) / 2) ** 2
    )
    km = 2 * 6371.0088 * math.asin(math.sqrt(min(1.0, half)))
    return LEAST_RTT_MS + DETOUR * km / FIBRE_KM_PER_RTT_MS


Ready = Mapping[messages.ModelPool, int]


@dataclass(slots=True)
class _Replica:
    """One replica; it is ready from `ready_at_s` on, and waits for devices while that is infinite."""

    ready_at_s: float
    devices: int
    warmup_s: float


class SimulatedBackend:
    """A simulated cluster.

    Args: pools: what nodes offer; it may be set again at any time. rtt_ms: the round trip to a peer, given its name;
        None has it follow from the distance to a simulated peer that says where it is, and others not measured.
        at: where this cluster is, latitude and longitude in degrees; None where it does not say.
        demand: what the front door counts now. endpoints: where so many ready replicas answer. served: how they did.
        told: what people should know of the cluster.
    """

    def __init__(
        self,
        *,
        pools: tuple[messages.PoolReport, ...],
        clock: Clock,
        rng: random.Random,
        rtt_ms: RttMs | None = None,
        at: Place | None = None,
        demand: Callable[[], tuple[messages.DemandSample, ...]] = tuple,
        probe: str = "",
        endpoints: Callable[[Ready], tuple[messages.ReplicaEndpoint, ...]] = lambda ready: (),
        served: Callable[[], tuple[messages.ServedSample, ...]] = tuple,
        told: Callable[[], tuple[messages.Condition, ...]] = tuple,
    ) -> None:
        self.changed = asyncio.Event()
        self.touched = False
        self.limits = Limits()
        self.namespace = "simulated"
        self._pools = pools
        self._clock = clock
        self._rng = rng
        self._rtt_ms = rtt_ms
        self._at = at
        self._demand = demand
        self._probe = probe
        self._endpoints = endpoints
        self._served = served
        self._told = told
        self._running: dict[messages.ModelPool, list[_Replica]] = {}
        self._fence = (0, 0)
        self._wakers: set[Timer] = set()

    @property
    def offered(self) -> tuple[messages.PoolReport, ...]:
        """What the nodes offer, as last set."""
        return self._pools

    def set_pools(self, pools: tuple[messages.PoolReport, ...]) -> None:
        """The nodes change: devices appear or vanish (and replicas with them, the newest first), prices move."""
        self._pools = pools
        for pool in pools:
            self._evict(pool.key, pool.allocatable)
            self._start_waiting(pool.key, pool.allocatable)
        for key in {key[1] for key in self._running} - {pool.key for pool in pools}:
            self._evict(key, 0)
        self.changed.set()

    def _evict(self, pool: messages.PoolKey, allocatable: int) -> None:
        """Replicas on devices that are gone wait for others: they are not ready, and start anew when there are."""
        keys = sorted(key for key in self._running if key[1] == pool)
        over = sum(one.devices for key in keys for one in self._running[key] if self._holds(one)) - allocatable
        for key in reversed(keys):
            for one in reversed(self._running[key]):
                if over <= 0:
                    return
                if self._holds(one):
                    one.ready_at_s = float("inf")
                    over -= one.devices

    def _start_waiting(self, pool: messages.PoolKey, allocatable: int) -> None:
        """What waited for devices takes those that are free now."""
        keys = sorted(key for key in self._running if key[1] == pool)
        free = allocatable - sum(one.devices for key in keys for one in self._running[key] if self._holds(one))
        for key in keys:
            for one in self._running[key]:
                if not self._holds(one) and one.devices <= free:
                    free -= one.devices
                    one.ready_at_s = self._clock.monotonic_s() + one.warmup_s
                    self._wake_in(one.warmup_s)

    @staticmethod
    def _holds(replica: _Replica) -> bool:
        return replica.ready_at_s != float("inf")

    def ready(self) -> dict[messages.ModelPool, int]:
        """(model, pool) -> replicas that serve now."""
        now_s = self._clock.monotonic_s()
        return {key: sum(one.ready_at_s <= now_s for one in ones) for key, ones in sorted(self._running.items())}

    def holding(self) -> dict[messages.ModelPool, int]:
        """(model, pool) -> replicas that hold devices, ready or warming."""
        return {key: sum(self._holds(one) for one in ones) for key, ones in sorted(self._running.items())}

    def observe(self) -> Observation:
        ready, holding = self.ready(), self.holding()
        taken: dict[messages.PoolKey, int] = {}
        for key, ones in self._running.items():
            taken[key[1]] = taken.get(key[1], 0) + sum(one.devices for one in ones if self._holds(one))
        return Observation(
            conditions=self._told(),
            pools=tuple(
                messages.PoolReport(
                    key=pool.key,
                    vram_gib=pool.vram_gib,
                    allocatable=pool.allocatable,
                    free=max(0, pool.allocatable - taken.get(pool.key, 0)),
                    usd_per_device_hour=pool.usd_per_device_hour,
                )
                for pool in self._pools
            ),
            replicas=tuple(
                messages.ReplicaReport(
                    model=key[0],
                    pool=key[1],
                    desired=len(ones),
                    ready=ready[key],
                    scheduled=holding[key],
                    reason=""
                    if ready[key] == len(ones)
                    else "warming up"
                    if holding[key] == len(ones)
                    else "no devices",
                )
                for key, ones in sorted(self._running.items())
                if ones
            ),
            endpoints=self._endpoints(ready),
            served=self._served(),
            kubernetes_version="simulated",
        )

    async def apply(self, desired: messages.Desired) -> str:
        self._settle(desired)
        self.changed.set()
        return ""

    def _settle(self, desired: messages.Desired) -> None:
        for workload in desired.workloads:
            ones = self._running.setdefault(workload.key, [])
            while len(ones) > workload.replicas:
                ones.pop()
            while len(ones) < workload.replicas:
                ones.append(_Replica(ready_at_s=float("inf"), devices=workload.devices, warmup_s=workload.warmup_s))
            if not ones:
                del self._running[workload.key]
        for pool in self._pools:
            self._start_waiting(pool.key, pool.allocatable)
        self._fence = max(self._fence, (desired.epoch, desired.generation))

    def _wake_in(self, delay_s: float) -> None:
        def wake() -> None:
            self._wakers.discard(handle)
            self.changed.set()

        handle = self._clock.call_later(delay_s + self._clock.ours_s(0.001), wake)
        self._wakers.add(handle)

    async def steer(self, traffic: messages.Traffic) -> None:
        """There is no gateway here."""

    async def keep(self, desired: messages.Desired | None) -> None:
        if desired is not None:
            before = self.holding()
            self._settle(desired)
            if self.holding() != before:
                self.changed.set()

    async def fence(self) -> tuple[int, int]:
        return self._fence

    async def measure(self, peers: tuple[messages.PeerEndpoint, ...]) -> tuple[messages.PeerRtt, ...]:
        found = []
        for peer in peers:
            rtt_ms = (
                self._rtt_ms(peer.cluster, self._rng) if self._rtt_ms is not None else self._by_distance(peer.probe)
            )
            if rtt_ms is None:
                continue
            found.append(messages.PeerRtt(cluster=peer.cluster, rtt_ms_p50=rtt_ms, rtt_ms_p95=rtt_ms, samples=1))
        return tuple(found)

    def demand(self) -> tuple[messages.DemandSample, ...]:
        return self._demand()

    def _by_distance(self, probe: str) -> float | None:
        there = _PLACED.search(probe)
        if self._at is None or there is None:
            return None
        return rtt_ms_between(self._at, (float(there[1]), float(there[2])))

    def probe(self) -> str:
        """Where others measure this cluster; with its place, as nothing answers there."""
        if self._at is None:
            return self._probe
        host, _, port = self._probe.rpartition(":")
        return f"{host}@{self._at[0]:.4f},{self._at[1]:.4f}:{port}"

    async def close(self) -> None:
        for handle in self._wakers:
            handle.cancel()
        self._wakers.clear()
