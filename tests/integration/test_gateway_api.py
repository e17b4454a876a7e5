"""The standards' own objects on a real API server with the real definitions: accepted, as planned, and written once."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from msgspec import structs

from agents.gateway import objects
from agents.kube import credentials
from agents.kube.api import Api
from agents.kube.keeper import Drifts
from agents.kube.traffic import TrafficApplier
from federation.aiokit.clock import Clock
from federation.wire import messages
from tests.testbed.cluster import MODELS_NAMESPACE, ApiError, ControlPlane
from tests.testbed.crds import find_crds, install, stand_in_pools
from tests.testbed.fixtures import require, require_kubernetes

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]
FRA, MAD = objects.service_name("chat-8b", "fra"), objects.service_name("chat-8b", "mad")
EXTENSION = Path(__file__).parents[3] / "shared" / "data" / "crds"


@pytest.fixture(scope="module")
def definitions() -> list[dict[str, Any]]:
    return require(find_crds)


@pytest.fixture(scope="module")
def plane(definitions: list[dict[str, Any]]) -> Iterator[ControlPlane]:
    with ControlPlane("traffic", binaries=require_kubernetes()) as plane:
        plane.agent_kubeconfig()
        yield plane


@asynccontextmanager
async def writer(plane: ControlPlane) -> AsyncIterator[TrafficApplier]:
    """One with the rights of the agent, as it is installed."""
    clock = Clock()
    api = Api(await credentials.load(plane.agent_kubeconfig()), clock=clock)
    try:
        yield TrafficApplier(api, MODELS_NAMESPACE, Drifts(api, MODELS_NAMESPACE, clock), clock)
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
        assert read(plane, objects.SERVICE, FRA)["spec"]["ports"][0]["port"] == 80


async def test_a_front_door_of_the_newer_protocol_is_written_once(
    plane: ControlPlane, definitions: list[dict[str, Any]]
) -> None:
    """Its requests would be sent to no endpoint, or every cycle would write the families that the API server adds."""
    install(plane, definitions)
    told = traffic(700, model="newer", remote="Service")
    backends = (told.models[0].backends[0], structs.replace(told.models[0].backends[1], address="2001:db8::2"))
    told = structs.replace(told, models=(structs.replace(told.models[0], backends=backends),))
    name = objects.service_name("newer", "mad")
    async with writer(plane) as made:
        await made.steer(told)
        assert not made.failed
        assert read(plane, objects.SERVICE, name)["spec"]["ipFamilyPolicy"] == "PreferDualStack"
        assert read(plane, objects.SLICE, name)["addressType"] == "IPv6"
        writes = made.writes
        await made.steer(told)
        assert made.writes == writes


async def test_objects_are_accepted_say_the_plan_and_are_written_once(
    plane: ControlPlane, definitions: list[dict[str, Any]]
) -> None:
    """Weights would be somebody's guess, or every cycle would stir every controller in the cluster."""
    install(plane, definitions)
    async with writer(plane) as made:
        await made.steer(traffic(700))
        assert not [one for one in made.missing if "Inference" not in one]
        assert weights(plane) == {("Service", FRA): 700, ("ServiceImport", MAD): 300}
        assert read(plane, objects.HTTP_ROUTE, "chat-8b")["spec"]["hostnames"] == ["chat-8b.models.example"]
        read(plane, objects.EXPORT, FRA)
        assert read(plane, objects.IMPORT, MAD)["spec"]["type"] == "ClusterSetIP"
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
        assert weights(plane) == {("Service", FRA): 400, ("ServiceImport", MAD): 600}
    async with writer(plane) as again:
        await again.steer(traffic(400))
        unchanged = {kind.kind: read(plane, kind, name)["metadata"]["resourceVersion"] for kind, name in WRITTEN}
        assert unchanged == versions | {"HTTPRoute": unchanged["HTTPRoute"]}, (
            "an agent that starts again changes nothing"
        )


WRITTEN = (
    (objects.SERVICE, FRA),
    (objects.HTTP_ROUTE, "chat-8b"),
    (objects.EXPORT, FRA),
    (objects.IMPORT, MAD),
    (objects.DNS, "chat-8b"),
)


