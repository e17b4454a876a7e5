"""From beliefs and plan to views. Pure: equal beliefs give equal views.

Unknown values are null, never zero, and an unknown state is never ok.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import placement as engine
from federation.api import views
from federation.control import isochrones, latency, setbacks
from federation.control.foresight import HORIZONS, Foresight
from federation.control.nearness import Nearest, near
from federation.control.plan import Near, Placement, Plan, Route, Routes, Share
from federation.latency.geodesic import distance_km
from federation.latency.sphere import between_km, on_the_sphere
from federation.policy import documents
from federation.state.capacity import learnt_of, running_shape
from federation.state.keys import CellCluster, ClusterPool, ModelCell, PlacementKey
from federation.state.phases import Phase
from federation.state.pricing import place, pool_price, pool_risk, pools_of, seen_by_region
from federation.state.sources import near as cell_near
from federation.state.world import ClusterState, World
from federation.traffic.status import GatewayStatus
from federation.wire import messages
from federation.wire.conditions import condition
from federation.wire.messages import PoolKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One instant to render. `now_s` is monotonic, `at_s` Unix seconds, both of the controller's clock."""

    world: World
    plan: Plan
    routes: Routes
    epoch: int
    now_s: float
    at_s: float
    speed: float
    message: str
    gateways: Mapping[str, GatewayStatus] = field(default_factory=dict)
    nearest_ms: Nearest | None = None
    """Of the newest plan; None before the first."""
    foresight: Foresight = field(default_factory=Foresight)


def overview(scene: Scene) -> views.OverviewView:
    """The whole world."""
    drawn = _Drawing(scene)
    cells = drawn.cells()
    models = drawn.models(cells)
    served = sum(model.served_rps for model in models)
    late = sum(model.late_rps for model in models)
    demand = sum(model.demand_rps for model in models)
    return views.OverviewView(
        at_s=scene.at_s,
        speed=scene.speed,
        epoch=scene.epoch,
        generation=scene.plan.generation,
        usd_per_hour=sum(model.usd_per_hour for model in models),
        demand_rps=demand,
        unserved_rps=sum(model.unserved_rps for model in models),
        within_objective_share=(served - late) / demand if demand > 0 else None,
        near=drawn.near(one for cell in cells for one in cell.demand),
        brake=scene.world.braked,
        message=scene.message,
        clusters=drawn.clusters(),
        models=models,
        cells=cells,
    )


def serving(scene: Scene, model: str) -> frozenset[str]:
    """Clusters that report and have ready replicas of a model."""
    world = scene.world
    return frozenset(
        cluster
        for name, cluster, _ in world.ready_replicas()
        if name == model and cluster in world.clusters and world.clusters[cluster].phase is Phase.READY
    )


def isochrones_view(scene: Scene, model: str) -> views.IsochronesView | None:
    """How near a model's ready replicas are everywhere; None where there is no such model."""
    document = next((one for one in scene.world.documents.models if one.metadata.name == model), None)
    if document is None:
        return None
    service_ms = document.spec.service_latency_ms
    squares = isochrones.isochrones(scene.world, sorted(serving(scene, model)))
    clusters = tuple(sorted({one.cluster for one in squares}))
    numbers = {name: number for number, name in enumerate(clusters)}
    return views.IsochronesView(
        model=model,
        epoch=scene.epoch,
        generation=scene.plan.generation,
        objective_ms=document.spec.slo.p95_latency_ms,
        service_ms=service_ms,
        west_deg=isochrones.WEST_DEG,
        north_deg=isochrones.NORTH_DEG,
        step_deg=isochrones.STEP_DEG,
        columns=isochrones.COLUMNS,
        rows=isochrones.ROWS,
        clusters=clusters,
        latency_ms=tuple(round(one.rtt_ms + service_ms) for one in squares),
        cluster=tuple(numbers[one.cluster] for one in squares),
        basis="".join(one.basis[0] for one in squares),
    )


