"""Routing of one model over fixed capacity as a linear programme: a transportation problem with caps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from placement import costs
from placement.highs import Found, Programme
from placement.index import Index
from placement.problem import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowProgramme:
    """A transportation programme with the meaning of its columns and rows."""

    programme: Programme
    flows: dict[tuple[str, str], int]
    unserved: dict[str, int]
    demand_rows: dict[str, int]
    capacity_rows: dict[str, int]
    cap_rows: dict[str, int]
    """Continent -> the row of its cap."""

    def read(self, found: Found) -> tuple[dict[tuple[str, str], float], dict[str, float]]:
        """((cell, cluster) -> requests per second, cell -> unserved requests per second)."""
        flows = {key: float(found.values[column]) for key, column in self.flows.items()}
        return flows, {cell: float(found.values[column]) for cell, column in self.unserved.items()}


def formulate_flows(
    index: Index,
    model: Model,
    capacity: Mapping[str, float],
    *,
    overload: Mapping[str, float],
    unserved_usd: float,
    overload_usd: float,
    is_fair: bool = False,
) -> FlowProgramme:
    """The routing of `model` for fixed replicas.

    Args: capacity: cluster -> requests per second at the target utilisation. overload: cluster -> requests per second
        above it. unserved_usd, overload_usd: USD per hour of one such request per second. is_fair: minimise the largest
        unserved share of any cell that can be served.
    """
    programme = Programme()
    demands = index.demands[model.name]
    part = programme.column(unserved_usd * sum(one.requests_per_second for one in demands)) if is_fair else -1
    into: dict[str, dict[int, float]] = {cluster: {} for cluster in sorted(capacity)}
    flows: dict[tuple[str, str], int] = {}
    unserved: dict[str, int] = {}
    demand_rows: dict[str, int] = {}
    capacity_rows: dict[str, int] = {}
    leaving: dict[str, dict[int, float]] = defaultdict(dict)
    for demand in demands:
        unserved[demand.cell] = programme.column(unserved_usd)
        terms = {unserved[demand.cell]: 1.0}
        for cluster in index.servers(model, index.cells[demand.cell], capacity):
            latency_ms = index.latency_ms(model, demand.cell, cluster)
            column = programme.column(costs.served_usd_per_rps(model, index.clusters[cluster], latency_ms))
            flows[demand.cell, cluster] = column
            terms[column] = 1.0
            into[cluster][column] = 1.0
            if model.is_capped and index.leaves(demand.cell, cluster):
                leaving[index.cells[demand.cell].continent][column] = 1.0
        wanted = demand.requests_per_second
        demand_rows[demand.cell] = programme.row(terms, lower=wanted, upper=wanted)
        if is_fair and len(terms) > 1:
            programme.row({unserved[demand.cell]: 1.0, part: -demand.requests_per_second}, upper=0.0)
    for cluster, terms in into.items():
        if overload.get(cluster, 0.0) > 0:
            slack = programme.column(overload_usd, upper=overload[cluster])
            terms = {**terms, slack: -1.0}
        capacity_rows[cluster] = programme.row(terms, upper=capacity[cluster])
    return FlowProgramme(
        programme=programme,
        flows=flows,
        unserved=unserved,
        demand_rows=demand_rows,
        capacity_rows=capacity_rows,
        cap_rows=add_caps(programme, index, model, leaving),
    )


def add_caps(
    programme: Programme, index: Index, model: Model, leaving: Mapping[str, Mapping[int, float]]
) -> dict[str, int]:
    """Add the rows of caps; gives continent -> its row. Args: leaving: continent -> columns of flows that leave it."""
    most = index.may_leave_rps(model) if leaving else {}
    return {name: programme.row(dict(terms), upper=most[name]) for name, terms in sorted(leaving.items())}
