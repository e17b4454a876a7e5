"""What is silent is replaced when that is worth it: soon where users go without, not where nobody misses it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sim.fleet import SimFleet

TOLERATION_S = 120.0
RESTART_S = 12.0


async def started(directory: Path, floor: int) -> tuple[SimFleet, str]:
    """A fleet at rest, and the cluster that serves most of Berlin."""
    fleet = SimFleet(11, directory, floor=floor)
    await fleet.start_controller()
    await fleet.run(900, fleet.check)
    rows = [route for route in fleet.hub.routes.routes if route.cell == "Berlin"]
    shares = {one.cluster: one.share for route in rows for one in route.now}
    return fleet, max(sorted(shares), key=lambda name: shares[name])


def elsewhere(fleet: SimFleet, silent: str) -> int:
    return sum(count for (_, cluster, _), count in fleet.hub.plan.desired_by_key().items() if cluster != silent)


async def replaced_after_s(fleet: SimFleet, silent: str, within_s: float) -> float:
    """Seconds from the silence until more is ordered elsewhere; `within_s` where it is not."""
    before, began_s = elsewhere(fleet, silent), fleet.clock.now_s
    while fleet.clock.now_s < began_s + within_s and elsewhere(fleet, silent) <= before:
        await fleet.run(1, fleet.check)
    return fleet.clock.now_s - began_s


async def test_what_users_go_without_is_replaced_long_before_the_toleration(tmp_path: Path) -> None:
    """Five minutes of a region's users would be refused, to spare what is started in seconds for cents."""
    fleet, silent = await started(tmp_path, 3)
    there = fleet.ready()[silent]
    fleet.cut(silent, will=True)
    waited_s = await replaced_after_s(fleet, silent, TOLERATION_S)
    assert waited_s <= 40.0, "an agent that restarts is waited for, and no longer"
    assert fleet.ready()[silent] == there, "nothing is deleted in the silent cluster"
    assert any("users lose" in one.message for one in fleet.hub.events), "and people are told why"
    await fleet.run(600, fleet.check)
    assert all(sum(one.share for one in route.now) > 0.999 for route in fleet.hub.routes.routes)
    await fleet.heal(silent)
    await fleet.run(3600, fleet.check)
    generation = fleet.hub.plan.generation
    await fleet.run(900, fleet.check)
    assert fleet.hub.plan.generation == generation, "it comes to rest"
    assert not fleet.hub.given_up


async def test_an_agent_that_restarts_moves_nothing(tmp_path: Path) -> None:
    """Each update of the agents would start everything once more elsewhere."""
    fleet, silent = await started(tmp_path, 3)
    before = elsewhere(fleet, silent)
    fleet.cut(silent, will=True)
    await fleet.run(RESTART_S, fleet.check)
    await fleet.heal(silent)
    await fleet.run(300, fleet.check)
    assert elsewhere(fleet, silent) == before


@pytest.mark.parametrize("spares", [30])
async def test_what_nobody_misses_is_waited_for(spares: int, tmp_path: Path) -> None:
    """Replicas would be started for a cluster whose users are served as well without it, and comes back."""
    fleet, silent = await started(tmp_path, spares)
    fleet.cut(silent, will=True)
    assert await replaced_after_s(fleet, silent, TOLERATION_S - 10.0) >= TOLERATION_S - 10.0
