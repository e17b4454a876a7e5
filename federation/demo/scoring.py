"""The score of a day of plans, on one scale for Isochrone and other tools.

Every step is scored against the true world: true round trips instead of the controller's estimates, replicas that were
ready, and devices that cost money, also during warm-up.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from federation.demo.physics import Physics, PoolNow
from federation.state.keys import ClusterPool, ModelCell, ModelCluster, PlacementKey

Pools = Mapping[ClusterPool, PoolNow]
"""(cluster, pool) -> the pool of the moment, where there are devices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A planner's state in the world at one moment.

    `ready` replicas serve; `held` ones occupy devices and are paid for, ready or not. `shares` are (model, cell) ->
    cluster -> fraction of the requests sent there; the rest is unserved.
    """

    ready: Mapping[PlacementKey, int]
    held: Mapping[PlacementKey, int]
    shares: Mapping[ModelCell, Mapping[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstCell:
    """The users with the worst service."""

    name: str
    within_objective_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A day in a few figures. Unserved requests do not count as within the objective.

    `rtt_ms_mean` is the true round trip of served requests, `nearest_rtt_ms_mean` what it would be if each went to the
    nearest cluster that has the accelerator and may serve it, full or not.
    """

    within_objective_share: float
    usd_per_hour: float
    unserved_share: float
    moves: int | None
    """None where each plan is made from scratch, so that moves mean nothing."""
    worst_cell: WorstCell
    rtt_ms_mean: float
    nearest_rtt_ms_mean: float


class Score:
    """Accumulates one planner's day."""

    def __init__(self, physics: Physics) -> None:
        self._physics = physics
        self._requests: dict[str, float] = defaultdict(float)
        self._within: dict[str, float] = defaultdict(float)
        self._unserved = 0.0
        self._served = 0.0
        self._waited_ms = 0.0
        self._nearest_ms = 0.0
        self._usd = 0.0
        self._hours = 0.0
        self._moves = 0
        self._held: Mapping[PlacementKey, int] | None = None

    def add(self, day_fraction: float, hours: float, observed: Observed, *, moves: int | None = None) -> None:
        """Count a step that began at `day_fraction` and took `hours`.

        Args: moves: how many were made in the step; None counts them from the replicas held before and now.
        """
        physics = self._physics
        pools = physics.world_pools(day_fraction)
        capacity_rps = _capacity_rps(physics, pools, observed.ready)
        demand = physics.demand(day_fraction)
        fitting = {(model, cluster) for model, cluster, key in physics.shapes if (cluster, key) in pools}
        offered_rps: dict[ModelCluster, float] = defaultdict(float)
        for (model, cell), shares in sorted(observed.shares.items()):
            for cluster, share in sorted(shares.items()):
                offered_rps[ModelCluster(model, cluster)] += demand.get(ModelCell((model, cell)), 0.0) * share
        for (model, cell), rps in demand.items():
            served_rps = within_rps = 0.0
            for cluster, share in sorted(observed.shares.get(ModelCell((model, cell)), {}).items()):
                offered = offered_rps[ModelCluster(model, cluster)]
                if offered <= 0:
                    continue
                here_rps = rps * share * min(1.0, capacity_rps.get(ModelCluster(model, cluster), 0.0) / offered)
                served_rps += here_rps
                within_rps += here_rps if physics.is_within_objective(model, cell, cluster) else 0.0
                self._waited_ms += here_rps * hours * physics.user_rtt_ms(cell, cluster)
            self._served += served_rps * hours
            self._nearest_ms += served_rps * hours * _nearest_ms(physics, fitting, model, cell)
            self._requests[cell] += rps * hours * 3600.0
            self._within[cell] += within_rps * hours * 3600.0
            self._unserved += max(0.0, rps - served_rps) * hours * 3600.0
        self._usd += usd_per_hour(physics, pools, observed.held) * hours
        self._hours += hours
        if moves is None:
            moves = 0 if self._held is None else moves_between(self._held, observed.held)
        self._moves += moves
        self._held = dict(observed.held)

    def summary(self) -> Summary:
        """The day so far. Raises: ValueError before the first step."""
        requests = sum(self._requests.values())
        if self._hours <= 0 or requests <= 0:
            raise ValueError("nothing has been scored yet")
        shares = {cell: self._within[cell] / count for cell, count in self._requests.items() if count > 0}
        worst = min(shares, key=lambda cell: (shares[cell], cell))
        return Summary(
            within_objective_share=sum(self._within.values()) / requests,
            usd_per_hour=self._usd / self._hours,
            unserved_share=round(self._unserved / requests, 9),
            moves=self._moves,
            worst_cell=WorstCell(name=worst, within_objective_share=shares[worst]),
            rtt_ms_mean=self._waited_ms / self._served if self._served else 0.0,
            nearest_rtt_ms_mean=self._nearest_ms / self._served if self._served else 0.0,
        )


def _nearest_ms(physics: Physics, fitting: Collection[tuple[str, str]], model: str, cell: str) -> float:
    able = (name for name in physics.nearest[cell] if (model, name) in fitting and physics.may_serve(model, cell, name))
    nearest = next(able, None)
    return physics.user_rtt_ms(cell, nearest) if nearest is not None else 0.0


def usd_per_hour(physics: Physics, pools: Pools, held: Mapping[PlacementKey, int]) -> float:
    """The cost of the devices of these replicas. Lost or reclaimed devices cost nothing."""
    return sum(
        replicas * physics.shapes[key].devices * pools[key.place].usd_per_device_hour
        for key, replicas in sorted(held.items())
        if key.place in pools
    )


def moves_between(before: Mapping[PlacementKey, int], after: Mapping[PlacementKey, int]) -> int:
    """Replicas that started in one cluster while one of the model stopped in another."""
    net: dict[tuple[str, str], int] = defaultdict(int)
    for sign, counts in ((-1, before), (1, after)):
        for (model, cluster, _), replicas in counts.items():
            net[model, cluster] += sign * replicas
    started: dict[str, int] = defaultdict(int)
    stopped: dict[str, int] = defaultdict(int)
    for (model, _), change in net.items():
        started[model] += max(0, change)
        stopped[model] += max(0, -change)
    return sum(min(started[model], stopped[model]) for model in started)


def _capacity_rps(physics: Physics, pools: Pools, ready: Mapping[PlacementKey, int]) -> Mapping[ModelCluster, float]:
    """(model, cluster) -> requests per second that ready replicas there can serve; none where there are no devices."""
    capacity: dict[ModelCluster, float] = defaultdict(float)
    for key, replicas in ready.items():
        if key.place in pools:
            capacity[ModelCluster(key.model, key.cluster)] += replicas * physics.shapes[key].requests_per_second
    return capacity
