"""What the engine answers: a placement with its routing, price and shortfalls; or a routing alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, assert_never

from placement.problem import Placed, Record


class UnservedCode(Enum):
    """Why demand is left unserved; the codes differ by what would help."""

    NO_ACCELERATOR = "no-accelerator"
    """No pool anywhere fits the model."""
    RESIDENCY = "residency"
    """Pools fit, but none where these users' data may go."""
    CONTINENT_CAP = "continent-cap"
    """Clusters of other continents could serve them, and policy lets those serve no more of this continent's users."""
    NO_PATH = "no-path"
    """No latency is known to any cluster that may serve them."""
    CAPACITY = "capacity"
    """Every device that fits, and may serve them, is taken."""
    MAX_REPLICAS = "max-replicas"
    """There are free devices, and the model has all the replicas that policy lets it have."""
    BUDGET = "budget"
    """There are free devices, and what the policy's models may cost together is spent."""
    PRICE = "price"
    """Serving would cost more than policy says an unserved request costs."""
    WARMING = "warming"
    """Routing only: the replicas that would serve it are not ready yet."""


class Flow(Record, frozen=True, kw_only=True, order=True):
    """Requests per second of (model, cell) that `cluster` serves."""

    model: str
    cell: str
    cluster: str
    requests_per_second: float
    latency_ms: float
    within_objective: bool


class Unserved(Record, frozen=True, kw_only=True, order=True):
    """Demand that nothing serves, with the reason in a code and a sentence."""

    model: str
    cell: str
    requests_per_second: float
    code: UnservedCode = field(compare=False)
    reason: str


Floor = Literal[
    "min_replicas", "min_on_demand", "min_regions", "pin", "survive", "survive_within", "max_part", "availability"
]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Shortfall:
    """A floor that no placement within the other hard rules can meet.

    `subject` is the cluster of a pin, the domain whose loss would leave too little for `survive` and
    `survive_within`, the one that holds too much for `max_part`, and the zone and product of spot for `availability`.
    Counts of replicas or regions; for survival and availability requests per second; for `max_part` `placed` percent
    where at most those `wanted` may be.
    """

    model: str
    rule: Floor
    subject: str = ""
    wanted: float
    placed: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class DevicePrice:
    """What one more device of a pool would save, at most: the dual price of the relaxation, in USD per hour."""

    pool: str
    usd_per_hour: float


Limit = Literal["max_replicas", "budget"]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Reached:
    """A limit that leaves no room for one more replica: `used` of `most` replicas, or USD per hour.

    `subject` is the model, or the policy whose budget it is. `usd_per_hour` is what one more of it would save, at most:
    the dual price of the relaxation.
    """

    limit: Limit
    subject: str
    used: float
    most: float
    usd_per_hour: float

    @property
    def says(self) -> str:
        """In a sentence."""
        saves = f" would save up to {self.usd_per_hour:.2f} USD an hour" if self.usd_per_hour > 0.005 else ""
        match self.limit:
            case "max_replicas":
                says = f"{self.subject} has {self.used:.0f} replicas, and maxReplicas {self.most:.0f} allows no more"
                return f"{says}; one more{saves}" if saves else says
            case "budget":
                spends = f"policy {self.subject} spends {self.used:.2f} of its maxUsdPerHour {self.most:.2f}"
                says = f"{spends}, and no further replica fits in it"
                return f"{says}; each dollar more{saves}" if saves else says
            case _:
                assert_never(self.limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """US dollars per hour, by cause. `proximity` is what all milliseconds of all requests cost. `risk` is what
    replicas that are taken back are expected to leave late and to cost when others are started for them."""

    accelerators: float
    egress: float
    late: float
    unserved: float
    moves: float
    proximity: float
    risk: float = 0.0

    @property
    def total(self) -> float:
        """The objective's value."""
        paid = self.accelerators + self.egress + self.late + self.unserved + self.moves
        return paid + self.proximity + self.risk


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """A placement with the routing it was found with.

    `replicas` names only counts above zero. `bound_usd_per_hour` is a proven lower bound of the total cost, and `gap`
    the relative distance to it; `is_loose` says that the distance is more likely the bound's than the plan's, as in a
    shortage. `scarce` are the pools of which another device would save money, the dearest first; `reached` the limits
    that leave no room for one more replica.
    """

    replicas: tuple[Placed, ...]
    flows: tuple[Flow, ...]
    unserved: tuple[Unserved, ...]
    shortfalls: tuple[Shortfall, ...]
    cost: Cost
    bound_usd_per_hour: float
    gap: float
    is_loose: bool = False
    scarce: tuple[DevicePrice, ...] = ()
    reached: tuple[Reached, ...] = ()


class RoomPrice(Record, frozen=True, kw_only=True, order=True):
    """What one more request per second of room would save a model's users in a cluster, in USD per hour."""

    model: str
    cluster: str
    usd_per_hour: float


class Over(Record, frozen=True, kw_only=True, order=True):
    """What a cluster serves of a model above the target utilisation, and what would be without that."""

    model: str
    cluster: str
    requests_per_second: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """Who serves whom with the replicas that exist. Its cost leaves out accelerators and moves.

    `gap` is how far from the best routing it may be, proven; `prices`, of a large world, prove it.
    """

    flows: tuple[Flow, ...]
    unserved: tuple[Unserved, ...]
    cost: Cost
    gap: float = 0.0
    prices: tuple[RoomPrice, ...] = ()
    over: tuple[Over, ...] = ()
    """By model and cluster."""


Ready = Mapping[tuple[str, str], int]
"""(model, pool name) -> replicas that can serve now."""


def counts_of(solution: Solution) -> dict[tuple[str, str], int]:
    """(model, pool) -> replicas."""
    return {(one.model, one.pool): one.replicas for one in solution.replicas}
