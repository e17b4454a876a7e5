"""The API over real sockets: who may ask, what comes back, and what a refusal says."""

from __future__ import annotations

import http.client
import json
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import jsonschema
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from federation.aiokit import http as http_bounds
from federation.api.access import COOKIE, OPEN_PATHS
from federation.api.openapi import OPERATIONS
from federation.api.server import STREAM_SPACING_S
from federation.state.keys import ModelCell
from federation.state.reduce import Note
from federation.wire.messages import ReplicaEndpoint
from tests.testbed.fleet import Fleet
from tests.testbed.small_world import MODEL, POLICY, TOKEN

READS = sorted({one.path for one in OPERATIONS if one.method == "get"})
NAMES = {"/v1/clusters/": "fra", "/v1/models/": "chat-8b", "/v1/cells/": "Berlin"}


def filled(path: str, plan: int = 1) -> str:
    """A path of the document with names that exist."""
    path = path.replace("/v1/plans/{name}", f"/v1/plans/{plan}")
    for prefix, name in NAMES.items():
        if path.startswith(prefix):
            return re.sub(r"\{\w+\}", name, path)
    return path.replace("{model}", "chat-8b").replace("{cell}", "Berlin")


@pytest.mark.parametrize("path", [*READS, "/v1/stream", "/metrics", "/openapi.json", "/v1/nothing"])
@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Cookie": f"{COOKIE}=wrong"}])
def test_nothing_is_told_to_who_has_no_token(fleet: Fleet, path: str, headers: dict[str, str]) -> None:
    """Anybody who reaches the port could read the fleet, or order a drain."""
    status, answered, body = fleet.request("GET", filled(path), headers=headers)
    assert status == 401
    assert answered["WWW-Authenticate"] == 'Bearer realm="isochrone"'
    assert json.loads(body)["code"] == "Unauthorized"
    assert TOKEN not in body.decode()


QUERIES = {"/v1/latency": "?cell=Berlin", "/v1/route": "?model=chat-8b&lat=52.5&lon=13.4"}
"""What is needed to ask at all."""


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one.method != "get"], ids=lambda one: one.path)
def test_a_cookie_changes_nothing(fleet: Fleet, operation: Any) -> None:
    """Else any page that a signed-in person opens could drain a cluster."""
    path = filled(operation.path).replace("{name}", "chat.yaml")
    body = b"" if operation.method == "post" else None
    status, _, _ = fleet.request(operation.method.upper(), path, body, headers={"Cookie": f"{COOKIE}={TOKEN}"})
    assert status == 401


def test_a_browser_signs_in_by_the_link_and_reads_by_its_cookie(fleet: Fleet) -> None:
    """The link that the controller prints would not open the map."""
    status, headers, _ = fleet.request("GET", f"/signin?token={TOKEN}", headers={})
    assert status == 303
    assert headers["Location"] == "/"
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert fleet.request("GET", "/v1/overview", headers={"Cookie": cookie.partition(";")[0]})[0] == 200
    assert fleet.request("GET", "/signin?token=wrong", headers={})[0] == 401


@pytest.mark.parametrize("path", sorted(OPEN_PATHS - {"/signin"}))
def test_every_answer_carries_the_strict_headers(fleet: Fleet, path: str) -> None:
    """A name in the fleet could run script in an operator's browser."""
    _, headers, _ = fleet.request("GET", path, headers={})
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_health_and_readiness_are_open(fleet: Fleet) -> None:
    """Kubernetes' probes, which carry no token, would restart a controller that is well."""
    assert fleet.request("GET", "/healthz", headers={})[::2] == (200, b"ok\n")
    assert fleet.request("GET", "/readyz", headers={})[::2] == (200, b"ok\n")