def place_view(scene: Scene, model: str, lat: float, lon: float) -> views.PlaceView | None:
    """What a user at a place would have of a model's ready replicas; None where there is no such model."""
    document = next((one for one in scene.world.documents.models if one.metadata.name == model), None)
    if document is None:
        return None
    service_ms, objective_ms = document.spec.service_latency_ms, document.spec.slo.p95_latency_ms
    return views.PlaceView(
        model=model,
        lat=lat,
        lon=lon,
        objective_ms=objective_ms,
        service_ms=service_ms,
        clusters=tuple(
            views.ReadyView(
                cluster=one.cluster,
                latency_ms=round(one.rtt_ms + service_ms, 1),
                latency_source=one.source,
                latency_basis=one.basis,
                latency_age_s=None if one.measured_s is None else round(max(0.0, scene.now_s - one.measured_s), 1),
                latency_confidence=one.confidence,
                rtt_ms_p95=one.rtt_ms_p95,
                within_objective=one.rtt_ms + service_ms <= objective_ms,
            )
            for one in isochrones.at_place(scene.world, sorted(serving(scene, model)), lat, lon)
        ),
    )


def placements(scene: Scene) -> tuple[views.PlacementView, ...]:
    """Every desired replica count, with its cost and its reason."""
    return _Drawing(scene).placements()


def route_table(scene: Scene) -> views.RouteTable:
    """The shares in force."""
    return views.RouteTable(
        version=scene.routes.version,
        epoch=scene.epoch,
        generation=scene.plan.generation,
        items=_Drawing(scene).route_rows(),
    )


def nearest_route(scene: Scene, model: str, lat: float, lon: float) -> views.NearestRoute | None:
    """The shares of the nearest cell that has routes for `model`, or None."""
    rows = sorted((row for row in _Drawing(scene).route_rows() if row.model == model), key=lambda row: row.cell)
    if not rows:
        return None
    km = between_km(on_the_sphere([(lat, lon)]), on_the_sphere([(row.lat, row.lon) for row in rows]))
    row = rows[int(km.argmin())]
    return views.NearestRoute(
        model=model,
        lat=lat,
        lon=lon,
        cell=row.cell,
        cell_distance_km=round(distance_km(lat, lon, row.lat, row.lon), 1),
        routes=row.routes,
    )


def gateways(scene: Scene) -> tuple[views.GatewayView, ...]:
    """Every gateway that was ever connected to this controller, by name."""
    return tuple(
        views.GatewayView(
            name=one.node,
            cluster=one.cluster,
            state="connected" if one.connected else "gone",
            age_s=scene.now_s - one.since_s,
            accepted=dict(one.accepted),
            refused=dict(one.refused),
        )
        for _, one in sorted(scene.gateways.items())
    )


def demand(scene: Scene) -> tuple[views.DemandView, ...]:
    """Every cell that is counted, by model."""
    clusters, foresight = scene.world.clusters, scene.foresight
    regions = {one.metadata.name: one.spec.region for one in scene.world.documents.clusters}
    found = []
    for (model, cell), one in sorted(scene.world.demand.items()):
        series = (model, regions.get(one.reporter, one.reporter))
        expected, below = foresight.expected.get(series, {}), foresight.below.get(series, {})
        doors = [clusters[name] for name, _ in one.counts]
        found.append(
            views.DemandView(
                model=model,
                cell=cell,
                rps=one.requests_per_second,
                sources=tuple(f"{door.name} ({door.sources.get(model, 'file')})" for door in doors),
                age_s=max(0.0, scene.now_s - min(door.counted_s for door in doors)),
                is_decaying=any(door.count_weight < 1.0 for door in doors),
                is_spread=any(cell == cell_near(door.name) for door in doors),
                forecast=tuple(
                    views.ForecastView(
                        minutes=minutes,
                        rps=expected[minutes] * one.requests_per_second,
                        rps_below=below[minutes] * one.requests_per_second,
                    )
                    for minutes in HORIZONS
                    if minutes in expected
                ),
            )
        )
    return tuple(found)


def engines(scene: Scene) -> tuple[views.EngineView, ...]:
    """The load of replicas whose engines say it, and what one replica is counted on for."""
    world = scene.world
    found = []
    for name, state in sorted(world.clusters.items()):
        for one in state.report.engines if state.report is not None else ():
            running = running_shape(world, state.report, one.model) if state.report is not None else None
            declared = running.declared_rps if running is not None else None
            found.append(
                views.EngineView(
                    model=one.model,
                    cluster=name,
                    replicas=one.replicas,
                    requests_per_second=one.requests_per_second,
                    input_tokens_per_second=one.input_tokens_per_second,
                    output_tokens_per_second=one.output_tokens_per_second,
                    running=one.running,
                    waiting=one.waiting,
                    kv_cache_used=one.kv_cache_used,
                    declared_rps=declared,
                    learnt_rps=running.declared_rps * learnt_of(world, running).factor if running is not None else None,
                    age_s=max(0.0, scene.now_s - (state.heard_s or scene.now_s)),
                )
            )
    return tuple(found)


