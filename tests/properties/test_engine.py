"""The engine on random small worlds: never against a hard rule, and never dearer than trying everything."""

from __future__ import annotations

import itertools
from collections import defaultdict

import highspy
import numpy as np
import pytest

from placement import engine
from placement.check import check, check_routing
from placement.problem import Cluster, Intake, Model, Pool, Problem, Shape
from placement.solution import Solution
from tests.properties.worlds import a_world

QUICK, ALL = range(200), range(5_000)
BRUTE_LIMIT = 3_000
"""Worlds with at most so many placements are solved by trying each."""


def obeys(problem: Problem, solution: Solution) -> None:
    """Capacity, residency, floors: written down here once more, as people would count them."""
    pools = {pool.name: pool for pool in problem.pools}
    clusters = {cluster.name: cluster for cluster in problem.clusters}
    models = {model.name: model for model in problem.models}
    cells = {cell.name: cell for cell in problem.cells}
    used: dict[str, int] = defaultdict(int)
    for one in solution.replicas:
        shape = models[one.model].shape_for(pools[one.pool])
        assert shape is not None
        used[one.pool] += one.replicas * shape.devices
    for name, devices in used.items():
        assert devices <= pools[name].devices or clusters[pools[name].cluster].intake is Intake.HELD
    counts = {(one.model, one.pool): one.replicas for one in solution.replicas}
    for room in problem.room:
        held = clusters[pools[room.pool].cluster].intake is Intake.HELD
        assert counts.get((room.model, room.pool), 0) <= room.replicas or held
    for flow in solution.flows:
        if models[flow.model].residency and cells[flow.cell].country == "DE":
            assert "EU" in clusters[flow.cluster].jurisdictions
    for model in problem.models:
        for continent in ("EU", "NA", ""):
            assert away(problem, solution, model, continent) <= 1e-4 + model.other_continents_max_fraction * sum(
                one.requests_per_second
                for one in problem.demands
                if one.model == model.name and cells[one.cell].continent == continent
            )
        total = sum(one.replicas for one in solution.replicas if one.model == model.name)
        missed = [one for one in solution.shortfalls if one.model == model.name and one.rule == "min_replicas"]
        assert total >= model.min_replicas or missed
        held = any(cluster.intake is Intake.HELD for cluster in problem.clusters)
        if missed and len(problem.models) == 1 and not held:
            assert total == most_replicas(problem, model), "a floor is missed by as little as possible"


def away(problem: Problem, solution: Solution, model: Model, continent: str) -> float:
    """Requests per second of a continent's users that are served on no cluster of it."""
    users = {cell.name for cell in problem.cells if cell.continent == continent}
    home = {cluster.name for cluster in problem.clusters if cluster.continent == continent and continent}
    return sum(
        flow.requests_per_second
        for flow in solution.flows
        if flow.model == model.name and flow.cell in users and flow.cluster not in home
    )


def most_replicas(problem: Problem, model: Model) -> int:
    """As many as devices and intake allow for this model alone, by the spot rule's best mix."""
    spot = steady = 0
    for pool, _, _, most in options(problem, model):
        if pool.market == "spot":
            spot += most
        else:
            steady += most
    fraction = model.spot_max_fraction
    if fraction >= 1.0:
        return spot + steady
    return max((n + steady for n in range(spot + 1) if n <= fraction * (n + steady) + 1e-9), default=steady)


def options(problem: Problem, model: Model) -> list[tuple[Pool, Shape, int, int]]:
    """(pool, shape, least, most) of every pool that may hold the model."""
    clusters = {cluster.name: cluster for cluster in problem.clusters}
    current = {(one.model, one.pool): one.replicas for one in problem.current}
    room = {(one.model, one.pool): one.replicas for one in problem.room}
    found = []
    for pool in problem.pools:
        shape = model.shape_for(pool)
        if shape is None:
            continue
        now, fit = current.get((model.name, pool.name), 0), pool.devices // shape.devices
        fit = min(fit, room.get((model.name, pool.name), fit))
        cluster: Cluster = clusters[pool.cluster]
        least, most = {
            Intake.OPEN: (0, fit),
            Intake.CORDONED: (0, min(now, fit)),
            Intake.DRAINING: (0, 0),
            Intake.HELD: (now, now),
        }[cluster.intake]
        if most:
            found.append((pool, shape, least, most))
    return found


