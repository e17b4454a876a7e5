"""The engine's own words: a problem in, a solution out. Plain values, no I/O, no clock, no chance.

Everything is priced in US dollars per hour. A hard rule is never a price: capacity, fit by product and VRAM, residency,
minimum replicas and regions, the spot fraction, cordons. What cannot be served within the hard rules stays unserved,
counted and explained.

Order never reaches an answer: `Problem` sorts its parts by name, so that the same world gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

Market = Literal["on-demand", "spot", "reserved"]


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
    jurisdictions: tuple[str, ...] = ()
    intake: Intake = field(default=Intake.OPEN, compare=False)
    reachable: bool = True


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
class Model:
    """What is served, and the rules and prices that policy puts on it."""

    name: str
    shapes: tuple[Shape, ...]
    objective_ms: float
    """A request slower than this is late. Latency is the path's round trip plus `service_latency_ms`."""
    service_latency_ms: float = 0.0
    target_utilisation: float = 0.8
    """Share of a replica's requests per second that a plan counts on, in (0, 1]."""
    late_usd_per_1000: float
    unserved_usd_per_1000: float
    move_usd: float = 0.0
    """Policy's charge for starting one replica, on top of its warm-up."""
    warmup_s: float = 0.0
    min_replicas: int = 0
    min_regions: int = 0
    spot_max_fraction: float = 1.0
    residency: tuple[Residency, ...] = ()

    def shape_for(self, pool: Pool) -> Shape | None:
        """The shape that runs in `pool` (the one with the most requests per second per device), or None."""
        fitting = [shape for shape in self.shapes if shape.fits(pool)]
        return max(fitting, key=lambda shape: (shape.requests_per_second / shape.devices, shape), default=None)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Demand:
    """Requests per second of one cell for one model."""

    model: str
    cell: str
    requests_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Path:
    """Round trip between a cell and a cluster. A pair without a path is not served: unknown is not zero."""

    cell: str
    cluster: str
    rtt_ms: float


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Placed:
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
    paths: tuple[Path, ...]
    current: tuple[Placed, ...] = ()
    move_horizon_h: float = 1.0
    """The one-off cost of a start is spread over this many hours."""
    room: tuple[Room, ...] = ()
    """A (model, pool) that is not named is bounded by the pool's devices alone."""

    def __post_init__(self) -> None:
        for part in ("clusters", "pools", "models", "cells", "demands", "paths", "current", "room"):
            object.__setattr__(self, part, tuple(sorted(getattr(self, part))))
        clusters = _unique("cluster", (cluster.name for cluster in self.clusters))
        pools = _unique("pool", (pool.name for pool in self.pools))
        models = _unique("model", (model.name for model in self.models))
        cells = _unique("cell", (cell.name for cell in self.cells))
        _unique("demand", ((demand.model, demand.cell) for demand in self.demands))
        _unique("path", ((path.cell, path.cluster) for path in self.paths))
        _unique("placement", ((placed.model, placed.pool) for placed in self.current))
        _known("pool in cluster", (pool.cluster for pool in self.pools), clusters)
        _known("demand for model", (demand.model for demand in self.demands), models)
        _known("demand of cell", (demand.cell for demand in self.demands), cells)
        _known("path of cell", (path.cell for path in self.paths), cells)
        _known("path to cluster", (path.cluster for path in self.paths), clusters)
        _known("replicas of model", (placed.model for placed in self.current), models)
        _known("replicas in pool", (placed.pool for placed in self.current), pools)
        _unique("room", ((room.model, room.pool) for room in self.room))
        _known("room for model", (room.model for room in self.room), models)
        _known("room in pool", (room.pool for room in self.room), pools)

    def allows(self, model: Model, cell: Cell, cluster: Cluster) -> bool:
        """Whether residency lets `cluster` serve `model` to the users of `cell`."""
        return all(rule.permits(cell, cluster) for rule in model.residency)


def _unique(what: str, names: Iterable[Hashable]) -> frozenset[Hashable]:
    seen: set[Hashable] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{what} {name} appears twice")
        seen.add(name)
    return frozenset(seen)


def _known(what: str, names: Iterable[Hashable], known: frozenset[Hashable]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{what} {name}: no such name in this problem")


class UnservedCode(Enum):
    """Why demand is left unserved; the codes differ by what would help."""

    NO_ACCELERATOR = "no-accelerator"
    """No pool anywhere fits the model."""
    RESIDENCY = "residency"
    """Pools fit, but none where these users' data may go."""
    NO_PATH = "no-path"
    """No latency is known to any cluster that may serve them."""
    CAPACITY = "capacity"
    """Every device that fits, and may serve them, is taken."""
    PRICE = "price"
    """Serving would cost more than policy says an unserved request costs."""
    WARMING = "warming"
    """Routing only: the replicas that would serve it are not ready yet."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Flow:
    """Requests per second of (model, cell) that `cluster` serves."""

    model: str
    cell: str
    cluster: str
    requests_per_second: float
    latency_ms: float
    within_objective: bool


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Unserved:
    """Demand that nothing serves, with the reason in a code and a sentence."""

    model: str
    cell: str
    requests_per_second: float
    code: UnservedCode = field(compare=False)
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Shortfall:
    """A floor that no placement within the other hard rules can meet."""

    model: str
    rule: Literal["min_replicas", "min_regions"]
    wanted: int
    placed: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """US dollars per hour, by cause. `proximity` is the tie-breaker that prefers the nearer of two equal answers."""

    accelerators: float
    late: float
    unserved: float
    moves: float
    proximity: float

    @property
    def total(self) -> float:
        """The objective's value."""
        return self.accelerators + self.late + self.unserved + self.moves + self.proximity


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """A placement with the routing it was found with.

    `replicas` names only counts above zero. `bound_usd_per_hour` is a proven lower bound of the total cost, and `gap`
    the relative distance to it.
    """

    replicas: tuple[Placed, ...]
    flows: tuple[Flow, ...]
    unserved: tuple[Unserved, ...]
    shortfalls: tuple[Shortfall, ...]
    cost: Cost
    bound_usd_per_hour: float
    gap: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """Who serves whom with the replicas that exist. Its cost leaves out accelerators and moves."""

    flows: tuple[Flow, ...]
    unserved: tuple[Unserved, ...]
    cost: Cost


Ready = Mapping[tuple[str, str], int]
"""(model, pool name) -> replicas that can serve now."""
