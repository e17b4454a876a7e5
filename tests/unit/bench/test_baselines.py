"""Plans of other tools, made as their competent users would."""

from __future__ import annotations

from collections import defaultdict

import pytest

from placement.index import Index
from placement.problem import Problem
from tests.bench import baselines
from tests.bench.worlds import a_large_world

WORLD = a_large_world(3, clusters=20, cells=40, models=3)


@pytest.mark.parametrize("name", sorted(baselines.BASELINES))
def test_a_baseline_keeps_the_rules_that_ours_keeps(name: str) -> None:
    """A rival that oversells devices or sends people's data abroad would be no rival: readers would be misled."""
    made = baselines.BASELINES[name](WORLD)
    index = Index(WORLD)
    used: dict[str, int] = defaultdict(int)
    usable_rps: dict[tuple[str, str], float] = defaultdict(float)
    for (model, pool), count in made.replicas.items():
        shape = index.models[model].shape_for(index.pools[pool])
        assert shape is not None
        used[pool] += count * shape.devices
        rps = shape.requests_per_second * index.models[model].target_utilisation
        usable_rps[model, index.pools[pool].cluster] += count * rps
    assert all(count <= index.pools[pool].devices for pool, count in used.items())
    load_rps: dict[tuple[str, str], float] = defaultdict(float)
    served_rps: dict[tuple[str, str], float] = defaultdict(float)
    for flow in made.flows:
        assert flow.cluster in index.allowed(index.models[flow.model], index.cells[flow.cell])
        load_rps[flow.model, flow.cluster] += flow.requests_per_second
        served_rps[flow.model, flow.cell] += flow.requests_per_second
    assert all(rps <= usable_rps[key] + 1e-6 for key, rps in load_rps.items())
    for demand in WORLD.demands:
        assert served_rps[demand.model, demand.cell] == pytest.approx(demand.requests_per_second, abs=1e-4)


def test_rivals_are_as_good_as_their_idea() -> None:
    """A rule that is about nearness but serves from afar would make ours look better than it is."""
    waits_ms = {name: _mean_ms(WORLD, plan(WORLD)) for name, plan in baselines.BASELINES.items()}
    near = max(waits_ms["karmada-overflow"], waits_ms["skyserve-like"])
    assert near < waits_ms["greedy"] < waits_ms["karmada-dynamic"]
    usd = {name: _usd(WORLD, plan(WORLD)) for name, plan in baselines.BASELINES.items()}
    assert usd["greedy"] < usd["skyserve-like"] <= usd["karmada-overflow"] + 1e-6


def _mean_ms(problem: Problem, made: baselines.Baseline) -> float:
    total = sum(flow.requests_per_second for flow in made.flows)
    return sum(flow.requests_per_second * flow.latency_ms for flow in made.flows) / total


def _usd(problem: Problem, made: baselines.Baseline) -> float:
    index = Index(problem)
    usd = 0.0
    for (model, name), count in made.replicas.items():
        pool, shape = index.pools[name], index.models[model].shape_for(index.pools[name])
        assert shape is not None
        usd += count * shape.devices * pool.usd_per_device_hour
    return usd
