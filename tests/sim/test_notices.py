"""Nodes that are announced to go: an agent counts their devices no more, though what runs there still serves."""

from __future__ import annotations

from pathlib import Path

from msgspec import structs

from federation.wire import messages
from tests.sim.fleet import SimAgent, SimFleet

NOTICE_S = 120
"""What AWS gives before it takes an instance back."""


class NoticedFleet(SimFleet):
    """All nodes of the clusters in `noticed` have a notice, as `agents.inventory` reports them."""

    noticed: frozenset[str] = frozenset()

    async def _observed(self, agent: SimAgent) -> messages.Report:
        report = await super()._observed(agent)
        if agent.name not in self.noticed:
            return report
        gone = tuple(structs.replace(one, allocatable=0, free=0, leaving=one.allocatable) for one in report.pools)
        return structs.replace(report, pools=gone)


async def test_replacements_are_ready_before_what_was_announced_is_taken(tmp_path: Path) -> None:
    """Users would wait for a warm-up after each loss, though the provider said two minutes before that it comes."""
    fleet = NoticedFleet(11, tmp_path)
    await fleet.start_controller()
    await fleet.run(600, fleet.check)
    before = sum(fleet.ready().values())
    going = max(fleet.wanted(), key=lambda name: (fleet.wanted()[name], name))
    assert fleet.ready()[going] > 0
    least = before

    def watch() -> None:
        nonlocal least
        least = min(least, sum(fleet.ready().values()))
        fleet.check()

    fleet.noticed = frozenset({going})
    await fleet.run(NOTICE_S, watch)
    elsewhere = sum(count for name, count in fleet.ready().items() if name != going)
    assert elsewhere >= before, f"ready {fleet.ready()}, wanted {fleet.wanted()}, {fleet.said[-3:]}"
    assert least >= before, "what is announced serves until its replacement does"
    await fleet.stop_controller()
