"""What the loops share."""

from __future__ import annotations

from dataclasses import replace

from federation.aiokit.clock import Clock
from federation.control.plan import Plan, Routes
from federation.loops.hub import Hub
from federation.metrics import Metrics
from federation.state.world import Brake
from tests.builders import a_model, a_policy, a_report, a_world, heard, replicas


def test_under_the_brake_nothing_is_adopted() -> None:
    """Agents would be ordered what the first cluster that comes back says that it runs, while the others are silent."""
    world = a_world("fra", models=(a_model("chat"),), policies=(a_policy("chat"),))
    world = heard(world, a_report("fra", replicas=(replicas("chat", 3, 3),)))
    braked = replace(world, brake=Brake(since_s=0.0, phases={}, silent=("par",), counted=2))
    hub = Hub(world=braked, plan=Plan(), routes=Routes(), epoch=1, clock=Clock(), metrics=Metrics())
    hub.adopt()
    assert not hub.plan.desired
    hub.world = world
    hub.adopt()
    assert [one.replicas for one in hub.plan.desired] == [3]
