"""Images that cannot be pulled, on real control planes: in one cluster others serve, and a bad version is given up.

The controller is the product's, on a clock ten times as fast as the machine's: a margin of a minute and retries after
five would else make the test as long.
"""

from __future__ import annotations

import copy
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from federation.control import setbacks
from tests.testbed.cluster import MODELS_NAMESPACE
from tests.testbed.federation import Federation
from tests.testbed.fixtures import require_kubernetes, require_mosquitto
from tests.testbed.small_world import MODEL, POLICY, USERS

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(400)]
SPEED = 10.0
WARMUP_S = 30.0
STEP_PERCENT = 25
CHEAP, DEAR = "fra", "mad"
CELLS = ("Berlin", "Lyon")
DEPLOYMENTS = f"/apis/apps/v1/namespaces/{MODELS_NAMESPACE}/deployments"
PODS = f"/api/v1/namespaces/{MODELS_NAMESPACE}/pods"
GOOD, BAD = MODEL["spec"]["runtime"]["image"], "vllm/vllm-openai:v0.99.0-nowhere"
LOOK_S = 0.2
"""Of the machine's seconds, between two looks at everything."""


@pytest.fixture(scope="module")
def federation() -> Iterator[Federation]:
    require_kubernetes()
    require_mosquitto()
    with Federation((CHEAP, DEAR), interval_s=0.5, speed=SPEED) as running:
        yield running


def documents(image: str = GOOD) -> tuple[dict[str, Any], dict[str, Any]]:
    model, policy = copy.deepcopy(MODEL), copy.deepcopy(POLICY)
    model["spec"]["warmupSeconds"] = WARMUP_S
    model["spec"]["runtime"]["image"] = image
    policy["spec"]["traffic"] = {"stepPercent": STEP_PERCENT, "stepSeconds": 5}
    return model, policy


def pods(federation: Federation, name: str) -> list[dict[str, Any]]:
    return list(federation.planes[name].request("GET", PODS)["items"])


def ready(federation: Federation, name: str) -> Counter[str]:
    """Image -> replicas of it that are ready in a cluster, by its own API server."""
    found: Counter[str] = Counter()
    for pod in pods(federation, name):
        conditions = {one["type"]: one["status"] for one in pod.get("status", {}).get("conditions", ())}
        if conditions.get("Ready") == "True" and not pod["metadata"].get("deletionTimestamp"):
            found[pod["spec"]["containers"][0]["image"]] += 1
    return found


def waiting(federation: Federation, name: str) -> set[str]:
    """Why containers wait in a cluster, in its kubelets' words."""
    return {
        status["state"]["waiting"]["reason"]
        for pod in pods(federation, name)
        for status in pod.get("status", {}).get("containerStatuses", ())
        if "waiting" in status["state"]
    }


def served(federation: Federation) -> float:
    """Part of all requests that reach a ready replica with room for them."""
    each_rps = MODEL["spec"]["accelerators"][0]["requestsPerSecond"]
    sent_rps: dict[str, float] = dict.fromkeys(federation.planes, 0.0)
    for cell in CELLS:
        for name, share in federation.shares(cell).items():
            sent_rps[name] += share * USERS[cell][3]
    good_rps: float = sum(min(rps, each_rps * ready(federation, name).total()) for name, rps in sent_rps.items())
    return good_rps / sum(USERS[cell][3] for cell in CELLS)


def settled(federation: Federation) -> bool:
    """Whether what runs is what the plan wants in the end, and everybody is served by it."""
    explained = federation.get("/v1/explain/placement/chat-8b")["clusters"]
    wanted = {one["cluster"]: one["replicas"] for one in explained}
    return (
        wanted == {name: ready(federation, name).total() for name in federation.planes} and served(federation) > 0.999
    )


def follow(
    federation: Federation, until: Callable[[], bool], look: Callable[[], None], what: str, *, timeout_s: float
) -> float:
    """Call `look` again and again until `until` is true; gives after how many seconds of the machine."""
    started_s = time.monotonic()

    def look_and_ask() -> bool:
        look()
        return until()

    while not look_and_ask():
        assert time.monotonic() - started_s < timeout_s, f"no {what}: {federation.controller.log_tail(12)}"  # type: ignore[union-attr]
        time.sleep(LOOK_S)
    return time.monotonic() - started_s


def events(federation: Federation, reason: str) -> list[str]:
    return [one["message"] for one in federation.get("/v1/events")["items"] if one["reason"] == reason]


