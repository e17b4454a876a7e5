"""Ours beside what users of other tools would plan (`baselines`), on the same input in one run.

Each plan is served by its tool's own routing and by the exact router over the same replicas, and is worth the better of
both when ours is compared. Ours is a frontier: one plan for each price of a millisecond. The point that dominates a
baseline serves at least as many within the objective and at most as far away, and costs the least of all such points.

Risk: zones of recorded spot capacity stand for the spot pools, each pool with the zone that its cluster's name draws.
What is missing for long is replaced on demand; what is newly lost is gone for a warm-up, and the exact router serves
with the rest. So every plan is replaced as fast as any could be.
"""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from placement import costs, engine
from placement.index import Index
from placement.problem import Problem
from placement.solution import Flow
from tests.bench import baselines
from tests.bench.worlds import a_large_world

TRACES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "spot-traces"
CLUSTERS, CELLS, MODELS = 100, 500, 8
SEEDS, LOADS = (1, 2, 3, 4, 5), (0.2, 0.5)
SWEEP_USD_PER_1000_PER_MS = (1e-6, 2e-5, 1e-4, 5e-4, 1e-3, 2e-3, 1e-2)
SAME_WITHIN, SAME_MS = 5e-4, 0.05
"""As many within the objective, and as near: what is less than this is a rounding."""
WARMUP_S = 180.0
TICKS = 4
"""Of the traces' moments of loss that are served again."""
SPOT, NO_SPOT = "spot", "no spot"

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one plan is worth. Shares are of all requests; `usd_per_hour` pays devices, `total_usd_per_hour` also what
    policy charges for late and unserved requests; `excess_ms` is how much farther than the nearest cluster that could
    serve. `risk_usd_per_hour` is the total that is expected where spot is taken back, None where that is not known."""

    within: float
    unserved: float
    rtt_ms_mean: float
    rtt_ms_p95: float
    excess_ms: float
    usd_per_hour: float
    total_usd_per_hour: float
    risk_usd_per_hour: float | None


class Traces:
    """Recorded spot capacity: [zones, ticks] part of the most that was held, and how long a tick is."""

    def __init__(self, folder: Path) -> None:
        rows: list[Floats] = []
        self.gap_s = 300.0
        for file in sorted(folder.glob("*/*.json")):
            read = json.loads(file.read_text(encoding="utf-8"))
            self.gap_s = float(read["metadata"]["gap_seconds"])
            rows.append(np.array(read["data"], dtype=np.float64) / max(read["data"]))
        self.zones: list[Floats] = [row for row in rows if row.mean() > 0.5]
        """A zone that has nothing most of the time is nobody's offer."""

    def zone_of(self, cluster: str) -> Floats:
        """What stands for the spot pools of a cluster."""
        return self.zones[zlib.crc32(cluster.encode()) % len(self.zones)]


def rivals() -> Iterator[dict[str, object]]:
    """For each load, with spot and without: every plan's figures, and the point of ours that dominates each."""
    traces = Traces(TRACES) if TRACES.is_dir() else None
    if traces is None:
        yield {"name": "risk of spot", "value": None, "unit": "skipped: no recorded traces beside the repository"}
    for market in (SPOT, NO_SPOT):
        for load in LOADS:
            found: dict[str, list[Figures]] = defaultdict(list)
            for seed in SEEDS:
                for name, one in compared(_world(seed, load, market), traces if market == SPOT else None, seed):
                    found[name].append(one)
            mean = {name: _mean(rows) for name, rows in found.items()}
            for name, one in mean.items():
                yield {"name": f"load {load} {market}: {name}", **_rounded(one), "seeds": len(SEEDS)}
            yield from _dominating(f"load {load} {market}", mean)


def compared(problem: Problem, traces: Traces | None, seed: int) -> Iterator[tuple[str, Figures]]:
    """Every plan of one world by name, each baseline by its own routing and by the exact router."""
    for name, plan in baselines.BASELINES.items():
        made = plan(problem)
        yield f"{name}, own routing", figures(problem, made.replicas, made.flows)
        routed = engine.route(problem, made.replicas)
        yield f"{name}, exact routing", figures(problem, made.replicas, routed.flows, traces, seed)
    for usd in SWEEP_USD_PER_1000_PER_MS:
        priced = _priced(problem, usd)
        replicas = {(one.model, one.pool): one.replicas for one in engine.solve(priced).replicas}
        routed = engine.route(priced, replicas)
        yield f"ours at {usd:g} USD per 1,000 and ms", figures(problem, replicas, routed.flows, traces, seed)


