"""A day of the demo's world, planned by the engine on what the controller would know."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import pytest

from federation.control.problem import formulate
from federation.demo import replay
from federation.demo.physics import Physics
from federation.demo.scoring import Observed, Score
from federation.state.keys import ModelCell, PlacementKey
from federation.state.reduce import BrokerFound, DocumentsAccepted, Heard, reduce
from federation.state.world import Timing, World
from federation.wire import messages
from placement import engine

STEPS = 48


def reports(physics: Physics, day_fraction: float, rng: random.Random) -> list[messages.Report]:
    """What the agents that are alive would say."""
    demand: dict[str, list[messages.DemandSample]] = defaultdict(list)
    for (model, cell), rps in physics.demand(day_fraction).items():
        sample = messages.DemandSample(model=model, cell=physics.user_cell(cell), requests_per_second=rps)
        demand[physics.front_door(cell, day_fraction)].append(sample)
    names = sorted(name for name in physics.clusters if physics.is_alive(name, day_fraction))
    return [
        messages.Report(
            cluster=name,
            boot_id="boot-0001",
            seq=1,
            interval_s=10.0,
            pools=physics.pool_reports(name, day_fraction),
            peers=tuple(
                messages.PeerRtt(cluster=peer, rtt_ms_p50=rtt_ms, rtt_ms_p95=rtt_ms, samples=5)
                for peer in names
                if peer != name
                for rtt_ms in [physics.measured_rtt_ms(name, peer, rng)]
            ),
            demand=tuple(demand[name]),
        )
        for name in names
    ]


def heard(physics: Physics, day_fraction: float, rng: random.Random) -> World:
    """What the controller knows at this moment."""
    world = reduce(World(timing=Timing()), DocumentsAccepted(documents=physics.catalogue.documents, now_s=0.0)).world
    world = replace(reduce(world, BrokerFound(now_s=0.0)).world, started_s=0.0)
    for report in reports(physics, day_fraction, rng):
        world = reduce(world, Heard(message=report, now_s=0.0)).world
    return world


def planned(world: World, held: Mapping[PlacementKey, int]) -> dict[PlacementKey, int]:
    """The replicas of the engine's plan."""
    formulated = formulate(world, target=held, desired=held, now_s=0.0)
    return formulated.ours(engine.solve(formulated.problem).replicas)


def observed(physics: Physics, day_fraction: float, world: World, held: Mapping[PlacementKey, int]) -> Observed:
    """These replicas with the routing of this moment."""
    formulated = formulate(world, target=held, desired=held, now_s=0.0)
    demand = physics.demand(day_fraction)
    shares: dict[ModelCell, dict[str, float]] = defaultdict(dict)
    for flow in engine.route(formulated.problem, formulated.theirs(held)).flows:
        shares[ModelCell((flow.model, flow.cell))][flow.cluster] = (
            flow.requests_per_second / demand[ModelCell((flow.model, flow.cell))]
        )
    return Observed(ready=held, held=held, shares=shares)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_engine_beats_other_tools_over_the_day(physics: Physics) -> None:
    """The demo's summary would show a product that is not worth installing.

    The engine sees reports only (scattered round trips between clusters, none to users). Its routing is of the moment,
    as the controller's is; the replicas of each of its plans are there one step, half an hour, after the moment that it
    was made for, while the others know the truth.
    """
    rng = random.Random(1)
    ours = Score(physics)
    late = planned(heard(physics, 1.0 - 1.0 / STEPS, rng), {})
    for step in range(STEPS):
        world = heard(physics, step / STEPS, rng)
        held = {key: count for key, count in late.items() if physics.is_alive(key[1], step / STEPS)}
        ours.add(step / STEPS, 24.0 / STEPS, observed(physics, step / STEPS, world, held))
        late = planned(world, held)
    mine = ours.summary()
    steps = [(step / STEPS, 24.0 / STEPS) for step in range(STEPS)]
    for name, theirs in replay.summaries(physics, steps).items():
        assert mine.within_objective_share > theirs.within_objective_share - 0.01, (name, mine, theirs)
        assert mine.usd_per_hour < theirs.usd_per_hour or mine.rtt_ms_mean < 0.5 * theirs.rtt_ms_mean, (
            name,
            mine,
            theirs,
        )
