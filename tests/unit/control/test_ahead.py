"""Plans for the demand of when replicas are ready, where policy asks for it; routing for that of now."""

from __future__ import annotations

import pytest

from federation.aiokit.clock import Clock
from federation.control.foresight import MOST_AHEAD, Foresight, growth
from federation.control.plan import Plan, Routes
from federation.control.problem import Formulated
from federation.loops.hub import Hub
from federation.metrics import Metrics
from federation.policy.documents import DemandForecast
from federation.state.world import World
from tests.builders import a_model, a_policy, a_report, a_world, heard, some_demand

SERIES = ("chat", "fra")


def a_fleet(forecast: DemandForecast) -> World:
    """Frankfurt and Ashburn with users each; the model needs a minute to start."""
    world = a_world("fra", "iad", models=(a_model(),), policies=(a_policy("chat", demand_forecast=forecast),))
    here, there = some_demand("chat", "Berlin", 10.0), some_demand("chat", "Boston", 20.0, country="US", at="iad")
    return heard(world, a_report("fra", demand=(here,)), a_report("iad", demand=(there,)))


def told(ten: float, thirty: float) -> Foresight:
    """A forecast of Frankfurt's users by two quantiles."""
    quantiles: dict[DemandForecast, dict[tuple[str, str], dict[int, float]]] = {
        "p50": {SERIES: {10: 1.0, 30: 1.0}},
        "p90": {SERIES: {10: ten, 30: thirty}},
    }
    return Foresight(expected=quantiles["p50"], quantiles=quantiles)


@pytest.mark.parametrize(
    ("forecast", "ten", "thirty", "wanted"),
    [
        ("off", 2.0, 2.0, {}),
        ("p50", 2.0, 2.0, {}),
        ("p95", 2.0, 2.0, {}),
        ("p90", 1.5, 2.0, {SERIES: 1.1}),
        ("p90", 0.5, 0.4, {}),
        ("p90", 90.0, 90.0, {SERIES: MOST_AHEAD}),
    ],
)
def test_what_is_asked_for_is_by_the_time_that_a_start_takes(
    forecast: DemandForecast, ten: float, thirty: float, wanted: dict[tuple[str, str], float]
) -> None:
    """Plans would buy for half an hour ahead what is ready in two minutes, give up what is needed now, or buy without
    end for a forecast gone wild."""
    assert growth(a_fleet(forecast), told(ten, thirty)) == wanted


async def test_plans_are_made_ahead_and_users_are_routed_as_they_are() -> None:
    """Shares would be of users who are not there."""
    hub = Hub(world=a_fleet("p90"), plan=Plan(), routes=Routes(), epoch=1, clock=Clock(), metrics=Metrics())
    hub.foresight = told(3.0, 3.0)

    def rps(made: Formulated) -> dict[str, float]:
        return {one.cell: round(one.requests_per_second, 2) for one in made.problem.demands}

    planned = await hub.formulate(hub.world, 1.0)
    routed = await hub.formulate(hub.world, 1.0, routes=True)
    assert rps(planned) == {"Berlin": 14.0, "Boston": 20.0}
    assert rps(routed) == {"Berlin": 10.0, "Boston": 20.0}
    assert await hub.formulate(hub.world, 1.0) is planned, "each question is kept"
    assert await hub.formulate(hub.world, 1.0, routes=True) is routed
    hub.foresight = Foresight()
    assert rps(await hub.formulate(hub.world, 1.0)) == {"Berlin": 10.0, "Boston": 20.0}