async def _start_engine(fleet: Fleet) -> None:
    """One replica of fra whose engine speaks as vLLM does."""

    async def metrics(request: web.Request) -> web.Response:
        return web.Response(text='vllm:num_requests_running{model_name="m"} 3.0\n')

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    server = TestServer(app)
    await server.start_server()
    fleet._ending.push_async_callback(server.close)
    assert server.port is not None
    endpoint = ReplicaEndpoint(model="chat-8b", address="127.0.0.1", port=server.port)
    fleet.backends["fra"]._endpoints = lambda ready: (endpoint,)


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one.method == "get"], ids=lambda one: one.path)
def test_the_openapi_document_says_what_is_answered(fleet: Fleet, operation: Any) -> None:
    """A client generated from the document would fail on the answer."""
    document = fleet.get("/openapi.json")
    newest = fleet.get("/v1/plans?limit=1")["items"][0]["generation"]
    if operation.path == "/v1/engines":
        fleet.run(_start_engine(fleet))
        fleet.until(lambda: fleet.get("/v1/engines")["items"], "what an engine says")
    answer = fleet.get(filled(operation.path, newest) + QUERIES.get(operation.path, ""))
    described = document["paths"][operation.path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(answer, {**described, "components": document["components"]})
    if operation.listed:
        assert answer["items"], "a list that is empty proves nothing"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("GET", "/v1/nothing", None, 404, "no such path: /v1/nothing"),
        ("GET", "/v1/clusters/nope", None, 404, "cluster nope not found"),
        ("GET", "/v1/plans/99999", None, 404, "plan 99999 not found"),
        ("GET", "/v1/plans?limit=many", None, 400, "limit='many': expected a number"),
        ("GET", "/v1/routes?model=nope", None, 200, ""),
        ("GET", "/v1/routes?model=nope&lat=1&lon=1", None, 404, "no routes for model nope"),
        ("GET", "/v1/routes?lat=1&lon=1", None, 404, "lat and lon need a model"),
        ("GET", "/v1/plans?limit=", None, 400, "limit='': expected a number"),
        ("GET", "/v1/plans?limit=0", None, 400, "expected a number from 1 to 1000"),
        ("GET", "/v1/plans?limit=1.5", None, 400, "not a whole number"),
        ("GET", "/v1/plans?limit=1_0", None, 400, "expected a number"),
        ("GET", "/v1/route?lat=1&lon=1", None, 400, "the parameter model is missing"),
        ("GET", "/v1/route?model=chat-8b&country=", None, 400, "is not a country"),
        ("GET", "/v1/route?model=chat-8b&h3=8fffffffffffffff", None, 404, "is not an H3 cell"),
        ("GET", "/v1/routes?model=chat-8b&lat=91&lon=0", None, 400, "expected a number from -90 to 90"),
        ("GET", "/v1/routes?model=chat-8b&lat=nan&lon=0", None, 400, "expected a number"),
        ("GET", "/v1/route?model=nope&lat=1&lon=1", None, 404, "no routes for model nope"),
        ("GET", "/v1/route?model=chat-8b&lat=1", None, 404, "needed together"),
        ("GET", "/v1/route?model=chat-8b&h3=zz", None, 400, "is not an H3 index"),
        ("GET", "/v1/route?model=chat-8b&cell=Atlantis", None, 404, "nobody serves model chat-8b there"),
        ("GET", "/v1/explain/placement/nope", None, 404, "model nope is not placed"),
        ("GET", "/v1/explain/placement/chat-8b?cluster=nope", None, 404, "cluster nope not found"),
        ("PUT", "/v1/clusters", b"", 405, "/v1/clusters does not support PUT"),
        ("POST", "/v1/policies?name=x.txt", b"a: 1", 400, "is not the name of a policy file"),
        ("POST", "/v1/policies?name=x.yaml", b"kind: Modell", 422, "x.yaml:1:1: apiVersion is missing"),
        ("POST", "/v1/policies?name=x.yaml", b"#" * 1_100_000, 413, "longer than 1 MiB"),
        ("POST", "/v1/diff?name=x.yaml", b"\xff\xfe", 422, "x.yaml:1:1"),
        ("POST", "/v1/clusters/fra/cordon", b"", 400, "the body is not JSON"),
        ("POST", "/v1/clusters/fra/cordon", b'{"reason": " "}', 400, "a reason is needed"),
        ("POST", "/v1/clusters/fra/cordon", b"[1]", 400, "a reason is needed"),
        ("POST", "/v1/clusters/nope/cordon", b'{"reason": "x"}', 404, "cluster nope not found"),
        ("POST", "/v1/clusters/fra/confirm", b"{}", 400, "a reason is needed"),
        ("POST", "/v1/clusters/fra/confirm", b'{"reason": "x"}', 409, "nothing of fra waits for confirmation"),
        (
            "POST",
            "/v1/clusters/fra/confirm?model=nope",
            b'{"reason": "x"}',
            409,
            "no demand for model nope of fra waits",
        ),
        ("POST", "/v1/clusters/nope/confirm", b'{"reason": "x"}', 404, "cluster nope not found"),
        ("DELETE", "/v1/policies/nope.yaml", None, 404, "policy nope.yaml not found"),
        ("DELETE", "/v1/policies/nope.yaml?force=true", None, 409, "a reason is needed"),
        ("DELETE", "/v1/policies/nope.yaml?force=yes", None, 400, "neither true nor false"),
        ("DELETE", "/v1/policies/nope.yaml?force=", None, 400, "neither true nor false"),
        ("POST", "/v1/policies?name=", b"", 400, "is not the name of a policy file"),
        ("POST", "/v1/policies?name=../x.yaml", b"", 400, "is not the name of a policy file"),
        ("POST", "/v1/policies/nope.yaml/rollback", b"", 404, "no earlier revision of policy nope.yaml is kept"),
        ("POST", "/v1/policies/nope.yaml/rollback?revision=x", b"", 400, "is not a revision"),
        ("DELETE", "/v1/policies/../../etc/passwd", None, 404, "no such path"),
    ],
)
def test_a_refusal_says_the_cause(
    fleet: Fleet, method: str, path: str, body: bytes | None, status: int, says: str
) -> None:
    """A script would get a status without the field or the name to correct."""
    got, _, answer = fleet.request(method, path, body)
    assert got == status, answer
    if status >= 400:
        error = json.loads(answer)
        assert says in error["message"]
        assert error["code"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("TRACE", "/v1/cells", "GET, HEAD"),
        ("DELETE", "/v1/policies/chat.yaml/rollback", "POST"),
        ("PUT", "/v1/clusters/fra/drain", "POST"),
    ],
)
def test_a_method_that_is_not_there_is_answered_with_those_that_are(
    fleet: Fleet, method: str, path: str, allowed: str
) -> None:
    """A client could not tell a wrong method from a wrong path (RFC 9110, section 15.5.6)."""
    status, headers, _ = fleet.request(method, path)
    assert (status, headers["Allow"]) == (405, allowed)


