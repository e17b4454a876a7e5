"""Everything the controller believes at one instant: frozen, so that a decision and its explanation see the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
from immutables import Map

from federation.policy.documents import Cluster as ClusterDocument
from federation.policy.documents import Documents, PlacementPolicy
from federation.state.phases import Phase
from federation.wire import messages

PlacementKey = tuple[str, str, messages.PoolKey]
"""(model, cluster, pool)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long things may take, in seconds of the controller's clock."""

    report_interval_s: float = 10.0
    tick_s: float = 5.0
    stale_after_s: float = 40.0
    """Four report intervals, as Karmada's grace: one lost report is no event."""
    default_toleration_s: float = 300.0
    losses_kept_s: float = 3600.0
    """Losses that are longer ago are forgotten: as long as trust takes at most."""

    def steady_after_s(self, losses: int) -> float:
        """How long a cluster is heard after so many losses until it is trusted: three reports, then doubling."""
        return min(self.losses_kept_s, 3 * self.report_interval_s * 2.0 ** min(20, losses - 1))

    def longest_tick_s(self) -> float:
        """A tick that comes later than this after the one before found the controller asleep, not the clusters."""
        return self.tick_s + self.report_interval_s

    def longest_toleration_s(self, policies: tuple[PlacementPolicy, ...]) -> float:
        """After this, no policy expects a silent cluster back."""
        return max((p.spec.failover.toleration_seconds for p in policies), default=self.default_toleration_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterState:
    """One member cluster.

    `report` may be the broker's memory: `heard_s` says when the agent itself was last heard (monotonic seconds of the
    controller's clock), and is None before that. `since_s` is when the phase began.
    """

    name: str
    phase: Phase
    since_s: float
    report: messages.Report | None = None
    heard_s: float | None = None
    ack: messages.Ack | None = None
    ack_s: float | None = None
    losses_s: tuple[float, ...] = ()
    """When it was lost, within the last hour."""
    unsteady_s: float | None = None
    """Since when it has not been heard steadily; None while it is trusted. A cluster that came back is trusted again
    once it has been heard for a time that doubles with each loss."""


class CellDemand(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The freshest count of one cell's requests for one model. It is kept when its reporter falls silent.

    There are so many that the collector of cycles, which cannot find any here, would be at it most of the time.
    """

    requests_per_second: float
    at_s: float
    reporter: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cordon:
    """An operator's word on a cluster: it takes no new load, and when `drain` its load moves away."""

    reason: str
    drain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All beliefs. `clusters` has all and only the clusters of the catalogue; `braked` says why moves are frozen.

    `started_s` is when this controller last began to listen: silence before it proves nothing. `deaf` is true while the
    controller itself has no broker.
    """

    timing: Timing
    documents: Documents = field(default_factory=Documents)
    clusters: Mapping[str, ClusterState] = field(default_factory=dict)
    cells: Map[str, messages.UserCell] = field(default_factory=Map)
    demand: Map[tuple[str, str], CellDemand] = field(default_factory=Map)
    """(model, cell) -> newest count. Hundreds of thousands, maybe: the next world shares what did not change."""
    cordons: Mapping[str, Cordon] = field(default_factory=dict)
    continents: Mapping[str, str] = field(default_factory=dict)
    """Country -> continent, of those that the product knows."""
    started_s: float = 0.0
    deaf: bool = True
    braked: str = ""

    def catalogue(self, cluster: str) -> ClusterDocument:
        """The document of a cluster. Raises: KeyError when there is none."""
        return self.catalogue_by_name()[cluster]

    def catalogue_by_name(self) -> dict[str, ClusterDocument]:
        """Cluster documents by name."""
        return {document.metadata.name: document for document in self.documents.clusters}

    def is_routable(self, cluster: str) -> bool:
        """Whether requests may be sent to `cluster` now. Under the brake silence proves nothing."""
        phase = self.clusters[cluster].phase
        return phase in (Phase.READY, Phase.UNKNOWN) or (bool(self.braked) and phase is Phase.UNREACHABLE)

    def is_settled(self, now_s: float) -> bool:
        """Whether every cluster has been heard or has had the time to be: before that, nothing is decided."""
        if self.deaf or not self.clusters:
            return False
        if now_s - self.started_s > self.timing.stale_after_s:
            return True
        return all(state.phase is not Phase.UNKNOWN for state in self.clusters.values())

    def ready_replicas(self) -> dict[PlacementKey, int]:
        """Replicas that were seen ready, by the newest report of each cluster, whatever its phase."""
        return {
            (replica.model, name, replica.pool): replica.ready
            for name, state in sorted(self.clusters.items())
            if state.report is not None
            for replica in state.report.replicas
            if replica.ready
        }


def validate(world: World) -> None:
    """Assert what always holds. Raises: AssertionError naming the first that does not."""
    names = {document.metadata.name for document in world.documents.clusters}
    assert set(world.clusters) == names, "clusters are all and only those of the catalogue"
    for name, state in world.clusters.items():
        assert state.name == name, "a cluster is filed under its name"
        assert state.phase is not Phase.READY or state.heard_s is not None, "ready means heard"
        assert state.report is None or state.report.cluster == name, "a report is of its cluster"
    assert all(cell in world.cells for _, cell in world.demand), "demand comes from known cells"