def brute_force(problem: Problem) -> float | None:
    """The least cost over all placements within the hard rules; None when there are too many, or none."""
    choices = {model.name: options(problem, model) for model in problem.models}
    keys = [(model, one) for model in problem.models for one in choices[model.name]]
    ranges = [range(least, most + 1) for _, (_, _, least, most) in keys]
    count = 1
    for one in ranges:
        count *= len(one)
        if count > BRUTE_LIMIT:
            return None
    current = {(one.model, one.pool): one.replicas for one in problem.current}
    clusters = {cluster.name: cluster for cluster in problem.clusters}
    flow_cost: dict[tuple[str, tuple[tuple[str, float], ...]], float] = {}
    best: float | None = None
    for vector in itertools.product(*ranges):
        placed = [(model, pool, shape, n) for (model, (pool, shape, _, _)), n in zip(keys, vector, strict=True)]
        if not within_rules(problem, clusters, placed):
            continue
        cost = 0.0
        for model, pool, shape, n in placed:
            usd = shape.devices * pool.usd_per_device_hour
            started = max(0, n - current.get((model.name, pool.name), 0))
            cost += n * risk_usd(problem, model, pool, shape)
            cost += n * usd + started * (model.warmup_s / 3600 * usd + model.move_usd) / problem.move_horizon_h
        for model in problem.models:
            cost += zones_usd(problem, model, clusters, [(pool, s, n) for one, pool, s, n in placed if one is model])
            capacity: dict[str, float] = defaultdict(float)
            for owner, pool, shape, n in placed:
                if owner is model and n:
                    capacity[pool.cluster] += n * shape.requests_per_second * model.target_utilisation
            key = (model.name, tuple(sorted(capacity.items())))
            if key not in flow_cost:
                flow_cost[key] = transport(problem, model, dict(capacity))
            cost += flow_cost[key]
        best = cost if best is None else min(best, cost)
    return best


def risk_usd(problem: Problem, model: Model, pool: Pool, shape: Shape) -> float:
    """What one replica is expected to lose in an hour: starts, and requests that are late until another is ready."""
    away_s = (problem.reaction_s + model.warmup_s) / pool.replacement_chance
    late = away_s * shape.requests_per_second * model.target_utilisation
    start = model.warmup_s / 3600 * shape.devices * pool.usd_per_device_hour + model.move_usd
    return pool.losses_per_hour * (start + late / 1000 * model.late_usd_per_1000)


def zones_usd(
    problem: Problem, model: Model, clusters: dict[str, Cluster], mine: list[tuple[Pool, Shape, int]]
) -> float:
    """What is expected to go unserved as a zone loses its spot of a product: its load beyond the others' headroom."""
    if model.target_fraction > 0:
        return 0.0
    worth = max(0.0, model.unserved_usd_per_1000 - model.late_usd_per_1000)
    return sum(away_s * rps / 1000 * worth for away_s, rps in zones_lost(problem, model, clusters, mine))


def is_available(problem: Problem, model: Model, clusters: dict[str, Cluster], counts: list[tuple[Pool, int]]) -> bool:
    """Whether each zone's loss leaves no more unserved than an equal part of what policy allows over time."""
    mine = [(pool, shape, n) for pool, n in counts if (shape := model.shape_for(pool)) is not None]
    zones = {
        (clusters[pool.cluster].domain("zone"), pool.product)
        for pool in problem.pools
        if pool.losses_per_hour > 0 and model.shape_for(pool) is not None
    }
    asked = sum(one.requests_per_second for one in problem.demands if one.model == model.name)
    allowed = (1 - model.target_fraction) * asked / max(1, len(zones))
    return all(away_s / 3600 * rps <= allowed + 1e-6 for away_s, rps in zones_lost(problem, model, clusters, mine))


def zones_lost(
    problem: Problem, model: Model, clusters: dict[str, Cluster], mine: list[tuple[Pool, Shape, int]]
) -> list[tuple[float, float]]:
    """Seconds of an hour that a zone's spot is away, and what then goes unserved, for each zone and product."""
    found = []
    u = model.target_utilisation
    for zone, product in sorted({(clusters[pool.cluster].domain("zone"), pool.product) for pool, _, _ in mine}):
        there = [one for one in problem.pools if (clusters[one.cluster].domain("zone"), one.product) == (zone, product)]
        away_s = max(p.losses_per_hour * (problem.reaction_s + model.warmup_s) / p.replacement_chance for p in there)
        left, load = 0.0, 0.0
        for pool, shape, n in mine:
            if pool in there and pool.losses_per_hour > 0:
                load += n * shape.requests_per_second * u
            else:
                left += n * shape.requests_per_second * (1 - u)
        found.append((away_s, max(0.0, load - left)))
    return found


