"""What an event changes is planned for by itself: the whole programme stays true, and would hardly say otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from placement.index import Index
from placement.large import aggregation, duals, subproblem
from placement.large import plan as large
from placement.large.aggregation import Aggregation, Classes
from placement.large.arrays import Arrays, Bools, Floats, Ints
from placement.large.duals import Duals
from placement.large.encoding import IndexMap
from placement.large.master import DUST_RPS, WHOLE, RestrictedMaster
from tests.bench.worlds import a_large_world

pytestmark = pytest.mark.timeout(400)  # the first call compiles, for most of a minute
NEAR_ENOUGH = 1e-6
GRAIN = Aggregation(classes=60, near=1.5, alike=2)


@pytest.fixture(scope="module")
def solved() -> RestrictedMaster:
    made = large.plan(Index(a_large_world(1, clusters=80, cells=800, models=8))).master
    made.run()
    return made


def leaving(coarse: RestrictedMaster, cluster: int) -> Ints:
    """Groups that this cluster serves, as far as classes say."""
    served = np.unique(coarse.arc_class[(coarse.flows > DUST_RPS) & (coarse.arc == cluster)])
    groups = coarse.members(np.isin(np.arange(coarse.count), served))
    some: Ints = groups[groups % 3 != 0]  # others stay
    return some


def usd_per_hour(coarse: RestrictedMaster) -> float:
    return float(np.asarray(coarse.solver.getLp().col_cost_) @ coarse.values)


def carried(coarse: RestrictedMaster) -> Floats:
    """[rows] the sums of its values."""
    lp = coarse.solver.getLp()
    start, row = np.asarray(lp.a_matrix_.start_), np.asarray(lp.a_matrix_.index_)
    value = np.asarray(lp.a_matrix_.value_) * np.repeat(coarse.values, np.diff(start))
    return np.bincount(row, weights=value, minlength=lp.num_row_).astype(np.float64)


def close(coarse: RestrictedMaster, cluster: int) -> Bools:
    """Nothing runs in this cluster any more; gives the classes that it served."""
    world = coarse.arrays
    nodes = world.node_cluster == cluster
    options = np.flatnonzero(nodes[world.option_node])
    none = np.zeros(len(options), np.int64)
    coarse.limit(options, none, none)
    served = np.unique(coarse.arc_class[(coarse.flows > DUST_RPS) & nodes[coarse.arc_node]])
    return np.isin(np.arange(coarse.count), served)


def without(coarse: RestrictedMaster, cluster: int) -> tuple[RestrictedMaster, RestrictedMaster]:
    """Two copies in which nothing runs in this cluster: one solved whole, and one nearby."""
    whole, near = coarse.copy(), coarse.copy()
    close(whole, cluster)
    whole.run()
    subproblem.replan(near, close(near, cluster), inertia=0.0)
    return whole, near


def used(coarse: RestrictedMaster) -> list[int]:
    world = coarse.arrays
    made: list[int] = np.unique(world.node_cluster[world.option_node[coarse.replicas > WHOLE]]).tolist()
    return made


def test_the_whole_programme_holds_and_costs_hardly_more(solved: RestrictedMaster) -> None:
    """The plan in fractions would promise devices that are not there, or cost more than planning everything again."""
    saved = 0.0
    for cluster in used(solved):
        whole, near = without(solved, cluster)
        lp = near.solver.getLp()
        rows = carried(near)
        assert near.activity == pytest.approx(rows, abs=NEAR_ENOUGH)
        assert (rows <= np.asarray(lp.row_upper_) + NEAR_ENOUGH).all()
        assert (rows >= np.asarray(lp.row_lower_) - NEAR_ENOUGH).all()
        assert (near.values <= np.asarray(lp.col_upper_) + NEAR_ENOUGH).all()
        best = usd_per_hour(whole)
        assert best * (1.0 - 1e-9) <= usd_per_hour(near) <= best * 1.02
        saved += usd_per_hour(near) / best - 1.0
    assert saved / len(used(solved)) < 0.003


def test_most_users_stay(solved: RestrictedMaster) -> None:
    """A loss in one place would move users everywhere."""
    moved = []
    for cluster in used(solved):
        near = without(solved, cluster)[1]
        lost = (solved.arrays.node_cluster == cluster)[solved.arc_node]
        kinds = np.unique(solved.arc_class[lost & (solved.flows > DUST_RPS)])
        others = ~np.isin(solved.arc_class, kinds)
        moved.append(np.abs(near.flows - solved.flows)[others].sum() / 2.0 / solved.flows[others].sum())
    assert np.mean(moved) < 0.02


def test_where_nobody_was_served_nothing_changes(solved: RestrictedMaster) -> None:
    """An event in an idle cluster would be worth a plan."""
    idle = np.setdiff1d(np.arange(80), used(solved))
    assert len(idle)
    near = without(solved, int(idle[0]))[1]
    assert near.values is solved.values or (near.values == solved.values).all()


def test_part_after_part_goes_on_from_where_the_last_ended(solved: RestrictedMaster) -> None:
    """After a night of losses the plan would no longer be one, or each would take as long as the first plan."""
    near = solved.copy()
    for cluster in used(solved)[::4]:
        subproblem.replan(near, close(near, cluster), inertia=0.0)
    assert near.activity == pytest.approx(carried(near), abs=NEAR_ENOUGH)
    whole = near.copy()
    whole.run()
    assert usd_per_hour(near) <= usd_per_hour(whole) * 1.02


def test_who_leaves_a_class_takes_what_is_due(solved: RestrictedMaster) -> None:
    """Users would be planned for twice or not at all after a loss, or at costs that nobody has."""
    before, world = solved.classes, solved.arrays
    for cluster in used(solved)[:6]:
        groups = leaving(solved, cluster)
        after = aggregation.split(world, before, duals.raised(world, solved.prices), GRAIN, groups)
        assert sorted(after.order.tolist()) == list(range(len(world.group_rps)))
        kind = np.repeat(np.arange(len(after.rps)), np.diff(after.first))
        assert (kind[np.isin(after.order, groups)] >= len(before.rps)).all()
        assert (kind[~np.isin(after.order, groups)] < len(before.rps)).all()
        rps = np.bincount(kind, weights=world.group_rps[after.order], minlength=len(after.rps))
        assert after.rps == pytest.approx(rps, abs=1e-9)
        whole = aggregation.carried_over(world, after)  # every mean made from its members
        asks = (after.rps > 1e-6) & (np.diff(after.first) > 0)
        reached = np.isfinite(whole.usd[asks])
        assert (np.isfinite(after.usd[asks]) == reached).all()
        assert after.usd[asks][reached] == pytest.approx(whole.usd[asks][reached], rel=1e-6, abs=1e-6)


def test_whom_a_loss_hits_is_told_apart_before_it_is_planned_for(solved: RestrictedMaster) -> None:
    """A city's users would be sent after a loss where the mean of a continent's would go."""
    saved = []
    for cluster in used(solved):
        near = without(solved, cluster)[1]
        apart = solved.copy()
        groups = leaving(solved, cluster)
        kinds = close(apart, cluster)
        told = apart.split(groups, GRAIN, arcs=6)
        assert told[: len(kinds)][kinds].all()
        subproblem.replan(apart, told, inertia=0.0)
        lp, rows = apart.solver.getLp(), carried(apart)
        assert apart.activity == pytest.approx(rows, abs=NEAR_ENOUGH)
        assert (rows <= np.asarray(lp.row_upper_) + NEAR_ENOUGH).all()
        assert (rows >= np.asarray(lp.row_lower_) - NEAR_ENOUGH).all()
        assert apart.flows[apart.arc == cluster] == pytest.approx(0.0, abs=NEAR_ENOUGH)
        saved.append(1.0 - usd_per_hour(apart) / usd_per_hour(near))
    assert np.mean(saved) > 0.0 and max(saved) > 0.01, (np.mean(saved), max(saved))


def test_a_programme_that_was_split_is_the_same_when_made_again(solved: RestrictedMaster) -> None:
    """The first cycle after a loss would begin from nothing, or from a basis of other columns."""
    apart = solved.copy()
    cluster = used(solved)[0]
    close(apart, cluster)
    subproblem.replan(apart, apart.split(leaving(solved, cluster), GRAIN, arcs=6), inertia=0.0)
    apart.run()
    world = apart.arrays
    options, nodes = np.arange(len(world.option_model)), np.arange(len(world.node_model))
    kept = IndexMap(options=options, nodes=nodes, pools=np.arange(len(world.pool_devices)))
    kinds = aggregation.carried_over(world, apart.classes)
    made = apart.carried_over(world, kinds, kept)
    close(made, cluster)
    made.run()
    assert usd_per_hour(made) == pytest.approx(usd_per_hour(apart), rel=1e-6)
    assert made.solver.getInfo().simplex_iteration_count < 20


@pytest.mark.parametrize("make", [aggregation.whole, aggregation.by_lateness])
def test_classes_at_other_prices_are_those_made_anew(
    solved: RestrictedMaster, make: Callable[[Arrays, Duals, Aggregation], Classes]
) -> None:
    """After a price event plans would be made with the costs of before, or for those who may not be served there."""
    world = solved.arrays
    kinds = make(world, duals.none(world), GRAIN)
    dearer = replace(world, option_usd=2 * world.option_usd)
    assert aggregation.same_demand(world, dearer) and aggregation.same_costs(world, dearer)
    kept, anew = aggregation.carried_over(dearer, kinds, are_same=True), aggregation.carried_over(dearer, kinds)
    for name in ("order", "first", "model", "permit", "rps", "usd", "most"):
        assert np.array_equal(getattr(kept, name), getattr(anew, name)), name
    assert not aggregation.same_demand(world, replace(world, group_rps=1.01 * world.group_rps))
    assert not aggregation.same_demand(world, replace(world, rtt_ms=world.rtt_ms + np.float32(1.0)))
    assert not aggregation.same_costs(world, replace(world, node_usd=world.node_usd + 1.0))
    assert not aggregation.same_costs(world, replace(world, permitted=~world.permitted))
