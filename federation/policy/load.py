"""From bytes to documents, or to problems with file:line:column, what was expected, and a hint. Never an exception.

Source of the schema: `documents.py`. What a single file can get wrong is found here; what files can get wrong together
is found in `catalogue.py`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

import msgspec

from federation.policy import documents
from federation.policy.yaml_source import START, Mark, Node, YamlProblem, read

KINDS = {"Model": documents.Model, "PlacementPolicy": documents.PlacementPolicy, "Cluster": documents.Cluster}
SHOWN_CHARACTERS = 60
MESSAGE_CHARACTERS = 300
_PATH_PART = re.compile(r"\.([A-Za-z0-9_]+)|\[(\d+|\.\.\.)\]")
_UNITS = {"s": 1, "sec": 1, "second": 1, "seconds": 1, "m": 60, "min": 60, "minutes": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Problem:
    """Something wrong in a file. Lines and columns count from 1."""

    file: str
    line: int
    column: int
    message: str
    expected: str = ""
    hint: str = ""

    def text(self) -> str:
        """One line, as compilers write it."""
        parts = [f"expected {self.expected}" if self.expected else "", self.hint]
        tail = "; ".join(part for part in parts if part)
        return f"{self.file}:{self.line}:{self.column}: {self.message}" + (f" ({tail})" if tail else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A document and the node that it was read from, so that later checks can say where."""

    document: documents.Document
    node: Node

    @property
    def kind(self) -> str:
        """Model, PlacementPolicy or Cluster."""
        return type(self.document).__name__

    @property
    def name(self) -> str:
        """The document's own name."""
        return self.document.metadata.name

    def mark(self, *path: str | int) -> Mark:
        """Where a field is; the nearest part of the path that exists."""
        return _find(self.node, path)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedFile:
    """One file: its documents, or its problems (then there are no documents)."""

    name: str
    documents: tuple[Placed, ...] = ()
    problems: tuple[Problem, ...] = ()


def parse(name: str, payload: bytes) -> ParsedFile:
    """The documents of a file, or every problem that could be told apart, in order of position."""
    try:
        nodes = read(payload)
    except YamlProblem as error:
        found = problem_at(name, error.mark, error.message, error.expected, error.hint)
        return ParsedFile(name=name, problems=(found,))
    if not any(node.value is not None or node.items is not None or node.elements is not None for node in nodes):
        empty = problem_at(
            name, START, "the file has no document", "a Model, PlacementPolicy or Cluster", "see configs/policies"
        )
        return ParsedFile(name=name, problems=(empty,))
    placed: list[Placed] = []
    problems: list[Problem] = []
    for node in nodes:
        one = _document(name, node)
        if isinstance(one, Problem):
            problems.append(one)
        else:
            problems += _semantics(name, one)
            placed.append(one)
    if problems:
        return ParsedFile(name=name, problems=tuple(sorted(problems)))
    return ParsedFile(name=name, documents=tuple(placed))


def problem_at(name: str, mark: Mark, message: str, expected: str = "", hint: str = "") -> Problem:
    """A problem at a place. A message that quotes something over-long is cut: hint and place must stay readable."""
    if len(message) > MESSAGE_CHARACTERS:
        message = f"{message[:MESSAGE_CHARACTERS]}…"
    return Problem(file=name, line=mark.line, column=mark.column, message=message, expected=expected, hint=hint)


def _document(name: str, node: Node) -> Placed | Problem:
    if node.items is None:
        return problem_at(name, node.mark, "this document is no mapping", "apiVersion, kind, metadata and spec")
    for key in ("apiVersion", "kind"):
        if key not in node.items:
            return problem_at(
                name, node.mark, f"{key} is missing", _expected_of(key), f"add {key}: {_expected_of(key)}"
            )
    version, kind = node.items["apiVersion"], node.items["kind"]
    if version.value != documents.API_VERSION:
        return problem_at(name, version.mark, f"unknown apiVersion {_short(version.value)}", documents.API_VERSION)
    if kind.value not in KINDS:
        hint = did_you_mean(str(kind.value), KINDS)
        return problem_at(name, kind.mark, f"unknown kind {_short(kind.value)}", " or ".join(KINDS), hint)
    try:
        document = msgspec.convert(node.plain(), KINDS[kind.value], strict=True)
    except msgspec.ValidationError as error:
        return _explain(name, node, KINDS[kind.value], str(error))
    return Placed(document=document, node=node)


def _expected_of(key: str) -> str:
    return documents.API_VERSION if key == "apiVersion" else "Model, PlacementPolicy or Cluster"


def _explain(name: str, node: Node, kind: type, text: str) -> Problem:
    """msgspec says what and, after ` - at `, where; this finds the place and puts it in words people use."""
    message, _, where = text.partition(" - at `")
    path = [part[0] or part[1] for part in _PATH_PART.findall(where.rstrip("`").removeprefix("$"))]
    steps: list[str | int] = [int(part) if part.isdigit() else part for part in path if part != "..."]
    mark, found = _find(node, steps)
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
    shown = "a list" if is_list else "a mapping" if is_mapping else _short(value)
    expected = message.removeprefix("Expected ").replace("`", "").partition(", got ")[0]
    if message.startswith("Invalid enum value"):
        allowed = _literals_at(kind, steps)
        return problem_at(name, mark, f"{label} is {shown}", _one_of(allowed), did_you_mean(str(value), allowed))
    return problem_at(name, mark, f"{label} is {shown}", _describe(expected, kind, steps), _unit_hint(label, value))


