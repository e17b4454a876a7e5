"""Problems in a file: where, what was expected, and a hint. Translates msgspec's errors into plain words."""

from __future__ import annotations

import difflib
import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

import msgspec

from federation.yamlkit.source import Position, YamlNode

SHOWN_CHARACTERS = 60
MESSAGE_CHARACTERS = 300
_PATH_PART = re.compile(r"\.([A-Za-z0-9_]+)|\[(\d+|\.\.\.)\]")
_UNITS = {"s": 1, "sec": 1, "second": 1, "seconds": 1, "m": 60, "min": 60, "minutes": 60, "h": 3600, "d": 86_400}


MOST_REFUSALS = 100
"""The most problems that are reported of one document."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Problem:
    """A problem in a file. Lines and columns count from 1.

    `unread`: the file does not match the schema; otherwise its content contradicts itself or the documents in force.
    """

    file: str
    line: int
    column: int
    message: str
    expected: str = ""
    hint: str = ""
    unread: bool = False

    def text(self) -> str:
        """One line, in the format of compilers."""
        parts = [f"expected {self.expected}" if self.expected else "", self.hint]
        tail = "; ".join(part for part in parts if part)
        return f"{self.file}:{self.line}:{self.column}: {self.message}" + (f" ({tail})" if tail else "")


def problem_at(name: str, mark: Position, message: str, expected: str = "", hint: str = "") -> Problem:
    """A problem at a place. Over-long quotations are cut, so that place and hint stay readable."""
    if len(message) > MESSAGE_CHARACTERS:
        message = f"{message[:MESSAGE_CHARACTERS]}…"
    return Problem(file=name, line=mark.line, column=mark.column, message=message, expected=expected, hint=hint)


def explain(name: str, node: YamlNode, kind: type, text: str) -> Problem:
    """The problem of a msgspec error: msgspec gives the cause and, after ` - at `, a path; this adds the place and
    plain words."""
    message, _, where = text.partition(" - at `")
    path = [part[0] or part[1] for part in _PATH_PART.findall(where.rstrip("`").removeprefix("$"))]
    steps: list[str | int] = [int(part) if part.isdigit() else part for part in path if part != "..."]
    mark, found = find(node, steps)
    if path[-1:] == ["..."] and found.items is not None:  # a value of a mapping of any keys: it does not say which
        steps += [key for key, item in found.items.items() if not isinstance(item.value, str)][:1]
        mark, found = find(node, steps)
    label = ".".join(str(step) for step in steps) or "the document"
    if match := re.search(r"unknown field `(.+?)`", message):
        field = match.group(1)
        here = (found.key_marks or {}).get(field, mark)
        fields = _fields_at(kind, steps)
        return problem_at(name, here, f"unknown field {field} in {label}", _one_of(fields), did_you_mean(field, fields))
    if match := re.search(r"missing required field `(.+?)`", message):
        field = match.group(1)
        return problem_at(name, mark, f"{field} is missing in {label}", f"a field {field}", f"add {field} to {label}")
    value = found.value
    is_mapping, is_list = found.items is not None, found.elements is not None
    if not is_mapping and not is_list and value is None:
        return problem_at(
            name,
            mark,
            f"{label} is empty",
            message.partition(",")[0].removeprefix("Expected ").strip("`"),
            "give it a value, or leave the field out",
        )
    if found.elements == ():
        hint = "give it at least one entry, or leave the field out"
        return problem_at(name, mark, f"{label} is an empty list", "at least one entry", hint)
    shown = "a list" if is_list else "a mapping" if is_mapping else short(value)
    expected = message.removeprefix("Expected ").replace("`", "").partition(", got ")[0]
    if message.startswith("Invalid enum value"):
        allowed = _literals_at(kind, steps)
        return problem_at(name, mark, f"{label} is {shown}", _one_of(allowed), did_you_mean(str(value), allowed))
    return problem_at(name, mark, f"{label} is {shown}", _describe(expected, kind, steps), _unit_hint(label, value))


def refusals(node: YamlNode, kind: type) -> tuple[str, ...]:
    """All of msgspec's errors on a document, field by field, because msgspec stops at the first. At most
    `MOST_REFUSALS`."""
    return tuple(itertools.islice(_refusals(node, kind, "$"), MOST_REFUSALS))


def _refusals(node: YamlNode, kind: Any, path: str) -> Iterator[str]:
    plain = _without_wrappers(kind)
    if isinstance(plain, type) and issubclass(plain, msgspec.Struct) and node.items is not None:
        fields = {field.encode_name: field for field in msgspec.structs.fields(plain)}
        hints = _hints(plain)
        for key, item in node.items.items():
            if key in fields:
                yield from _refusals(item, hints[fields[key].name], f"{path}.{key}")
            elif key != plain.__struct_config__.tag_field:
                yield f"Object contains unknown field `{key}` - at `{path}`"
        for key, field in fields.items():
            if field.required and key not in node.items:
                yield f"Object missing required field `{key}` - at `{path}`"
        return
    if node.elements is not None and get_args(plain)[1:] == (...,):
        inside = (
            text for at, one in enumerate(node.elements) for text in _refusals(one, get_args(plain)[0], f"{path}[{at}]")
        )
        if (first := next(inside, None)) is not None:
            yield first
            yield from inside
            return
    try:
        msgspec.convert(node.plain(), kind, strict=True)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `")
        yield f"{message} - at `{path}{where.removeprefix('$').rstrip('`')}`"


def without_nulls(node: YamlNode, kind: Any) -> YamlNode:
    """The document without optional fields that are null: Helm writes a template's open fields so."""
    plain = _without_wrappers(kind)
    if isinstance(plain, type) and issubclass(plain, msgspec.Struct) and node.items is not None:
        fields = {field.encode_name: field for field in msgspec.structs.fields(plain)}
        hints = _hints(plain)
        items = {
            key: without_nulls(item, hints[fields[key].name]) if key in fields else item
            for key, item in node.items.items()
            if key not in fields or fields[key].required or not item.is_null
        }
        return msgspec.structs.replace(node, items=items)
    if node.elements is not None and get_args(plain)[1:] == (...,):
        return msgspec.structs.replace(
            node, elements=tuple(without_nulls(one, get_args(plain)[0]) for one in node.elements)
        )
    return node