def _world(seed: int, load: float, market: str) -> Problem:
    problem = a_large_world(seed, clusters=CLUSTERS, cells=CELLS, models=MODELS, load=load)
    if market == SPOT:
        return problem
    return replace(problem, pools=tuple(pool for pool in problem.pools if pool.market != "spot"))


def _priced(problem: Problem, usd_per_1000_per_ms: float) -> Problem:
    models = tuple(replace(one, latency_usd_per_1000_per_ms=usd_per_1000_per_ms) for one in problem.models)
    return replace(problem, models=models)


def figures(
    problem: Problem,
    replicas: baselines.Replicas,
    flows: Iterable[Flow],
    traces: Traces | None = None,
    seed: int = 0,
) -> Figures:
    """What this plan and this routing are worth, recomputed from shapes, prices and round trips."""
    index, flows = Index(problem), list(flows)
    asked_rps = sum(one.requests_per_second for one in problem.demands)
    rps = np.array([flow.requests_per_second for flow in flows])
    served = np.array([index.models[flow.model].service_latency_ms for flow in flows])
    rtt_ms = np.array([flow.latency_ms for flow in flows]) - served
    nearest = _nearest_ms(index)
    least_ms = np.array([nearest[flow.model, flow.cell] for flow in flows])
    within = np.array([flow.latency_ms <= index.models[flow.model].objective_ms for flow in flows])
    order = np.argsort(rtt_ms, kind="stable")
    at_p95 = order[np.searchsorted(np.cumsum(rps[order]), 0.95 * rps.sum())]
    usd = sum(count * _usd(index, model, pool) for (model, pool), count in replicas.items())
    return Figures(
        within=float((rps * within).sum()) / asked_rps,
        unserved=max(0.0, 1.0 - float(rps.sum()) / asked_rps),
        rtt_ms_mean=float((rps * rtt_ms).sum() / rps.sum()),
        rtt_ms_p95=float(rtt_ms[at_p95]),
        excess_ms=float((rps * (rtt_ms - least_ms)).sum() / rps.sum()),
        usd_per_hour=usd,
        total_usd_per_hour=usd + _trouble_usd(index, flows),
        risk_usd_per_hour=_risk_usd(problem, index, replicas, flows, traces, seed) if traces else None,
    )


def _usd(index: Index, model: str, pool: str) -> float:
    """One replica for an hour."""
    shape = index.models[model].shape_for(index.pools[pool])
    assert shape is not None
    return shape.devices * index.pools[pool].usd_per_device_hour


def _nearest_ms(index: Index) -> dict[tuple[str, str], float]:
    """(model, cell) -> round trip to the nearest cluster that has the accelerator and may serve it, full or not."""
    found = {}
    for model in index.problem.models:
        fitting = index.fitting(model)
        for demand in index.demands[model.name]:
            servers = index.servers(model, index.cells[demand.cell], fitting)
            found[model.name, demand.cell] = min(index.rtt_ms[demand.cell, name] for name in servers)
    return found


def _trouble_usd(index: Index, flows: Iterable[Flow]) -> float:
    """What policy charges per hour for late and unserved requests, nearness aside."""
    usd, left = 0.0, {(one.model, one.cell): one.requests_per_second for one in index.problem.demands}
    for flow in flows:
        model = index.models[flow.model]
        left[flow.model, flow.cell] -= flow.requests_per_second
        if flow.latency_ms > model.objective_ms:
            usd += flow.requests_per_second * model.late_usd_per_1000
    usd += sum(max(0.0, rps) * index.models[model].unserved_usd_per_1000 for (model, _), rps in left.items())
    return costs.THOUSANDS_PER_HOUR * usd


# ---- spot that is taken back