def _short(value: object) -> str:
    """A value as it is shown: whole, unless it would hide the rest of the line."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}… ({len(text)} characters)"


def _find(node: Node, path: Iterable[str | int]) -> tuple[Mark, Node]:
    for step in path:
        if isinstance(step, int) and node.elements is not None and step < len(node.elements):
            node = node.elements[step]
        elif isinstance(step, str) and node.items is not None and step in node.items:
            node = node.items[step]
        else:
            break
    return node.mark, node


def _type_at(kind: Any, steps: Sequence[str | int]) -> Any:
    """The annotated type of a field, by its path in the document; None where it cannot be told."""
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
        found = get_type_hints(found, include_extras=True)[names[step]]
    return found


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
    plain = names.get(expected, expected)
    for meta in getattr(_type_at(kind, steps), "__metadata__", ()):
        if getattr(meta, "description", None):
            return f"{plain}: {meta.description}"
    return plain


def _one_of(names: Iterable[str]) -> str:
    return "one of " + ", ".join(sorted(names))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(word.lower(), [name.lower() for name in names], n=1, cutoff=0.55)
    for name in names:
        if close and name.lower() == close[0]:
            return f"did you mean {name}?"
    return ""


def _unit_hint(label: str, value: object) -> str:
    field = label.rpartition(".")[2]
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


def _semantics(name: str, placed: Placed) -> list[Problem]:
    """What the types cannot say about one document."""
    document = placed.document
    if isinstance(document, documents.Model):
        return _check_model(name, placed, document.spec)
    if isinstance(document, documents.PlacementPolicy):
        return _check_policy(name, placed, document.spec)
    return _check_pools(name, placed, document.spec)


def _check_model(name: str, placed: Placed, spec: documents.ModelSpec) -> list[Problem]:
    problems = []
    if spec.service_latency_ms >= spec.slo.p95_latency_ms:
        mark = placed.mark("spec", "serviceLatencyMs")
        text = (
            f"serviceLatencyMs {spec.service_latency_ms:g} leaves nothing of p95LatencyMs {spec.slo.p95_latency_ms:g}"
        )
        problems.append(problem_at(name, mark, text, "less than the objective", "every request would be late"))
    seen: set[tuple[str, str | None]] = set()
    for number, one in enumerate(spec.accelerators):
        key = (one.product, one.mig_profile)
        if key in seen:
            mark = placed.mark("spec", "accelerators", number)
            problems.append(problem_at(name, mark, f"{one.product} appears twice", "each product and MIG profile once"))
        seen.add(key)
    return problems


def _check_policy(name: str, placed: Placed, spec: documents.PlacementPolicySpec) -> list[Problem]:
    problems = []
    floors = spec.availability
    if floors.min_regions > floors.min_replicas:
        mark = placed.mark("spec", "availability", "minRegions")
        text = f"minRegions {floors.min_regions} needs more replicas than minReplicas {floors.min_replicas}"
        hint = f"write minReplicas: {floors.min_regions}"
        problems.append(problem_at(name, mark, text, "at most minReplicas", hint))
    for number, rule in enumerate(spec.residency):
        for earlier in spec.residency[:number]:
            shared = _shared_countries(rule, earlier)
            disjoint = set(rule.clusters_in.jurisdictions).isdisjoint(earlier.clusters_in.jurisdictions)
            if shared and disjoint:
                mark = placed.mark("spec", "residency", number)
                allowed = ", ".join(rule.clusters_in.jurisdictions)
                before = ", ".join(earlier.clusters_in.jurisdictions)
                text = f"residency contradicts itself: {shared} must stay in {before} and in {allowed}"
                problems.append(problem_at(name, mark, text, "rules that can hold together", "put both in one rule"))
    return problems


def _shared_countries(rule: documents.ResidencyRule, other: documents.ResidencyRule) -> str:
    """Users that both rules bind, or nothing."""
    if rule.users_in is None or other.users_in is None:
        bound = rule.users_in or other.users_in
        return ", ".join(bound.countries) if bound else "all users"
    return ", ".join(sorted(set(rule.users_in.countries) & set(other.users_in.countries)))


def _check_pools(name: str, placed: Placed, spec: documents.ClusterSpec) -> list[Problem]:
    problems = []
    seen: set[tuple[str, str | None, str]] = set()
    for number, one in enumerate(spec.accelerators):
        key = (one.product, one.mig_profile, one.market)
        if key in seen:
            mark = placed.mark("spec", "accelerators", number)
            problems.append(
                problem_at(name, mark, f"pool {one.product} ({one.market}) appears twice", "each pool once")
            )
        seen.add(key)
    return problems
