"""An independent verifier of every hard rule. Shares no code with the formulation: a solver is a dependency like any.

Nothing is committed that this finds fault with.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import highspy
import numpy as np

from placement.problem import Cell, Cluster, Intake, Model, Pool, Problem, Shape
from placement.solution import Floor, Flow, Ready, Routing, Solution, Unserved

TOLERANCE_RPS = 1e-3
TOLERANCE_USD = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A rule that an answer breaks: `rule` is a constant, `subject` a name, `detail` the figures."""

    rule: str
    subject: str
    detail: str


def check(problem: Problem, solution: Solution) -> tuple[Violation, ...]:
    """Every hard rule that `solution` breaks; nothing when it may be used."""
    return tuple(_Check(problem, solution).violations())


def check_routing(problem: Problem, ready: Ready, routing: Routing) -> tuple[Violation, ...]:
    """Every hard rule that `routing` over `ready` replicas breaks."""
    names = _Names(problem)
    capacity: dict[tuple[str, str], float] = defaultdict(float)
    for (model, pool_name), count in ready.items():
        pool = names.pools.get(pool_name)
        shape = _shape(names.models[model], pool) if pool is not None and model in names.models else None
        if pool is not None and shape is not None and names.clusters[pool.cluster].reachable:
            capacity[model, pool.cluster] += count * shape.requests_per_second
    found = list(_flows(names, routing.flows, routing.unserved))
    found += _loads(routing.flows, capacity)
    return tuple(found)


def _shape(model: Model, pool: Pool) -> Shape | None:
    """The shape of `model` with the most requests per second per device among those that run in `pool`."""
    able = [
        shape
        for shape in model.shapes
        if (shape.product, shape.mig_profile) == (pool.product, pool.mig_profile)
        and shape.min_vram_gib <= pool.vram_gib + 1e-9
    ]
    return max(able, key=lambda shape: (shape.requests_per_second / shape.devices, shape), default=None)


MANY_POOLS = 500
"""Of more, what is left when a zone's spot is taken back is taken for what plans hold for all demand."""


class _Names:
    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.clusters: dict[str, Cluster] = {cluster.name: cluster for cluster in problem.clusters}
        self.models = {model.name: model for model in problem.models}
        self.cells = {cell.name: cell for cell in problem.cells}
        self.pools = {pool.name: pool for pool in problem.pools}
        self.rtt_ms = problem.rtt_ms()


