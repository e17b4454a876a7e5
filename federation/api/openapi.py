"""The OpenAPI document, generated from the views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from federation.api import views
from federation.policy import schema
from federation.traffic.snapshot import Answer, RouteSnapshot

LONGEST_WAIT_S = 60
MOST_PLANS = 1000
MOST_REVISION_DIGITS = 15
FILE_NAME = r"^[^/\x00-\x1f\x7f]+\.ya?ml\Z"
"""The name of a policy file, without a directory."""
COUNTRY = r"^[A-Za-z]{2}\Z"
H3 = r"^[0-9a-fA-F]{15,16}\Z"
DECIMAL = r"^-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?\Z"
SAYS_SOMETHING = r"\S"


def _ecma(pattern: str) -> str:
    """A pattern as JSON Schema writes it."""
    return pattern.replace(r"\Z", "$")


_TEXT = {"type": "string"}
_NAME = {"type": "string", "minLength": 1, "description": "the name as lists show it"}
_FLAG = {"type": "boolean", "description": "override the refusal of a harmful change"}
_REASON = {"type": "string", "description": "why; needed with force=true"}
_MODEL = {"name": "model", "schema": {"type": "string", "description": "of this model alone"}}
_FORCE = {"name": "force", "schema": _FLAG}
_WHY = {"name": "reason", "schema": _REASON}
_LAT = {"name": "lat", "schema": {"type": "number", "minimum": -90, "maximum": 90, "description": "degrees, WGS 84"}}
_LON = {"name": "lon", "schema": {"type": "number", "minimum": -180, "maximum": 180, "description": "degrees, WGS 84"}}
_WAIT = {
    "name": "wait",
    "schema": {"type": "number", "minimum": 0, "maximum": LONGEST_WAIT_S, "description": "seconds, with If-None-Match"},
}
_REVISION = {
    "name": "revision",
    "schema": {"type": "integer", "minimum": 0, "maximum": 10**MOST_REVISION_DIGITS - 1},
}
_FILE = {"name": "name", "schema": {"type": "string", "pattern": _ecma(FILE_NAME), "default": "api.yaml"}}
JSON, YAML = "application/json", "application/yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation of the API. `answer` is a view, or one of two; `listed` wraps it as {"items": [...]}.

    `query`: parameters in OpenAPI's form, without `in`. `body`: its media type. `polled`: it has an ETag, and answers
    304 when the client has it.
    """

    method: str
    path: str
    summary: str
    answer: type
    or_answer: type | None = None
    listed: bool = False
    query: tuple[dict[str, Any], ...] = ()
    body: str = ""
    polled: bool = False


