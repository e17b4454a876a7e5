"""The bench beside other tools."""

from __future__ import annotations

from dataclasses import replace

import pytest

from placement import engine
from tests.bench import baselines, rivals
from tests.bench.worlds import a_large_world

WORLD = a_large_world(3, clusters=20, cells=40, models=3)


def test_figures_are_those_of_the_engine() -> None:
    """Readers would compare plans by figures that are not what they cost and how near they are."""
    solution = engine.solve(WORLD)
    replicas = {(one.model, one.pool): one.replicas for one in solution.replicas}
    found = rivals.figures(WORLD, replicas, solution.flows)
    assert found.usd_per_hour == pytest.approx(solution.cost.accelerators)
    charged = solution.cost.accelerators + solution.cost.late + solution.cost.unserved
    assert found.total_usd_per_hour == pytest.approx(charged)
    assert 0 < found.excess_ms < found.rtt_ms_mean <= found.rtt_ms_p95
    assert found.risk_usd_per_hour is None


def test_a_point_dominates_only_what_it_is_as_good_as() -> None:
    """A published comparison would count plans that serve fewer users as equals."""
    made = baselines.greedy(WORLD)
    found = rivals.figures(WORLD, made.replicas, made.flows)
    assert rivals.is_as_good(found, found)
    assert not rivals.is_as_good(replace(found, rtt_ms_mean=found.rtt_ms_mean + 1.0), found)
    assert not rivals.is_as_good(replace(found, within=found.within - 0.01), found)
    assert not rivals.is_as_good(replace(found, unserved=found.unserved + 0.01), found)
