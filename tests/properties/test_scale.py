"""The engine for large worlds, on small ones where the truth is known, and on one that is large."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs

from placement import engine
from placement.check import check, check_routing
from placement.problem import Cell, Cluster, Demand, Model, Path, Pool, Problem, Shape
from placement.routing import transport
from placement.solution import Solution
from tests.bench.worlds import a_large_world
from tests.properties.worlds import a_world

pytestmark = pytest.mark.timeout(400)  # the first call compiles, for most of a minute
WORLDS = range(120)


def solved_as_large(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> Solution:
    """The large engine's answer, whatever the size."""
    with monkeypatch.context() as patched:
        patched.setattr(engine, "LARGE_PAIRS", -1)
        return engine.solve(problem)


def test_no_rule_is_broken_and_the_bound_is_below_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large fleet would be overfilled or leave a jurisdiction; or its plan would look nearer the best than it is."""
    compared, dearer = 0, []
    for seed in WORLDS:
        problem = a_world(seed)
        exact, large = engine.solve(problem), solved_as_large(problem, monkeypatch)
        assert check(problem, large) == (), f"seed {seed}"
        if not exact.shortfalls and not large.shortfalls:
            compared += 1
            assert large.bound_usd_per_hour <= exact.cost.total + 1e-3, f"seed {seed}: the bound is no bound"
            dearer.append(large.cost.total / max(exact.cost.total, 1e-9) - 1)
    assert compared > len(WORLDS) // 4
    assert float(np.median(dearer)) < 1e-6, "most tiny worlds are solved to the optimum"


def test_routes_are_as_good_as_those_of_small_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large fleet would send users to full or far replicas, or turn them away beside free ones."""
    compared = 0
    for seed in WORLDS:
        problem = a_world(seed)
        ready = {(one.model, one.pool): one.replicas for one in problem.current}
        exact = engine.route(problem, ready)
        with monkeypatch.context() as patched:
            patched.setattr(engine, "LARGE_PAIRS", -1)
            large = engine.route(problem, ready)
        assert check_routing(problem, ready, large) == (), f"seed {seed}"
        left = [sum(one.requests_per_second for one in routing.unserved) for routing in (exact, large)]
        assert left[1] == pytest.approx(left[0], abs=1e-3), f"seed {seed}"
        if left[0] < 1e-6:  # in a shortage small worlds are fair besides, at any price
            assert large.cost.total == pytest.approx(exact.cost.total, abs=1e-5), f"seed {seed}"
        compared += bool(exact.flows)
    assert compared > len(WORLDS) // 4


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("load", [0.6, 0.95, 1.2])
@pytest.mark.parametrize("is_capped", [False, True])
def test_routing_of_many_cells_is_proven_to_be_the_best(seed: int, load: float, is_capped: bool) -> None:
    """Users of the largest fleets would be sent farther than they need be, and nobody could tell."""
    chance = np.random.default_rng(seed)
    cells, clusters = 3 * transport.SAMPLE, 40
    usd = chance.uniform(0.0, 1.0, (cells, clusters)).round(3) + (chance.random((cells, clusters)) < 0.3)
    usd[chance.random((cells, clusters)) < 0.2] = np.inf
    rps = chance.lognormal(0.0, 1.5, cells)
    part = chance.dirichlet(np.full(clusters, 0.7))
    asked = transport.TransportProblem(
        usd=np.append(usd, np.full((cells, 1), 9.0), axis=1),
        rps=rps,
        most=part * rps.sum() / load,
        over=part * rps.sum() * 0.1,
        over_usd=3.0,
        unserved_usd=9.0,
        cap_of=np.where(is_capped & (np.arange(cells) % 3 == 0), 0, -1),
        leaving=np.broadcast_to(np.arange(clusters) % 2 == 0, (cells, clusters)),
        cap_rps=np.array([rps[::3].sum() * 0.3] if is_capped else []),
    )
    found = transport.solve(asked)
    assert found.usd == pytest.approx(found.bound_usd, rel=1e-9), "a bound that is derived from the prices alone"
    served = np.bincount(found.cell, found.rps, minlength=cells)
    assert (served <= rps + 1e-6).all()
    load_rps = np.bincount(found.cluster, found.rps, minlength=clusters)
    assert (load_rps <= asked.most + asked.over + 1e-6).all()
    left = (asked.cap_of[found.cell] == 0) & asked.leaving[found.cell, found.cluster]
    assert found.rps[left].sum() <= asked.cap_rps.sum() + 1e-6
    assert np.isfinite(usd[found.cell, found.cluster]).all()
    for start in (found.prices, found.prices[::-1].copy(), np.where(chance.random(clusters) < 0.3, np.nan, 1.0)):
        again = transport.solve(asked, start)
        assert again.usd == pytest.approx(found.usd, rel=1e-9), "wherever it begins"
        assert again.bound_usd == pytest.approx(found.usd, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_a_routing_that_begins_at_the_last_one_is_as_good_as_one_that_begins_at_nothing(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a while of small changes users would be served worse than after a restart."""
    monkeypatch.setattr(engine, "LARGE_PAIRS", -1)
    problem = a_large_world(seed, clusters=30, cells=400, models=3)
    ready = {(one.model, one.pool): one.replicas for one in engine.solve(problem).replicas}
    last, chance = engine.route(problem, ready), np.random.default_rng(seed)
    lost = {key: count for key, count in ready.items() if chance.random() < 0.8}
    noisy = replace(
        problem,
        demands=tuple(
            structs.replace(one, requests_per_second=one.requests_per_second * chance.uniform(0.9, 1.1))
            for one in problem.demands
        ),
    )
    for counts in (ready, lost):
        warm, cold = engine.route(noisy, counts, last), engine.route(noisy, counts)
        assert warm.gap < 1e-6 > cold.gap
        assert warm.cost.total == pytest.approx(cold.cost.total, rel=1e-6)
        assert check_routing(noisy, counts, warm) == ()


@pytest.mark.parametrize("pairs", [-1, engine.LARGE_PAIRS])
def test_headroom_is_used_before_requests_are_late(pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Users would wait half a second for a cluster far away, beside replicas that keep a fifth of what they can."""
    monkeypatch.setattr(engine, "LARGE_PAIRS", pairs)
    near, far = Cluster(name="near", provider="p", region="r"), Cluster(name="far", provider="p", region="s")
    pools = tuple(
        Pool(cluster=one.name, product="L4", vram_gib=24, devices=8, usd_per_device_hour=1.0) for one in (near, far)
    )
    model = Model(
        name="chat",
        shapes=(Shape(product="L4", devices=1, requests_per_second=10.0),),
        objective_ms=100.0,
        service_latency_ms=10.0,
        target_utilisation=0.8,
        late_usd_per_1000=0.5,
        unserved_usd_per_1000=5.0,
    )
    problem = Problem(
        clusters=(far, near),
        pools=pools,
        models=(model,),
        cells=(Cell(name="users", country="DE"),),
        demands=(Demand(model="chat", cell="users", requests_per_second=10.0),),
        paths=(Path(cell="users", cluster="near", rtt_ms=10.0), Path(cell="users", cluster="far", rtt_ms=500.0)),
    )
    one, two = (("chat", pool.name) for pool in problem.pools)
    both = {flow.cluster: flow.requests_per_second for flow in engine.route(problem, {one: 1, two: 1}).flows}
    assert both == {"near": 10.0}
    nearest = "near" if "near" in one[1] else "far"
    alone = engine.route(problem, {one: 1})
    assert {flow.cluster: flow.requests_per_second for flow in alone.flows} == {nearest: 10.0}
    assert not alone.unserved
    assert [(told.cluster, told.requests_per_second) for told in alone.over] == [(nearest, 2.0)]
    assert "would go unserved" in alone.over[0].reason
    told = engine.route(problem, {one: 1, two: 1}).over
    assert [one.cluster for one in told] == ["near"]
    assert "would be late" in told[0].reason
    as_planned = engine.route(problem, {one: 1, two: 1}, foreseen={"chat": 0.2})
    assert {flow.cluster: flow.requests_per_second for flow in as_planned.flows} == {"near": 8.0, "far": 2.0}
    assert as_planned.over == (), "the plan serves them late too, and counts on the headroom for a loss"


@pytest.mark.parametrize("pairs", [-1, engine.LARGE_PAIRS])
def test_headroom_is_kept_when_all_can_be_served_in_time_without_it(
    pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replicas would run hot for a few milliseconds, and have nothing left when users come or a cluster goes."""
    monkeypatch.setattr(engine, "LARGE_PAIRS", pairs)
    near, far = Cluster(name="near", provider="p", region="r"), Cluster(name="far", provider="p", region="s")
    pools = tuple(
        Pool(cluster=one.name, product="L4", vram_gib=24, devices=8, usd_per_device_hour=1.0) for one in (near, far)
    )
    model = Model(
        name="chat",
        shapes=(Shape(product="L4", devices=1, requests_per_second=10.0),),
        objective_ms=100.0,
        target_utilisation=0.8,
        late_usd_per_1000=0.01,
        unserved_usd_per_1000=5.0,
        latency_usd_per_1000_per_ms=0.01,
    )
    problem = Problem(
        clusters=(far, near),
        pools=pools,
        models=(model,),
        cells=(Cell(name="users", country="DE"),),
        demands=(Demand(model="chat", cell="users", requests_per_second=10.0),),
        paths=(Path(cell="users", cluster="near", rtt_ms=10.0), Path(cell="users", cluster="far", rtt_ms=60.0)),
    )
    routed = engine.route(problem, {("chat", pool.name): 1 for pool in problem.pools})
    assert {flow.cluster: flow.requests_per_second for flow in routed.flows} == {"near": 8.0, "far": 2.0}
    assert routed.over == ()


@pytest.fixture(scope="module")
def problem() -> Problem:
    return a_large_world(1, clusters=40, cells=400, models=4)


def test_a_large_world_is_within_its_rules_and_near_its_bound(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fleet would be told to run what does not fit, or pay for what it need not."""
    solution = solved_as_large(problem, monkeypatch)
    assert check(problem, solution) == ()
    assert not solution.unserved
    assert 0 <= solution.gap < 0.03
    assert not solution.is_loose


def test_starts_that_cost_are_counted_and_bound_what_is_possible(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A first plan would be called far from the best, or cost more than it says, where models take long to warm up."""
    warm = replace(problem, models=tuple(replace(one, warmup_s=300.0, move_usd=0.1) for one in problem.models))
    solution = solved_as_large(warm, monkeypatch)
    assert check(warm, solution) == ()
    assert solution.cost.moves > 0
    assert 0 <= solution.gap < 0.03
    again = solved_as_large(replace(warm, current=solution.replicas), monkeypatch)
    assert check(replace(warm, current=solution.replicas), again) == ()
    assert again.cost.moves < 0.05 * solution.cost.moves
    assert again.cost.total <= 1.02 * (solution.cost.total - solution.cost.moves)


def test_what_runs_is_kept_unless_moving_is_worth_it(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every cycle would restart replicas for a rounding."""
    costly = replace(problem, models=tuple(replace(model, move_usd=5.0) for model in problem.models))
    first = solved_as_large(costly, monkeypatch)
    noisy = tuple(
        structs.replace(one, requests_per_second=one.requests_per_second * (1.03 if at % 2 else 0.97))
        for at, one in enumerate(costly.demands)
    )
    second = solved_as_large(replace(costly, demands=noisy, current=first.replicas), monkeypatch)
    before = {(one.model, one.pool): one.replicas for one in first.replicas}
    after = {(one.model, one.pool): one.replicas for one in second.replicas}
    moved = sum(max(0, count - before.get(key, 0)) for key, count in after.items())
    assert moved <= 0.03 * sum(before.values())
    assert second.cost.unserved <= 0.001 * second.cost.total


def test_a_lost_region_leaves_nobody_unserved_that_policy_protects(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The insurance that policy pays for would not pay out on the day of the loss."""
    models = tuple(replace(model, survive="region") for model in problem.models)
    protected = replace(problem, models=models)
    solution = solved_as_large(protected, monkeypatch)
    assert check(protected, solution) == ()
    assert not solution.shortfalls
    regions = {cluster.name: cluster.region for cluster in problem.clusters}
    for lost in sorted(set(regions.values())):
        left = {
            (one.model, one.pool): one.replicas for one in solution.replicas if regions[one.pool.split("/")[0]] != lost
        }
        missing = sum(one.requests_per_second for one in engine.route(problem, left).unserved)
        assert missing < 0.01, lost


@pytest.mark.parametrize("fraction", [0.2, 0.0])
def test_a_rush_in_europe_fills_other_continents_no_more_than_policy_allows(
    problem: Problem, fraction: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large fleet would let one continent's rush cascade to the next, or believe a bound that forgets the cap."""
    users = {cell.name: cell.continent for cell in problem.cells}
    home = {cluster.name: cluster.continent for cluster in problem.clusters}
    rush = tuple(
        structs.replace(one, requests_per_second=6 * one.requests_per_second) if users[one.cell] == "EU" else one
        for one in problem.demands
    )
    models = tuple(replace(model, other_continents_max_fraction=fraction) for model in problem.models)
    capped = replace(problem, demands=rush, models=models)
    solution = solved_as_large(capped, monkeypatch)
    assert check(capped, solution) == ()
    assert 0 <= solution.gap < 0.03
    asked = sum(one.requests_per_second for one in rush if users[one.cell] == "EU")
    free = solved_as_large(replace(problem, demands=rush), monkeypatch)
    left = [
        sum(f.requests_per_second for f in found.flows if users[f.cell] == "EU" != home[f.cluster]) / asked
        for found in (solution, free)
    ]
    assert left[0] <= fraction + 1e-6 and left[0] < left[1]
    assert free.cost.total < solution.cost.total
    ready = {(one.model, one.pool): one.replicas for one in free.replicas}
    with monkeypatch.context() as patched:
        patched.setattr(engine, "LARGE_PAIRS", -1)
        routing = engine.route(capped, ready)
    assert check_routing(capped, ready, routing) == ()


PROGRAMME = """
import hashlib
from dataclasses import replace
from placement import engine
from placement.index import Index
from placement.large import plan as large
from tests.bench.worlds import a_large_world
world = a_large_world(5, clusters=8, cells=40, models=2)
capped = replace(world, models=tuple(replace(one, other_continents_max_fraction=0.1) for one in world.models))
made = [large.solve(Index(one)) for one in (world, capped)]
engine.LARGE_PAIRS = -1
ready = {key: max(1, count // 2) for key, count in made[0].counts.items()}
made += [engine.route(one, ready).flows for one in (world, capped)]
print(hashlib.sha256(repr(made).encode()).hexdigest())
"""


@pytest.mark.slow
def test_compiled_and_plain_give_the_same_bytes() -> None:
    """Two controllers, one of them where numba cannot compile, would disagree on the same world."""
    answers = set()
    for disabled, seed in (("0", "1"), ("1", "2")):
        environment = {**os.environ, "NUMBA_DISABLE_JIT": disabled, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAMME], env=environment, capture_output=True, text=True, check=True, timeout=110
        )
        answers.add(done.stdout.splitlines()[-1])
    assert len(answers) == 1
    assert len(answers.pop()) == hashlib.sha256().digest_size * 2
