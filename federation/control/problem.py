"""From beliefs to a problem for the placement engine, and back from its pool names to keys."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

import placement as engine
from federation.control import latency, setbacks
from federation.policy import documents
from federation.state import capacity, levels, plausible
from federation.state.identity import ByIdentity
from federation.state.keys import ClusterPool, ModelCell, ModelCluster, PlacementKey
from federation.state.phases import Phase
from federation.state.pricing import pool_price, pool_risk, seen_by_region, spot_seen
from federation.state.world import World, countries
from federation.wire import quantity
from federation.wire.messages import PoolKey, PoolReport, ReplicaReport, replicas_that_fit

REACTION_S = 60.0
"""From the loss of a spot replica to the order for another: report, plan, order."""
FLAPS = 3
"""A cluster that was lost so often within an hour, and is not trusted again yet, is not counted on to stay: its
replicas are replaced elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Formulated:
    """A problem, with the data to read its solution.

    `present` is the placement in force without replicas that no longer count: solutions are compared with it. The
    problem's `current` also has replicas that still run besides (a rollout under way, a cluster that came back),
    because they cost nothing to start. `keys` maps the engine's pool names to (cluster, pool). `left_out` says in
    sentences what the problem leaves out.
    """

    problem: engine.Problem
    present: tuple[engine.Placed, ...]
    keys: Mapping[str, ClusterPool]
    left_out: tuple[str, ...]

    def pool_name(self, cluster: str, pool: PoolKey) -> str:
        """The engine's name of a pool."""
        return f"{cluster}/{pool.text}"

    def ours(self, placed: tuple[engine.Placed, ...]) -> dict[PlacementKey, int]:
        """The engine's placement in our keys."""
        return {PlacementKey(one.model, *self.keys[one.pool]): one.replicas for one in placed}

    def theirs(self, placed: Mapping[PlacementKey, int]) -> dict[tuple[str, str], int]:
        """Replica counts as (model, pool name) -> count, without entries that the problem does not know."""
        models = {one.name for one in self.problem.models}
        named = {(m, self.pool_name(c, pool)): n for (m, c, pool), n in sorted(placed.items()) if n > 0}
        return {key: count for key, count in named.items() if key[0] in models and key[1] in self.keys}


def formulate(
    world: World,
    *,
    target: Mapping[PlacementKey, int],
    desired: Mapping[PlacementKey, int],
    now_s: float,
    aside: Mapping[str, str] | None = None,
    given_up: Mapping[ModelCluster, float] | None = None,
    growth: Mapping[tuple[str, str], float] | None = None,
) -> Formulated:
    """The placement problem of this world, given the placement in force and the counts that agents are told on the way
    there.

    A cluster that is not heard is held: its replicas count as if it came back. A model's replicas there stop counting,
    and are replaced elsewhere, when its policy no longer tolerates the silence or waiting costs its users more
    (`replacement`).

    Args: aside: models that are left out, with the reason; their devices count as taken. given_up: (model, cluster) ->
        start of a silence that is no longer waited out. growth: (model, region of the front door that counts the
        users) -> multiple of their demand that is asked for.
    """
    made = _formulate(
        world,
        target=target,
        desired=desired,
        now_s=now_s,
        aside=aside or {},
        given_up=given_up or {},
        growth=growth or {},
    )
    return _with_setbacks(made, world, now_s)


