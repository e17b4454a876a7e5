"""Whether a controller may be asked: what a readiness probe goes by."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from federation.aiokit.clock import Clock
from federation.aiokit.tasks import Tasks
from federation.control.plan import Plan, Routes
from federation.loops.hub import Hub
from federation.metrics import Metrics
from federation.services import ControllerServices
from tests.builders import a_report, a_world, heard


def test_a_controller_that_remembers_routes_and_does_not_tell_them_yet_is_not_ready() -> None:
    """Users would be sent to the one that has just started, which answers that nobody serves them."""
    nothing: Any = None
    link: Any = SimpleNamespace(is_connected=True)
    clock = Clock()
    for routes, ready in ((Routes(version=3), False), (Routes(), True)):
        now_s = clock.monotonic_s()
        hub = Hub(
            world=a_world("fra", now_s=now_s), plan=Plan(), routes=routes, epoch=1, clock=clock, metrics=Metrics()
        )
        services = ControllerServices(hub=hub, store=nothing, solver=nothing, desk=nothing, link=link, tasks=Tasks())
        assert (services.why_not_ready() == "") == ready
        hub.world = heard(hub.world, a_report("fra"), now_s=now_s)
        assert services.why_not_ready() == ""
