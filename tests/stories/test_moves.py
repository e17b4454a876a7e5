"""Replicas on the move: what users and owners see while a cluster is emptied, dearer, smaller, or not heard at all."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from federation.wire import messages
from tests.testbed.fleet import POOL, Fleet
from tests.testbed.small_world import MODEL, POLICY

FLOOR = 3


@pytest.fixture
def moving(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet of its own, settled."""
    with Fleet(tmp_path) as fleet:
        assert fleet.apply("chat.yaml", MODEL, POLICY)[0] == 200
        fleet.until(fleet.is_settled, "placement")
        yield fleet


def ready(fleet: Fleet) -> dict[str, int]:
    """Cluster -> replicas that serve, asked of the clusters themselves."""
    return fleet.do(lambda: {name: sum(backend.ready().values()) for name, backend in fleet.backends.items()})


def follow(fleet: Fleet, done: Callable[[], bool], what: str, *, timeout_s: float = 20.0) -> None:
    """Wait for `done`, and meanwhile see that the floor holds and that shares go only to replicas that are ready."""
    deadline_s = time.monotonic() + timeout_s
    while not done():
        assert time.monotonic() < deadline_s, f"no {what}: {fleet.get('/v1/overview')['message']}; {ready(fleet)}"
        now = ready(fleet)
        assert sum(now.values()) >= FLOOR, f"below the floor: {now}"
        view = fleet.get("/v1/overview")
        assert view["unserved_rps"] <= 1e-6, "make before break: nobody is turned away"
        time.sleep(0.05)


def set_pool(fleet: Fleet, cluster: str, **changes: object) -> None:
    """The nodes of a cluster change."""
    pool: messages.PoolReport = msgspec.structs.replace(POOL, **changes)
    fleet.do(lambda: fleet.backends[cluster].set_pools((pool,)))


def test_a_drained_cluster_is_emptied_after_others_serve(moving: Fleet) -> None:
    """A drain would turn users away, or send residents out of their jurisdiction."""
    assert ready(moving)["fra"] == 7
    moving.request("POST", "/v1/clusters/fra/drain", b'{"reason": "leaving the region"}')
    follow(moving, lambda: ready(moving)["fra"] == 0, "end of the drain")
    moving.until(moving.is_settled, "word of it")
    assert "draining: leaving the region" in moving.get("/v1/clusters/fra")["reason"]
    residents = [row for row in moving.get("/v1/routes")["items"] if row["country"] in ("DE", "FR")]
    assert {one["cluster"] for row in residents for one in row["routes"]} == {"mad"}, "residency holds in a drain"


def test_a_drain_of_the_last_that_may_serve_its_users_needs_a_persons_word(moving: Fleet) -> None:
    """Two drains that each look harmless would leave Europe's users to nobody, as nobody else may serve them."""
    path, order = "/v1/clusters/{}/drain", b'{"reason": "leaving the region"}'
    moving.request("POST", path.format("mad"), order)
    status, _, body = moving.request("POST", path.format("fra"), order)
    refused = json.loads(body)
    assert (status, refused["code"]) == (409, "NeedsForce")
    assert "44.0 of 64.0 requests per second for chat-8b unserved, 0.0 today" in refused["message"]
    assert "--force" in refused["hint"]
    assert not moving.get("/v1/clusters/fra")["draining"]
    assert moving.request("POST", path.format("iad"), order)[0] == 200, "others can serve its users"
    assert moving.request("POST", path.format("fra") + "?force=maybe", order)[0] == 400
    assert moving.request("POST", path.format("fra") + "?force=true", order)[0] == 200
    assert moving.get("/v1/clusters/fra")["draining"]


def test_load_moves_away_from_a_price_that_rises(moving: Fleet) -> None:
    """The fleet would go on paying a price that has quadrupled."""
    set_pool(moving, "fra", usd_per_device_hour=4.0)
    follow(moving, lambda: ready(moving)["mad"] >= 5 and moving.is_settled(), "move to Madrid")
    plan = moving.get("/v1/plans?limit=50")["items"]
    assert any("saves" in one["summary"] for one in plan), [one["summary"] for one in plan]


def test_devices_that_vanish_are_replaced(moving: Fleet) -> None:
    """A node pool that is taken away must not leave its users waiting for a person."""
    set_pool(moving, "fra", allocatable=2, free=2)
    moving.until(lambda: ready(moving)["fra"] <= 2 and sum(ready(moving).values()) >= 8, "replicas elsewhere")
    moving.until(moving.is_settled, "all served")


def test_a_cluster_that_was_never_heard_is_unknown_and_gets_nothing(tmp_path: Path) -> None:
    """Replicas would be ordered in a cluster that does not answer, and its users served by nobody."""
    with Fleet(tmp_path, silent=("fra",)) as fleet:
        assert fleet.apply("chat.yaml", MODEL, POLICY)[0] == 200
        fleet.until(fleet.is_settled, "placement without it")
        cluster = fleet.get("/v1/clusters/fra")
        assert cluster["worst_state"] == "unknown"
        assert cluster["accelerators"] is None, "unknown is not zero"
        assert cluster["pools"][0]["allocatable"] is None
        assert {one["cluster"] for one in fleet.get("/v1/placements")["items"]} == {"iad", "mad"}
        why = {one["cluster"]: one["reason"] for one in fleet.get("/v1/explain/placement/chat-8b")["clusters"]}
        assert "held" in why["fra"]


def test_an_explanation_says_which_placement_it_explains(moving: Fleet) -> None:
    """The newest solve would be shown as the plan's reasons, though the plan keeps its replicas elsewhere."""
    spec = POLICY["spec"] | {"disruption": {"minGainPercent": 90}}
    assert moving.apply("chat.yaml", MODEL, POLICY | {"spec": spec})[0] == 200
    set_pool(moving, "fra", usd_per_device_hour=1.2)
    path = "/v1/explain/placement/chat-8b"
    moving.until(lambda: moving.get(path)["kept_because"], "a solve that is not adopted")
    kept, newest = moving.get(path), moving.get(path + "?of=newest")
    assert (kept["of"], newest["of"]) == ("plan", "newest")
    assert "90" in kept["kept_because"] and newest["kept_because"] == kept["kept_because"]
    assert _counts(kept) == ready(moving), "of the plan in force"
    assert _counts(newest)["mad"] > _counts(kept)["mad"], "the newest solve moves to Madrid"
    assert moving.request("GET", path + "?of=nothing")[0] == 400


def _counts(explanation: dict[str, Any]) -> dict[str, int]:
    """Cluster -> replicas."""
    return {one["cluster"]: one["replicas"] for one in explanation["clusters"]}