class Formulation:
    """`formulate` with a cache of the newest problem: while its inputs are unchanged, the result is the same object.

    Threads may call it at the same time: the second waits, because its problem may be the same.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: tuple[object, Formulated] | None = None

    def __call__(
        self,
        world: World,
        *,
        target: Mapping[PlacementKey, int],
        desired: Mapping[PlacementKey, int],
        now_s: float,
        aside: Mapping[str, str],
        given_up: Mapping[ModelCluster, float],
        growth: Mapping[tuple[str, str], float] | None = None,
    ) -> Formulated:
        basis = _basis(world, target, desired, now_s, aside), dict(given_up), dict(growth or {})
        with self._lock:
            newest = self._newest
            if newest is None or newest[0] != basis:
                made = _formulate(
                    world,
                    target=target,
                    desired=desired,
                    now_s=now_s,
                    aside=aside,
                    given_up=given_up,
                    growth=growth or {},
                )
                newest = self._newest = basis, made
        return _with_setbacks(newest[1], world, now_s)


def _basis(
    world: World,
    target: Mapping[PlacementKey, int],
    desired: Mapping[PlacementKey, int],
    now_s: float,
    aside: Mapping[str, str],
) -> object:
    """All that `_formulate` depends on, to be compared: of reports and of the time no more than it reads."""
    tolerated_s = {policy.spec.failover.toleration_seconds for policy in world.documents.policies}
    tolerated_s.add(world.timing.default_toleration_s)
    clusters = tuple(
        (
            name,
            state.phase,
            state.unsteady_s is None,
            len(state.losses_s) >= FLAPS,
            state.phase is Phase.UNREACHABLE and tuple(now_s - state.since_s < one for one in sorted(tolerated_s)),
            world.is_routable(name),
            world.pools_of(name, now_s),
            (state.report.replicas, state.report.peers) if state.report is not None else None,
            state.level.known if state.level is not None else None,
        )
        for name, state in world.clusters.items()
    )
    backoffs = tuple((key, one, now_s < one.until_s) for key, one in sorted(world.setbacks.backoffs.items()))
    return (
        world.documents,
        world.learnt,
        ByIdentity(world.prices),
        spot_seen(world),
        ByIdentity(world.demand),
        ByIdentity(world.cells),
        ByIdentity(world.measured),
        world.continents,
        dict(world.cordons),
        bool(world.braked),
        clusters,
        backoffs,
        dict(target),
        dict(desired),
        dict(aside),
    )


def _with_setbacks(made: Formulated, world: World, now_s: float) -> Formulated:
    """With what is not tried again yet in sentences, which say for how long."""
    backoffs = sorted(world.setbacks.backoffs.items())
    if not backoffs:
        return made
    return replace(made, left_out=(*made.left_out, *(setbacks.sentence(one, now_s) for _, one in backoffs)))


def _formulate(
    world: World,
    *,
    target: Mapping[PlacementKey, int],
    desired: Mapping[PlacementKey, int],
    now_s: float,
    aside: Mapping[str, str],
    given_up: Mapping[ModelCluster, float],
    growth: Mapping[tuple[str, str], float],
) -> Formulated:
    left_out: list[str] = []
    models = _models(world, aside, left_out)
    by_name = {one.name: one for one in models}
    running = {key: max(target.get(key, 0), desired.get(key, 0)) for key in sorted(target.keys() | desired.keys())}
    counted = {
        key: count
        for key, replicas in running.items()
        if key.model in by_name
        and key.cluster in world.clusters
        and _counts(world, key.model, key.cluster, now_s, given_up)
        and (count := _believed(world, key, replicas, now_s)) > 0
    }
    present = {key: count for key in counted if (count := _believed(world, key, target.get(key, 0), now_s)) > 0}
    pools, keys = _pools(world, by_name, counted, now_s, left_out)
    room = _room(world, models, now_s, {keys[pool.name]: pool for pool in pools})
    by_cell: dict[str, dict[str, float]] = {name: {} for name in sorted(by_name)}
    region_of = {one.metadata.name: one.spec.region for one in world.documents.clusters} if growth else {}
    for (model, cell), demand in world.demand.items():
        if model in by_cell and demand.requests_per_second > 0:
            ratio = growth.get((model, region_of.get(demand.reporter, demand.reporter)), 1.0) if growth else 1.0
            by_cell[model][cell] = demand.requests_per_second * ratio
    cells = sorted(set[str]().union(*by_cell.values()))
    demands = tuple(
        engine.Demand(model=model, cell=cell, requests_per_second=rps)
        for model, asked_rps in by_cell.items()
        for cell in cells
        if (rps := asked_rps.get(cell)) is not None
    )
    if grown := _grown(world):
        demands = tuple(_with_growth(one, grown) for one in demands)
    estimates = latency.estimate(world, cells)
    problem = engine.Problem(
        clusters=tuple(_cluster(world, document) for document in world.documents.clusters),
        pools=pools,
        models=models,
        cells=tuple(_cell(world, name) for name in cells),
        demands=demands,
        paths=engine.RttMatrix(
            cells=tuple(estimates.cells), clusters=tuple(estimates.clusters), rtt_ms=estimates.rtt_ms
        ),
        current=_placed(counted),
        room=room,
        budgets=_budgets(world, by_name),
        reaction_s=REACTION_S,
    )
    return Formulated(problem=problem, present=_placed(present), keys=keys, left_out=tuple(left_out))


def _with_growth(demand: engine.Demand, grown: Mapping[ModelCell, float]) -> engine.Demand:
    rps = min(demand.requests_per_second, grown.get(ModelCell((demand.model, demand.cell)), 0.0))
    return msgspec.structs.replace(demand, grown_rps=rps) if rps > 0 else demand


def _grown(world: World) -> dict[ModelCell, float]:
    """(model, cell) -> requests per second beyond what the front doors that count them were known to count."""
    found: dict[ModelCell, float] = defaultdict(float)
    for state in world.clusters.values():
        part = levels.growth_part(world, state)
        for row in state.counted if part > 0 else ():
            found[ModelCell((row.model, row.cell.name))] += row.requests_per_second * state.count_weight * part
    return found


def _placed(counts: Mapping[PlacementKey, int]) -> tuple[engine.Placed, ...]:
    return tuple(
        engine.Placed(model=model, pool=f"{cluster}/{pool.text}", replicas=replicas)
        for (model, cluster, pool), replicas in sorted(counts.items(), key=lambda item: item[0])
    )


def _counts(world: World, model: str, cluster: str, now_s: float, given_up: Mapping[ModelCluster, float]) -> bool:
    """Whether the replicas of `model` in `cluster` are still counted on."""
    state = world.clusters[cluster]
    if state.phase is Phase.UNKNOWN or world.braked or (state.phase is Phase.READY and state.unsteady_s is None):
        return True
    policy = world.documents.policy_of(model)
    toleration_s = policy.spec.failover.toleration_seconds if policy else world.timing.default_toleration_s
    if len(state.losses_s) >= FLAPS and state.unsteady_s is not None:
        return False
    if state.phase is Phase.UNREACHABLE and given_up.get(ModelCluster(model, cluster)) == state.since_s:
        return False
    return state.phase is Phase.READY or (state.phase is Phase.UNREACHABLE and now_s - state.since_s < toleration_s)


def _believed(world: World, key: PlacementKey, replicas: int, now_s: float) -> int:
    """The replicas that count: those that did not become ready in time do not."""
    most = setbacks.most(world.setbacks, key, now_s)
    return replicas if most is None else min(replicas, most)


def _budgets(world: World, models: Mapping[str, engine.Model]) -> tuple[engine.Budget, ...]:
    """Of each policy that has one, over those of its models that are placed."""
    found = []
    for policy in world.documents.policies:
        names = tuple(sorted(name for name in set(policy.spec.models.match_names) if name in models))
        usd_per_hour = policy.spec.budget.max_usd_per_hour
        if names and usd_per_hour is not None:
            found.append(engine.Budget(name=policy.metadata.name, models=names, usd_per_hour=usd_per_hour))
    return tuple(found)


def _models(world: World, aside: Mapping[str, str], left_out: list[str]) -> tuple[engine.Model, ...]:
    models = []
    undecided = sorted({cell.country for cell in world.cells.values() if len(countries(cell.country)) > 1})
    for document in world.documents.models:
        if document.metadata.name in aside:
            left_out.append(f"model {document.metadata.name} stays as it is: {aside[document.metadata.name]}")
            continue
        policy = world.documents.policy_of(document.metadata.name)
        if policy is None:
            left_out.append(f"model {document.metadata.name} has no placement policy and is not placed")
            continue
        models.append(_model(document, policy.spec, world, undecided, left_out))
    return tuple(models)


def _users_of(rule: documents.ResidencyRule, undecided: Sequence[str]) -> tuple[str, ...]:
    """Countries whose users a rule concerns, including those of undecided cells."""
    if rule.users_in is None:
        return ()
    named = rule.users_in.countries
    return (*named, *(one for one in undecided if not set(named).isdisjoint(countries(one))))


def shapes(
    spec: documents.ModelSpec, factor: Callable[[documents.Accelerator], float] = lambda one: 1.0
) -> tuple[engine.Shape, ...]:
    """Each way to run a replica, in the engine's words."""
    return tuple(
        engine.Shape(
            product=one.product,
            mig_profile=one.mig_profile or "",
            devices=one.count,
            min_vram_gib=one.min_vram_gib,
            requests_per_second=one.requests_per_second * factor(one),
        )
        for one in spec.accelerators
    )


