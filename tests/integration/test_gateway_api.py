"""The standards' own objects on a real API server with the real definitions: accepted, as planned, and written once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from agents.gateway import objects
from agents.gateway.writer import Writer
from agents.kube import credentials
from agents.kube.api import Api
from agents.kube.keeper import Drifts
from federation.aiokit.clock import Clock
from federation.wire import messages
from tests.testbed.cluster import MODELS_NAMESPACE, ApiError, ControlPlane
from tests.testbed.crds import find_crds, install, stand_in_pools
from tests.testbed.fixtures import require, require_kubernetes

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def definitions() -> list[dict[str, Any]]:
    return require(find_crds)


@pytest.fixture(scope="module")
def plane(definitions: list[dict[str, Any]]) -> Iterator[ControlPlane]:
    with ControlPlane("traffic", binaries=require_kubernetes()) as plane:
        plane.agent_kubeconfig()
        yield plane


@asynccontextmanager
async def writer(plane: ControlPlane) -> AsyncIterator[Writer]:
    """One with the rights of the agent, as it is installed."""
    clock = Clock()
    api = Api(await credentials.load(plane.agent_kubeconfig()), clock=clock)
    try:
        yield Writer(api, MODELS_NAMESPACE, Drifts(api, MODELS_NAMESPACE, clock), clock)
    finally:
        await api.close()


def traffic(fra: int, *, model: str = "chat-8b", remote: Any = "ServiceImport", dns: Any = None) -> messages.Traffic:
    """fra serves so many thousandths of its own users, mad the rest."""
    dns = dns or messages.DnsShare(zone="models.example", provider="aws", routing="weighted", ttl_s=30, weight=191)
    backends = (
        messages.BackendShare(cluster="fra", weight=fra, address="192.0.2.1", port=443),
        messages.BackendShare(cluster="mad", weight=1000 - fra, address="192.0.2.2", port=443),
    )
    one = messages.ModelTraffic(model=model, backends=backends, remote=remote, dns=dns)
    return messages.Traffic(cluster="fra", address="192.0.2.1", port=443, lat=50.1, lon=8.7, models=(one,))


def read(plane: ControlPlane, kind: objects.Kind, name: str) -> dict[str, Any]:
    root = f"/apis/{kind.api_version}" if kind.group else "/api/v1"
    return plane.request("GET", f"{root}/namespaces/{MODELS_NAMESPACE}/{kind.plural}/{name}")


def weights(plane: ControlPlane, name: str = "chat-8b") -> dict[tuple[str, str], int]:
    """(kind, name) -> weight, of the rule for a cluster's own users."""
    rule = read(plane, objects.HTTP_ROUTE, name)["spec"]["rules"][-1]
    return {(one["kind"], one["name"]): one["weight"] for one in rule["backendRefs"]}


async def test_what_is_not_installed_is_said_and_nothing_is_broken(plane: ControlPlane) -> None:
    """Whoever installs the product before the standards would find no word of why nothing happens."""
    async with writer(plane) as made:
        await made.steer(traffic(700))
        assert any("no HTTPRoute" in one for one in made.missing)
        assert any("no DNSEndpoint" in one for one in made.missing)
        assert read(plane, objects.SERVICE, "chat-8b-fra")["spec"]["ports"][0]["port"] == 80


