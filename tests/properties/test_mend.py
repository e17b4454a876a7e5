"""A large plan that is mended after events: nothing breaks a rule, what is not touched stays, and the plan is near its
bound again."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from msgspec import structs

from placement import engine
from placement.check import check
from placement.index import Index
from placement.large import local_search, reoptimise
from placement.large import plan as large
from placement.large.encoding import encode
from placement.large.reoptimise import Reoptimiser
from placement.problem import Intake, Placed, Pool, Problem, RttMatrix
from placement.replanner import Replanner
from placement.solution import Solution
from tests.bench.worlds import a_large_world
from tests.properties.worlds import a_world

pytestmark = pytest.mark.timeout(400)  # the first call compiles, for most of a minute
WORLDS = range(80)


def without(problem: Problem, cluster: str) -> Problem:
    gone = {pool.name for pool in problem.pools if pool.cluster == cluster}
    return replace(
        problem,
        pools=tuple(pool for pool in problem.pools if pool.cluster != cluster),
        current=tuple(one for one in problem.current if one.pool not in gone),
        room=tuple(one for one in problem.room if one.pool not in gone),
    )


def with_pool(problem: Problem, pool: Pool) -> Problem:
    return replace(problem, pools=tuple(pool if one.name == pool.name else one for one in problem.pools))


def needs(index: Index, placed: Placed, pool: Pool) -> int:
    """Devices of one replica."""
    shape = index.models[placed.model].shape_for(pool)
    return shape.devices if shape is not None else 0


def solution(problem: Problem, mended: Reoptimiser) -> Solution:
    answer = replace(mended.answer, bound_usd_per_hour=0.0, device_usd={}, limit_usd={})
    return engine.solution_of(Index(problem), answer)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return a_large_world(1, clusters=40, cells=400, models=4)


@pytest.fixture(scope="module")
def planned(problem: Problem) -> Reoptimiser:
    index = Index(problem)
    return Reoptimiser(index, large.plan(index))


def busiest(mended: Reoptimiser, count: int) -> list[str]:
    replicas: dict[str, int] = defaultdict(int)
    for (_, pool), number_of in mended.incumbent.counts().items():
        replicas[pool.partition("/")[0]] += number_of
    return sorted(replicas, key=lambda name: (-replicas[name], name))[:count]


def test_sums_stay_true_whatever_is_lost() -> None:
    """Replicas would be counted that are gone, or requests be sent to nobody, after the first event of many."""
    lost = 0
    for seed in WORLDS:
        world = a_world(seed)
        index = Index(world)
        mended = Reoptimiser(index, large.plan(index))
        for cluster in busiest(mended, 2):
            mended.drop_clusters([cluster])
            mended.repair()
            lost += 1
            standing, names = mended.incumbent, {one.name: one for one in world.pools}
            used: dict[str, int] = defaultdict(int)
            capacity: dict[tuple[str, str], float] = defaultdict(float)
            for (name, pool), count in standing.counts().items():
                shape = index.models[name].shape_for(names[pool])
                assert shape is not None and names[pool].cluster != cluster, f"seed {seed}"
                used[pool] += count * shape.devices
                rps = shape.requests_per_second * index.models[name].target_utilisation
                capacity[name, names[pool].cluster] += count * rps
            for pool, devices in used.items():
                held = sum(one.replicas * needs(index, one, names[pool]) for one in world.current if one.pool == pool)
                assert devices <= max(names[pool].devices, held), f"seed {seed}"
            load: dict[tuple[str, str], float] = defaultdict(float)
            served: dict[tuple[str, str], float] = defaultdict(float)
            for name, flows in standing.rates().items():
                for (cell, to), rps in flows.items():
                    load[name, to] += rps
                    served[name, cell] += rps
            assert all(rps <= capacity[node] + 1e-6 for node, rps in load.items()), f"seed {seed}"
            asked = sum(one.requests_per_second for one in world.demands)
            assert sum(served.values()) + standing.unserved_rps == pytest.approx(asked, abs=1e-6), f"seed {seed}"
    assert lost > len(WORLDS) // 2


def test_users_of_other_clusters_notice_nothing_of_a_loss(planned: Reoptimiser) -> None:
    """A lost cluster would shake the whole fleet in the moment when it has the least to spare."""
    for cluster in busiest(planned, 3):
        mended = planned.copy()
        before = mended.incumbent.rates()
        replicas = {key: count for key, count in mended.incumbent.counts().items() if not key[1].startswith(cluster)}
        mended.drop_clusters([cluster])
        assert mended.incumbent.counts() == replicas
        after = mended.incumbent.rates()
        for model, flows in before.items():
            hurt = {cell for cell, to in flows if to == cluster}
            kept = {pair: rps for pair, rps in flows.items() if pair[0] not in hurt}
            assert {pair: rps for pair, rps in after[model].items() if pair[0] not in hurt} == pytest.approx(kept)


def test_after_a_loss_the_plan_is_near_the_best_again(problem: Problem, planned: Reoptimiser) -> None:
    """Each loss would leave users unserved, or the fleet dearer than it need be, until somebody planned anew."""
    for cluster in busiest(planned, 3):
        mended = planned.copy()
        mended.drop_clusters([cluster])
        mended.repair()
        left = without(problem, cluster)
        assert check(left, solution(left, mended)) == ()
        anew = large.plan(Index(left)).incumbent
        assert mended.incumbent.usd_per_hour < 1.05 * anew.usd_per_hour, cluster


def with_noise(problem: Problem, seed: int) -> Problem:
    """All demand 3 % other."""
    rng = np.random.default_rng(seed)
    return replace(
        problem,
        demands=tuple(
            structs.replace(one, requests_per_second=one.requests_per_second * float(rng.lognormal(0.0, 0.03)))
            for one in problem.demands
        ),
    )


def with_slower_paths(problem: Problem, seed: int) -> Problem:
    """All latencies a little other."""
    rng = np.random.default_rng(seed)
    assert isinstance(problem.paths, RttMatrix)
    rtt_ms = (problem.paths.rtt_ms * rng.lognormal(0.0, 0.005, problem.paths.rtt_ms.shape)).astype(np.float32)
    return replace(problem, paths=replace(problem.paths, rtt_ms=rtt_ms))


def as_it_runs(problem: Problem, mended: Reoptimiser) -> Problem:
    """The same, with the plan carried out."""
    counts = mended.incumbent.counts()
    return replace(problem, current=tuple(Placed(model=m, pool=p, replicas=n) for (m, p), n in sorted(counts.items())))


def become(mended: Reoptimiser, problem: Problem, gap: float = 0.05) -> Solution:
    """The plan for this world, checked."""
    assert mended.update(Index(problem))
    made = engine.solution_of(Index(problem), mended.answer)
    assert check(problem, made) == ()
    assert made.gap < gap
    return made


def test_new_demand_everywhere_moves_little(problem: Problem, planned: Reoptimiser) -> None:
    """Every breath of demand would restart replicas all over the fleet."""
    noisy = with_noise(problem, 1)
    mended = planned.copy()
    before = mended.incumbent.counts()
    become(mended, noisy)
    after = mended.incumbent.counts()
    started = sum(max(0, count - before.get(key, 0)) for key, count in after.items())
    assert started <= 0.03 * sum(before.values())
    assert mended.incumbent.usd_per_hour < 1.02 * large.priced(encode(Index(noisy)))[1]


def test_latencies_that_are_a_little_other_do_not_exchange_what_is_as_good() -> None:
    """Models would change places on devices that suit them alike, with each breath of the network."""
    problem = a_large_world(2, clusters=80, cells=800, models=8)
    planned = Reoptimiser(Index(problem), large.plan(Index(problem)))
    before, started = planned.incumbent.counts(), 0
    for seed in range(3):
        mended = planned.copy()
        become(mended, with_slower_paths(problem, seed))
        started += sum(max(0, count - before.get(key, 0)) for key, count in mended.incumbent.counts().items())
    assert started <= 3 * 0.08 * sum(before.values())


def test_a_pool_that_shrinks_and_one_that_gets_dearer_are_used_less(problem: Problem, planned: Reoptimiser) -> None:
    """Replicas would be planned on devices that are gone, or kept where they cost ten times as much as elsewhere."""
    counts = planned.incumbent.counts()
    by_pool: dict[str, int] = defaultdict(int)
    for (_, at), count in counts.items():
        by_pool[at] += count
    largest = max(by_pool, key=lambda name: (by_pool[name], name))
    pool = next(one for one in problem.pools if one.name == largest)
    mended = planned.copy()
    shrunk = with_pool(problem, replace(pool, devices=pool.devices // 2))
    become(mended, shrunk)
    assert mended.incumbent.usd_per_hour < 1.03 * large.priced(encode(Index(shrunk)))[1]

    mended = planned.copy()
    dear = with_pool(problem, replace(pool, usd_per_device_hour=10 * pool.usd_per_device_hour))
    become(mended, dear)
    used = sum(count for (_, name), count in mended.incumbent.counts().items() if name == pool.name)
    assert used < by_pool[pool.name]
    assert mended.incumbent.usd_per_hour < 1.05 * large.priced(encode(Index(dear)))[1]


def test_day_after_day_each_plan_keeps_the_rules_and_follows_the_last(problem: Problem, planned: Reoptimiser) -> None:
    """A fleet whose numbers change in every cycle would be shaken by each, or run on a plan for another world."""
    mended, world = planned.copy(), problem
    for at, cluster in enumerate([*busiest(planned, 2), ""]):
        world = with_slower_paths(with_noise(as_it_runs(world, mended), at), at)
        if cluster:
            world = without(world, cluster)
        before = mended.incumbent.counts()
        become(mended, world, gap=0.05)
        after = mended.incumbent.counts()
        assert not any(pool.startswith(f"{cluster}/") for _, pool in after) or not cluster
        stay = sum(min(count, before.get(key, 0)) for key, count in after.items())
        assert stay > 0.6 * sum(after.values())


def test_a_draining_cluster_is_left_and_a_silent_one_kept(problem: Problem, planned: Reoptimiser) -> None:
    """Replicas would be planned where nothing may run, or those be counted out that nobody can see."""
    drained, silent = busiest(planned, 2)
    running = as_it_runs(problem, planned)
    intakes = {drained: Intake.DRAINING, silent: Intake.HELD}
    world = replace(
        running,
        clusters=tuple(replace(one, intake=intakes.get(one.name, one.intake)) for one in running.clusters),
    )
    mended = planned.copy()
    become(mended, world)
    after = mended.incumbent.counts()
    assert not any(pool.startswith(f"{drained}/") for _, pool in after)
    kept = {key: count for key, count in planned.incumbent.counts().items() if key[1].startswith(f"{silent}/")}
    assert {key: count for key, count in after.items() if key[1].startswith(f"{silent}/")} == kept


def test_a_start_is_paid_for_once_and_only_once(problem: Problem) -> None:
    """A fleet of models that take long to warm up would be moved about for gains that its starts eat up."""
    warm = replace(problem, models=tuple(replace(one, warmup_s=300.0, move_usd=0.1) for one in problem.models))
    mended = Reoptimiser(Index(warm), large.plan(Index(warm)))
    cold = engine.solution_of(Index(warm), mended.answer)
    for seed in range(3):
        made = become(mended, with_noise(as_it_runs(warm, mended), seed))
        assert made.cost.moves < 0.05 * cold.cost.moves
        assert mended.incumbent.usd_per_hour == pytest.approx(made.cost.total, rel=1e-5)
    again = become(mended, warm)
    assert again.cost.moves == pytest.approx(cold.cost.moves, rel=0.05), "nothing runs: all of it has to be started"
    assert mended.incumbent.usd_per_hour == pytest.approx(again.cost.total, rel=1e-5)


def test_another_model_is_no_matter_of_numbers(problem: Problem, planned: Reoptimiser) -> None:
    """A plan for other models would be mended into one for these."""
    mended = planned.copy()
    before = mended.incumbent.counts()
    dearer = replace(problem.models[0], late_usd_per_1000=2 * problem.models[0].late_usd_per_1000)
    assert not mended.update(Index(replace(problem, models=(dearer, *problem.models[1:]))))
    assert mended.incumbent.counts() == before


def test_a_planner_mends_what_it_may_and_plans_anew_what_it_must(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every cycle would move replicas all over a large fleet, or a plan drift away from the best and nobody notice."""
    monkeypatch.setattr(engine, "LARGE_PAIRS", 1)
    planner = Replanner()
    first = planner.solve(problem)
    assert not planner.mended
    again = planner.solve(replace(problem, current=first.replicas))
    assert planner.mended
    moved = {(one.model, one.pool, one.replicas) for one in again.replicas}
    moved ^= {(one.model, one.pool, one.replicas) for one in first.replicas}
    assert len(moved) <= 0.05 * len(first.replicas)
    demands = tuple(one for one in problem.demands if one.model != problem.models[0].name)
    fewer = replace(problem, models=problem.models[1:], demands=demands)
    assert check(fewer, planner.solve(fewer)) == ()
    assert not planner.mended, "a model less is another question"
    assert check(problem, planner.solve(problem)) == ()
    monkeypatch.setattr("placement.replanner.DRIFT", -1.0)
    planner.solve(problem)
    assert not planner.mended, "what is too far from its bound is planned anew"