def _model(
    document: documents.Model,
    policy: documents.PlacementPolicySpec,
    world: World,
    undecided: Sequence[str],
    left_out: list[str],
) -> engine.Model:
    spec = document.spec
    for pin in policy.availability.pinned:
        if pin.cluster not in world.clusters:
            left_out.append(
                f"model {document.metadata.name} is pinned to {pin.cluster}, which no Cluster document names"
            )
    slope, bends = _way(policy.objective, spec.service_latency_ms)
    return engine.Model(
        name=document.metadata.name,
        shapes=shapes(spec, lambda one: capacity.factor(world, document.metadata.name, one)),
        objective_ms=spec.slo.p95_latency_ms,
        service_latency_ms=spec.service_latency_ms,
        target_utilisation=spec.target_utilisation,
        late_usd_per_1000=policy.objective.late_request_usd_per_1000,
        latency_usd_per_1000_per_ms=engine.NEARER_USD_PER_1000_PER_MS + slope,
        bends=bends,
        unserved_usd_per_1000=policy.objective.unserved_usd_per_1000,
        move_usd=policy.objective.move_usd,
        warmup_s=spec.warmup_seconds,
        response_kib=spec.response_kib,
        priority=policy.priority,
        min_replicas=policy.availability.min_replicas,
        max_replicas=policy.availability.max_replicas,
        min_on_demand=policy.spot.min_on_demand_replicas,
        min_regions=policy.availability.min_regions,
        survive=policy.availability.survive,
        survive_fraction=policy.availability.survive_fraction,
        survive_within_fraction=policy.availability.survive_within_objective_percent / 100.0,
        target_fraction=(policy.availability.target or 0.0) / 100.0,
        max_part=_max_part(policy.availability.max_part_per_domain),
        spot_max_fraction=policy.spot.max_fraction,
        other_continents_max_fraction=policy.failover.max_other_continents_percent / 100.0,
        pins=tuple(
            engine.Pin(cluster=pin.cluster, replicas=pin.replicas)
            for pin in policy.availability.pinned
            if pin.cluster in world.clusters
        ),
        residency=tuple(
            engine.Residency(
                countries=_users_of(rule, undecided),
                jurisdictions=rule.clusters_in.jurisdictions,
            )
            for rule in policy.residency
        ),
    )


