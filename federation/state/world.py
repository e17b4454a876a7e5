"""Everything the controller believes at one instant: frozen, so that a decision and its explanation see the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import msgspec
from immutables import Map

from federation.policy.documents import Cluster as ClusterDocument
from federation.policy.documents import Documents, PlacementPolicy
from federation.state.byname import ByName
from federation.state.phases import Phase
from federation.wire import messages
from federation.wire.conditions import ConditionType

IMPLAUSIBLE_REPLICAS: ConditionType = "ImplausibleReplicas"
"""The finding of a cluster that says that more replicas are ready than there can be."""
PlacementKey = tuple[str, str, messages.PoolKey]
"""(model, cluster, pool)."""


def countries(country: str) -> tuple[str, ...]:
    """Where a believed cell may be, as ISO 3166-1 alpha-2: `DE/US` is in one of two, and nobody can say in which."""
    return tuple(country.split("/"))


def undecided(places: Iterable[str]) -> str:
    """The country of a cell that is in one of several: what holds in any of them holds there."""
    return "/".join(sorted(places))


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long things may take, in seconds of the controller's clock."""

    report_interval_s: float = 10.0
    """Between two reports of an agent."""
    tick_s: float = 5.0
    """Between two looks at the clock: silences are noticed at most this late."""
    stale_after_s: float = 40.0
    """Four report intervals, as Karmada's grace: one lost report is no event."""
    default_toleration_s: float = 300.0
    """`tolerationSeconds` where no policy says another."""
    losses_kept_s: float = 3600.0
    """Losses that are longer ago are forgotten: as long as trust takes at most."""
    will_grace_s: float = 0.5
    """From a last will until it is believed: when many connections break together, it was ours."""
    wills_most_s: float = 5.0
    """For so long none is believed while a burst of them goes on: a broker of thousands tells them one by one."""
    device_grace_s: float = 600.0
    """For so long devices count that no node offers, while replicas that hold them are ready."""
    skew_s: float = 30.0
    """An agent's clock that differs more than this from the controller's is told."""

    @property
    def overdue_after_s(self) -> float:
        """A cluster that is silent for so long is not missed yet, but it counts when others fall silent."""
        return 0.625 * self.stale_after_s

    @property
    def session_after_s(self) -> float:
        """How long the agent in force is silent until another start of it, or another agent, may take its place."""
        return 2.0 * self.report_interval_s

    @property
    def lasting_s(self) -> float:
        """How long a jump lasts until it is believed: six reports."""
        return 6.0 * self.report_interval_s

    @property
    def count_stands_s(self) -> float:
        """For how long what a front door counted stands in full when it counts no more; then it halves again and again,
        each `lasting_s`."""
        return 30.0 * self.report_interval_s

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
class Lent:
    """Devices that ready replicas hold though their nodes do not offer them: a kubelet or a device plugin restarts.

    `pool` is as it was before, with as many devices as are held and none free; `since_s` when they were first missing.
    """

    pool: messages.PoolReport
    since_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherStart:
    """Another start of an agent than the one in force: an earlier one, or a second agent under one cluster's name."""

    seq: int
    """The newest that was read of it."""
    heard_s: float


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
    lent: Mapping[messages.PoolKey, Lent] = field(default_factory=dict)
    """Pools that report fewer devices than replicas that are ready there hold."""
    will_s: float | None = None
    """When the last will of the agent in force came, until it is believed or the agent is heard again."""
    has_left: bool = False
    """The agent in force said goodbye: its next start takes its place at once."""
    others: Mapping[str, OtherStart] = field(default_factory=dict)
    """By boot id: starts of the agent other than the one in force (`report.boot_id`)."""
    lower: OtherStart | None = None
    """The newest report of the start in force with a lower sequence number than is known, since that was heard."""
    disputed_with: str = ""
    """The boot id of a second agent that speaks under this name while the one in force does; empty where none does."""
    findings: tuple[messages.Condition, ...] = ()
    """What could not be believed of the newest report, or waits until it lasts."""
    doubts: Mapping[str, Doubt] = field(default_factory=dict)
    level: Level | None = None
    held: tuple[messages.DemandSample, ...] = ()
    """What its front door claims to count, as long as not all of that is believed."""
    counted: tuple[messages.DemandSample, ...] = ()
    """What its front door counted last, as far as it is believed."""
    counted_s: float = 0.0
    count_weight: float = 1.0
    """What that still counts for: it halves again and again once nobody has counted for long."""
    skew_s: float = 0.0
    """The agent's clock less the controller's, as of its newest report; 0 where the agent does not say."""

    def rivals(self, now_s: float, within_s: float) -> tuple[str, ...]:
        """Boot ids of other agents that spoke within `within_s` and after the one in force was last replaced."""
        return tuple(sorted(boot for boot, other in self.others.items() if now_s - other.heard_s <= within_s))


