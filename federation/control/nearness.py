"""How near users are served: the round trips of their requests, and how much nearer the nearest cluster would be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

import placement as engine
from federation.control.plan import Near
from federation.state.keys import ModelCell
from placement.index import Index
from placement.nearest import nearest_ms

Nearest = Mapping[ModelCell, float]
"""(model, cell) -> round trip in ms to the nearest cluster that could serve, full or not."""
Served = tuple[float, float, float | None]
"""Requests per second, their round trip, and that to the nearest cluster that could serve them; both in ms."""
P95 = 0.95


def nearest(problem: engine.Problem) -> Nearest:
    """Of all users that ask for a model; those that no cluster could serve are not in."""
    index = Index(problem)
    return {
        ModelCell((model.name, cell)): ms for model in problem.models for cell, ms in nearest_ms(index, model).items()
    }


def near(served: Iterable[Served]) -> Near | None:
    """What these requests see; None where there are none."""
    rows = np.array([(rps, rtt_ms, rtt_ms if best is None else best) for rps, rtt_ms, best in served if rps > 0])
    if not rows.size:
        return None
    rps, rtt_ms, best_ms = rows[np.argsort(rows[:, 1], kind="stable")].T
    total = float(rps.sum())
    enough = int(np.searchsorted(np.cumsum(rps), P95 * total * (1 - 1e-12)))
    return Near(
        rtt_ms_mean=float((rtt_ms * rps).sum()) / total,
        rtt_ms_p95=float(rtt_ms[min(enough, len(rtt_ms) - 1)]),
        excess_ms_mean=float((np.maximum(0.0, rtt_ms - best_ms) * rps).sum()) / total,
    )


def of_flows(
    problem: engine.Problem, flows: Iterable[engine.Flow], best: Nearest
) -> tuple[Near | None, dict[str, Near]]:
    """What the flows of a plan make of it: for all its users, and for those of each model that it serves."""
    service_ms = {model.name: model.service_latency_ms for model in problem.models}
    rows: dict[str, list[Served]] = defaultdict(list)
    for flow in flows:
        rtt_ms = max(0.0, flow.latency_ms - service_ms[flow.model])
        rows[flow.model].append((flow.requests_per_second, rtt_ms, best.get(ModelCell((flow.model, flow.cell)))))
    of_models = {name: found for name, served in sorted(rows.items()) if (found := near(served)) is not None}
    return near(row for served in rows.values() for row in served), of_models
