"""Somebody changes what says where requests go, or what standards' own controllers read: put right and told.

On a real control plane with the real definitions of Gateway API, multi-cluster Services and ExternalDNS; that of
VerticalPodAutoscaler stands in.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from agents.gateway import objects
from agents.manifests import names
from federation.wire import messages
from tests.builders import L4
from tests.integration.test_agent import L40S, VERTICAL_DEFINITION, desired, workload
from tests.integration.test_drift import Here, content
from tests.testbed import shapes
from tests.testbed.agent import Agent, Controller
from tests.testbed.cluster import MODELS_NAMESPACE, ControlPlane
from tests.testbed.crds import find_crds, install
from tests.testbed.fixtures import require, require_kubernetes, require_mosquitto
from tests.testbed.mosquitto import Mosquitto
from tests.testbed.processes import wait

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(180)]
INTERVAL_S = 2.0
MERGE = "application/merge-patch+json"
Change = Callable[[dict[str, Any]], Any]
"""What somebody makes of an object: a merge patch of it as it is; None deletes it."""


def path(kind: objects.Kind, name: str) -> str:
    root = f"/apis/{kind.api_version}" if kind.group else "/api/v1"
    return f"{root}/namespaces/{MODELS_NAMESPACE}/{kind.plural}/{name}"


def instance(group: str, plural: str, model: str, pool: messages.PoolKey) -> str:
    return f"/apis/{group}/namespaces/{MODELS_NAMESPACE}/{plural}/{names.instance_name(model, pool)}"


ROUTE = path(objects.HTTP_ROUTE, "chat")
FRA, MAD = objects.service_name("chat", "fra"), objects.service_name("chat", "mad")
IMPORT, EXPORT = path(objects.IMPORT, MAD), path(objects.EXPORT, FRA)
RECORDS = path(objects.DNS, "chat")
SLICE = path(objects.SLICE, objects.service_name("plain", "mad"))
VERTICAL = instance("autoscaling.k8s.io/v1", "verticalpodautoscalers", "tall", L4)
CLAIMS = f"/apis/resource.k8s.io/v1/namespaces/{MODELS_NAMESPACE}/resourceclaimtemplates"
"""The only one there is: its name holds its content."""
DEPLOYMENT = instance("apps/v1", "deployments", "tall", L4)


def delete(_: dict[str, Any]) -> None:
    return None


def all_to_one(route: dict[str, Any]) -> Any:
    rules = copy.deepcopy(route["spec"]["rules"])
    for ref, weight in zip(rules[-1]["backendRefs"], (0, 1000), strict=True):
        ref["weight"] = weight
    return {"spec": {"rules": rules}}


def other_targets(records: dict[str, Any]) -> Any:
    endpoints = copy.deepcopy(records["spec"]["endpoints"])
    endpoints[0]["targets"] = ["198.51.100.66"]
    return {"spec": {"endpoints": endpoints}}


def other_address(_: dict[str, Any]) -> Any:
    return {"endpoints": [{"addresses": ["198.51.100.66"], "conditions": {"ready": True}}]}


def unlabelled(_: dict[str, Any]) -> Any:
    return {"metadata": {"labels": {names.MANAGED_BY_LABEL: None}}}


CASES: dict[str, tuple[str, Change]] = {
    "route-weights": (ROUTE, all_to_one),
    "route-hostnames": (ROUTE, lambda _: {"spec": {"hostnames": ["other.example"]}}),
    "route-deleted": (ROUTE, delete),
    "import-headless": (IMPORT, lambda _: {"spec": {"type": "Headless"}}),
    "import-deleted": (IMPORT, delete),
    "export-deleted": (EXPORT, delete),
    "records-elsewhere": (RECORDS, other_targets),
    "records-deleted": (RECORDS, delete),
    "slice-elsewhere": (SLICE, other_address),
    "slice-deleted": (SLICE, delete),
    "vertical-autoscaler-on": (VERTICAL, lambda _: {"spec": {"updatePolicy": {"updateMode": "Auto"}}}),
    "vertical-autoscaler-deleted": (VERTICAL, delete),
    "claims-unlabelled": (CLAIMS, unlabelled),
    "claims-deleted": (CLAIMS, delete),
}


def traffic() -> messages.Traffic:
    """`chat` by ServiceImport and with names, `plain` by Service."""
    dns = messages.DnsShare(zone="models.example", provider="aws", routing="weighted", ttl_s=30, weight=191)
    backends = (
        messages.BackendShare(cluster="fra", weight=700, address="192.0.2.1", port=443),
        messages.BackendShare(cluster="mad", weight=300, address="192.0.2.2", port=443),
    )
    models = (
        messages.ModelTraffic(model="chat", backends=backends, remote="ServiceImport", dns=dns),
        messages.ModelTraffic(model="plain", backends=backends, remote="Service"),
    )
    return messages.Traffic(cluster="fra", address="192.0.2.1", port=443, lat=50.1, lon=8.7, models=models)


@pytest.fixture(scope="module")
def broker() -> Iterator[Mosquitto]:
    with Mosquitto(program=require_mosquitto()) as running:
        yield running


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, broker: Mosquitto) -> Iterator[Here]:
    definitions = require(find_crds)
    with ControlPlane("standards", binaries=require_kubernetes()) as plane:
        install(plane, [*definitions, VERTICAL_DEFINITION])
        shapes.add_node(plane, "l4-0", shapes.L4, {"nvidia.com/gpu": 12}, cpu="128")
        shapes.add_node(plane, "dra-0", {}, {})
        shapes.add_dynamic_devices(plane, "dra-0", "NVIDIA L40S", 4, memory="46068Mi")
        plane.wait_for_nodes()
        agent = Agent(tmp_path_factory.mktemp("agent"), plane.agent_kubeconfig(), broker.url, interval_s=INTERVAL_S)
        controller = Controller(broker.port)
        agent.start()
        try:
            wait(lambda: controller.report is not None and len(controller.report.pools) == 2, "a report of both pools")
            made = Here(plane, controller)
            controller.steer(traffic())
            ack = controller.answer(
                desired(1, workload("tall", L4, 1, vertical_scaling="off"), workload("dynamic", L40S, 1))
            )
            assert ack.ok, ack.error
            for one in {where for where, _ in CASES.values()}:
                wait(partial(made.get, one), one)
            wait(lambda: made.get(CLAIMS)["items"], "the claim template")
            yield made
        finally:
            agent.process.stop()
            controller.close()


def named(here: Here, where: str) -> str:
    """The path of the object itself."""
    return f"{where}/{here.get(where)['items'][0]['metadata']['name']}" if where == CLAIMS else where


def change(here: Here, where: str, what: Change) -> Callable[[], bool]:
    """Do it; gives whether it has been put right."""
    before = here.get(where)
    patch = what(before)
    if patch is None:
        here.plane.request("DELETE", where)
    else:
        here.plane.request("PATCH", f"{where}?fieldManager=kubectl-edit", patch, content_type=MERGE)
    assert content_of(here.get(where)) != content_of(before), "the case is the one that is meant"

    def is_right() -> bool:
        found = here.get(where)
        is_new = found.get("metadata", {}).get("uid") not in (None, before["metadata"]["uid"])
        return (is_new or patch is not None) and content_of(found) == content_of(before)

    return is_right


def content_of(one: dict[str, Any]) -> Any:
    return content(one), one.get("endpoints")


@pytest.mark.parametrize("case", CASES)
def test_what_was_changed_is_put_right_and_told(here: Here, case: str) -> None:
    """Requests would go where somebody's slip sent them, or nowhere, until somebody noticed."""
    where, what = named(here, CASES[case][0]), CASES[case][1]
    is_right = change(here, where, what)
    changed_s = time.monotonic()
    wait(is_right, "the object as it was")
    took_s = time.monotonic() - changed_s
    name = where.rpartition("/")[2]
    is_gone = what is delete or what is unlabelled
    words = ("deleted, or its labels removed",) if is_gone else ("changed by kubectl-edit",)
    wait(lambda: here.told("Drifted", f"/{name}: ", *words, "put right"), "Drifted")
    wait(lambda: here.noted(name, *words, "put right"), "an Event")
    print(f"{case}: right after {took_s:.1f} s; {here.told('Drifted', f'/{name}: ', *words)}")


def test_it_is_put_right_while_the_broker_is_away_and_told_afterwards(here: Here, broker: Mosquitto) -> None:
    """An outage of the controller would leave every cluster open to slips, and nobody would learn of them."""
    broker.stop()
    try:
        away = {
            named(here, where): change(here, named(here, where), what)
            for where, what in (
                (DEPLOYMENT, delete),
                (ROUTE, all_to_one),
                (RECORDS, other_targets),
                (IMPORT, delete),
                (SLICE, other_address),
                (VERTICAL, delete),
                (CLAIMS, delete),
            )
        }
        changed_s = time.monotonic()
        wait(lambda: all(is_right() for is_right in away.values()), "all as it was")
        print(f"{len(away)} objects right after {time.monotonic() - changed_s:.1f} s without a broker")
        here.controller.report = None
    finally:
        broker.start()
    for where in away:
        name = where.rpartition("/")[2]
        assert here.noted(name, "put right")
        wait(partial(here.told, "Drifted", f"/{name}: ", "put right"), f"word of {name}", timeout_s=45.0)