async def test_objects_are_accepted_say_the_plan_and_are_written_once(
    plane: ControlPlane, definitions: list[dict[str, Any]]
) -> None:
    """Weights would be somebody's guess, or every cycle would stir every controller in the cluster."""
    install(plane, definitions)
    async with writer(plane) as made:
        await made.steer(traffic(700))
        assert not [one for one in made.missing if "Inference" not in one]
        assert weights(plane) == {("Service", "chat-8b-fra"): 700, ("ServiceImport", "chat-8b-mad"): 300}
        assert read(plane, objects.HTTP_ROUTE, "chat-8b")["spec"]["hostnames"] == ["chat-8b.models.example"]
        read(plane, objects.EXPORT, "chat-8b-fra")
        assert read(plane, objects.IMPORT, "chat-8b-mad")["spec"]["type"] == "ClusterSetIP"
        (record,) = read(plane, objects.DNS, "chat-8b")["spec"]["endpoints"]
        assert record["targets"] == ["192.0.2.1"]
        assert record["recordTTL"] == 30
        assert record["setIdentifier"] == "fra"
        assert record["providerSpecific"] == [{"name": "aws/weight", "value": "191"}]
        versions = {kind.kind: read(plane, kind, name)["metadata"]["resourceVersion"] for kind, name in WRITTEN}
        writes = made.writes
        for _ in range(10):
            await made.steer(traffic(700))
        assert made.writes == writes
        await made.steer(traffic(400))
        assert made.writes == writes + 1, "one route, and nothing else"
        assert weights(plane) == {("Service", "chat-8b-fra"): 400, ("ServiceImport", "chat-8b-mad"): 600}
    async with writer(plane) as again:
        await again.steer(traffic(400))
        unchanged = {kind.kind: read(plane, kind, name)["metadata"]["resourceVersion"] for kind, name in WRITTEN}
        assert unchanged == versions | {"HTTPRoute": unchanged["HTTPRoute"]}, (
            "an agent that starts again changes nothing"
        )


WRITTEN = (
    (objects.SERVICE, "chat-8b-fra"),
    (objects.HTTP_ROUTE, "chat-8b"),
    (objects.EXPORT, "chat-8b-fra"),
    (objects.IMPORT, "chat-8b-mad"),
    (objects.DNS, "chat-8b"),
)


async def test_other_clusters_are_named_by_address_where_the_policy_says_so(
    plane: ControlPlane, definitions: list[dict[str, Any]]
) -> None:
    install(plane, definitions)
    async with writer(plane) as made:
        await made.steer(traffic(250, model="by-address", remote="Service"))
        expected = {("Service", "by-address-fra"): 250, ("Service", "by-address-mad"): 750}
        assert weights(plane, "by-address") == expected
        found = read(plane, objects.SLICE, "by-address-mad")
        assert found["endpoints"][0]["addresses"] == ["192.0.2.2"]
        assert found["ports"][0]["port"] == 443
        await made.steer(traffic(1000, model="other"))
        with pytest.raises(ApiError):
            read(plane, objects.SLICE, "by-address-mad")


@pytest.mark.parametrize(
    ("provider", "routing", "name", "value"),
    [
        ("aws", "geoproximity", "aws/geoproximity-coordinates", "50.10,8.70"),
        ("aws", "geolocation", "aws/geolocation-country-code", "DE"),
        ("any", "weighted", "", ""),
    ],
)
async def test_names_are_published_as_the_provider_can(
    plane: ControlPlane, definitions: list[dict[str, Any]], provider: Any, routing: Any, name: str, value: str
) -> None:
    install(plane, definitions)
    share = messages.DnsShare(
        zone="models.example", provider=provider, routing=routing, ttl_s=60, weight=100, countries=("DE",)
    )
    async with writer(plane) as made:
        await made.steer(traffic(500, model=f"{provider}-{routing}", dns=share))
    (record,) = read(plane, objects.DNS, f"{provider}-{routing}")["spec"]["endpoints"]
    specific = [{"name": name, "value": value}] if name else []
    assert record.get("providerSpecific", []) == specific


async def test_pools_are_exported_and_imported_where_the_inference_extension_is(
    plane: ControlPlane, definitions: list[dict[str, Any]]
) -> None:
    """Stand-in definitions: the extension's own module cannot be had. The plan is the pool selector."""
    install(plane, [*definitions, *stand_in_pools()])
    async with writer(plane) as made:
        await made.steer(traffic(800, model="pooled"))
        expected = {("InferencePool", "pooled"): 800, ("InferencePoolImport", "pooled"): 200}
        assert weights(plane, "pooled") == expected
        pool = read(plane, objects.POOL, "pooled")
        assert pool["metadata"]["annotations"][objects.EXPORT_ANNOTATION] == "ClusterSet"
        imported = read(plane, objects.POOL_IMPORT, "pooled")
        (controller,) = imported["status"]["controllers"]
        assert controller["exportingClusters"] == [{"name": "mad"}]
        writes = made.writes
        await made.steer(traffic(800, model="pooled"))
        assert made.writes == writes
        without = msgspec.structs.replace(traffic(800, model="pooled"), models=())
        await made.steer(without)
        assert made.writes == writes, "nothing named is no order to remove anything"
