"""Plans for large worlds: prices from coarse classes of demand, a plan in fractions, whole replicas model by model.

The way of a plan: a programme over coarse halves of demand gives what scarce devices are worth, which proves a bound
over every pair; one over classes at these prices gives a plan in fractions; fractions are decided for each model by
itself in a small mixed-integer programme with all its rules, on the devices that the others leave. Then the flows of
classes are told to their members, and single replicas and flows are moved while that saves (`standing`).

Effort is counted in nodes of branch and bound, never in seconds, so the same problem gives the same bytes anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from placement.answer import Answer, rounded_flows
from placement.index import Index
from placement.large import aggregation, duals
from placement.large.aggregation import Grain
from placement.large.arrays import Bools, Floats, Ints, World
from placement.large.duals import Prices
from placement.large.encoding import Numbered, number
from placement.large.incumbent import Standing
from placement.large.master import DUST_RPS, WHOLE, Coarse
from placement.large.model_milp import Part, searched
from placement.solution import Flow
from placement.survival import spares

PRICING = Grain(classes=400, near=1.5, alike=3)
PLANNING = Grain(classes=600, near=1.5, alike=2)
WAYS, MORE_WAYS = 8, 16
"""Of each class: at the start, and at a time while they pay."""
PRICED_WAYS, MORE_PRICED_WAYS = 5, 4
"""The same where prices are known before."""
SPARE_WAYS = 8
"""Of each class besides, so that whole replicas find users."""
NEAR = 0.1
"""In whole numbers those options are open that have a fraction or cost at most this part above what they bring."""
WORK = 1
ROUNDS = 5
"""Of steps over all replicas at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan that can be mended, the bound that was proved with it, and what scarce things are worth."""

    standing: Standing
    rough: Coarse | None
    """What gave the prices."""
    coarse: Coarse
    bound_usd_per_hour: float
    prices: Prices

    def answer(self, index: Index) -> Answer:
        """What was planned, by name. Args: index: of the problem that was planned for."""
        return answer_of(index, self.standing, self.prices, self.bound_usd_per_hour)


def solve(index: Index, *, work: int = WORK) -> Answer:
    """A plan near its bound. Args: work: nodes of branch and bound for each model."""
    return plan(index, work=work).answer(index)


def answer_of(index: Index, standing: Standing, prices: Prices, bound_usd_per_hour: float) -> Answer:
    """What was planned, by name."""
    pools = zip(standing.numbered.pools, prices.device, strict=True)
    limits = zip(standing.numbered.limits, prices.rule[standing.numbered.world.is_limit], strict=True)
    flows: list[Flow] = []
    unserved_rps: dict[tuple[str, str], float] = {}
    rates = standing.rates()
    for model in standing.numbered.models:
        parts, missing = rounded_flows(index, model, rates.get(model.name, {}))
        flows += parts
        unserved_rps |= {(model.name, cell): rps for cell, rps in missing.items()}
    return Answer(
        counts=standing.counts(),
        flows=tuple(flows),
        unserved_rps=unserved_rps,
        bound_usd_per_hour=bound_usd_per_hour,
        device_usd={name: float(usd) for name, usd in pools},
        limit_usd={limit: float(usd) for limit, usd in limits},
    )


def plan(index: Index, *, work: int = WORK) -> Planned:
    """The same, to be mended after events. Args: work: nodes of branch and bound for each model."""
    for _ in range(spares.PLANS):
        made = _plan(index, work)
        if not spares.learn(index, made.standing.counts()):
            return made
    made.standing.spare(spares.added(index, made.standing.counts()))
    return made


def _plan(index: Index, work: int) -> Planned:
    numbered = number(index)
    world = numbered.world
    rough = _rough(world)
    pricing = _pricing(world, rough)
    coarse = Coarse(world, aggregation.whole(world, pricing, PLANNING))
    coarse.settle(pricing, first=PRICED_WAYS, more=MORE_PRICED_WAYS)
    coarse.favour(np.array([model.priority for model in index.problem.models]))
    coarse.add_best(duals.raised(world, coarse.prices), SPARE_WAYS)
    replicas, flows = _finished(index, coarse, work)
    standing = Standing(
        index,
        numbered,
        pricing,
        replicas,
        *coarse.apportioned(np.flatnonzero(flows > DUST_RPS), flows),
    )
    standing.improve(rounds=ROUNDS)
    pricing = _forgiving(standing, rough, pricing)
    bound = max(0.0, proved_usd(standing, pricing))
    return Planned(standing=standing, rough=rough, coarse=coarse, bound_usd_per_hour=bound, prices=pricing)


def _forgiving(standing: Standing, rough: Coarse | None, pricing: Prices) -> Prices:
    """The same prices, but where a floor cannot be held those of a programme in which missing it costs nothing: what it
    is worth would be the price of what is in its way, which then proves nothing."""
    missed = _missed(standing)
    if rough is None or not missed.any():
        return pricing
    other = rough.copy()
    other.forgive(missed)
    other.resettle(more=MORE_WAYS, rounds=ROUNDS)
    return duals.raised(standing.numbered.world, other.prices)


def _missed(standing: Standing) -> Bools:
    """[R]"""
    world = standing.numbered.world
    terms = world.rule_term * standing.replicas[world.rule_option]
    kept = np.bincount(world.rule_of, weights=terms, minlength=len(world.rule_lower))
    missed: Bools = kept < world.rule_lower - WHOLE * np.maximum(1.0, np.abs(world.rule_lower))
    return missed & ~world.rule_is_priced


def proved_usd(standing: Standing, pricing: Prices) -> float:
    """What no plan costs less than that misses no more rules and budgets than this one: what it misses has no price."""
    world, replicas, missed = standing.numbered.world, standing.replicas, _missed(standing)
    started = np.maximum(0, replicas - world.option_current)
    over = np.bincount(world.option_model, weights=started, minlength=len(world.max_starts)) > world.max_starts
    if missed.any() or over.any():
        rule, start = np.where(missed, 0.0, pricing.rule), np.where(over, 0.0, pricing.start)
        pricing = duals.raised(world, replace(pricing, rule=rule, start=start))
    return duals.bound_usd(world, pricing)


def priced(numbered: Numbered) -> tuple[Prices, float]:
    """Prices, and the bound that they prove."""
    found = _pricing(numbered.world, _rough(numbered.world))
    return found, duals.bound_usd(numbered.world, found)


def _rough(world: World) -> Coarse | None:
    """The programme that gives prices, solved; None of a world where nothing can be placed or nobody asks."""
    nothing = duals.none(world)
    if not len(world.option_model) or not len(world.group_rps):
        return None
    rough = Coarse(world, aggregation.halves(world, nothing, PRICING))
    rough.settle(nothing, first=WAYS, more=MORE_WAYS)
    return rough


def _pricing(world: World, rough: Coarse | None) -> Prices:
    return duals.none(world) if rough is None else duals.raised(world, rough.prices)


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

    Those that are still to come have what the plan in fractions gives them reserved, except from those in `first`, and
    from models of higher priority that would go short.
    """
    world, models = plan.world, index.problem.models
    down = np.floor(plan.replicas + WHOLE)
    replicas = _rounded_up(plan, down)
    stock = np.maximum(world.pool_devices, world.used_devices(world.option_least))
    largest = [int(world.option_devices[world.option_model == at].max(initial=0)) for at in range(len(models))]
    flows = np.zeros(len(plan.way))
    missing, waiting = set(), np.ones(len(replicas), dtype=bool)
    priority = np.array([model.priority for model in models])[world.option_model]
    for at in sorted(range(len(models)), key=lambda at: (at not in first, -models[at].priority, -largest[at], at)):
        mine = np.flatnonzero(world.option_model == at)
        others = np.where(waiting, world.option_least, replicas) if at in first else replicas.copy()
        others[mine] = 0
        lower = waiting & (priority < models[at].priority)

        def decided(others: Floats, at: int = at, mine: Ints = mine) -> Part:
            free = (stock - world.used_devices(others))[world.option_pool[mine]]
            room = np.maximum(np.floor(free / world.option_devices[mine] + 1e-9), world.option_least[mine])
            most = np.minimum(world.option_most[mine], room)
            return _of_model(index, plan, at, mine, most, down[mine], world.taken(others), work)

        part = decided(others)
        if part.short.any() and (others > world.option_least)[lower].any():
            part = decided(np.where(lower, world.option_least, others))
        replicas[mine], flows[part.ways], waiting[mine] = part.replicas, part.flows, False
        gone = lower & ((world.used_devices(replicas) > stock)[world.option_pool] | _beyond(world, replicas))
        replicas[gone] = world.option_least[gone]
        if part.misses:
            missing.add(at)
    return replicas.astype(np.int64), flows, frozenset(missing)