def _max_part(rule: documents.MaxPartPerDomain | None) -> engine.MaxPart | None:
    return engine.MaxPart(domain=rule.domain, fraction=rule.percent / 100.0) if rule is not None else None


def _way(objective: documents.Objective, service_ms: float) -> tuple[float, tuple[engine.Bend, ...]]:
    """USD per 1,000 requests and millisecond of the way, and where it becomes more.

    What begins to rise before `service_ms` rises from the first millisecond of the way.
    """
    slope, before, bends = objective.usd_per_1000_per_ms, 0.0, []
    for since_ms, rises in objective.rises:
        more = max(0.0, rises - before)
        if since_ms <= service_ms:
            slope += more
        elif more > 0:
            bends.append(engine.Bend(latency_ms=since_ms, more_usd_per_1000_per_ms=more))
        before = max(before, rises)
    return slope, tuple(bends)


def _cell(world: World, name: str) -> engine.Cell:
    country = world.cells[name].country
    return engine.Cell(name=name, country=country, continent=world.continent_of(country))


def _cluster(world: World, document: documents.Cluster) -> engine.Cluster:
    name, spec = document.metadata.name, document.spec
    cordon = world.cordons.get(name)
    if world.clusters[name].phase is not Phase.READY or world.clusters[name].unsteady_s is not None:
        intake = engine.Intake.HELD
    elif cordon is not None:
        intake = engine.Intake.DRAINING if cordon.drain else engine.Intake.CORDONED
    else:
        intake = engine.Intake.OPEN
    return engine.Cluster(
        name=name,
        provider=spec.provider,
        region=f"{spec.provider}/{spec.region}",
        zone=spec.zone or "",
        continent=world.continent_of(spec.location.country),
        egress_usd_per_gib=spec.egress_usd_per_gib,
        jurisdictions=spec.jurisdictions,
        intake=intake,
        reachable=world.is_routable(name),
    )


