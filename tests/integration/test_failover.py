"""The main job on real components: three real control planes, real MQTT, the product's own processes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.testbed.cluster import MODELS_NAMESPACE
from tests.testbed.crds import find_crds, install
from tests.testbed.federation import Federation
from tests.testbed.fixtures import require, require_kubernetes, require_mosquitto
from tests.testbed.small_world import MODEL, POLICY

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def federation() -> Iterator[Federation]:
    require_kubernetes()
    require_mosquitto()
    definitions = require(find_crds)
    with Federation() as running:
        for plane in running.planes.values():
            install(plane, definitions)
        yield running


def placed(federation: Federation) -> bool:
    """Whether all that is wanted is ready, and everyone is served."""
    overview = federation.get("/v1/overview")
    model = next((one for one in overview["models"] if one["name"] == "chat-8b"), None)
    return bool(
        model
        and model["replicas_desired"] >= 3
        and model["replicas_ready"] == model["replicas_desired"]
        and len(overview["cells"]) == 3
        and overview["unserved_rps"] < 0.01
    )


def settled(federation: Federation) -> bool:
    """Whether every share is where the plan wants it."""
    shares = [one for row in federation.get("/v1/routes")["items"] for one in row["routes"]]
    return bool(shares) and all(abs(one["share"] - one["target_share"]) < 0.001 for one in shares)


def test_a_policy_becomes_ready_replicas_that_are_explained(federation: Federation) -> None:
    """A policy would be applied and nothing run, or run in the wrong place, and nobody could say why."""
    federation.apply("chat.yaml", MODEL, POLICY)
    federation.wait(lambda: placed(federation), "placement")
    assert federation.ready("fra") >= 3, "Berlin's 30 requests per second must stay in the EU, and fra is cheapest"
    assert sum(federation.shares("Berlin").get(name, 0.0) for name in ("fra", "mad")) == pytest.approx(1.0)
    assert federation.ready("mad") + federation.ready("iad") >= 1, "two regions at least"
    pods = federation.planes["fra"].request("GET", "/api/v1/namespaces/isochrone-models/pods")["items"]
    assert {pod["spec"]["nodeName"] for pod in pods} <= {"fra-gpu-1", "fra-gpu-2"}
    limits = pods[0]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"
    why = federation.get("/v1/explain/placement/chat-8b")
    reasons = {one["cluster"]: one for one in why["clusters"]}
    assert reasons["fra"]["code"] == "Placed"
    assert "Berlin" in reasons["fra"]["reason"]
    assert all(one["reason"] for one in reasons.values())
    rtts = federation.get("/v1/cells")["items"]
    sources = {route["latency_source"] for cell in rtts for row in cell["demand"] for route in row["routes"]}
    assert all(sources), "every latency names its source"


def test_routes_in_every_cluster_bear_the_plans_weights(federation: Federation) -> None:
    """The plan would be right, and the requests of every user go where somebody's YAML once sent them."""
    federation.wait(lambda: placed(federation) and settled(federation), "shares that arrived")
    path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{MODELS_NAMESPACE}/httproutes/chat-8b"
    for name, cell in (("fra", "Berlin"), ("mad", "Lyon"), ("iad", "New York")):

        def follows(name: str = name, cell: str = cell) -> bool:
            rule = federation.planes[name].request("GET", path)["spec"]["rules"][-1]
            weights = {one["name"][len("chat-8b-") :].rpartition("-")[0]: one["weight"] for one in rule["backendRefs"]}
            found = {cluster: weight / sum(weights.values()) for cluster, weight in weights.items() if weight}
            return found == pytest.approx(federation.shares(cell), abs=0.001)

        federation.wait(follows, f"HTTPRoute in {name} with the plan's weights")


