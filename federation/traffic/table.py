"""What each gateway does with its users' requests: one table per cluster with a gateway. Pure.

A gateway has its own shares: those of the cells whose front door it is. A request that names one of these cells follows
the cell's shares. A request without a cell is shared out like all the gateway's users together, among the clusters that
may serve every one of them. A request that names another front door's cell, or an unknown one, goes to clusters that
every residency rule admits (residency fails closed). Where policy caps other continents, a gateway sends nothing there
beyond the plan's shares. Where nobody may leave the continent, it also knows the cells of the other front doors on its
continent, and refuses requests of unknown origin.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from federation.control.neighbours import neighbours
from federation.control.plan import Route, Routes
from federation.policy.documents import Gateway, Model, PlacementPolicySpec, Traffic
from federation.state import capacity as learning
from federation.state.keys import ModelCell, ModelCluster
from federation.state.phases import Phase
from federation.state.world import World, countries

OTHER_CELLS = "*"
"""The group of requests that name a cell of another front door, or an unknown cell."""
Address = tuple[str, int]
"""IP address and port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Requests that are shared out alike: those of one cell, those that name none (an empty `cell`), or `OTHER_CELLS`.

    `shares` sum to 1 over the serving clusters; `unserved` is the fraction of all requests without room. `overflow`
    names the nearest clusters to use when those fail, with their capacity in requests per second.
    """

    cell: str
    shares: Mapping[str, float]
    overflow: Mapping[str, float]
    unserved: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTable:
    """One model at one gateway. `local` are replicas in the gateway's own cluster; rates are requests per second.

    `spill_rps` is the load that the cluster accepts from other gateways: the planned one, and the policy's percentage
    of its own capacity.
    """

    model: str
    traffic: Traffic
    health_path: str
    groups: tuple[Group, ...]
    local: tuple[Address, ...]
    spill_rps: float
    declared: tuple[str, ...] = ()
    """Cells of the cluster's document without a group: whoever names one is counted so, and served like others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayTable:
    """The configuration of one cluster's gateways."""

    cluster: str
    region: str
    zone: str
    models: tuple[ModelTable, ...]
    gateways: Mapping[str, Gateway]
    regions: Mapping[str, str] = field(default_factory=dict)


HEALTH_PATHS: Mapping[str, str] = {
    "vllm": "/health",
    "triton": "/v2/health/ready",
    "torchserve": "/ping",
    "nemo": "/v1/health/ready",
}
"""The path at which each runtime reports readiness; a runtime without one is probed by opening its port."""
LEAST_SHARE = 1e-4
MOST_HELPERS = 32
"""The most clusters that a gateway knows beside the planned ones: the nearest of those that could help."""


