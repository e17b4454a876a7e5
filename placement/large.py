"""Plans for large worlds: prices from coarse classes of demand, a plan in fractions, whole replicas model by model.

The way of a plan: a programme over coarse halves of demand gives what scarce devices are worth, which proves a bound
over every pair; one over classes at these prices gives a plan in fractions; fractions are decided for each model by
itself in a small mixed-integer programme with all its rules, on the devices that the others leave. Then the flows of
classes are told to their members, and single replicas and flows are moved while that saves (`standing`).

Effort is counted in nodes of branch and bound, never in seconds, so the same problem gives the same bytes anywhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from placement import classes, formulation, highs, prices
from placement.classes import Grain
from placement.coarse import WHOLE, Coarse
from placement.filters import Index
from placement.formulation import Formulation
from placement.number import Numbered, number
from placement.prices import Prices
from placement.standing import Standing, told
from placement.world import Bools, Floats, Ints

PRICING = Grain(classes=400, near=1.5, alike=3)
PLANNING = Grain(classes=800, near=1.5, alike=2)
WAYS, MORE_WAYS = 8, 16
"""Of each class: at the start, and at a time while they pay."""
PRICED_WAYS, MORE_PRICED_WAYS = 6, 4
"""The same where prices are known before."""
SPARE_WAYS = 8
"""Of each class besides, so that whole replicas find users."""
NEAR = 0.1
"""In whole numbers those options are open that have a fraction or cost at most this part above what they bring."""
GAP = 0.005
WORK = 1
ROUNDS = 1
"""Of steps over all replicas at the end."""
DUST_RPS = 1e-6
SHORT = 1e-4
NEVER_USD = 1e9
"""Of a replica that does not run, when only those that do may serve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A plan, and what it was found with.

    `counts`: (model, pool) -> replicas. `rates`: model -> (cell, cluster) -> requests per second. `device_usd`: pool ->
    USD per hour that one more device would save.
    """

    counts: dict[tuple[str, str], int]
    rates: dict[str, dict[tuple[str, str], float]]
    bound_usd_per_hour: float
    device_usd: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan that can be mended, the bound that was proved with it, and what scarce things are worth."""

    standing: Standing
    bound_usd_per_hour: float
    prices: Prices


def solve(index: Index, *, work: int = WORK) -> Answer:
    """A plan near its bound. Args: work: nodes of branch and bound for each model."""
    made = plan(index, work=work)
    pools = zip(index.problem.pools, made.prices.device, strict=True)
    return Answer(
        counts=made.standing.counts(),
        rates=made.standing.rates(),
        bound_usd_per_hour=made.bound_usd_per_hour,
        device_usd={pool.name: float(usd) for pool, usd in pools},
    )


def plan(index: Index, *, work: int = WORK) -> Planned:
    """The same, to be mended after events. Args: work: nodes of branch and bound for each model."""
    numbered = number(index)
    world = numbered.world
    pricing, bound = priced(numbered)
    coarse = Coarse(world, classes.whole(world, pricing, PLANNING))
    coarse.settle(pricing, first=PRICED_WAYS, more=MORE_PRICED_WAYS)
    coarse.favour(np.array([model.priority for model in index.problem.models]))
    if coarse.missed().any():
        kept = replace(pricing, rule=np.where(coarse.missed(), 0.0, pricing.rule))
        bound = prices.bound_usd(world, prices.raised(world, kept))
    coarse.add_best(prices.raised(world, coarse.prices), SPARE_WAYS)
    replicas, flows = _finished(index, coarse, work)
    standing = Standing(index, numbered, pricing, replicas, *_apportioned(numbered, coarse, flows))
    standing.improve(rounds=ROUNDS)
    return Planned(standing=standing, bound_usd_per_hour=bound, prices=pricing)


def route(
    index: Index, ready: Mapping[tuple[str, str], int], unserved_usd: Floats
) -> dict[str, dict[tuple[str, str], float]]:
    """model -> (cell, cluster) -> requests per second, for replicas that are ready, of models without rules.

    What they can take beyond the target utilisation is used at the price of a late request.
    Args: unserved_usd: [M] USD per hour of one unserved request per second, above all that serving it may cost.
    """
    numbered = number(index)
    world = numbered.world
    count = np.array([ready.get((model.name, made.pool.name), 0) for model, made in numbered.options], dtype=np.int64)
    target = np.array([model.target_utilisation for model, _ in numbered.options])
    spare = count * world.option_rps * (1.0 / target - 1.0)
    more = np.flatnonzero(spare > DUST_RPS)
    none = np.zeros(len(more), np.int64)
    running = replace(
        world,
        pool_devices=np.append(world.used_devices(count).astype(np.int64), 0),
        option_model=np.append(world.option_model, world.option_model[more]),
        option_pool=np.append(world.option_pool, none + len(world.pool_devices)),
        option_node=np.append(world.option_node, world.option_node[more]),
        option_devices=np.append(world.option_devices, none),
        option_rps=np.append(world.option_rps, spare[more]),
        option_usd=np.append(
            np.where(count > 0, 0.0, NEVER_USD), spare[more] * world.late_usd[world.option_model[more]]
        ),
        option_start_usd=np.zeros(len(count) + len(more)),
        option_current=np.append(count, none),
        option_least=np.append(count, none),
        option_most=np.append(count, none + 1),
        unserved_usd=unserved_usd,
    )
    start = prices.none(running)
    plan = Coarse(running, classes.whole(running, start, PLANNING))
    plan.settle(start, first=WAYS, more=MORE_WAYS)
    return told(numbered, *_apportioned(numbered, plan, plan.flows))


