"""Who grew beyond what was known of them takes nothing from whom everybody knew."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace

import msgspec
import pytest

from placement import engine
from placement.check import check, check_routing
from placement.problem import Cell, Cluster, Demand, Model, Path, Pool, Problem, Shape
from placement.solution import Routing
from tests.properties.worlds import a_world

WORLDS = range(80)
SIZES = pytest.mark.parametrize("pairs", [engine.LARGE_PAIRS, -1], ids=["small", "large"])


def grown(problem: Problem, rng: random.Random) -> Problem:
    """The same where some cells claim up to forty times as much, which nobody vouches for."""
    demands = []
    for one in problem.demands:
        more = round(one.requests_per_second * rng.uniform(5, 40), 2) if rng.random() < 0.4 else 0.0
        total = one.requests_per_second + more
        demands.append(msgspec.structs.replace(one, requests_per_second=total, grown_rps=more))
    return replace(problem, demands=tuple(demands))


def served_rps(problem: Problem, routing: Routing) -> dict[tuple[str, str], float]:
    """(model, cell) -> requests per second that are served."""
    found: dict[tuple[str, str], float] = defaultdict(float)
    for flow in routing.flows:
        found[flow.model, flow.cell] += flow.requests_per_second
    return found


@SIZES
@pytest.mark.timeout(400)  # the first call compiles, for most of a minute
def test_growth_takes_no_replica_that_known_users_need(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One front door that claims sixteen times its users would take a region's replicas from everybody else's."""
    monkeypatch.setattr(engine, "LARGE_PAIRS", pairs)
    short = 0
    for seed in WORLDS:
        rng = random.Random(seed)
        before = a_world(seed)
        ready = {(one.model, one.pool): one.replicas for one in before.current}
        after = grown(before, rng)
        honest = served_rps(before, engine.route(before, ready))
        routing = engine.route(after, ready)
        assert check_routing(after, ready, routing) == (), f"seed {seed}"
        mixed = served_rps(after, routing)
        for model in {one.model for one in before.demands}:
            mine = sum(rps for key, rps in honest.items() if key[0] == model)
            known = sum(
                min(mixed[one.model, one.cell], one.requests_per_second - one.grown_rps)
                for one in after.demands
                if one.model == model
            )
            assert known >= mine - 1e-3, f"seed {seed}: {model}"
        for one in after.demands:
            if not one.grown_rps:
                key = one.model, one.cell
                least = min(mixed[key], honest[key])
                short += one.requests_per_second - least > 1.0
    assert short, "some of these worlds have too few replicas for all"


def test_devices_go_to_known_users_first() -> None:
    """The last devices would go to a model that one front door says is asked for, and not to one that is."""
    shape = Shape(product="L4", devices=1, requests_per_second=10.0)
    prices = {"dear": 24.0, "fair": 20.0}
    problem = Problem(
        clusters=(Cluster(name="fra", provider="test", region="fra"),),
        pools=(Pool(cluster="fra", product="L4", vram_gib=24, devices=10, usd_per_device_hour=1.0),),
        models=tuple(
            Model(
                name=name,
                shapes=(shape,),
                objective_ms=200.0,
                late_usd_per_1000=0.5,
                unserved_usd_per_1000=usd,
                target_utilisation=1.0,
            )
            for name, usd in prices.items()
        ),
        cells=(Cell(name="fra", country="DE"),),
        demands=(
            Demand(model="dear", cell="fra", requests_per_second=320.0, grown_rps=300.0),
            Demand(model="fair", cell="fra", requests_per_second=60.0),
        ),
        paths=(Path(cell="fra", cluster="fra", rtt_ms=10.0),),
    )
    solution = engine.solve(problem)
    assert check(problem, solution) == ()
    assert {one.model: one.replicas for one in solution.replicas} == {"dear": 4, "fair": 6}
    trusted = replace(problem, demands=tuple(msgspec.structs.replace(one, grown_rps=0.0) for one in problem.demands))
    assert {one.model: one.replicas for one in engine.solve(trusted).replicas} == {"dear": 10}


def test_growth_is_served_where_there_is_room() -> None:
    """Users who came today would be turned away from replicas that stand idle."""
    for seed in WORLDS:
        after = grown(a_world(seed, models=1), random.Random(seed))
        trusted = replace(after, demands=tuple(msgspec.structs.replace(one, grown_rps=0.0) for one in after.demands))
        growth, all_known = engine.solve(after), engine.solve(trusted)
        lost = [sum(one.requests_per_second for one in made.unserved) for made in (growth, all_known)]
        assert lost[0] == pytest.approx(lost[1], rel=0.02, abs=0.5), f"seed {seed}"
