"""Large worlds by seed: real cities with users, real cloud and edge sites, skewed demand.

Clusters stand at the demo's sites and near its cities, users near the cities by population. Prices, stock and demand
are drawn; `load` is about the part of all devices that serving everyone takes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import yaml
from msgspec import structs
from numpy.typing import NDArray

from federation import resources
from federation.state.shipped import shipped_continents
from placement.costs import THOUSANDS_PER_HOUR
from placement.problem import Cell, Cluster, Demand, Market, Model, Pool, Problem, Residency, RttMatrix, Shape

Rng = np.random.Generator
Floats = NDArray[np.float64]
PRODUCTS = ("NVIDIA-L4", "NVIDIA-L40S", "NVIDIA-A100-SXM4-80GB", "NVIDIA-H100-80GB-HBM3")
PRODUCT_USD = (0.8, 1.9, 3.7, 6.9)
"""Per device and hour."""
SHAPES: tuple[tuple[dict[int, tuple[int, float]], float, float], ...] = (
    ({0: (1, 40.0), 1: (1, 110.0), 2: (1, 140.0)}, 90.0, 20.0),
    ({0: (1, 2.3), 1: (1, 6.6), 2: (1, 7.4), 3: (1, 12.0)}, 250.0, 120.0),
    ({1: (1, 3.0), 2: (1, 3.6), 3: (1, 6.5)}, 350.0, 200.0),
    ({1: (4, 2.1), 2: (4, 2.0), 3: (2, 4.2)}, 500.0, 270.0),
)
"""Kinds of model: product -> (devices, requests per second), objective in ms, service in ms."""
LATE_TIMES, UNSERVED_TIMES = 4.0, 40.0
"""What a late and an unserved request cost, in times of what serving it costs on a usual device."""
UTILISATION = 0.8
CORE_PART, RESIDENT_PART = 0.15, 0.25
EDGE_PART = 0.3
"""Of one replica per pool and model: demand of a lumpy world. Some pools are dear, so others hold more than one."""
RESIDENT, OTHER = "DE", "US"
"""Countries: of those whose users must stay in Europe, and of all others."""
EUROPE = frozenset(
    ["AT", "BE", "CH", "CZ", "DE", "DK", "ES", "FI", "FR", "GB", "GR", "HU", "IE", "IT", "NL", "PL", "PT", "RO", "SE"]
)


def a_large_world(seed: int, *, clusters: int, cells: int, models: int, load: float = 0.2) -> Problem:
    """A world of this size."""
    return a_world_with_places(seed, clusters=clusters, cells=cells, models=models, load=load)[0]


def a_world_with_places(
    seed: int, *, clusters: int, cells: int, models: int, load: float = 0.2
) -> tuple[Problem, Floats, Floats]:
    """The same, and where its cells and its clusters are: [n, 2] radians each."""
    rng = np.random.default_rng(seed)
    continents = shipped_continents()
    places, sites = _demo("places.yaml")[0]["places"], [one["spec"]["location"] for one in _demo("clusters.yaml")]
    core = max(1, int(CORE_PART * clusters))
    people = np.array([place["population"] for place in places], dtype=float)
    at_site = rng.integers(0, len(sites), core)
    at_place = rng.choice(len(places), clusters - core, p=people / people.sum())
    where = [sites[one] for one in at_site] + [places[one] for one in at_place]
    near = np.concatenate([np.zeros(core), np.full(clusters - core, 0.8)])
    region = np.unique(np.concatenate([at_site, len(sites) + at_place]), return_inverse=True)[1]
    users = [places[one] for one in rng.choice(len(places), cells, p=people / people.sum())]
    user_at, cluster_at = _around(rng, users, np.full(cells, 1.2)), _around(rng, where, near)
    rtt_ms = _rtt_ms(rng, user_at, cluster_at)
    names = tuple(f"cluster-{at:04d}" for at in range(clusters))
    pools = _pools(rng, names, core)
    served = _models(rng, models, pools)
    resident = (rng.random(cells) < RESIDENT_PART) & np.array([one["country"] in EUROPE for one in users])
    places_of_users = tuple(
        Cell(
            name=f"cell-{at:05d}",
            country=RESIDENT if resident[at] else OTHER,
            continent=continents[users[at]["country"]],
        )
        for at in range(cells)
    )
    demand = _demand(rng, served, pools, cells, load)
    problem = Problem(
        clusters=tuple(
            Cluster(
                name=name,
                provider=f"provider-{region[at] % 3}",
                region=f"region-{region[at]:03d}",
                continent=continents[where[at]["country"]],
                jurisdictions=("EU",) if where[at]["country"] in EUROPE else (),
            )
            for at, name in enumerate(names)
        ),
        pools=tuple(pools),
        models=served,
        cells=places_of_users,
        demands=tuple(
            Demand(model=model.name, cell=cell.name, requests_per_second=float(demand[row, column]))
            for row, model in enumerate(served)
            for column, cell in enumerate(places_of_users)
        ),
        paths=RttMatrix(
            cells=tuple(cell.name for cell in places_of_users), clusters=names, rtt_ms=rtt_ms.astype(np.float32)
        ),
    )
    return problem, user_at, cluster_at


def a_lumpy_world(seed: int, *, clusters: int = 30, cells: int = 60, models: int = 4) -> Problem:
    """An edge world: pools of a few devices, and users for about one replica per pool and model.

    What a replica serves is then more than most cells ask for, so the fractions of a relaxation say little.
    """
    problem = a_large_world(seed, clusters=clusters, cells=cells, models=models)
    rng = np.random.default_rng([seed, 1])
    pools = tuple(replace(pool, devices=int(rng.integers(1, 5))) for pool in problem.pools)
    wanted = {model.name: EDGE_PART * sum(_replica_rps(model, pool) for pool in pools) for model in problem.models}
    asked: dict[str, float] = dict.fromkeys(wanted, 0.0)
    for one in problem.demands:
        asked[one.model] += one.requests_per_second
    demands = tuple(
        structs.replace(one, requests_per_second=one.requests_per_second * wanted[one.model] / asked[one.model])
        for one in problem.demands
    )
    return replace(problem, pools=pools, demands=demands)


def _replica_rps(model: Model, pool: Pool) -> float:
    """What plans count on from one replica there; nothing where it does not fit."""
    shape = model.shape_for(pool)
    return shape.requests_per_second * model.target_utilisation if shape is not None else 0.0


def _demo(name: str) -> list[Any]:
    text = (resources.configs() / "demo" / name).read_text(encoding="utf-8")
    return [document for document in yaml.safe_load_all(text) if document]


def _around(rng: Rng, places: list[Any], degrees: Floats) -> NDArray[np.float64]:
    """[n, 2] radians near these places."""
    spots = np.array([[place["lat"], place["lon"]] for place in places])
    made: NDArray[np.float64] = np.radians(spots + rng.normal(0.0, 1.0, spots.shape) * degrees[:, None])
    return made


def _rtt_ms(rng: Rng, users: Floats, clusters: Floats) -> NDArray[np.float64]:
    """[cells, clusters]: the fit to the AWS matrix by distance, made uneven as networks are."""
    lat, lon = users[:, :1], users[:, 1:]
    half = np.sin((clusters[:, 0] - lat) / 2) ** 2
    half = half + np.cos(lat) * np.cos(clusters[:, 0]) * np.sin((clusters[:, 1] - lon) / 2) ** 2
    km = 2 * 6371 * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0)))
    made: NDArray[np.float64] = 2.0 + 0.01573 * km * rng.uniform(0.9, 1.4, km.shape) + rng.exponential(4.0, km.shape)
    return made


def _pools(rng: Rng, names: tuple[str, ...], core: int) -> list[Pool]:
    made = []
    for at, name in enumerate(names):
        is_core = at < core
        level = rng.uniform(0.85, 1.45) * (1.0 if is_core else 1.25)
        sold = np.arange(4) if is_core else np.flatnonzero(rng.random(4) < (0.7, 0.35, 0.15, 0.12))
        for product in sold if len(sold) else np.zeros(1, np.int64):
            devices = int(rng.lognormal(4.2 if is_core else 2.3, 0.6)) + 1
            usd = PRODUCT_USD[product] * level
            made.append(_pool(name, int(product), "on-demand", devices, usd))
            if is_core:
                made.append(_pool(name, int(product), "spot", devices // 2 + 1, usd * rng.uniform(0.3, 0.6)))
    return made


def _pool(cluster: str, product: int, market: Market, devices: int, usd: float) -> Pool:
    return Pool(
        cluster=cluster,
        product=PRODUCTS[product],
        market=market,
        vram_gib=80.0,
        devices=devices,
        usd_per_device_hour=float(usd),
    )


def _models(rng: Rng, count: int, pools: list[Pool]) -> tuple[Model, ...]:
    made = []
    for at in range(count):
        shapes, objective_ms, service_ms = SHAPES[at % len(SHAPES)]
        speed = rng.uniform(0.7, 1.4)
        objective_ms = objective_ms * rng.uniform(0.8, 1.2)
        model = Model(
            name=f"model-{at:02d}",
            shapes=tuple(
                Shape(product=PRODUCTS[product], devices=devices, requests_per_second=rps * speed)
                for product, (devices, rps) in shapes.items()
            ),
            objective_ms=objective_ms,
            service_latency_ms=min(service_ms * rng.uniform(0.8, 1.2), 0.7 * objective_ms),
            target_utilisation=UTILISATION,
            late_usd_per_1000=0.0,
            unserved_usd_per_1000=0.0,
            residency=(Residency(countries=(RESIDENT,), jurisdictions=("EU",)),),
        )
        unit_usd = float(np.median([usd for usd, _ in _per_request(model, pools)]))
        made.append(
            replace(
                model,
                late_usd_per_1000=LATE_TIMES * unit_usd / THOUSANDS_PER_HOUR,
                unserved_usd_per_1000=UNSERVED_TIMES * unit_usd / THOUSANDS_PER_HOUR,
            )
        )
    return tuple(made)


def _per_request(model: Model, pools: list[Pool]) -> list[tuple[float, float]]:
    """(USD per hour of one request per second, requests per second of one device) of each pool that fits."""
    found = []
    for pool in pools:
        shape = model.shape_for(pool)
        if shape is not None and pool.devices >= shape.devices:
            rps = shape.requests_per_second * model.target_utilisation / shape.devices
            found.append((pool.usd_per_device_hour / rps, rps * pool.devices))
    return found


def _demand(rng: Rng, models: tuple[Model, ...], pools: list[Pool], cells: int, load: float) -> Floats:
    """[models, cells] requests per second."""
    part = rng.dirichlet(np.full(len(models), 2.0))
    share = rng.lognormal(0.0, 1.0, (len(models), cells))
    share /= share.sum(axis=1, keepdims=True)
    able = np.array([sum(rps for _, rps in _per_request(model, pools)) for model in models])
    stock = np.array([sum(pool.devices for pool in pools if model.shape_for(pool) is not None) for model in models])
    whole = sum(pool.devices for pool in pools) * load
    made: Floats = share * (part * whole * able / stock)[:, None]
    return made
