"""From names to numbers: a `Problem` as an `Instance`, and what each position means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from placement import arcs, formulation
from placement.filters import Index, Option
from placement.instance import Floats, Instance, Ints
from placement.model import Intake, Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """All that may serve whom of one model, candidates or not.

    Shapes: `nodes` [K] positions in the instance; `usd` and `allowed` [cells, K]; `rps` [cells].
    """

    model: Model
    cells: tuple[str, ...]
    clusters: tuple[str, ...]
    nodes: Ints
    rps: Floats
    usd: NDArray[np.float32]
    allowed: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbered:
    """An instance with the names of its options (model, pool), nodes (model, cluster) and groups (model, cell)."""

    instance: Instance
    options: tuple[tuple[str, str], ...]
    nodes: tuple[tuple[str, str], ...]
    groups: tuple[tuple[str, str], ...]

    def counts(self, replicas: Ints) -> dict[tuple[str, str], int]:
        """(model, pool) -> replicas, without zeros."""
        return {self.options[one]: int(replicas[one]) for one in np.flatnonzero(replicas)}


def number(index: Index) -> Numbered:
    """The instance of a problem."""
    problem = index.problem
    regions = {name: at for at, name in enumerate(sorted({one.region for one in problem.clusters}))}
    pool_at = {pool.name: at for at, pool in enumerate(problem.pools)}
    options = [(model, option) for model in problem.models for option in index.options(model)]
    names = sorted({(model.name, option.pool.cluster) for model, option in options})
    node_at = {name: at for at, name in enumerate(names)}
    model_at = {model.name: at for at, model in enumerate(problem.models)}
    groups: list[tuple[str, str]] = []
    degrees, arc_nodes, arc_usd, rps, kinds = [], [], [], [], []
    for pairs in every_pair(index, node_at):
        unit_usd = _unit_usd(pairs, index.options(pairs.model))
        region = np.array([regions[index.clusters[name].region] for name in pairs.clusters], dtype=np.int64)
        degree, picked = arcs.of_model(pairs.usd, unit_usd, pairs.allowed, region)
        degrees.append(degree)
        arc_nodes.append(pairs.nodes[picked] if len(picked) else np.zeros(0, np.int64))
        row = np.repeat(np.arange(len(degree)), degree)
        arc_usd.append(pairs.usd[row, picked].astype(np.float64))
        rps.append(pairs.rps)
        kinds.append(_kinds(pairs.allowed))
        groups += [(pairs.model.name, cell) for cell in pairs.cells]
    arc_start = np.concatenate([[0], np.cumsum(_joined(degrees))]).astype(np.int64)
    group_rps = _joined(rps).astype(np.float64)
    models = problem.models
    instance = Instance(
        pool_devices=_ints(
            pool.devices if index.clusters[pool.cluster].intake is not Intake.HELD else _held(index, pool.name)
            for pool in problem.pools
        ),
        option_model=_ints(model_at[model.name] for model, _ in options),
        option_pool=_ints(pool_at[option.pool.name] for _, option in options),
        option_node=_ints(node_at[model.name, option.pool.cluster] for model, option in options),
        option_region=_ints(regions[index.clusters[option.pool.cluster].region] for _, option in options),
        option_spot=_ints(option.pool.market == "spot" for _, option in options),
        option_devices=_ints(option.shape.devices for _, option in options),
        option_rps=_floats(option.shape.requests_per_second * model.target_utilisation for model, option in options),
        option_usd=_floats(option.shape.devices * option.pool.usd_per_device_hour for _, option in options),
        option_start_usd=_floats(formulation.start_usd_per_hour(problem, model, option) for model, option in options),
        option_current=_ints(index.current.get((model.name, option.pool.name), 0) for model, option in options),
        option_least=_ints(option.least for _, option in options),
        option_most=_ints(option.most for _, option in options),
        node_model=_ints(model_at[model] for model, _ in names),
        node_region=_ints(regions[index.clusters[cluster].region] for _, cluster in names),
        group_model=_ints(model_at[model] for model, _ in groups),
        group_class=_joined(kinds).astype(np.int64),
        group_rps=group_rps,
        group_unserved_usd=_floats(
            formulation.USD_PER_HOUR * index.models[model].unserved_usd_per_1000 for model, _ in groups
        ),
        arc_start=arc_start,
        arc_node=_joined(arc_nodes).astype(np.int64),
        arc_usd=_joined(arc_usd).astype(np.float64),
        arc_most=np.repeat(group_rps, np.diff(arc_start)),
        model_min_replicas=_ints(model.min_replicas for model in models),
        model_min_regions=_ints(model.min_regions for model in models),
        model_spot_fraction=_floats(model.spot_max_fraction for model in models),
    )
    return Numbered(
        instance=instance,
        options=tuple((model.name, option.pool.name) for model, option in options),
        nodes=tuple(names),
        groups=tuple(groups),
    )


def every_pair(index: Index, node_at: dict[tuple[str, str], int]) -> Iterator[Pairs]:
    """Model by model, every pair of a cell that asks and a cluster that could answer, with its price."""
    problem = index.problem
    row = {cell.name: at for at, cell in enumerate(problem.cells)}
    column = {cluster.name: at for at, cluster in enumerate(problem.clusters)}
    rtt_ms = np.full((len(row), len(column)), np.nan, dtype=np.float64)
    for path in problem.paths:
        rtt_ms[row[path.cell], column[path.cluster]] = path.rtt_ms
    for model in problem.models:
        demands = index.demands[model.name]
        clusters = tuple(cluster for name, cluster in node_at if name == model.name)
        if not demands:
            continue
        cells = tuple(demand.cell for demand in demands)
        rtt = rtt_ms[np.ix_([row[cell] for cell in cells], [column[name] for name in clusters])]
        latency_ms = rtt + model.service_latency_ms
        usd = formulation.USD_PER_HOUR * (
            model.late_usd_per_1000 * (latency_ms > model.objective_ms)
            + formulation.PROXIMITY_USD_PER_1000_PER_MS * latency_ms
        )
        by_country: dict[str, NDArray[np.bool_]] = {}
        for cell in cells:
            place = index.cells[cell]
            if place.country not in by_country:
                by_country[place.country] = np.array(
                    [problem.allows(model, place, index.clusters[name]) for name in clusters], dtype=bool
                )
        residency = np.array([by_country[index.cells[cell].country] for cell in cells]).reshape(rtt.shape)
        yield Pairs(
            model=model,
            cells=cells,
            clusters=clusters,
            nodes=_ints(node_at[model.name, name] for name in clusters),
            rps=_floats(demand.requests_per_second for demand in demands),
            usd=usd.astype(np.float32),
            allowed=residency & ~np.isnan(rtt),
        )


def served_usd(index: Index, numbered: Numbered, capacity: Floats) -> float:
    """What everyone pays when each takes what is cheapest at these prices [N], candidate or not.

    A bound that counts this holds for the whole problem and not only for its candidate arcs.
    """
    node_at = {name: at for at, name in enumerate(numbered.nodes)}
    total = 0.0
    for pairs in every_pair(index, node_at):
        usd = np.where(pairs.allowed, pairs.usd + capacity[pairs.nodes], np.inf)
        unserved = formulation.USD_PER_HOUR * pairs.model.unserved_usd_per_1000
        total += float((pairs.rps * np.minimum(unserved, usd.min(axis=1, initial=np.inf))).sum())
    return total


def _kinds(allowed: NDArray[np.bool_]) -> Ints:
    """[cells] a number for each set of clusters that may serve."""
    if not allowed.shape[1]:
        return np.zeros(len(allowed), np.int64)
    packed = np.packbits(allowed, axis=1)
    return np.unique(packed, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)


def _unit_usd(pairs: Pairs, options: tuple[Option, ...]) -> Floats:
    """[K] of one request per second on the cheapest device of each cluster."""
    unit: dict[str, float] = {}
    for option in options:
        served = option.shape.requests_per_second * pairs.model.target_utilisation
        usd = option.shape.devices * option.pool.usd_per_device_hour / served
        unit[option.pool.cluster] = min(usd, unit.get(option.pool.cluster, usd))
    return _floats(unit[name] for name in pairs.clusters)


def _held(index: Index, pool: str) -> int:
    """The devices that held replicas have, whatever the pool is said to have."""
    used = 0
    for model in index.problem.models:
        shape = model.shape_for(index.pools[pool])
        used += index.current.get((model.name, pool), 0) * (shape.devices if shape is not None else 0)
    return used


def _ints(values: Iterable[int]) -> Ints:
    return np.fromiter(values, dtype=np.int64)


def _floats(values: Iterable[float]) -> Floats:
    return np.fromiter(values, dtype=np.float64)


def _joined(parts: list[NDArray[np.float64]] | list[Ints]) -> NDArray[np.float64]:
    return np.concatenate(parts) if parts else np.zeros(0)