class CellDemand(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One cell's requests for one model: the sum of what front doors counted, see `state/demand.py`.

    `counts` are (cluster, requests per second), who counted first coming first; `reporter` is the front door of the
    cell: the first of them that is heard. There are so many that the collector of cycles, which cannot find any here,
    would be at it most of the time.
    """

    requests_per_second: float
    reporter: str
    counts: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A value that jumped, and since when it is claimed: not believed until it lasts."""

    value: float
    since_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a front door was known to count, all together, for a whole day: the most that was believed of it.

    `peak_rps`: the most since `since_s`, when the day that runs began.
    """

    rps: float
    peak_rps: float
    since_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What the front door of a cluster counts, all together, as far as it is believed: see `state/levels.py`.

    `since_s`: when it was `rps`, or when more was first claimed if it `is_doubted`. `is_remembered`: it is of an
    earlier start of the controller, and nothing has been heard since.
    """

    rps: float
    since_s: float
    known: Known
    is_doubted: bool = False
    is_remembered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SpotRisk:
    """How often a replica on spot is taken back, and the chance that another is granted; none by itself."""

    losses_per_hour: float = 0.0
    replacement_chance: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cordon:
    """An operator's word on a cluster: it takes no new load, and when `drain` its load moves away."""

    reason: str
    drain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """What was ordered at one (model, cluster, pool) and how far it is; instants are of the controller's clock.

    `since_s`: when the last progress was seen. `deaths_s`: when replicas were seen to die lately.
    """

    since_s: float
    wanted: int
    ready: int
    restarts: int = 0
    deaths_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Setback:
    """Replicas that did not become ready: no more than `kept` are counted on until `until_s`, when it is tried again.

    `cause` is the kind of `reason`, which is the cluster's own words. `is_tried`: since then more became ready.
    `version` is that of the model's document; a later one has not failed.
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
    """What is waited for, and where nothing is waited for. Lost with the process: what fails is seen to fail again."""

    waits: Mapping[PlacementKey, Wait] = field(default_factory=dict)
    backoffs: Mapping[PlacementKey, Setback] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Brake:
    """Too many clusters fell silent together: the controller may be the one cut off, so it changes nothing.

    `phases` are those of the instant before the cause: who may be sent requests is decided by them for as long as the
    brake is on. `silent` are the clusters that it waits for, of `counted`; `back_s` says when each that was silent was
    first heard again.
    """

    since_s: float
    phases: Mapping[str, Phase]
    silent: tuple[str, ...]
    counted: int
    back_s: Mapping[str, float] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Why nothing moves, what it waits for, and what an operator can do."""
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
    """Places of users, those remembered included whom nobody counts. Their `country` is to be read by `countries`."""
    claims: Map[str, tuple[tuple[str, messages.UserCell], ...]] = field(default_factory=Map)
    """Cell -> (cluster, where it says that the cell is), who said so first coming first."""
    demand: Map[tuple[str, str], CellDemand] = field(default_factory=Map)
    """(model, cell) -> what is counted. Hundreds of thousands, maybe: the next world shares what did not change."""
    cordons: Mapping[str, Cordon] = field(default_factory=dict)
    continents: Mapping[str, str] = field(default_factory=dict)
    """Country -> continent, of those that the product knows."""
    spot_risks: Mapping[tuple[str, str], SpotRisk] = field(default_factory=dict)
    """(provider, product) -> risk where the catalogue does not say; either may be empty: for all others."""
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
        """The same with these states: it shares all others."""
        assert isinstance(self.clusters, ByName)
        return replace(self, clusters=self.clusters.following(changed))

    @property
    def braked(self) -> str:
        """Why nothing may move, or nothing."""
        return self.brake.text if self.brake is not None else ""

    def catalogue(self, cluster: str) -> ClusterDocument:
        """The document of a cluster. Raises: KeyError when there is none."""
        return self.catalogue_by_name()[cluster]

    def catalogue_by_name(self) -> dict[str, ClusterDocument]:
        """Cluster documents by name."""
        return {document.metadata.name: document for document in self.documents.clusters}

    def continent_of(self, country: str | None) -> str:
        """The continent of a cell or a cluster by its country; empty where it is not known, or not decided."""
        found = {self.continents.get(one, "") for one in countries(country or "")}
        return found.pop() if len(found) == 1 else ""

    def spot_risk(self, provider: str, product: str) -> SpotRisk:
        """The most particular that is known; none where nothing is."""
        for key in ((provider, product), (provider, ""), ("", product), ("", "")):
            if key in self.spot_risks:
                return self.spot_risks[key]
        return SpotRisk()

    def phase_for_routing(self, cluster: str) -> Phase:
        """The phase that says who may be sent requests: under the brake the one before its cause."""
        phase = self.clusters[cluster].phase
        return self.brake.phases.get(cluster, Phase.UNREACHABLE) if self.brake is not None else phase

    def is_routable(self, cluster: str) -> bool:
        """Whether requests may be sent to `cluster` now."""
        return self.phase_for_routing(cluster) in (Phase.READY, Phase.UNKNOWN)

    def pools_of(self, cluster: str, now_s: float) -> tuple[messages.PoolReport, ...]:
        """The pools of a cluster's newest report, and for a while what ready replicas hold of those that shrank."""
        state = self.clusters[cluster]
        reported = state.report.pools if state.report is not None else ()
        lent = {key: one.pool for key, one in state.lent.items() if now_s - one.since_s < self.timing.device_grace_s}
        if not lent:
            return reported
        return (*(lent.pop(pool.key, pool) for pool in reported), *(lent[key] for key in sorted(lent)))

    def is_settled(self, now_s: float) -> bool:
        """Whether every cluster has been heard or has had the time to be: before that, nothing is decided."""
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
        """The same without those of a model in a cluster that says more than there can be: any of them may be none."""
        doubted = {
            (name, one.object)
            for name, state in self.clusters.items()
            for one in state.findings
            if one.type == IMPLAUSIBLE_REPLICAS
        }
        ready = self.ready_replicas()
        return {key: n for key, n in ready.items() if (key[1], f"model/{key[0]}") not in doubted} if doubted else ready


def _ready_replicas(clusters: Mapping[str, ClusterState]) -> dict[PlacementKey, int]:
    return {
        (replica.model, name, replica.pool): replica.ready
        for name, state in clusters.items()
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
    counted = {(s.model, s.cell.name, name) for name, state in world.clusters.items() for s in state.counted}
    believed = {(*key, reporter) for key, one in world.demand.items() for reporter, _ in one.counts}
    assert believed == counted, "what is counted is what somebody counted"