def tables(
    world: World,
    routes: Routes,
    endpoints: Mapping[ModelCluster, tuple[Address, ...]],
    before: Tables | None = None,
) -> Tables:
    """The table of every cluster with a gateway, and in sentences what no table could hold.

    An unchanged table is the same object as `before`. The cost grows with the number of gateways plus that of routes,
    not with their product.

    Args: endpoints: (model, cluster) -> replicas there by address, see `remembered_endpoints`.
    """
    return _Builder(world, routes, endpoints).build(before or Tables(by_cluster={}, missing=()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """All tables by cluster; `missing` names clusters with shares that no gateway can send to."""

    by_cluster: Mapping[str, GatewayTable]
    missing: tuple[str, ...]

    def is_as(self, other: Tables) -> bool:
        """Whether all tables equal the others'."""
        one, two = self.by_cluster, other.by_cluster
        return self.missing == other.missing and len(one) == len(two) and all(one[k] is two.get(k) for k in one)


def remembered_endpoints(
    world: World, known: Mapping[ModelCluster, tuple[Address, ...]]
) -> dict[ModelCluster, tuple[Address, ...]]:
    """(model, cluster) -> addresses by the newest report; where a report omits the addresses of ready replicas, the
    known ones.

    Missing data never removes an endpoint: a silent cluster keeps its own.
    """
    found = dict(known)
    models: dict[str, list[str]] = defaultdict(list)
    for model, cluster in known:
        models[cluster].append(model)
    for cluster, state in sorted(world.clusters.items()):
        report = state.report
        if report is None or not (report.endpoints or cluster in models):
            continue
        told: dict[str, list[Address]] = defaultdict(list)
        for one in sorted(report.endpoints):
            told[one.model].append((one.address, one.port))
        ready = {replica.model for replica in report.replicas if replica.ready}
        for model in {*told, *models.get(cluster, ())}:
            if told.get(model) or model not in ready:
                found[ModelCluster(model, cluster)] = tuple(told.get(model, ()))
    return {key: addresses for key, addresses in found.items() if addresses and key.cluster in world.clusters}


class _Builder:
    """One computation of all tables. Values that several gateways share are computed once."""

    def __init__(self, world: World, routes: Routes, endpoints: Mapping[ModelCluster, tuple[Address, ...]]) -> None:
        self.world = world
        self.endpoints = endpoints
        self.clusters = world.catalogue_by_name()
        self.gateways = {
            name: document.spec.gateway for name, document in self.clusters.items() if document.spec.gateway is not None
        }
        self.regions = {name: document.spec.region for name, document in sorted(self.clusters.items())}
        self.takes = {name for name in self.clusters if takes(world, name)}
        self.capacity = capacity_rps(world)
        self.routes: dict[str, list[Route]] = defaultdict(list)
        self.by_door: dict[str, dict[str, list[Route]]] = defaultdict(lambda: defaultdict(list))
        """Model -> front door -> routes of its users."""
        self.sent_rps: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        """Model -> cluster -> requests per second that the plan sends there from other front doors."""
        for route in routes.routes:
            demand = world.demand.get(route.key)
            door, rps = (demand.reporter, demand.requests_per_second) if demand is not None else ("", 0.0)
            self.routes[route.model].append(route)
            self.by_door[route.model][door].append(route)
            sent_rps = self.sent_rps[route.model]
            for share in route.now:
                if share.cluster != door:
                    sent_rps[share.cluster] += share.share * rps
        self.missing: set[str] = set()
        self._allowed_by: dict[tuple[int, frozenset[str | None]], frozenset[str]] = {}
        self._helpers_by: dict[tuple[int, frozenset[str | None]], frozenset[str]] = {}
        self._able_by: dict[tuple[str, int], frozenset[str]] = {}
        self._near: dict[tuple[str, str, int], tuple[str, ...]] = {}
        self._places: dict[str, tuple[list[Route], NDArray[np.float64]]] = {}
        self._by_continent: dict[tuple[str, str], list[Route]] = {}
        self._parts: dict[int, tuple[Mapping[str, float], dict[str, float]]] = {}
        self._ready_by: dict[tuple[str, int], Mapping[str, float]] = {}
        self._kept: list[frozenset[str]] = []
        """Keeps the sets alive, so that no identity is reused."""

    def build(self, before: Tables) -> Tables:
        """All of them."""
        models = [
            (document, policy.spec)
            for document in self.world.documents.models
            if (policy := self.world.documents.policy_of(document.metadata.name)) is not None
        ]
        others = {
            document.metadata.name: self._others(document.metadata.name, spec)
            for document, spec in models
            if spec.residency or keeps_home(spec)
        }
        earlier = next(iter(before.by_cluster.values()), None)
        gateways: Mapping[str, Gateway] = self.gateways
        regions: Mapping[str, str] = self.regions
        if earlier is not None:
            gateways = earlier.gateways if earlier.gateways == gateways else gateways
            regions = earlier.regions if earlier.regions == regions else regions
        made = {}
        for name in sorted(self.gateways):
            spec, known = self.clusters[name].spec, before.by_cluster.get(name)
            was = {one.model: one for one in known.models} if known is not None else {}
            following = tuple(
                _as_it_was(was.get(document.metadata.name), self._model(name, document, policy, others))
                for document, policy in models
            )
            table = GatewayTable(
                cluster=name,
                region=spec.region,
                zone=spec.zone or "",
                models=following,
                gateways=gateways,
                regions=regions,
            )
            is_same = (
                known is not None
                and (known.region, known.zone) == (table.region, table.zone)
                and known.gateways is gateways
                and known.regions is regions
                and len(known.models) == len(following)
                and all(map(_is, known.models, following))
            )
            made[name] = known if is_same and known is not None else table
        return Tables(by_cluster=made, missing=tuple(sorted(self.missing)))

    def _model(
        self, gateway: str, document: Model, policy: PlacementPolicySpec, others: Mapping[str, Mapping[str, float]]
    ) -> ModelTable:
        model, spec = document.metadata.name, document.spec
        own = self._own_cells(gateway, model)
        told = [*own, *self._neighbours(gateway, model, own)] if keeps_home(policy) else own
        groups = [self._group(gateway, route, policy) for route in told]
        if model in others:
            helpers = self._helpers(policy, ())
            groups.append(self._shared(gateway, model, OTHER_CELLS, others[model], helpers, is_everyones=True))
        return ModelTable(
            model=model,
            traffic=policy.traffic,
            health_path=HEALTH_PATHS.get(spec.runtime.preset, ""),
            groups=(self._everyone(gateway, model, own, policy), *groups),
            local=self.endpoints.get(ModelCluster(model, gateway), ()),
            spill_rps=self._spill_rps(gateway, model, policy),
            declared=self._declared(gateway, {group.cell for group in groups}),
        )

    def _declared(self, gateway: str, known: Collection[str]) -> tuple[str, ...]:
        return tuple(sorted({one.name for one in self.clusters[gateway].spec.cells}.difference(known)))

    def _own_cells(self, gateway: str, model: str) -> list[Route]:
        """Routes of the cells whose front door this is; without any, those of the nearest cell."""
        own = self.by_door[model].get(gateway)
        if own:
            return own
        if model not in self._places:
            placed = sorted((one for one in self.routes[model] if one.cell in self.world.cells), key=_by_cell)
            at = [(cell.lat, cell.lon) for cell in (self.world.cells[one.cell] for one in placed)]
            self._places[model] = placed, on_the_sphere(at)
        placed, points = self._places[model]
        if not placed:
            return []
        here = self.clusters[gateway].spec.location
        return [placed[int(np.argmax(points @ on_the_sphere([(here.lat, here.lon)])[0]))]]

    def _neighbours(self, gateway: str, model: str, own: Iterable[Route]) -> list[Route]:
        """Routes of the other cells on the gateway's continent."""
        home = self.world.continent_of(self.clusters[gateway].spec.location.country)
        if not home:
            return []
        if (model, home) not in self._by_continent:
            self._by_continent[model, home] = [
                route
                for route in self.routes[model]
                if (cell := self.world.cells.get(route.cell)) is not None
                and self.world.continent_of(cell.country) == home
            ]
        cells = {route.cell for route in own}
        return [route for route in self._by_continent[model, home] if route.cell not in cells]

    def _group(self, gateway: str, route: Route, policy: PlacementPolicySpec) -> Group:
        allowed = self._allowed(policy, [route.cell])
        planned = {share.cluster: share.share for share in route.now if share.cluster in allowed}
        helpers = self._helpers(policy, [route.cell])
        return self._shared(gateway, route.model, route.cell, planned, helpers, _unserved(route))

    def _others(self, model: str, policy: PlacementPolicySpec) -> Mapping[str, float]:
        """The clusters for requests that name a cell unknown to the gateway: their users may be anybody."""
        return anywhere(self.world, model, policy, self.routes[model], self.capacity)

    def _everyone(self, gateway: str, model: str, own: list[Route], policy: PlacementPolicySpec) -> Group:
        """All of the gateway's users together."""
        cells = [route.cell for route in own]
        allowed, helpers = self._allowed(policy, cells), self._helpers(policy, cells)
        planned: dict[str, float] = defaultdict(float)
        if not own:  # nobody has asked for it yet: here if it can be, else wherever it is ready
            if gateway in allowed and self.capacity.get(ModelCluster(model, gateway), 0.0) > 0:
                return self._shared(gateway, model, "", {gateway: 1.0}, helpers)
            return self._shared(gateway, model, "", self._ready(model, allowed), helpers, is_everyones=True)
        weights = {route.cell: self._rps(model, route.cell) for route in own}
        whole = sum(weights.values()) or float(len(own) or 1)
        unserved = 0.0
        for route in own:
            part = (weights[route.cell] or (1.0 if not sum(weights.values()) else 0.0)) / whole
            unserved += part * _unserved(route)
            for share in route.now:
                if share.cluster in allowed:
                    planned[share.cluster] += part * share.share
        return self._shared(gateway, model, "", planned, helpers, unserved)

    def _ready(self, model: str, allowed: frozenset[str]) -> Mapping[str, float]:
        """Cluster -> requests per second of its ready replicas, among the allowed clusters."""
        key = (model, id(allowed))
        if key not in self._ready_by:
            found = {c: rps for (name, c), rps in self.capacity.items() if name == model and rps > 0 and c in allowed}
            self._ready_by[key] = found
            self._kept.append(allowed)
        return self._ready_by[key]

    def _shared(
        self,
        gateway: str,
        model: str,
        cell: str,
        planned: Mapping[str, float],
        helpers: frozenset[str],
        unserved: float = 0.0,
        *,
        is_everyones: bool = False,
    ) -> Group:
        """Shares among the clusters that this gateway can reach, and the helpers.

        Args: is_everyones: `planned` is the same object for all gateways.
        """
        is_as_others = is_everyones and (gateway not in planned or self._reachable(gateway, gateway, model))
        if is_as_others and id(planned) in self._parts:
            shares = self._parts[id(planned)][1]
        else:
            reachable = {c: share for c, share in sorted(planned.items()) if self._reachable(gateway, c, model)}
            for cluster in planned.keys() - reachable.keys():
                self.missing.add(self._why_missing(gateway, cluster, model))
            shares = _parts(reachable)
            if is_as_others:
                self._parts[id(planned)] = planned, shares
        near = self._nearest(gateway, model, helpers, shares)
        unserved = round(unserved, 4) if planned and unserved > LEAST_SHARE else 0.0
        overflow = {c: self.capacity[ModelCluster(model, c)] for c in sorted(near)}
        return Group(cell=cell, shares=shares, overflow=overflow, unserved=unserved)

    def _nearest(self, gateway: str, model: str, helpers: frozenset[str], but: Collection[str]) -> Collection[str]:
        """The helpers with capacity that are nearest to the gateway, at most `MOST_HELPERS`."""
        key = (model, id(helpers))
        able = self._able_by.get(key)
        if able is None:
            ready = (
                c
                for c in helpers & self.takes
                if c in self.gateways and self.capacity.get(ModelCluster(model, c), 0.0) > 0
            )
            able = self._able_by[key] = frozenset(ready)
            self._kept.append(helpers)
        is_here = gateway in able and bool(self.endpoints.get(ModelCluster(model, gateway)))
        if len(able) <= MOST_HELPERS:
            return {c for c in able if c not in but and (c != gateway or is_here)}
        near = self._near.get((gateway, *key))
        if near is None:
            catalogue = neighbours(self.world.documents.clusters)
            found = catalogue.nearest(gateway, MOST_HELPERS, able.__contains__, able)
            near = self._near[gateway, *key] = (gateway, *found) if is_here else tuple(found)
        return [c for c in near if c not in but]

    def _reachable(self, gateway: str, cluster: str, model: str) -> bool:
        return (
            bool(self.endpoints.get(ModelCluster(model, cluster))) if cluster == gateway else cluster in self.gateways
        )

    def _why_missing(self, gateway: str, cluster: str, model: str) -> str:
        if cluster == gateway:
            return f"the gateway of {gateway} knows no replica of {model} there: its agent reports no endpoints"
        return f"{cluster} has a share of {model} and no gateway: give its Cluster document spec.gateway"

    def _allowed(self, policy: PlacementPolicySpec, cells: Iterable[str]) -> frozenset[str]:
        """Clusters that may serve the users of every one of these cells."""
        concerned = self._countries(cells)
        key = (id(policy), concerned)
        if key not in self._allowed_by:
            found = (allowed_clusters(self.world, policy, country) for country in concerned)
            self._allowed_by[key] = frozenset.intersection(*found)
        return self._allowed_by[key]

    def _helpers(self, policy: PlacementPolicySpec, cells: Iterable[str]) -> frozenset[str]:
        """The allowed clusters that may receive unplanned requests: where continents are capped, none on another
        one."""
        concerned = self._countries(cells)
        key = (id(policy), concerned)
        if key not in self._helpers_by:
            allowed = self._allowed(policy, cells)
            if policy.failover.max_other_continents_percent < 100.0:
                allowed = allowed.intersection(*(on_continent_of(self.world, country) for country in concerned))
            self._helpers_by[key] = allowed
        return self._helpers_by[key]

    def _countries(self, cells: Iterable[str]) -> frozenset[str | None]:
        """The countries of these cells; None for an unknown one, or without cells."""
        found = [self.world.cells.get(cell) for cell in cells]
        return frozenset(cell.country if cell is not None else None for cell in found) or frozenset((None,))

    def _rps(self, model: str, cell: str) -> float:
        demand = self.world.demand.get(ModelCell((model, cell)))
        return demand.requests_per_second if demand is not None else 0.0

    def _spill_rps(self, cluster: str, model: str, policy: PlacementPolicySpec) -> float:
        spill_rps = policy.traffic.spill_percent / 100 * self.capacity.get(ModelCluster(model, cluster), 0.0)
        return self.sent_rps[model].get(cluster, 0.0) + spill_rps


def _as_it_was(known: ModelTable | None, made: ModelTable) -> ModelTable:
    return known if known is not None and known == made else made


def _is(one: object, other: object) -> bool:
    return one is other


def _by_cell(route: Route) -> str:
    return route.cell


def _parts(planned: Mapping[str, float]) -> dict[str, float]:
    """The fractions of a whole of 1, without those too small to be configured."""
    whole = sum(planned.values())
    return {c: share / whole for c, share in planned.items() if share / whole > LEAST_SHARE} if whole else {}


def on_the_sphere(places: Sequence[tuple[float, float]]) -> NDArray[np.float64]:
    """[places, 3]: unit vectors of places in degrees; the nearest has the largest scalar product."""
    lat, lon = np.radians(np.array(places, dtype=np.float64).reshape(-1, 2)).T
    return np.column_stack((np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)))


def _unserved(route: Route) -> float:
    """The fraction of a cell's requests that the plan has no room for; a ban by residency does not count."""
    return max(0.0, 1.0 - sum(share.share for share in route.now)) if route.now else 0.0


def takes(world: World, cluster: str) -> bool:
    """Whether a cluster may receive unplanned requests."""
    return world.phase_for_routing(cluster) is Phase.READY and cluster not in world.cordons


def keeps_home(policy: PlacementPolicySpec) -> bool:
    """Whether no users may be served on another continent than theirs."""
    return policy.failover.max_other_continents_percent <= 0.0


def on_continent_of(world: World, country: str | None) -> frozenset[str]:
    """Clusters on the continent of users of `country`; none where it is unknown."""
    continent = world.continent_of(country)
    if not continent:
        return frozenset()
    found = world.documents.clusters
    return frozenset(one.metadata.name for one in found if world.continent_of(one.spec.location.country) == continent)


def allowed_clusters(world: World, policy: PlacementPolicySpec, country: str | None) -> frozenset[str]:
    """Clusters that may serve users of `country`: by residency, and on their continent where nobody may leave it.

    For an unknown country (None), the clusters that every rule admits.
    """
    allowed = resident_clusters(world, policy, country)
    return allowed & on_continent_of(world, country) if keeps_home(policy) else allowed


def resident_clusters(world: World, policy: PlacementPolicySpec, country: str | None) -> frozenset[str]:
    """Clusters that residency lets serve users of `country`. For an unknown country (None), those that every rule
    admits; for a tie of countries, those that the rules of each admit."""
    allowed = {document.metadata.name: set(document.spec.jurisdictions) for document in world.documents.clusters}
    concerned = set(countries(country or ""))
    for rule in policy.residency:
        if rule.users_in is None or country is None or not concerned.isdisjoint(rule.users_in.countries):
            wanted = set(rule.clusters_in.jurisdictions)
            allowed = {name: has for name, has in allowed.items() if has & wanted}
    return frozenset(allowed)


def anywhere(
    world: World,
    model: str,
    policy: PlacementPolicySpec,
    routes: Iterable[Route],
    capacity: Mapping[ModelCluster, float],
) -> dict[str, float]:
    """Cluster -> requests per second, for users about whom nothing is known: only clusters that every rule admits.

    The total of the plan's routes; where the plan sends nobody, the capacity of ready replicas.

    Args: routes: the model's. capacity: see `capacity_rps`.
    """
    free = allowed_clusters(world, policy, None)
    planned: dict[str, float] = defaultdict(float)
    for route in routes:
        demand = world.demand.get(route.key)
        rps = demand.requests_per_second if demand is not None else 1.0
        for share in route.now:
            if share.cluster in free:
                planned[share.cluster] += share.share * rps
    if any(planned.values()):
        return dict(planned)
    return {c: rps for (name, c), rps in capacity.items() if name == model and c in free and world.is_routable(c)}


def capacity_rps(world: World) -> dict[ModelCluster, float]:
    """(model, cluster) -> requests per second that its ready replicas sustain, as plans count them."""
    found: dict[ModelCluster, float] = defaultdict(float)
    models = {document.metadata.name: document.spec for document in world.documents.models}
    for (model, cluster, pool), ready in world.ready_replicas().items():
        spec = models.get(model)
        shape = spec.accelerator_for(pool) if spec is not None else None
        if shape is not None:
            found[ModelCluster(model, cluster)] += (
                ready * shape.requests_per_second * learning.factor(world, model, shape)
            )
    return dict(found)
