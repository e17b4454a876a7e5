"""The generated parts of the reference: Markdown from the structs, enums, tables and commands of the product.

Each function returns Markdown for one page; `PAGES` names the page. Nothing is written to disk: the build appends the
text to the page's introduction (`conf.py`), and `tests/unit/docs` reads the same functions.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from importlib.metadata import version
from types import ModuleType
from typing import Any

import click
import msgspec
from prometheus_client.metrics import MetricWrapperBase

from agents.fence import Code
from federation.api import openapi, views
from federation.cli.main import LAZY, cli
from federation.control.blast import BlastLimits
from federation.control.staged import Pace
from federation.metrics import Doors, Metrics
from federation.policy import schema
from federation.settings import Listen, Settings
from federation.state.phases import Phase
from federation.state.reasons import EVENTS
from federation.state.world import Timing
from federation.traffic import snapshot
from federation.wire.conditions import CONDITIONS
from placement.solution import UnservedCode


def attribute_docs(kind: type) -> dict[str, str]:
    """Field or member name -> the string literal below it in the source of `kind`."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    (definition,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    docs: dict[str, str] = {}
    name = ""
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
        elif name and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            docs[name] = " ".join(str(node.value.value).split())
            name = ""
        else:
            name = ""
    return docs


def _cell(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")


def _table(head: tuple[str, ...], rows: Iterator[tuple[object, ...]]) -> Iterator[str]:
    yield ""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(_cell(value) for value in row) + " |"
    yield ""


GLOSSARY = {
    "model": "name of a model",
    "cluster": "name of a cluster",
    "cell": "name of a user cell",
    "pool": "accelerator pool, as NVIDIA-L4/on-demand",
    "reason": "a sentence for people",
    "message": "a sentence for people",
    "summary": "a sentence for people",
    "hint": "the next step",
    "code": "a constant; see the conditions and codes",
    "epoch": "start of the controller that made the plan",
    "generation": "number of the plan's commit",
    "clusters": "the clusters",
    "usd_per_hour": "US dollars per hour",
    "usd_per_device_hour": "US dollars per device and hour; null where unknown",
    "lat": "degrees north, WGS 84",
    "lon": "degrees east, WGS 84",
    "latency_ms": "round trip and service time, ms",
    "latency_ms_p95": "95th percentile from request to response, ms",
    "latency_source": "where the latency comes from, in words",
    "latency_basis": "measured, inferred or prior",
    "age_s": "age in seconds",
    "report_age_s": "age of the newest report, s",
    "unserved": "requests that nobody serves",
    "unserved_rps": "requests per second that nobody serves",
    "unserved_share": "fraction of the requests that nobody serves",
    "served_rps": "requests per second that are served",
    "late_rps": "requests per second that miss the latency objective",
    "demand_rps": "requests per second that users ask for",
    "rps": "requests per second",
    "requests_per_second": "requests per second",
    "revision": "number of the file's revision",
    "country": "ISO 3166-1 alpha-2; DE/US is a tie",
    "routes": "share of each cluster",
    "replicas": "replicas by model and pool",
    "rtt_ms_mean": "mean round trip of served requests, ms",
    "rtt_ms_p50": "median round trip, ms",
    "rtt_ms_p95": "95th percentile of round trips, ms",
    "excess_ms_mean": "mean round trip beyond the nearest cluster that could serve, ms",
    "objective_ms": "latency objective, ms",
    "service_ms": "time in the replica, ms",
    "share": "fraction of the requests, 0 to 1",
    "target_share": "fraction that the shares are stepping to",
    "terms": "terms of the sum, in US dollars per hour",
    "within_objective": "whether the latency meets the objective",
    "within_objective_share": "fraction of served requests within the objective",
    "region": "region of the provider",
    "provider": "cloud provider or owner",
    "zone": "availability zone; empty where undeclared",
    "tier": "edge or cloud",
    "city": "city, for display",
    "jurisdictions": "jurisdictions that residency rules may ask for",
    "desired": "replicas that the plan wants",
    "ready": "replicas that are ready; null where unknown",
    "replicas_desired": "replicas that the plan wants",
    "replicas_ready": "replicas that are ready",
    "state": "state of the object",
    "refused": "what was refused, and why",
    "accepted": "what was accepted last",
    "type": "the type",
    "object": "what it is about, as cluster/fra-1",
    "changes": "replicas that start or stop",
    "problems": "problems with file, line and column",
    "at_s": "Unix seconds of the controller's clock",
    "gap": "fraction of the cost above the proven bound",
    "moves": "pairs of a start and a stop",
    "subject": "what it is about",
    "version": "digest of the content, or number of the change",
    "ttl_s": "how long the answer may be kept, s",
    "helpers": "clusters to try when none of the planned ones answers",
    "address": "IP address",
    "port": "TCP port",
    "file": "name of the policy file",
    "line": "line in the file, from 1",
    "column": "column in the line, from 1",
    "expected": "the expected form",
    "demand": "requests by model",
    "is_decaying": "whether the counts are old and decay",
    "counted_by": "front doors that count these users",
    "phase": "unknown, ready, unreachable or lost",
    "cordoned": "whether it takes no new load",
    "draining": "whether its load moves away",
    "worst_state": "ok, degraded, bad or unknown",
    "product": "accelerator product",
    "mig_profile": "MIG profile; empty for whole devices",
    "market": "on-demand, spot or reserved",
    "allocatable": "devices that nodes offer; null until reported",
    "free": "devices that no pod requests; null until reported",
    "sharing": "how the devices are shared",
    "error": "the error, or empty",
    "error_share": "fraction of the requests that failed",
    "devices": "number of devices",
    "provisioning_s": "seconds until a new node is ready; null where unknown",
    "usd_per_hour_before": "cost before the change, US dollars per hour",
    "usd_per_hour_after": "cost after the change, US dollars per hour",
    "unserved_rps_before": "unserved requests per second before the change",
    "unserved_rps_after": "unserved requests per second after the change",
    "before_ms": "mean latency before the change, ms",
    "after_ms": "mean latency after the change, ms",
    "before": "replicas before",
    "after": "replicas after",
    "survivors": "clusters that are left after the filter",
    "removed": "clusters that the filter removed",
    "confidence": "probability that the true round trip is within 20 % of the estimate",
    "trigger": "what caused the plan",
    "total": "sum of the terms",
    "items": "the list",
    "limit": "the most items",
    "key": "a session or subnet: the same key gets the same cluster",
    "h3": "H3 index of the user's place, hexadecimal",
    "If-None-Match": "the ETag of the known answer",
    "Last-Event-ID": "id of the last event received",
    "of": "the plan in force, or the newest solve",
    "documents": "documents, as Model/chat-8b",
    "changed": "whether anything changed",
    "name": "name of the object",
}
"""Fields of the API that mean the same in every view, so that the sources do not explain each of them."""

# ---- JSON Schema

FIXED = {"kind": "the kind of the document", "apiVersion": "the version of its form"}


def _kind(field: Mapping[str, Any]) -> str:
    """The type and the bounds of a JSON Schema value, as a reader sees them."""
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_kind(option) for option in field["anyOf"] if option != {"type": "null"}))
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    kind = str(field.get("type", "any"))
    if kind == "array" and isinstance(field.get("prefixItems"), list):
        return "tuple of " + ", ".join(_kind(item) for item in field["prefixItems"])
    if kind == "array":
        return f"list of {_kind(field['items'])}" if isinstance(field.get("items"), dict) else "list"
    if kind == "object" and isinstance(field.get("additionalProperties"), dict):
        return f"map of string to {_kind(field['additionalProperties'])}"
    bounds = [
        f"{sign} {field[key]:g}"
        for key, sign in (("exclusiveMinimum", ">"), ("minimum", "≥"), ("exclusiveMaximum", "<"), ("maximum", "≤"))
        if key in field
    ]
    return f"{kind} {', '.join(bounds)}".strip()


