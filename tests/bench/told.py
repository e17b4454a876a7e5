"""What gateways are told, beside what was planned: the whole controller, the embedded broker and an agent for each of a
hundred simulated clusters, until replicas are warm and shares have arrived.

Every request is followed by the table of the gateway at its users' front door, and every cluster serves no more than
its ready replicas can; round trips are those that the controller plans with.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
import yaml
from msgspec import structs

from agents.app import Agent, AgentSettings
from agents.simulated import Ready, SimulatedBackend
from federation.aiokit.tasks import Tasks
from federation.app import Controller
from federation.demo.pace import DemoClock, SimulatedTime
from federation.logs import configure
from federation.policy import documents
from federation.settings import Listen, Settings
from federation.state.world import Timing
from federation.traffic.table import GatewayTable
from federation.wire import messages
from placement import capacity, engine
from placement.index import Index
from placement.problem import Problem
from placement.solution import Flow
from tests.bench import fleet
from tests.bench.demo_size import result
from tests.bench.worlds import Floats, a_world_with_places

CLUSTERS, CELLS, MODELS = 100, 500, 8
SEEDS = (1, 2, 3)
REPORT_S, PLAN_S = 60.0, 300.0
LOOK_S, SETTLED_S, AT_MOST_S = 60.0, 1_500.0, 14_400.0
"""Looks at whether it has arrived, not before some plans have known the measured round trips, nor for ever."""
SPEED = 1e6
"""Nobody watches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """Parts of all requests: within the objective by the plan, by its routing, and as gateways are told; unserved as
    they are told; requests per second of the fullest cluster by what plans count on there."""

    planned: float
    routed: float
    told: float
    unserved: float
    fullest: float
    simulated_s: float


def told() -> Iterator[dict[str, object]]:
    """For each seed, what gateways are told beside the plan."""
    configure("auto", level=logging.ERROR)
    for seed in SEEDS:
        simulated = SimulatedTime(speed=SPEED)
        with asyncio.Runner(loop_factory=simulated.loop) as runner:
            found = runner.run(lived(simulated, seed, clusters=CLUSTERS, cells=CELLS, models=MODELS))
        size = f"{CLUSTERS}x{CELLS}x{MODELS}"
        yield result(f"{size} within, as told", 100 * found.told, "%", "plan", 100 * found.planned, seed)
        yield result(f"{size} within, as told", 100 * found.told, "%", "its routing", 100 * found.routed, seed)
        yield result(f"{size} unserved, as told", 100 * found.unserved, "%", "", None, seed)
        yield result(f"{size} fullest cluster", found.fullest, "of the planned utilisation", "", None, seed)
        yield result(f"{size} until it had arrived", found.simulated_s, "s, simulated", "", None, seed)


async def lived(simulated: SimulatedTime, seed: int, *, clusters: int, cells: int, models: int) -> Told:
    """From nothing to shares that have arrived. Raises: TimeoutError."""
    problem, users, places = a_world_with_places(seed, clusters=clusters, cells=cells, models=models)
    clock = DemoClock(simulated)
    timing = Timing(report_interval_s=REPORT_S, tick_s=REPORT_S / 2, stale_after_s=4 * REPORT_S)
    settings = Settings(listen=Listen(port=0), timing=timing, plan_period_s=PLAN_S, seed=seed)
    tasks = Tasks()
    controller = await Controller.start(settings, clock=clock)
    try:
        with clock.working():
            given = _with_gateways(fleet.documents_of(problem, fleet.degrees(places)))
            await controller.desk.accept("fleet.yaml", _as_yaml(given), actor="bench")
            for report in fleet.reports_of(problem, fleet.degrees(users), places, seed):
                tasks.start(report.cluster, _agent(controller, clock, report, places, problem, seed).run())
                while controller.hub.world.clusters[report.cluster].heard_s is None:
                    await controller.hub.change(timeout_s=0.1)
        async with clock.timeout(AT_MOST_S):
            await clock.sleep(SETTLED_S)
            while not _has_arrived(controller):
                await clock.sleep(LOOK_S)
        return _told(controller, clock.monotonic_s())
    finally:
        await tasks.stop()
        await controller.stop()


