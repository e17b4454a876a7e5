"""The forecast is made once a minute and shown beside what is counted."""

from __future__ import annotations

from federation.aiokit.clock import Clock
from federation.api import render
from federation.control.foresight import Foresight
from federation.control.plan import Plan, Routes
from federation.loops.foresee import Foresee
from federation.loops.hub import Hub
from federation.metrics import Metrics
from federation.state.world import World
from tests.builders import a_model, a_policy, a_report, a_world, heard, some_demand


def a_fleet() -> World:
    world = a_world("fra", models=(a_model("chat"),), policies=(a_policy("chat"),))
    return heard(world, a_report("fra", demand=(some_demand("chat", "Bonn", 8.0), some_demand("chat", "Trier", 2.0))))


async def test_a_look_is_the_hubs_newest_forecast() -> None:
    """`isochrone get demand -o wide` would have no forecast for ever."""
    hub = Hub(world=a_fleet(), plan=Plan(), routes=Routes(), epoch=1, clock=Clock(), metrics=Metrics())
    loop = Foresee(hub)
    for _ in range(60):
        await loop.once()
    assert set(hub.foresight.expected) == {("chat", "fra")}


def test_a_cell_has_its_part_of_its_regions_forecast() -> None:
    """A cell would be told to expect the whole region."""
    world = a_fleet()
    scene = render.Scene(
        world=world,
        plan=Plan(),
        routes=Routes(),
        epoch=1,
        now_s=5.0,
        at_s=5.0,
        speed=1.0,
        message="",
        foresight=Foresight(
            expected={("chat", "fra"): {10: 1.5, 30: 2.0}}, quantiles={"p90": {("chat", "fra"): {10: 2.0, 30: 3.0}}}
        ),
    )
    bonn, trier = render.demand(scene)
    assert [(one.minutes, one.rps, one.rps_below) for one in trier.forecast] == [(10, 3.0, 4.0), (30, 4.0, 6.0)]
    assert (bonn.sources, bonn.age_s, bonn.is_spread) == (("fra (file)",), 5.0, False)
