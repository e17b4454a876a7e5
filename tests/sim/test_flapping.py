"""A cluster that comes and goes: its users are moved once, not every time."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from tests.sim.fleet import SimFleet

TOGGLE_S, HOUR_S = 15.0, 3600.0


@pytest.mark.parametrize(
    ("floor", "returns"),
    [
        pytest.param(30, 0, id="others have room"),
        # Half the time is better than never, until there are replicas elsewhere.
        pytest.param(3, 5, id="nobody else can serve until replicas were started"),
    ],
)
async def test_a_cluster_that_toggles_for_an_hour_moves_its_users_once(
    floor: int, returns: int, tmp_path: Path
) -> None:
    """Its users would be thrown to and fro four times a minute, and every cache with them."""
    fleet = SimFleet(7, tmp_path, floor=floor)
    fleet.ask("fra-1", 40.0)
    await fleet.start_controller()
    await fleet.run(900, fleet.check)
    generation = fleet.hub.plan.generation
    shares: dict[str, list[float]] = {}
    moves: dict[int, int] = {}

    def berlin_share(cluster: str) -> float:
        rows = [route for route in fleet.hub.routes.routes if route.cell == "Berlin"]
        return sum(one.share for route in rows for one in route.now if one.cluster == cluster)

    def watch() -> None:
        fleet.check()
        plan = fleet.hub.plan
        if plan.generation > generation:
            moves[plan.generation] = plan.moves
        for route in fleet.hub.routes.routes:
            there = sum(share.share for share in route.now if share.cluster == toggling)
            seen = shares.setdefault(route.cell, [])
            if not seen or seen[-1] != there:
                seen.append(there)

    toggling = max(("fra-1", "fra-2", "par"), key=berlin_share)
    watch()
    assert berlin_share(toggling) > 0.3, "it serves somebody before"
    ended_s = fleet.clock.now_s + HOUR_S
    while fleet.clock.now_s < ended_s:
        fleet.cut(toggling, will=True)
        await fleet.run(TOGGLE_S, watch)
        await fleet.heal(toggling)
        await fleet.run(TOGGLE_S, watch)
    story = "\n".join(fleet.said[-20:])
    assert sum(moves.values()) <= 4, f"{moves}\n{story}"
    for cell, there in shares.items():
        rises = [(old, new) for old, new in pairwise(there) if old < 0.005 < new]
        assert len(rises) <= returns, f"{cell} was sent back to {toggling} while it toggled: {there}\n{story}"
    await fleet.run(HOUR_S + 100.0, fleet.check)
    await fleet.stop_controller()
    assert fleet.hub.world.clusters[toggling].unsteady_s is None, "an hour of peace, and it is trusted again"
    assert all(sum(one.share for one in route.now) > 0.999 for route in fleet.hub.routes.routes), story
