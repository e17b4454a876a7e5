"""The OpenAPI document: complete, and consistent with itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from federation.api import openapi

DOCUMENT = openapi.document("1.2.3")


def references(value: Any) -> Iterator[str]:
    """Every `$ref` below a value."""
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for one in value.values():
            yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)


def test_every_reference_leads_to_a_schema() -> None:
    """A generator of clients would stop at the first schema that is not there."""
    named = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    found = set(references(DOCUMENT))
    assert found <= named
    assert named <= found, "a schema that nothing refers to is of no use"


def test_every_operation_is_in_it_once() -> None:
    """An operation that is served would be unknown to generated clients, or hide another one."""
    keys = [(one.path, one.method) for one in openapi.OPERATIONS]
    assert len(keys) == len(set(keys))
    assert all(method in DOCUMENT["paths"][path] for path, method in keys)


def test_parts_of_a_path_are_parameters() -> None:
    """A generated client could not fill in a cluster's name."""
    for path, methods in DOCUMENT["paths"].items():
        wanted = {part[1:-1] for part in path.split("/") if part.startswith("{")}
        for operation in methods.values():
            declared = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"}
            assert declared == wanted, path
