"""The placement problem: clusters, pools, models with their rules and prices, cells, demand, latency. Plain values.

Everything is priced in US dollars per hour. A hard rule is never a price: capacity, fit by product and VRAM, residency,
the part that other continents may serve, minimum replicas and regions, surviving the loss of a domain, the spot
fraction, pins, cordons, limits. What cannot be served within the hard rules stays unserved, counted and explained.
Limits (the most replicas of a model, a budget) are stronger than floors: a floor that they leave no room for is missed.

Order never reaches an answer: `Problem` sorts its parts by name, so that the same world gives the same bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

Market = Literal["on-demand", "spot", "reserved"]
Domain = Literal["region", "zone", "provider"]
"""A kind of failure domain: all clusters of one region, of one zone of it, or of one provider."""


NEARER_USD_PER_1000_PER_MS = 1e-6
"""Prefers the nearer of two answers that cost the same: 1,000 requests per second brought 100 ms nearer are worth 0.36
USD an hour, less than the cheapest device."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """Base of high-volume records: cheap to create and not tracked by the cyclic garbage collector (`gc=False`), which
    is safe because they hold no cycles. `msgspec.structs.replace` gives a changed copy."""


class Intake(Enum):
    """What a cluster may be given."""

    OPEN = "open"
    """Anything that fits."""
    CORDONED = "cordoned"
    """No more replicas than it has, per model and pool."""
    DRAINING = "draining"
    """No replica and, once they are gone elsewhere, no traffic."""
    HELD = "held"
    """Exactly the replicas it has: not heard of for a moment, so neither trusted with more nor given up."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Pool:
    """Interchangeable accelerators of one cluster.

    `devices` is what this federation may use: allocatable, less what others' pods request.
    """

    cluster: str
    product: str
    mig_profile: str = ""
    market: Market = "on-demand"
    vram_gib: float
    devices: int
    usd_per_device_hour: float
    losses_per_hour: float = 0.0
    """How often a replica is taken back: spot."""
    replacement_chance: float = 1.0
    """That another is granted when it is asked for, in (0, 1]."""

    @property
    def name(self) -> str:
        """`fra-1/NVIDIA-L4/spot`; with a MIG profile `fra-1/NVIDIA-A100-SXM4-80GB:1g.10gb/on-demand`."""
        mig = f":{self.mig_profile}" if self.mig_profile else ""
        return f"{self.cluster}/{self.product}{mig}/{self.market}"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cluster:
    """A place that can run replicas. `reachable` False takes it out of routing at once, whatever its intake."""

    name: str
    provider: str
    region: str
    zone: str = ""
    """Empty where it is not known: then the region stands for it."""
    jurisdictions: tuple[str, ...] = ()
    continent: str = ""
    """Empty where it is not known: then it is on no continent that users are on."""
    egress_usd_per_gib: float = 0.0
    """Of what is answered to users, wherever they are."""
    intake: Intake = field(default=Intake.OPEN, compare=False)
    reachable: bool = True

    def domain(self, kind: Domain) -> str:
        """Which failure domain of this kind it is in."""
        match kind:
            case "provider":
                return self.provider
            case "region":
                return self.region
            case "zone":
                return f"{self.region}/{self.zone}" if self.zone else self.region


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Shape:
    """What one replica needs of a pool, and the requests per second it then serves."""

    product: str
    mig_profile: str = ""
    devices: int
    min_vram_gib: float = 0.0
    """Per device."""
    requests_per_second: float

    def fits(self, pool: Pool) -> bool:
        """Whether a replica of this shape can run in `pool`, its size aside."""
        return (
            self.product == pool.product
            and self.mig_profile == pool.mig_profile
            and pool.vram_gib + 1e-9 >= self.min_vram_gib
        )


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cell:
    """Users of one place; `country` is ISO 3166-1 alpha-2."""

    name: str
    country: str
    continent: str = ""
    """Any name; empty where it is not known: then every cluster is on another."""


