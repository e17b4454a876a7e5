"""Mistakes in policies against a fleet that serves: refused with what they would do; forced, carried out in steps."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from federation.wire import messages
from tests.testbed.fleet import Fleet
from tests.testbed.small_world import MODEL, PLACES, POLICY, USERS, cluster_document

Document = dict[str, Any]
Handing = tuple[str, str, list[Document]]
"""Method, file and documents; a deletion has none."""
SECOND = {**MODEL, "metadata": {"name": "other"}}


def with_(document: Document, path: str, value: Any) -> Document:
    """A copy with one field changed; `path` as `spec.slo.p95LatencyMs`."""
    changed = copy.deepcopy(document)
    at = changed
    *way, last = path.split(".")
    for step in way:
        at = at[int(step)] if isinstance(at, list) else at.setdefault(step, {})
    at[last] = value
    return changed


def model(path: str, value: Any) -> Handing:
    return "POST", "chat.yaml", [with_(MODEL, path, value), POLICY]


def policy(path: str, value: Any) -> Handing:
    return "POST", "chat.yaml", [MODEL, with_(POLICY, path, value)]


def clusters(**changed: Document | None) -> Handing:
    documents = {name: cluster_document(name) for name in PLACES} | changed
    return "POST", "clusters.yaml", [one for one in documents.values() if one is not None]


HARMFUL = [
    pytest.param(("DELETE", "chat.yaml", []), "chat-8b would go to nothing: 8 replicas", id="deleted-file"),
    pytest.param(("POST", "chat.yaml", [POLICY]), "chat-8b would go to nothing", id="deleted-model"),
    pytest.param(("POST", "chat.yaml", [MODEL]), "chat-8b would go to nothing", id="deleted-policy"),
    pytest.param(
        ("POST", "chat.yaml", [MODEL, SECOND, with_(POLICY, "spec.models.matchNames", ["other"])]),
        "chat-8b would go to nothing",
        id="deselected-model",
    ),
    pytest.param(
        ("POST", "chat.yaml", [MODEL, with_(POLICY, "spec.models.matchNames", ["chat-8"])]),
        "no Model document names chat-8",
        id="typo-in-a-selector-tells-its-cause",
    ),
    pytest.param(policy("spec.models.matchNames", ["chat-8bb"]), "chat-8b would go to nothing", id="typo-in-a-name"),
    pytest.param(model("spec.accelerators.0.minVramGiB", 900), "chat-8b would go to nothing", id="vram-beyond-all"),
    pytest.param(model("spec.accelerators.0.product", "NVIDIA-L40S"), "chat-8b would go to nothing", id="product-typo"),
    pytest.param(
        policy("spec.residency", [{"clustersIn": {"jurisdictions": ["US"]}}]),
        "it would start 7 and stop 6 replicas of a fleet of 8",
        id="residency-of-another-continent",
    ),
    pytest.param(model("spec.accelerators.0.requestsPerSecond", 10_000), "stop 5 replicas", id="thousand-fold"),
    pytest.param(model("spec.targetUtilisation", 0.01), "requests per second for chat-8b unserved", id="utilisation"),
    pytest.param(policy("spec.availability.minReplicas", 24), "it would start 16", id="min-replicas-beyond-need"),
    pytest.param(
        policy("spec.availability.pinned", [{"cluster": "mad", "replicas": 8}]),
        "it would start 8",
        id="pinned-too-much",
    ),
    pytest.param(
        clusters(**{name: with_(cluster_document(name), "spec.jurisdictions", ["US"]) for name in ("fra", "iad")}),
        "it would start 6 and stop 6 replicas",
        id="jurisdictions-of-a-cluster",
    ),
    pytest.param(policy("spec.availability.minReplicas", 1000), "it would start 16", id="min-replicas-beyond-stock"),
    pytest.param(policy("spec.objective.unservedRequestUsdPer1000", 0), "chat-8b", id="unserved-costs-nothing"),
]
BROKEN = [
    pytest.param(policy("spec.models.matchNames", []), 422, "is an empty list", id="empty-selector"),
    pytest.param(
        clusters(fra=None), 409, "cluster fra would leave the catalogue with 7 replicas", id="deleted-cluster"
    ),
    pytest.param(model("spec.slo.p95LatencyMs", 1), 409, "leaves nothing of p95LatencyMs 1", id="objective-of-1-ms"),
    pytest.param(
        policy("spec.residency.0.clustersIn.jurisdictions", ["EUU"]),
        409,
        "no cluster declares EUU",
        id="jurisdiction-typo",
    ),
    pytest.param(
        policy("spec.availability.pinned", [{"cluster": "frb", "replicas": 1}]),
        409,
        "no Cluster document names frb",
        id="pinned-to-nowhere",
    ),
    pytest.param(model("spec.runtime.image", ""), 422, "image is ''", id="no-image"),
    pytest.param(
        ("POST", "more.yaml", [SECOND, with_(POLICY, "metadata.name", "more")]), 409, "already obeys", id="two-policies"
    ),
]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet that serves everyone."""
    with Fleet(tmp_path_factory.mktemp("guard")) as fleet:
        assert fleet.apply("chat.yaml", MODEL, POLICY)[0] == 200
        settle(fleet)
        yield fleet