def _with_gateways(given: documents.Documents) -> documents.Documents:
    made = (
        structs.replace(
            one, spec=structs.replace(one.spec, gateway=documents.Gateway(address=f"10.0.{at // 250}.{at % 250 + 1}"))
        )
        for at, one in enumerate(given.clusters)
    )
    return structs.replace(given, clusters=tuple(made))


def _as_yaml(given: documents.Documents) -> bytes:
    every = (*given.clusters, *given.models, *given.policies)
    return yaml.safe_dump_all(msgspec.to_builtins(one) for one in every).encode()


def _agent(
    controller: Controller, clock: DemoClock, report: messages.Report, places: Floats, problem: Problem, seed: int
) -> Agent:
    at = [cluster.name for cluster in problem.clusters].index(report.cluster)
    rng = random.Random(f"{seed}/{report.cluster}")

    def endpoints(ready: Ready) -> tuple[messages.ReplicaEndpoint, ...]:
        serving = sorted({model for (model, _), count in ready.items() if count})
        return tuple(messages.ReplicaEndpoint(model=model, address="10.1.0.1", port=8000) for model in serving)

    backend = SimulatedBackend(
        pools=report.pools,
        clock=clock,
        rng=rng,
        at=tuple(fleet.degrees(places)[at].tolist()),
        demand=lambda: report.demand,
        probe=f"{report.cluster}.bench:1",
        endpoints=endpoints,
    )
    settings = AgentSettings(cluster=report.cluster, address=controller.broker, interval_s=REPORT_S, version="bench")
    return Agent(settings, backend, clock=clock, rng=rng)


def _has_arrived(controller: Controller) -> bool:
    hub = controller.hub
    target, ready = hub.plan.target_by_key(), hub.world.ready_replicas()
    return (
        hub.last_solve is not None
        and bool(target)
        and bool(hub.tables.by_cluster)
        and all(ready.get(key, 0) >= count for key, count in target.items())
        and all(count == target.get(key, 0) for key, count in ready.items())
        and all(route.now == route.target for route in hub.routes.routes)
    )


def _told(controller: Controller, now_s: float) -> Told:
    hub = controller.hub
    assert hub.last_solve is not None
    problem, solution = hub.last_solve.formulated.problem, hub.last_solve.proposal.solution
    index = Index(problem)
    target = hub.last_solve.formulated.theirs(hub.plan.target_by_key())
    routed = engine.route(problem, target, foreseen=engine.late_parts(solution))
    sent = _sent(index, hub.tables.by_cluster)
    usable = {name: capacity.capacity_of(index, model, target)[0] for name, model in index.models.items()}
    load: dict[tuple[str, str], float] = defaultdict(float)
    for (model, _, cluster), rps in sent.items():
        load[model, cluster] += rps
    fullest, within_rps, served_rps = 0.0, 0.0, 0.0
    for (model, cell, cluster), rps in sent.items():
        planned_rps = usable[model].get(cluster, 0.0)
        able_rps = planned_rps / index.models[model].target_utilisation
        part = min(1.0, able_rps / load[model, cluster])
        fullest = max(fullest, load[model, cluster] / planned_rps if planned_rps else np.inf)
        served_rps += rps * part
        is_late = index.latency_ms(index.models[model], cell, cluster) > index.models[model].objective_ms
        within_rps += 0.0 if is_late else rps * part
    asked_rps = sum(one.requests_per_second for one in problem.demands)
    return Told(
        planned=_within(solution.flows) / asked_rps,
        routed=_within(routed.flows) / asked_rps,
        told=within_rps / asked_rps,
        unserved=1.0 - served_rps / asked_rps,
        fullest=float(fullest),
        simulated_s=now_s,
    )


def _sent(index: Index, tables: Mapping[str, GatewayTable]) -> dict[tuple[str, str, str], float]:
    """(model, cell, cluster) -> requests per second, by the table of the gateway that knows the cell as its own."""
    sent: dict[tuple[str, str, str], float] = defaultdict(float)
    asked = {(one.model, one.cell): one.requests_per_second for one in index.problem.demands}
    for table in tables.values():
        for model in table.models:
            for group in model.groups:
                rps = asked.pop((model.model, group.cell), 0.0) * (1.0 - group.unserved)
                for cluster, share in group.shares.items() if rps > 0 else ():
                    sent[model.model, group.cell, cluster] += rps * share
    return sent


def _within(flows: tuple[Flow, ...]) -> float:
    return sum(flow.requests_per_second for flow in flows if flow.within_objective)
