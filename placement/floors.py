"""What policy demands of one model's replicas, as rows over its options.

Every rule reads `sum(term * replicas) >= lower`. Surviving the loss of a domain is a rule for each domain that may be
lost: what is left must be able to serve the protected demand. Who may serve whom is a matter of residency and of known
latency, so the demand falls into kinds with the same permitted clusters, and (Hall's condition) it is enough that for
every union of such permitted sets the capacity in it, less the lost domain, holds the demand that may go nowhere else.

Limits read `sum(term * replicas) <= upper`, and a budget's sum goes over several models.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from placement.index import Index, Option
from placement.problem import Model, Pool, Problem
from placement.solution import Floor
from placement.survival import cuts as within

MANY_POOLS = 500
"""Of more, the others that serve what a zone's spot leaves are taken for as many as plans hold for all demand."""
UNIONS = 64
"""Permitted sets that are put together, at most; more than a few come from gaps in what latency is known alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """`sum(terms[at] * replicas of option at) >= lower`; `subject` as in `Shortfall`."""

    floor: Floor
    subject: str = ""
    terms: Mapping[int, float]
    lower: float


def floors(index: Index, model: Model, options: Sequence[Option]) -> list[Rule]:
    """Every floor of `model` that is a sum over replicas; the number of regions is not."""
    found: list[Rule] = []
    if model.min_replicas > 0:
        terms = dict.fromkeys(range(len(options)), 1.0)
        found.append(Rule(floor="min_replicas", terms=terms, lower=float(model.min_replicas)))
    if model.min_on_demand > 0:
        terms = {at: 1.0 for at, option in enumerate(options) if option.pool.market != "spot"}
        found.append(Rule(floor="min_on_demand", terms=terms, lower=float(model.min_on_demand)))
    for pin in model.pins:
        terms = {at: 1.0 for at, option in enumerate(options) if option.pool.cluster == pin.cluster}
        found.append(Rule(floor="pin", subject=pin.cluster, terms=terms, lower=float(pin.replicas)))
    found += spread(index, model, options) + survival(index, model, options) + availability(index, model, options)
    cuts = within.cut_rows(index, model, options, index.cuts.get(model.name, ()))
    return found + [Rule(floor="survive_within", subject=lost, terms=terms, lower=rps) for lost, terms, rps in cuts]


def outage_h(problem: Problem, model: Model, pool: Pool) -> float:
    """Hours from a loss until a replacement is ready, on average: each that is asked for may be refused."""
    return (problem.reaction_s + model.warmup_s) / 3600.0 / pool.replacement_chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """All spot of one product in one zone is taken back: so far as the sum of `terms` times replicas, by position of
    the option, is below `lower`, requests per second go unserved until it is replaced: `part` of the time."""

    zone: str
    product: str
    terms: Mapping[int, float]
    lower: float
    part: float

    def unserved_rps(self, replicas: Sequence[int]) -> float:
        """While it lasts, with so many replicas of each option."""
        return max(0.0, self.lower - sum(term * replicas[at] for at, term in self.terms.items()))


def events(index: Index, model: Model, options: Sequence[Option]) -> list[Event]:
    """What each loss of a zone's spot leaves unserved: what plans count on there, beyond what the other replicas can
    serve above what plans count on. What they can serve costs as much as being late (`risk_usd_per_hour`).

    Where there are many pools, the others are taken for as many as plans hold for all demand, so that rows stay short.
    """
    lost: dict[tuple[str, str], list[int]] = defaultdict(list)
    for at, option in enumerate(options):
        if option.pool.losses_per_hour > 0.0:
            lost[index.clusters[option.pool.cluster].domain("zone"), option.pool.product].append(at)
    if not lost:
        return []
    part: dict[tuple[str, str], float] = defaultdict(float)
    for pool in index.problem.pools:
        if pool.losses_per_hour > 0.0:
            key = (index.clusters[pool.cluster].domain("zone"), pool.product)
            part[key] = max(part[key], pool.losses_per_hour * outage_h(index.problem, model, pool))
    beyond = 1.0 - model.target_utilisation
    others: dict[int, float] = {}
    lower = 0.0
    if len(index.problem.pools) > MANY_POOLS:
        lower = -beyond * _asked(index, model) / model.target_utilisation
    else:
        others = {at: beyond * option.shape.requests_per_second for at, option in enumerate(options)}
    found = []
    for (zone, product), mine in sorted(lost.items()):
        terms = others | {at: others.get(at, 0.0) - options[at].shape.requests_per_second for at in mine}
        found.append(Event(zone=zone, product=product, terms=terms, lower=lower, part=part[zone, product]))
    return found


def _binds(options: Sequence[Option], terms: Mapping[int, float], lower: float) -> bool:
    """Whether any placement is below."""
    return lower > sum(min(0.0, term) * options[at].most for at, term in terms.items())


def availability(index: Index, model: Model, options: Sequence[Option]) -> list[Rule]:
    """What each loss of a zone's spot may leave unserved, so that all of them together leave no more unserved, over
    time, than policy allows: each an equal part of it."""
    if model.target_fraction <= 0.0:
        return []
    found = [event for event in events(index, model, options) if event.part > 0.0]
    zones = {
        (index.clusters[pool.cluster].domain("zone"), pool.product)
        for pool in index.problem.pools
        if pool.losses_per_hour > 0.0 and model.shape_for(pool) is not None
    }
    rps = (1.0 - model.target_fraction) * _asked(index, model) / max(1, len(zones))
    made = [
        Rule(
            floor="availability", subject=f"{one.zone}/{one.product}", terms=one.terms, lower=one.lower - rps / one.part
        )
        for one in found
    ]
    return [rule for rule in made if _binds(options, rule.terms, rule.lower)]


def _asked(index: Index, model: Model) -> float:
    return sum(demand.requests_per_second for demand in index.demands[model.name])


def spread(index: Index, model: Model, options: Sequence[Option]) -> list[Rule]:
    """What each domain may hold at most: what all hold together, times the fraction, less what this one holds."""
    if model.max_part is None or model.max_part.fraction >= 1.0:
        return []
    domain = [index.clusters[option.pool.cluster].domain(model.max_part.domain) for option in options]
    found = []
    for one in sorted(set(domain)):
        terms = {
            at: option.shape.requests_per_second * (model.max_part.fraction - (1.0 if domain[at] == one else 0.0))
            for at, option in enumerate(options)
        }
        found.append(Rule(floor="max_part", subject=one, terms=terms, lower=0.0))
    return found


def survival(index: Index, model: Model, options: Sequence[Option]) -> list[Rule]:
    """What must be left whatever single domain is lost."""
    if model.survive is None:
        return []
    reaches = unions(index, model, [option.pool.cluster for option in options])
    domain = [index.clusters[option.pool.cluster].domain(model.survive) for option in options]
    found = []
    for lost in sorted(set(domain)):
        for reach, rps in reaches:
            terms = {
                at: option.shape.requests_per_second * model.target_utilisation
                for at, option in enumerate(options)
                if option.pool.cluster in reach and domain[at] != lost
            }
            lower = rps * model.survive_fraction
            found.append(Rule(floor="survive", subject=lost, terms=terms, lower=lower))
    return found


def unions(index: Index, model: Model, clusters: Sequence[str]) -> list[tuple[frozenset[str], float]]:
    """(a union of permitted sets of `clusters`, requests per second of those who may be served in it alone).

    Users whom no cluster may serve are left out: nothing protects them.
    """
    names = sorted(set(clusters))
    demand: dict[frozenset[str], float] = defaultdict(float)
    for one in index.demands[model.name]:
        reach = frozenset(index.servers(model, index.cells[one.cell], names))
        if reach:
            demand[reach] += one.requests_per_second
    made = set(demand)
    for reach in sorted(demand, key=sorted):
        made |= {reach | other for other in made} if len(made) <= UNIONS else {frozenset().union(*demand)}
    return [
        (union, sum(rps for reach, rps in sorted(demand.items(), key=lambda one: sorted(one[0])) if reach <= union))
        for union in sorted(made, key=sorted)
    ]
