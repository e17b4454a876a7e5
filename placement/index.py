"""The hard filters: which clusters may run a model, and which may serve a cell. One reason per cluster that is out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from enum import Enum

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from placement.problem import Cell, Cluster, Intake, Model, Pool, Problem, RttMatrix, Shape, leaves

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Filter(Enum):
    """In the order in which they are applied; the value is what people read."""

    ACCELERATOR = "accelerator"
    """No pool of the product, MIG profile and VRAM that one of the model's shapes needs."""
    DEVICES = "devices"
    """Such a pool, with fewer devices than one replica needs, in sum or on any one node."""
    INTAKE = "intake"
    """Draining, cordoned or silent, and without replicas of the model."""
    RESIDENCY = "residency"
    """No user of the model may be served there."""
    CONTINENT = "continent"
    """None of those that may is on its continent, and policy lets no other continent serve any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A pool that may run a model, with the shape that it would run and the replicas it may have."""

    pool: Pool
    shape: Shape
    least: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """These users need room within the objective though this domain is lost (see `survival`)."""

    lost: str
    cells: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class InTime:
    """Users of one model whom somebody could serve in time: `cells` ask for `rps` [U], and `reach` [U, C] says which of
    `clusters`, where the model may run, serve them within the objective."""

    cells: tuple[str, ...]
    rps: Floats
    clusters: tuple[str, ...]
    reach: Bools


class Index:
    """A problem looked up by name, and what filters leave of it. Made once per question."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.clusters = {cluster.name: cluster for cluster in problem.clusters}
        self.models = {model.name: model for model in problem.models}
        self.cells = {cell.name: cell for cell in problem.cells}
        self.pools = {pool.name: pool for pool in problem.pools}
        self.current = {(one.model, one.pool): one.replicas for one in problem.current}
        self.room = {(one.model, one.pool): one.replicas for one in problem.room}
        self.rtt_ms = problem.rtt_ms()
        self.demands = defaultdict(list)
        for demand in problem.demands:
            if demand.requests_per_second > 0:
                self.demands[demand.model].append(demand)
        self.cuts: dict[str, tuple[Cut, ...]] = {}
        """Of each model, those that were learned so far."""
        self._in_time: dict[str, InTime] = {}
        self._options: dict[str, tuple[Option, ...]] = {}
        self._fitting: dict[str, frozenset[str]] = {}
        self._allowed: dict[tuple[str, str, str], frozenset[str]] = {}
        self._residing: dict[tuple[str, str], frozenset[str]] = {}
        self._pools_of = defaultdict(list)
        for pool in problem.pools:
            self._pools_of[pool.cluster].append(pool)

    def by_growth(self, model: Model) -> tuple[Index, Index] | None:
        """The same question with the known demand of `model` alone, and with its growth alone; None where none grew."""
        mine = self.demands[model.name]
        grown = {one.cell: min(one.grown_rps, one.requests_per_second) for one in mine if one.grown_rps > 0}
        if not grown:
            return None
        parts = []
        for rps_of in (lambda one: one.requests_per_second - grown.get(one.cell, 0.0), lambda one: grown.get(one.cell)):
            part = copy(self)
            left = [
                structs.replace(one, requests_per_second=rps, grown_rps=0.0) for one in mine if (rps := rps_of(one))
            ]
            part.demands = defaultdict(list, {**self.demands, model.name: left})
            parts.append(part)
        return parts[0], parts[1]

    def in_time(self, model: Model) -> InTime:
        """Who could be served within the objective, and where."""
        if model.name not in self._in_time:
            self._in_time[model.name] = _in_time(self, model)
        return self._in_time[model.name]

    def options(self, model: Model) -> tuple[Option, ...]:
        """Every pool that may hold replicas of `model`, by pool name."""
        if model.name not in self._options:
            self._options[model.name] = self._options_of(model)
        return self._options[model.name]

    def _options_of(self, model: Model) -> tuple[Option, ...]:
        found = []
        shapes: dict[tuple[str, str, float], Shape | None] = {}
        for pool in self.problem.pools:
            kind = pool.product, pool.mig_profile, pool.vram_gib
            if kind not in shapes:
                shapes[kind] = model.shape_for(pool)
            shape = shapes[kind]
            if shape is None:
                continue
            least, most = self._bounds(model, pool, shape)
            if most > 0:
                found.append(Option(pool=pool, shape=shape, least=least, most=most))
        return tuple(found)

    def _bounds(self, model: Model, pool: Pool, shape: Shape) -> tuple[int, int]:
        fitting = pool.devices // shape.devices
        fitting = min(fitting, self.room.get((model.name, pool.name), fitting))
        now = self.current.get((model.name, pool.name), 0)
        match self.clusters[pool.cluster].intake:
            case Intake.OPEN:
                return 0, fitting
            case Intake.CORDONED:
                return 0, min(fitting, now)
            case Intake.DRAINING:
                return 0, 0
            case Intake.HELD:
                return now, now

    def removed_by(self, model: Model, cluster: Cluster) -> Filter | None:
        """The first filter that takes `cluster` out for `model`, or None when it may run it."""
        fitting = [(pool, shape) for pool in self._pools_of[cluster.name] if (shape := model.shape_for(pool))]
        if not fitting:
            return Filter.ACCELERATOR
        if all(self._bounds(model, pool, shape)[1] == 0 for pool, shape in fitting):
            return Filter.DEVICES if cluster.intake is Intake.OPEN else Filter.INTAKE
        cells = [self.cells[demand.cell] for demand in self.demands[model.name]]
        if cells and not any(self.problem.resides(model, cell, cluster) for cell in cells):
            return Filter.RESIDENCY
        if cells and not any(self.problem.allows(model, cell, cluster) for cell in cells):
            return Filter.CONTINENT
        return None

    def fitting(self, model: Model) -> frozenset[str]:
        """Clusters with a pool that the model runs on, full or not."""
        if model.name not in self._fitting:
            pools = [pool.cluster for pool in self.problem.pools if model.shape_for(pool) is not None]
            self._fitting[model.name] = frozenset(pools)
        return self._fitting[model.name]

    def allowed(self, model: Model, cell: Cell) -> frozenset[str]:
        """Clusters where residency lets users of the cell be served, on their continent where none may leave it."""
        key = (model.name, cell.country, cell.continent)
        if key not in self._allowed:
            names = [one.name for one in self.problem.clusters if self.problem.allows(model, cell, one)]
            self._allowed[key] = frozenset(names)
        return self._allowed[key]

    def residing(self, model: Model, cell: Cell) -> frozenset[str]:
        """Clusters where residency lets users of the cell be served, whatever their continent."""
        key = (model.name, cell.country)
        if key not in self._residing:
            names = [one.name for one in self.problem.clusters if self.problem.resides(model, cell, one)]
            self._residing[key] = frozenset(names)
        return self._residing[key]

    def leaves(self, cell: str, cluster: str) -> bool:
        """Whether requests of this cell leave their continent when this cluster serves them."""
        return leaves(self.cells[cell], self.clusters[cluster])

    def may_leave_rps(self, model: Model) -> dict[str, float]:
        """Continent -> requests per second of its users that other continents may serve."""
        asked: dict[str, float] = defaultdict(float)
        for demand in self.demands[model.name]:
            asked[self.cells[demand.cell].continent] += demand.requests_per_second
        return {name: rps * model.other_continents_max_fraction for name, rps in sorted(asked.items())}

    def servers(self, model: Model, cell: Cell, clusters: Iterable[str]) -> list[str]:
        """Those of `clusters` that may serve `cell` by residency and to which a latency is known."""
        allowed = self.allowed(model, cell)
        return [name for name in sorted(clusters) if name in allowed and (cell.name, name) in self.rtt_ms]

    def rtts_ms(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The round trips of these (cell, cluster), which are known."""
        if isinstance(self.rtt_ms, RttMatrix):
            rows = self.rtt_ms.rows([cell for cell, _ in pairs])
            columns = self.rtt_ms.columns([cluster for _, cluster in pairs])
            made: list[float] = self.rtt_ms.rtt_ms[rows, columns].astype(np.float64).tolist()
            return made
        return [self.rtt_ms[pair] for pair in pairs]

    def latency_ms(self, model: Model, cell: str, cluster: str) -> float:
        """What a user waits: round trip and service."""
        return self.rtt_ms[cell, cluster] + model.service_latency_ms