def test_a_user_of_an_unknown_place_is_told_who_serves_everyone(fleet: Fleet) -> None:
    """An edge function that cannot place a user would have nowhere to send the request."""
    answer = fleet.get("/v1/route?model=chat-8b")
    assert answer["cell"] == ""
    assert sum(one["share"] for one in answer["clusters"]) == pytest.approx(1.0)


def test_a_user_anywhere_is_told_the_shares_of_the_nearest_cell(fleet: Fleet) -> None:
    """Users between two cells would get no cluster, or one on another continent."""
    answer = fleet.get("/v1/routes?model=chat-8b&lat=52&lon=13")
    assert answer["cell"] == "Berlin"
    assert 50 < answer["cell_distance_km"] < 70
    assert sum(one["share"] for one in answer["routes"]) == pytest.approx(1.0)


def test_a_token_of_strange_bytes_is_refused_as_any_other(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    """Anyone could fill the log with stacks."""
    status, _, _ = fleet.request("GET", "/v1/clusters", headers={"Authorization": "Bearer \xff\xfe"})
    assert status == 401
    assert not [one for one in caplog.records if one.levelname == "ERROR"]


@pytest.mark.parametrize("sent", [b"", b'{"reason": '], ids=["nothing", "a-part"])
def test_a_body_that_does_not_come_is_not_waited_for(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """Whoever sends a byte a minute would keep a place and a request at work for ever."""
    monkeypatch.setattr(http_bounds, "BODY_S", 0.2)
    connection = http.client.HTTPConnection(fleet.url.removeprefix("http://"), timeout=10)
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Length": "100", "Content-Type": "application/json"}
    connection.request("POST", "/v1/clusters/fra/cordon", body=None, headers=headers)
    connection.send(sent)
    response = connection.getresponse()
    assert response.status == 408
    refusal = json.loads(response.read())
    assert (refusal["code"], refusal["hint"]) == ("RequestTimeout", "send it faster, or in several files")
    connection.close()


def test_doors_say_how_full_they_are(fleet: Fleet) -> None:
    """Nobody would see a flood before it is over."""
    lines = fleet.request("GET", "/metrics")[2].decode().splitlines()
    assert any(line.startswith('isochrone_connections{door="api"}') for line in lines)
    assert 'isochrone_connections_refused_total{door="broker"} 0.0' in lines
    assert any(line.startswith('isochrone_connections_gave_way_total{door="api"}') for line in lines)


def test_metrics_are_prometheus_text_with_the_state_of_the_world(fleet: Fleet) -> None:
    """Alerts would read gauges that say nothing of the fleet."""
    _, headers, _ = fleet.request("GET", "/metrics")
    assert headers["Content-Type"].startswith("text/plain")
    awaited = {
        'isochrone_clusters{state="ready"} 3.0',
        'isochrone_model_replicas{model="chat-8b",state="ready"} 8.0',
    }
    lines = fleet.until(lambda: metric_lines(fleet, awaited), "gauges of a world that is well")
    assert any(line.startswith("isochrone_plan_duration_seconds_bucket") for line in lines)


def metric_lines(fleet: Fleet, awaited: set[str]) -> list[str]:
    """All lines, when the awaited ones are among them. Gauges follow the world at the next tick."""
    lines = fleet.request("GET", "/metrics")[2].decode().splitlines()
    return lines if awaited <= set(lines) else []


@contextmanager
def stream(fleet: Fleet, last_event_id: str = "") -> Iterator[Iterator[tuple[str, str, Any]]]:
    """(event type, id, data) as the controller sends them."""
    connection = http.client.HTTPConnection(fleet.url.removeprefix("http://"), timeout=20)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    if last_event_id:
        headers["Last-Event-ID"] = last_event_id
    connection.request("GET", "/v1/stream", headers=headers)
    response = connection.getresponse()
    assert response.status == 200
    try:
        yield events(response)
    finally:
        response.close()
        connection.close()


def events(response: http.client.HTTPResponse) -> Iterator[tuple[str, str, Any]]:
    fields: dict[str, str] = {}
    for raw in response:
        line = raw.decode().rstrip("\r\n")
        if line:
            key, _, value = line.partition(": ")
            fields[key] = value
        elif "data" in fields:
            yield fields.get("event", ""), fields.get("id", ""), json.loads(fields["data"])
            fields = {}


def until_world(told: Iterator[tuple[str, str, Any]]) -> tuple[list[int], Any]:
    """The event ids before the first world, and that world."""
    seen: list[int] = []
    for kind, _, data in told:
        if kind == "world":
            return seen, data
        seen.append(data["id"])
    raise AssertionError("the stream ended")


def test_a_stream_goes_on_where_it_broke(fleet: Fleet) -> None:
    """A map that lost its connection would else miss the event that matters, or show all of them twice."""
    with stream(fleet) as told:
        first, world = until_world(told)
    assert first == list(range(1, len(first) + 1))
    assert len(world["clusters"]) == 3
    with stream(fleet, str(first[-3])) as told:
        again, _ = until_world(told)
    assert again[:2] == first[-2:]
    with stream(fleet, "999999") as told:
        everything, _ = until_world(told)
    assert everything[: len(first)] == first, "ids of another start say nothing: all is told again"


def test_a_map_that_opens_gets_its_events_in_few_writes(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of small ones for each map that is opened would keep everybody else waiting for seconds."""
    sizes: list[int] = []
    write = web.StreamResponse.write

    async def counted(self: web.StreamResponse, data: bytes) -> None:
        sizes.append(len(data))
        await write(self, data)

    monkeypatch.setattr(web.StreamResponse, "write", counted)
    note = Note(reason="Started", object="controller", message="one of many")
    for _ in range(300):
        fleet.do(lambda: fleet.controller.hub.tell(note))
    with stream(fleet) as told:
        seen, _ = until_world(told)
    assert len(seen) >= 300 and len(sizes) < 20


def test_a_reader_who_goes_away_is_no_error(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    """Every closed map would else leave a stack in the log, and nobody would read the log any more."""
    for _ in range(3):
        with stream(fleet) as told:
            until_world(told)
    time.sleep(2 * STREAM_SPACING_S)
    assert [one.getMessage() for one in caplog.records if one.levelname == "ERROR"] == []


def test_what_happens_reaches_who_watches(fleet: Fleet) -> None:
    """The map would show a cordoned cluster as taking load until somebody reloads it."""
    with stream(fleet) as told:
        until_world(told)
        assert fleet.request("POST", "/v1/clusters/mad/cordon", b'{"reason": "a test"}')[0] == 200
        for kind, _, data in told:
            if kind == "event" and data["reason"] == "Cordoned":
                break
        for kind, _, data in told:
            cordoned = {one["name"] for one in data["clusters"] if one["cordoned"]} if kind == "world" else set()
            if cordoned == {"mad"}:
                break
    assert fleet.request("POST", "/v1/clusters/mad/uncordon", b"{}")[0] == 200


def test_what_waits_of_a_cluster_is_believed_by_a_word(fleet: Fleet) -> None:
    """The users of a launch would be held back though somebody knows of it."""
    with fleet.launched("mad", 5_000.0):
        assert fleet.request("POST", "/v1/clusters/mad/confirm", b'{"reason": "x"}', headers={})[0] == 401
        other = fleet.request("POST", "/v1/clusters/mad/confirm?model=chat-8b", b'{"reason": "x"}')
        assert other[0] == 409 and "demand for launched waits" in json.loads(other[2])["hint"]
        status, _, answer = fleet.request("POST", "/v1/clusters/mad/confirm", b'{"reason": "a launch"}')
        assert status == 200 and json.loads(answer)["name"] == "mad"
        assert not fleet.waiting("mad")
        assert (
            fleet.do(lambda: fleet.controller.hub.world.demand[ModelCell(("launched", "Lyon"))]).requests_per_second
            == 5_000.0
        )
        (event,) = [one for one in fleet.get("/v1/events")["items"] if one["reason"] == "Confirmed"]
        assert event["object"] == "cluster/mad" and event["message"].endswith("a launch")
    with closing(sqlite3.connect(fleet.database)) as database:
        rows = database.execute("SELECT actor, action, object, reason FROM audit ORDER BY id DESC LIMIT 1").fetchall()
    assert rows == [("api", "confirm", "cluster/mad", "a launch")]


def test_an_unchanged_file_is_not_a_new_revision(fleet: Fleet) -> None:
    """A periodic apply would fill the history with equal revisions, and rollback would change nothing."""
    status, answer = fleet.apply("chat.yaml", MODEL, POLICY)
    assert (status, answer["changed"]) == (200, False)


def test_milliseconds_stand_beside_dollars(fleet: Fleet) -> None:
    """Who looks at what service costs would not see how near it is, nor how near it could be."""
    fleet.until(lambda: fleet.get("/v1/overview")["near"] is not None, "the first plan")
    overview, plan = fleet.get("/v1/overview"), fleet.get("/v1/plans")["items"][0]
    (model,) = overview["models"]
    for near in (overview["near"], model["near"], plan["near"], plan["near_by_model"]["chat-8b"]):
        assert 0 < near["rtt_ms_mean"] <= near["rtt_ms_p95"]
        assert 0 <= near["excess_ms_mean"] < near["rtt_ms_mean"]
    routes = [route for cell in overview["cells"] for one in cell["demand"] for route in one["routes"]]
    assert min(route["excess_ms"] for route in routes) == 0
    figures = fleet.request("GET", "/metrics")[2].decode()
    assert 'isochrone_plan_round_trip_seconds{figure="excess",model="chat-8b"}' in figures
    assert 'isochrone_plan_cost_usd_per_hour{cause="accelerators"}' in figures


def test_the_frontier_is_told_point_by_point_and_then_where_policy_stands(fleet: Fleet) -> None:
    """Who asks what nearer would cost would wait without a word, or for ever."""

    def done() -> Any:
        view = fleet.get("/v1/frontier")
        return view if view["is_done"] else None

    view = fleet.until(done, "the curve")
    assert view["says"] and view["points"] and view["model"] == ""
    assert view["on_curve"]["usd_per_hour"] > 0
    assert fleet.get("/v1/frontier?model=chat-8b")["model"] == "chat-8b"
    status, _, body = fleet.request("GET", "/v1/frontier?model=chat-9b")
    assert (status, json.loads(body)["code"]) == (404, "NotFound")