def _risk_usd(
    problem: Problem,
    index: Index,
    replicas: baselines.Replicas,
    flows: Iterable[Flow],
    traces: Traces,
    seed: int,
) -> float:
    """USD per hour that are expected: devices, what stands in for missing ones, and requests while losses are fresh."""
    usual_usd = _trouble_usd(index, flows)
    devices_usd = 0.0
    on_demand_usd = _on_demand_usd(index)
    for (model, name), count in replicas.items():
        pool, usd = index.pools[name], count * _usd(index, model, name)
        held = float(traces.zone_of(pool.cluster).mean()) if pool.market == "spot" else 1.0
        shape = index.models[model].shape_for(pool)
        assert shape is not None
        standing_in_usd = count * shape.requests_per_second * on_demand_usd[model]
        devices_usd += held * usd + (1.0 - held) * standing_in_usd
    ticks = min(len(zone) for zone in traces.zones)
    losing = [at for at in range(1, ticks) if any(zone[at] < zone[at - 1] for zone in traces.zones)]
    chosen = np.random.default_rng([seed, 7]).choice(losing, min(TICKS, len(losing)), replace=False)
    fresh_usd = np.mean([_fresh_usd(problem, index, replicas, traces, int(at)) - usual_usd for at in sorted(chosen)])
    share = len(losing) / ticks * min(1.0, WARMUP_S / traces.gap_s)
    return devices_usd + usual_usd + share * max(0.0, float(fresh_usd))


def _on_demand_usd(index: Index) -> Mapping[str, float]:
    """Model -> USD per hour of one request per second on a usual device that is not taken back."""
    found = {}
    for model in index.problem.models:
        options = [one for one in index.options(model) if one.pool.market != "spot"]
        usd = [one.pool.usd_per_device_hour * one.shape.devices / one.shape.requests_per_second for one in options]
        found[model.name] = float(np.median(usd))
    return found


def _fresh_usd(problem: Problem, index: Index, replicas: baselines.Replicas, traces: Traces, at: int) -> float:
    """Late and unserved requests per hour with what is left at the moment `at`, before anything is replaced."""
    left = {}
    for (model, name), count in replicas.items():
        zone = traces.zone_of(index.pools[name].cluster)
        part = min(1.0, zone[at] / zone[at - 1]) if zone[at - 1] > 0 else 1.0
        kept = round(count * part) if index.pools[name].market == "spot" else count
        if kept:
            left[model, name] = kept
    return _trouble_usd(index, engine.route(problem, left).flows)


# ---- who dominates whom


def _mean(rows: list[Figures]) -> Figures:
    values = [asdict(row) for row in rows]
    known = {name: [row[name] for row in values if row[name] is not None] for name in values[0]}
    return Figures(**{name: float(np.mean(some)) if some else None for name, some in known.items()})  # type: ignore[arg-type]


def _dominating(where: str, mean: Mapping[str, Figures]) -> Iterator[dict[str, object]]:
    """For each baseline the cheapest point of ours that is as near and as often within the objective."""
    ours = {name: one for name, one in mean.items() if name.startswith("ours")}
    for baseline in baselines.BASELINES:
        both = [one for name, one in mean.items() if name.startswith(f"{baseline},")]
        theirs = max(both, key=lambda one: (round(one.within - one.unserved, 3), -one.rtt_ms_mean))
        near = {name: one for name, one in ours.items() if is_as_good(one, theirs)}
        best = min(near, key=lambda name: near[name].total_usd_per_hour, default="none")
        yield {
            "name": f"{where}: dominates {baseline}",
            "value": near[best].total_usd_per_hour if near else None,
            "unit": "USD/h",
            "baseline": baseline,
            "baseline_value": theirs.total_usd_per_hour,
            "ratio": near[best].total_usd_per_hour / theirs.total_usd_per_hour if near else None,
            "point": best,
            "rtt_ms_mean": [near[best].rtt_ms_mean if near else None, theirs.rtt_ms_mean],
            "within": [near[best].within if near else None, theirs.within],
        }


def is_as_good(one: Figures, other: Figures) -> bool:
    """As many within the objective, as near, and no more unserved."""
    return (
        one.within >= other.within - SAME_WITHIN
        and one.rtt_ms_mean <= other.rtt_ms_mean + SAME_MS
        and one.unserved <= other.unserved + SAME_WITHIN
    )


def _rounded(figures: Figures) -> dict[str, float | None]:
    return {name: None if value is None else round(value, 5) for name, value in asdict(figures).items()}