def _beyond(world: World, replicas: Floats) -> Bools:
    """[O] whether an option is counted by a limit that so many replicas are beyond."""
    beyond = world.taken(replicas) < world.rule_lower - WHOLE * np.maximum(1.0, np.abs(world.rule_lower))
    made = np.zeros(len(replicas), dtype=bool)
    made[world.rule_option[(beyond & world.is_limit)[world.rule_of]]] = True
    return made


def _rounded_up(plan: Coarse, down: Floats) -> Floats:
    """[O] `down`, and one more of each that has a fraction, where the pool has the devices and limits let it be: large
    replicas first."""
    world = plan.world
    replicas, taken, part = down.copy(), world.used_devices(down), plan.replicas - down
    left, limits = world.taken(down) - world.rule_lower, world.limits_of
    for option in np.lexsort((-part, -world.option_devices)):
        pool, devices = world.option_pool[option], world.option_devices[option]
        if part[option] > WHOLE and taken[pool] + devices <= world.pool_devices[pool]:
            if any(left[rule] + term < -WHOLE for rule, term in limits.get(int(option), ())):
                continue
            replicas[option] += 1
            taken[pool] += devices
            for rule, term in limits.get(int(option), ()):
                left[rule] += term
    return replicas


def _of_model(
    index: Index, plan: Coarse, at: int, mine: Ints, most: Floats, down: Floats, beside: Floats, work: int
) -> Part:
    """One model's part of what others leave: `most` replicas and, rounded `down`, what the fractions say [mine];
    `beside` [R] is minus what the others take of limits."""
    world = plan.world
    ways = np.flatnonzero(plan.classes.model[plan.way_class] == at)
    least = world.option_least[mine].astype(float)
    kept = (world.option_current[mine] > 0) & (down == world.option_current[mine])
    most = np.maximum(np.minimum(world.option_most[mine], most), least)
    open_from = np.maximum(least, np.minimum(down - np.where(kept, 0.0, 1.0), most))
    whole = np.clip(np.round(plan.replicas[mine]), least, most)
    near = plan.reduced_usd()[mine] < NEAR * world.option_usd[mine]
    is_open = near | (plan.replicas[mine] - down > WHOLE)
    for _ in range(2):
        lower, upper = np.where(is_open, open_from, whole), np.where(is_open, most, whole)
        part = searched(index, plan, at, ways, lower, upper, work, beside=beside)
        if part is None or not part.short.any():
            break
        would = np.unique(plan.way[ways[part.short[plan.way_class[ways]]]])
        is_open |= np.isin(world.node_cluster[world.option_node[mine]], would)
    for misses in (False, True):
        part = part or searched(index, plan, at, ways, least, most, work, beside=beside, misses=misses, yields=misses)
    if part is None:
        raise RuntimeError("the solver gave no answer, though leaving everything unserved is one")
    if part.short.any() and not part.misses and index.problem.models[at].yields:
        part = searched(index, plan, at, ways, least, most, work, beside=beside, yields=True) or part
    return part