def within_rules(problem: Problem, clusters: dict[str, Cluster], placed: list[tuple[Model, Pool, Shape, int]]) -> bool:
    used: dict[str, int] = defaultdict(int)
    for _, pool, shape, n in placed:
        used[pool.name] += n * shape.devices
    for pool in problem.pools:
        if used[pool.name] > pool.devices and clusters[pool.cluster].intake is not Intake.HELD:
            return False
    if not within_limits(problem, clusters, placed):
        return False
    current = {(one.model, one.pool): one.replicas for one in problem.current}
    for model in problem.models:
        mine = [(pool, n) for owner, pool, _, n in placed if owner is model and n]
        total = sum(n for _, n in mine)
        if total < model.min_replicas:
            return False
        if sum(n for pool, n in mine if pool.market != "spot") < model.min_on_demand:
            return False
        if any(sum(n for pool, n in mine if pool.cluster == pin.cluster) < pin.replicas for pin in model.pins):
            return False
        starts = sum(max(0, n - current.get((model.name, pool.name), 0)) for pool, n in mine)
        if model.max_starts is not None and starts > model.max_starts:
            return False
        if model.target_fraction > 0 and not is_available(problem, model, clusters, mine):
            return False
        if not survives(problem, model, clusters, mine) or not is_even(model, clusters, mine):
            return False
        if not survives_in_time(problem, model, clusters, mine):
            return False
        if len({clusters[pool.cluster].region for pool, _ in mine}) < model.min_regions:
            return False
        if sum(n for pool, n in mine if pool.market == "spot") > model.spot_max_fraction * total + 1e-9:
            return False
    return True


def within_limits(problem: Problem, clusters: dict[str, Cluster], placed: list[tuple[Model, Pool, Shape, int]]) -> bool:
    """The most replicas and budgets; what is held cannot go, and where it is too much nothing else may run."""
    held = [one for one in placed if clusters[one[1].cluster].intake is Intake.HELD]
    for model in problem.models:
        total, stuck = (sum(n for owner, _, _, n in some if owner is model) for some in (placed, held))
        if model.max_replicas is not None and total > max(model.max_replicas, stuck):
            return False
    for budget in problem.budgets:
        usd, stuck_usd = (
            sum(
                n * shape.devices * pool.usd_per_device_hour
                for one, pool, shape, n in some
                if one.name in budget.models
            )
            for some in (placed, held)
        )
        if usd > max(budget.usd_per_hour, stuck_usd) + 1e-6:
            return False
    return True


def is_even(model: Model, clusters: dict[str, Cluster], mine: list[tuple[Pool, int]]) -> bool:
    """Whether no domain holds more than its part of what all replicas can serve."""
    if model.max_part is None:
        return True
    holds: dict[str, float] = defaultdict(float)
    for pool, n in mine:
        shape = model.shape_for(pool)
        assert shape is not None
        holds[clusters[pool.cluster].domain(model.max_part.domain)] += n * shape.requests_per_second
    return all(rps <= model.max_part.fraction * sum(holds.values()) + 1e-6 for rps in holds.values())


def survives(problem: Problem, model: Model, clusters: dict[str, Cluster], mine: list[tuple[Pool, int]]) -> bool:
    """Whether, whatever domain is lost, the rest can take the protected demand: by Hall's condition, set by set."""
    if model.survive is None:
        return True
    cells = {cell.name: cell for cell in problem.cells}
    known = set(problem.rtt_ms())
    able = {pool.cluster for pool, _, _, _ in options(problem, model)}
    wanted = []
    for one in problem.demands:
        reach = {n for n in able if (one.cell, n) in known and problem.allows(model, cells[one.cell], clusters[n])}
        if one.model == model.name and one.requests_per_second > 0 and reach:
            wanted.append((reach, one.requests_per_second * model.survive_fraction))
    for lost in {clusters[name].domain(model.survive) for name in able}:
        capacity: dict[str, float] = defaultdict(float)
        for pool, n in mine:
            shape = model.shape_for(pool)
            if shape is not None and clusters[pool.cluster].domain(model.survive) != lost:
                capacity[pool.cluster] += n * shape.requests_per_second * model.target_utilisation
        for size in range(1, len(wanted) + 1):
            for some in itertools.combinations(wanted, size):
                together = set().union(*(reach for reach, _ in some))
                if sum(capacity[name] for name in together) < sum(rps for _, rps in some) - 1e-6:
                    return False
    return True


def way_usd(model: Model, rtt_ms: float) -> float:
    """USD of so long a way for 1,000 requests."""
    beyond_ms = [rtt_ms + model.service_latency_ms - bend.latency_ms for bend in model.bends]
    more = [one.more_usd_per_1000_per_ms * max(0.0, ms) for one, ms in zip(model.bends, beyond_ms, strict=True)]
    return model.latency_usd_per_1000_per_ms * rtt_ms + sum(more)