def settle(fleet: Fleet) -> None:
    fleet.until(fleet.is_settled, "placement")
    fleet.until(lambda: all(routed(fleet, cell) for cell in USERS), "routes of all users")


def routed(fleet: Fleet, cell: str) -> bool:
    return fleet.request("GET", f"/v1/route?model=chat-8b&cell={quote(cell)}")[0] == 200


def hand_in(fleet: Fleet, handing: Handing, force: str = "") -> tuple[int, Any]:
    method, name, documents = handing
    query = f"force=true&reason={quote(force)}" if force else ""
    if method == "DELETE":
        status, _, body = fleet.request("DELETE", f"/v1/policies/{name}?{query}")
    else:
        payload = yaml.safe_dump_all(documents).encode()
        status, _, body = fleet.request("POST", f"/v1/policies?name={name}&{query}", payload)
    return status, json.loads(body)


def state(fleet: Fleet) -> Any:
    """What agents are told, what runs, and which revisions are in force."""
    plan = fleet.do(lambda: fleet.controller.hub.plan)
    ready = fleet.do(lambda: {name: dict(backend.ready()) for name, backend in fleet.backends.items()})
    files = {one["name"]: one["revision"] for one in fleet.get("/v1/policies")["items"] if one["revision"]}
    return plan.desired_by_key(), plan.target_by_key(), ready, files


@pytest.mark.parametrize(("handing", "says"), HARMFUL)
def test_a_mistake_is_refused_with_what_it_would_do(serving: Fleet, handing: Handing, says: str) -> None:
    """One slip of a hand would take the service from users within seconds."""
    before = state(serving)
    status, answer = hand_in(serving, handing)
    assert status == 409, answer
    assert answer["code"] == "NeedsForce"
    told = " ".join(one["message"] for one in answer["problems"])
    assert says in told, told
    assert "--force --reason" in answer["hint"]
    assert state(serving) == before
    assert serving.is_settled()


def test_a_refusal_points_at_the_document_that_does_the_harm(serving: Fleet) -> None:
    """Who hands in a file of twenty documents would read all of them again."""
    wrong = with_(POLICY, "spec.objective.unservedRequestUsdPer1000", 0)
    payload = yaml.safe_dump_all([MODEL, wrong])
    status, answer = hand_in(serving, ("POST", "chat.yaml", [MODEL, wrong]))
    assert status == 409
    line = next(one["line"] for one in answer["problems"] if "chat-8b" in one["message"])
    assert line == len(yaml.safe_dump(MODEL).splitlines()) + 2, payload


@pytest.mark.parametrize(("handing", "status", "says"), BROKEN)
def test_a_mistake_that_no_force_allows_is_refused(serving: Fleet, handing: Handing, status: int, says: str) -> None:
    """What can never work would be in force because somebody was in a hurry."""
    before = state(serving)
    given, answer = hand_in(serving, handing, "in a hurry")
    assert given == status, answer
    assert says in " ".join(one["message"] for one in answer["problems"]), answer
    assert state(serving) == before
    assert "more.yaml" not in {one["name"] for one in serving.get("/v1/policies")["items"]}, "who was refused knows"


