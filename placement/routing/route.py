"""Routing over ready replicas: small problems by a linear programme, large ones by `transport`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from placement import costs, unserved
from placement.answer import DECIMALS, DUST_RPS
from placement.capacity import SPARED_RPS, Capacity, capacity_of, overloads
from placement.index import Index
from placement.problem import Model, RttMatrix
from placement.routing.flows import RoutingPrices, fair_flows, known_first
from placement.solution import Cost, Flow, Over, Ready, RoomPrice, Routing, Unserved

if TYPE_CHECKING:
    from placement.routing import transport

ROUND = 1e-6
AS_FORESEEN = 0.0005
"""Share of a model's requests that may be late beyond the plan's share, to keep clusters at the target utilisation."""


def route(index: Index, counts: Ready, foreseen: Mapping[str, float]) -> Routing:
    """By a programme over every pair of a cell and a cluster, for each model. Args: as of `engine.route`."""
    flows: list[Flow] = []
    missed: list[Unserved] = []
    over: list[Over] = []
    farthest_ms = index.problem.rtt_matrix().farthest_ms
    for model in index.problem.models:
        usable, beyond = capacity_of(index, model, counts)
        price = RoutingPrices.of(index, model, farthest_ms)
        parts, missing = known_first(fair_flows, index, model, usable, beyond, price)
        if overloads(usable, parts):
            spared = known_first(fair_flows, index, model, usable, beyond, price.sparing)
            is_enough, why = _weighed(model, usable, (parts, missing), spared, foreseen.get(model.name))
            parts, missing = spared if is_enough else (parts, missing)
            over += _over(model, usable, parts, why)
        flows += parts
        missed += unserved.by_routing(index, model, usable, beyond, parts, missing)
    cost = costs.flow_cost(index, flows, missed, accelerators=0.0, moves=0.0)
    return Routing(flows=tuple(sorted(flows)), unserved=tuple(sorted(missed)), cost=cost, over=tuple(over))


def _weighed(
    model: Model,
    usable: Capacity,
    routed: tuple[Sequence[Flow], Mapping[str, float]],
    spared: tuple[Sequence[Flow], Mapping[str, float]],
    foreseen: float | None,
) -> tuple[bool, str]:
    """(whether `spared` is good enough, why clusters exceed the target utilisation in the routing that is taken).

    `spared` exceeds it only for requests that would be unserved otherwise; `routed` also to avoid lateness.
    """
    served = sum(flow.requests_per_second for flow in routed[0])
    late, more_late = (
        sum(flow.requests_per_second for flow in flows if not flow.within_objective) for flows in (routed[0], spared[0])
    )
    least = SPARED_RPS + ROUND * served
    most_late = late + least if foreseen is None else max(late + least, (foreseen + AS_FORESEEN) * served)
    needed = sum(overloads(usable, spared[0]).values())
    lost = f"{needed:.6g} requests per second of {model.name} would go unserved"
    if more_late <= most_late and sum(spared[1].values()) <= sum(routed[1].values()) + least:
        return True, f"else {lost}"
    why = f"else {more_late - late:.6g} requests per second of {model.name} would be late"
    return False, f"{why}, and {lost}" if needed else why


def _over(model: Model, usable: Capacity, flows: Iterable[Flow], reason: str) -> list[Over]:
    return [
        Over(model=model.name, cluster=name, requests_per_second=rps, reason=reason)
        for name, rps in overloads(usable, flows).items()
    ]


def route_many(index: Index, counts: Ready, last: Routing | None, foreseen: Mapping[str, float]) -> Routing:
    """By `transport`, for problems with too many pairs for a programme over all. All parts are sorted by name."""
    from placement.routing import transport  # numba takes a second to load, which small worlds need not pay

    rtt_ms = index.problem.rtt_matrix()
    asking, farthest_ms = transport.TransportProblems(index, rtt_ms), rtt_ms.farthest_ms
    known = {(one.model, one.cluster): one.usd_per_hour for one in last.prices} if last is not None else {}
    flows: list[Flow] = []
    missed: list[Unserved] = []
    over: list[Over] = []
    prices: list[RoomPrice] = []
    paid: list[Cost] = []
    usd = bound_usd = 0.0
    for model in index.problem.models:
        usable, beyond = capacity_of(index, model, counts)
        price, clusters = RoutingPrices.of(index, model, farthest_ms), sorted(usable)
        begin = np.array([known.get((model.name, name), np.nan) for name in clusters])
        question = asking.question(model, usable, beyond, price.unserved, price.overload)
        found = transport.solve(question, begin)
        parts, missing, cost = _flows_by_position(index, model, asking, clusters, found)
        if overloads(usable, parts):
            sparing = asking.question(model, usable, beyond, price.sparing.unserved, price.sparing.overload)
            spared = transport.solve(sparing, found.prices)
            told = _flows_by_position(index, model, asking, clusters, spared)
            is_enough, why = _weighed(model, usable, (parts, missing), told[:2], foreseen.get(model.name))
            if is_enough:
                found, (parts, missing, cost) = spared, told
            over += _over(model, usable, parts, why)
        if missing and index.by_growth(model) is not None:
            flows_of = partial(_flows_of_many, rtt_ms=rtt_ms)
            parts, missing = known_first(flows_of, index, model, usable, beyond, price)
            cost = costs.flow_cost(index, parts, (), accelerators=0.0, moves=0.0)
        flows += parts
        missed += unserved.by_routing(index, model, usable, beyond, parts, missing)
        paid.append(cost)
        prices += [
            RoomPrice(model=model.name, cluster=name, usd_per_hour=price)
            for name, price in zip(clusters, found.prices.tolist(), strict=True)
        ]
        usd, bound_usd = usd + found.usd, bound_usd + found.bound_usd
    paid.append(costs.flow_cost(index, (), missed, accelerators=0.0, moves=0.0))
    return Routing(
        flows=tuple(flows),
        unserved=tuple(missed),
        cost=Cost(**{one.name: sum(getattr(cost, one.name) for cost in paid) for one in fields(Cost)}),
        gap=max(0.0, (usd - bound_usd) / usd) if usd > 0 else 0.0,
        prices=tuple(prices),
        over=tuple(over),
    )


def _flows_of_many(
    index: Index, model: Model, usable: Capacity, beyond: Capacity, price: RoutingPrices, *, rtt_ms: RttMatrix
) -> tuple[list[Flow], dict[str, float]]:
    """As `fair_flows` by `transport`, without fairness."""
    from placement.routing import transport

    asking = transport.TransportProblems(index, rtt_ms)
    found = transport.solve(asking.question(model, usable, beyond, price.unserved, price.overload))
    flows, missing, _ = _flows_by_position(index, model, asking, sorted(usable), found)
    return flows, missing


def _flows_by_position(
    index: Index, model: Model, asking: transport.TransportProblems, clusters: Sequence[str], found: transport.Routed
) -> tuple[list[Flow], dict[str, float], Cost]:
    """(flows, cell -> unserved requests per second, their cost) from positions; as `rounded_flows` and `flow_cost`."""
    demands = index.demands[model.name]
    asked = np.fromiter((one.requests_per_second for one in demands), np.float64, len(demands))
    rps = np.minimum(np.round(found.rps, DECIMALS), asked[found.cell])
    rps[rps <= DUST_RPS] = 0.0
    left = asked - np.bincount(found.cell, rps, minlength=len(asked))
    for at in np.flatnonzero(left < 0.0).tolist():  # rounded up too often
        mine = np.flatnonzero(found.cell == at)
        largest = mine[rps[mine].argmax()]
        rps[largest] += left[at]
    used = rps > 0.0
    cell, cluster, rps = found.cell[used], found.cluster[used], rps[used]
    latency_ms = asking.latency_ms(model, clusters, cell, cluster)
    within = latency_ms <= model.objective_ms
    egress_usd = np.array([costs.egress_usd_per_rps(model, index.clusters[name]) for name in clusters])
    cost = Cost(
        accelerators=0.0,
        egress=float((egress_usd[cluster] * rps).sum()) if len(rps) else 0.0,
        late=costs.THOUSANDS_PER_HOUR * model.late_usd_per_1000 * float(rps[~within].sum()),
        unserved=0.0,
        moves=0.0,
        proximity=float((rps * asking.way_usd(model, latency_ms)).sum()),
    )
    name = model.name
    flows = [
        Flow(
            model=name,
            cell=demands[at].cell,
            cluster=clusters[to],
            requests_per_second=part,
            latency_ms=late_ms,
            within_objective=is_within,
        )
        for at, to, part, late_ms, is_within in zip(
            cell.tolist(), cluster.tolist(), rps.tolist(), latency_ms.tolist(), within.tolist(), strict=True
        )
    ]
    missing = {demands[at].cell: float(left[at]) for at in np.flatnonzero(left > 10 * DUST_RPS).tolist()}
    return flows, missing, cost
