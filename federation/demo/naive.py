"""The two plans to beat, on the same input.

`nearest`: every user goes to the nearest cluster that has the accelerator; replicas by demand there.
`even`: replicas by the total demand, spread evenly over all clusters that have the accelerator; users in proportion.

Both are given every advantage that their idea allows: they know the truth (demand, round trips, who is alive), act at
once and without warm-up, take the cheapest pool of a cluster per request served, and use spot as far as the policy
lets them. They obey capacity and residency like ours, and are spared floors. Where models compete for devices, the one
with the smallest served part of its need takes the next replica, so that none is starved by the order of names.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from federation.demo.physics import Physics, Shape
from federation.demo.scoring import Observed, Pools, ReplicaKey
from federation.wire.messages import PoolKey

Demand = Mapping[tuple[str, str], float]
"""(model, cell) -> requests per second."""
Planner = Callable[[Physics, float], Observed]


def nearest(physics: Physics, day_fraction: float) -> Observed:
    """Every user to the nearest cluster that has the accelerator; what does not fit there is unserved."""
    pools = physics.world_pools(day_fraction)
    stock = _Stock(physics, pools)
    needs: dict[tuple[str, str], float] = defaultdict(float)
    shares: dict[tuple[str, str], dict[str, float]] = {}
    for (model, cell), rps in physics.demand(day_fraction).items():
        able = (name for name in physics.nearest[cell] if stock.fits(model, name))
        cluster = next((name for name in able if physics.may_serve(model, cell, name)), None)
        if cluster is not None and rps > 0:
            needs[model, cluster] += rps
            shares[model, cell] = {cluster: 1.0}
    _fill([_Need(model=m, clusters=(c,), rps=rps) for (m, c), rps in sorted(needs.items())], stock)
    return Observed(ready=stock.placed, held=stock.placed, shares=shares)


def even(physics: Physics, day_fraction: float) -> Observed:
    """Replicas for the total demand, one by one over all clusters that fit; users in proportion to what stands there.

    Users with different residency have their own total and their own clusters.
    """
    pools = physics.world_pools(day_fraction)
    stock = _Stock(physics, pools)
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    demand = physics.demand(day_fraction)
    for (model, cell), rps in demand.items():
        able = (name for name in sorted(physics.clusters) if stock.fits(model, name))
        permitted = tuple(name for name in able if physics.may_serve(model, cell, name))
        if permitted and rps > 0:
            groups[model, permitted].append(cell)
    needs = [
        _Need(model=model, clusters=clusters, rps=sum(demand[model, cell] for cell in cells))
        for (model, clusters), cells in sorted(groups.items())
    ]
    _fill(needs, stock)
    shares = {
        (need.model, cell): {name: rps / total for name, rps in sorted(need.capacity_rps.items())}
        for need in needs
        if (total := sum(need.capacity_rps.values())) > 0
        for cell in groups[need.model, need.clusters]
    }
    return Observed(ready=stock.placed, held=stock.placed, shares=shares)


PLANNERS: Mapping[str, Planner] = {"nearest": nearest, "even": even}


@dataclass(slots=True, kw_only=True)
class _Need:
    """Requests per second that a model must serve from these clusters, and what stands for it so far."""

    model: str
    clusters: tuple[str, ...]
    rps: float
    planned_rps: float = 0.0
    replicas: int = 0
    spot: int = 0
    capacity_rps: dict[str, float] = field(default_factory=dict)

    @property
    def served(self) -> float:
        return self.planned_rps / self.rps


class _Stock:
    """The devices that are still free, and the replicas placed on the others."""

    def __init__(self, physics: Physics, pools: Pools) -> None:
        self.physics = physics
        self.pools = pools
        self.placed: dict[ReplicaKey, int] = {}
        self._free = {key: pool.devices for key, pool in pools.items()}
        self._by_price: dict[tuple[str, str], list[tuple[PoolKey, Shape]]] = defaultdict(list)
        for (model, cluster, key), shape in physics.shapes.items():
            if (cluster, key) in pools and pools[cluster, key].devices >= shape.devices:
                self._by_price[model, cluster].append((key, shape))
        for (_, cluster), options in self._by_price.items():
            options.sort(key=lambda o, c=cluster: (self._usd_per_rps(c, *o), o[0]))  # type: ignore[misc]

    def _usd_per_rps(self, cluster: str, key: PoolKey, shape: Shape) -> float:
        return self.pools[cluster, key].usd_per_device_hour * shape.devices / shape.requests_per_second

    def fits(self, model: str, cluster: str) -> bool:
        """Whether the cluster has the accelerator for the model at all."""
        return bool(self._by_price.get((model, cluster)))

    def place(self, need: _Need, cluster: str) -> bool:
        """One more replica in the cheapest pool that has room and keeps to the spot fraction; False when none does."""
        policy = self.physics.catalogue.documents.policy_of(need.model)
        max_spot = policy.spec.spot.max_fraction if policy else 1.0
        for key, shape in self._by_price[need.model, cluster]:
            is_spot = key.market == "spot"
            if self._free[cluster, key] < shape.devices or (is_spot and need.spot + 1 > max_spot * (need.replicas + 1)):
                continue
            self._free[cluster, key] -= shape.devices
            name = need.model, cluster, key
            self.placed[name] = self.placed.get(name, 0) + 1
            rps = shape.requests_per_second
            need.capacity_rps[cluster] = need.capacity_rps.get(cluster, 0.0) + rps
            need.planned_rps += rps * self.physics.models[need.model].spec.target_utilisation
            need.replicas += 1
            need.spot += is_spot
            return True
        return False


def _fill(needs: Iterable[_Need], stock: _Stock) -> None:
    """Replicas until every need is met or nothing fits, the least served first, in turn over its clusters."""
    open_needs = {i: (need, list(need.clusters)) for i, need in enumerate(needs)}
    while open_needs:
        i = min(open_needs, key=lambda i: (open_needs[i][0].served, i))
        need, clusters = open_needs[i]
        clusters.sort(key=lambda name: (need.capacity_rps.get(name, 0.0), name))
        while clusters and not stock.place(need, clusters[0]):
            clusters.pop(0)
        if not clusters or need.served >= 1.0:
            del open_needs[i]
