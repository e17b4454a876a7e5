"""A world small enough to reckon by hand: two clusters, one or two models, two cells, no story."""

from __future__ import annotations

import msgspec

from federation.demo.catalogue import Catalogue
from federation.demo.physics import Physics
from federation.policy import documents

RHYTHM = {
    "hourly": [1.0] * 24,
    "adoption": {"continents": {"EU": 1.0, "AS": 0.5}, "countries": {}},
    "rpsPerMillionUsers": {"chat": 10.0},
}
NETWORK = {
    "anchorKm": 0,
    "baseRttMs": 10,
    "rttMsPerKm": 0.01,
    "userAccessMs": 5,
    "edgeBaseRttMs": 4,
    "jitter": 0,
}
PLACES = [
    # 10 million users x 10 requests/s and million: 100/s; half of 8 million in Asia: 40/s
    {"name": "Berlin", "country": "DE", "continent": "EU", "lat": 52.5, "lon": 13.4, "population": 10_000_000},
    {"name": "Tokyo", "country": "JP", "continent": "AS", "lat": 35.7, "lon": 139.7, "population": 8_000_000},
]


def pool(market: str = "on-demand", *, devices: int = 4, usd: float = 1.0, product: str = "L4") -> dict[str, object]:
    return {"product": product, "market": market, "vramGiB": 24, "devices": devices, "usdPerDeviceHour": usd}


def cluster(name: str, country: str, lat: float, lon: float, *pools: dict[str, object]) -> dict[str, object]:
    return {
        "kind": "Cluster",
        "apiVersion": documents.API_VERSION,
        "metadata": {"name": name},
        "spec": {
            "provider": "acme",
            "region": name,
            "location": {"lat": lat, "lon": lon, "country": country},
            "jurisdictions": [country],
            "accelerators": list(pools),
        },
    }


def berlin(*pools: dict[str, object]) -> dict[str, object]:
    return cluster("berlin", "DE", 52.5, 13.4, *(pools or (pool(),)))


def tokyo(*pools: dict[str, object]) -> dict[str, object]:
    return cluster("tokyo", "JP", 35.7, 139.7, *(pools or (pool(),)))


def model(name: str = "chat", *, rps: float = 25.0, devices: int = 1, objective_ms: float = 60) -> dict[str, object]:
    return {
        "kind": "Model",
        "apiVersion": documents.API_VERSION,
        "metadata": {"name": name},
        "spec": {
            "runtime": {"preset": "vllm", "image": "example/image:1"},
            "resources": {"cpu": "1", "memory": "1Gi"},
            "accelerators": [{"product": "L4", "count": devices, "requestsPerSecond": rps}],
            "slo": {"p95LatencyMs": objective_ms},
            "serviceLatencyMs": 40,
            "targetUtilisation": 0.8,
        },
    }


def policy(*models: str, **spec: object) -> dict[str, object]:
    return {
        "kind": "PlacementPolicy",
        "apiVersion": documents.API_VERSION,
        "metadata": {"name": "all"},
        "spec": {"models": {"matchNames": list(models)}, **spec},
    }


def world(
    clusters: list[dict[str, object]],
    models: list[dict[str, object]] | None = None,
    policies: list[dict[str, object]] | None = None,
    story: list[dict[str, object]] | None = None,
    rps: dict[str, float] | None = None,
) -> Physics:
    """The world of these documents; Berlin asks for 100 requests/s of `chat` and Tokyo for 40."""
    rhythm = RHYTHM | {"rpsPerMillionUsers": rps or {"chat": 10.0}}
    made = {
        "documents": {"clusters": clusters, "models": models or [model()], "policies": policies or [policy("chat")]},
        "places": PLACES,
        "rtt": {"sites": {"x": {"lat": 0, "lon": 0}}, "rttMs": {"x": [1.0]}},
        "day": {"demand": rhythm, "network": NETWORK, "story": story or []},
    }
    return Physics(msgspec.convert(made, Catalogue))
