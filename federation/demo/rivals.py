"""Plans of competent users of other tools on the same input, with the same knowledge: replicas and routing.

All of them know demand and prices exactly, count replicas at the planned utilisation, keep residency and the spot
limit, and use each cluster's pools from the cheapest per request on, which none of the tools does by itself. They need
not hold floors.

* `greedy`: the largest demand first, each into the cheapest pool within the objective that has room.
* `karmada_overflow`: for each region a deployment with its region's clusters as the first affinity and the next regions
  as overflow; replicas by free replicas within a tier (Karmada's `overflowAffinities` and `dynamicWeight`).
* `karmada_dynamic`: one deployment over all clusters by free replicas, users in proportion to replicas.
* `skyserve`: an autoscaler in each region: the cheapest accelerator first, spot before on-demand, and the next region
  when its own has none left.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from placement.index import Index, Option
from placement.problem import Model, Problem
from placement.solution import Flow

DUST_RPS = 1e-6

Replicas = Mapping[tuple[str, str], int]
"""(model, pool name) -> count above zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A plan of another tool, with its own routing; demand missing from `flows` is unserved."""

    replicas: Replicas
    flows: tuple[Flow, ...]


Planner = Callable[[Problem], Baseline]


class _Stock:
    """Free devices, replicas on the others, and their unused capacity."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.replicas: dict[tuple[str, str], int] = {}
        self.spare_rps: dict[tuple[str, str], float] = defaultdict(float)
        """(model, cluster) -> requests per second of its replicas at the planned utilisation that are not assigned."""
        self._free = {pool.name: pool.devices for pool in index.problem.pools}
        self._count: dict[str, int] = defaultdict(int)
        self._spot: dict[str, int] = defaultdict(int)
        self._options: dict[tuple[str, str], list[Option]] = defaultdict(list)
        for model in index.problem.models:
            for option in index.options(model):
                self._options[model.name, option.pool.cluster].append(option)
            for cluster in index.clusters:
                self._options[model.name, cluster].sort(key=lambda one: (_usd_per_rps(one), one.pool.name))

    def clusters(self, model: Model) -> list[str]:
        """The names of the clusters with the accelerator, free or not."""
        return [name for name in self.index.clusters if self._options[model.name, name]]

    def room(self, model: Model, cluster: str) -> int:
        """The replicas that still find devices there, as a scheduler's estimator counts."""
        return sum(self._fitting(model, option) for option in self._options[model.name, cluster])

    def next_usd_per_rps(self, model: Model, cluster: str) -> float:
        """The price in the pool that the next replica there would take; infinite without room."""
        for option in self._options[model.name, cluster]:
            if self._fitting(model, option) > 0:
                return _usd_per_rps(option)
        return float("inf")

    def add(self, model: Model, cluster: str) -> bool:
        """One more replica in the cheapest pool with room; False when there is none."""
        for option in self._options[model.name, cluster]:
            if self._fitting(model, option) > 0:
                key = model.name, option.pool.name
                self._free[option.pool.name] -= option.shape.devices
                self.replicas[key] = self.replicas.get(key, 0) + 1
                self._count[model.name] += 1
                self._spot[model.name] += option.pool.market == "spot"
                self.spare_rps[model.name, cluster] += option.shape.requests_per_second * model.target_utilisation
                return True
        return False

    def _fitting(self, model: Model, option: Option) -> int:
        used = self.replicas.get((model.name, option.pool.name), 0)
        if option.pool.market == "spot" and not self._may_be_spot(model):
            return 0
        return max(0, min(self._free[option.pool.name] // option.shape.devices, option.most - used))

    def _may_be_spot(self, model: Model) -> bool:
        return self._spot[model.name] + 1 <= model.spot_max_fraction * (self._count[model.name] + 1)


def _usd_per_rps(option: Option) -> float:
    return option.pool.usd_per_device_hour * option.shape.devices / option.shape.requests_per_second


def greedy(problem: Problem) -> Baseline:
    """The largest demand first, each into the cheapest pool within the objective; into the nearest if none is
    within."""
    index = Index(problem)
    stock = _Stock(index)
    flows: list[Flow] = []
    for model in problem.models:
        fitting = stock.clusters(model)
        usd = {name: stock.next_usd_per_rps(model, name) for name in fitting}
        for demand in sorted(index.demands[model.name], key=lambda one: (-one.requests_per_second, one.cell)):
            waits_ms = {
                name: index.latency_ms(model, demand.cell, name)
                for name in index.servers(model, index.cells[demand.cell], fitting)
            }

            left_rps = demand.requests_per_second
            while left_rps > DUST_RPS and waits_ms:
                name = _preferred(stock, model, waits_ms, usd)
                if stock.spare_rps[model.name, name] <= DUST_RPS:
                    is_added = stock.add(model, name)
                    usd[name] = stock.next_usd_per_rps(model, name)
                    if not is_added:
                        del waits_ms[name]
                        continue
                left_rps -= _send(stock, model, demand.cell, name, left_rps, flows)
    return Baseline(replicas=stock.replicas, flows=tuple(flows))


def _preferred(stock: _Stock, model: Model, waits_ms: Mapping[str, float], usd: Mapping[str, float]) -> str:
    """Within the objective the cheapest cluster, spare capacity first; beyond it the nearest."""
    keys = {}
    for name, wait_ms in waits_ms.items():
        is_late, is_spare = wait_ms > model.objective_ms, stock.spare_rps[model.name, name] > DUST_RPS
        keys[name] = is_late, wait_ms if is_late else 0.0 if is_spare else usd[name], wait_ms, name
    return min(keys, key=lambda name: keys[name])


def karmada_dynamic(problem: Problem) -> Baseline:
    """One deployment per model (and one for users under residency), over all clusters by free replicas."""
    index = Index(problem)
    stock = _Stock(index)
    services = [
        _Service(model=model, cells=cells, tiers=(tuple(sorted(allowed)),))
        for model in problem.models
        for allowed, cells in _by_rules(index, model).items()
    ]
    return _planned(stock, services, _by_free_replicas)


def karmada_overflow(problem: Problem) -> Baseline:
    """A deployment per model and region, with the next regions as overflow; within a region by free replicas."""
    index = Index(problem)
    stock = _Stock(index)
    return _planned(stock, list(_regional(stock)), _by_free_replicas)


def skyserve(problem: Problem) -> Baseline:
    """An autoscaler per model and region: the cheapest accelerator first; the next region when its own is exhausted."""
    index = Index(problem)
    stock = _Stock(index)
    return _planned(stock, list(_regional(stock)), _cheapest)


BASELINES: Mapping[str, Planner] = {
    "greedy": greedy,
    "karmada-overflow": karmada_overflow,
    "karmada-dynamic": karmada_dynamic,
    "skyserve-like": skyserve,
}


@dataclass(slots=True, kw_only=True)
class _Service:
    """Users of a model that are served together, and their clusters in tiers: a tier is used up before the next."""

    model: Model
    cells: dict[str, float]
    tiers: Sequence[tuple[str, ...]]
    given_rps: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def missing_rps(self) -> float:
        return sum(self.cells.values()) - sum(self.given_rps.values())

    def take(self, stock: _Stock, cluster: str) -> None:
        """Take spare capacity there, as far as it is needed."""
        rps = min(self.missing_rps, stock.spare_rps[self.model.name, cluster])
        if rps > 0:
            stock.spare_rps[self.model.name, cluster] -= rps
            self.given_rps[cluster] += rps


Fill = Callable[[_Stock, _Service, Sequence[str]], None]


def _planned(stock: _Stock, services: list[_Service], fill: Fill) -> Baseline:
    """Plans in which every service fills its first tier before any overflows into another's."""
    for rank in range(max((len(one.tiers) for one in services), default=0)):
        for service in services:
            if rank < len(service.tiers) and service.missing_rps > DUST_RPS:
                fill(stock, service, service.tiers[rank])
    flows: list[Flow] = []
    for service in services:
        total, asked = sum(service.given_rps.values()), sum(service.cells.values())
        if total <= 0:
            continue
        for cell, rps in service.cells.items():
            for cluster, given_rps in sorted(service.given_rps.items()):
                part = rps * given_rps / max(total, asked)
                if part > DUST_RPS:
                    flows.append(_flow(stock.index, service.model, cell, cluster, part))
    return Baseline(replicas=stock.replicas, flows=tuple(flows))


def _by_free_replicas(stock: _Stock, service: _Service, clusters: Sequence[str]) -> None:
    """Replicas as needed, in proportion to what each cluster could still take (largest remainders)."""
    model = service.model
    for name in clusters:
        service.take(stock, name)
    rooms = {name: room for name in clusters if (room := stock.room(model, name)) > 0}
    total, added = sum(rooms.values()), dict.fromkeys(rooms, 0)
    for count in range(1, total + 1):
        if service.missing_rps <= DUST_RPS:
            break
        name = max(rooms, key=lambda one: (rooms[one] * count / total - added[one], rooms[one], one))
        added[name] += 1
        if stock.add(model, name):
            service.take(stock, name)


def _cheapest(stock: _Stock, service: _Service, clusters: Sequence[str]) -> None:
    """The cheapest pool of all, one replica after the other."""
    model = service.model
    for name in clusters:
        service.take(stock, name)
    usd = {name: stock.next_usd_per_rps(model, name) for name in clusters}
    while service.missing_rps > DUST_RPS and usd:
        name = min(usd, key=lambda one: (usd[one], one))
        if not stock.add(model, name):
            del usd[name]
            continue
        service.take(stock, name)
        usd[name] = stock.next_usd_per_rps(model, name)


def _regional(stock: _Stock) -> Iterator[_Service]:
    """A service per model and region, with the users to whom that region is the nearest that may serve them."""
    index = stock.index
    for model in index.problem.models:
        fitting = stock.clusters(model)
        found: dict[tuple[str, frozenset[str]], dict[str, float]] = defaultdict(dict)
        for demand in index.demands[model.name]:
            cell = index.cells[demand.cell]
            servers = index.servers(model, cell, fitting)
            if servers:
                nearest = min(servers, key=lambda name: (index.rtt_ms[cell.name, name], name))
                region = index.clusters[nearest].region
                found[region, index.allowed(model, cell)][cell.name] = demand.requests_per_second
        for (_, allowed), cells in sorted(found.items(), key=lambda one: (one[0][0], sorted(one[0][1]))):
            yield _Service(model=model, cells=cells, tiers=_tiers(index, model, cells, allowed.intersection(fitting)))


def _tiers(index: Index, model: Model, cells: Mapping[str, float], allowed: frozenset[str]) -> list[tuple[str, ...]]:
    """Regions, the nearest to these users first."""
    total = sum(cells.values())
    regions: dict[str, list[str]] = defaultdict(list)
    for name in sorted(allowed):
        if all((cell, name) in index.rtt_ms for cell in cells):
            regions[index.clusters[name].region].append(name)
    mean_ms = {
        region: min(sum(index.rtt_ms[cell, name] * rps for cell, rps in cells.items()) / total for name in names)
        for region, names in regions.items()
    }
    return [tuple(regions[region]) for region in sorted(regions, key=lambda one: (mean_ms[one], one))]


def _by_rules(index: Index, model: Model) -> dict[frozenset[str], dict[str, float]]:
    """Users grouped by the clusters that may serve them."""
    found: dict[frozenset[str], dict[str, float]] = defaultdict(dict)
    fitting = index.fitting(model)
    for demand in index.demands[model.name]:
        allowed = index.allowed(model, index.cells[demand.cell]) & fitting
        found[allowed][demand.cell] = demand.requests_per_second
    return dict(sorted(found.items(), key=lambda one: sorted(one[0])))


def _send(stock: _Stock, model: Model, cell: str, cluster: str, rps: float, flows: list[Flow]) -> float:
    """Assign demand to spare capacity there; returns how much was assigned."""
    part = min(rps, stock.spare_rps[model.name, cluster])
    stock.spare_rps[model.name, cluster] -= part
    flows.append(_flow(stock.index, model, cell, cluster, part))
    return part


def _flow(index: Index, model: Model, cell: str, cluster: str, rps: float) -> Flow:
    latency_ms = index.latency_ms(model, cell, cluster)
    return Flow(
        model=model.name,
        cell=cell,
        cluster=cluster,
        requests_per_second=rps,
        latency_ms=latency_ms,
        within_objective=latency_ms <= model.objective_ms,
    )