def _pools(
    world: World,
    models: Mapping[str, engine.Model],
    counted: Mapping[PlacementKey, int],
    now_s: float,
    left_out: list[str],
) -> tuple[tuple[engine.Pool, ...], dict[str, ClusterPool]]:
    """Reported pools with the devices that models may use; and pools that only `counted` names, without devices."""
    seen = seen_by_region(world)
    pools: dict[str, engine.Pool] = {}
    keys: dict[str, ClusterPool] = {}
    named: dict[str, set[PoolKey]] = {}
    for _, cluster, key in counted:
        named.setdefault(cluster, set()).add(key)
    for document in world.documents.clusters:
        cluster = document.metadata.name
        prices = {one.key: one for one in document.spec.accelerators}
        reported = _reported(world, document, now_s)
        in_use = named.get(cluster, set())
        for key in in_use - set(reported):
            vram_gib = prices[key].vram_gib if key in prices else 0.0
            reported[key] = PoolReport(key=key, vram_gib=vram_gib, allocatable=0, free=0)
        for key, pool in sorted(reported.items()):
            priced = pool_price(world, document, pool, prices.get(key))
            if priced is None:
                left_out.append(f"pool {cluster}/{key.text} has no price: by its agent, a feed or the catalogue")
            if priced is None and key not in in_use:
                continue
            risk = pool_risk(world, document, key, prices.get(key), seen)
            made = engine.Pool(
                cluster=cluster,
                product=key.product,
                mig_profile=key.mig_profile,
                market=key.market,
                vram_gib=_vram_gib(pool, prices.get(key)),
                devices=0,
                usd_per_device_hour=priced.usd_per_device_hour if priced is not None else 0.0,
                losses_per_hour=risk.losses_per_hour,
                replacement_chance=risk.replacement_chance,
            )
            expected = prices.get(key)
            held = _devices_held(world, made, cluster, key, models, counted)
            most = plausible.counted_on(expected.devices if expected is not None else 0, held)
            devices = min(most, usable_devices(world, cluster, pool, made, models))
            if priced is None:  # what runs there stays; a pool taken for free would draw every other replica
                devices = min(devices, _devices_of(cluster, key, made, models, counted))
            pools[made.name] = _with_devices(made, devices)
            keys[made.name] = ClusterPool(cluster, key)
    return tuple(pools.values()), keys


def _devices_held(
    world: World,
    made: engine.Pool,
    cluster: str,
    key: PoolKey,
    models: Mapping[str, engine.Model],
    counted: Mapping[PlacementKey, int],
) -> int:
    """Devices of replicas that were ordered there and seen ready."""
    report = world.clusters[cluster].report
    found = 0
    for replica in report.replicas if report is not None else ():
        shape = models[replica.model].shape_for(made) if replica.model in models else None
        if replica.pool == key and shape is not None:
            found += min(replica.ready, counted.get(PlacementKey(replica.model, cluster, key), 0)) * shape.devices
    return found


def _devices_of(
    cluster: str,
    key: PoolKey,
    pool: engine.Pool,
    models: Mapping[str, engine.Model],
    counted: Mapping[PlacementKey, int],
) -> int:
    """Devices of a pool that counted replicas take."""
    shapes = (
        (counted.get(PlacementKey(name, cluster, key), 0), model.shape_for(pool)) for name, model in models.items()
    )
    return sum(n * shape.devices for n, shape in shapes if shape is not None)


def usable_devices(
    world: World, cluster: str, pool: PoolReport, made: engine.Pool, models: Mapping[str, engine.Model]
) -> int:
    """Allocatable devices less those that pods of others request."""
    report = world.clusters[cluster].report
    ours = 0
    for replica in report.replicas if report is not None else ():
        shape = models[replica.model].shape_for(made) if replica.model in models else None
        if replica.pool == pool.key and shape is not None:
            ours += _holding(replica) * shape.devices
    return pool.allocatable - max(0, pool.allocatable - pool.free - ours)


