"""The placement problem as a mixed-integer programme: capacitated facility location with side constraints.

Variables, all at least zero:
  n[m,p]   replicas of model m in pool p (integer)            x[m,u,c]  requests per second of (m, cell u) to cluster c
  z[m,u]   unserved requests per second                       a[m,p]    replicas started beyond those that run
  y[m,r]   whether m is in region r (binary)                  g[m,u]    growth among what is unserved
Rows:
  served     sum_c x + z = demand                             per (m, u)
  growth     g <= z, g <= growth of the demand                per (m, u) that grew
  capacity   sum_u x <= sum_p target_utilisation * rps * n     per (m, c)
  devices    sum_m devices * n <= devices of the pool          per p
  starts     n - a <= current; sum a <= max_starts             per (m, p) with a price or a budget
  floors     those of `floors`; sum_r y >= min_regions, y <= sum_{p in r} n
  spot       sum over spot n <= fraction * sum n               per m
  continents sum x that leave <= fraction * demand             per m that is capped, and continent of users
  tiers      sum z <= what their priority must leave           per priority that is short
  limits     sum of replicas, or of their cost <= most         per m with max_replicas, and per budget
Requests are routed to a cluster; the cluster itself spreads them over its pools.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

from placement import costs, floors, limits
from placement.exact.kernel_search import Facility
from placement.highs import Programme
from placement.index import Index, Option
from placement.problem import Intake, Model
from placement.routing.programme import add_caps
from placement.solution import Floor, Limit


@dataclass(slots=True)
class Formulation:
    """A programme with the meaning of its columns and rows."""

    programme: Programme = field(default_factory=Programme)
    replicas: dict[tuple[str, str], int] = field(default_factory=dict)
    flows: dict[tuple[str, str, str], int] = field(default_factory=dict)
    unserved: dict[tuple[str, str], int] = field(default_factory=dict)
    devices: dict[str, int] = field(default_factory=dict)
    """Pool -> its row."""
    limits: dict[tuple[Limit, str], int] = field(default_factory=dict)
    """(limit, its subject) -> its row."""
    facilities: list[Facility] = field(default_factory=list)
    """For each (model, cluster): the arcs into it and the replica columns that serve them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """Models of one priority, and the requests per second that they must leave unserved even if models of lower
    priority are ignored: one level of lexicographic optimisation."""

    models: frozenset[str]
    unserved_rps: float


def formulate(
    index: Index,
    *,
    missable: frozenset[Floor] = frozenset(),
    exposed: frozenset[str] = frozenset(),
    uneven: frozenset[str] = frozenset(),
    without_floors: bool = False,
    tiers: Sequence[Tier] = (),
    least: float = -inf,
) -> Formulation:
    """The placement programme.

    Args: missable: floors that may be missed at a penalty above all other costs; so may budgets, if any is.
        exposed: models that may miss `survive` and `survive_within` at a penalty below that of unserved users.
        uneven: models that may miss the floors in `costs.YIELDING` likewise. without_floors: leave floors and budgets
        out. tiers: bounds on unserved demand by priority. least: unserved demand below this priority costs nothing.
    """
    made = Formulation()
    in_pool: dict[str, dict[int, float]] = defaultdict(dict)
    budget_usd = 0.0 if without_floors else costs.OVER_BUDGET_USD_PER_HOUR if missable else inf
    for model in index.problem.models:
        options = index.options(model)
        add_replicas(made, index, model, options, in_pool, budget_usd=budget_usd)
        _routing(made, index, model, options, is_wanted=model.priority >= least)
        if not without_floors:
            also: set[Floor] = {"survive", "survive_within"} if model.name in exposed else set()
            also |= costs.YIELDING if model.name in uneven else set()
            add_floors(made, index, model, options, missable | also)
            add_events(made, index, model, options)
        add_spot(made, index, model, options, only_held=without_floors or bool(missable))
    for name, terms in in_pool.items():
        pool = index.pools[name]
        held = index.clusters[pool.cluster].intake is Intake.HELD
        if not held:
            made.devices[name] = made.programme.row(terms, upper=float(pool.devices))
    for one in limits.upper_rules(index):
        columns = {made.replicas[key]: term for key, term in one.terms.items()}
        made.limits[one.limit, one.subject] = made.programme.row(columns, upper=one.upper)
    for tier in tiers:
        columns = {column: 1.0 for (model, _), column in made.unserved.items() if model in tier.models}
        made.programme.row(columns, upper=tier.unserved_rps)
    return made


def add_replicas(
    made: Formulation,
    index: Index,
    model: Model,
    options: tuple[Option, ...],
    in_pool: dict[str, dict[int, float]],
    *,
    budget_usd: float,
) -> None:
    """Columns of replicas and starts. Args: budget_usd: penalty of a start beyond the budget; infinite forbids it."""
    programme = made.programme
    budget: dict[int, float] = {}
    for option in options:
        usd = option.shape.devices * option.pool.usd_per_device_hour
        usd += costs.risk_usd_per_hour(index.problem, model, option.shape, option.pool)
        column = programme.column(usd, lower=float(option.least), upper=float(option.most), integer=True)
        made.replicas[model.name, option.pool.name] = column
        in_pool[option.pool.name][column] = float(option.shape.devices)
        price = costs.start_usd_per_hour(index.problem, model, option)
        now = index.current.get((model.name, option.pool.name), 0)
        if (price > 0 or model.max_starts is not None) and option.most > now:
            start = programme.column(price)
            programme.row({column: 1.0, start: -1.0}, upper=float(now))
            budget[start] = 1.0
    if model.max_starts is not None and budget:
        if budget_usd < inf:
            budget[programme.column(budget_usd)] = -1.0
        programme.row(budget, upper=float(model.max_starts))


