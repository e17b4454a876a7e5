"""A large plan that is mended after events: nothing breaks a rule, what is not touched stays, and the plan is near its
bound again."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from placement import engine, large, local
from placement.check import check
from placement.filters import Index
from placement.large import Answer
from placement.mend import Mending
from placement.model import Placed, Pool, Problem, Solution
from placement.number import number
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


def solution(problem: Problem, mended: Mending) -> Solution:
    standing = mended.standing
    answer = Answer(counts=standing.counts(), rates=standing.rates(), bound_usd_per_hour=0.0, device_usd={})
    return engine.solution_of(Index(problem), answer)


@pytest.fixture(scope="module")
def problem() -> Problem:
    return a_large_world(1, clusters=40, cells=400, models=4)


@pytest.fixture(scope="module")
def planned(problem: Problem) -> Mending:
    index = Index(problem)
    return Mending(index, large.plan(index))


def busiest(mended: Mending, count: int) -> list[str]:
    replicas: dict[str, int] = defaultdict(int)
    for (_, pool), number_of in mended.standing.counts().items():
        replicas[pool.partition("/")[0]] += number_of
    return sorted(replicas, key=lambda name: (-replicas[name], name))[:count]


def test_sums_stay_true_whatever_is_lost() -> None:
    """Replicas would be counted that are gone, or requests be sent to nobody, after the first event of many."""
    lost = 0
    for seed in WORLDS:
        world = a_world(seed)
        index = Index(world)
        mended = Mending(index, large.plan(index))
        for cluster in busiest(mended, 2):
            mended.lose([cluster])
            mended.follow()
            lost += 1
            standing, names = mended.standing, {one.name: one for one in world.pools}
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


def test_users_of_other_clusters_notice_nothing_of_a_loss(planned: Mending) -> None:
    """A lost cluster would shake the whole fleet in the moment when it has the least to spare."""
    for cluster in busiest(planned, 3):
        mended = planned.copy()
        before = mended.standing.rates()
        replicas = {key: count for key, count in mended.standing.counts().items() if not key[1].startswith(cluster)}
        mended.lose([cluster])
        assert mended.standing.counts() == replicas
        after = mended.standing.rates()
        for model, flows in before.items():
            hurt = {cell for cell, to in flows if to == cluster}
            kept = {pair: rps for pair, rps in flows.items() if pair[0] not in hurt}
            assert {pair: rps for pair, rps in after[model].items() if pair[0] not in hurt} == pytest.approx(kept)


def test_after_a_loss_the_plan_is_near_the_best_again(problem: Problem, planned: Mending) -> None:
    """Each loss would leave users unserved, or the fleet dearer than it need be, until somebody planned anew."""
    for cluster in busiest(planned, 3):
        mended = planned.copy()
        mended.lose([cluster])
        mended.follow()
        left = without(problem, cluster)
        assert check(left, solution(left, mended)) == ()
        anew = large.plan(Index(left)).standing
        assert mended.standing.usd_per_hour < 1.05 * anew.usd_per_hour, cluster


def test_new_demand_everywhere_moves_little(problem: Problem, planned: Mending) -> None:
    """Every breath of demand would restart replicas all over the fleet."""
    rng = np.random.default_rng(1)
    noisy = replace(
        problem,
        demands=tuple(
            replace(one, requests_per_second=one.requests_per_second * float(rng.lognormal(0.0, 0.03)))
            for one in problem.demands
        ),
    )
    index = Index(noisy)
    world = number(index)
    mended = planned.copy()
    before = mended.standing.replicas
    mended.ask(world.world.group_rps)
    mended.follow(everywhere=True)
    assert check(noisy, solution(noisy, mended)) == ()
    started = np.maximum(0, mended.standing.replicas - before).sum()
    assert started <= 0.03 * before.sum()
    assert mended.standing.usd_per_hour < 1.02 * large.priced(world)[1]


def test_a_pool_that_shrinks_and_one_that_gets_dearer_are_used_less(problem: Problem, planned: Mending) -> None:
    """Replicas would be planned on devices that are gone, or kept where they cost ten times as much as elsewhere."""
    counts = planned.standing.counts()
    by_pool: dict[str, int] = defaultdict(int)
    for (_, at), count in counts.items():
        by_pool[at] += count
    largest = max(by_pool, key=lambda name: (by_pool[name], name))
    pool = next(one for one in problem.pools if one.name == largest)
    mended = planned.copy()
    mended.shrink(pool.name, pool.devices // 2)
    mended.follow()
    shrunk = with_pool(problem, replace(pool, devices=pool.devices // 2))
    assert check(shrunk, solution(shrunk, mended)) == ()
    assert mended.standing.usd_per_hour < 1.03 * large.priced(number(Index(shrunk)))[1]

    mended = planned.copy()
    mended.price(pool.name, 10 * pool.usd_per_device_hour)
    mended.follow()
    dear = with_pool(problem, replace(pool, usd_per_device_hour=10 * pool.usd_per_device_hour))
    assert check(dear, solution(dear, mended)) == ()
    used = sum(count for (_, name), count in mended.standing.counts().items() if name == pool.name)
    assert used < by_pool[pool.name]
    assert mended.standing.usd_per_hour < 1.05 * large.priced(number(Index(dear)))[1]


def test_steps_save_what_they_say(planned: Mending) -> None:
    """A plan would be called better than it is."""
    mended = planned.copy()
    mended.lose(busiest(mended, 1))
    before = mended.standing.usd_per_hour
    saved = mended.standing.improve(rounds=3)
    assert saved > 0
    assert before - mended.standing.usd_per_hour >= saved - 1e-6


def test_a_plan_that_was_mended_very_often_still_can_be(planned: Mending, monkeypatch: pytest.MonkeyPatch) -> None:
    """After weeks of events no flow could be split any more, and users would stay unserved beside free replicas."""
    mended, tidied = planned.copy(), planned.copy()
    rng = np.random.default_rng(2)
    rps = mended.standing.group_rps
    for _ in range(4):
        rps = rps * rng.lognormal(0.0, 0.05, len(rps))
        for one, crowded in ((mended, 1.0), (tidied, -1.0)):
            monkeypatch.setattr(local, "CROWDED", crowded)
            one.ask(rps)
            one.follow(everywhere=True)
    assert tidied.standing.usd_per_hour == pytest.approx(mended.standing.usd_per_hour, rel=0.01)
    assert tidied.standing.unserved_rps == pytest.approx(mended.standing.unserved_rps, abs=0.001 * rps.sum())
    for one in (mended, tidied):
        group, node, served = one.standing.flows()
        load = np.bincount(node, weights=served, minlength=len(one.standing.load_rps))
        assert load == pytest.approx(one.standing.load_rps, abs=1e-6)
        left = rps - np.bincount(group, weights=served, minlength=len(rps))
        assert left.sum() == pytest.approx(one.standing.unserved_rps, abs=1e-6)