OPERATIONS = (
    Operation(method="get", path="/v1/overview", summary="The whole world at one instant", answer=views.OverviewView),
    Operation(method="get", path="/v1/clusters", summary="All clusters", answer=views.ClusterView, listed=True),
    Operation(method="get", path="/v1/clusters/{name}", summary="One cluster", answer=views.ClusterView),
    Operation(method="get", path="/v1/models", summary="All models", answer=views.ModelView, listed=True),
    Operation(method="get", path="/v1/models/{name}", summary="One model", answer=views.ModelView),
    Operation(method="get", path="/v1/cells", summary="All user cells", answer=views.CellView, listed=True),
    Operation(method="get", path="/v1/cells/{name}", summary="One user cell", answer=views.CellView),
    Operation(
        method="get", path="/v1/placements", summary="Desired replicas and why", answer=views.PlacementView, listed=True
    ),
    Operation(
        method="get",
        path="/v1/plans",
        summary="Plans, newest first",
        answer=views.PlanView,
        listed=True,
        query=({"name": "limit", "schema": {"type": "integer", "minimum": 1, "maximum": MOST_PLANS}},),
    ),
    Operation(
        method="get",
        path="/v1/plans/{name}",
        summary="One plan, as EPOCH.GENERATION or GENERATION",
        answer=views.PlanView,
    ),
    Operation(method="get", path="/v1/events", summary="Recent events", answer=views.EventView, listed=True),
    Operation(
        method="get", path="/v1/policies", summary="Policy files in force", answer=views.PolicyFileView, listed=True
    ),
    Operation(
        method="get",
        path="/v1/routes",
        summary="Shares in force; with model, lat and lon: which cluster serves a user there",
        answer=views.RouteTable,
        or_answer=views.NearestRoute,
        query=(_MODEL, _LAT, _LON),
    ),
    Operation(
        method="get",
        path="/v1/route",
        summary="Who serves a user: by lat and lon, by h3, or by cell; without any, a user of an unknown place. ETag, "
        "and a long poll by If-None-Match and wait",
        answer=Answer,
        query=(
            {"name": "model", "required": True, "schema": _NAME},
            _LAT,
            _LON,
            {"name": "h3", "schema": {"type": "string", "pattern": _ecma(H3)}},
            {"name": "cell", "schema": _TEXT},
            {
                "name": "country",
                "schema": {"type": "string", "pattern": _ecma(COUNTRY), "description": "ISO 3166-1 alpha-2"},
            },
            {"name": "key", "schema": _TEXT},
            _WAIT,
        ),
        polled=True,
    ),
    Operation(
        method="get",
        path="/v1/route/snapshot",
        summary="All routes in one document; ETag, and a long poll by If-None-Match and wait (seconds, at most 60)",
        answer=RouteSnapshot,
        query=(_WAIT,),
        polled=True,
    ),
    Operation(
        method="get",
        path="/v1/gateways",
        summary="Gateways: what they accepted, and what they refused and why",
        answer=views.GatewayView,
        listed=True,
    ),
    Operation(
        method="get",
        path="/v1/latency",
        summary="Round trips between the users of a cell and a cluster: of one, of the other, or of both",
        answer=views.LatencyView,
        listed=True,
        query=({"name": "cell", "schema": _TEXT}, {"name": "cluster", "schema": _TEXT}),
    ),
    Operation(
        method="get",
        path="/v1/demand",
        summary="Requests per second by model and cell: who counts them, by what source, how old that is",
        answer=views.DemandView,
        listed=True,
    ),
    Operation(
        method="get",
        path="/v1/engines",
        summary="How busy replicas are by their engines, and what one replica serves as declared and as learnt",
        answer=views.EngineView,
        listed=True,
    ),
    Operation(
        method="get",
        path="/v1/prices",
        summary="What a device of each pool costs, and whose word that is",
        answer=views.PriceView,
        listed=True,
    ),
    Operation(
        method="get",
        path="/v1/explain/placement/{model}",
        summary="Why a model is where it is, and why not elsewhere; with of=newest by the newest solve",
        answer=views.ExplanationView,
        query=(
            {"name": "cluster", "schema": _TEXT},
            {"name": "of", "schema": {"type": "string", "enum": ["plan", "newest"]}},
        ),
    ),
    Operation(
        method="get",
        path="/v1/explain/cell/{model}/{cell}",
        summary="Why a cell's requests go where they go, and what they would cost elsewhere",
        answer=views.CellExplanationView,
    ),
    Operation(
        method="get",
        path="/v1/frontier",
        summary="What near costs: the fewest dollars for each mean round trip; of one model alone with model",
        answer=views.FrontierView,
        query=(_MODEL,),
    ),
    Operation(
        method="get",
        path="/v1/isochrones/{model}",
        summary="How near the ready replicas of a model are to users anywhere, by a grid over the earth; with lat and "
        "lon: to a user there",
        answer=views.IsochronesView,
        or_answer=views.PlaceView,
        query=(_LAT, _LON),
    ),
    Operation(
        method="post",
        path="/v1/diff",
        summary="What would move",
        answer=views.DiffView,
        query=(_FILE,),
        body=YAML,
    ),
    Operation(
        method="post",
        path="/v1/policies",
        summary="Accept documents, of which one file may have several; durable when answered. 422: not of the schema; "
        "409: they contradict each other or what is in force. What would do harm needs force=true and a reason",
        answer=views.AppliedView,
        query=(_FILE, _FORCE, _WHY),
        body=YAML,
    ),
    Operation(
        method="post",
        path="/v1/policies/{name}/rollback",
        summary="Put an earlier revision of a policy file in force again: the one asked for, or the last that differs",
        answer=views.AppliedView,
        query=(_REVISION, _FORCE, _WHY),
    ),
    Operation(
        method="delete",
        path="/v1/policies/{name}",
        summary="Take a policy file out of force. What would do harm needs force=true and a reason",
        answer=views.WithdrawnView,
        query=(_FORCE, _WHY),
    ),
    Operation(
        method="post",
        path="/v1/clusters/{name}/cordon",
        summary="Give it no new load",
        answer=views.ClusterView,
        body=JSON,
    ),
    Operation(
        method="post",
        path="/v1/clusters/{name}/drain",
        summary="Move its load away. Where no other cluster can serve its users it needs force=true",
        answer=views.ClusterView,
        query=(_FORCE,),
        body=JSON,
    ),
    Operation(
        method="post",
        path="/v1/clusters/{name}/uncordon",
        summary="Take that back",
        answer=views.ClusterView,
    ),
    Operation(
        method="post",
        path="/v1/clusters/{name}/confirm",
        summary="Believe what it claims and what waits: of one model's users, or all",
        answer=views.ClusterView,
        query=(_MODEL,),
        body=JSON,
    ),
)