class _Check:
    def __init__(self, problem: Problem, solution: Solution) -> None:
        self.names = _Names(problem)
        self.problem = problem
        self.solution = solution
        self.current = {(one.model, one.pool): one.replicas for one in problem.current}
        self.counts: dict[tuple[str, str], int] = {}
        self.by_model: dict[str, list[tuple[Pool, int]]] = defaultdict(list)

    def violations(self) -> Iterator[Violation]:
        yield from self._replicas()
        yield from self._devices()
        for model in self.problem.models:
            yield from self._floors(model)
            yield from self._spot(model)
            yield from self._starts(model)
            yield from self._most(model)
        yield from self._budgets()
        yield from _flows(self.names, self.solution.flows, self.solution.unserved)
        yield from _loads(self.solution.flows, self._capacity())
        yield from self._cost()

    def _replicas(self) -> Iterator[Violation]:
        for one in self.solution.replicas:
            model, pool = self.names.models.get(one.model), self.names.pools.get(one.pool)
            if model is None or pool is None:
                yield Violation(rule="names", subject=f"{one.model} in {one.pool}", detail="no such model or pool")
                continue
            if (one.model, one.pool) in self.counts or one.replicas <= 0:
                yield Violation(rule="count", subject=f"{one.model} in {one.pool}", detail=f"{one.replicas}")
            self.counts[one.model, one.pool] = one.replicas
            self.by_model[one.model].append((pool, one.replicas))
            if _shape(model, pool) is None:
                yield Violation(rule="fit", subject=one.pool, detail=f"{one.model} does not run on it")
        yield from self._intake()

    def _intake(self) -> Iterator[Violation]:
        for key in sorted(self.counts.keys() | self.current.keys()):
            pool = self.names.pools.get(key[1])
            if pool is None:
                continue
            now, count = self.current.get(key, 0), self.counts.get(key, 0)
            intake = self.names.clusters[pool.cluster].intake
            broken = (
                (intake is Intake.CORDONED and count > now)
                or (intake is Intake.DRAINING and count > 0)
                or (intake is Intake.HELD and count != now)
            )
            if broken:
                yield Violation(rule=intake.value, subject=key[1], detail=f"{now} replicas now, {count} in the answer")

    def _devices(self) -> Iterator[Violation]:
        used: dict[str, int] = defaultdict(int)
        for (model, pool_name), count in self.counts.items():
            shape = _shape(self.names.models[model], self.names.pools[pool_name])
            used[pool_name] += count * (shape.devices if shape is not None else 1)
        for pool_name, devices in sorted(used.items()):
            pool = self.names.pools[pool_name]
            held = self.names.clusters[pool.cluster].intake is Intake.HELD
            if devices > pool.devices and not held:
                yield Violation(rule="capacity", subject=pool_name, detail=f"{devices} of {pool.devices} devices")
        for one in self.problem.room:
            count = self.counts.get((one.model, one.pool), 0)
            held = self.names.clusters[self.names.pools[one.pool].cluster].intake is Intake.HELD
            if count > one.replicas and not held:
                yield Violation(rule="room", subject=one.pool, detail=f"{count} {one.model}, room for {one.replicas}")

    def _floors(self, model: Model) -> Iterator[Violation]:
        declared = {(one.rule, one.subject): one for one in self.solution.shortfalls if one.model == model.name}
        mine = self.by_model[model.name]
        regions = len({self.names.clusters[pool.cluster].region for pool, _ in mine})
        steady = sum(count for pool, count in mine if pool.market != "spot")
        floors: list[tuple[Floor, str, float, float]] = [
            ("min_replicas", "", model.min_replicas, sum(count for _, count in mine)),
            ("min_on_demand", "", model.min_on_demand, steady),
            ("min_regions", "", model.min_regions, regions),
        ]
        for pin in model.pins:
            there = sum(count for pool, count in mine if pool.cluster == pin.cluster)
            floors.append(("pin", pin.cluster, pin.replicas, there))
        for rule, subject, wanted, placed in floors:
            told = declared.get((rule, subject))
            if placed < wanted and (told is None or told.placed != placed):
                yield Violation(rule=rule, subject=model.name, detail=f"{placed} of {wanted}")
        yield from self._survival(model, {subject for rule, subject in declared if rule == "survive"})
        yield from self._survival_in_time(model, {subject for rule, subject in declared if rule == "survive_within"})
        yield from self._availability(model, {subject for rule, subject in declared if rule == "availability"})
        yield from self._parts(model, {subject for rule, subject in declared if rule == "max_part"})

    def _survival_in_time(self, model: Model, missed: set[str]) -> Iterator[Violation]:
        """Lose each domain in turn, and see how much of what could be served in time at all the rest can serve so."""
        if model.survive is None or model.survive_within_fraction <= 0.0:
            return
        fitting = self._fitting(model)
        capacity = {name: rps for (owner, name), rps in self._capacity().items() if owner == model.name}
        wanted: dict[tuple[str, ...], float] = defaultdict(float)
        for one in self.problem.demands:
            if one.model == model.name and one.requests_per_second > 0:
                cell = self.names.cells[one.cell]
                near = [name for name in fitting if self._is_in_time(model, cell, name)]
                if near:
                    wanted[tuple(name for name in near if capacity.get(name, 0.0) > 0)] += one.requests_per_second
        asked = sum(wanted.values())
        least = model.survive_within_fraction * asked
        for domain in sorted({self.names.clusters[name].domain(model.survive) for name in capacity}):
            room = {n: rps for n, rps in capacity.items() if self.names.clusters[n].domain(model.survive) != domain}
            served = _served_in_time(wanted, room)
            if served < least - TOLERANCE_RPS * max(1, len(wanted)) and domain not in missed:
                detail = f"{served} of {least} requests per second could be served in time without {domain}"
                yield Violation(rule="survive_within", subject=model.name, detail=detail)
        if not capacity and least > TOLERANCE_RPS and not missed:
            yield Violation(rule="survive_within", subject=model.name, detail="nothing runs that could be left")

    def _is_in_time(self, model: Model, cell: Cell, name: str) -> bool:
        if not self._may_serve(model, cell, name):
            return False
        return self.names.rtt_ms[cell.name, name] + model.service_latency_ms <= model.objective_ms

    def _parts(self, model: Model, missed: set[str]) -> Iterator[Violation]:
        """What each domain holds of all that the replicas can serve."""
        most = model.max_part
        holds: dict[str, float] = defaultdict(float)
        for (owner, name), rps in self._capacity().items():
            if most is not None and owner == model.name:
                holds[self.names.clusters[name].domain(most.domain)] += rps
        total = sum(holds.values())
        for domain, rps in sorted(holds.items()):
            if most is not None and rps > most.fraction * total + TOLERANCE_RPS and domain not in missed:
                detail = f"{domain} holds {rps} of {total} requests per second, policy allows {most.fraction:.0%}"
                yield Violation(rule="max_part", subject=model.name, detail=detail)

    def _survival(self, model: Model, missed: set[str]) -> Iterator[Violation]:
        """Lose each domain in turn, and see how much of the protected demand the rest can take."""
        if model.survive is None:
            return
        here = {pool.cluster for pool, _ in self.by_model[model.name]}
        lost = sorted({self.names.clusters[name].domain(model.survive) for name in here})
        capacity = {name: rps for (owner, name), rps in self._capacity().items() if owner == model.name}
        fitting = self._fitting(model)
        wanted: dict[str, float] = defaultdict(float)
        able: dict[str, list[str]] = {}
        for one in self.problem.demands:
            if one.model != model.name or one.requests_per_second <= 0:
                continue
            places = [name for name in fitting if self._may_serve(model, self.names.cells[one.cell], name)]
            if places:
                able[" ".join(places)] = places
                wanted[" ".join(places)] += one.requests_per_second * model.survive_fraction
        for domain in lost:
            left = {n: rps for n, rps in capacity.items() if self.names.clusters[n].domain(model.survive) != domain}
            short = sum(wanted.values()) - _most_served(wanted, left, able)
            if short > TOLERANCE_RPS * max(1, len(wanted)) and domain not in missed:
                detail = f"{short} requests per second would be left without {domain}"
                yield Violation(rule="survive", subject=model.name, detail=detail)

    def _fitting(self, model: Model) -> list[str]:
        """Clusters where the model may have replicas."""
        able = set()
        room = {(one.model, one.pool): one.replicas for one in self.problem.room}
        for pool in self.problem.pools:
            shape, cluster = _shape(model, pool), self.names.clusters[pool.cluster]
            now = self.current.get((model.name, pool.name), 0)
            if shape is None or cluster.intake is Intake.DRAINING:
                continue
            has_room = room.get((model.name, pool.name), 1) > 0 and pool.devices >= shape.devices
            if now > 0 or (cluster.intake is Intake.OPEN and has_room):
                able.add(pool.cluster)
        return sorted(able)

    def _may_serve(self, model: Model, cell: Cell, name: str) -> bool:
        cluster = self.names.clusters[name]
        if (cell.name, name) not in self.names.rtt_ms:
            return False
        if model.other_continents_max_fraction <= 0 and (cell.continent or "?") != cluster.continent:
            return False
        return all(
            any(one in cluster.jurisdictions for one in rule.jurisdictions)
            for rule in model.residency
            if not rule.countries or cell.country in rule.countries
        )

    def _spot(self, model: Model) -> Iterator[Violation]:
        total = sum(count for _, count in self.by_model[model.name])
        spot = sum(count for pool, count in self.by_model[model.name] if pool.market == "spot")
        free = sum(
            count
            for pool, count in self.by_model[model.name]
            if pool.market == "spot" and self.names.clusters[pool.cluster].intake is not Intake.HELD
        )
        if spot > model.spot_max_fraction * total + 1e-9 and free > 0:
            yield Violation(rule="spot", subject=model.name, detail=f"{spot} of {total}")

    def _most(self, model: Model) -> Iterator[Violation]:
        """More replicas than policy lets the model have; where held ones alone are more, no other may run."""
        if model.max_replicas is None:
            return
        total = sum(count for _, count in self.by_model[model.name])
        if total > max(model.max_replicas, sum(n for pool, n in self.by_model[model.name] if self._is_held(pool))):
            detail = f"{total} replicas, policy allows {model.max_replicas}"
            yield Violation(rule="max_replicas", subject=model.name, detail=detail)

    def _budgets(self) -> Iterator[Violation]:
        """What accelerators of a policy's models cost beyond its budget, and not because held ones alone do."""
        for budget in self.problem.budgets:
            total = held = 0.0
            for name in budget.models:
                for pool, count in self.by_model[name]:
                    shape = _shape(self.names.models[name], pool)
                    usd = count * (shape.devices if shape is not None else 1) * pool.usd_per_device_hour
                    total += usd
                    held += usd if self._is_held(pool) else 0.0
            if total > max(budget.usd_per_hour, held) + TOLERANCE_USD:
                detail = f"{total} USD per hour, policy allows {budget.usd_per_hour}"
                yield Violation(rule="budget", subject=budget.name, detail=detail)

    def _is_held(self, pool: Pool) -> bool:
        return self.names.clusters[pool.cluster].intake is Intake.HELD

    def _starts(self, model: Model) -> Iterator[Violation]:
        """What is started beyond the budget, which nothing but a floor is worth."""
        floors = (model.min_replicas, model.min_on_demand, model.min_regions, model.pins, model.survive, model.yields)
        if model.max_starts is None or any(floors):
            return
        mine = [key for key in self.counts if key[0] == model.name]
        started = sum(max(0, self.counts[key] - self.current.get(key, 0)) for key in mine)
        if started > model.max_starts:
            yield Violation(rule="max_starts", subject=model.name, detail=f"{started} of {model.max_starts} starts")

    def _capacity(self) -> dict[tuple[str, str], float]:
        capacity: dict[tuple[str, str], float] = defaultdict(float)
        for (name, pool_name), count in self.counts.items():
            model, pool = self.names.models[name], self.names.pools[pool_name]
            shape = _shape(model, pool)
            if shape is not None:
                capacity[name, pool.cluster] += count * shape.requests_per_second * model.target_utilisation
        return capacity

    def _events(self, model: Model) -> float:
        """What is expected to go unserved as zones' spot is lost, in USD per hour; nothing where a rule bounds it."""
        if model.target_fraction > 0:
            return 0.0
        worth = max(0.0, model.unserved_usd_per_1000 - model.late_usd_per_1000) / 1000
        return sum(worth * away_s * max(0.0, rps) for rps, away_s in self._lost(model).values())

    def _lost(self, model: Model) -> dict[tuple[str, str], tuple[float, float]]:
        """(zone, product) -> (requests per second beyond the others' headroom when its spot is lost, seconds of an hour
        that this lasts)."""
        able = 0.0
        holds: dict[tuple[str, str], float] = defaultdict(float)
        for pool, count in self.by_model[model.name]:
            shape = _shape(model, pool)
            rps = count * shape.requests_per_second if shape is not None else 0.0
            able += rps
            if pool.losses_per_hour > 0:
                holds[self.names.clusters[pool.cluster].domain("zone"), pool.product] += rps
        if len(self.problem.pools) > MANY_POOLS:
            asked = sum(one.requests_per_second for one in self.problem.demands if one.model == model.name)
            able = asked / model.target_utilisation
        away_s: dict[tuple[str, str], float] = defaultdict(float)
        for pool in self.problem.pools:
            key = (self.names.clusters[pool.cluster].domain("zone"), pool.product)
            until_ready_s = (self.problem.reaction_s + model.warmup_s) / pool.replacement_chance
            away_s[key] = max(away_s[key], pool.losses_per_hour * until_ready_s)
        headroom = (1 - model.target_utilisation) * able
        return {key: (rps - headroom, away_s[key]) for key, rps in sorted(holds.items())}

    def _availability(self, model: Model, missed: set[str]) -> Iterator[Violation]:
        """Whether the loss of each zone's spot leaves no more unserved than its part of what policy allows."""
        if model.target_fraction <= 0:
            return
        zones = {
            (self.names.clusters[pool.cluster].domain("zone"), pool.product)
            for pool in self.problem.pools
            if pool.losses_per_hour > 0 and _shape(model, pool) is not None
        }
        asked = sum(one.requests_per_second for one in self.problem.demands if one.model == model.name)
        for (zone, product), (beyond_rps, away_s) in self._lost(model).items():
            allowed = (1 - model.target_fraction) * asked / len(zones) * 3600 / away_s if away_s > 0 else math.inf
            if beyond_rps > allowed + TOLERANCE_RPS * max(1.0, asked) and f"{zone}/{product}" not in missed:
                detail = f"{beyond_rps} requests per second of {zone}/{product} at once, policy allows {allowed}"
                yield Violation(rule="availability", subject=model.name, detail=detail)

    def _cost(self) -> Iterator[Violation]:
        stated = self.solution.cost
        accelerators = risk = 0.0
        for (name, pool_name), count in self.counts.items():
            model, pool = self.names.models[name], self.names.pools[pool_name]
            shape = _shape(model, pool)
            if shape is None:
                continue
            usd = shape.devices * pool.usd_per_device_hour
            accelerators += count * usd
            until_ready_s = (self.problem.reaction_s + model.warmup_s) / pool.replacement_chance
            late = until_ready_s * shape.requests_per_second * model.target_utilisation * model.late_usd_per_1000 / 1000
            risk += count * pool.losses_per_hour * (usd * model.warmup_s / 3600 + model.move_usd + late)
        risk += sum(self._events(model) for model in self.problem.models)
        lost = sum(
            3600 * one.requests_per_second / 1000 * self.names.models[one.model].unserved_usd_per_1000
            for one in self.solution.unserved
        )
        late = sum(
            3600 * one.requests_per_second / 1000 * self.names.models[one.model].late_usd_per_1000
            for one in self.solution.flows
            if one.latency_ms > self.names.models[one.model].objective_ms
        )
        egress = sum(
            3600
            * one.requests_per_second
            * self.names.models[one.model].response_kib
            / 1024
            / 1024
            * self.names.clusters[one.cluster].egress_usd_per_gib
            for one in self.solution.flows
        )
        near = sum(
            3600 * one.requests_per_second / 1000 * _way_usd(self.names.models[one.model], one.latency_ms)
            for one in self.solution.flows
        )
        for what, said, is_so in (
            ("accelerators", stated.accelerators, accelerators),
            ("proximity", stated.proximity, near),
            ("risk", stated.risk, risk),
            ("egress", stated.egress, egress),
            ("unserved", stated.unserved, lost),
            ("late", stated.late, late),
        ):
            if not math.isclose(said, is_so, rel_tol=1e-6, abs_tol=TOLERANCE_USD):
                yield Violation(rule="cost", subject=what, detail=f"{said} stated, {is_so} recomputed")
        if self.solution.bound_usd_per_hour > stated.total + TOLERANCE_USD:
            detail = f"{self.solution.bound_usd_per_hour} above {stated.total}"
            yield Violation(rule="bound", subject="solution", detail=detail)


