"""The ground truth of the demo's world at a moment of its day: distances, demand, prices, devices, living clusters.

Pure. A moment is a fraction of a day in UTC, 0 to 1; beyond that the day repeats. The simulated agents report this
truth (round trips with some scatter), and plans are scored against it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from federation.demo.catalogue import Catalogue, Outage, Place, PriceRise, SpotGone, StoryEvent, Surge
from federation.latency.sphere import great_circle_km
from federation.policy.documents import Cluster, Model
from federation.state.keys import ClusterPool, ModelCell, PlacementKey
from federation.wire import messages
from federation.wire.messages import PoolKey, UserCell


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolNow:
    """One accelerator pool at one moment. No devices means that the provider has taken them back."""

    key: PoolKey
    vram_gib: float
    devices: int
    usd_per_device_hour: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What one replica takes of a pool, and the requests per second it then serves."""

    devices: int
    requests_per_second: float


@dataclass(frozen=True, slots=True)
class _Point:
    lat: float
    lon: float
    anchor: str | None
    """The measured site that this place counts as."""


class Physics:
    """The demo's world. Names of clusters, cells and models are those of the catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.clusters: Mapping[str, Cluster] = {one.metadata.name: one for one in catalogue.documents.clusters}
        self.models: Mapping[str, Model] = {one.metadata.name: one for one in catalogue.documents.models}
        self.places: Mapping[str, Place] = {one.name: one for one in sorted(catalogue.places, key=lambda p: p.name)}
        self._measured = _both_ways(catalogue)

    # ---- distances

    def site_rtt_ms(self, cluster: str, other: str) -> float:
        """True round trip between two clusters; symmetric, above zero for two names and zero for one."""
        return self._site_rtt_ms[cluster, other]

    def measured_rtt_ms(self, cluster: str, other: str, rng: random.Random) -> float:
        """What an agent would measure just now: the truth with some scatter."""
        truth_ms = self.site_rtt_ms(cluster, other)
        return max(0.1, truth_ms * (1.0 + rng.gauss(0.0, self.catalogue.day.network.jitter)))

    def user_rtt_ms(self, cell: str, cluster: str) -> float:
        """True round trip between the users of a cell and a cluster."""
        return self._user_rtt_ms[cell, cluster]

    def latency_ms(self, model: str, cell: str, cluster: str) -> float:
        """What a user waits for: the true round trip and the model's service latency."""
        return self.user_rtt_ms(cell, cluster) + self.models[model].spec.service_latency_ms

    def is_within_objective(self, model: str, cell: str, cluster: str) -> bool:
        """Whether a request served there is on time."""
        return self.latency_ms(model, cell, cluster) <= self.models[model].spec.slo.p95_latency_ms

    def may_serve(self, model: str, cell: str, cluster: str) -> bool:
        """Whether the model's residency rules let the cluster serve these users."""
        policy = self.catalogue.documents.policy_of(model)
        country = self.places[cell].country
        jurisdictions = set(self.clusters[cluster].spec.jurisdictions)
        return not any(
            (rule.users_in is None or country in rule.users_in.countries)
            and jurisdictions.isdisjoint(rule.clusters_in.jurisdictions)
            for rule in (policy.spec.residency if policy else ())
        )

    # ---- the day

    def story(self, day_fraction: float) -> tuple[StoryEvent, ...]:
        """The episodes in progress."""
        return tuple(event for event in self.catalogue.day.story if event.is_on(day_fraction))

    def is_alive(self, cluster: str, day_fraction: float) -> bool:
        """Whether the cluster is alive."""
        lost = (event.clusters for event in self.story(day_fraction) if isinstance(event, Outage))
        return not any(cluster in clusters for clusters in lost)

    def demand_rps(self, day_fraction: float, cell: str, model: str) -> float:
        """Requests per second of the cell's users for the model: users, the hour of their sun, and the story."""
        rhythm = self.catalogue.day.demand
        place = self.places[cell]
        adoption = rhythm.adoption.countries.get(place.country, rhythm.adoption.continents.get(place.continent, 0.0))
        hour = (day_fraction * 24.0 + place.lon / 15.0) % 24.0
        rps = rhythm.rps_per_million_users[model] * place.population * adoption / 1e6 * _at(rhythm.hourly, hour)
        for event in self.story(day_fraction):
            if isinstance(event, Surge) and event.continent == place.continent:
                rps *= event.factor
        return rps

    def demand(self, day_fraction: float) -> dict[ModelCell, float]:
        """(model, cell) -> requests per second, for all of them."""
        return {
            ModelCell((m, c)): self.demand_rps(day_fraction, c, m)
            for m in sorted(self.models)
            for c in sorted(self.places)
        }

    def pools(self, cluster: str, day_fraction: float) -> tuple[PoolNow, ...]:
        """The cluster's pools with the devices and prices of the moment, sorted by key."""
        spec = self.clusters[cluster].spec
        events = self.story(day_fraction)
        spot_gone = any(isinstance(event, SpotGone) and event.provider == spec.provider for event in events)
        factor = 1.0
        for event in events:
            if isinstance(event, PriceRise) and cluster in event.clusters:
                factor *= event.factor
        pools = (
            PoolNow(
                key=pool.key,
                vram_gib=pool.vram_gib,
                devices=0 if spot_gone and pool.market == "spot" else pool.devices,
                usd_per_device_hour=round(pool.usd_per_device_hour * factor, 6),
            )
            for pool in spec.accelerators
        )
        return tuple(sorted(pools, key=lambda pool: pool.key))

    def world_pools(self, day_fraction: float) -> dict[ClusterPool, PoolNow]:
        """(cluster, pool) -> the pool of the moment, of the clusters that are alive and the pools that have devices."""
        return {
            ClusterPool(name, pool.key): pool
            for name in sorted(self.clusters)
            if self.is_alive(name, day_fraction)
            for pool in self.pools(name, day_fraction)
            if pool.devices > 0
        }

    @cached_property
    def shapes(self) -> Mapping[PlacementKey, Shape]:
        """(model, cluster, pool) -> how the model runs there, by requests per second and device; where it fits."""
        found: dict[PlacementKey, Shape] = {}
        for name in sorted(self.clusters):
            for pool in self.pools(name, 0.0):
                for model, document in sorted(self.models.items()):
                    one = document.spec.accelerator_for(pool.key)
                    if one is not None and pool.vram_gib >= one.min_vram_gib:
                        shape = Shape(devices=one.count, requests_per_second=one.requests_per_second)
                        found[PlacementKey(model, name, pool.key)] = shape
        return found

    # ---- the front door

    def front_door(self, cell: str, day_fraction: float) -> str:
        """The nearest cluster that is alive: the one whose agent counts the cell's requests."""
        alive = (name for name in self.nearest[cell] if self.is_alive(name, day_fraction))
        return next(alive, self.nearest[cell][0])

    def pool_reports(self, cluster: str, day_fraction: float) -> tuple[messages.PoolReport, ...]:
        """The pools that the agent of an empty cluster would report."""
        return tuple(
            messages.PoolReport(
                key=pool.key,
                vram_gib=pool.vram_gib,
                allocatable=pool.devices,
                free=pool.devices,
                usd_per_device_hour=pool.usd_per_device_hour,
            )
            for pool in self.pools(cluster, day_fraction)
        )

    def user_cell(self, cell: str) -> UserCell:
        """The cell as agents report it."""
        place = self.places[cell]
        return UserCell(name=place.name, country=place.country, lat=place.lat, lon=place.lon)

    @cached_property
    def nearest(self) -> Mapping[str, tuple[str, ...]]:
        """cell -> all clusters, nearest by true round trip first."""
        names = sorted(self.clusters)
        return {
            cell: tuple(sorted(names, key=lambda name, cell=cell: (self._user_rtt_ms[cell, name], name)))  # type: ignore[misc]
            for cell in self.places
        }

    # ---- tables

    @cached_property
    def _site_points(self) -> Mapping[str, _Point]:
        return {n: self._point(c.spec.location.lat, c.spec.location.lon) for n, c in sorted(self.clusters.items())}

    @cached_property
    def _site_rtt_ms(self) -> Mapping[tuple[str, str], float]:
        points, base_ms = self._site_points, self.catalogue.day.network.base_rtt_ms
        return {
            (a, b): 0.0 if a == b else self._path_ms(points[min(a, b)], points[max(a, b)], base_ms)
            for a in points
            for b in points
        }

    @cached_property
    def _user_rtt_ms(self) -> Mapping[tuple[str, str], float]:
        network = self.catalogue.day.network
        table: dict[tuple[str, str], float] = {}
        for cell, place in self.places.items():
            users = self._point(place.lat, place.lon)
            for name, site in self._site_points.items():
                is_edge = self.clusters[name].spec.tier == "edge"
                base_ms = network.edge_base_rtt_ms if is_edge else network.base_rtt_ms
                if users.anchor and site.anchor and not (is_edge and users.anchor == site.anchor):
                    table[cell, name] = self._path_ms(users, site, base_ms) + network.user_access_ms
                else:
                    table[cell, name] = self._by_distance_ms(users, site, base_ms)
        return table

    def _point(self, lat: float, lon: float) -> _Point:
        far_km = {name: great_circle_km(lat, lon, at.lat, at.lon) for name, at in self.catalogue.rtt.sites.items()}
        anchor = min(far_km, key=lambda name: (far_km[name], name))
        return _Point(lat, lon, anchor if far_km[anchor] <= self.catalogue.day.network.anchor_km else None)

    def _path_ms(self, a: _Point, b: _Point, base_ms: float) -> float:
        if a.anchor and b.anchor:
            return self._measured[a.anchor, b.anchor]
        return self._by_distance_ms(a, b, base_ms)

    def _by_distance_ms(self, a: _Point, b: _Point, base_ms: float) -> float:
        return base_ms + self.catalogue.day.network.rtt_ms_per_km * great_circle_km(a.lat, a.lon, b.lat, b.lon)


def _both_ways(catalogue: Catalogue) -> dict[tuple[str, str], float]:
    names = list(catalogue.rtt.rtt_ms)
    table: dict[tuple[str, str], float] = {}
    for name, row in catalogue.rtt.rtt_ms.items():
        for other, value_ms in zip(names, row, strict=False):
            table[name, other] = table[other, name] = value_ms
    return table


def _at(hourly: tuple[float, ...], hour: float) -> float:
    """The shape at an hour, straight between the middles of its hours."""
    before = int(hour - 0.5) if hour >= 0.5 else 23
    weight = (hour - 0.5 - before) % 24.0
    return hourly[before] * (1.0 - weight) + hourly[(before + 1) % 24] * weight
