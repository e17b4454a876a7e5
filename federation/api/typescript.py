"""The API's answers as TypeScript: what the map is checked against. `python -m federation.api.typescript FILE`."""

from __future__ import annotations

import inspect
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from federation.api import views

HEAD = (
    "// Generated from federation/api/views.py by `make schemas`: the controller's answers as TypeScript knows them.\n"
)
LINE_WIDTH = 120
"""As in federation/web/biome.json."""
CODES = {name: one for name, one in vars(views).items() if get_origin(one) is Literal}
NAMED = {
    "str": "string",
    "bool": "boolean",
    "int": "number",
    "float": "number",
    "NoneType": "null",
    "object": "unknown",
}


def generate() -> str:
    """The whole file: the codes that have a name, then one interface for each answer, in the order of the module."""
    codes = "".join(_declared(name, one) for name, one in CODES.items())
    return f"{HEAD}\n{codes}" + "".join(f"\n{_interface(one)}" for one in _views())


def _views() -> list[type[views.View]]:
    found = [one for _, one in inspect.getmembers(views, inspect.isclass) if issubclass(one, views.View)]
    return sorted((one for one in found if one is not views.View), key=lambda one: inspect.getsourcelines(one)[1])


def _declared(name: str, hint: Any) -> str:
    """A named code, in one line where it fits."""
    line = f"export type {name} = {_codes(hint)};\n"
    if len(line) <= LINE_WIDTH + 1:
        return line
    return f"export type {name} =\n" + "\n".join(f'  | "{one}"' for one in get_args(hint)) + ";\n"


def _codes(hint: Any) -> str:
    return " | ".join(f'"{one}"' for one in get_args(hint))


def _interface(view: type[views.View]) -> str:
    hints = get_type_hints(view)
    fields = "".join(f"  {name}: {_type(hints[name])};\n" for name in view.__struct_encode_fields__)
    return f"export interface {view.__name__} {{\n{fields}}}\n"


def _type(hint: Any) -> str:
    """Raises: TypeError for what no answer has had yet."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _type(parts[0])
    if origin is Literal:
        return next((name for name, one in CODES.items() if one == hint), _codes(hint))
    if origin in (Union, types.UnionType):
        return " | ".join(_type(one) for one in parts)
    if origin is tuple and parts[1:] == (...,):
        inner = _type(parts[0])
        return f"({inner})[]" if " " in inner else f"{inner}[]"
    if origin is tuple:
        return f"[{', '.join(_type(one) for one in parts)}]"
    if origin in (dict, Mapping):
        return f"Record<{_type(parts[0])}, {_type(parts[1])}>"
    if isinstance(hint, type) and issubclass(hint, views.View):
        return hint.__name__
    name = getattr(hint, "__name__", "")
    if name not in NAMED:
        raise TypeError(f"{hint!r} has no counterpart in TypeScript yet")
    return NAMED[name]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(generate())
