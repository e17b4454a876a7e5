"""The whole product where a cheaper cluster has enough devices free in sum, and no node that has them together."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.testbed import shapes
from tests.testbed.federation import Federation
from tests.testbed.fixtures import require_kubernetes, require_mosquitto
from tests.testbed.small_world import MODEL, POLICY, PRODUCT

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def federation() -> Iterator[Federation]:
    require_kubernetes()
    require_mosquitto()
    with Federation(("fra", "mad")) as running:
        yield running


def documents() -> tuple[dict[str, Any], dict[str, Any]]:
    """A model of four devices per replica, and a policy that asks for one replica at least."""
    model, policy = copy.deepcopy(MODEL), copy.deepcopy(POLICY)
    model["spec"]["accelerators"] = [{"product": PRODUCT, "count": 4, "minVramGiB": 20, "requestsPerSecond": 100}]
    policy["spec"]["availability"] = {"minReplicas": 1, "minRegions": 1}
    return model, policy


def test_a_fragmented_cluster_is_not_given_a_replica_until_a_node_has_room(federation: Federation) -> None:
    """A replica would wait for ever in the cheaper cluster, and its users with it."""
    plane = federation.planes["fra"]
    for number in (1, 2):
        shapes.occupy(plane, f"neighbour-{number}", f"fra-gpu-{number}", {"nvidia.com/gpu": 2})

    def fragmented() -> bool:
        view = next(one for one in federation.get("/v1/clusters")["items"] if one["name"] == "fra")
        return [(one["free"], one["largest_free"]) for one in view["pools"]] == [(4, 2)]

    federation.wait(fragmented, "report of what is free, in sum and on one node")
    federation.apply("chat.yaml", *documents())
    federation.wait(lambda: federation.ready("mad") == 1, "replica where a node has room")
    deadline_s = time.monotonic() + 8.0
    while time.monotonic() < deadline_s:
        assert federation.deployments("fra") == {}, "four devices are free there, but on no one node"
        time.sleep(0.2)
    why = federation.get("/v1/explain/placement/chat-8b")
    reason = next(one for one in why["clusters"] if one["cluster"] == "fra")
    assert reason["code"] == "NoDevices"
    assert "on any one node" in reason["reason"]

    plane.request("DELETE", "/api/v1/namespaces/default/pods/neighbour-1?gracePeriodSeconds=0")
    federation.wait(lambda: federation.ready("fra") == 1, "the cheaper replica, now that a node has room")