def prices(scene: Scene) -> tuple[views.PriceView, ...]:
    """Every pool that is reported or in the catalogue, by cluster."""
    world = scene.world
    found, seen = [], seen_by_region(world)
    for document in sorted(world.documents.clusters, key=lambda one: one.metadata.name):
        name = document.metadata.name
        for pool, declared in pools_of(world, document):
            priced = pool_price(world, document, pool, declared)
            offer = world.prices.quote(place(document, pool), pool.key)
            risk = pool_risk(world, document, pool.key, declared, seen)
            counts = world.spot.get(ClusterPool(name, pool.key))
            found.append(
                views.PriceView(
                    cluster=name,
                    pool=pool.key.text,
                    usd_per_device_hour=priced.usd_per_device_hour if priced is not None else None,
                    source=priced.source if priced is not None else "",
                    age_s=max(0.0, scene.at_s - priced.read_s) if priced is not None and priced.read_s else None,
                    catalogue_usd=declared.usd_per_device_hour if declared is not None else None,
                    offer=offer.offer.text if offer is not None else "",
                    doubt=priced.doubt if priced is not None else "",
                    losses_per_hour=risk.losses_per_hour,
                    replacement_chance=risk.replacement_chance,
                    seen_hours=counts.hours if counts is not None else 0.0,
                )
            )
    return tuple(found)


def latencies(scene: Scene, cell: str | None, cluster: str | None) -> tuple[views.LatencyView, ...] | None:
    """The round trips of a cell, of a cluster, or of both, the nearest first; None where one is unknown."""
    world = scene.world
    names = [document.metadata.name for document in world.documents.clusters]
    cells = sorted(world.cells) if cell is None else [cell]
    if (cell is not None and cell not in world.cells) or (cluster is not None and cluster not in names):
        return None
    pairs = [CellCluster(one, other) for one in cells for other in (names if cluster is None else [cluster])]
    found = latency.between(world, pairs).values()
    return tuple(
        views.LatencyView(
            cell=one.cell,
            cluster=one.cluster,
            rtt_ms_p50=one.rtt_ms,
            rtt_ms_p95=one.rtt_ms_p95,
            basis=one.basis,
            source=one.source,
            confidence=one.confidence,
            age_s=None if one.measured_s is None else round(max(0.0, scene.now_s - one.measured_s), 1),
        )
        for one in sorted(found, key=lambda one: (one.rtt_ms, one.cell, one.cluster))
    )


def plan_view(plan: Plan) -> views.PlanView:
    """One committed plan."""
    placement, costs = plan.placement, plan.placement.cost
    return views.PlanView(
        epoch=plan.epoch,
        generation=plan.generation,
        at_s=plan.at_s,
        trigger=plan.trigger,
        summary=plan.summary,
        cost=views.CostView(
            accelerators=costs.accelerators,
            egress=costs.egress,
            late=costs.late,
            unserved=costs.unserved,
            moves=costs.moves,
            proximity=costs.proximity,
            risk=costs.risk,
            total=costs.total,
        ),
        near=near_view(placement.near),
        near_by_model={name: _shown(one) for name, one in sorted(placement.near_by_model.items())},
        bound_usd_per_hour=placement.bound_usd_per_hour,
        gap=placement.gap,
        bound_is_loose=placement.bound_is_loose,
        moves=plan.moves,
        changes=tuple(
            views.MoveView(
                model=change.model,
                cluster=change.cluster,
                pool=change.pool.text,
                before=change.before,
                after=change.after,
                reason=change.reason,
            )
            for change in plan.changes
        ),
        limits=tuple(one.says for one in placement.reached),
        reached=tuple(
            views.LimitView(limit=one.limit, subject=one.subject, reason=one.says) for one in placement.reached
        ),
        unserved=_planned_unserved(placement),
        shortfalls=tuple(
            views.ShortfallView(model=one.model, rule=one.rule, subject=one.subject, reason=one.reason)
            for one in placement.shortfalls
        ),
    )


