"""A federation of three clusters, three places with users and one model: small enough to foresee what is right."""

from __future__ import annotations

from typing import Any

TOKEN = "a-token-for-the-testbed"
PRODUCT = "NVIDIA-L4"
VRAM_MIB = 23034
PLACES = {
    "fra": ("Frankfurt", "DE", 50.1, 8.7, 0.50, ["EU"]),
    "mad": ("Madrid", "ES", 40.4, -3.7, 0.90, ["EU"]),
    "iad": ("Ashburn", "US", 39.0, -77.5, 0.80, ["US"]),
}
"""Cluster -> city, country, latitude, longitude, USD per device-hour, jurisdictions."""
USERS = {
    "Berlin": ("DE", 52.5, 13.4, 30.0),
    "Lyon": ("FR", 45.8, 4.8, 14.0),
    "New York": ("US", 40.7, -74.0, 20.0),
}
"""Cell -> country, latitude, longitude, requests per second."""
API = "isochrone.dev/v1alpha1"
MODEL: dict[str, Any] = {
    "apiVersion": API,
    "kind": "Model",
    "metadata": {"name": "chat-8b"},
    "spec": {
        "runtime": {"preset": "vllm", "image": "vllm/vllm-openai:v0.11.0", "args": ["--model", "chat-8b"]},
        "resources": {"cpu": "2", "memory": "8Gi"},
        "accelerators": [{"product": PRODUCT, "minVramGiB": 20, "requestsPerSecond": 10}],
        "slo": {"p95LatencyMs": 250},
        "serviceLatencyMs": 60,
        "warmupSeconds": 5,
    },
}
# Money alone decides: where replicas are is then easily said.
POLICY: dict[str, Any] = {
    "apiVersion": API,
    "kind": "PlacementPolicy",
    "metadata": {"name": "chat"},
    "spec": {
        "models": {"matchNames": ["chat-8b"]},
        "objective": {"latencyUsdPer1000PerMs": 0},
        "residency": [{"usersIn": {"countries": ["DE", "FR"]}, "clustersIn": {"jurisdictions": ["EU"]}}],
        "availability": {"minReplicas": 3, "minRegions": 2},
        "disruption": {"minGainPercent": 2, "dwellSeconds": 3, "maxMovesPerHour": 100},
        "failover": {"tolerationSeconds": 6},
        "traffic": {"stepPercent": 25, "stepSeconds": 1},
    },
}


def cluster_document(name: str) -> dict[str, Any]:
    """The catalogue entry of a cluster."""
    city, country, lat, lon, usd, jurisdictions = PLACES[name]
    pool = {"product": PRODUCT, "vramGiB": 22, "devices": 8, "usdPerDeviceHour": usd}
    return {
        "apiVersion": API,
        "kind": "Cluster",
        "metadata": {"name": name},
        "spec": {
            "provider": "kwok",
            "region": name,
            "location": {"lat": lat, "lon": lon, "city": city, "country": country},
            "jurisdictions": jurisdictions,
            "accelerators": [pool],
        },
    }


def demand(cells: list[str]) -> list[dict[str, Any]]:
    """What a front door counted."""
    return [
        {
            "model": "chat-8b",
            "cell": {"name": name, "country": USERS[name][0], "lat": USERS[name][1], "lon": USERS[name][2]},
            "requestsPerSecond": USERS[name][3],
        }
        for name in cells
    ]
