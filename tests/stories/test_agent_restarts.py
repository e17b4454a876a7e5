"""An agent that starts again, with and without what it remembered."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from agents import memory
from agents.app import Agent
from federation.wire import messages
from tests.testbed.fleet import INTERVAL_S, Fleet, simulated_agent


async def lives(fleet: Fleet, agent: Agent) -> None:
    """Run an agent until the controller has heard it, then end it."""
    task = asyncio.get_running_loop().create_task(agent.run())
    try:
        async with asyncio.timeout(10):
            while not heard(fleet, agent):
                await fleet.controller.hub.change(timeout_s=0.1)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def heard(fleet: Fleet, agent: Agent) -> bool:
    report = fleet.controller.hub.world.clusters["mad"].report
    return report is not None and report.boot_id == agent._boot_id


def an_agent(fleet: Fleet, state: Path | None) -> Agent:
    agent, _ = simulated_agent(
        "mad", [], address=fleet.controller.broker, clock=fleet.clock, interval_s=INTERVAL_S, state_path=state
    )
    agent._boot_id = f"boot-{id(agent):016x}"
    return agent


def test_an_agent_that_lost_its_file_is_heard_again(tmp_path: Path) -> None:
    """A pod that is moved to another node loses its volume; its cluster must not look silent for ever."""
    with Fleet(tmp_path, silent=("mad",)) as fleet:
        state = tmp_path / "state.json"
        memory.write(state, memory.Memory(boot_order=5))
        fleet.run(lives(fleet, an_agent(fleet, state)))
        fleet.run(lives(fleet, an_agent(fleet, None)))
        fleet.run(lives(fleet, an_agent(fleet, state)))


def test_a_restarted_agent_refuses_what_is_older_than_it_remembers(tmp_path: Path) -> None:
    """A broker restored from a backup would else bring back last week's placement."""
    with Fleet(tmp_path, silent=("mad",)) as fleet:
        state = tmp_path / "state.json"
        accepted = messages.seal(messages.Desired(cluster="mad", epoch=90, generation=7))
        memory.write(state, memory.Memory(boot_order=1, desired=accepted))
        agent = an_agent(fleet, state)
        stale = messages.seal(msgspec.structs.replace(accepted, epoch=89, generation=900))

        async def story() -> messages.Ack:
            task = asyncio.get_running_loop().create_task(agent.run())
            try:
                async with asyncio.timeout(10):
                    while not heard(fleet, agent):
                        await fleet.controller.hub.change(timeout_s=0.1)
                    while True:
                        await fleet.controller.link.publish(stale, "desired")
                        await fleet.controller.hub.change(timeout_s=0.2)
                        ack = fleet.controller.hub.world.clusters["mad"].ack
                        if ack is not None and ack.epoch == 89:
                            return ack
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

        ack = fleet.run(story())
        assert not ack.ok
        assert ack.error.startswith("stale: 89.900 is older than 90.7")
        assert (ack.accepted_epoch, ack.accepted_generation) == (90, 7)
