"""Every derivation of money: what requests, replicas, starts and missed floors cost, in US dollars per hour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from placement import floors
from placement.index import Index, Option
from placement.problem import Cluster, Model, Pool, Problem, Shape
from placement.solution import Cost, Floor, Flow, Unserved

THOUSANDS_PER_HOUR = 3.6
"""One request per second is 3,600 an hour; prices are per 1,000."""
YIELDING: frozenset[Floor] = frozenset({"max_part", "availability"})
"""Floors that are missed rather than that users go unserved for them."""
SHORTFALL_USD_PER_HOUR = 1e6
"""Only where the floors cannot be held: missing one costs more than anything else."""
OVER_BUDGET_USD_PER_HOUR = 1e3
"""Only where the floors cannot be held: a start beyond the budget, which a floor is worth and nothing else."""
GROWN_PART = 0.5
"""Growth that nobody vouches for costs this part of the price of unserved requests: what is known goes first, and what
can be served at a sane price is served."""
UNPROTECTED_PART = 0.5
"""Only where that cannot be held either: to leave users unprotected costs this part of leaving them unserved now."""
UNEVEN_PART = 0.05
"""Only where users would go unserved for it: what one domain holds too much costs this part of leaving them unserved,
so little that a whole replica for a few users is worth it."""


def served_usd_per_rps(model: Model, cluster: Cluster, latency_ms: float) -> float:
    """USD per hour of one request per second served at this latency: late or not, how far, and what egress costs."""
    late = model.late_usd_per_1000 if latency_ms > model.objective_ms else 0.0
    near = THOUSANDS_PER_HOUR * (late + model.way_usd_per_1000(latency_ms))
    return near + egress_usd_per_rps(model, cluster)


def egress_usd_per_rps(model: Model, cluster: Cluster) -> float:
    """USD per hour that the answers to one request per second cost on their way out of `cluster`."""
    return 3600.0 * model.response_kib / 2**20 * cluster.egress_usd_per_gib


def start_usd_per_hour(problem: Problem, model: Model, option: Option) -> float:
    """USD per hour of starting one replica: its one-off price spread over the horizon of moves."""
    return start_usd(model, option.pool, option.shape.devices) / problem.move_horizon_h


def start_usd(model: Model, pool: Pool, devices: int) -> float:
    """USD, once, of starting one replica with so many devices of `pool`: its warm-up and policy's charge."""
    return model.warmup_s / 3600.0 * devices * pool.usd_per_device_hour + model.move_usd


def risk_usd_per_hour(problem: Problem, model: Model, shape: Shape, pool: Pool) -> float:
    """What the losses of one replica are expected to cost: until another is ready, others serve its requests beyond
    what plans count on, which is worth as much as being late; and the other has to be started."""
    if pool.losses_per_hour <= 0.0:
        return 0.0
    start = start_usd(model, pool, shape.devices)
    rps = shape.requests_per_second * model.target_utilisation
    late = rps * THOUSANDS_PER_HOUR * model.late_usd_per_1000 * floors.outage_h(problem, model, pool)
    return pool.losses_per_hour * (start + late)


def event_usd_per_rps(model: Model, event: floors.Event) -> float:
    """What each request per second that an event leaves unserved is expected to cost, in USD per hour; nothing where
    policy has a rule in its place."""
    if model.target_fraction > 0.0:
        return 0.0
    return event.part * THOUSANDS_PER_HOUR * max(0.0, model.unserved_usd_per_1000 - model.late_usd_per_1000)


def events_usd_per_hour(index: Index, model: Model, counts: Mapping[tuple[str, str], int]) -> float:
    """What the losses of whole zones are expected to cost with so many replicas by (model, pool)."""
    options = index.options(model)
    replicas = [counts.get((model.name, option.pool.name), 0) for option in options]
    found = floors.events(index, model, options)
    return sum(event_usd_per_rps(model, event) * event.unserved_rps(replicas) for event in found)