def test_a_model_looks_again_when_the_others_gave_back_what_they_do_not_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """One model would pay for dear devices while cheap ones stay free that another had reserved for nothing."""
    index = Index(a_large_world(3, clusters=60, cells=600, models=6))
    mended = Reoptimiser(index, large.plan(index))
    once = mended.copy()
    for one, dear in ((mended, reoptimise.DEAR), (once, np.inf)):
        monkeypatch.setattr(reoptimise, "DEAR", dear)
        one.drop_clusters(["cluster-0000"])
        one.repair()
    assert mended.incumbent.usd_per_hour < 0.998 * once.incumbent.usd_per_hour


def test_steps_save_what_they_say(planned: Reoptimiser) -> None:
    """A plan would be called better than it is."""
    mended = planned.copy()
    mended.drop_clusters(busiest(mended, 1))
    before = mended.incumbent.usd_per_hour
    saved = mended.incumbent.improve(rounds=3)
    assert saved > 0
    assert before - mended.incumbent.usd_per_hour >= saved - 1e-6


def test_a_plan_that_was_mended_very_often_still_can_be(planned: Reoptimiser, monkeypatch: pytest.MonkeyPatch) -> None:
    """After weeks of events no flow could be split any more, and users would stay unserved beside free replicas."""
    mended, tidied = planned.copy(), planned.copy()
    rng = np.random.default_rng(2)
    left_over = iter(busiest(planned, 8))
    rps = mended.incumbent.group_rps
    for _ in range(4):
        lost = [cluster for cluster in itertools.islice(left_over, 2) if rng.random() < 0.7]
        for one, crowded in ((mended, 1.0), (tidied, -1.0)):
            monkeypatch.setattr(local_search, "CROWDED", crowded)
            one.drop_clusters(lost)
            one.repair()
    assert tidied.incumbent.usd_per_hour == pytest.approx(mended.incumbent.usd_per_hour, rel=0.01)
    assert tidied.incumbent.unserved_rps == pytest.approx(mended.incumbent.unserved_rps, abs=0.001 * rps.sum())
    for one in (mended, tidied):
        group, node, served = one.incumbent.flows()
        load = np.bincount(node, weights=served, minlength=len(one.incumbent.load_rps))
        assert load == pytest.approx(one.incumbent.load_rps, abs=1e-6)
        left = rps - np.bincount(group, weights=served, minlength=len(rps))
        assert left.sum() == pytest.approx(one.incumbent.unserved_rps, abs=1e-6)


def test_after_many_losses_the_plan_is_made_anew(problem: Problem, planned: Reoptimiser) -> None:
    """Each loss tells some users apart: after weeks of them a cycle would take many times as long."""
    mended, world = planned.copy(), problem
    for cluster in busiest(planned, 30):
        assert mended.copy().update(Index(world))
        mended.drop_clusters([cluster])
        mended.repair()
        if not mended.copy().update(Index(world)):
            return
    raise AssertionError("30 of 40 clusters were lost one after the other, and it was mended still")
