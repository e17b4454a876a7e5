"""From names to positions: a `Problem` as `Arrays`, and the meaning of each position."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from placement import costs, floors, limits
from placement.index import Index, Option
from placement.large.arrays import Arrays, Bools, Floats, Ints, Singles
from placement.problem import Intake, Model, RttMatrix
from placement.request_costs import near_usd
from placement.solution import Limit

N = TypeVar("N", bound=np.generic)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Arrays with the meaning of their positions: options [O], groups [G] (model, cell), clusters, pools [P], models
    [M] and limits (limit, its subject), which are the last of the rules [R]."""

    arrays: Arrays
    options: tuple[tuple[Model, Option], ...]
    groups: tuple[tuple[str, str], ...]
    clusters: tuple[str, ...]
    pools: tuple[str, ...]
    models: tuple[Model, ...]
    limits: tuple[tuple[Limit, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexMap:
    """The position of each option [O], node [N] and pool [P] in the problem before, or -1."""

    options: Ints
    nodes: Ints
    pools: Ints


def index_map(before: Encoded, after: Encoded) -> IndexMap | None:
    """Positions of a problem in terms of the one before; None when models, groups or clusters differ.

    Devices, prices, latency, demand, intake, budgets and running replicas may differ; options and pools come and go.
    """
    alike = [replace(model, max_starts=None) for model in before.models] == [
        replace(model, max_starts=None) for model in after.models
    ]
    if not alike or before.groups != after.groups or before.clusters != after.clusters:
        return None
    options = {(model.name, one.pool.name): at for at, (model, one) in enumerate(before.options)}
    pools = {name: at for at, name in enumerate(before.pools)}
    nodes = before.arrays.node_at[after.arrays.node_model, after.arrays.node_cluster]
    return IndexMap(
        options=_ints(options.get((model.name, one.pool.name), -1) for model, one in after.options),
        nodes=nodes,
        pools=_ints(pools.get(name, -1) for name in after.pools),
    )


def carry_over(values: NDArray[N], place: Ints) -> NDArray[N]:
    """[place] the value that each had before; zero for what was not there."""
    made = np.zeros(len(place), values.dtype)
    known = place >= 0
    made[known] = values[place[known]]
    return made


def encode(index: Index) -> Encoded:
    """The arrays of a problem."""
    problem = index.problem
    models, clusters = problem.models, tuple(cluster.name for cluster in problem.clusters)
    model_at = {model.name: at for at, model in enumerate(models)}
    pool_at = {pool.name: at for at, pool in enumerate(problem.pools)}
    cluster_at = {name: at for at, name in enumerate(clusters)}
    cell_at = {cell.name: at for at, cell in enumerate(problem.cells)}
    options = [(model, option) for model in models for option in index.options(model)]
    nodes = sorted({(model_at[model.name], cluster_at[option.pool.cluster]) for model, option in options})
    node_at = {node: at for at, node in enumerate(nodes)}
    groups = [(model.name, demand.cell) for model in models for demand in index.demands[model.name]]
    rtt_ms = _rtt_ms(index, cell_at, cluster_at)
    caps = _caps(index, models)
    permitted, group_permit, permit_cap = _permitted(index, groups, caps, cell_at, rtt_ms)
    uppers = limits.upper_rules(index)
    made = _rules(index, models) + _limits(uppers, options)
    current = _ints(index.current.get((model.name, option.pool.name), 0) for model, option in options)
    start_usd = _floats(costs.start_usd_per_hour(problem, model, option) for model, option in options)
    is_new = (current == 0) & np.array([model.max_starts is None for model, _ in options], dtype=bool)
    device_usd = _floats(
        option.shape.devices * option.pool.usd_per_device_hour
        + costs.risk_usd_per_hour(problem, model, option.shape, option.pool)
        for model, option in options
    )
    arrays = Arrays(
        pool_devices=_ints(
            pool.devices if index.clusters[pool.cluster].intake is not Intake.HELD else _held(index, pool.name)
            for pool in problem.pools
        ),
        option_model=_ints(model_at[model.name] for model, _ in options),
        option_pool=_ints(pool_at[option.pool.name] for _, option in options),
        option_node=_ints(node_at[model_at[model.name], cluster_at[option.pool.cluster]] for model, option in options),
        option_devices=_ints(option.shape.devices for _, option in options),
        option_rps=_floats(option.shape.requests_per_second * model.target_utilisation for model, option in options),
        option_usd=device_usd + np.where(is_new, start_usd, 0.0),
        option_start_usd=np.where(is_new, 0.0, start_usd),
        option_current=current,
        option_least=_ints(option.least for _, option in options),
        option_most=_ints(option.most for _, option in options),
        node_model=_ints(model for model, _ in nodes),
        node_cluster=_ints(cluster for _, cluster in nodes),
        node_usd=_floats(
            costs.egress_usd_per_rps(models[model], problem.clusters[cluster]) for model, cluster in nodes
        ),
        rtt_ms=rtt_ms,
        permitted=permitted,
        permit_cap=permit_cap,
        permit_leaves=_leaving(index, tuple(caps), permit_cap),
        cap_rps=_floats(caps.values()),
        group_model=_ints(model_at[model] for model, _ in groups),
        group_cell=_ints(cell_at[cell] for _, cell in groups),
        group_permit=group_permit,
        group_rps=_floats(demand.requests_per_second for model in models for demand in index.demands[model.name]),
        service_ms=_floats(model.service_latency_ms for model in models),
        objective_ms=_floats(model.objective_ms for model in models),
        late_usd=_floats(costs.THOUSANDS_PER_HOUR * model.late_usd_per_1000 for model in models),
        unserved_usd=_floats(costs.THOUSANDS_PER_HOUR * model.unserved_usd_per_1000 for model in models),
        max_starts=_floats(np.inf if model.max_starts is None else model.max_starts for model in models),
        near_usd=near_usd(models),
        rule_start=np.cumsum([0, *(len(one.terms) for one in made)]).astype(np.int64),
        rule_option=_ints(at for one in made for at in one.terms),
        rule_term=_floats(term for one in made for term in one.terms.values()),
        rule_lower=_floats(one.lower for one in made),
        rule_usd=_floats(one.usd for one in made),
        rule_yields=np.array([one.yields for one in made], dtype=bool),
        rule_is_priced=np.array([one.is_priced for one in made], dtype=bool),
    )
    return Encoded(
        arrays=arrays,
        options=tuple(options),
        groups=tuple(groups),
        clusters=clusters,
        pools=tuple(pool_at),
        models=models,
        limits=tuple((one.limit, one.subject) for one in uppers),
    )


def _rtt_ms(index: Index, cell_at: dict[str, int], cluster_at: dict[str, int]) -> Singles:
    """[cells, clusters] round trips, NaN where unknown; may share memory with the problem, so it is read only."""
    paths = index.problem.paths
    if isinstance(paths, RttMatrix) and (paths.cells, paths.clusters) == (tuple(cell_at), tuple(cluster_at)):
        return np.require(paths.rtt_ms, dtype=np.float32, requirements=("C", "W"))
    rtt_ms = np.full((len(cell_at), len(cluster_at)), np.nan, dtype=np.float32)
    if isinstance(paths, RttMatrix):
        rows, columns = [cell_at[name] for name in paths.cells], [cluster_at[name] for name in paths.clusters]
        rtt_ms[np.ix_(rows, columns)] = paths.rtt_ms
    else:
        for path in paths:
            rtt_ms[cell_at[path.cell], cluster_at[path.cluster]] = path.rtt_ms
    return rtt_ms


def _caps(index: Index, models: tuple[Model, ...]) -> dict[tuple[str, str], float]:
    """(model, continent of users) -> most requests per second that may leave it, where policy caps them."""
    capped = [model for model in models if model.is_capped]
    return {(one.name, name): rps for one in capped for name, rps in index.may_leave_rps(one).items()}


def _leaving(index: Index, caps: tuple[tuple[str, str], ...], permit_cap: Ints) -> Bools:
    """[K, clusters] whether each cluster is on another continent than the cap of each set."""
    clusters = index.problem.clusters
    rows = np.zeros((len(caps) + 1, len(clusters)), dtype=bool)  # the last, which -1 names, is of no cap
    for at, (_, home) in enumerate(caps):
        rows[at] = [not home or cluster.continent != home for cluster in clusters]
    made: Bools = rows[permit_cap]
    return made


def _permitted(
    index: Index,
    groups: list[tuple[str, str]],
    caps: Iterable[tuple[str, str]],
    cell_at: dict[str, int],
    rtt_ms: Singles,
) -> tuple[Bools, Ints, Ints]:
    """([K, clusters] the distinct sets of permitted clusters, [G] the set of each group, [K] the cap of each or -1).

    Groups with different caps have different sets.
    """
    if not groups:
        return np.ones((1, rtt_ms.shape[1]), dtype=bool), np.zeros(0, np.int64), np.full(1, -1)
    cap_at = {cap: at for at, cap in enumerate(caps)}
    known, known_of = _different(~np.isnan(rtt_ms))
    by_rule: dict[tuple[object, ...], int] = {}
    allowed: list[list[bool]] = []
    alike = {(cell.country, cell.continent): cell for cell in index.problem.cells}
    alike_at = {key: at for at, key in enumerate(alike)}
    alike_of = _ints(alike_at[cell.country, cell.continent] for cell in index.problem.cells)
    kinds = []
    for model in index.problem.models:
        rule_of, cap_of = np.zeros((2, len(alike)), np.int64)
        for at, cell in enumerate(alike.values()):
            key = (model.residency, cell.country, cell.continent if model.keeps_home else None)
            if key not in by_rule:
                by_rule[key] = len(allowed)
                allowed.append([index.problem.allows(model, cell, cluster) for cluster in index.problem.clusters])
            rule_of[at], cap_of[at] = by_rule[key], cap_at.get((model.name, cell.continent), -1) + 1
        cells = _ints(cell_at[demand.cell] for demand in index.demands[model.name])
        kinds.append(np.column_stack([rule_of[alike_of[cells]], known_of[cells], cap_of[alike_of[cells]]]))
    kind = np.concatenate(kinds)
    code = (kind[:, 0] * len(known) + kind[:, 1]) * (len(cap_at) + 1) + kind[:, 2]
    _, one, kind_of = np.unique(code, return_index=True, return_inverse=True)
    rule, paths, cap = kind[one].T
    rows = np.array(allowed, dtype=bool)[rule] & known[paths]
    numbers = cap.astype(">u4").view(np.uint8).reshape(-1, 4)
    marked, set_of = _different(np.concatenate([rows, np.unpackbits(numbers, axis=1).astype(bool)], axis=1))
    caps_of = np.zeros(len(marked), np.int64)
    caps_of[set_of] = cap - 1
    return marked[:, : rows.shape[1]], set_of[kind_of.reshape(-1)], caps_of


def _different(rows: Bools) -> tuple[Bools, Ints]:
    """(the distinct rows, [rows] which of them each row is)."""
    _, first, which = np.unique(np.packbits(rows, axis=1), axis=0, return_index=True, return_inverse=True)
    return rows[first], which.reshape(-1).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """`sum(terms[option] * replicas) >= lower`, or `usd` per hour for each unit missed.

    `yields`: it is missed before users go unserved for it. `is_priced`: an expected cost, no rule of policy.
    """

    terms: dict[int, float]
    lower: float
    usd: float
    yields: bool = False
    is_priced: bool = False


def _rules(index: Index, models: tuple[Model, ...]) -> list[_Row]:
    """Floors, expected losses and the spot fraction of every model."""
    made: list[_Row] = []
    first = 0
    for model in models:
        options = index.options(model)
        for rule in floors.floors(index, model, options):
            terms = {first + at: term for at, term in rule.terms.items()}
            yields = rule.floor in costs.YIELDING
            usd = costs.missed_usd_per_hour(model, "survive" if yields else rule.floor)
            made.append(_Row(terms=terms, lower=rule.lower, usd=usd, yields=yields))
        for event in floors.events(index, model, options):
            usd = costs.event_usd_per_rps(model, event)
            if usd > 0.0:
                terms = {first + at: term for at, term in event.terms.items()}
                made.append(_Row(terms=terms, lower=event.lower, usd=usd, is_priced=True))
        if model.spot_max_fraction < 1.0:
            terms = {
                first + at: model.spot_max_fraction - (1.0 if option.pool.market == "spot" else 0.0)
                for at, option in enumerate(options)
            }
            made.append(_Row(terms=terms, lower=0.0, usd=costs.SHORTFALL_USD_PER_HOUR))
        first += len(options)
    return made


def _limits(uppers: list[limits.UpperRule], options: list[tuple[Model, Option]]) -> list[_Row]:
    """Limits as rows of the same form: terms and right-hand side are negated; they are never missed."""
    at = {(model.name, option.pool.name): number for number, (model, option) in enumerate(options)} if uppers else {}
    return [
        _Row(terms={at[key]: -term for key, term in one.terms.items()}, lower=-one.upper, usd=np.inf) for one in uppers
    ]


def _held(index: Index, pool: str) -> int:
    """Devices of the replicas that run in a held pool, whatever the pool reports."""
    used = 0
    for model in index.problem.models:
        used += index.current.get((model.name, pool), 0) * model.devices_in(index.pools[pool])
    return used


def _ints(values: Iterable[int]) -> Ints:
    return np.fromiter(values, dtype=np.int64)


def _floats(values: Iterable[float]) -> Floats:
    return np.fromiter(values, dtype=np.float64)
