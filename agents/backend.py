"""What an agent needs of its cluster: the same for a real one and a simulated one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from agents.limits import Limits
from federation.wire import messages


class BackendError(Exception):
    """The cluster could not be observed. The message says why; what was known stays known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The cluster at one instant."""

    pools: tuple[messages.PoolReport, ...]
    nodes: tuple[messages.NodeReport, ...] = ()
    replicas: tuple[messages.ReplicaReport, ...] = ()
    endpoints: tuple[messages.ReplicaEndpoint, ...] = ()
    served: tuple[messages.ServedSample, ...] = ()
    gateways: tuple[str, ...] = ()
    """URLs at which the cluster's gateways give their statistics."""
    kubernetes_version: str = ""
    growth: tuple[messages.Growth, ...] = ()
    conditions: tuple[messages.Condition, ...] = ()


class Backend(Protocol):
    """A cluster. `changed` is set when something is worth reporting before the interval ends."""

    changed: asyncio.Event
    touched: bool
    """Whether what was made may have been changed by somebody since the last `keep`."""
    limits: Limits
    """What the cluster's owner allows."""
    namespace: str
    """Where models run."""

    def observe(self) -> Observation:
        """The cluster, from what was last read; nothing is asked for and nothing written. Raises: BackendError."""

    async def apply(self, desired: messages.Desired) -> str:
        """Carry out; gives why it could not, or nothing. Doing it again changes nothing."""

    async def steer(self, traffic: messages.Traffic) -> None:
        """Let the cluster's own gateway and DNS send requests so. Doing it again changes nothing."""

    async def keep(self, desired: messages.Desired | None) -> None:
        """Hold the cluster to this and to what `steer` was told last: what differs is put right, or left, and told."""

    async def fence(self) -> tuple[int, int]:
        """The highest (epoch, generation) that the cluster's own objects bear, or (0, 0)."""

    async def measure(self, peers: tuple[messages.PeerEndpoint, ...]) -> tuple[messages.PeerRtt, ...]:
        """Round trips to these peers; a peer that does not answer is left out."""

    def demand(self) -> tuple[messages.DemandSample, ...]:
        """What the cluster's front door counted."""

    def probe(self) -> str:
        """`host:port` where peers may measure us, or nothing."""

    async def close(self) -> None:
        """Stop watching; nothing in the cluster changes."""
