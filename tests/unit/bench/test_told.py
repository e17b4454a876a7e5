"""The whole controller on a small fleet."""

from __future__ import annotations

import asyncio

import pytest

from federation.demo.pace import SimulatedTime
from tests.bench import told


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_gateways_are_told_what_the_replicas_can_do() -> None:
    """Users would be sent farther than the plan says, or where there is no room for them, though it could be kept."""
    simulated = SimulatedTime(speed=told.SPEED)
    with asyncio.Runner(loop_factory=simulated.loop) as runner:
        found = runner.run(told.lived(simulated, 1, clusters=12, cells=30, models=3))
    assert found.told == pytest.approx(found.routed, abs=0.001)
    assert found.told > found.planned - 0.001
    assert found.unserved < 1e-6
