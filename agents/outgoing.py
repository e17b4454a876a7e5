"""A report as it leaves: one that the controller can read, whatever the cluster says.

A row that the protocol does not take is mended where it is only too long or too large, else left out and told as a
condition; the report itself always goes. One that is larger than the reader takes loses rows by a stated order: nodes
that are not well, the demand of the smallest counts, far peers, what autoscalers could add, how replicas answered and
what their engines say.
Pools, replicas and where these answer are never cut for size.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import inspect

from federation.wire import messages
from federation.wire.conditions import ConditionType

_REPORT = inspect.type_info(messages.Report)
_CUT_FIRST: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("nodes", lambda row: row["name"]),
    ("demand", lambda row: -row["requests_per_second"]),
    ("counted", lambda row: -row["requests_per_second"]),
    ("peers", lambda row: row["rtt_ms_p50"]),
    ("growth", lambda row: row["group"]),
    ("served", lambda row: -row["requests_per_second"]),
    ("engines", lambda row: row["model"]),
)
"""In this order, and of each the last by this key first."""
MOST_CONDITIONS = 64
_KEPT_FOR_OURS = 8


class _UnfitError(ValueError):
    """A value that cannot be mended."""


def fit(report: messages.Report) -> tuple[messages.Report, bytes]:
    """The report as the controller reads it, and its bytes."""
    try:
        payload = messages.encode(report)
        decoded = messages.decode(payload)
    except (messages.WireError, UnicodeError, OverflowError):
        return _fitted(report)
    assert isinstance(decoded, messages.Report)
    return decoded, payload


def _fitted(report: messages.Report) -> tuple[messages.Report, bytes]:
    assert isinstance(_REPORT, inspect.StructType)
    told: list[dict[str, str]] = []
    fields: dict[str, Any] = {"type": "report"}
    for field in _REPORT.fields:
        given = getattr(report, field.name)
        if isinstance(field.type, inspect.VarTupleType):
            fields[field.name] = _rows(field.encode_name, given, field.type, told)
        else:
            try:
                fields[field.name] = _mended(given, field.type)
            except _UnfitError as error:
                fields[field.name] = msgspec.to_builtins(field.default)
                told.append(_condition("ReportRowLeftOut", field.name, str(error)))
    conditions = fields["conditions"]
    fields["conditions"] = [*conditions[: MOST_CONDITIONS - _KEPT_FOR_OURS], *told[:_KEPT_FOR_OURS]]
    payload = _cut(fields)
    decoded = messages.decode(payload)
    assert isinstance(decoded, messages.Report)
    return decoded, payload


def _rows(name: str, given: tuple[Any, ...], kind: inspect.VarTupleType, told: list[dict[str, str]]) -> list[Any]:
    """The rows of a field that can be read; of one kind of trouble the first is told, with how many there were."""
    kept, refused = [], []
    for row in given:
        try:
            kept.append(_mended(row, kind.item_type))
        except _UnfitError as error:
            refused.append(str(error))
    if refused:
        told.append(
            _condition("ReportRowLeftOut", name, f"{len(refused)} rows cannot be sent; the first: {refused[0]}")
        )
    if kind.max_length is not None and len(kept) > kind.max_length:
        told.append(_condition("ReportCut", name, f"{len(kept)} rows, and a report takes {kind.max_length}"))
        order = dict(_CUT_FIRST).get(name)
        kept = (sorted(kept, key=order) if order is not None else kept)[: kind.max_length]
    return kept


def _condition(kind: ConditionType, subject: str, message: str) -> dict[str, str]:
    return {"type": kind, "object": f"report/{subject}", "message": message[:300]}


def _cut(fields: dict[str, Any]) -> bytes:
    """The report's bytes, with rows left out until the reader takes them."""
    payload = msgspec.json.encode(fields)
    if len(payload) <= messages.MAX_MESSAGE_BYTES:
        return payload
    for name, order in _CUT_FIRST:
        rows = sorted(fields[name], key=order)
        most, least = len(rows), 0  # how many are kept, by halving
        while least < most:
            half = (least + most + 1) // 2
            if len(_with_rows(fields, name, rows, half)) <= messages.MAX_MESSAGE_BYTES:
                least = half
            else:
                most = half - 1
        payload = _with_rows(fields, name, rows, least)
        if len(payload) <= messages.MAX_MESSAGE_BYTES:
            return payload
    return payload


def _with_rows(fields: dict[str, Any], name: str, rows: list[Any], count: int) -> bytes:
    """The bytes with the first `count` of these rows, which is told."""
    cut = _condition("ReportCut", name, f"{len(rows) - count} of {len(rows)} rows left out: the report is too large")
    fields[name] = rows[:count]
    others = [one for one in fields["conditions"] if one["object"] != cut["object"] or one["type"] != "ReportCut"]
    fields["conditions"] = [*others[: MOST_CONDITIONS - 1], cut]
    return msgspec.json.encode(fields)


def _mended(value: Any, kind: inspect.Type) -> Any:
    """The value as builtins that this type takes: a long text cut, a large count at its bound.

    Raises: _UnfitError for what has no such value near.
    """
    if isinstance(kind, inspect.Metadata):
        return _mended(value, kind.type)
    if isinstance(kind, inspect.UnionType):
        if value is None:
            return None
        return _mended(value, next(one for one in kind.types if not isinstance(one, inspect.NoneType)))
    if isinstance(kind, inspect.StructType):
        return {
            field.encode_name: _mended_field(field.encode_name, getattr(value, field.name), field.type)
            for field in kind.fields
        }
    if isinstance(kind, inspect.VarTupleType):
        return [_mended(one, kind.item_type) for one in value][: kind.max_length]
    if isinstance(kind, inspect.StrType):
        return _as_read(str(value).encode("utf-8", "replace").decode()[: kind.max_length], kind)
    if isinstance(kind, inspect.IntType):
        low = kind.ge if kind.ge is not None else -(2**53)
        high = kind.le if kind.le is not None else 2**53
        if value < low:
            raise _UnfitError(f"{value} is below {low}")
        return min(int(value), int(high))
    return _as_read(value, kind)


def _mended_field(name: str, value: Any, kind: inspect.Type) -> Any:
    try:
        return _mended(value, kind)
    except _UnfitError as error:
        raise _UnfitError(f"{name}: {error}") from None


def _as_read(value: Any, kind: inspect.Type) -> Any:
    """The same, if it can be read by this type. Raises: _UnfitError."""
    if isinstance(kind, inspect.FloatType):
        number = float(value)
        if number != number or number in (float("inf"), float("-inf")) or (kind.ge is not None and number < kind.ge):
            raise _UnfitError(f"{number} is no number that can be sent")
        if (kind.gt is not None and number <= kind.gt) or (kind.le is not None and number > kind.le):
            raise _UnfitError(f"{number} is out of bounds")
        return number
    if isinstance(kind, inspect.StrType):
        if kind.pattern is not None and not re.search(kind.pattern, value):
            raise _UnfitError(f"{value[:80]!r} is not of the form {kind.pattern}")
        if kind.min_length is not None and len(value) < kind.min_length:
            raise _UnfitError(f"{value[:80]!r} is too short")
        return value
    if isinstance(kind, inspect.LiteralType) and value not in kind.values:
        raise _UnfitError(f"{value!r} is none of {', '.join(map(str, kind.values))}")
    return value