def leaves(cell: Cell, cluster: Cluster) -> bool:
    """Whether requests of `cell` that `cluster` serves leave their continent; where either is unknown, they do."""
    return not cell.continent or cell.continent != cluster.continent


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Residency:
    """Users in `countries` (all users when empty) may be served only in clusters with one of `jurisdictions`."""

    countries: tuple[str, ...]
    jurisdictions: tuple[str, ...]

    def permits(self, cell: Cell, cluster: Cluster) -> bool:
        """Whether this rule lets `cluster` serve the users of `cell`; a rule for other countries says nothing."""
        if self.countries and cell.country not in self.countries:
            return True
        return not set(self.jurisdictions).isdisjoint(cluster.jurisdictions)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Pin:
    """At least so many replicas in one cluster, whatever they cost there."""

    cluster: str
    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Bend:
    """From this latency on each further millisecond of 1,000 requests costs so much more than those before it."""

    latency_ms: float
    more_usd_per_1000_per_ms: float


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class MaxPart:
    """Of what a model's replicas can serve, each domain of this kind holds at most `fraction`."""

    domain: Domain
    fraction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What is served, and the rules and prices that policy puts on it. Models sort by name."""

    name: str
    shapes: tuple[Shape, ...]
    objective_ms: float
    """A request slower than this is late. Latency is the path's round trip plus `service_latency_ms`."""
    service_latency_ms: float = 0.0
    target_utilisation: float = 0.8
    """Share of a replica's requests per second that a plan counts on, in (0, 1]."""
    late_usd_per_1000: float
    unserved_usd_per_1000: float
    latency_usd_per_1000_per_ms: float = NEARER_USD_PER_1000_PER_MS
    """What each millisecond of the way costs; at least so much that of two answers that cost the same the nearer is
    preferred. What a replica takes is the same wherever it runs, and costs nothing."""
    bends: tuple[Bend, ...] = ()
    """Where the price of a millisecond rises: beyond `service_latency_ms`, and by more than nothing, so that the price
    of a way is convex."""
    move_usd: float = 0.0
    """Policy's charge for starting one replica, on top of its warm-up."""
    warmup_s: float = 0.0
    max_starts: int | None = None
    """The most replicas that may be started beyond those that run; None for any number."""
    response_kib: float = 0.0
    """What a usual answer weighs, for the price of egress."""
    priority: int = 0
    """In a shortage a model is served before all of lower priority, whatever its prices."""
    min_replicas: int = 0
    max_replicas: int | None = None
    """None for any number."""
    min_on_demand: int = 0
    """Replicas that cannot be taken away: on demand or reserved."""
    min_regions: int = 0
    survive: Domain | None = None
    """Whatever one domain of this kind is lost, what is left elsewhere can serve `survive_fraction` of all demand."""
    survive_fraction: float = 1.0
    survive_within_fraction: float = 0.0
    """Of the requests that could be served within the objective at all, the part that can be whatever domain of kind
    `survive` is lost."""
    max_part: MaxPart | None = None
    target_fraction: float = 0.0
    """Of its requests, what is served over time though spot is taken back, as far as it can be; 0 for a price in its
    place."""
    """Bounds what the loss of a domain takes. Where it would leave users unserved it is missed, and told."""
    spot_max_fraction: float = 1.0
    other_continents_max_fraction: float = 1.0
    """Of the requests of each continent's users, the most that clusters of other continents may serve."""
    pins: tuple[Pin, ...] = ()
    residency: tuple[Residency, ...] = ()

    def __lt__(self, other: Model) -> bool:
        return self.name < other.name

    def shape_for(self, pool: Pool) -> Shape | None:
        """The shape that runs in `pool` (the one with the most requests per second per device), or None."""
        fitting = [shape for shape in self.shapes if shape.fits(pool)]
        return max(fitting, key=lambda shape: (shape.requests_per_second / shape.devices, shape), default=None)

    def devices_in(self, pool: Pool) -> int:
        """Devices that one replica takes in `pool`. One that runs there and no longer fits takes one at least."""
        shape = self.shape_for(pool)
        return 1 if shape is None else shape.devices

    def way_usd_per_1000(self, latency_ms: float) -> float:
        """What the way of 1,000 requests costs that wait so long, by how far it is; being late costs besides."""
        usd = self.latency_usd_per_1000_per_ms * (latency_ms - self.service_latency_ms)
        for bend in self.bends:
            if latency_ms > bend.latency_ms:
                usd += bend.more_usd_per_1000_per_ms * (latency_ms - bend.latency_ms)
        return usd

    @property
    def yields(self) -> bool:
        """Whether it has a rule that is missed rather than that users go unserved for it."""
        return self.max_part is not None or self.target_fraction > 0.0

    @property
    def keeps_home(self) -> bool:
        """Whether no other continent may serve any of its users: a rule of who may serve whom, as residency is."""
        return self.other_continents_max_fraction <= 0.0

    @property
    def is_capped(self) -> bool:
        """Whether other continents may serve some of its users and not all: a rule over all users of a continent."""
        return 0.0 < self.other_continents_max_fraction < 1.0


