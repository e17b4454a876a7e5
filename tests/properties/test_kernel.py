"""The tight relaxation and the search of its kernel, where replicas are few."""

from __future__ import annotations

import numpy as np
import pytest

from federation.demo import catalogue
from federation.demo.physics import Physics
from placement import engine, highs
from placement.check import check
from placement.exact import formulation, kernel_search
from placement.exact import solve as exact
from placement.index import Index
from tests.bench.demo_size import a_problem
from tests.bench.worlds import a_lumpy_world
from tests.properties.worlds import a_world

LONG = 500
FORCED = 6
SLACK = 1e-4
NOON = 0.45


@pytest.mark.parametrize("seed", range(60))
def test_the_tight_relaxation_is_a_bound_and_no_weaker(seed: int) -> None:
    """A bound above the best plan would call a bad plan good, and stop the search for a better one."""
    problem = a_world(seed)
    everyone = frozenset(model.name for model in problem.models)
    made = formulation.formulate(Index(problem), missable=exact.COUNTS, exposed=everyone)
    best = highs.solve(made.programme, gap=1e-9, node_limit=LONG)
    plain = highs.solve(made.programme, relaxed=True)
    tight = kernel_search.tighten(made.programme, made.facilities)
    assert best is not None and plain is not None and tight is not None
    slack = 1e-6 * max(1.0, abs(best.objective))
    assert plain.objective - slack <= tight.found.objective <= best.objective + slack


def test_an_arc_adds_no_more_than_using_it_costs() -> None:
    """The kernel would leave out what the best plans need."""
    made = formulation.formulate(Index(a_lumpy_world(1, clusters=8, cells=10, models=2)))
    tight = kernel_search.tighten(made.programme, made.facilities)
    assert tight is not None
    adding = np.flatnonzero(tight.added > 0.1)
    assert len(adding) > FORCED
    for at in adding[:: len(adding) // FORCED]:
        arc = int(tight.bounds.arc[at])
        made.programme.lower[arc] = made.programme.upper[arc]
        found = highs.solve(made.programme, gap=0.05, node_limit=1)
        made.programme.lower[arc] = 0.0
        assert found is None or found.objective >= tight.found.objective + tight.added[at] - SLACK


def test_nobody_is_left_unserved_because_a_fraction_was_rounded_badly() -> None:
    """At noon of the demo's day one model's rounding left users unserved, at a fifth more than the best plan costs."""
    solution = engine.solve(a_problem(Physics(catalogue.load()), NOON))
    assert solution.unserved == ()
    assert solution.gap < exact.LUMPY_GAP


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_edge_world_of_few_replicas_is_planned_near_its_best_and_the_same_each_time() -> None:
    """Sites with one replica of each model would be planned a tenth too dear, or differently after each restart."""
    problem = a_lumpy_world(5, clusters=14, cells=16, models=3)
    solution = engine.solve(problem)
    assert check(problem, solution) == ()
    made = formulation.formulate(Index(problem))
    assert len(made.replicas) > exact.EXACT_COLUMNS
    alone = highs.solve(made.programme, gap=0.001, node_limit=LONG)
    assert alone is not None and solution.cost.total <= alone.objective * 1.005
    assert engine.solve(problem) == solution