def survives_in_time(
    problem: Problem, model: Model, clusters: dict[str, Cluster], mine: list[tuple[Pool, int]]
) -> bool:
    """The same within the objective, of what could be at all: any users, and what is left in their reach."""
    if model.survive is None or model.survive_within_fraction <= 0:
        return True
    cells, rtt_ms = {cell.name: cell for cell in problem.cells}, problem.rtt_ms()
    able = sorted({pool.cluster for pool, _, _, _ in options(problem, model)})
    users = []
    for one in problem.demands:
        reach = {
            name
            for name in able
            if problem.allows(model, cells[one.cell], clusters[name])
            and rtt_ms.get((one.cell, name), 1e9) + model.service_latency_ms <= model.objective_ms
        }
        if one.model == model.name and one.requests_per_second > 0 and reach:
            users.append((reach, one.requests_per_second))
    total = sum(rps for _, rps in users)
    for lost in {clusters[name].domain(model.survive) for name in able}:
        room: dict[str, float] = defaultdict(float)
        for pool, count in mine:
            shape = model.shape_for(pool)
            if shape is not None and clusters[pool.cluster].domain(model.survive) != lost:
                room[pool.cluster] += count * shape.requests_per_second * model.target_utilisation
        for size in range(1, len(users) + 1):
            for some in itertools.combinations(users, size):
                together = set().union(*(reach for reach, _ in some))
                others = total - sum(rps for _, rps in some)
                if sum(room[name] for name in together) + others < model.survive_within_fraction * total - 1e-3:
                    return False
    return True


def transport(problem: Problem, model: Model, capacity: dict[str, float]) -> float:
    """The least cost of serving or not serving, as a linear programme of its own."""
    demands = [one for one in problem.demands if one.model == model.name and one.requests_per_second > 0]
    if not demands:
        return 0.0
    cells = {cell.name: cell for cell in problem.cells}
    clusters = {cluster.name: cluster for cluster in problem.clusters}
    rtt = problem.rtt_ms()
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    infinity = highspy.kHighsInf
    columns: list[tuple[int, str | None]] = []
    for number, demand in enumerate(demands):
        solver.addVar(0.0, infinity)
        solver.changeColCost(len(columns), 3.6 * model.unserved_usd_per_1000)
        columns.append((number, None))
        for name in capacity:
            allowed = problem.allows(model, cells[demand.cell], clusters[name])
            if (demand.cell, name) not in rtt or not allowed:
                continue
            latency_ms = rtt[demand.cell, name] + model.service_latency_ms
            late = model.late_usd_per_1000 if latency_ms > model.objective_ms else 0.0
            solver.addVar(0.0, infinity)
            egress = 3600 * model.response_kib / 2**20 * clusters[name].egress_usd_per_gib
            solver.changeColCost(len(columns), 3.6 * (late + way_usd(model, rtt[demand.cell, name])) + egress)
            columns.append((number, name))
    for number, demand in enumerate(demands):
        mine = [i for i, (owner, _) in enumerate(columns) if owner == number]
        rps = demand.requests_per_second
        solver.addRow(rps, rps, len(mine), np.array(mine, dtype=np.int32), np.ones(len(mine)))
    for name, most in capacity.items():
        mine = [i for i, (_, to) in enumerate(columns) if to == name]
        solver.addRow(-infinity, most, len(mine), np.array(mine, dtype=np.int32), np.ones(len(mine)))
    for continent in ("EU", "NA", ""):
        users = [number for number, one in enumerate(demands) if cells[one.cell].continent == continent]
        home = {name for name, cluster in clusters.items() if cluster.continent == continent and continent}
        mine = [i for i, (owner, to) in enumerate(columns) if owner in users and to is not None and to not in home]
        most = model.other_continents_max_fraction * sum(demands[number].requests_per_second for number in users)
        solver.addRow(-infinity, most, len(mine), np.array(mine, dtype=np.int32), np.ones(len(mine)))
    solver.run()
    return float(solver.getInfo().objective_function_value)


def try_world(seed: int) -> bool:
    """Whether brute force could be compared with; asserts everything else."""
    problem = a_world(seed)
    solution = engine.solve(problem)
    assert check(problem, solution) == (), f"seed {seed}"
    obeys(problem, solution)
    ready = {(one.model, one.pool): one.replicas for one in solution.replicas}
    routing = engine.route(problem, ready)
    assert check_routing(problem, ready, routing) == (), f"seed {seed}"
    if solution.shortfalls:
        return False
    best = brute_force(problem)
    if best is None:
        return False
    assert solution.cost.total == pytest.approx(best, abs=2e-4), f"seed {seed}"
    return True


def test_no_plan_breaks_a_rule_or_costs_more_than_it_must() -> None:
    """A plan would overfill a cluster, leave a jurisdiction, or waste money."""
    compared = sum(try_world(seed) for seed in QUICK)
    assert compared > len(QUICK) // 8, "enough worlds are small enough to be tried out"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_plan_breaks_a_rule_in_five_thousand_worlds() -> None:
    """The same, over as many worlds as it takes to meet the odd ones."""
    compared = sum(try_world(seed) for seed in ALL)
    assert compared > len(ALL) // 8