def _described(field: Mapping[str, Any]) -> str:
    options = [field, *field.get("anyOf", ())]
    return next((str(option["description"]) for option in options if option.get("description")), "")


def _default(name: str, definition: Mapping[str, Any]) -> str:
    if name in definition.get("required", ()):
        return "required"
    field = definition["properties"][name]
    defaults = [option["default"] for option in (field, *field.get("anyOf", ())) if "default" in option]
    return f"`{defaults[0]}`" if defaults and defaults[0] not in (None, {}, []) else ""


def _definitions(definitions: Mapping[str, Mapping[str, Any]], depth: str, *modules: ModuleType) -> Iterator[str]:
    for title, definition in definitions.items():
        structs = [kind for module in modules if isinstance(kind := getattr(module, title, None), type)]
        docs = _by_encoded_name(structs[0]) if structs else {}
        yield f"{depth} {title}"
        yield ""
        yield _cell(definition.get("description", ""))
        rows = definition.get("properties", {}).items()
        if rows:
            yield from _table(
                ("field", "type", "default", "meaning"),
                (
                    (
                        f"`{name}`",
                        _kind(field),
                        _default(name, definition),
                        _described(field)
                        or docs.get(name)
                        or _of_target(field, definitions)
                        or FIXED.get(name)
                        or (GLOSSARY.get(name, "") if modules else ""),
                    )
                    for name, field in rows
                ),
            )
        elif "enum" in definition:
            yield _kind(definition)
            yield ""


