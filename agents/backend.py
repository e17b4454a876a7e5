"""The agent's view of its cluster: one interface for real and simulated clusters."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from agents.limits import Limits
from federation.wire import messages


class BackendError(Exception):
    """The cluster could not be observed. The message gives the reason; earlier knowledge stays valid."""


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
    """A cluster. `changed` is set when a change is worth a report before the interval ends."""

    changed: asyncio.Event
    touched: bool
    """Whether somebody may have changed the agent's objects since the last `keep`."""
    limits: Limits
    """The limits of the cluster's owner."""
    namespace: str
    """The namespace of the models."""

    def observe(self) -> Observation:
        """The cluster by the newest reads; this call reads and writes nothing itself. Raises: BackendError."""

    async def apply(self, desired: messages.Desired) -> str:
        """Carry out an order. Returns the reason for a failure, or empty. It is idempotent."""

    async def steer(self, traffic: messages.Traffic) -> None:
        """Make the cluster's own gateway and DNS route like this. It is idempotent."""

    async def keep(self, desired: messages.Desired | None) -> None:
        """Hold the cluster to this order and to the newest `steer`: differences are corrected, or left and reported."""

    async def fence(self) -> tuple[int, int]:
        """The highest (epoch, generation) on the cluster's own objects, or (0, 0)."""

    async def measure(self, peers: tuple[messages.PeerEndpoint, ...]) -> tuple[messages.PeerRtt, ...]:
        """Round trips to these peers; a peer that does not answer is left out."""

    def demand(self) -> tuple[messages.DemandSample, ...]:
        """The counts of the cluster's front door."""

    def probe(self) -> str:
        """`host:port` where peers may measure this cluster, or empty."""

    async def close(self) -> None:
        """Stop watching; nothing in the cluster changes."""