class Demand(Record, frozen=True, kw_only=True, order=True):
    """Requests per second of one cell for one model.

    Of these, `grown_rps` are growth that nobody vouches for: in a shortage what is known is served first.
    """

    model: str
    cell: str
    requests_per_second: float
    grown_rps: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Path:
    """Round trip between a cell and a cluster. A pair without a path is not served: unknown is not zero."""

    cell: str
    cluster: str
    rtt_ms: float


PAIRS_BY_NAME = 100_000
"""Up to so many round trips are looked up in a dictionary, which is faster and takes 100 bytes of each."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RttMatrix(Mapping[tuple[str, str], float]):
    """Round trips of very many pairs at once: `rtt_ms` [cells, clusters], NaN where it is not known."""

    cells: tuple[str, ...]
    clusters: tuple[str, ...]
    rtt_ms: NDArray[np.float32]
    _row: dict[str, int] = field(init=False, repr=False)
    _column: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_row", {name: at for at, name in enumerate(self.cells)})
        object.__setattr__(self, "_column", {name: at for at, name in enumerate(self.clusters)})

    def by_name(self) -> dict[tuple[str, str], float]:
        """The same in a dictionary."""
        pairs = zip(itertools.product(self.cells, self.clusters), self.rtt_ms.reshape(-1).tolist(), strict=True)
        return {pair: rtt_ms for pair, rtt_ms in pairs if rtt_ms == rtt_ms}

    @property
    def farthest_ms(self) -> float:
        """The longest that is known; 0 where none is."""
        longest = float(np.fmax.reduce(self.rtt_ms, axis=None, initial=np.float32(0.0)))
        return longest if longest == longest else 0.0

    def rows(self, cells: Sequence[str]) -> NDArray[np.int64]:
        """Where these are in `rtt_ms`; -1 of those that are not."""
        return np.array([self._row.get(name, -1) for name in cells], dtype=np.int64)

    def columns(self, clusters: Sequence[str]) -> NDArray[np.int64]:
        """Where these are in `rtt_ms`; -1 of those that are not."""
        return np.array([self._column.get(name, -1) for name in clusters], dtype=np.int64)

    def part(self, cells: Sequence[str], clusters: Sequence[str]) -> NDArray[np.float32]:
        """[cells, clusters] of these, NaN where it is not known."""
        made = np.full((len(cells), len(clusters)), np.nan, dtype=np.float32)
        rows, columns = self.rows(cells), self.columns(clusters)
        made[np.ix_(rows >= 0, columns >= 0)] = self.rtt_ms[np.ix_(rows[rows >= 0], columns[columns >= 0])]
        return made

    def __getitem__(self, pair: tuple[str, str]) -> float:
        value = float(self.rtt_ms[self._row[pair[0]], self._column[pair[1]]])
        if value != value:
            raise KeyError(pair)
        return value

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return (pair for pair in itertools.product(self.cells, self.clusters) if pair in self)

    def __len__(self) -> int:
        return int(np.count_nonzero(~np.isnan(self.rtt_ms)))


class Placed(Record, frozen=True, kw_only=True, order=True):
    """`replicas` of a model in a pool (by the pool's name)."""

    model: str
    pool: str
    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Room:
    """At most so many replicas of a model find a place in a pool, node by node, however many devices it has in sum."""

    model: str
    pool: str
    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Budget:
    """At most so much may the accelerators of all replicas of these models cost together; `name` is the policy's."""

    name: str
    models: tuple[str, ...]
    usd_per_hour: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One planning question. `current` is what is desired now; it prices moves and bounds cordoned and held clusters.

    Invariants: names are unique, and every name that is referred to is present.
    Raises: ValueError naming the first that is not so.
    """

    clusters: tuple[Cluster, ...]
    pools: tuple[Pool, ...]
    models: tuple[Model, ...]
    cells: tuple[Cell, ...]
    demands: tuple[Demand, ...]
    paths: tuple[Path, ...] | RttMatrix
    current: tuple[Placed, ...] = ()
    move_horizon_h: float = 1.0
    """The one-off cost of a start is spread over this many hours."""
    room: tuple[Room, ...] = ()
    """A (model, pool) that is not named is bounded by the pool's devices alone."""
    budgets: tuple[Budget, ...] = ()
    reaction_s: float = 0.0
    """From the loss of a replica to the order for another."""

    def __post_init__(self) -> None:
        for part in ("clusters", "pools", "models", "cells", "demands", "current", "room", "budgets"):
            object.__setattr__(self, part, tuple(sorted(getattr(self, part))))
        if not isinstance(self.paths, RttMatrix):
            object.__setattr__(self, "paths", tuple(sorted(self.paths)))
            _once("path", ((path.cell, path.cluster) for path in self.paths))
        clusters = _unique("cluster", (cluster.name for cluster in self.clusters))
        pools = _unique("pool", (pool.name for pool in self.pools))
        models = _unique("model", (model.name for model in self.models))
        cells = _unique("cell", (cell.name for cell in self.cells))
        _once("demand", ((demand.model, demand.cell) for demand in self.demands))
        _once("placement", ((placed.model, placed.pool) for placed in self.current))
        _known("pool in cluster", (pool.cluster for pool in self.pools), clusters)
        _known("demand for model", (demand.model for demand in self.demands), models)
        _known("demand of cell", (demand.cell for demand in self.demands), cells)
        if isinstance(self.paths, RttMatrix):
            _known("path of cell", self.paths.cells, cells)
            _known("path to cluster", self.paths.clusters, clusters)
        else:
            _known("path of cell", (path.cell for path in self.paths), cells)
            _known("path to cluster", (path.cluster for path in self.paths), clusters)
        _known("pin to cluster", (pin.cluster for model in self.models for pin in model.pins), clusters)
        _known("replicas of model", (placed.model for placed in self.current), models)
        _known("replicas in pool", (placed.pool for placed in self.current), pools)
        _once("room", ((room.model, room.pool) for room in self.room))
        _known("room for model", (room.model for room in self.room), models)
        _known("room in pool", (room.pool for room in self.room), pools)
        _unique("budget", (budget.name for budget in self.budgets))
        _known("budget of model", (name for budget in self.budgets for name in budget.models), models)

    def rtt_ms(self) -> Mapping[tuple[str, str], float]:
        """(cell, cluster) -> round trip, of those that are known."""
        if isinstance(self.paths, RttMatrix):
            return self.paths.by_name() if self.paths.rtt_ms.size <= PAIRS_BY_NAME else self.paths
        return {(path.cell, path.cluster): path.rtt_ms for path in self.paths}

    def rtt_matrix(self) -> RttMatrix:
        """The same of all pairs at once."""
        if isinstance(self.paths, RttMatrix):
            return self.paths
        cells, clusters = sorted({one.cell for one in self.paths}), sorted({one.cluster for one in self.paths})
        made = RttMatrix(
            cells=tuple(cells),
            clusters=tuple(clusters),
            rtt_ms=np.full((len(cells), len(clusters)), np.nan, dtype=np.float32),
        )
        for one in self.paths:
            made.rtt_ms[made._row[one.cell], made._column[one.cluster]] = one.rtt_ms
        return made

    def allows(self, model: Model, cell: Cell, cluster: Cluster) -> bool:
        """Whether `cluster` may serve `model` to the users of `cell`: by residency, and by continent if none may leave.

        A cap that lets some of them leave is no matter of a single cell.
        """
        if model.keeps_home and leaves(cell, cluster):
            return False
        return self.resides(model, cell, cluster)

    def resides(self, model: Model, cell: Cell, cluster: Cluster) -> bool:
        """Whether residency alone lets `cluster` serve `model` to the users of `cell`."""
        return all(rule.permits(cell, cluster) for rule in model.residency)


def _unique(what: str, names: Iterable[Hashable]) -> frozenset[Hashable]:
    seen: set[Hashable] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{what} {name} appears twice")
        seen.add(name)
    return frozenset(seen)


def _once(what: str, names: Iterable[Hashable]) -> None:
    """The same for names in their order: nothing is kept of hundreds of thousands."""
    before = None
    for name in names:
        if name == before:
            raise ValueError(f"{what} {name} appears twice")
        before = name


def _known(what: str, names: Iterable[Hashable], known: frozenset[Hashable]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{what} {name}: no such name in this problem")