def _most_served(wanted: Mapping[str, float], capacity: Mapping[str, float], able: Mapping[str, list[str]]) -> float:
    """How much of what cells want the clusters can take: a maximum flow, by shortest ways that still have room."""
    flow: dict[tuple[str, str], float] = defaultdict(float)
    left, room = dict(wanted), dict(capacity)
    while True:
        before: dict[str, str] = {f"u {cell}": "" for cell, rps in sorted(left.items()) if rps > TOLERANCE_RPS / 10}
        queue, end = list(before), ""
        for at in queue:
            kind, name = at[0], at[2:]
            if kind == "u":
                steps = [f"c {one}" for one in able[name] if one in room]
            elif room[name] > TOLERANCE_RPS / 10:
                end = at
                break
            else:
                steps = [f"u {cell}" for (cell, to), rps in sorted(flow.items()) if to == name and rps > 0]
            for step in steps:
                if step not in before:
                    before[step] = at
                    queue.append(step)
        if not end:
            return sum(flow.values())
        way = [end]
        while before[way[-1]]:
            way.append(before[way[-1]])
        way.reverse()
        most = min(left[way[0][2:]], room[end[2:]])
        for come, go in itertools.pairwise(way):
            if come[0] == "c":
                most = min(most, flow[go[2:], come[2:]])
        for come, go in itertools.pairwise(way):
            if come[0] == "u":
                flow[come[2:], go[2:]] += most
            else:
                flow[go[2:], come[2:]] -= most
        left[way[0][2:]] -= most
        room[end[2:]] -= most


