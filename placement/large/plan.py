"""The engine for large problems: column generation, a Lagrangian bound, rounding by model, local search.

1. A master over few classes with two arcs to each cluster (`by_lateness`) gives duals, which prove a lower bound over
   every pair (`duals.bound_usd`).
2. A master over finer classes, priced at these duals, gives a plan in fractions.
3. Model by model, a small mixed-integer programme with all rules of the model decides its fractions on the devices that
   the other models leave (`model_milp`).
4. Flows of classes are apportioned to their members, and local search improves the incumbent.

Effort is counted in nodes of branch and bound, never in seconds, so the same problem gives the same bytes anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from placement.answer import Answer, rounded_flows
from placement.index import Index
from placement.large import aggregation, duals
from placement.large.aggregation import Aggregation
from placement.large.arrays import Arrays, Bools, Floats, Ints
from placement.large.duals import Duals
from placement.large.encoding import Encoded, encode
from placement.large.incumbent import Incumbent
from placement.large.master import DUST_RPS, WHOLE, RestrictedMaster
from placement.large.model_milp import Effort, ModelPlan, solve_model
from placement.solution import Flow
from placement.survival import spares

PRICING = Aggregation(classes=400, near=1.5, alike=3)
PLANNING = Aggregation(classes=600, near=1.5, alike=2)
ARCS, MORE_ARCS = 8, 16
"""Arcs of each class at the start, and added in a round of column generation, without duals to start from."""
PRICED_ARCS, MORE_PRICED_ARCS = 5, 4
"""The same with duals to start from."""
SPARE_ARCS = 8
"""Arcs added to each class before rounding, so that whole replicas find users."""
NEAR = 0.1
"""Rounding may use options with a fraction, and options whose reduced cost is at most this share of their price."""
WORK = 1
"""Nodes of branch and bound for each model."""
ROUNDS = 5
"""Rounds of local search at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan that `reoptimise` can continue from, with its lower bound and the duals that prove it."""

    incumbent: Incumbent
    pricer: RestrictedMaster | None
    """The master that gave the duals; None where nothing can be placed or there is no demand."""
    master: RestrictedMaster
    bound_usd_per_hour: float
    prices: Duals

    def answer(self, index: Index) -> Answer:
        """The plan by name. Args: index: of the problem that was planned for."""
        return answer_of(index, self.incumbent, self.prices, self.bound_usd_per_hour)


def solve(index: Index, *, work: int = WORK) -> Answer:
    """The best plan found and its lower bound. Args: work: nodes of branch and bound for each model."""
    return plan(index, work=work).answer(index)


def answer_of(index: Index, incumbent: Incumbent, prices: Duals, bound_usd_per_hour: float) -> Answer:
    """A plan by name, with its bound and the duals of devices and limits."""
    pools = zip(incumbent.encoded.pools, prices.device, strict=True)
    limits = zip(incumbent.encoded.limits, prices.rule[incumbent.encoded.arrays.is_limit], strict=True)
    flows: list[Flow] = []
    unserved_rps: dict[tuple[str, str], float] = {}
    rates = incumbent.rates()
    for model in incumbent.encoded.models:
        parts, missing = rounded_flows(index, model, rates.get(model.name, {}))
        flows += parts
        unserved_rps |= {(model.name, cell): rps for cell, rps in missing.items()}
    return Answer(
        counts=incumbent.counts(),
        flows=tuple(flows),
        unserved_rps=unserved_rps,
        bound_usd_per_hour=bound_usd_per_hour,
        device_usd={name: float(usd) for name, usd in pools},
        limit_usd={limit: float(usd) for limit, usd in limits},
    )


def plan(index: Index, *, work: int = WORK) -> Planned:
    """As `solve`, in a form that can be re-optimised. Args: work: nodes of branch and bound for each model."""
    for _ in range(spares.PLANS):
        made = _plan(index, work)
        if not spares.learn_cuts(index, made.incumbent.counts()):
            return made
    made.incumbent.spare(spares.with_spares(index, made.incumbent.counts()))
    return made


def _plan(index: Index, work: int) -> Planned:
    encoded = encode(index)
    arrays = encoded.arrays
    pricer = _pricer(arrays)
    pricing = _pricing(arrays, pricer)
    master = RestrictedMaster(arrays, aggregation.whole(arrays, pricing, PLANNING))
    master.settle(pricing, first=PRICED_ARCS, more=MORE_PRICED_ARCS)
    master.prioritise(np.array([model.priority for model in index.problem.models]))
    master.add_best(duals.raised(arrays, master.prices), SPARE_ARCS)
    replicas, flows = _whole_replicas(index, master, work)
    incumbent = Incumbent(
        index,
        encoded,
        pricing,
        replicas,
        *master.apportioned(np.flatnonzero(flows > DUST_RPS), flows),
    )
    incumbent.improve(rounds=ROUNDS)
    pricing = _without_missed(incumbent, pricer, pricing)
    bound = max(0.0, proved_usd(incumbent, pricing))
    return Planned(incumbent=incumbent, pricer=pricer, master=master, bound_usd_per_hour=bound, prices=pricing)


def _without_missed(incumbent: Incumbent, pricer: RestrictedMaster | None, pricing: Duals) -> Duals:
    """These duals, or where a floor is missed those of a master in which missing it costs nothing.

    The dual of a floor that cannot be met is the penalty of missing it, which would dominate all others.
    """
    missed = _missed(incumbent)
    if pricer is None or not missed.any():
        return pricing
    other = pricer.copy()
    other.waive(missed)
    other.resettle(more=MORE_ARCS, rounds=ROUNDS)
    return duals.raised(incumbent.encoded.arrays, other.prices)


def _missed(incumbent: Incumbent) -> Bools:
    """[R] which hard rules the incumbent misses."""
    arrays = incumbent.encoded.arrays
    terms = arrays.rule_term * incumbent.replicas[arrays.rule_option]
    kept = np.bincount(arrays.rule_of, weights=terms, minlength=len(arrays.rule_lower))
    missed: Bools = kept < arrays.rule_lower - WHOLE * np.maximum(1.0, np.abs(arrays.rule_lower))
    return missed & ~arrays.rule_is_priced


def proved_usd(incumbent: Incumbent, pricing: Duals) -> float:
    """Lower bound on the cost of any plan that misses no more rules than this one; duals of missed rules are zero."""
    arrays, replicas, missed = incumbent.encoded.arrays, incumbent.replicas, _missed(incumbent)
    started = np.maximum(0, replicas - arrays.option_current)
    over = np.bincount(arrays.option_model, weights=started, minlength=len(arrays.max_starts)) > arrays.max_starts
    if missed.any() or over.any():
        rule, start = np.where(missed, 0.0, pricing.rule), np.where(over, 0.0, pricing.start)
        pricing = duals.raised(arrays, replace(pricing, rule=rule, start=start))
    return duals.bound_usd(arrays, pricing)


def priced(encoded: Encoded) -> tuple[Duals, float]:
    """(duals, the lower bound that they prove in USD per hour)."""
    found = _pricing(encoded.arrays, _pricer(encoded.arrays))
    return found, duals.bound_usd(encoded.arrays, found)


def _pricer(arrays: Arrays) -> RestrictedMaster | None:
    """The master that gives duals, solved; None where nothing can be placed or there is no demand."""
    nothing = duals.none(arrays)
    if not len(arrays.option_model) or not len(arrays.group_rps):
        return None
    pricer = RestrictedMaster(arrays, aggregation.by_lateness(arrays, nothing, PRICING))
    pricer.settle(nothing, first=ARCS, more=MORE_ARCS)
    return pricer


def _pricing(arrays: Arrays, pricer: RestrictedMaster | None) -> Duals:
    return duals.none(arrays) if pricer is None else duals.raised(arrays, pricer.prices)


def _whole_replicas(index: Index, plan: RestrictedMaster, work: int) -> tuple[Ints, Floats]:
    """([O] whole replicas, [arcs] flows). Models that miss a floor are decided first in the next attempt."""
    first: frozenset[int] = frozenset()
    while True:
        replicas, flows, missing = _round_by_model(index, plan, work, first)
        if missing <= first:
            return replicas, flows
        first |= missing


def _round_by_model(
    index: Index, plan: RestrictedMaster, work: int, first: frozenset[int]
) -> tuple[Ints, Floats, frozenset[int]]:
    """([O] replicas, [arcs] flows, models that miss a floor), decided in the order: `first`, priority, large replicas.

    The devices that the plan in fractions gives to models still to come are reserved for them, except from models in
    `first` and from models of higher priority that would be short.
    """
    arrays, models = plan.arrays, index.problem.models
    down = np.floor(plan.replicas + WHOLE)
    replicas = _rounded_up(plan, down)
    stock = np.maximum(arrays.pool_devices, arrays.used_devices(arrays.option_least))
    largest = [int(arrays.option_devices[arrays.option_model == at].max(initial=0)) for at in range(len(models))]
    flows = np.zeros(len(plan.arc))
    missing, waiting = set(), np.ones(len(replicas), dtype=bool)
    priority = np.array([model.priority for model in models])[arrays.option_model]
    for at in sorted(range(len(models)), key=lambda at: (at not in first, -models[at].priority, -largest[at], at)):
        mine = np.flatnonzero(arrays.option_model == at)
        others = np.where(waiting, arrays.option_least, replicas) if at in first else replicas.copy()
        others[mine] = 0
        lower = waiting & (priority < models[at].priority)

        def decided(others: Floats, at: int = at, mine: Ints = mine) -> ModelPlan:
            free = (stock - arrays.used_devices(others))[arrays.option_pool[mine]]
            room = np.maximum(np.floor(free / arrays.option_devices[mine] + 1e-9), arrays.option_least[mine])
            most = np.minimum(arrays.option_most[mine], room)
            return _of_model(index, plan, at, mine, most, down[mine], arrays.taken(others), work)

        part = decided(others)
        if part.short.any() and (others > arrays.option_least)[lower].any():
            part = decided(np.where(lower, arrays.option_least, others))
        replicas[mine], flows[part.arcs], waiting[mine] = part.replicas, part.flows, False
        gone = lower & ((arrays.used_devices(replicas) > stock)[arrays.option_pool] | _beyond(arrays, replicas))
        replicas[gone] = arrays.option_least[gone]
        if part.misses:
            missing.add(at)
    return replicas.astype(np.int64), flows, frozenset(missing)


def _beyond(arrays: Arrays, replicas: Floats) -> Bools:
    """[O] whether a limit that these replicas exceed counts an option."""
    beyond = arrays.taken(replicas) < arrays.rule_lower - WHOLE * np.maximum(1.0, np.abs(arrays.rule_lower))
    made = np.zeros(len(replicas), dtype=bool)
    made[arrays.rule_option[(beyond & arrays.is_limit)[arrays.rule_of]]] = True
    return made


def _rounded_up(plan: RestrictedMaster, down: Floats) -> Floats:
    """[O] `down`, plus one where the plan has a fraction and pool and limits have room; large replicas first."""
    arrays = plan.arrays
    replicas, taken, part = down.copy(), arrays.used_devices(down), plan.replicas - down
    left, limits = arrays.taken(down) - arrays.rule_lower, arrays.limits_of
    for option in np.lexsort((-part, -arrays.option_devices)):
        pool, devices = arrays.option_pool[option], arrays.option_devices[option]
        if part[option] > WHOLE and taken[pool] + devices <= arrays.pool_devices[pool]:
            if any(left[rule] + term < -WHOLE for rule, term in limits.get(int(option), ())):
                continue
            replicas[option] += 1
            taken[pool] += devices
            for rule, term in limits.get(int(option), ()):
                left[rule] += term
    return replicas


def _of_model(
    index: Index, plan: RestrictedMaster, at: int, mine: Ints, most: Floats, down: Floats, beside: Floats, work: int
) -> ModelPlan:
    """One model's replicas and flows on the devices that others leave.

    Args: mine: its options. most: [mine] upper bounds. down: [mine] fractions rounded down. beside: [R] minus what
        other models take of limits.
    """
    arrays = plan.arrays
    arcs = np.flatnonzero(plan.classes.model[plan.arc_class] == at)
    least = arrays.option_least[mine].astype(float)
    kept = (arrays.option_current[mine] > 0) & (down == arrays.option_current[mine])
    most = np.maximum(np.minimum(arrays.option_most[mine], most), least)
    open_from = np.maximum(least, np.minimum(down - np.where(kept, 0.0, 1.0), most))
    whole = np.clip(np.round(plan.replicas[mine]), least, most)
    near = plan.reduced_usd()[mine] < NEAR * arrays.option_usd[mine]
    is_open = near | (plan.replicas[mine] - down > WHOLE)
    effort = Effort(nodes=work)
    for _ in range(2):
        lower, upper = np.where(is_open, open_from, whole), np.where(is_open, most, whole)
        part = solve_model(index, plan, at, arcs, lower, upper, effort, beside=beside)
        if part is None or not part.short.any():
            break
        would = np.unique(plan.arc[arcs[part.short[plan.arc_class[arcs]]]])
        is_open |= np.isin(arrays.node_cluster[arrays.option_node[mine]], would)
    for misses in (False, True):
        part = part or solve_model(
            index, plan, at, arcs, least, most, effort, beside=beside, misses=misses, yields=misses
        )
    if part is None:
        raise RuntimeError("the solver gave no answer, though leaving everything unserved is one")
    if part.short.any() and not part.misses and index.problem.models[at].yields:
        part = solve_model(index, plan, at, arcs, least, most, effort, beside=beside, yields=True) or part
    return part
