"""A pool's room for one model binds the plan, whatever its devices in sum; a plan that breaks it is caught."""

from __future__ import annotations

from dataclasses import replace

import pytest

from placement import check, engine
from placement.problem import Cell, Cluster, Demand, Model, Path, Pool, Problem, Room, Shape

POOLS = ("a", "b")


def problem(*room: Room, count: int = 4) -> Problem:
    """Two clusters of eight devices each, a cheaper; forty requests per second need four replicas of two devices."""
    return Problem(
        clusters=tuple(Cluster(name=name, provider="p", region=name) for name in POOLS),
        pools=tuple(
            Pool(cluster=name, product="X", vram_gib=24, devices=8, usd_per_device_hour=usd)
            for name, usd in zip(POOLS, (1.0, 2.0), strict=True)
        ),
        models=(
            Model(
                name="m",
                shapes=(Shape(product="X", devices=2, requests_per_second=12.5),),
                objective_ms=100,
                late_usd_per_1000=0.5,
                unserved_usd_per_1000=20,
            ),
        ),
        cells=(Cell(name="c", country="DE"),),
        demands=(Demand(model="m", cell="c", requests_per_second=10.0 * count),),
        paths=tuple(Path(cell="c", cluster=name, rtt_ms=10) for name in POOLS),
        room=room,
    )


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        ((), {"a": 4}),
        ((Room(model="m", pool="a/X/on-demand", replicas=1),), {"a": 1, "b": 3}),
        ((Room(model="m", pool="a/X/on-demand", replicas=0),), {"b": 4}),
    ],
    ids=["by-devices", "one", "fragmented"],
)
def test_a_plan_gives_a_pool_no_more_than_finds_a_place(room: tuple[Room, ...], expected: dict[str, int]) -> None:
    """Users would be sent to replicas that can never start."""
    asked = problem(*room)
    solution = engine.solve(asked)
    assert {one.pool.partition("/")[0]: one.replicas for one in solution.replicas} == expected
    assert check.check(asked, solution) == ()


def test_a_plan_that_ignores_the_room_is_caught() -> None:
    """Replicas would be ordered that no node has room for."""
    solution = engine.solve(problem())
    bound = problem(Room(model="m", pool="a/X/on-demand", replicas=3))
    assert "room" in {one.rule for one in check.check(bound, solution)}


def test_room_of_what_does_not_exist_is_refused() -> None:
    """A misspelt pool would leave a real one without its bound."""
    with pytest.raises(ValueError, match="room"):
        problem(Room(model="m", pool="nowhere", replicas=1))
    one = Room(model="m", pool="a/X/on-demand", replicas=1)
    with pytest.raises(ValueError, match="twice"):
        replace(problem(), room=(one, one))
