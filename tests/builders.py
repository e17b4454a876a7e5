"""Short ways to say a world: `a_world().with_cluster("fra", l4=8).with_model("chat").build()`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from federation.policy import documents
from federation.state.reduce import BrokerFound, DocumentsAccepted, Event, Heard, Reduced, reduce
from federation.state.world import Timing, World, validate
from federation.wire import messages

L4 = messages.PoolKey(product="NVIDIA-L4")
L4_SPOT = messages.PoolKey(product="NVIDIA-L4", market="spot")
PLACES = {"fra": (50.1, 8.7, "DE"), "par": (48.9, 2.4, "FR"), "iad": (39.0, -77.5, "US"), "nrt": (35.8, 140.4, "JP")}
JURISDICTIONS = {"DE": ("EU",), "FR": ("EU",), "US": ("US",), "JP": ("JP",)}


def a_cluster(name: str, *, region: str | None = None, usd: float = 1.0, **spec: Any) -> documents.Cluster:
    """A Cluster document; the first three letters of its name say where it is."""
    lat, lon, country = PLACES[name[:3]]
    return documents.Cluster(
        api_version="isochrone.dev/v1alpha1",
        metadata=documents.Metadata(name=name),
        spec=documents.ClusterSpec(
            provider="test",
            region=region or name,
            location=documents.Location(lat=lat, lon=lon, city=name, country=country),
            jurisdictions=JURISDICTIONS[country],
            accelerators=(
                documents.AcceleratorPool(product="NVIDIA-L4", vram_gib=24, devices=8, usd_per_device_hour=usd),
                documents.AcceleratorPool(
                    product="NVIDIA-L4", vram_gib=24, devices=8, usd_per_device_hour=usd / 3, market="spot"
                ),
            ),
            **spec,
        ),
    )


def a_model(name: str = "chat", *, rps: float = 10.0, objective_ms: float = 200.0) -> documents.Model:
    """A Model document that runs on one L4."""
    return documents.Model(
        api_version="isochrone.dev/v1alpha1",
        metadata=documents.Metadata(name=name),
        spec=documents.ModelSpec(
            runtime=documents.Runtime(preset="vllm", image="example/image:1"),
            resources=documents.Resources(cpu="4", memory="16Gi"),
            accelerators=(documents.Accelerator(product="NVIDIA-L4", requests_per_second=rps),),
            slo=documents.Slo(p95_latency_ms=objective_ms),
            warmup_seconds=60,
            target_utilisation=0.8,
        ),
    )


def with_image(model: documents.Model, image: str) -> documents.Model:
    """The same model from another image."""
    runtime = msgspec.structs.replace(model.spec.runtime, image=image)
    return msgspec.structs.replace(model, spec=msgspec.structs.replace(model.spec, runtime=runtime))


def a_policy(*models: str, **spec: Any) -> documents.PlacementPolicy:
    """A PlacementPolicy for these models."""
    return documents.PlacementPolicy(
        api_version="isochrone.dev/v1alpha1",
        metadata=documents.Metadata(name=f"for-{models[0]}"),
        spec=documents.PlacementPolicySpec(models=documents.ModelSelector(match_names=models), **spec),
    )


def a_report(cluster: str, seq: int = 1, **fields: Any) -> messages.Report:
    """A report of a cluster with eight free L4."""
    values: dict[str, Any] = {
        "boot_id": "boot-0001",
        "interval_s": 10.0,
        "pools": (messages.PoolReport(key=L4, vram_gib=24, allocatable=8, free=8),),
    }
    return messages.Report(cluster=cluster, seq=seq, **(values | fields))


def some_demand(model: str, cell: str, rps: float, *, country: str = "DE", at: str = "fra") -> messages.DemandSample:
    """Requests of a cell that lies at one of the known places."""
    lat, lon, _ = PLACES[at]
    return messages.DemandSample(
        model=model, cell=messages.UserCell(name=cell, country=country, lat=lat, lon=lon), requests_per_second=rps
    )


def replicas(model: str, desired: int, ready: int, pool: messages.PoolKey = L4) -> messages.ReplicaReport:
    """Replicas as an agent sees them."""
    return messages.ReplicaReport(model=model, pool=pool, desired=desired, ready=ready)


def a_world(*names: str, models: tuple[documents.Model, ...] = (), policies: Any = (), now_s: float = 0.0) -> World:
    """A world whose catalogue has these clusters, that hears its broker, and has heard no agent yet."""
    catalogue = tuple(sorted((a_cluster(name) for name in names), key=lambda one: one.metadata.name))
    world = World(timing=Timing())
    given = documents.Documents(models=models, policies=tuple(policies), clusters=catalogue)
    world = told(world, DocumentsAccepted(documents=given, now_s=now_s), BrokerFound(now_s=now_s))
    return replace(world, started_s=now_s)


def told(world: World, *events: Event) -> World:
    """The world after these events, each checked to leave a world that can exist."""
    for event in events:
        world = hear(world, event).world
    return world


def hear(world: World, event: Event) -> Reduced:
    """What one event does, checked to leave a world that can exist."""
    reduced = reduce(world, event)
    validate(reduced.world)
    return reduced


def heard(world: World, *reports: messages.Report, now_s: float = 0.0) -> World:
    """The world after these reports came from their agents."""
    return told(world, *(Heard(message=report, now_s=now_s) for report in reports))


def renamed(report: messages.Report, **fields: Any) -> messages.Report:
    """The same report with other fields."""
    return msgspec.structs.replace(report, **fields)