def priced(numbered: Numbered) -> tuple[Prices, float]:
    """Prices, and the bound that they prove."""
    world = numbered.world
    nothing = prices.none(world)
    if not len(world.option_model) or not len(world.group_rps):
        return nothing, prices.bound_usd(world, nothing)
    rough = Coarse(world, classes.halves(world, nothing, PRICING))
    rough.settle(nothing, first=WAYS, more=MORE_WAYS)
    found = prices.raised(world, rough.prices)
    return found, prices.bound_usd(world, found)


def _finished(index: Index, plan: Coarse, work: int) -> tuple[Ints, Floats]:
    """Whole replicas [O] and the plan's flows [ways] for them; who missed a floor last is served before the others."""
    first: frozenset[int] = frozenset()
    while True:
        replicas, flows, missing = _model_by_model(index, plan, work, first)
        if missing <= first:
            return replicas, flows
        first |= missing


def _model_by_model(
    index: Index, plan: Coarse, work: int, first: frozenset[int]
) -> tuple[Ints, Floats, frozenset[int]]:
    """(replicas, flows, models that miss a floor): those in `first`, of high priority and of large replicas first.

    Those that are still to come have what the plan in fractions gives them reserved, except from those in `first`.
    """
    world, models = plan.world, index.problem.models
    down = np.floor(plan.replicas + WHOLE)
    replicas = _rounded_up(plan, down)
    stock = np.maximum(world.pool_devices, world.used_devices(world.option_least))
    largest = [int(world.option_devices[world.option_model == at].max(initial=0)) for at in range(len(models))]
    flows = np.zeros(len(plan.way))
    missing, waiting = set(), np.ones(len(replicas), dtype=bool)
    for at in sorted(range(len(models)), key=lambda at: (at not in first, -models[at].priority, -largest[at], at)):
        mine = np.flatnonzero(world.option_model == at)
        others = np.where(waiting, world.option_least, replicas) if at in first else replicas.copy()
        others[mine] = 0
        free = (stock - world.used_devices(others))[world.option_pool[mine]]
        room = np.maximum(np.floor(free / world.option_devices[mine] + 1e-9), world.option_least[mine])
        part = _of_model(index, plan, at, mine, np.minimum(world.option_most[mine], room), down[mine], work)
        replicas[mine], flows[part.ways], waiting[mine] = part.replicas, part.flows, False
        if part.misses:
            missing.add(at)
    return replicas.astype(np.int64), flows, frozenset(missing)


def _rounded_up(plan: Coarse, down: Floats) -> Floats:
    """[O] `down`, and one more of each that has a fraction, where the pool has the devices: large replicas first."""
    world = plan.world
    replicas, taken, part = down.copy(), world.used_devices(down), plan.replicas - down
    for option in np.lexsort((-part, -world.option_devices)):
        pool, devices = world.option_pool[option], world.option_devices[option]
        if part[option] > WHOLE and taken[pool] + devices <= world.pool_devices[pool]:
            replicas[option] += 1
            taken[pool] += devices
    return replicas


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One model's `replicas` [its options], its `ways` and their `flows`, which classes [K] go `short`, and whether it
    `misses` a floor."""

    replicas: Floats
    ways: Ints
    flows: Floats
    short: Bools
    misses: bool


def _of_model(index: Index, plan: Coarse, at: int, mine: Ints, most: Floats, down: Floats, work: int) -> _Part:
    """One model's part on the devices that others leave: `most` and, rounded `down`, what the fractions say [mine]."""
    world = plan.world
    ways = np.flatnonzero(plan.classes.model[plan.way_class] == at)
    near = plan.reduced_usd()[mine] < NEAR * world.option_usd[mine]
    is_open = near | (plan.replicas[mine] - down > WHOLE)
    part = _searched(index, plan, at, mine, ways, most, down, is_open, work)
    if part is not None and part.short.any():
        would = np.unique(plan.way[ways[part.short[plan.way_class[ways]]]])
        more = is_open | np.isin(world.node_cluster[world.option_node[mine]], would)
        part = _searched(index, plan, at, mine, ways, most, down, more, work)
    every = np.ones(len(mine), dtype=bool)
    for misses in (False, True):
        part = part or _searched(index, plan, at, mine, ways, most, np.zeros(len(mine)), every, work, misses=misses)
    if part is None:
        raise RuntimeError("the solver gave no answer, though leaving everything unserved is one")
    return part


