"""The nearest eligible cluster."""

from __future__ import annotations

from dataclasses import replace

from placement.index import Index
from placement.nearest import nearest_ms
from placement.problem import Path
from tests.unit.placement.test_costs import CLUSTER, MODEL, POOL, PROBLEM


def test_the_nearest_is_where_a_replica_could_run_whether_or_not_one_does() -> None:
    """Excess distance would be measured against clusters that cannot serve, or look like none."""
    near = replace(CLUSTER, name="a")
    away = replace(CLUSTER, name="b", reachable=False)
    problem = replace(
        PROBLEM,
        clusters=(CLUSTER, near, away),
        pools=(POOL, replace(POOL, cluster="b")),
        paths=(*PROBLEM.paths, Path(cell="u", cluster="a", rtt_ms=1.0), Path(cell="u", cluster="b", rtt_ms=2.0)),
    )
    assert nearest_ms(Index(problem), MODEL) == {"u": 10.0}
    both = replace(problem, pools=(POOL, replace(POOL, cluster="a")))
    assert nearest_ms(Index(both), MODEL) == {"u": 1.0}