def document(version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    answers = {one for operation in OPERATIONS for one in (operation.answer, operation.or_answer) if one is not None}
    kinds = sorted(answers | {views.ErrorView, views.ReasonBody}, key=lambda one: one.__name__)
    template = "#/components/schemas/{name}"
    refs, schemas = msgspec.json.schema_components(kinds, ref_template=template)
    policy, policies = schema.components(template)
    assert not schemas.keys() & policies.keys()
    by_type = dict(zip(kinds, refs, strict=True))
    bodies = {JSON: by_type[views.ReasonBody], YAML: policy}
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, by_type, bodies)
    paths["/v1/stream"] = {
        "get": {
            "summary": "Server-sent events: `world` (OverviewView) and `event` (EventView, resumed by Last-Event-ID)",
            "parameters": [{"name": "Last-Event-ID", "in": "header", "schema": {"type": "string"}}],
            "responses": {
                "200": {"description": "a stream", "content": {"text/event-stream": {}}},
                "default": _refusal(by_type),
            },
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Isochrone", "version": version, "license": {"name": "Apache-2.0"}},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": {**schemas, **policies},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _refusal(by_type: Mapping[type, Any]) -> dict[str, Any]:
    return {"description": "refused", "content": {JSON: {"schema": by_type[views.ErrorView]}}}


def _operation(operation: Operation, by_type: Mapping[type, Any], bodies: Mapping[str, Any]) -> dict[str, Any]:
    answer = by_type[operation.answer]
    if operation.or_answer is not None:
        answer = {"anyOf": [answer, by_type[operation.or_answer]]}
    if operation.listed:
        answer = {"type": "object", "properties": {"items": {"type": "array", "items": answer}}, "required": ["items"]}
    names = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    parameters = [{"name": name, "in": "path", "required": True, "schema": _NAME} for name in names]
    parameters += [{"in": "query", **parameter} for parameter in operation.query]
    responses = {
        "200": {"description": "done", "content": {JSON: {"schema": answer}}},
        "default": _refusal(by_type),
    }
    if operation.polled:
        parameters.append({"name": "If-None-Match", "in": "header", "schema": _TEXT})
        etag = {"ETag": {"required": True, "schema": _TEXT}}
        responses["200"]["headers"] = etag
        responses["304"] = {"description": "as it was", "headers": etag}
    made: dict[str, Any] = {"summary": operation.summary, "parameters": parameters, "responses": responses}
    if operation.body:
        made["requestBody"] = {"required": True, "content": {operation.body: {"schema": bodies[operation.body]}}}
    return made
