"""The heartbeat: whose silence it is when the controller itself did not run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

import pytest

from federation.aiokit.clock import Clock
from federation.control.plan import Plan, Routes
from federation.loops import tick
from federation.loops.hub import Hub
from federation.metrics import Metrics
from tests.builders import a_model, a_report, a_world, heard, replicas

CLUSTERS = ("fra-1", "fra-2", "fra-3", "iad-1", "iad-2", "nrt-1")


class Jumping(Clock):
    """A clock on which each wait takes as long as it is told to; after the last, the loop ends."""

    def __init__(self, sleeps_s: Iterable[float]) -> None:
        super().__init__()
        self._sleeps_s = list(sleeps_s)
        self._now_s = 0.0

    def monotonic_s(self) -> float:
        return self._now_s

    def timeout(self, duration_s: float) -> contextlib.AbstractAsyncContextManager[object]:
        if not self._sleeps_s:
            raise asyncio.CancelledError
        self._now_s += self._sleeps_s.pop(0)
        return asyncio.timeout(0.0)


async def ticked(*sleeps_s: float) -> Hub:
    """A hub that heard every cluster at 0 s, after ticks that took so long."""
    world = heard(a_world(*CLUSTERS), *(a_report(name) for name in CLUSTERS), now_s=0.0)
    hub = Hub(world=world, plan=Plan(), routes=Routes(), epoch=1, clock=Jumping(sleeps_s), metrics=Metrics())
    with pytest.raises(asyncio.CancelledError):
        await tick.run(hub)
    return hub


def phases(hub: Hub) -> set[str]:
    return {state.phase.value for state in hub.world.clusters.values()}


async def test_a_controller_that_slept_takes_no_silence_for_an_answer() -> None:
    """A starved or paused machine would leave every cluster for dead, and users with no route, the moment it wakes."""
    hub = await ticked(5.0, 60.0, 5.0, 5.0)
    assert phases(hub) == {"ready"}
    assert not hub.world.braked
    assert [event.reason for event in hub.events] == ["ControllerSlept"]


async def test_silence_after_it_slept_still_counts() -> None:
    """One long pause would make a controller that never again sees a cluster fail."""
    hub = await ticked(60.0, *[5.0] * 9)
    assert phases(hub) == {"unreachable"}
    assert hub.world.braked, "all of them at once: it is the controller that is cut off"


def series(hub: Hub) -> dict[str, set[str]]:
    """Label values of what is measured, by the metric's name."""
    found: dict[str, set[str]] = {}
    for metric in hub.metrics.registry.collect():
        for sample in metric.samples:
            found.setdefault(metric.name, set()).update(sample.labels.values())
    return found


async def test_labels_are_of_the_catalogue_and_go_with_it() -> None:
    """One agent that makes up models would fill the memory of the controller and of Prometheus."""
    world = a_world("fra", "iad", models=(a_model("chat"),))
    made_up = tuple(replicas(f"made-up-{number}", 1, 1) for number in range(400))
    world = heard(world, a_report("fra", replicas=(*made_up, replicas("chat", 1, 1))), a_report("iad"))
    hub = Hub(world=world, plan=Plan(), routes=Routes(), epoch=1, clock=Clock(), metrics=Metrics())
    tick.measure(hub)
    assert series(hub)["isochrone_model_replicas"] == {"chat", "desired", "ready"}
    assert series(hub)["isochrone_cluster_report_age_seconds"] == {"fra", "iad"}
    hub.world = heard(a_world("iad", models=(a_model("other"),)), a_report("iad"))
    tick.measure(hub)
    assert series(hub)["isochrone_model_replicas"] == {"other", "desired", "ready"}
    assert series(hub)["isochrone_cluster_report_age_seconds"] == {"iad"}
