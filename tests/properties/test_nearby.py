"""What an event changes is planned for by itself: the whole programme stays true, and would hardly say otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from placement import large, nearby
from placement.coarse import DUST_RPS, WHOLE, Coarse
from placement.filters import Index
from placement.world import Floats
from tests.bench.worlds import a_large_world

pytestmark = pytest.mark.timeout(400)  # the first call compiles, for most of a minute
NEAR_ENOUGH = 1e-6


@pytest.fixture(scope="module")
def solved() -> Coarse:
    made = large.plan(Index(a_large_world(1, clusters=80, cells=800, models=8))).coarse
    made.run()
    return made


def usd_per_hour(coarse: Coarse) -> float:
    return float(np.asarray(coarse.solver.getLp().col_cost_) @ coarse.values)


def carried(coarse: Coarse) -> Floats:
    """[rows] the sums of its values."""
    lp = coarse.solver.getLp()
    start, row = np.asarray(lp.a_matrix_.start_), np.asarray(lp.a_matrix_.index_)
    value = np.asarray(lp.a_matrix_.value_) * np.repeat(coarse.values, np.diff(start))
    return np.bincount(row, weights=value, minlength=lp.num_row_).astype(np.float64)


def without(coarse: Coarse, cluster: int) -> tuple[Coarse, Coarse]:
    """Two copies in which nothing runs in this cluster: one solved whole, and one nearby."""
    whole, near = coarse.copy(), coarse.copy()
    world = coarse.world
    nodes = world.node_cluster == cluster
    options = np.flatnonzero(nodes[world.option_node])
    none = np.zeros(len(options), np.int64)
    for one in (whole, near):
        one.limit(options, none, none)
    whole.run()
    nearby.replan(near, nodes, stick=0.0)
    return whole, near


def used(coarse: Coarse) -> list[int]:
    world = coarse.world
    made: list[int] = np.unique(world.node_cluster[world.option_node[coarse.replicas > WHOLE]]).tolist()
    return made


def test_the_whole_programme_holds_and_costs_hardly_more(solved: Coarse) -> None:
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


def test_most_users_stay(solved: Coarse) -> None:
    """A loss in one place would move users everywhere."""
    moved = []
    for cluster in used(solved):
        near = without(solved, cluster)[1]
        lost = (solved.world.node_cluster == cluster)[solved.way_node]
        kinds = np.unique(solved.way_class[lost & (solved.flows > DUST_RPS)])
        others = ~np.isin(solved.way_class, kinds)
        moved.append(np.abs(near.flows - solved.flows)[others].sum() / 2.0 / solved.flows[others].sum())
    assert np.mean(moved) < 0.02


def test_where_nobody_was_served_nothing_changes(solved: Coarse) -> None:
    """An event in an idle cluster would be worth a plan."""
    idle = np.setdiff1d(np.arange(80), used(solved))
    assert len(idle)
    near = without(solved, int(idle[0]))[1]
    assert near.values is solved.values or (near.values == solved.values).all()


def test_part_after_part_goes_on_from_where_the_last_ended(solved: Coarse) -> None:
    """After a night of losses the plan would no longer be one, or each would take as long as the first plan."""
    near, nodes = solved.copy(), np.zeros(len(solved.world.node_model), dtype=bool)
    for cluster in used(solved)[::4]:
        lost = solved.world.node_cluster == cluster
        nodes |= lost
        options = np.flatnonzero(lost[solved.world.option_node])
        none = np.zeros(len(options), np.int64)
        near.limit(options, none, none)
        nearby.replan(near, lost, stick=0.0)
    assert near.activity == pytest.approx(carried(near), abs=NEAR_ENOUGH)
    whole = near.copy()
    whole.run()
    assert usd_per_hour(near) <= usd_per_hour(whole) * 1.02
