"""The OpenAPI document, generated from the views, so that it cannot say anything else than the code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from federation.api import views
from federation.traffic.snapshot import Answer, RouteSnapshot


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One thing the API does. `answer` is a view; `listed` wraps it as {"items": [...]}."""

    method: str
    path: str
    summary: str
    answer: type
    listed: bool = False
    query: tuple[str, ...] = ()
    body: str = ""


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
        query=("limit",),
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
        query=("model", "lat", "lon"),
    ),
    Operation(
        method="get",
        path="/v1/route",
        summary="Who serves a user: by lat and lon, by h3, or by cell; ETag, and a long poll by If-None-Match and wait",
        answer=Answer,
        query=("model", "lat", "lon", "h3", "cell", "country", "key", "wait"),
    ),
    Operation(
        method="get",
        path="/v1/route/snapshot",
        summary="All routes in one document; ETag, and a long poll by If-None-Match and wait (seconds, at most 60)",
        answer=RouteSnapshot,
        query=("wait",),
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
        path="/v1/explain/placement/{model}",
        summary="Why a model is where it is, and why not elsewhere",
        answer=views.ExplanationView,
        query=("cluster",),
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
        query=("model",),
    ),
    Operation(
        method="post",
        path="/v1/diff",
        summary="What would move",
        answer=views.DiffView,
        query=("name",),
        body="application/yaml",
    ),
    Operation(
        method="post",
        path="/v1/policies",
        summary="Accept documents; durable when answered. What would do harm needs force=true and a reason",
        answer=views.AppliedView,
        query=("name", "force", "reason"),
        body="application/yaml",
    ),
    Operation(
        method="post",
        path="/v1/policies/{name}/rollback",
        summary="Put an earlier revision of a policy file in force again: the one asked for, or the last that differs",
        answer=views.AppliedView,
        query=("revision", "force", "reason"),
    ),
    Operation(
        method="delete",
        path="/v1/policies/{name}",
        summary="Take a policy file out of force. What would do harm needs force=true and a reason",
        answer=views.WithdrawnView,
        query=("force", "reason"),
    ),
    Operation(
        method="post",
        path="/v1/clusters/{name}/cordon",
        summary="Give it no new load",
        answer=views.ClusterView,
        body="application/json",
    ),
    Operation(
        method="post",
        path="/v1/clusters/{name}/drain",
        summary="Move its load away. Where no other cluster can serve its users it needs force=true",
        answer=views.ClusterView,
        query=("force",),
        body="application/json",
    ),
    Operation(
        method="post",
        path="/v1/clusters/{name}/uncordon",
        summary="Take that back",
        answer=views.ClusterView,
        body="application/json",
    ),
    Operation(
        method="post",
        path="/v1/clusters/{name}/confirm",
        summary="Believe what it claims and what waits: of one model's users, or all",
        answer=views.ClusterView,
        query=("model",),
        body="application/json",
    ),
)


def document(version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document."""
    answers = sorted({operation.answer for operation in OPERATIONS} | {views.ErrorView}, key=lambda one: one.__name__)
    refs, schemas = msgspec.json.schema_components(answers, ref_template="#/components/schemas/{name}")
    by_type = dict(zip(answers, refs, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, by_type)
    paths["/v1/stream"] = {
        "get": {
            "summary": "Server-sent events: `world` (OverviewView) and `event` (EventView, resumed by Last-Event-ID)",
            "responses": {"200": {"description": "a stream", "content": {"text/event-stream": {}}}},
        }
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Isochrone", "version": version, "license": {"name": "Apache-2.0"}},
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(operation: Operation, by_type: dict[type, Any]) -> dict[str, Any]:
    schema = by_type[operation.answer]
    if operation.listed:
        schema = {"type": "object", "properties": {"items": {"type": "array", "items": schema}}, "required": ["items"]}
    names = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
    parameters += [{"name": name, "in": "query", "schema": {"type": "string"}} for name in operation.query]
    refusal = {"description": "refused", "content": {"application/json": {"schema": by_type[views.ErrorView]}}}
    made: dict[str, Any] = {
        "summary": operation.summary,
        "parameters": parameters,
        "responses": {
            "200": {"description": "done", "content": {"application/json": {"schema": schema}}},
            "default": refusal,
        },
    }
    if operation.body:
        kind = {"type": "object", "properties": {"reason": {"type": "string"}}}
        schema_of_body = kind if operation.body == "application/json" else {"type": "string"}
        made["requestBody"] = {"required": True, "content": {operation.body: {"schema": schema_of_body}}}
    return made