def short(value: object) -> str:
    """A value for display, cut if it would hide the rest of the line."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}… ({len(text)} characters)"


def find(node: YamlNode, path: Iterable[str | int]) -> tuple[Position, YamlNode]:
    """The node at a path, as far as the path exists."""
    for step in path:
        if isinstance(step, int) and node.elements is not None and step < len(node.elements):
            node = node.elements[step]
        elif isinstance(step, str) and node.items is not None and step in node.items:
            node = node.items[step]
        else:
            break
    return node.mark, node


def _type_at(kind: Any, steps: Sequence[str | int]) -> Any:
    """The annotated type of a field by its path in the document; None where it cannot be determined."""
    found = kind
    for step in steps:
        found = _without_wrappers(found)
        if isinstance(step, int):
            found = (get_args(found) or (None,))[0]
            continue
        if not (isinstance(found, type) and issubclass(found, msgspec.Struct)):
            return None
        names = {field.encode_name: field.name for field in msgspec.structs.fields(found)}
        if step not in names:
            return None
        found = _hints(found)[names[step]]
    return found


@functools.cache
def _hints(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _without_wrappers(kind: Any) -> Any:
    """The struct, tuple or plain type inside `Annotated[...]` and `... | None`."""
    while hasattr(kind, "__metadata__"):
        kind = get_args(kind)[0]
    options = [one for one in get_args(kind) if one is not type(None)]
    if len(options) == 1 and type(None) in get_args(kind):
        return _without_wrappers(options[0])
    return kind


def _fields_at(kind: type, steps: Sequence[str | int]) -> list[str]:
    found = _without_wrappers(_type_at(kind, steps) if steps else kind)
    if isinstance(found, type) and issubclass(found, msgspec.Struct):
        return [field.encode_name for field in msgspec.structs.fields(found)]
    return []


def _literals_at(kind: type, steps: Sequence[str | int]) -> list[str]:
    return [str(one) for one in get_args(_without_wrappers(_type_at(kind, steps)))]


def _describe(expected: str, kind: type, steps: Sequence[str | int]) -> str:
    """What msgspec expected, and what the field's own description says."""
    names = {"float": "a number", "int": "a whole number", "str": "text", "array": "a list", "object": "a mapping"}
    plain = names.get(bare := expected.removesuffix(" | null"), bare)
    for meta in getattr(_type_at(kind, steps), "__metadata__", ()):
        if getattr(meta, "description", None):
            return f"{plain}: {meta.description}"
    return plain


def _one_of(names: Iterable[str]) -> str:
    return "one of " + ", ".join(sorted(names))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint with the most similar known word; empty without one."""
    names = list(known)
    close = difflib.get_close_matches(word.lower(), [name.lower() for name in names], n=1, cutoff=0.55)
    for name in names:
        if close and name.lower() == close[0]:
            return f"did you mean {name}?"
    return ""


def _unit_hint(label: str, value: object) -> str:
    field = label.rpartition(".")[2]
    if label.startswith(("metadata.annotations.", "metadata.labels.")) and isinstance(value, int | float):
        return f'quote it: "{str(value).lower() if isinstance(value, bool) else value}"'
    if not isinstance(value, str):
        return ""
    match = re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z%]+)\s*", value)
    if match is None:
        return ""
    number, unit = float(match.group(1)), match.group(2)
    if field.endswith("Seconds") and unit.lower() in _UNITS:
        return f"write {number * _UNITS[unit.lower()]:g}: the unit is seconds"
    if field.endswith("Ms") and unit.lower() in ("ms", "s"):
        return f"write {number * (1000 if unit.lower() == 's' else 1):g}: the unit is milliseconds"
    if unit == "%":
        return f"write {number:g}" if field.endswith("Percent") else f"write {number / 100:g}"
    if field == "memory" and (size := re.fullmatch("([kmgt])(i?)b?", unit.lower())):
        letter = size.group(1).upper()
        if size.group(2):
            return f"write {number:g}{letter}i"
        return f"write {number:g}{letter}i or {number:g}{'k' if letter == 'K' else letter}"
    return f"write {number:g}"