async def test_other_clusters_are_named_by_address_where_the_policy_says_so(
    plane: ControlPlane, definitions: list[dict[str, Any]]
) -> None:
    """Without the multi-cluster Services API no request would reach another cluster."""
    install(plane, definitions)
    async with writer(plane) as made:
        await made.steer(traffic(250, model="by-address", remote="Service"))
        expected = {
            ("Service", objects.service_name("by-address", "fra")): 250,
            ("Service", objects.service_name("by-address", "mad")): 750,
        }
        assert weights(plane, "by-address") == expected
        found = read(plane, objects.SLICE, objects.service_name("by-address", "mad"))
        assert found["endpoints"][0]["addresses"] == ["192.0.2.2"]
        assert found["ports"][0]["port"] == 443
        await made.steer(traffic(1000, model="other"))
        with pytest.raises(ApiError):
            read(plane, objects.SLICE, objects.service_name("by-address", "mad"))


@pytest.mark.parametrize(
    ("provider", "routing", "name", "value"),
    [
        ("aws", "geoproximity", "aws/geoproximity-coordinates", "50.10,8.70"),
        ("aws", "geolocation", "aws/geolocation-country-code", "DE"),
        ("any", "weighted", "", ""),
    ],
)
@pytest.mark.parametrize("is_default", [False, True])
async def test_names_are_published_as_the_provider_can(
    plane: ControlPlane,
    definitions: list[dict[str, Any]],
    provider: Any,
    routing: Any,
    name: str,
    value: str,
    is_default: bool,
) -> None:
    """ExternalDNS would refuse the records, and the model's name would not resolve."""
    install(plane, definitions)
    share = messages.DnsShare(
        zone="models.example",
        provider=provider,
        routing=routing,
        ttl_s=60,
        weight=100,
        countries=("DE",),
        is_default=is_default,
    )
    async with writer(plane) as made:
        await made.steer(traffic(500, model=f"{provider}-{routing}", dns=share))
    record, *others = read(plane, objects.DNS, f"{provider}-{routing}")["spec"]["endpoints"]
    specific = [{"name": name, "value": value}] if name else []
    assert record.get("providerSpecific", []) == specific
    anywhere = [{"name": "aws/geolocation-country-code", "value": "*"}]
    wanted = [("fra-default", anywhere)] if is_default and routing == "geolocation" else []
    assert [(one["setIdentifier"], one["providerSpecific"]) for one in others] == wanted, "users of no country named"


def extension(version: str) -> list[dict[str, Any]]:
    """The definitions of the inference extension of this version."""
    directory = EXTENSION / f"inference-extension-{version}"
    if not directory.is_dir():
        pytest.skip("shared/data/crds has the definitions of the inference extension, and is not here")
    found = [yaml.safe_load(path.read_text()) for path in sorted(directory.glob("*inferencepool*.yaml"))]
    return [one for one in found if one["kind"] == "CustomResourceDefinition"]


def remove(plane: ControlPlane, *plurals: str) -> None:
    """Uninstall definitions, and wait until they are gone."""
    for plural in plurals:
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}"
        with suppress(ApiError):
            plane.request("DELETE", path)
        for _ in range(100):
            try:
                plane.request("GET", path)
            except ApiError:
                break
            time.sleep(0.05)


def many(count: int, *, model: str, port: int = 9000) -> messages.Traffic:
    """Shares of so many clusters, the first the largest."""
    backends = tuple(
        messages.BackendShare(cluster=f"c{at:02}", weight=200 - at, address=f"192.0.2.{at + 1}", port=443)
        for at in range(count)
    )
    one = messages.ModelTraffic(model=model, backends=backends, remote="Service", port=port)
    return messages.Traffic(cluster="c00", address="192.0.2.1", port=443, lat=50.1, lon=8.7, models=(one,))


