"""Min-cost flows of one model over fixed capacity; in a shortage, known demand before growth, then fairly by cell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace

from placement import costs, highs
from placement.answer import rounded_flows
from placement.capacity import Capacity
from placement.index import Index
from placement.problem import Model
from placement.routing.programme import formulate_flows
from placement.solution import Flow

FlowsOf = Callable[[Index, Model, Capacity, Capacity, "RoutingPrices"], tuple[list[Flow], dict[str, float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingPrices:
    """USD per hour of one request per second: `overload` above the target utilisation, `unserved` above every possible
    cost of serving it, `dearest` above every possible cost of distance and lateness."""

    overload: float
    unserved: float
    dearest: float = 0.0

    @property
    def sparing(self) -> RoutingPrices:
        """Prices at which requests are late rather than above the target utilisation, yet served if possible."""
        return replace(self, overload=self.dearest, unserved=self.unserved + self.dearest)

    @staticmethod
    def of(index: Index, model: Model, farthest_ms: float) -> RoutingPrices:
        egress = max((costs.egress_usd_per_rps(model, one) for one in index.problem.clusters), default=0.0)
        far = model.way_usd_per_1000(farthest_ms + model.service_latency_ms)
        worst = model.unserved_usd_per_1000 + 2 * model.late_usd_per_1000 + far + 1.0
        return RoutingPrices(
            overload=costs.THOUSANDS_PER_HOUR * model.late_usd_per_1000,
            unserved=costs.THOUSANDS_PER_HOUR * worst + egress,
            dearest=costs.THOUSANDS_PER_HOUR * (model.late_usd_per_1000 + far + 1.0) + egress,
        )


def known_first(
    serve: FlowsOf, index: Index, model: Model, usable: Capacity, beyond: Capacity, price: RoutingPrices
) -> tuple[list[Flow], dict[str, float]]:
    """(the flows of one model, cell -> unserved requests per second) by `serve`.

    In a shortage, known demand is served as if nothing had grown, and growth with the capacity that is left.
    """
    flows, missing = serve(index, model, usable, beyond, price)
    parts = index.by_growth(model) if missing else None
    if parts is None:
        return flows, missing
    known, grown = parts
    first, _ = serve(known, model, usable, beyond, price)
    usable, beyond = dict(usable), dict(beyond)
    for flow in first:
        over = max(0.0, flow.requests_per_second - usable[flow.cluster])
        usable[flow.cluster] -= flow.requests_per_second - over
        beyond[flow.cluster] = max(0.0, beyond.get(flow.cluster, 0.0) - over)
    second, _ = serve(grown, model, usable, beyond, price)
    rates: dict[tuple[str, str], float] = defaultdict(float)
    for flow in (*first, *second):
        rates[flow.cell, flow.cluster] += flow.requests_per_second
    return rounded_flows(index, model, rates)


def fair_flows(
    index: Index, model: Model, usable: Capacity, beyond: Capacity, price: RoutingPrices
) -> tuple[list[Flow], dict[str, float]]:
    """As `least_cost_flows`; in a shortage, the largest unserved share of any cell is minimised."""
    flows, missing = least_cost_flows(index, model, usable, beyond, price)
    return least_cost_flows(index, model, usable, beyond, price, is_fair=True) if missing else (flows, missing)


def least_cost_flows(
    index: Index, model: Model, usable: Capacity, beyond: Capacity, price: RoutingPrices, *, is_fair: bool = False
) -> tuple[list[Flow], dict[str, float]]:
    """(the min-cost flows of one model, cell -> unserved requests per second)."""
    if not index.demands[model.name]:
        return [], {}
    made = formulate_flows(
        index,
        model,
        usable,
        overload=beyond,
        unserved_usd=price.unserved,
        overload_usd=price.overload,
        is_fair=is_fair,
    )
    found = highs.solve(made.programme)
    assert found is not None, "leaving everything unserved is an answer"
    rates, _ = made.read(found)
    return rounded_flows(index, model, rates)
