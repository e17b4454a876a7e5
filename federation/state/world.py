"""All beliefs of the controller at one instant. Frozen, so that a decision and its explanation see the same world."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import msgspec
from immutables import Map

from federation.latency.estimator import NO_PRIOR, Prior
from federation.policy.documents import Cluster as ClusterDocument
from federation.policy.documents import Documents, PlacementPolicy
from federation.prices.book import Book
from federation.state.byname import ByName
from federation.state.keys import ClusterPool, ModelCell, PlacementKey
from federation.state.measured import Measured
from federation.state.phases import Phase
from federation.state.spot import Counts, SpotRisk
from federation.wire import messages
from federation.wire.conditions import ConditionType

IMPLAUSIBLE_REPLICAS: ConditionType = "ImplausibleReplicas"
"""The type of the finding that a cluster reports more ready replicas than it can hold."""
Source = Literal["file", "gateway", "prometheus", "engines"]
"""The source of the counts of a model's users at one cluster, see `state/sources.py`."""


def countries(country: str) -> tuple[str, ...]:
    """The countries that a believed cell may be in, ISO 3166-1 alpha-2. `DE/US` is a tie: in one of the two, unknown
    which."""
    return tuple(country.split("/"))


def undecided(places: Iterable[str]) -> str:
    """The country of a cell with a tie. A rule that holds in any of the countries holds there."""
    return "/".join(sorted(places))


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long things may take, in seconds of the controller's clock."""

    report_interval_s: float = 10.0
    """Between two reports of an agent."""
    tick_s: float = 5.0
    """Between two looks at the clock; a silence is noticed at most this late."""
    stale_after_s: float = 40.0
    """Four report intervals, as Karmada's grace period: one lost report is no event."""
    default_toleration_s: float = 300.0
    """`tolerationSeconds` where no policy says another."""
    losses_kept_s: float = 3600.0
    """Older losses are forgotten: the longest time that trust takes to return."""
    will_grace_s: float = 0.5
    """From a last will until it is believed: many connections that break together have one cause, the controller's
    own."""
    wills_most_s: float = 5.0
    """The longest time that a burst of last wills is not believed: a broker of thousands sends them one by one."""
    device_grace_s: float = 600.0
    """How long devices count that no node offers, while ready replicas hold them."""
    skew_s: float = 30.0
    """A difference between the clocks of agent and controller beyond this is reported."""

    @property
    def overdue_after_s(self) -> float:
        """A cluster that is silent this long is not missed yet; it counts when others fall silent."""
        return 0.625 * self.stale_after_s

    @property
    def session_after_s(self) -> float:
        """How long the agent in force must be silent before another start, or another agent, may take its place."""
        return 2.0 * self.report_interval_s

    @property
    def lasting_s(self) -> float:
        """How long a jump must last until it is believed: six reports."""
        return 6.0 * self.report_interval_s

    @property
    def count_stands_s(self) -> float:
        """How long the counts of a front door that counts nothing stand in full; then they halve each `lasting_s`."""
        return 30.0 * self.report_interval_s

    def steady_after_s(self, losses: int) -> float:
        """How long a cluster must be heard after this many losses until it is trusted: three reports, doubling with
        each loss."""
        return min(self.losses_kept_s, 3 * self.report_interval_s * 2.0 ** min(20, losses - 1))

    def longest_tick_s(self) -> float:
        """A tick later than this after the one before shows that the controller slept, not the clusters."""
        return self.tick_s + self.report_interval_s

    def longest_toleration_s(self, policies: tuple[PlacementPolicy, ...]) -> float:
        """After this, no policy expects a silent cluster back."""
        return max((p.spec.failover.toleration_seconds for p in policies), default=self.default_toleration_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lent:
    """Devices that ready replicas hold and their nodes do not offer: a kubelet or a device plugin restarts.

    `pool` is the pool as it was, with as many devices as are held and none free; `since_s` is when they went missing.
    """

    pool: messages.PoolReport
    since_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherStart:
    """A start of an agent other than the one in force: an earlier start, or a second agent under the cluster's name."""

    seq: int
    """The newest sequence number that was read from it."""
    heard_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterState:
    """One member cluster.

    `report` may be retained by the broker. `heard_s` says when the agent itself was last heard (monotonic seconds of
    the controller's clock); None before that. `since_s` is when the phase began.
    """

    name: str
    phase: Phase
    since_s: float
    report: messages.Report | None = None
    heard_s: float | None = None
    ack: messages.Ack | None = None
    ack_s: float | None = None
    losses_s: tuple[float, ...] = ()
    """When the cluster was lost, within the last hour."""
    unsteady_s: float | None = None
    """Since when the cluster is not heard steadily; None while it is trusted. A cluster that came back is trusted again
    once it has been heard for a time that doubles with each loss."""
    lent: Mapping[messages.PoolKey, Lent] = field(default_factory=dict)
    """Pools that report fewer devices than their ready replicas hold."""
    will_s: float | None = None
    """When the last will of the agent in force arrived, until it is believed or the agent is heard again."""
    has_left: bool = False
    """The agent in force said goodbye: its next start takes its place at once."""
    others: Mapping[str, OtherStart] = field(default_factory=dict)
    """Boot id -> a start of the agent other than the one in force (`report.boot_id`)."""
    lower: OtherStart | None = None
    """The newest report of the start in force with a lower sequence number than the highest known one."""
    disputed_with: str = ""
    """The boot id of a second agent that speaks under this name beside the one in force; empty if there is none."""
    findings: tuple[messages.Condition, ...] = ()
    """Values of the newest report that are not believed, or wait until they last."""
    doubts: Mapping[str, Doubt] = field(default_factory=dict)
    level: Level | None = None
    held: tuple[messages.DemandSample, ...] = ()
    """The front door's claim, while part of it is not believed."""
    counted: tuple[messages.DemandSample, ...] = ()
    """The front door's last counts, as far as they are believed."""
    counted_s: float = 0.0
    count_weight: float = 1.0
    """The weight of `counted`: it halves again and again once the front door has been silent for long."""
    observed: Mapping[str, Observed] = field(default_factory=dict)
    """Model -> what its replicas here serve while they are full, see `state/capacity.py`."""
    sources: Mapping[str, Source] = field(default_factory=dict)
    """Model -> source of the counts of its users here, as of the newest report."""
    skew_s: float = 0.0
    """The agent's clock minus the controller's, as of its newest report; 0 where the agent does not say."""

    def rivals(self, now_s: float, within_s: float) -> tuple[str, ...]:
        """Boot ids of other agents that spoke within `within_s` and after the agent in force was last replaced."""
        return tuple(sorted(boot for boot, other in self.others.items() if now_s - other.heard_s <= within_s))


class CellDemand(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One cell's requests for one model: the sum over front doors, see `state/demand.py`.

    `counts` are (cluster, requests per second) in order of their first count; `reporter` is the cell's front door: the
    first of them that is heard. There are hundreds of thousands, so the cyclic garbage collector does not track them
    (they hold no cycles).
    """

    requests_per_second: float
    reporter: str
    counts: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What full replicas of one shape serve in one cluster, relative to what is declared, since `since_s`.

    `key`: (model, product, MIG profile). `at_s`: the report that observed it last.
    """

    key: tuple[str, str, str]
    replicas: int
    ratio: float
    since_s: float
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """The factor on `declared_rps` that one replica serves; it last moved at `at_s`."""

    factor: float
    declared_rps: float
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OfCluster:
    """Figures of one cluster from Prometheus, in the words of a report."""

    counted: tuple[messages.CountedSample, ...] = ()
    engines: tuple[messages.EngineSample, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scraped:
    """The last figures that Prometheus had, of `at_s`; `error`: why it has none newer, empty without cause."""

    at_s: float = float("-inf")
    by_cluster: Mapping[str, OfCluster] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A value that jumped, and since when it is claimed: not believed until it lasts."""

    value: float
    since_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The peak of a front door's believed total over a whole day.

    `peak_rps`: the peak since `since_s`, when the current day began.
    """

    rps: float
    peak_rps: float
    since_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """The believed total of a cluster's front door: see `state/levels.py`.

    `since_s`: when `rps` was reached, or when more was first claimed if it `is_doubted`. `is_remembered`: taken from an
    earlier start of the controller, and nothing has been heard since.
    """

    rps: float
    since_s: float
    known: Known
    is_doubted: bool = False
    is_remembered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cordon:
    """An operator's order about a cluster: it takes no new load, and with `drain` its load moves away."""

    reason: str
    drain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """The progress of an order at one (model, cluster, pool); instants are of the controller's clock.

    `since_s`: when progress was last seen. `deaths_s`: when replicas were lately seen to die.
    """

    since_s: float
    wanted: int
    ready: int
    restarts: int = 0
    deaths_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Setback:
    """Replicas that did not become ready: at most `kept` count until `until_s`, when the pool is tried again.

    `cause` is the kind of `reason`, which quotes the cluster. `is_tried`: more became ready since then. `version` is
    that of the model's document; a later one has not failed.
    """

    key: PlacementKey
    cause: messages.Cause
    reason: str
    kept: int
    until_s: float
    strikes: int
    version: str
    is_tried: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Setbacks:
    """Orders in progress, and pools on which orders failed. Memory of the process: a failure is observed again."""

    waits: Mapping[PlacementKey, Wait] = field(default_factory=dict)
    backoffs: Mapping[PlacementKey, Setback] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Brake:
    """Too many clusters fell silent together. The controller may be the one that is cut off, so it changes nothing.

    `phases` are those of the instant before the cause; they decide who may be sent requests while the brake is set.
    `silent` are the clusters that it waits for, out of `counted`; `back_s` says when each returned one was first heard
    again.
    """

    since_s: float
    phases: Mapping[str, Phase]
    silent: tuple[str, ...]
    counted: int
    back_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Why nothing moves, what the brake waits for, and what an operator can do."""
        head = f"{len(self.silent)} of {self.counted} clusters fell silent together: the controller may be the one cut "
        if not self.silent:
            return f"{head}off; nothing moves until those that are back have been heard for a while"
        names = ", ".join(self.silent[:5]) + (f" and {len(self.silent) - 5} more" if len(self.silent) > 5 else "")
        return (
            f"{head}off; nothing moves. It waits for {names}. Cordon those that are really gone to go on without them"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All beliefs. `clusters` has all and only the clusters of the catalogue; `brake` says why moves are frozen.

    `relied_on` are clusters that the placement or the routing of an earlier start counts on, `known` is what it knew
    that front doors count.

    `started_s` is when this controller last began to listen: silence before it proves nothing. `deaf` is true while the
    controller itself has no broker.
    """

    timing: Timing
    documents: Documents = field(default_factory=Documents)
    clusters: Mapping[str, ClusterState] = field(default_factory=dict)
    cells: Map[str, messages.UserCell] = field(default_factory=Map)
    """Locations of cells, including remembered cells without counts. Read their `country` through `countries`."""
    claims: Map[str, tuple[tuple[str, messages.UserCell], ...]] = field(default_factory=Map)
    """Cell -> (cluster, the location that it claims), in order of the first claim."""
    demand: Map[ModelCell, CellDemand] = field(default_factory=Map)
    """(model, cell) -> demand. It may hold hundreds of thousands; a successor shares whatever did not change."""
    learnt: Mapping[tuple[str, str, str], Learnt] = field(default_factory=dict)
    """(model, product, MIG profile) -> what a replica serves relative to what is declared."""
    scraped: Scraped = field(default_factory=Scraped)
    doors: Map[str, int] = field(default_factory=Map)
    """Model -> number of clusters whose front door counts its users, by file or by gateway."""
    cordons: Mapping[str, Cordon] = field(default_factory=dict)
    continents: Mapping[str, str] = field(default_factory=dict)
    """Country -> continent, of the countries that the product knows."""
    spot_risks: Mapping[tuple[str, str], SpotRisk] = field(default_factory=dict)
    """(provider, product) -> risk where the catalogue gives none. Either may be empty: the risk of all others."""
    measured: Map[tuple[str, str], Measured] = field(default_factory=Map)
    """(cell, cluster) -> what users' browsers measured."""
    doubted: frozenset[tuple[str, str]] = frozenset()
    """Of these pairs what browsers measured last cannot be true."""
    spot: Mapping[ClusterPool, Counts] = field(default_factory=dict)
    """What was seen of pools on spot."""
    prices: Book = field(default_factory=Book)
    """Prices of the feeds. `state/pricing.py` says what a pool costs."""
    public: Prior = NO_PRIOR
    """What is known of round trips all over the world before anything is measured."""
    started_s: float = 0.0
    deaf: bool = True
    brake: Brake | None = None
    relied_on: frozenset[str] = frozenset()
    known: Mapping[str, Known] = field(default_factory=dict)
    setbacks: Setbacks = field(default_factory=Setbacks)

    def __post_init__(self) -> None:
        if not isinstance(self.clusters, ByName):
            object.__setattr__(self, "clusters", ByName(self.clusters))

    def with_clusters(self, changed: Mapping[str, ClusterState]) -> World:
        """The world with these states; it shares everything else."""
        assert isinstance(self.clusters, ByName)
        return replace(self, clusters=self.clusters.following(changed))

    @property
    def braked(self) -> str:
        """Why nothing may move; empty while the brake is released."""
        return self.brake.text if self.brake is not None else ""

    def catalogue(self, cluster: str) -> ClusterDocument:
        """The Cluster document of `cluster`. Raises: KeyError without one."""
        return self.catalogue_by_name()[cluster]

    def catalogue_by_name(self) -> dict[str, ClusterDocument]:
        """Cluster documents by name."""
        return {document.metadata.name: document for document in self.documents.clusters}

    def continent_of(self, country: str | None) -> str:
        """The continent of a cell or a cluster by its country; empty where it is unknown or undecided."""
        found = {self.continents.get(one, "") for one in countries(country or "")}
        return found.pop() if len(found) == 1 else ""

    def spot_risk(self, provider: str, product: str) -> SpotRisk:
        """The most specific known risk; without one, no risk."""
        for key in ((provider, product), (provider, ""), ("", product), ("", "")):
            if key in self.spot_risks:
                return self.spot_risks[key]
        return SpotRisk()

    def phase_for_routing(self, cluster: str) -> Phase:
        """The phase that decides whether requests may be sent: under the brake, the one before its cause."""
        phase = self.clusters[cluster].phase
        return self.brake.phases.get(cluster, Phase.UNREACHABLE) if self.brake is not None else phase

    def is_routable(self, cluster: str) -> bool:
        """Whether requests may be sent to `cluster`."""
        return self.phase_for_routing(cluster) in (Phase.READY, Phase.UNKNOWN)

    def pools_of(self, cluster: str, now_s: float) -> tuple[messages.PoolReport, ...]:
        """The pools of a cluster's newest report, and for a while the devices that ready replicas hold of pools that
        shrank."""
        state = self.clusters[cluster]
        reported = state.report.pools if state.report is not None else ()
        lent = {key: one.pool for key, one in state.lent.items() if now_s - one.since_s < self.timing.device_grace_s}
        if not lent:
            return reported
        return (*(lent.pop(pool.key, pool) for pool in reported), *(lent[key] for key in sorted(lent)))

    def is_settled(self, now_s: float) -> bool:
        """Whether every cluster was heard or had the time to be heard: before that, nothing is decided."""
        if self.deaf or not self.clusters:
            return False
        if now_s - self.started_s > self.timing.stale_after_s:
            return True
        return all(state.phase is not Phase.UNKNOWN for state in self.clusters.values())

    def ready_replicas(self) -> dict[PlacementKey, int]:
        """Replicas that were seen ready, by the newest report of each cluster, whatever its phase."""
        assert isinstance(self.clusters, ByName)
        return dict(self.clusters.derived(_ready_replicas))

    def surely_ready_replicas(self) -> dict[PlacementKey, int]:
        """`ready_replicas` without the replicas of models in clusters that report more than they can hold: any may be
        missing."""
        doubted = {
            (name, one.object)
            for name, state in self.clusters.items()
            for one in state.findings
            if one.type == IMPLAUSIBLE_REPLICAS
        }
        ready = self.ready_replicas()
        return (
            {key: n for key, n in ready.items() if (key.cluster, f"model/{key.model}") not in doubted}
            if doubted
            else ready
        )


def _ready_replicas(clusters: Mapping[str, ClusterState]) -> dict[PlacementKey, int]:
    return {
        PlacementKey(replica.model, name, replica.pool): replica.ready
        for name, state in clusters.items()
        if state.report is not None
        for replica in state.report.replicas
        if replica.ready
    }


def validate(world: World) -> None:
    """Assert the invariants of a world. Raises: AssertionError that names the first violated one."""
    names = {document.metadata.name for document in world.documents.clusters}
    assert set(world.clusters) == names, "clusters are all and only those of the catalogue"
    for name, state in world.clusters.items():
        assert state.name == name, "a cluster is filed under its name"
        assert state.phase is not Phase.READY or state.heard_s is not None, "ready means heard"
        assert state.report is None or state.report.cluster == name, "a report is of its cluster"
    assert all(cell in world.cells for _, cell in world.demand), "demand comes from known cells"
    counted = {(s.model, s.cell.name, name) for name, state in world.clusters.items() for s in state.counted}
    believed = {(*key, reporter) for key, one in world.demand.items() for reporter, _ in one.counts}
    assert believed == counted, "what is counted is what somebody counted"
