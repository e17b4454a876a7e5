"""Hours of an unkind world in seconds, by seed: nothing that must hold is broken, and quiet brings order."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.sim.fleet import DEVICES, FLOOR, SimFleet, Weather

CALM = Weather()
ROUGH = Weather(loss=0.05, repeat=0.05, delay_s=12.0)


def seeds(first: int, count: int) -> list[Any]:
    """One seed for every day, the others for the whole run."""
    return [pytest.param(first), *(pytest.param(first + n, marks=pytest.mark.slow) for n in range(1, count))]


async def settle(fleet: SimFleet) -> None:
    """A quiet hour, so that no hour's moves are used up; then all is there, and nothing moves any more."""
    fleet.weather = CALM
    for name in fleet.NAMES:
        await fleet.heal(name)
    await fleet.run(3700, fleet.check)
    story = "\n".join(fleet.said[-15:])
    assert fleet.ready() == fleet.wanted(), story
    shares = {route.cell: sum(share.share for share in route.now) for route in fleet.hub.routes.routes}
    assert shares == pytest.approx(dict.fromkeys(("Berlin", "New York", "Tokyo"), 1.0), abs=1e-4), story
    generation = fleet.hub.plan.generation
    for name, agent in fleet.agents.items():
        told = (fleet.hub.epoch, fleet.hub.plan.generations[name])
        assert agent.accepted.fence == told, f"{name} holds {agent.accepted.fence}, not {told}"
    await fleet.run(900, fleet.check)
    assert fleet.hub.plan.generation == generation, f"a quiet world was changed: {fleet.hub.plan.summary}"


async def started(seed: int, directory: Path) -> SimFleet:
    fleet = SimFleet(seed, directory)
    await fleet.start_controller()
    await fleet.run(600, fleet.check)
    assert sum(fleet.ready().values()) >= FLOOR
    return fleet


async def one_fault(fleet: SimFleet, rng: random.Random, *, shrink: bool) -> str:
    """Let one thing go wrong, or right again."""
    name = rng.choice(fleet.NAMES)
    faults = ["cut", "heal", "heal", "agent", "controller", "broker", "weather", "demand", "price"]
    match rng.choice([*faults, "shrink"] if shrink else faults):
        case "cut":
            fleet.cut(name)
        case "heal":
            await fleet.heal(name)
        case "agent":
            fleet.restart_agent(name)
        case "controller":
            await fleet.stop_controller()
            await fleet.run(rng.uniform(1, 120))
            await fleet.start_controller()
        case "broker":
            fleet.forget_broker()
        case "weather":
            fleet.weather = rng.choice((CALM, ROUGH))
        case "demand":
            fleet.ask(name, rng.uniform(5, 70))
        case "price":
            fleet.resize(name, fleet.agents[name].backend.offered[0].allocatable, rng.uniform(0.3, 3.0))
        case "shrink":
            fleet.resize(name, rng.randrange(DEVICES + 1))
    return name


@pytest.mark.parametrize("seed", seeds(0, 12))
async def test_whatever_happens_the_rules_hold_and_order_returns(seed: int, tmp_path: Path) -> None:
    """Each seed is an hour of faults that no test of a single fault has: print it, and it happens again."""
    fleet = await started(seed, tmp_path)
    rng = random.Random(seed)
    for _ in range(30):
        await one_fault(fleet, rng, shrink=True)
        await fleet.run(rng.uniform(5, 240), fleet.check)
    for name in fleet.NAMES:
        fleet.resize(name, DEVICES)
    await settle(fleet)
    await fleet.stop_controller()


@pytest.mark.parametrize("seed", seeds(118, 12))
async def test_no_fault_of_the_network_takes_replicas_below_the_floor(seed: int, tmp_path: Path) -> None:
    """Users would find nobody because messages were lost, repeated, late, or because the controller died."""
    fleet = await started(seed, tmp_path)

    def check() -> None:
        fleet.check()
        assert sum(fleet.ready().values()) >= FLOOR, f"seed {seed}: {fleet.ready()}\n" + "\n".join(fleet.said[-9:])

    rng = random.Random(seed)
    for _ in range(30):
        await one_fault(fleet, rng, shrink=False)
        await fleet.run(rng.uniform(5, 240), check)
    await settle(fleet)
    await fleet.stop_controller()


async def test_a_controller_that_lost_its_disk_goes_on_where_the_agents_are(tmp_path: Path) -> None:
    """Else every agent refuses it for ever, or every replica is started a second time."""
    fleet = await started(99, tmp_path)
    await fleet.stop_controller()
    await fleet.start_controller()  # so that the agents' epoch is not a first one
    await fleet.run(300, fleet.check)
    before, epoch = fleet.ready(), fleet.hub.epoch
    await fleet.stop_controller(forget=True)
    await fleet.start_controller()
    assert fleet.hub.epoch < epoch
    await fleet.run(600, fleet.check)
    assert fleet.hub.epoch > epoch
    assert fleet.ready() == before, "\n".join(fleet.said[-9:])
    await settle(fleet)
    await fleet.stop_controller()
