"""A shift stops when it does harm, goes back, tries again later, and leaves nothing behind that is still at work."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from federation.control import routing, shift
from federation.control.plan import Route, Routes, Share
from federation.control.routing import next_routes
from federation.policy.documents import Traffic
from federation.state.keys import ModelCell, ModelCluster
from federation.state.world import World
from federation.wire import messages
from tests.builders import a_model, a_policy, a_report, a_world, heard, replicas

RULES = Traffic(step_percent=20, step_seconds=10, retry_seconds=100, drain_seconds=10, max_error_percent=5)
TRAFFIC = {"chat": RULES}


def world_of(seq: int, *, error_share: float = 0.0, latency_ms: float | None = 50.0, rps: float = 10.0) -> World:
    """fra and iad serve; iad's gateway measured this."""
    served = (
        messages.ServedSample(
            model="chat", requests_per_second=rps, error_share=error_share, latency_ms_p95=latency_ms
        ),
    )
    world = a_world("fra", "iad", models=(a_model(objective_ms=200.0),), policies=(a_policy("chat", traffic=RULES),))
    return heard(
        world,
        a_report("fra", seq, replicas=(replicas("chat", 4, 4),)),
        a_report("iad", seq, replicas=(replicas("chat", 4, 4),), served=served),
    )


def route(now: dict[str, float], target: dict[str, float]) -> Routes:
    def shares(parts: dict[str, float]) -> tuple[Share, ...]:
        return tuple(Share(cluster=name, share=part) for name, part in sorted(parts.items()) if part)

    return Routes(version=1, routes=(Route(model="chat", cell="Berlin", now=shares(now), target=shares(target)),))


class Shifting:
    """Berlin on its way from fra to iad, step by step, as steering does it."""

    def __init__(self) -> None:
        self.memory = shift.look(shift.ShiftMemory(), world_of(1), Routes(), TRAFFIC, -100.0).memory
        self.routes = route({"fra": 1.0}, {"iad": 1.0})
        self.now_s = 0.0
        self.said: list[str] = []

    def step(self, world: World) -> dict[str, float]:
        """The shares after one step interval in this world; barred receivers are not a target, as in steering."""
        self.now_s += RULES.step_seconds
        outlook = shift.look(self.memory, world, self.routes, TRAFFIC, self.now_s)
        self.said += [note.reason for note in outlook.notes]
        target = {"fra": 1.0} if ("chat", "iad") in outlook.barred else {"iad": 1.0}
        rows = next_routes(
            self.routes.by_key(),
            {ModelCell(("chat", "Berlin")): routing.Target(target)},
            serving={"chat": frozenset({"fra", "iad"})},
            traffic=TRAFFIC,
            steps={"chat": 1},
            outlook=outlook,
        )
        following = replace(self.routes, routes=rows)
        self.memory = shift.after(outlook.memory, self.routes, following, {}, TRAFFIC, self.now_s)
        self.routes = following
        return {one.cluster: one.share for one in rows[0].now}


GOOD = world_of(1)
HARM = {
    "errors": world_of(1, error_share=0.2),
    "slow": world_of(1, latency_ms=900.0),
}


def test_a_shift_that_does_no_harm_goes_on_to_its_end() -> None:
    """Users would stay split between clusters, and replicas that are to go would never be free."""
    shifting = Shifting()
    assert [shifting.step(GOOD).get("iad") for _ in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert shifting.said == []


@pytest.mark.parametrize("harm", sorted(HARM))
def test_a_receiver_that_degrades_is_held_then_given_back(harm: str) -> None:
    """Users would go on being sent to where they are failed, step by step until all of them are."""
    shifting = Shifting()
    shifting.step(GOOD)
    assert shifting.step(GOOD) == pytest.approx({"fra": 0.6, "iad": 0.4})
    assert shifting.step(HARM[harm]) == pytest.approx({"fra": 0.6, "iad": 0.4}), "held"
    assert shifting.step(HARM[harm]) == pytest.approx({"fra": 1.0}), "back to what it had before, at once"
    assert shifting.said == ["ShiftHeld", "ShiftBack"]
    assert shifting.step(GOOD) == pytest.approx({"fra": 1.0}), "not tried again at once"


def test_a_passing_trouble_only_delays() -> None:
    """One bad minute would send a whole shift back."""
    shifting = Shifting()
    shifting.step(GOOD)
    shifting.step(HARM["errors"])
    assert shifting.step(GOOD) == pytest.approx({"fra": 0.6, "iad": 0.4})


def test_it_is_tried_again_and_each_failure_doubles_the_wait() -> None:
    """Users would be harmed again every few minutes, for ever."""
    shifting = Shifting()
    waits = []
    for _ in range(3):
        while shifting.step(GOOD).get("iad", 0.0) == 0.0:
            pass
        shifting.step(HARM["errors"])
        shifting.step(HARM["errors"])
        bar = shifting.memory.bars[ModelCluster("chat", "iad")]
        waits.append(bar.until_s - shifting.now_s)
    assert waits == [100.0, 200.0, 400.0]


@pytest.mark.parametrize(
    "quiet",
    [
        pytest.param({"error_share": 1.0, "rps": 0.1}, id="too few requests to say anything"),
        pytest.param({"latency_ms": None}, id="nobody measured"),
        pytest.param({"error_share": 0.05}, id="at the limit"),
    ],
)
def test_what_says_nothing_stops_nothing(quiet: dict[str, Any]) -> None:
    """A cluster without a gateway's figures could never receive load."""
    shifting = Shifting()
    shifting.step(GOOD)
    assert shifting.step(world_of(1, **quiet)) == pytest.approx({"fra": 0.6, "iad": 0.4})


def test_who_receives_nothing_new_is_not_barred_for_serving_badly() -> None:
    """A cluster that has always served its users would lose them to nowhere in its worst hour."""
    memory = shift.look(shift.ShiftMemory(), GOOD, Routes(), TRAFFIC, -100.0).memory
    for now_s in (0.0, 20.0, 40.0):
        outlook = shift.look(memory, HARM["errors"], route({"iad": 1.0}, {"iad": 1.0}), TRAFFIC, now_s)
        memory = outlook.memory
        assert not outlook.held
        assert not outlook.barred


def test_a_replica_that_has_just_become_ready_is_warmed_first() -> None:
    """Gateways have not seen it healthy yet: its share would fall on others."""
    memory = shift.look(
        shift.ShiftMemory(),
        heard(a_world("fra", "iad"), a_report("fra", replicas=(replicas("chat", 1, 1),))),
        Routes(),
        TRAFFIC,
        0.0,
    ).memory
    assert ("chat", "iad") in shift.look(memory, GOOD, Routes(), TRAFFIC, 1.0).held
    memory = shift.look(memory, GOOD, Routes(), TRAFFIC, 1.0).memory
    assert not shift.look(memory, GOOD, Routes(), TRAFFIC, 1.0 + shift.WARM_S).held


def test_what_was_sent_within_the_time_of_draining_still_counts() -> None:
    """Replicas would be stopped in the middle of what they answer."""
    memory = shift.ShiftMemory()
    for now_s, rps in ((0.0, 40.0), (5.0, 0.0), (9.0, 0.0)):
        memory = shift.after(memory, Routes(), Routes(), {ModelCluster("chat", "fra"): rps}, TRAFFIC, now_s)
    assert shift.peak_rps(memory) == {("chat", "fra"): 40.0}
    memory = shift.after(memory, Routes(), Routes(), {}, TRAFFIC, 11.0)
    assert shift.peak_rps(memory) == {}