def _vram_gib(pool: PoolReport, expected: documents.AcceleratorPool | None) -> float:
    """The memory that a model's minimum is compared with; 0 where nobody vouches for it.

    The catalogue's figure counts for a product that the vendor's labels name without its memory, not for one that they
    do not name.
    """
    if pool.vram_known:
        return pool.vram_gib
    return expected.vram_gib if pool.verified and expected is not None else 0.0


def _room(
    world: World, models: tuple[engine.Model, ...], now_s: float, pools: Mapping[ClusterPool, engine.Pool]
) -> tuple[engine.Room, ...]:
    """The most replicas of a model that a pool takes, where that is less than its devices allow: by its nodes, and by
    earlier failures there."""
    found = {(one.model, one.pool): one.replicas for one in _places(world, models, pools)}
    for model in models if world.setbacks.backoffs else ():
        not_hunted = setbacks.why_not_hunted(world, world.setbacks, model.name, now_s)
        for (cluster, key), pool in pools.items():
            place = PlacementKey(model.name, cluster, key)
            most = setbacks.most(world.setbacks, place, now_s)
            if not_hunted and place not in world.setbacks.backoffs:
                most = 0
            if most is not None and model.shape_for(pool) is not None:
                name = (model.name, pool.name)
                found[name] = min(most, found.get(name, most))
    return tuple(engine.Room(model=m, pool=p, replicas=count) for (m, p), count in found.items())


def _places(
    world: World, models: tuple[engine.Model, ...], pools: Mapping[ClusterPool, engine.Pool]
) -> Iterator[engine.Room]:
    """The replicas that find a place node by node: those that have one, and those that still fit.

    Replicas of one device are interchangeable. Replicas of several devices are not, because the devices of stopped
    replicas need not be neighbours. Pools of agents that do not report nodes are left out, and so are clusters that are
    not heard.
    """
    needs = {document.metadata.name: document.spec.resources for document in world.documents.models}
    for document in world.documents.clusters:
        cluster = document.metadata.name
        report = world.clusters[cluster].report
        for pool in report.pools if report is not None else ():
            made = pools.get(ClusterPool(cluster, pool.key))
            if made is None or pool.room is None or report is None:
                continue
            held = {one.model: _holding(one) for one in report.replicas if one.pool == pool.key}
            shapes = {model.name: shape for model in models if (shape := model.shape_for(made)) is not None}
            for model, shape in ((model, shapes[model.name]) for model in models if model.name in shapes):
                fit = replicas_that_fit(
                    pool.room,
                    devices=shape.devices,
                    cpu_millis=quantity.millis(needs[model.name].cpu) or 0,
                    memory_mib=quantity.mib(needs[model.name].memory, up=True) or 0,
                )
                others = sum(
                    count * shapes[name].devices if name in shapes else 0
                    for name, count in held.items()
                    if name != model.name
                )
                replicas = held.get(model.name, 0) + fit + (others if shape.devices == 1 else 0)
                if replicas < made.devices // shape.devices:
                    yield engine.Room(model=model.name, pool=made.name, replicas=replicas)


def _holding(replica: ReplicaReport) -> int:
    return replica.scheduled if replica.scheduled is not None else max(replica.desired, replica.ready)


def _with_devices(pool: engine.Pool, devices: int) -> engine.Pool:
    return engine.Pool(
        cluster=pool.cluster,
        product=pool.product,
        mig_profile=pool.mig_profile,
        market=pool.market,
        vram_gib=pool.vram_gib,
        devices=devices,
        usd_per_device_hour=pool.usd_per_device_hour,
        losses_per_hour=pool.losses_per_hour,
        replacement_chance=pool.replacement_chance,
    )


def _reported(world: World, document: documents.Cluster, now_s: float) -> dict[PoolKey, PoolReport]:
    """The pools of the newest report; before the first, what the catalogue expects (the cluster is held then)."""
    name = document.metadata.name
    if world.clusters[name].report is not None:
        return {pool.key: pool for pool in world.pools_of(name, now_s)}
    return {
        one.key: PoolReport(key=one.key, vram_gib=one.vram_gib, allocatable=one.devices, free=one.devices)
        for one in document.spec.accelerators
    }