def missed_usd_per_hour(model: Model, floor: Floor) -> float:
    """What missing a floor by one costs, where it cannot be held."""
    if floor in ("survive", "survive_within"):
        return UNPROTECTED_PART * THOUSANDS_PER_HOUR * model.unserved_usd_per_1000
    if floor in YIELDING:
        return UNEVEN_PART * THOUSANDS_PER_HOUR * model.unserved_usd_per_1000
    return SHORTFALL_USD_PER_HOUR


def gap(cost: Cost, bound_usd_per_hour: float) -> float:
    return (cost.total - bound_usd_per_hour) / cost.total if cost.total > 0 else 0.0


def placement_cost(
    index: Index, counts: Mapping[tuple[str, str], int], flows: Sequence[Flow], unserved: Sequence[Unserved]
) -> Cost:
    accelerators = moves = risk = 0.0
    for model in index.problem.models:
        for option in index.options(model):
            count = counts.get((model.name, option.pool.name), 0)
            accelerators += count * option.shape.devices * option.pool.usd_per_device_hour
            started = max(0, count - index.current.get((model.name, option.pool.name), 0))
            moves += started * start_usd_per_hour(index.problem, model, option)
            risk += count * risk_usd_per_hour(index.problem, model, option.shape, option.pool)
        risk += events_usd_per_hour(index, model, counts)
    return replace(flow_cost(index, flows, unserved, accelerators=accelerators, moves=moves), risk=risk)


def flow_cost(
    index: Index, flows: Sequence[Flow], unserved: Sequence[Unserved], *, accelerators: float, moves: float
) -> Cost:
    late = proximity = lost = egress = 0.0
    for flow in flows:
        model = index.models[flow.model]
        egress += flow.requests_per_second * egress_usd_per_rps(model, index.clusters[flow.cluster])
        rps = THOUSANDS_PER_HOUR * flow.requests_per_second
        late += 0.0 if flow.within_objective else rps * model.late_usd_per_1000
        proximity += rps * model.way_usd_per_1000(flow.latency_ms)
    for one in unserved:
        price = index.models[one.model].unserved_usd_per_1000
        lost += THOUSANDS_PER_HOUR * one.requests_per_second * price
    return Cost(accelerators=accelerators, egress=egress, late=late, unserved=lost, moves=moves, proximity=proximity)


def model_usd_per_hour(
    index: Index,
    model: Model,
    counts: Mapping[tuple[str, str], int],
    flows: Sequence[Flow],
    *,
    unserved_rps: float,
    overload_rps: float,
    started_from: Mapping[tuple[str, str], int] | None = None,
) -> float:
    """USD per hour of one model: devices, their risk, egress, latency, late and unserved requests, and starts.

    Args: counts: (model, pool) -> replicas of this model, also of pools that it no longer fits. flows: of this model.
        overload_rps: above what plans count on, priced as late. started_from: what runs; None charges no starts.
    """
    problem, total = index.problem, 0.0
    for (name, pool_name), count in counts.items():
        pool = index.pools[pool_name]
        shape, devices = model.shape_for(pool), model.devices_in(pool)
        total += count * devices * pool.usd_per_device_hour
        if shape is not None:
            total += count * risk_usd_per_hour(problem, model, shape, pool)
        if started_from is not None:
            starts = max(0, count - started_from.get((name, pool_name), 0))
            total += starts * start_usd(model, pool, devices) / problem.move_horizon_h
    total += events_usd_per_hour(index, model, counts)
    late_rps, proximity_usd = overload_rps, 0.0
    for flow in flows:
        total += flow.requests_per_second * egress_usd_per_rps(model, index.clusters[flow.cluster])
        late_rps += 0.0 if flow.within_objective else flow.requests_per_second
        proximity_usd += flow.requests_per_second * model.way_usd_per_1000(flow.latency_ms)
    lost_usd = late_rps * model.late_usd_per_1000 + unserved_rps * model.unserved_usd_per_1000
    return total + THOUSANDS_PER_HOUR * (lost_usd + proximity_usd)