def test_others_serve_the_users_of_a_cluster_that_cannot_pull_and_it_gets_its_load_back_by_steps(
    federation: Federation, record_property: Callable[[str, object], None]
) -> None:
    """Users would wait for the cheapest cluster's replicas for as long as its registry is away, beside free devices."""
    cheap = federation.planes[CHEAP]
    cheap.miss_images(".*")
    federation.apply("chat.yaml", *documents())
    shares: list[tuple[float, float]] = []

    def measure() -> None:
        shares.append((time.monotonic(), served(federation)))

    took_s = follow(federation, lambda: shares[-1][1] > 0.999, measure, "whole service by others", timeout_s=90.0)
    lost = sum((after - at) * (1 - part) for (at, part), (after, _) in itertools.pairwise(shares)) / took_s
    assert ready(federation, CHEAP).total() == 0
    assert any("ImagePull" in one for one in events(federation, "ReplicasFailed")), events(federation, "ReplicasFailed")
    figures = {
        "others_serve_after_s": round(took_s * SPEED, 1),
        "warmup_and_margin_s": WARMUP_S + setbacks.MARGIN_S,
        "unserved_share_meanwhile": round(lost, 3),
    }
    print(json.dumps(figures))
    for key, value in figures.items():
        record_property(key, value)

    cheap.miss_images(BAD)
    told: list[int] = [0]
    berlin: list[float] = [0.0]

    def watch() -> None:
        part = served(federation)
        assert part > 0.999, f"a return that takes users from those who serve them: {part:.3f} of requests served"
        wanted = sum(count for count, _ in federation.deployments(CHEAP).values())
        if wanted != told[-1]:
            told.append(wanted)
        if (share := federation.shares("Berlin").get(CHEAP, 0.0)) != berlin[-1]:
            berlin.append(share)

    back_s = follow(
        federation,
        lambda: ready(federation, CHEAP).total() >= 4 and berlin[-1] > 0.9,
        watch,
        "return of the load",
        timeout_s=150.0,
    )
    print(json.dumps({"load_is_back_after_s": round(back_s * SPEED, 1), "told": told, "shares": berlin}))
    rises = [(old, new) for old, new in itertools.pairwise(told) if new > old]
    assert rises[0] == (0, 1), f"one is tried first: {told}"
    assert all(new <= max(1, 2 * old) for old, new in rises), f"then twice as many: {told}"
    steps = [new - old for old, new in itertools.pairwise(berlin)]
    assert max(steps) <= 2 * STEP_PERCENT / 100 + 0.01, f"looked at so often that it is two steps at most: {berlin}"


def test_a_version_that_starts_nowhere_is_given_up_and_the_one_before_serves_all(federation: Federation) -> None:
    """A slip in an image's name would take the model from all its users."""
    for plane in federation.planes.values():
        plane.miss_images(BAD)
    federation.wait(lambda: settled(federation), "the plan, carried out")
    before = {name: ready(federation, name)[GOOD] for name in federation.planes}
    federation.apply("chat.yaml", *documents(BAD))
    seen: list[tuple[float, int, int]] = []
    reasons: set[str] = set()

    def watch() -> None:
        counts = [ready(federation, name) for name in federation.planes]
        seen.append((served(federation), sum(one[GOOD] for one in counts), sum(one[BAD] for one in counts)))
        assert seen[-1][0] > 0.999, f"{seen[-1]} of requests served; {before}"
        for name in federation.planes:
            reasons.update(waiting(federation, name))

    took_s = follow(federation, lambda: bool(events(federation, "VersionRefused")), watch, "refusal", timeout_s=120.0)
    refused = events(federation, "VersionRefused")[-1]
    assert BAD in refused and "ImagePull" in refused and "The version before it stays" in refused
    assert reasons >= {"ErrImagePull", "ImagePullBackOff"}, "the case is the one that is meant"

    def restored() -> bool:
        found = [one for plane in federation.planes.values() for one in plane.request("GET", DEPLOYMENTS)["items"]]
        images = {one["spec"]["template"]["spec"]["containers"][0]["image"] for one in found}
        return images == {GOOD} and not any(waiting(federation, name) for name in federation.planes)

    follow(federation, restored, watch, "the version before, everywhere", timeout_s=60.0)
    assert all(bad == 0 for _, _, bad in seen), "the case is the one that is meant"
    assert min(old for _, old, _ in seen) == sum(before.values()), f"of {before} some were stopped"
    print(
        json.dumps(
            {
                "version_refused_after_s": round(took_s * SPEED, 1),
                "least_served_share": min(one[0] for one in seen),
                "least_ready_of_the_old": min(one[1] for one in seen),
                "looks": len(seen),
            }
        )
    )