async def test_more_clusters_than_a_route_may_name_are_served_by_the_largest(
    plane: ControlPlane, definitions: list[dict[str, Any]]
) -> None:
    """The API server would refuse the whole route, and all of the model's users would stay where they were."""
    install(plane, definitions)
    async with writer(plane) as made:
        await made.steer(many(20, model="wide"))
        assert not made.failed
        assert any("names 16 clusters, wide has 20 here" in one for one in made.missing)
    found = weights(plane, "wide")
    assert {name for _, name in found} == {objects.service_name("wide", f"c{at:02}") for at in range(16)}
    rules = read(plane, objects.HTTP_ROUTE, "wide")["spec"]["rules"]
    assert [rule["timeouts"] for rule in rules] == [{"request": "0s"}] * 2, "long answers are not cut"


async def test_a_route_without_timeouts_is_written_where_there_are_none(
    plane: ControlPlane, definitions: list[dict[str, Any]]
) -> None:
    """With Gateway API of before 1.2 nothing would be routed at all."""
    older = json.loads(json.dumps([one for one in definitions if one["spec"]["names"]["plural"] == "httproutes"]))
    for version in older[0]["spec"]["versions"]:
        rules = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["rules"]["items"]
        rules["properties"].pop("timeouts")
        rules.pop("x-kubernetes-validations", None)
    remove(plane, "httproutes.gateway.networking.k8s.io")
    install(plane, older)
    try:
        async with writer(plane) as made:
            await made.steer(many(3, model="older"))
            assert not made.failed
            assert any("HTTPRoute has no timeouts here" in one for one in made.missing)
            writes = made.writes
            await made.steer(many(3, model="older"))
            assert made.writes == writes
        assert len(weights(plane, "older")) == 3
    finally:
        remove(plane, "httproutes.gateway.networking.k8s.io")


POOLS = ("inferencepools.inference.networking.k8s.io", "inferencepoolimports.inference.networking.x-k8s.io")


@pytest.mark.parametrize("version", ["v1.5.0", "v1.6.0"])
async def test_the_inference_extension_of_each_version_is_used_or_done_without(
    version: str, plane: ControlPlane, definitions: list[dict[str, Any]]
) -> None:
    """A route would point at a pool that the API server refused, and nobody would be served."""
    remove(plane, *POOLS)
    install(plane, [*definitions, *extension(version)])
    model = f"extended-{version[3]}"
    try:
        async with writer(plane) as made:
            given = traffic(800, model=model)
            given = msgspec.structs.replace(given, models=(msgspec.structs.replace(given.models[0], port=9000),))
            await made.steer(given)
            assert not made.failed
            found = {name: kind for kind, name in weights(plane, model)}
            here, there = (objects.service_name(model, one) for one in ("fra", "mad"))
            if version == "v1.5.0":
                assert found == {here: "Service", there: "ServiceImport"}
                assert any("needs an endpoint picker here" in one for one in made.missing)
            else:
                assert found == {here: "InferencePool", there: "InferencePoolImport"}
                assert read(plane, objects.POOL, here)["spec"]["targetPorts"] == [{"number": 9000}]
            writes = made.writes
            for _ in range(3):
                await made.steer(given)
            assert made.writes == writes
    finally:
        remove(plane, *POOLS)


async def test_pools_are_exported_and_imported_where_the_inference_extension_is(
    plane: ControlPlane, definitions: list[dict[str, Any]]
) -> None:
    """Stand-in definitions: the extension's own module cannot be had. The plan is the pool selector."""
    install(plane, [*definitions, *stand_in_pools()])
    async with writer(plane) as made:
        here, there = (objects.service_name("pooled", one) for one in ("fra", "mad"))
        await made.steer(traffic(800, model="pooled"))
        expected = {("InferencePool", here): 800, ("InferencePoolImport", there): 200}
        assert weights(plane, "pooled") == expected
        pool = read(plane, objects.POOL, here)
        assert pool["metadata"]["annotations"][objects.EXPORT_ANNOTATION] == "ClusterSet"
        imported = read(plane, objects.POOL_IMPORT, there)
        (controller,) = imported["status"]["controllers"]
        assert controller["exportingClusters"] == [{"name": "mad"}]
        writes = made.writes
        await made.steer(traffic(800, model="pooled"))
        assert made.writes == writes
        without = msgspec.structs.replace(traffic(800, model="pooled"), models=())
        await made.steer(without)
        assert made.writes == writes, "nothing named is no order to remove anything"