def _in_time(index: Index, model: Model) -> InTime:
    demands = index.demands[model.name]
    clusters = sorted({option.pool.cluster for option in index.options(model)})
    cells = [one.cell for one in demands]
    rps = np.array([one.requests_per_second for one in demands], dtype=float)
    reach = _rtt_ms(index, cells, clusters) + model.service_latency_ms <= model.objective_ms
    by_rule: dict[tuple[str, str], Bools] = {}
    for at, name in enumerate(cells):
        cell = index.cells[name]
        key = (cell.country, cell.continent)
        if key not in by_rule:
            allowed = index.allowed(model, cell)
            by_rule[key] = np.array([one in allowed for one in clusters], dtype=bool)
        reach[at] &= by_rule[key]
    known: Bools = reach.any(axis=1).reshape(len(cells))
    return InTime(
        cells=tuple(name for name, is_known in zip(cells, known, strict=True) if is_known),
        rps=rps[known],
        clusters=tuple(clusters),
        reach=reach[known],
    )


def _rtt_ms(index: Index, cells: list[str], clusters: list[str]) -> Floats:
    """[cells, clusters], NaN where it is not known."""
    paths = index.problem.paths
    if isinstance(paths, RttMatrix):
        return paths.part(cells, clusters).astype(np.float64)
    made = [[index.rtt_ms.get((cell, cluster), np.nan) for cluster in clusters] for cell in cells]
    return np.array(made, dtype=np.float64).reshape(len(cells), len(clusters))
