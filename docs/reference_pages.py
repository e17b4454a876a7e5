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
                        _described(field) or docs.get(name) or _of_target(field, definitions) or FIXED.get(name, ""),
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
                        (f"`{one['name']}`", one["in"], _kind(one["schema"]), one["schema"].get("description", ""))
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