def _way_usd(model: Model, latency_ms: float) -> float:
    """USD of the way of 1,000 requests, piece by piece between the latencies where the price of a millisecond rises."""
    usd, slope, since_ms = 0.0, model.latency_usd_per_1000_per_ms, model.service_latency_ms
    for bend in sorted(model.bends):
        usd += slope * max(0.0, min(latency_ms, bend.latency_ms) - since_ms)
        slope, since_ms = slope + bend.more_usd_per_1000_per_ms, max(since_ms, bend.latency_ms)
    return usd + slope * max(0.0, latency_ms - since_ms)


def _served_in_time(wanted: Mapping[tuple[str, ...], float], room: Mapping[str, float]) -> float:
    """The most of what users with these clusters in reach want that the clusters have room for: a linear programme."""
    names = sorted(room)
    place = {name: at for at, name in enumerate(names)}
    ways = [(user, place[name]) for user, reach in enumerate(wanted) for name in reach if name in place]
    if not ways:
        return 0.0
    users, count = len(wanted), len(ways)
    programme = highspy.HighsLp()
    programme.num_col_, programme.num_row_ = count, users + len(names)
    programme.col_cost_ = np.full(count, -1.0)
    programme.col_lower_, programme.col_upper_ = np.zeros(count), np.full(count, np.inf)
    programme.row_lower_ = np.full(users + len(names), -np.inf)
    programme.row_upper_ = np.array([*wanted.values(), *(room[name] for name in names)])
    programme.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    programme.a_matrix_.start_ = np.arange(0, 2 * count + 1, 2, dtype=np.int32)
    programme.a_matrix_.index_ = np.array([(user, users + at) for user, at in ways], dtype=np.int32).reshape(-1)
    programme.a_matrix_.value_ = np.ones(2 * count)
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    solver.passModel(programme)
    solver.run()
    return -float(solver.getInfo().objective_function_value)


