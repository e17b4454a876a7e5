"""Floors: lower bounds of policy on one model's replicas, as rows over its options. One source for both engines.

Every rule reads `sum(term * replicas) >= lower`. Surviving the loss of a domain is one rule for each domain that may be
lost: the replicas left must be able to serve the protected demand. Residency and known latency give each cell a set of
permitted clusters. By Hall's condition it suffices that, for every union of such sets, the capacity in it without the
lost domain covers the demand of the cells whose permitted sets lie within it.

Source: Hall, On representatives of subsets, Journal of the London Mathematical Society 10 (1935).
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
"""Above this many pools, the capacity beyond a zone counts as what serves all demand, which keeps rows short."""
UNIONS = 64
"""Most unions of permitted sets; more than a few arise only from gaps in known latency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """`sum(terms[at] * replicas of option at) >= lower`; `subject` as in `Shortfall`."""

    floor: Floor
    subject: str = ""
    terms: Mapping[int, float]
    lower: float


def floors(index: Index, model: Model, options: Sequence[Option]) -> list[Rule]:
    """Every floor of `model` that is a sum over replicas, which `min_regions` is not."""
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
    """Expected hours from a loss until a replacement is ready; each request for one may be refused."""
    return (problem.reaction_s + model.warmup_s) / 3600.0 / pool.replacement_chance


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """All spot capacity of one product in one zone is reclaimed, which lasts the share `part` of the time.

    `lower - sum(terms[option] * replicas)`, if positive, is the requests per second unserved meanwhile.
    """

    zone: str
    product: str
    terms: Mapping[int, float]
    lower: float
    part: float

    def unserved_rps(self, replicas: Sequence[int]) -> float:
        """Requests per second unserved while it lasts. Args: replicas: of each option."""
        return max(0.0, self.lower - sum(term * replicas[at] for at, term in self.terms.items()))


def events(index: Index, model: Model, options: Sequence[Option]) -> list[Event]:
    """One event for each zone and product of spot: the capacity lost there, less the headroom of the other replicas
    above the target utilisation, is unserved. Use of that headroom is priced as lateness (`costs.risk_usd_per_hour`).

    Above MANY_POOLS, the headroom is that of replicas for all demand, so that rows stay short.
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
    """Whether some placement violates the rule."""
    return lower > sum(min(0.0, term) * options[at].most for at, term in terms.items())


def availability(index: Index, model: Model, options: Sequence[Option]) -> list[Rule]:
    """Bounds on the demand unserved after each event; together they keep the share of requests served over time at
    policy's target. Each event gets an equal part of what may go unserved."""
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
    """Each domain holds at most a fraction of the capacity: fraction * all - this domain >= 0."""
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
    """Capacity that must remain after the loss of any one domain."""
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
    """(union of permitted sets of `clusters`, requests per second of cells that may be served only within it).

    Cells that no cluster may serve are left out: nothing protects them.
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
