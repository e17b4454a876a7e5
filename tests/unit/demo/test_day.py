"""A day of the demo's world, planned by the engine on what the controller would know."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import replace

import pytest

from federation.control.problem import formulate
from federation.demo import replay
from federation.demo.physics import Physics
from federation.demo.scoring import Observed, ReplicaKey, Score
from federation.state.reduce import BrokerFound, DocumentsAccepted, Heard, reduce
from federation.state.world import Timing, World
from federation.wire import messages
from placement import engine

STEPS = 24


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


def planned(physics: Physics, day_fraction: float, held: dict[ReplicaKey, int], rng: random.Random) -> Observed:
    """The engine's answer, carried out at once."""
    world = reduce(World(timing=Timing()), DocumentsAccepted(documents=physics.catalogue.documents, now_s=0.0)).world
    world = replace(reduce(world, BrokerFound(now_s=0.0)).world, started_s=0.0)
    for report in reports(physics, day_fraction, rng):
        world = reduce(world, Heard(message=report, now_s=0.0)).world
    held = {key: count for key, count in held.items() if physics.is_alive(key[1], day_fraction)}
    formulated = formulate(world, target=held, desired=held, now_s=0.0)
    solution = engine.solve(formulated.problem)
    demand = physics.demand(day_fraction)
    shares: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for flow in solution.flows:
        shares[flow.model, flow.cell][flow.cluster] = flow.requests_per_second / demand[flow.model, flow.cell]
    found = formulated.ours(solution.replicas)
    return Observed(ready=found, held=found, shares=shares)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.xfail(strict=True, reason="plans an hour late leave 1.8 % unserved; greedy at once knows the truth")
def test_the_engine_beats_other_tools_over_the_day(physics: Physics) -> None:
    """The demo's summary would show a product that is not worth installing.

    The engine sees reports only (scattered round trips between clusters, none to users); each of its plans is in force
    one step, an hour, after the moment that it was made for, while the others know the truth.
    """
    rng = random.Random(1)
    ours, held = Score(physics), dict[ReplicaKey, int]()
    late = planned(physics, 1.0 - 1.0 / STEPS, held, rng)
    for step in range(STEPS):
        ours.add(step / STEPS, 24.0 / STEPS, late)
        late = planned(physics, step / STEPS, dict(late.held), rng)
    mine = ours.summary()
    steps = [(step / STEPS, 24.0 / STEPS) for step in range(STEPS)]
    for name, theirs in replay.summaries(physics, steps).items():
        assert mine.within_objective_share > theirs.within_objective_share - 0.01, name
        assert mine.usd_per_hour < theirs.usd_per_hour or mine.rtt_ms_mean < 0.5 * theirs.rtt_ms_mean, name