def test_what_does_less_than_it_says_is_taken_and_told(serving: Fleet) -> None:
    """Who asks for what there is not would believe to have it."""
    doubtful = copy.deepcopy(POLICY)
    doubtful["spec"]["models"]["matchNames"] = ["chat-8b", "chat-8bb"]
    doubtful["spec"]["availability"] = {"minReplicas": 4, "minRegions": 4}
    try:
        status, answer = hand_in(serving, ("POST", "chat.yaml", [MODEL, doubtful]))
        assert status == 200, answer
        told = [one["message"] for one in answer["warnings"]]
        assert told == ["minRegions 4: clusters are in 3 regions", "no Model document names chat-8bb"]
        assert all(one["line"] > 1 for one in answer["warnings"])
        assert any("chat-8bb" in one for one in messages_of(serving, "PolicyDoubtful"))
        files = {one["name"]: one for one in serving.get("/v1/policies")["items"]}
        assert files["chat.yaml"]["warnings"] == answer["warnings"]
    finally:
        assert serving.apply("chat.yaml", MODEL, POLICY)[0] == 200
        settle(serving)


def desired(fleet: Fleet) -> int:
    """Replicas of the model that agents are told to have."""
    plan = fleet.do(lambda: fleet.controller.hub.plan)
    return sum(count for key, count in plan.desired_by_key().items() if key[0] == "chat-8b")


def carrying_out(fleet: Fleet) -> str:
    files: list[dict[str, str]] = fleet.get("/v1/policies")["items"]
    return next((one["carrying_out"] for one in files if one["name"] == "chat.yaml"), "")


def messages_of(fleet: Fleet, reason: str) -> list[str]:
    return [one["message"] for one in fleet.get("/v1/events")["items"] if one["reason"] == reason]


def stop_reasons(fleet: Fleet) -> set[str]:
    """Why agents are told to stop replicas."""
    plan = fleet.do(lambda: fleet.controller.hub.plan)
    return {one.stop_reason for one in plan.desired if one.stop_reason}


def runs(fleet: Fleet) -> int:
    """Replicas that are ready, whatever anybody wants."""
    return sum(sum(backend.ready().values()) for backend in fleet.backends.values())


@pytest.mark.slow
def test_a_forced_deletion_goes_in_steps_and_can_be_undone(serving: Fleet) -> None:
    """A model would be gone before who forced it by mistake has read the answer."""
    assert hand_in(serving, ("DELETE", "chat.yaml", []), "the model is retired")[0] == 200
    seen = [desired(serving)]

    def fell() -> bool:
        seen.append(desired(serving))
        return seen[-1] <= 6

    serving.until(fell, "two steps")
    assert all(routed(serving, cell) for cell in USERS), "what is left goes on to serve"
    serving.until(lambda: runs(serving) <= 6, "agents that do as they are told")
    assert runs(serving) >= 5, "in steps too"
    assert {before - after for before, after in itertools.pairwise(seen)} <= {0, 1}, "one replica a step"
    assert "withdrawn by api: the model is retired" in stop_reasons(serving)
    assert carrying_out(serving).startswith("carried out in steps")
    status, _, told = serving.request("GET", "/v1/explain/placement/chat-8b")
    assert status == 409 and "chat-8b is withdrawn by api: the model is retired" in json.loads(told)["message"]
    assert "forced by api (the model is retired)" in messages_of(serving, "PolicyForced")[-1]
    assert serving.apply("chat.yaml", MODEL, POLICY)[0] == 200, "what brings users back needs no force"
    settle(serving)
    assert min(seen) >= 5, "what was left served again at once"
    serving.until(lambda: not carrying_out(serving), "the end of the order")
    assert "is undone by newer documents" in messages_of(serving, "ForcedChangeDone")[-1]


