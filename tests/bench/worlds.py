"""Large worlds by seed, as the engine sees them: real cities with users, real cloud and edge sites, skewed demand.

Clusters stand at the demo's sites and near its cities, users near the cities by population. Prices, stock and demand
are drawn; `load` is about the part of all devices that serving everyone takes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from federation import resources
from placement import arcs
from placement.formulation import PROXIMITY_USD_PER_1000_PER_MS, USD_PER_HOUR
from placement.instance import Floats, Instance, Ints

Rng = np.random.Generator
PRODUCT_USD = (0.8, 1.9, 3.7, 6.9)
"""Per device and hour: about an L4, an L40S, an A100, an H100."""
SHAPES: tuple[tuple[dict[int, tuple[int, float]], float, float], ...] = (
    ({0: (1, 40.0), 1: (1, 110.0), 2: (1, 140.0)}, 90.0, 20.0),
    ({0: (1, 2.3), 1: (1, 6.6), 2: (1, 7.4), 3: (1, 12.0)}, 250.0, 120.0),
    ({1: (1, 3.0), 2: (1, 3.6), 3: (1, 6.5)}, 350.0, 200.0),
    ({1: (4, 2.1), 2: (4, 2.0), 3: (2, 4.2)}, 500.0, 270.0),
)
"""Kinds of model: product -> (devices, requests per second), objective in ms, service in ms."""
LATE_USD_PER_1000, UNSERVED_USD_PER_1000 = 0.5, 20.0
UTILISATION = 0.8
CORE_PART, RESIDENT_PART = 0.15, 0.25
EUROPE = frozenset(
    ["AT", "BE", "CH", "CZ", "DE", "DK", "ES", "FI", "FR", "GB", "GR", "HU", "IE", "IT", "NL", "PL", "PT", "RO", "SE"]
)


def a_large_world(seed: int, *, clusters: int, cells: int, models: int, load: float = 0.2) -> Instance:
    """A world of this size."""
    rng = np.random.default_rng(seed)
    places, sites = _demo("places.yaml")[0]["places"], [one["spec"]["location"] for one in _demo("clusters.yaml")]
    core = max(1, int(CORE_PART * clusters))
    people = np.array([place["population"] for place in places], dtype=float)
    at_site = rng.integers(0, len(sites), core)
    at_place = rng.choice(len(places), clusters - core, p=np.sqrt(people) / np.sqrt(people).sum())
    where = [sites[one] for one in at_site] + [places[one] for one in at_place]
    near = np.concatenate([np.zeros(core), np.full(clusters - core, 0.8)])
    region = np.unique(np.concatenate([at_site, len(sites) + at_place]), return_inverse=True)[1]
    users = [places[one] for one in rng.choice(len(places), cells, p=people / people.sum())]
    rtt_ms = _rtt_ms(rng, _around(rng, users, np.full(cells, 1.2)), _around(rng, where, near))
    pools = _pools(rng, clusters, core)
    options, latency = _options(rng, models, pools)
    resident = (rng.random(cells) < RESIDENT_PART) & np.array([one["country"] in EUROPE for one in users])
    in_europe = np.array([one["country"] in EUROPE for one in where])
    demand = _demand(rng, models, cells, options, pools, load)
    return _instance(options, pools, region, rtt_ms, latency, ~resident[:, None] | in_europe[None, :], resident, demand)


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


def _pools(rng: Rng, clusters: int, core: int) -> dict[str, NDArray[Any]]:
    rows: list[tuple[int, int, int, int, float]] = []
    for cluster in range(clusters):
        is_core = cluster < core
        level = rng.uniform(0.85, 1.45) * (1.0 if is_core else 1.25)
        sold = np.arange(4) if is_core else np.flatnonzero(rng.random(4) < (0.7, 0.35, 0.15, 0.12))
        for product in sold if len(sold) else np.zeros(1, np.int64):
            devices = int(rng.lognormal(4.2 if is_core else 2.3, 0.6)) + 1
            usd = PRODUCT_USD[product] * level
            rows.append((cluster, int(product), 0, devices, usd))
            if is_core:
                rows.append((cluster, int(product), 1, devices // 2 + 1, usd * rng.uniform(0.3, 0.6)))
    cluster_of, product_of, spot, devices_of, usd_of = zip(*rows, strict=True)
    return {
        "cluster": np.array(cluster_of),
        "product": np.array(product_of),
        "spot": np.array(spot),
        "devices": np.array(devices_of),
        "usd": np.array(usd_of),
    }


def _options(rng: Rng, models: int, pools: dict[str, NDArray[Any]]) -> tuple[dict[str, NDArray[Any]], Floats]:
    rows: list[tuple[int, int, int, float]] = []
    latency = np.zeros((models, 2))
    for model in range(models):
        shapes, objective_ms, service_ms = SHAPES[model % len(SHAPES)]
        speed = rng.uniform(0.7, 1.4)
        latency[model, 0] = objective_ms * rng.uniform(0.8, 1.2)
        latency[model, 1] = min(service_ms * rng.uniform(0.8, 1.2), 0.7 * latency[model, 0])
        for pool, product in enumerate(pools["product"]):
            devices, rps = shapes.get(int(product), (0, 0.0))
            if devices and pools["devices"][pool] >= devices:
                rows.append((model, pool, devices, rps * speed * UTILISATION))
    model_of, pool_of, devices_of, rps_of = zip(*rows, strict=True)
    made = {"model": model_of, "pool": pool_of, "devices": devices_of, "rps": rps_of}
    return {name: np.array(values) for name, values in made.items()}, latency


def _demand(
    rng: Rng, models: int, cells: int, options: dict[str, NDArray[Any]], pools: dict[str, NDArray[Any]], load: float
) -> Floats:
    """[models, cells] requests per second."""
    part = rng.dirichlet(np.full(models, 2.0))
    share = rng.lognormal(0.0, 1.0, (models, cells))
    share /= share.sum(axis=1, keepdims=True)
    devices = pools["devices"].sum() * load
    per_device = np.zeros(models)
    for model in range(models):
        mine = options["model"] == model
        stock = pools["devices"][options["pool"][mine]]
        per_device[model] = np.average(options["rps"][mine] / options["devices"][mine], weights=stock)
    made: Floats = share * (part * devices * per_device)[:, None]
    return made


def _instance(
    options: dict[str, NDArray[Any]],
    pools: dict[str, NDArray[Any]],
    region: Ints,
    rtt_ms: Floats,
    latency: Floats,
    allowed: NDArray[np.bool_],
    resident: NDArray[np.bool_],
    demand: Floats,
) -> Instance:
    models, cells = demand.shape
    clusters = rtt_ms.shape[1]
    cluster = pools["cluster"][options["pool"]]
    nodes, option_node = np.unique(options["model"] * clusters + cluster, return_inverse=True)
    usd = pools["usd"][options["pool"]] * options["devices"]
    unit_usd = np.full(len(nodes), np.inf)
    np.minimum.at(unit_usd, option_node, usd / options["rps"])
    degrees, arc_nodes, arc_usd = [], [], []
    for model in range(models):
        mine = np.flatnonzero(nodes // clusters == model)
        there = nodes[mine] % clusters
        latency_ms = rtt_ms[:, there] + latency[model, 1]
        late = latency_ms > latency[model, 0]
        price = USD_PER_HOUR * (LATE_USD_PER_1000 * late + PROXIMITY_USD_PER_1000_PER_MS * latency_ms)
        degree, picked = arcs.of_model(
            price.astype(np.float32), unit_usd[mine], allowed[:, there], region[there].astype(np.int64)
        )
        degrees.append(degree)
        arc_nodes.append(mine[picked])
        arc_usd.append(price[np.repeat(np.arange(cells), degree), picked])
    arc_start = np.concatenate([[0], np.cumsum(np.concatenate(degrees))]).astype(np.int64)
    group_rps = demand.reshape(-1)
    count = len(options["model"])
    return Instance(
        pool_devices=pools["devices"].astype(np.int64),
        option_model=options["model"].astype(np.int64),
        option_pool=options["pool"].astype(np.int64),
        option_node=option_node.astype(np.int64),
        option_region=region[cluster].astype(np.int64),
        option_spot=pools["spot"][options["pool"]].astype(np.int64),
        option_devices=options["devices"].astype(np.int64),
        option_rps=options["rps"].astype(np.float64),
        option_usd=usd,
        option_start_usd=np.zeros(count),
        option_current=np.zeros(count, np.int64),
        option_least=np.zeros(count, np.int64),
        option_most=(pools["devices"][options["pool"]] // options["devices"]).astype(np.int64),
        node_model=(nodes // clusters).astype(np.int64),
        node_region=region[nodes % clusters].astype(np.int64),
        group_model=np.repeat(np.arange(models), cells),
        group_class=np.tile(resident.astype(np.int64), models),
        group_rps=group_rps,
        group_unserved_usd=np.full(models * cells, USD_PER_HOUR * UNSERVED_USD_PER_1000),
        arc_start=arc_start,
        arc_node=np.concatenate(arc_nodes).astype(np.int64),
        arc_usd=np.concatenate(arc_usd),
        arc_most=np.repeat(group_rps, np.diff(arc_start)),
        model_min_replicas=np.zeros(models, np.int64),
        model_min_regions=np.zeros(models, np.int64),
        model_spot_fraction=np.ones(models),
    )
