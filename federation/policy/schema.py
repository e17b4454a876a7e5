"""JSON Schema of policy documents, from `documents.py`: `python -m federation.policy.schema DIRECTORY` writes it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from federation.policy import documents

FILE = "isochrone.schema.json"


def components(ref_template: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema of any document, and the named schemas that it refers to. An optional field may be null."""
    (ref,), definitions = msgspec.json.schema_components([documents.Document], ref_template=ref_template)
    for one in definitions.values():
        for name, field in one.get("properties", {}).items():
            if name not in one.get("required", ()) and {"type": "null"} not in field.get("anyOf", ()):
                one["properties"][name] = {"anyOf": [field, {"type": "null"}]}
    return ref, definitions


def text() -> str:
    """One schema for any document, in the form that editors read."""
    ref, definitions = components("#/$defs/{name}")
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Isochrone policy document",
        **ref,
        "$defs": definitions,
    }
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the schema into the directory that is named."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m federation.policy.schema DIRECTORY")
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    (directory / FILE).write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