def _by_encoded_name(struct: type) -> dict[str, str]:
    """Field name as encoded -> the string literal below the field."""
    docs = attribute_docs(struct)
    return {one.encode_name: docs[one.name] for one in msgspec.structs.fields(struct) if one.name in docs}


def _of_target(field: Mapping[str, Any], definitions: Mapping[str, Mapping[str, Any]]) -> str:
    """The first sentence of the struct that a field refers to."""
    for option in (field, *field.get("anyOf", ())):
        if "$ref" in option:
            return str(definitions[option["$ref"].rpartition("/")[2]].get("description", "")).partition(". ")[0]
    return ""


def policy() -> str:
    """Every field of every policy document, from the JSON Schema."""
    _, definitions = schema.components("#/$defs/{name}")
    first = ("Model", "PlacementPolicy", "Cluster")
    ordered = {name: definitions[name] for name in (*first, *(name for name in definitions if name not in first))}
    return "\n".join(_definitions(ordered, "##"))


# ---- API


def _of_parameter(parameter: Mapping[str, Any]) -> str:
    return str(parameter["schema"].get("description") or GLOSSARY.get(parameter["name"], ""))


def api() -> str:
    """Every operation and every schema of the OpenAPI document."""
    document = openapi.document(version("isochrone"))
    lines = ["## Operations", ""]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            lines += [f"### {method.upper()} {path}".replace("{", "\\{"), "", _cell(operation["summary"]), ""]
            body = operation.get("requestBody", {}).get("content", {})
            lines += [f"Body: {_kind(content['schema'])} ({media})." for media, content in body.items()]
            answer = operation["responses"]["200"]["content"]
            for media, content in answer.items():
                kind = content.get("schema")
                items = kind["properties"]["items"] if kind and kind.get("properties") else kind
                lines += ["", f"Answer ({media}): {_kind(items) if items else 'a stream'}.", ""]
            if operation.get("parameters"):
                lines += _table(
                    ("parameter", "in", "type", "meaning"),
                    (
                        (f"`{one['name']}`", one["in"], _kind(one["schema"]), _of_parameter(one))
                        for one in operation["parameters"]
                    ),
                )
    lines += ["## Schemas", ""]
    lines += _definitions(document["components"]["schemas"], "###", views, snapshot)
    return "\n".join(lines)


# ---- metrics, events, conditions, codes