def test_a_lost_cluster_is_left_at_once_replaced_later_and_welcomed_back_gently(federation: Federation) -> None:
    """Users would wait for a dead region, replicas would be deleted when it returns, or it would be flooded."""
    federation.wait(lambda: placed(federation), "placement")
    before = federation.pods("fra")
    federation.wait(lambda: settled(federation), "shares that arrived")
    usual = federation.shares("Berlin")["fra"]
    floor = 3
    federation.planes["fra"].kill_api_server()
    federation.agents["fra"].kill()
    killed_s = time.monotonic()

    def gone() -> bool:
        phases = {one["name"]: one["phase"] for one in federation.get("/v1/clusters")["items"]}
        return bool(phases["fra"] != "ready")

    federation.wait(gone, "detection", timeout_s=10.0)
    detected_s = time.monotonic()
    federation.wait(lambda: federation.shares("Berlin").get("fra", 0.0) == 0.0, "reroute", timeout_s=10.0)
    cycle_s = federation.interval_s / 2
    assert time.monotonic() - detected_s <= 2 * cycle_s + 1.0, "two cycles, and a second for a busy machine"
    target = federation.wait(
        lambda: federation.ready("mad") if federation.ready("mad") + federation.ready("iad") >= 5 else 0,
        "replicas elsewhere",
    )
    waited_s = 3 * federation.interval_s
    assert time.monotonic() - killed_s >= waited_s - 1.0, "not before an agent that restarts would be back"
    assert target >= 3, "residency holds in failover: Berlin's replicas are in Madrid, not in Ashburn"
    assert federation.shares("Berlin").keys() <= {"mad"}

    federation.planes["fra"].restart_api_server()
    assert federation.pods("fra") == before, "what runs in a lost cluster is left alone"
    federation.start_agent("fra")
    seen: list[float] = []

    def watch() -> bool:
        ready = sum(federation.ready(name) for name in federation.planes)
        assert ready >= floor, f"{ready} ready replicas, the floor is {floor}"
        share = federation.shares("Berlin").get("fra", 0.0)
        if not seen or seen[-1] != share:
            seen.append(share)
        return share >= usual - 0.01

    federation.wait(watch, "return", timeout_s=90.0)
    steps = [after - earlier for earlier, after in itertools.pairwise(seen)]
    limit = POLICY["spec"]["traffic"]["stepPercent"] / 100
    assert len(seen) >= 4, f"load came back in {seen}"
    assert max(steps) <= 2 * limit + 0.01, f"polled every 0.1 s, so at most two steps at once: {seen}"
    survivors = set(before.items()) & set(federation.pods("fra").items())
    assert len(survivors) >= 3, "the replicas that came back were kept, not deleted and made again"


def test_an_emptied_broker_is_refilled_and_no_pod_restarts(federation: Federation) -> None:
    """A broker restart would leave agents without orders, or restart every replica."""
    federation.wait(lambda: placed(federation), "placement")
    time.sleep(6 * federation.interval_s)
    pods = {name: federation.pods(name) for name in federation.planes}
    plan = federation.get("/v1/overview")["generation"]
    federation.broker.restart_empty()
    started_s = time.monotonic()

    def told() -> bool:
        clusters = federation.get("/v1/clusters")["items"]
        return all(one["phase"] == "ready" and one["ack"] and one["ack"]["ok"] for one in clusters) and bool(
            retained(federation.broker.port, len(federation.planes))
        )

    federation.wait(told, "refill", timeout_s=30.0)
    reconnect_s = 2.0  # the first two steps of the agents' and the controller's jittered backoff
    assert time.monotonic() - started_s <= 2 * federation.interval_s + reconnect_s + 3.0
    assert {name: federation.pods(name) for name in federation.planes} == pods
    assert federation.get("/v1/overview")["generation"] == plan, "an emptied broker is no reason for a new plan"


def retained(port: int, count: int) -> bool:
    """Whether the broker holds a desired state for every cluster."""
    found: set[str] = set()
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.on_message = lambda _client, _data, message: found.add(message.topic)
    client.connect("127.0.0.1", port)
    client.subscribe("isochrone/v1/+/desired")
    deadline_s = time.monotonic() + 1.0
    while time.monotonic() < deadline_s and len(found) < count:
        client.loop(0.05)
    client.disconnect()
    return len(found) == count