def _routing(made: Formulation, index: Index, model: Model, options: tuple[Option, ...], *, is_wanted: bool) -> None:
    programme = made.programme
    capacity: dict[str, dict[int, float]] = defaultdict(dict)
    for option in options:
        column = made.replicas[model.name, option.pool.name]
        rps = option.shape.requests_per_second * model.target_utilisation
        capacity[option.pool.cluster][column] = rps
    into: dict[str, dict[int, float]] = defaultdict(dict)
    leaving: dict[str, dict[int, float]] = defaultdict(dict)
    for demand in index.demands[model.name]:
        usd = costs.THOUSANDS_PER_HOUR * model.unserved_usd_per_1000 if is_wanted else 0.0
        missing = programme.column(usd, upper=demand.requests_per_second)
        made.unserved[model.name, demand.cell] = missing
        if demand.grown_rps > 0:
            grown = programme.column(-(1.0 - costs.GROWN_PART) * usd, upper=demand.grown_rps)
            programme.row({grown: 1.0, missing: -1.0}, upper=0.0)
        terms = {missing: 1.0}
        for cluster in sorted(index.servers(model, index.cells[demand.cell], capacity)):
            latency_ms = index.latency_ms(model, demand.cell, cluster)
            usd = costs.served_usd_per_rps(model, index.clusters[cluster], latency_ms)
            column = programme.column(usd, upper=demand.requests_per_second)
            made.flows[model.name, demand.cell, cluster] = column
            terms[column] = 1.0
            if model.is_capped and index.leaves(demand.cell, cluster):
                leaving[index.cells[demand.cell].continent][column] = 1.0
            into[cluster][column] = 1.0
        programme.row(terms, lower=demand.requests_per_second, upper=demand.requests_per_second)
    for cluster, of_one in sorted(capacity.items()):
        row = programme.row({**{column: -rps for column, rps in of_one.items()}, **into[cluster]}, upper=0.0)
        made.facilities.append(Facility(row=row, arcs=tuple(into[cluster]), capacity=of_one, group=model.name))
    add_caps(programme, index, model, leaving)


def add_floors(
    made: Formulation, index: Index, model: Model, options: tuple[Option, ...], missable: frozenset[Floor]
) -> None:
    """Rows of floors; a floor in `missable` may be missed at a penalty."""
    programme = made.programme
    for rule in floors.floors(index, model, options):
        terms = {made.replicas[model.name, options[at].pool.name]: term for at, term in rule.terms.items()}
        if rule.floor in missable:
            terms[programme.column(costs.missed_usd_per_hour(model, rule.floor))] = 1.0
        programme.row(terms, lower=rule.lower)
    if model.min_regions > 0:
        by_region: dict[str, dict[int, float]] = defaultdict(dict)
        for option in options:
            region = index.clusters[option.pool.cluster].region
            by_region[region][made.replicas[model.name, option.pool.name]] = -1.0
        present = {}
        for _, terms in sorted(by_region.items()):
            column = programme.column(0.0, upper=1.0, integer=True)
            programme.row({column: 1.0, **terms}, upper=0.0)
            present[column] = 1.0
        if "min_regions" in missable:
            present[programme.column(costs.SHORTFALL_USD_PER_HOUR)] = 1.0
        programme.row(present, lower=float(model.min_regions))


def add_events(made: Formulation, index: Index, model: Model, options: tuple[Option, ...]) -> None:
    """Rows of the demand expected to be unserved when the spot capacity of a zone is reclaimed."""
    for event in floors.events(index, model, options):
        usd = costs.event_usd_per_rps(model, event)
        if usd > 0.0:
            terms = {made.replicas[model.name, options[at].pool.name]: term for at, term in event.terms.items()}
            made.programme.row({**terms, made.programme.column(usd): 1.0}, lower=event.lower)


def add_spot(made: Formulation, index: Index, model: Model, options: tuple[Option, ...], *, only_held: bool) -> None:
    """The row of the spot fraction. Held replicas cannot move: if they alone break it, no other may be on spot."""
    if model.spot_max_fraction >= 1.0:
        return
    terms: dict[int, float] = {}
    free: list[int] = []
    held = False
    for option in options:
        column = made.replicas[model.name, option.pool.name]
        spot = option.pool.market == "spot"
        terms[column] = (1.0 if spot else 0.0) - model.spot_max_fraction
        held = held or (spot and option.least > 0)
        if spot and option.least == 0:
            free.append(column)
    if only_held and held:
        for column in free:
            made.programme.upper[column] = 0.0
    else:
        made.programme.row(terms, upper=0.0)
