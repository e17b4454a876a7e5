"""YAML as people write policies: read with positions, bounded, and without YAML 1.1's traps.

The YAML 1.2 core schema: `no`, `on` and `12:30:00` are strings, and `3.0` is a whole number. Refused with their
position: anchors and aliases (an alias can expand nine lines to gigabytes), duplicate keys, tags, merge keys, NaN and
infinities, and anything too long or too deep. Events are read one by one and reading stops at the first fault, so
hostile input costs little.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import yaml

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 32
MAX_NODES = 20_000
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters and direction marks: they could make a line read otherwise than it is."""
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_NUMBER_STARTS = frozenset("+-.0123456789")
"""Every number that the patterns above match starts with one of these. Most values are words and need no pattern."""
_CONSTANTS = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
MAX_DIGITS = 400
LARGEST_EXACT = 2**53
"""Above it, floating point cannot represent every whole number."""


# `gc=False`: nodes are trees, and the files of a large fleet have a million of them that stay. The collector of cycles,
# which holds every thread while it runs, need not visit them.


class Position(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A place in a file; both count from 1."""

    line: int
    column: int


class YamlProblem(Exception):
    """A refused construct: where it is, what was expected, and what to do."""

    def __init__(self, mark: Position, message: str, *, expected: str, hint: str = "") -> None:
        super().__init__(message)
        self.mark, self.message, self.expected, self.hint = mark, message, expected, hint


class YamlNode(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A value with its place. Mappings hold nodes by key in `items`, with the key's own mark in `key_marks`."""

    mark: Position
    value: Any = None
    items: dict[str, YamlNode] | None = None
    key_marks: dict[str, Position] | None = None
    elements: tuple[YamlNode, ...] | None = None

    @property
    def is_null(self) -> bool:
        """Whether the field is present and null."""
        return self.value is None and self.items is None and self.elements is None

    def has_null(self) -> bool:
        """Whether the node or any node in it is null."""
        if self.items is not None:
            return any(node.has_null() for node in self.items.values())
        return any(node.has_null() for node in self.elements) if self.elements is not None else self.value is None

    def plain(self) -> Any:
        """The value as Python's own types."""
        if self.items is not None:
            return {key: node.plain() for key, node in self.items.items()}
        if self.elements is not None:
            return [node.plain() for node in self.elements]
        return self.value


START = Position(line=1, column=1)


def read(payload: bytes) -> tuple[YamlNode, ...]:
    """The documents of a file. Raises: YamlProblem at the first refused construct."""
    return tuple(_Reader(_text(payload)).documents())


def _text(payload: bytes) -> str:
    if len(payload) > MAX_BYTES:
        raise YamlProblem(
            START,
            f"the file is longer than {MAX_BYTES} bytes",
            expected="at most 1 MiB",
            hint="split it into several files",
        )
    try:
        text = payload.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = payload[: error.start]
        mark = Position(line=before.count(b"\n") + 1, column=error.start - (before.rfind(b"\n") + 1) + 1)
        raise YamlProblem(mark, "not UTF-8", expected="text in UTF-8", hint="save the file as UTF-8") from error
    if match := _UNPRINTABLE.search(text):
        lines = text[: match.start()].split("\n")
        mark = Position(line=len(lines), column=len(lines[-1]) + 1)
        character = ord(match.group())
        what = f"control character {character:#04x}" if character < 0x80 else f"invisible character U+{character:04X}"
        raise YamlProblem(mark, what, expected="printable text", hint="remove it")
    return text


class _Reader:
    """Builds nodes from parse events, iteratively enough that depth is bounded before Python's stack is."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._nodes = 0
        self._events = self._parse(text)

    def _parse(self, text: str) -> Iterator[Any]:
        try:
            yield from yaml.parse(text, Loader=_Loader)
        except yaml.MarkedYAMLError as error:
            place = error.problem_mark or error.context_mark
            mark = _mark(place) if place is not None else START
            hint = "check the indentation and the quotes around here"
            if "\t" in _line(text, mark.line):
                hint = "indent with spaces: YAML allows no tabs there"
            raise YamlProblem(
                mark, f"not YAML: {error.problem or error.context}", expected="YAML", hint=hint
            ) from error
        except yaml.YAMLError as error:
            raise YamlProblem(START, f"not YAML: {error}", expected="YAML", hint="") from error

    def documents(self) -> Iterator[YamlNode]:
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                yield self._node(next(self._events), depth=1)

    def _node(self, event: Any, *, depth: int) -> YamlNode:
        mark = _mark(event.start_mark)
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise YamlProblem(mark, f"more than {MAX_NODES} values", expected="fewer", hint="split the file")
        if depth > MAX_DEPTH:
            raise YamlProblem(
                mark, f"nested deeper than {MAX_DEPTH}", expected=f"at most {MAX_DEPTH} levels", hint="flatten it"
            )
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise YamlProblem(
                mark,
                "anchors and aliases are not allowed",
                expected="a value",
                hint="write the value out where it is used",
            )
        if event.tag not in (None, "!"):
            raise YamlProblem(
                mark, f"the tag {event.tag} is not allowed", expected="a plain value", hint="remove the tag"
            )
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(mark, depth)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(mark, depth)
        return YamlNode(mark=mark, value=_scalar(event, mark))

    def _sequence(self, mark: Position, depth: int) -> YamlNode:
        elements = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            elements.append(self._node(event, depth=depth + 1))
        return YamlNode(mark=mark, elements=tuple(elements))

    def _mapping(self, mark: Position, depth: int) -> YamlNode:
        items: dict[str, YamlNode] = {}
        key_marks: dict[str, Position] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            place = _mark(event.start_mark)
            key = self._node(event, depth=depth + 1)
            if key.items is not None or key.elements is not None:
                raise YamlProblem(place, "a key is a mapping or a list", expected="a word as key", hint="")
            name = event.value
            if name == "<<":
                raise YamlProblem(place, "merge keys are not allowed", expected="a field", hint="write the fields out")
            if name in items:
                first = key_marks[name].line
                raise YamlProblem(
                    place, f"{name} appears twice", expected="each key once", hint=f"the first is at line {first}"
                )
            key_marks[name] = place
            items[name] = self._node(next(self._events), depth=depth + 1)
        return YamlNode(mark=mark, items=items, key_marks=key_marks)


def _mark(place: Any) -> Position:
    return Position(line=place.line + 1, column=place.column + 1)


def _line(text: str, number: int) -> str:
    lines = text.split("\n", number)
    return lines[number - 1] if len(lines) >= number else ""


def _scalar(event: Any, mark: Position) -> Any:
    """The value of a scalar by the YAML 1.2 core schema; quoted ones are strings."""
    text: str = event.value
    if event.style:
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] not in _NUMBER_STARTS:
        return text
    if _NOT_FINITE.fullmatch(text):
        raise YamlProblem(mark, f"{text} is no number to plan with", expected="a finite number", hint="")
    is_integer = _INTEGER.fullmatch(text) is not None
    if not is_integer and not _FLOAT.fullmatch(text):
        return text
    if len(text) > MAX_DIGITS:
        raise YamlProblem(
            mark, "a number with too many digits", expected=f"at most {MAX_DIGITS}", hint="quote it if it is a word"
        )
    if is_integer:
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise YamlProblem(mark, f"{text} is out of range", expected="a finite number", hint="")
    # As JSON Schema has it; Helm writes 1000000 as 1e+06.
    return int(value) if value.is_integer() and abs(value) < LARGEST_EXACT else value
