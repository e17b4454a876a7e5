"""What a replica serves is learnt from what replicas served while they were full."""

from __future__ import annotations

import pytest

from federation.control.problem import formulate
from federation.state import capacity
from federation.state.keys import ModelCluster
from federation.state.world import World
from federation.traffic.table import capacity_rps
from federation.wire import messages
from tests.builders import a_model, a_policy, a_report, a_world, heard, replicas, some_demand

INTERVAL_S = 10.0


def report(cluster: str, seq: int, *, rps: float, waiting: float, ready: int = 2) -> messages.Report:
    engine = messages.EngineSample(model="chat", replicas=ready, requests_per_second=rps, waiting=waiting)
    serving = (replicas("chat", ready, ready),)
    return a_report(cluster, seq, replicas=serving, engines=(engine,), demand=(some_demand("chat", "Bonn", 50.0),))


def after(minutes: float, *, world: World | None = None, **says: tuple[float, float]) -> World:
    """A fleet whose clusters report (requests per second of two replicas, waiting) for so long."""
    world = world or a_world(*says, models=(a_model("chat", rps=10.0),), policies=(a_policy("chat"),))
    began = max((state.report.seq for state in world.clusters.values() if state.report), default=0)
    for number in range(1, int(minutes * 60 / INTERVAL_S) + 1):
        for name, (rps, waiting) in says.items():
            now_s = (began + number) * INTERVAL_S
            world = heard(world, report(name, began + number, rps=rps, waiting=waiting), now_s=now_s)
    return world


def factor(world: World) -> float:
    return capacity.factor(world, "chat", world.documents.models[0].spec.accelerators[0])


def test_replicas_that_are_full_below_what_is_declared_are_counted_on_for_less() -> None:
    """Users would wait in a queue that the plan takes for room."""
    world = after(20, fra=(14.0, 30.0))
    assert factor(world) == pytest.approx(0.7, rel=0.03)
    shape = formulate(world, target={}, desired={}, now_s=1200.0).problem.models[0].shapes[0]
    assert shape.requests_per_second == pytest.approx(10.0 * factor(world))
    assert capacity_rps(world)[ModelCluster("chat", "fra")] == pytest.approx(20.0 * factor(world))


def test_replicas_that_serve_more_than_is_declared_are_counted_on_for_more() -> None:
    """Devices would be paid for that nobody needs."""
    assert factor(after(20, fra=(26.0, 0.0))) == pytest.approx(1.3, rel=0.03)


def test_replicas_that_are_asked_for_little_say_nothing() -> None:
    """A quiet night would halve what every replica can serve."""
    assert factor(after(20, fra=(3.0, 0.0))) == 1.0


@pytest.mark.parametrize("minutes", [2, 3, 5])
def test_it_changes_by_one_step_a_minute_at_most(minutes: int) -> None:
    """One bad minute of an engine would move the fleet."""
    assert factor(after(minutes, fra=(1.0, 900.0))) >= 0.95 ** (minutes - 0.5)


def test_it_stays_within_its_bounds() -> None:
    """A broken engine would be sent everybody, or nobody at all."""
    assert factor(after(60, fra=(0.1, 900.0))) >= capacity.LEAST
    assert factor(after(60, fra=(4000.0, 0.0))) <= capacity.MOST


def test_one_wrong_engine_does_not_outvote_the_others() -> None:
    """One cluster's broken metrics would change what every cluster is counted on for."""
    world = after(20, fra=(20.0, 30.0), iad=(20.0, 30.0), par=(4000.0, 30.0))
    assert factor(world) == pytest.approx(1.0, abs=capacity.STEP)


def test_another_declaration_is_learnt_anew() -> None:
    """A correction in the catalogue would be corrected once more."""
    world = after(20, fra=(14.0, 30.0))
    other = a_model("chat", rps=14.0).spec.accelerators[0]
    assert capacity.factor(world, "chat", other) == 1.0