def _flows(names: _Names, flows: Sequence[Flow], unserved: Iterable[Unserved]) -> Iterator[Violation]:
    """Residency, continents, paths, objective, and that served and unserved make up the demand."""
    answered: dict[tuple[str, str], float] = defaultdict(float)
    for flow in flows:
        subject = f"{flow.model} from {flow.cell} to {flow.cluster}"
        model, cell, cluster = names.models[flow.model], names.cells[flow.cell], names.clusters[flow.cluster]
        if not flow.requests_per_second >= 0 or math.isinf(flow.requests_per_second):
            yield Violation(rule="number", subject=subject, detail=f"{flow.requests_per_second}")
        for rule in model.residency:
            concerns = not rule.countries or cell.country in rule.countries
            if concerns and not any(one in cluster.jurisdictions for one in rule.jurisdictions):
                yield Violation(rule="residency", subject=subject, detail=f"{cell.country} to {cluster.jurisdictions}")
        rtt_ms = names.rtt_ms.get((flow.cell, flow.cluster))
        if rtt_ms is None:
            yield Violation(rule="path", subject=subject, detail="no latency is known")
        elif (rtt_ms + model.service_latency_ms <= model.objective_ms) != flow.within_objective:
            yield Violation(rule="objective", subject=subject, detail=f"{rtt_ms} + {model.service_latency_ms} ms")
        answered[flow.model, flow.cell] += flow.requests_per_second
    yield from _continents(names, flows)
    for one in unserved:
        if not one.requests_per_second > 0 or not one.reason:
            yield Violation(rule="unserved", subject=f"{one.model} from {one.cell}", detail=f"{one}")
        answered[one.model, one.cell] += one.requests_per_second
    asked = {(one.model, one.cell): one.requests_per_second for one in names.problem.demands}
    for key in sorted(asked.keys() | answered.keys()):
        if abs(asked.get(key, 0.0) - answered.get(key, 0.0)) > TOLERANCE_RPS:
            detail = f"{asked.get(key, 0.0)} asked, {answered.get(key, 0.0)} answered"
            yield Violation(rule="demand", subject=f"{key[0]} from {key[1]}", detail=detail)