def metric_rows() -> list[tuple[str, str, str, str]]:
    """(name, type, labels, meaning) of each metric that a controller registers."""

    class _Door:
        refused = gave_way = count = 0

    metrics = Metrics()
    metrics.ages_s = lambda: {"name": 0.0}
    metrics.registry.register(Doors({"name": _Door()}))
    labels = {
        wrapper._name: wrapper._labelnames
        for wrapper in vars(metrics).values()
        if isinstance(wrapper, MetricWrapperBase)
    }
    rows = []
    for family in metrics.registry.collect():
        names = labels.get(family.name) or tuple(family.samples[0].labels if family.samples else ())
        name = f"{family.name}_total" if family.type == "counter" else family.name
        rows.append((name, family.type, ", ".join(names), family.documentation))
    return sorted(rows)


def metrics() -> str:
    """Every metric of `/metrics`."""
    rows = ((f"`{name}`", kind, labels, text) for name, kind, labels, text in metric_rows())
    return "\n".join(_table(("metric", "type", "labels", "meaning"), rows))


def events() -> str:
    """Every reason that an event can have."""
    return "\n".join(_table(("reason", "meaning"), ((f"`{name}`", text) for name, text in sorted(EVENTS.items()))))


def conditions() -> str:
    """Every type of condition, and the codes of phases, refusals and unserved demand."""
    lines = list(_table(("type", "meaning"), ((f"`{name}`", text) for name, text in sorted(CONDITIONS.items()))))
    for title, kind in (
        ("Phases of a cluster", Phase),
        ("Codes of unserved demand", UnservedCode),
        ("Codes of an agent's acknowledgement", Code),
    ):
        lines += [f"## {title}", ""]
        lines += _table(("code", "meaning"), _members(kind))
    return "\n".join(lines)


def _members(kind: type[Enum]) -> Iterator[tuple[object, ...]]:
    docs = attribute_docs(kind)
    for member in kind:
        yield f"`{member.value}`", docs.get(member.name, "")


# ---- settings


def commands() -> Iterator[tuple[str, click.Command]]:
    """(`isochrone get clusters`, command) for every command and group."""

    def walk(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        yield path, command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                if (child := command.get_command(context, name)) is not None:
                    yield from walk(f"{path} {name}", child)

    return walk("isochrone", cli)


def environment() -> dict[str, tuple[str, list[str]]]:
    """Variable -> (what it sets, commands that read it)."""
    found: dict[str, tuple[str, list[str]]] = {}
    for path, command in commands():
        for option in command.params:
            for variable in [option.envvar] if isinstance(option.envvar, str) else option.envvar or ():
                found.setdefault(variable, (getattr(option, "help", None) or "", []))[1].append(path)
    return found


def settings() -> str:
    """Environment variables, and the figures that a controller runs with."""
    lines = ["## Environment variables", ""]
    lines += _table(
        ("variable", "meaning", "read by"),
        (
            (f"`{name}`", text, ", ".join(f"`{path}`" for path in paths))
            for name, (text, paths) in sorted(environment().items())
        ),
    )
    for kind in (Settings, Listen, Timing, BlastLimits, Pace):
        lines += [f"## {kind.__name__}", "", _cell(inspect.getdoc(kind)), ""]
        lines += _table(("setting", "default", "meaning"), _settings_of(kind))
    return "\n".join(lines)


def _settings_of(kind: type) -> Iterator[tuple[object, ...]]:
    docs = attribute_docs(kind)
    assert is_dataclass(kind)
    for one in fields(kind):
        nested = one.default_factory is not MISSING
        default = f"[{one.type}](#{str(one.type).lower()})" if nested else f"`{one.default}`"
        yield f"`{one.name}`", default, docs.get(one.name, "")


# ---- the command line


def command_line() -> str:
    """One section for each command, by sphinx-click."""
    lines = []
    for name, (target, _) in LAZY.items():
        module, _, attribute = target.partition(":")
        assert isinstance(getattr(importlib.import_module(module), attribute), click.Command)
        lines += ["```{eval-rst}", f".. click:: {target}", f"   :prog: isochrone {name}", "   :nested: full", "```", ""]
    return "\n".join(lines)


PAGES: dict[str, Callable[[], str]] = {
    "reference/policy": policy,
    "reference/cli": command_line,
    "reference/api": api,
    "reference/metrics": metrics,
    "reference/events": events,
    "reference/conditions": conditions,
    "reference/settings": settings,
}