@pytest.mark.slow
def test_a_forced_budget_takes_users_off_as_slowly_as_replicas(serving: Fleet) -> None:
    """Most users would be turned away at once, beside replicas that are ready for them, with no time to undo it."""
    tight = with_(policy("spec.budget", {"maxUsdPerHour": 1.2})[2][1], "spec.availability", {})
    assert hand_in(serving, ("POST", "chat.yaml", [MODEL, tight]), "no money")[0] == 200
    worst: list[tuple[int, float]] = []

    def fell() -> bool:
        shares = serving.do(lambda: [sum(one.share for one in row.now) for row in serving.controller.hub.routes.routes])
        worst.append((desired(serving), min(shares)))
        return worst[-1][0] <= 6

    serving.until(fell, "two steps")
    assert min(share for _, share in worst) >= 0.75, worst
    assert serving.apply("chat.yaml", MODEL, POLICY)[0] == 200
    settle(serving)
    serving.until(lambda: not carrying_out(serving) and desired(serving) == 8, "the fleet as it was")


@pytest.mark.slow
def test_a_forced_change_halts_when_users_suffer(serving: Fleet) -> None:
    """Who forces a change believes something; when it is not so, the rest of the fleet must not follow."""
    wrong = model("spec.accelerators.0.requestsPerSecond", 10_000)
    assert hand_in(serving, wrong, "the new engine is faster")[0] == 200
    serving.until(lambda: desired(serving) == 7, "the first step")
    bad = messages.ServedSample(model="chat-8b", requests_per_second=20.0, error_share=0.5)
    backend = serving.backends["iad"]
    serving.do(lambda: setattr(backend, "_served", lambda: (bad,)))
    try:
        serving.until(lambda: carrying_out(serving).startswith("halted"), "the halt")
        stands = desired(serving)
        assert stands >= 5
        assert "50.0 % of requests for chat-8b fail" in messages_of(serving, "ForcedChangeHalted")[-1]
        serving.run(asyncio.sleep(4.0))
        assert desired(serving) == stands, "nothing more is stopped"
        assert hand_in(serving, wrong, "errors are of something else")[0] == 200
        assert not carrying_out(serving).startswith("halted"), "a person lets it go on"
        assert messages_of(serving, "ForcedChangeResumed")
    finally:
        serving.do(lambda: setattr(backend, "_served", tuple))
    assert serving.apply("chat.yaml", MODEL, POLICY)[0] == 200
    settle(serving)
    serving.until(lambda: not carrying_out(serving) and desired(serving) == 8, "the fleet as it was")


@pytest.mark.slow
def test_a_directory_forces_by_naming_the_digest(serving: Fleet) -> None:
    """Who works by files in Git alone could never retire a model."""
    path = serving.policies / "retired.yaml"
    both = [with_(MODEL, "metadata.name", "retired"), with_(POLICY, "metadata.name", "retired")]
    both[1]["spec"]["models"]["matchNames"] = ["retired"]
    path.write_text(yaml.safe_dump_all(both))

    def told() -> Any:
        return next((one for one in serving.get("/v1/policies")["items"] if one["name"] == "retired.yaml"), None)

    def placed() -> int:
        plan = serving.do(lambda: serving.controller.hub.plan)
        return sum(count for key, count in plan.desired_by_key().items() if key[0] == "retired")

    try:
        serving.until(lambda: placed() >= 3, "its floor")
        path.write_text(yaml.safe_dump(both[0]))
        serving.until(lambda: told()["problems"], "the refusal")
        assert "retired would go to nothing" in told()["problems"][0]["message"]
        hint = told()["problems"][0]["hint"]
        assert placed() >= 3
        line = hint.partition("metadata.annotations: ")[2]
        key, _, value = line.partition(": ")
        stale = with_(both[0], "metadata.annotations", {key: "sha256:000000000000 old word"})
        path.write_text(yaml.safe_dump(stale))
        serving.until(lambda: len([m for m in messages_of(serving, "PolicyRefused") if "retired" in m]) >= 2, "again")
        assert placed() >= 3, "the word for another content allows nothing"
        allowed = with_(both[0], "metadata.annotations", {key: value.strip('"').replace("REASON", "nobody asks")})
        path.write_text(yaml.safe_dump(allowed))
        serving.until(lambda: not told()["problems"], "acceptance")
        serving.until(lambda: placed() == 0, "its end", timeout_s=30.0)
        assert any("directory (nobody asks)" in one for one in messages_of(serving, "PolicyForced"))
    finally:
        path.unlink()
        hand_in(serving, ("DELETE", "retired.yaml", []), "the test ends")