def _continents(names: _Names, flows: Sequence[Flow]) -> Iterator[Violation]:
    """What of each continent's requests other continents serve; nobody's continent is the one that is not known."""
    limits = {one.name: one.other_continents_max_fraction for one in names.problem.models}
    away: dict[tuple[str, str], float] = defaultdict(float)
    count: dict[tuple[str, str], int] = defaultdict(int)
    for flow in flows:
        users, there = names.cells[flow.cell].continent, names.clusters[flow.cluster].continent
        if limits[flow.model] < 1.0 and (users == "" or users != there):
            away[flow.model, users] += flow.requests_per_second
            count[flow.model, users] += 1
    asked: dict[tuple[str, str], float] = defaultdict(float)
    for one in names.problem.demands:
        asked[one.model, names.cells[one.cell].continent] += one.requests_per_second
    for key, rps in sorted(away.items()):
        most = limits[key[0]] * asked[key]
        if rps > most + TOLERANCE_RPS + 1e-6 * count[key]:
            detail = f"{rps} of {asked[key]} requests per second of {key[1] or 'an unknown continent'} leave it"
            yield Violation(rule="continents", subject=key[0], detail=f"{detail}, policy allows {most}")


def _loads(flows: Iterable[Flow], capacity: dict[tuple[str, str], float]) -> Iterator[Violation]:
    load: dict[tuple[str, str], float] = defaultdict(float)
    for flow in flows:
        load[flow.model, flow.cluster] += flow.requests_per_second
    for key, rps in sorted(load.items()):
        if rps > capacity.get(key, 0.0) + TOLERANCE_RPS:
            detail = f"{rps} requests per second on {capacity.get(key, 0.0)}"
            yield Violation(rule="throughput", subject=f"{key[0]} in {key[1]}", detail=detail)
