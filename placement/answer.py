"""What either engine answers, before it is priced and explained: replicas, flows, and a bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from placement.index import Index
from placement.problem import Model
from placement.solution import Flow, Limit

DECIMALS = 6
DUST_RPS = 1e-6
LOOSE_GAP = 0.05
"""A plan this far from its bound is more likely near the best than the bound is: whole replicas, or a shortage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A plan, and what it was found with.

    `counts`: (model, pool) -> replicas above zero. `flows`: by model, cell and cluster. `unserved_rps`: (model, cell)
    -> requests per second. `bound_usd_per_hour`: no plan costs less. `device_usd`: pool -> USD per hour that one more
    device would save; `limit_usd` the same of limits, by limit and subject.
    """

    counts: Mapping[tuple[str, str], int]
    flows: tuple[Flow, ...]
    unserved_rps: Mapping[tuple[str, str], float]
    bound_usd_per_hour: float
    device_usd: Mapping[str, float]
    limit_usd: Mapping[tuple[Limit, str], float] = field(default_factory=dict)


def rounded_flows(
    index: Index, model: Model, rates: Mapping[tuple[str, str], float]
) -> tuple[list[Flow], dict[str, float]]:
    """Flows from (cell, cluster) -> requests per second, and what they leave of each cell."""
    flows = []
    left = {demand.cell: demand.requests_per_second for demand in index.demands[model.name]}
    pairs = sorted(rates)
    for (cell, cluster), rtt_ms in zip(pairs, index.rtts_ms(pairs), strict=True):
        rps = min(round(rates[cell, cluster], DECIMALS), left[cell])
        if rps <= DUST_RPS:
            continue
        left[cell] = max(0.0, left[cell] - rps)
        latency_ms = rtt_ms + model.service_latency_ms
        flows.append(
            Flow(
                model=model.name,
                cell=cell,
                cluster=cluster,
                requests_per_second=rps,
                latency_ms=latency_ms,
                within_objective=latency_ms <= model.objective_ms,
            )
        )
    return flows, {cell: rps for cell, rps in sorted(left.items()) if rps > 10 * DUST_RPS}
