"""A large fleet as the controller hears it: documents, and a report of every cluster, over the world of `worlds`.

Each cell is counted by the front door nearest to it, and clusters measure some of their peers.
"""

from __future__ import annotations

import numpy as np

from federation.policy import documents
from federation.state.reduce import BrokerFound, DocumentsAccepted, reduce
from federation.state.world import Timing, World
from federation.wire import messages
from placement.problem import Problem, RttMatrix
from tests.bench.worlds import OTHER, RESIDENT, Floats, a_world_with_places

EARTH_RADIUS_KM = 6371.0
KM_PER_RTT_MS = 100.0
"""Light in fibre, there and back."""
PEERS = 20
"""That each cluster has measured."""


def documents_of(problem: Problem, at: Floats) -> documents.Documents:
    """Its clusters, its models, and one policy for all. Args: at: [clusters, 2] degrees."""
    made = []
    for cluster, (lat, lon) in zip(problem.clusters, at.tolist(), strict=True):
        pools = [pool for pool in problem.pools if pool.cluster == cluster.name]
        country = RESIDENT if cluster.jurisdictions else OTHER
        made.append(
            documents.Cluster(
                api_version="isochrone.dev/v1alpha1",
                metadata=documents.Metadata(name=cluster.name),
                spec=documents.ClusterSpec(
                    provider=cluster.provider,
                    region=cluster.region,
                    location=documents.Location(lat=lat, lon=lon, city=cluster.name, country=country),
                    jurisdictions=cluster.jurisdictions,
                    accelerators=tuple(
                        documents.AcceleratorPool(
                            product=one.product,
                            market=one.market,
                            vram_gib=80,
                            devices=one.devices,
                            usd_per_device_hour=one.usd_per_device_hour,
                        )
                        for one in pools
                    ),
                ),
            )
        )
    models = tuple(
        documents.Model(
            api_version="isochrone.dev/v1alpha1",
            metadata=documents.Metadata(name=model.name),
            spec=documents.ModelSpec(
                runtime=documents.Runtime(preset="vllm", image="example/image:1"),
                resources=documents.Resources(cpu="4", memory="16Gi"),
                accelerators=tuple(
                    documents.Accelerator(
                        product=shape.product, count=shape.devices, requests_per_second=shape.requests_per_second
                    )
                    for shape in model.shapes
                ),
                slo=documents.Slo(p95_latency_ms=model.objective_ms),
                service_latency_ms=model.service_latency_ms,
                warmup_seconds=60,
                target_utilisation=model.target_utilisation,
            ),
        )
        for model in problem.models
    )
    policy = documents.PlacementPolicy(
        api_version="isochrone.dev/v1alpha1",
        metadata=documents.Metadata(name="all"),
        spec=documents.PlacementPolicySpec(
            models=documents.ModelSelector(match_names=tuple(model.name for model in problem.models))
        ),
    )
    return documents.Documents(models=models, policies=(policy,), clusters=tuple(made))


def reports_of(problem: Problem, at: Floats, places: Floats, seed: int) -> list[messages.Report]:
    """One of each cluster. Args: at: [cells, 2] degrees; places: [clusters, 2] radians."""
    rng = np.random.default_rng([seed, 3])
    names = [cluster.name for cluster in problem.clusters]
    assert isinstance(problem.paths, RttMatrix)
    nearest = problem.paths.rtt_ms.argmin(axis=1).tolist()
    door = {cell.name: column for cell, column in zip(problem.cells, nearest, strict=True)}
    place = {
        cell.name: messages.UserCell(name=cell.name, country=cell.country, lat=lat, lon=lon)
        for cell, (lat, lon) in zip(problem.cells, at.tolist(), strict=True)
    }
    demand: list[list[messages.DemandSample]] = [[] for _ in names]
    for one in problem.demands:
        sample = messages.DemandSample(
            model=one.model, cell=place[one.cell], requests_per_second=one.requests_per_second
        )
        demand[door[one.cell]].append(sample)
    pools: dict[str, list[messages.PoolReport]] = {name: [] for name in names}
    for pool in problem.pools:
        key = messages.PoolKey(product=pool.product, market=pool.market)
        pools[pool.cluster].append(
            messages.PoolReport(
                key=key,
                vram_gib=80,
                allocatable=pool.devices,
                free=pool.devices,
                usd_per_device_hour=pool.usd_per_device_hour,
            )
        )
    return [
        messages.Report(
            cluster=name,
            boot_id="bench-0001",
            seq=1,
            interval_s=10.0,
            pools=tuple(pools[name]),
            demand=tuple(demand[at]),
            peers=tuple(
                messages.PeerRtt(cluster=names[peer], rtt_ms_p50=rtt_ms, rtt_ms_p95=rtt_ms, samples=5)
                for peer, rtt_ms in _measured(places, at, rng)
            ),
        )
        for at, name in enumerate(names)
    ]


def _measured(places: Floats, at: int, rng: np.random.Generator) -> list[tuple[int, float]]:
    """(peer, round trip in ms) of some peers: a way that is longer than the shortest, and what equipment adds."""
    peers = [peer for peer in rng.choice(len(places), min(PEERS, len(places)), replace=False).tolist() if peer != at]
    (lat, lon), (lats, lons) = places[at], places[peers].T
    half = np.sin((lats - lat) / 2) ** 2 + np.cos(lat) * np.cos(lats) * np.sin((lons - lon) / 2) ** 2
    km = 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0)))
    rtt_ms = 2.0 + km / KM_PER_RTT_MS * rng.uniform(1.1, 2.0, len(peers))
    return list(zip(peers, rtt_ms.tolist(), strict=True))


def a_fleet(seed: int, *, clusters: int, cells: int, models: int) -> tuple[World, list[messages.Report]]:
    """The controller's world before any report, and the first reports of all."""
    problem, users, places = a_world_with_places(seed, clusters=clusters, cells=cells, models=models)
    given = documents_of(problem, degrees(places))
    world = reduce(World(timing=Timing()), DocumentsAccepted(documents=given, now_s=0.0)).world
    return reduce(world, BrokerFound(now_s=0.0)).world, reports_of(problem, degrees(users), places, seed)


def degrees(at: Floats) -> Floats:
    """On the map: what was drawn beyond the date line comes in from the other side."""
    lat, lon = np.degrees(at).T
    return np.column_stack([np.clip(lat, -90.0, 90.0), (lon + 180.0) % 360.0 - 180.0])