def _searched(
    index: Index,
    plan: Coarse,
    at: int,
    mine: Ints,
    ways: Ints,
    most: Floats,
    down: Floats,
    is_open: Bools,
    work: int,
    *,
    misses: bool = False,
) -> _Part | None:
    """The best found with these options open [mine] and the others rounded, or None where that breaks a rule."""
    world = plan.world
    made, flows = _formulated(index, plan, at, ways, misses=misses)
    least, columns = world.option_least[mine], list(made.replicas.values())
    kept = (world.option_current[mine] > 0) & (down == world.option_current[mine])
    limit = np.minimum(np.array(made.programme.upper)[columns], most)
    whole = np.clip(np.round(plan.replicas[mine]), least, limit)
    lower = np.where(is_open, np.maximum(least, np.minimum(down - np.where(kept, 0.0, 1.0), limit)), whole)
    upper = np.where(is_open, limit, whole)
    for place, column in enumerate(columns):
        made.programme.lower[column], made.programme.upper[column] = float(lower[place]), float(upper[place])
    found = highs.solve(made.programme, gap=GAP, node_limit=work, plain=True)
    if found is None:
        return None
    served = np.bincount(plan.way_class[ways], weights=found.values[flows], minlength=len(plan.classes.rps))
    return _Part(
        replicas=np.round(found.values[columns]),
        ways=ways,
        flows=found.values[flows],
        short=(plan.classes.model == at) & (plan.classes.rps - served > SHORT * plan.classes.rps),
        misses=misses,
    )


def _formulated(index: Index, plan: Coarse, at: int, ways: Ints, *, misses: bool) -> tuple[Formulation, Ints]:
    """The programme of one model over its classes, and the columns of its ways."""
    model = index.problem.models[at]
    options = index.options(model)
    made = Formulation()
    formulation.add_replicas(made, index, model, options, defaultdict(dict), with_shortfall=misses)
    programme = made.programme
    served: dict[int, dict[int, float]] = {}
    capacity: dict[int, dict[int, float]] = defaultdict(dict)
    where = {cluster.name: number for number, cluster in enumerate(index.problem.clusters)}
    for option in options:
        rps = option.shape.requests_per_second * model.target_utilisation
        capacity[where[option.pool.cluster]][made.replicas[model.name, option.pool.name]] = -rps
    unserved_usd = formulation.USD_PER_HOUR * model.unserved_usd_per_1000
    for one in np.flatnonzero(plan.classes.model == at).tolist():
        served[one] = {programme.column(unserved_usd): 1.0}
    columns = np.empty(len(ways), np.int64)
    caps = plan.cap_of(plan.way_class[ways], plan.way[ways]).tolist()
    leaving: dict[int, dict[int, float]] = defaultdict(dict)
    pairs = zip(plan.way_class[ways].tolist(), plan.way[ways].tolist(), strict=True)
    for place, (one, cluster) in enumerate(pairs):
        columns[place] = column = programme.column(float(plan.classes.usd[one, cluster]))
        served[one][column] = 1.0
        capacity[cluster][column] = 1.0
        if caps[place] >= 0:
            leaving[caps[place]][column] = 1.0
    for cap, terms in sorted(leaving.items()):
        programme.row(terms, upper=float(plan.world.cap_rps[cap]))
    for one, terms in served.items():
        programme.row(terms, lower=float(plan.classes.rps[one]), upper=float(plan.classes.rps[one]))
    for _, terms in sorted(capacity.items()):
        programme.row(terms, upper=0.0)
    formulation.add_floors(made, index, model, options, with_shortfall=misses)
    formulation.add_spot(made, index, model, options, only_held=misses)
    return made, columns


def _apportioned(numbered: Numbered, plan: Coarse, flows: Floats) -> tuple[Ints, Ints, Floats]:
    """(group, node, requests per second): what the flows of a plan's ways are for single groups."""
    used = np.flatnonzero(flows > DUST_RPS)
    used = used[np.lexsort((plan.way[used], plan.way_class[used]))]
    world = numbered.world
    groups, clusters, rps = classes.apportion(world, plan.classes, plan.way_class[used], plan.way[used], flows[used])
    return groups, world.node_at[world.group_model[groups], clusters], rps