def _planned_unserved(placement: Placement) -> tuple[views.PlannedUnservedView, ...]:
    """By model and cause: of a large fleet there are hundreds of thousands of cells."""
    rps: dict[tuple[str, views.UnservedCode], float] = defaultdict(float)
    cells: Counter[tuple[str, views.UnservedCode]] = Counter()
    for one in placement.unserved:
        key = (one.model, _code(one.code))
        rps[key] += one.requests_per_second
        cells[key] += 1
    return tuple(
        views.PlannedUnservedView(model=key[0], code=key[1], requests_per_second=rps[key], cells=cells[key])
        for key in sorted(rps)
    )


def _code(code: engine.UnservedCode | None) -> views.UnservedCode:
    value: views.UnservedCode = code.value if code is not None else "not-routed"
    return value


def near_view(near: Near | None) -> views.NearView | None:
    """How near users are served, or null."""
    return None if near is None else _shown(near)


def _shown(near: Near) -> views.NearView:
    return views.NearView(
        rtt_ms_mean=round(near.rtt_ms_mean, 3),
        rtt_ms_p95=round(near.rtt_ms_p95, 3),
        excess_ms_mean=round(near.excess_ms_mean, 3),
    )


class _Drawing:
    """The parts of one scene; each is computed once."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.world = scene.world
        self.routes: Mapping[ModelCell, Route] = scene.routes.by_key()
        self.models_by_name = {document.metadata.name: document for document in self.world.documents.models}
        self.desired = scene.plan.desired_by_key()
        self.ready = self.world.ready_replicas()
        self.reasons = {one.key: one.reason for one in scene.plan.desired}
        self.prices = self._prices()
        self.named = self.models_by_name.keys() | {key.model for key in self.desired}
        self.keys: dict[str, list[PlacementKey]] = defaultdict(list)
        """What is wanted or ready, by cluster, in order."""
        for key in sorted(self.desired.keys() | self.ready.keys()):
            self.keys[key.cluster].append(key)
        self.gates: dict[str, list[views.GatewayView]] = defaultdict(list)
        for gate in gateways(scene):
            self.gates[gate.cluster].append(gate)
        self.doubts = latency.doubts(self.world)
        self.estimates = latency.between(
            self.world,
            {
                CellCluster(cell, share.cluster)
                for (model, cell), route in self.routes.items()
                if (model, cell) in self.world.demand
                for share in (*route.now, *route.target)
            },
        )

    def _prices(self) -> dict[ClusterPool, float]:
        found: dict[ClusterPool, float] = {}
        for document in self.world.documents.clusters:
            for pool, declared in pools_of(self.world, document):
                priced = pool_price(self.world, document, pool, declared)
                if priced is not None:
                    found[ClusterPool(document.metadata.name, pool.key)] = priced.usd_per_device_hour
        return found

    def usd_per_hour(self, key: PlacementKey, replicas: int) -> float:
        """The cost of replicas; a pool without a price costs an unknown amount and is left out of sums."""
        document = self.models_by_name.get(key.model)
        shape = document.spec.accelerator_for(key.pool) if document is not None else None
        return replicas * (shape.count if shape is not None else 1) * self.prices.get(key.place, 0.0)

    def is_known(self, cluster: str) -> bool:
        """Whether the newest report describes the present."""
        return self.world.clusters[cluster].phase is Phase.READY

    def placements(self) -> tuple[views.PlacementView, ...]:
        regions = {document.metadata.name: document.spec.region for document in self.world.documents.clusters}
        return tuple(
            views.PlacementView(
                model=key.model,
                cluster=key.cluster,
                region=regions.get(key.cluster, ""),
                pool=key.pool.text,
                desired=count,
                ready=self.ready.get(key, 0) if key.cluster in regions and self.is_known(key.cluster) else None,
                usd_per_hour=self.usd_per_hour(key, count),
                reason=self.reasons.get(key, ""),
            )
            for key, count in sorted(self.desired.items(), key=lambda item: item[0])
        )

    # ---- clusters

    def clusters(self) -> tuple[views.ClusterView, ...]:
        return tuple(self._cluster(document) for document in self.world.documents.clusters)

    def _cluster(self, document: documents.Cluster) -> views.ClusterView:
        name, spec = document.metadata.name, document.spec
        state = self.world.clusters[name]
        cordon = self.world.cordons.get(name)
        replicas = self._replicas(name)
        pools = self._pools(document, state)
        mine = tuple(self.gates.get(name, ()))
        worst, reason = self._worst(state, replicas, mine)
        known = [pool.allocatable for pool in pools if pool.allocatable is not None]
        return views.ClusterView(
            name=name,
            provider=spec.provider,
            region=spec.region,
            zone=spec.zone or "",
            tier=spec.tier,
            city=spec.location.city,
            country=spec.location.country,
            lat=spec.location.lat,
            lon=spec.location.lon,
            jurisdictions=spec.jurisdictions,
            phase=state.phase.value,
            cordoned=cordon is not None,
            draining=cordon is not None and cordon.drain,
            worst_state=worst,
            reason=reason
            if cordon is None
            else f"{'draining' if cordon.drain else 'cordoned'}: {cordon.reason}; {reason}",
            report_age_s=None if state.heard_s is None else self.scene.now_s - state.heard_s,
            accelerators=sum(known) if known else None,
            pools=pools,
            replicas=replicas,
            ack=self._ack(state),
            gateways=mine,
            observed=self._observed(state),
            growth=self._growth(state),
            conditions=self._conditions(state),
        )

    def _pools(self, document: documents.Cluster, state: ClusterState) -> tuple[views.PoolView, ...]:
        name = document.metadata.name
        if state.report is None:
            expected = [(one.key, one.vram_gib) for one in document.spec.accelerators]
            return tuple(self._pool(name, key, vram_gib, None) for key, vram_gib in sorted(expected))
        return tuple(
            self._pool(name, pool.key, pool.vram_gib if pool.vram_known else None, pool)
            for pool in sorted(state.report.pools, key=lambda pool: pool.key)
        )

    def _pool(
        self, cluster: str, key: PoolKey, vram_gib: float | None, told: messages.PoolReport | None
    ) -> views.PoolView:
        room = told.room if told is not None else None
        return views.PoolView(
            name=key.text,
            product=key.product,
            mig_profile=key.mig_profile,
            market=key.market,
            vram_gib=vram_gib,
            allocatable=told.allocatable if told is not None else None,
            free=told.free if told is not None else None,
            usd_per_device_hour=self.prices.get(ClusterPool(cluster, key), 0.0),
            verified=told.verified if told is not None else True,
            sharing=told.sharing if told is not None else "none",
            largest_free=max((one.devices for one in room), default=0) if room is not None else None,
        )

    def _observed(self, state: ClusterState) -> tuple[views.ObservedView, ...]:
        if state.report is None or not self.is_known(state.name):
            return ()
        served = {one.model: one for one in state.report.served}
        engines = {one.model: one for one in state.report.engines}
        made = []
        for model in sorted(served.keys() | engines.keys()):
            answers, engine = served.get(model), engines.get(model)
            has_answers = answers is not None and answers.requests_per_second > 0
            made.append(
                views.ObservedView(
                    model=model,
                    requests_per_second=None if answers is None else answers.requests_per_second,
                    error_share=answers.error_share if answers is not None and has_answers else None,
                    latency_ms_p95=None if answers is None else answers.latency_ms_p95,
                    running=None if engine is None else engine.running,
                    waiting=None if engine is None else engine.waiting,
                    kv_cache_used=None if engine is None else engine.kv_cache_used,
                )
            )
        return tuple(made)

    def _growth(self, state: ClusterState) -> tuple[views.GrowthView, ...]:
        return tuple(
            views.GrowthView(
                group=one.group,
                source=one.source,
                pool=one.pool.text if one.pool is not None else None,
                devices=one.devices,
                provisioning_s=one.provisioning_s,
            )
            for one in (state.report.growth if state.report is not None else ())
        )

    def _conditions(self, state: ClusterState) -> tuple[views.ConditionView, ...]:
        told = (*(state.report.conditions if state.report is not None else ()), *state.findings)
        told = (*told, *self._own_conditions(state), *self.doubts.get(state.name, ()))
        return tuple(views.ConditionView(type=one.type, object=one.object, message=one.message) for one in told)

    def _own_conditions(self, state: ClusterState) -> Iterator[messages.Condition]:
        """Conditions of a cluster that the controller itself finds."""
        subject = f"cluster/{state.name}"
        if abs(state.skew_s) > self.world.timing.skew_s:
            text = f"its agent's clock is {state.skew_s:+.0f} s from the controller's; nothing is ordered by it"
            yield condition("ClockSkew", subject, text)
        if state.disputed_with and state.report is not None:
            text = f"a second agent ({state.disputed_with}) reports under this name beside {state.report.boot_id}"
            yield condition("NameTaken", subject, text)
        for key, one in sorted(state.lent.items()):
            text = f"{one.pool.allocatable} devices of {key.text} are held by ready replicas and offered by no node"
            yield condition("DevicesMissing", subject, text)
        if state.report is not None:
            yield from self._foreign_conditions(state.report)

    def _foreign_conditions(self, report: messages.Report) -> Iterator[messages.Condition]:
        """Replicas and epochs that this controller did not order: by another controller, an earlier one, or an
        intruder."""
        if report.epoch > self.scene.epoch:
            text = f"its agent obeys epoch {report.epoch} and refuses ours, {self.scene.epoch}; --take-over goes beyond"
            yield condition("ObeysAnother", f"cluster/{report.cluster}", text)
        foreign: dict[str, int] = {}
        for one in report.replicas:
            if one.model not in self.named and (count := max(one.ready, one.scheduled or 0)):
                foreign[one.model] = foreign.get(one.model, 0) + count
        for model, count in sorted(foreign.items()):
            text = (
                f"{count} replicas of {model}, which no document and no plan names: hand it in, or delete its objects"
            )
            yield condition("NotOrdered", f"model/{model}", text)

    def _replicas(self, cluster: str) -> tuple[views.ReplicasView, ...]:
        report = self.world.clusters[cluster].report
        troubles = {r.key: r.reason for r in report.replicas} if report is not None else {}
        rows = []
        for key in self.keys.get(cluster, ()):
            trouble = troubles.get(messages.ModelPool(key.model, key.pool), "")
            rows.append(
                views.ReplicasView(
                    model=key.model,
                    pool=key.pool.text,
                    desired=self.desired.get(key, 0),
                    ready=self.ready.get(key, 0) if self.is_known(cluster) else None,
                    reason="; ".join(part for part in (self.reasons.get(key, ""), trouble) if part),
                )
            )
        return tuple(rows)

    def _worst(
        self, state: ClusterState, replicas: Sequence[views.ReplicasView], gates: Sequence[views.GatewayView]
    ) -> tuple[views.WorstState, str]:
        if state.phase is Phase.UNKNOWN:
            return "unknown", "not heard since this controller started"
        if state.report is None:
            return "unknown", "never heard: is its agent installed, and does it reach the broker?"
        age_s = self.scene.now_s - state.since_s
        if state.phase is Phase.UNREACHABLE:
            return "bad", f"silent for {age_s:.0f} s: requests go elsewhere, replicas are expected back"
        if state.phase is Phase.LOST:
            return "bad", f"lost for {age_s:.0f} s: replicas were replaced elsewhere"
        if state.ack is not None and not state.ack.ok:
            return "bad", f"refused plan {state.ack.generation}: {state.ack.error}"
        for gate in gates:
            for kind, error in sorted(gate.refused.items()):
                return "degraded", f"gateway {gate.name} refused new {kind} and keeps the last good ones: {error}"
        missing = sum(max(0, row.desired - (row.ready or 0)) for row in replicas)
        if missing:
            return "degraded", f"{missing} replicas are not ready yet"
        return "ok", "it reports, and all desired replicas are ready"

    def _ack(self, state: ClusterState) -> views.AckView | None:
        if state.ack is None or state.ack_s is None:
            return None
        return views.AckView(
            epoch=state.ack.epoch,
            generation=state.ack.generation,
            ok=state.ack.ok,
            error=state.ack.error,
            age_s=self.scene.now_s - state.ack_s,
        )

    # ---- cells and routes

    def cells(self) -> tuple[views.CellView, ...]:
        by_cell: dict[str, list[views.CellDemandView]] = defaultdict(list)
        for model, cell in sorted(self.world.demand):
            by_cell[cell].append(self._cell_demand(model, cell))
        return tuple(
            views.CellView(
                name=name,
                country=self.world.cells[name].country,
                lat=self.world.cells[name].lat,
                lon=self.world.cells[name].lon,
                demand=tuple(by_cell[name]),
            )
            for name in sorted(by_cell)
        )

    def _cell_demand(self, model: str, cell: str) -> views.CellDemandView:
        demand = self.world.demand[ModelCell((model, cell))]
        route = self.routes.get(ModelCell((model, cell)))
        shares = self._shares(model, cell, route)
        unserved = max(0.0, 1.0 - sum(share.share for share in shares))
        if unserved < 1e-4:
            unserved = 0.0
        code, reason = self._why_unserved(model, route, unserved)
        return views.CellDemandView(
            model=model,
            rps=demand.requests_per_second,
            age_s=max(0.0, self.scene.now_s - min(self.world.clusters[name].counted_s for name, _ in demand.counts)),
            is_decaying=any(self.world.clusters[name].count_weight < 1.0 for name, _ in demand.counts),
            counted_by=tuple(name for name, _ in demand.counts),
            unserved_rps=unserved * demand.requests_per_second,
            code=code,
            reason=reason,
            routes=shares,
        )

    def _why_unserved(self, model: str, route: Route | None, unserved: float) -> tuple[views.UnservedCode, str]:
        """The code of the cause and a sentence; both empty where nothing is unserved. Args: unserved: share."""
        if route is not None:
            if route.unserved_reason:
                return _code(route.unserved_code), route.unserved_reason
            return ("on-the-way", "shares are moving to their targets") if unserved else ("", "")
        if model not in self.models_by_name:
            return "no-document", f"no Model document is called {model}"
        if self.world.documents.policy_of(model) is None:
            return "no-policy", "no placement policy selects this model"
        return "not-routed", "not routed yet"

    def _shares(self, model: str, cell: str, route: Route | None) -> tuple[views.RouteView, ...]:
        if route is None:
            return ()
        now, target = _by_cluster(route.now), _by_cluster(route.target)
        document = self.models_by_name.get(model)
        nearest_ms = (self.scene.nearest_ms or {}).get(ModelCell((model, cell)))
        rows = []
        for cluster in sorted(now.keys() | target.keys()):
            estimate = self.estimates.get(CellCluster(cell, cluster))
            if estimate is None or document is None:
                continue
            latency_ms = estimate.rtt_ms + document.spec.service_latency_ms
            rows.append(
                views.RouteView(
                    cluster=cluster,
                    share=now.get(cluster, 0.0),
                    target_share=target.get(cluster, 0.0),
                    latency_ms=round(latency_ms, 1),
                    excess_ms=None if nearest_ms is None else round(max(0.0, estimate.rtt_ms - nearest_ms), 1),
                    latency_source=estimate.source,
                    latency_basis=estimate.basis,
                    latency_age_s=None if estimate.measured_s is None else self._age_s(estimate.measured_s),
                    latency_confidence=estimate.confidence,
                    rtt_ms_p95=estimate.rtt_ms_p95,
                    within_objective=latency_ms <= document.spec.slo.p95_latency_ms,
                )
            )
        return tuple(rows)

    def _age_s(self, at_s: float) -> float:
        return round(max(0.0, self.scene.now_s - at_s), 1)

    def route_rows(self) -> tuple[views.RouteTableRow, ...]:
        rows = []
        for (model, name), demand in sorted(self.world.demand.items()):
            cell = self.world.cells[name]
            route = self.routes.get(ModelCell((model, name)))
            if route is None:
                continue
            shares = tuple(share for share in self._shares(model, name, route) if share.share > 0)
            rows.append(
                views.RouteTableRow(
                    model=model,
                    cell=name,
                    country=cell.country,
                    lat=cell.lat,
                    lon=cell.lon,
                    rps=demand.requests_per_second,
                    unserved_share=round(max(0.0, 1.0 - sum(share.share for share in shares)), 6),
                    routes=shares,
                )
            )
        return tuple(rows)

    # ---- models

    def near(self, demand: Iterable[views.CellDemandView]) -> views.NearView | None:
        """How near these users are served by the shares in force."""
        if self.scene.nearest_ms is None:
            return None
        service_ms = {name: one.spec.service_latency_ms for name, one in self.models_by_name.items()}
        return near_view(
            near(
                (one.rps * route.share, rtt_ms, rtt_ms - (route.excess_ms or 0.0))
                for one in demand
                for route in one.routes
                for rtt_ms in [max(0.0, route.latency_ms - service_ms.get(one.model, 0.0))]
            )
        )

    def models(self, cells: Sequence[views.CellView]) -> tuple[views.ModelView, ...]:
        demand = {name: [] for name in self.models_by_name}  # type: dict[str, list[views.CellDemandView]]
        for cell in cells:
            for one in cell.demand:
                demand.setdefault(one.model, []).append(one)
        return tuple(self._model(self.models_by_name[name], demand[name]) for name in sorted(self.models_by_name))

    def _model(self, document: documents.Model, demand: Sequence[views.CellDemandView]) -> views.ModelView:
        name = document.metadata.name
        policy = self.world.documents.policy_of(name)
        wanted = {key: count for key, count in self.desired.items() if key.model == name}
        ready = sum(count for key, count in self.ready.items() if key.model == name and self._is_counted(key.cluster))
        asked = sum(one.rps for one in demand)
        unserved = sum(one.unserved_rps for one in demand)
        late = sum(one.rps * route.share for one in demand for route in one.routes if not route.within_objective)
        state, reasons = self._model_state(name, policy, sum(wanted.values()), ready, asked, unserved, late)
        return views.ModelView(
            name=name,
            runtime=document.spec.runtime.preset,
            policy=policy.metadata.name if policy else "",
            objective_ms=document.spec.slo.p95_latency_ms,
            service_ms=document.spec.service_latency_ms,
            demand_rps=asked,
            served_rps=asked - unserved,
            late_rps=late,
            unserved_rps=unserved,
            replicas_desired=sum(wanted.values()),
            replicas_ready=ready,
            usd_per_hour=sum(self.usd_per_hour(key, count) for key, count in wanted.items()),
            near=self.near(demand),
            state=state,
            reasons=reasons,
        )

    def _is_counted(self, cluster: str) -> bool:
        return cluster in self.world.clusters and self.is_known(cluster)

    def _model_state(
        self,
        name: str,
        policy: documents.PlacementPolicy | None,
        desired: int,
        ready: int,
        asked: float,
        unserved: float,
        late: float,
    ) -> tuple[views.WorstState, tuple[str, ...]]:
        if policy is None:
            return "unknown", ("no placement policy selects this model: it is not placed",)
        bad, soft = [], []
        floor = policy.spec.availability.min_replicas
        if ready < floor:
            bad.append(f"{ready} replicas ready, policy asks {floor}")
        if asked > 0 and unserved > 0.01 * asked:
            bad.append(f"{unserved:.1f} of {asked:.1f} requests per second are unserved")
        if asked > 0 and late > 0.05 * asked:
            soft.append(f"{late:.1f} of {asked:.1f} requests per second miss the latency objective")
        if ready < desired:
            soft.append(f"{desired - ready} of {desired} replicas are not ready")
        now_s = self.scene.now_s
        backoffs = sorted(self.world.setbacks.backoffs.items(), key=lambda one: one[0])
        soft += [setbacks.sentence(one, now_s) for key, one in backoffs if key.model == name]
        if not_hunted := setbacks.why_not_hunted(self.world, self.world.setbacks, name, now_s):
            bad.append(not_hunted)
        if (version := self.scene.plan.versions.get(name)) is not None and version.refused:
            soft.append(f"its newest version does not start ({version.refused}): the one before serves")
        placement = self.scene.plan.placement
        bad += [one.reason for one in placement.shortfalls if one.model == name]
        limits = (one.says for one in placement.limits_of(name, policy.metadata.name))
        state: views.WorstState = "bad" if bad else "degraded" if soft else "ok"
        return state, (*bad, *soft, *limits)


def _by_cluster(shares: Sequence[Share]) -> dict[str, float]:
    return {share.cluster: share.share for share in shares}
