"""Demand from systems alone: no file says how many users there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from federation.state.sources import near
from tests.testbed.fixtures import require_envoy
from tests.testbed.lab import DOORS, MODEL_NAME, Lab, Load
from tests.testbed.small_world import USERS

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(240)]
RPS = {"Berlin": 30.0, "Lyon": 15.0, "New York": 20.0}


@pytest.fixture(autouse=True)
def _gateways() -> None:
    require_envoy()


async def test_gateways_alone_tell_how_many_users_there_are_and_where(tmp_path: Path) -> None:
    """A fleet would be planned from a file that nobody writes: whoever installs agents and gateways has users at once.

    Requests that are refused count too, else nobody would ever start what nobody can serve yet.
    """
    lab = Lab(tmp_path, rps=RPS, counted=True, interval_s=1.0)
    async with lab.running():
        ports = {cell: lab.gateway_ports[name] for name, cell in DOORS.items()}
        async with Load(ports, RPS):

            def counted() -> dict[str, float]:
                found = lab.hub.world.demand
                return {cell: found[MODEL_NAME, cell].requests_per_second for _, cell in found if _ == MODEL_NAME}

            def is_counted() -> bool:
                seen = counted()
                return all(abs(seen.get(cell, 0.0) - rps) < 0.1 * rps for cell, rps in RPS.items())

            await lab.until(is_counted, "count of each cell within a tenth", timeout_s=90)
            seen = counted()
            for cell, (country, lat, lon, _) in USERS.items():
                place = lab.hub.world.cells[cell]
                assert (place.country, place.lat, place.lon) == (country, lat, lon)
            assert all(seen.get(near(name), 0.0) < 1.0 for name in DOORS), seen
            sources = {name: dict(state.sources) for name, state in lab.hub.world.clusters.items()}
            assert sources == {name: {MODEL_NAME: "gateway"} for name in DOORS}
            await lab.until(lambda: all(lab.plan_of(cell) for cell in RPS), "plan for every cell", timeout_s=60)
