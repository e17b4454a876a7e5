"""Chunked pickling of large values for another process: one pickle of the whole would block the event loop.

Long tuples and large arrays of frozen dataclasses are split. Only values that this product packed are unpacked.
"""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

PIECE = 250
"""Items per chunk: about a millisecond of pickling."""
PIECE_BYTES = 1 << 20
PAUSE_S = 0.001
"""The pause between two chunks, in which the event loop runs other work."""
SENT_BYTES = 1 << 20
"""The number of bytes of chunks that are sent together."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """`shape` says how a value is composed of `pieces`, which are pickles, or bytes of an array."""

    shape: Any
    pieces: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class _One:
    """One pickle."""


@dataclass(frozen=True, slots=True)
class _Items:
    """A tuple, split into this many pickles."""

    pieces: int


@dataclass(frozen=True, slots=True)
class _Array:
    """An array, split into this many runs of bytes."""

    pieces: int
    dtype: str
    size: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Several:
    """Values one after the other."""

    parts: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class _Object:
    """A dataclass with these fields."""

    kind: type[Any]
    fields: tuple[tuple[str, Any], ...]


def _packing(value: Any, pieces: list[bytes]) -> Generator[None, None, Any]:
    """Appends to `pieces`, yields between chunks, and returns the shape."""
    if type(value) is tuple and len(value) > PIECE:
        for first in range(0, len(value), PIECE):
            pieces.append(pickle.dumps(value[first : first + PIECE]))
            yield
        return _Items(pieces=-(-len(value) // PIECE))
    if isinstance(value, np.ndarray) and value.nbytes > PIECE_BYTES:
        flat = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        for first in range(0, len(flat), PIECE_BYTES):
            pieces.append(flat[first : first + PIECE_BYTES].tobytes())
            yield
        return _Array(pieces=-(-len(flat) // PIECE_BYTES), dtype=value.dtype.str, size=value.shape)
    if is_dataclass(value) and not isinstance(value, type):
        parts = []
        for field in fields(value):
            if field.init:
                parts.append((field.name, (yield from _packing(getattr(value, field.name), pieces))))
        return _Object(kind=type(value), fields=tuple(parts))
    pieces.append(pickle.dumps(value))
    yield
    return _One()


def _packing_each(values: tuple[Any, ...], pieces: list[bytes]) -> Generator[None, None, Any]:
    parts = []
    for value in values:
        parts.append((yield from _packing(value, pieces)))
    return _Several(tuple(parts))


def _unpacking(shape: Any, pieces: Iterator[bytes]) -> Generator[None, None, Any]:
    match shape:
        case _Items():
            items: list[Any] = []
            for _ in range(shape.pieces):
                items.extend(pickle.loads(next(pieces)))
                yield
            return tuple(items)
        case _Array():
            whole = bytearray()
            for _ in range(shape.pieces):
                whole += next(pieces)
                yield
            return np.frombuffer(whole, dtype=shape.dtype).reshape(shape.size)
        case _Several():
            several: list[Any] = []
            for part in shape.parts:
                several.append((yield from _unpacking(part, pieces)))
            return tuple(several)
        case _Object():
            values = {}
            for name, part in shape.fields:
                values[name] = yield from _unpacking(part, pieces)
            return shape.kind(**values)
        case _:
            yield
            return pickle.loads(next(pieces))


def _at_once(steps: Generator[None, None, Any]) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


async def _gently(steps: Generator[None, None, Any]) -> Any:
    begun_s = time.perf_counter()
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
        if time.perf_counter() - begun_s > PAUSE_S:
            await asyncio.sleep(PAUSE_S)
            begun_s = time.perf_counter()


def pack(value: Any) -> Parcel:
    """Pack in one go."""
    pieces: list[bytes] = []
    shape = _at_once(_packing(value, pieces))
    return Parcel(shape, tuple(pieces))


def unpack(parcel: Parcel) -> Any:
    """Unpack in one go."""
    return _at_once(_unpacking(parcel.shape, iter(parcel.pieces)))


def some(pieces: Sequence[bytes], first: int) -> tuple[bytes, ...]:
    """The pieces from this index on that are sent together; none after the last."""
    last, size = first, 0
    while last < len(pieces) and size < SENT_BYTES:
        size += len(pieces[last])
        last += 1
    return tuple(pieces[first:last])


async def pack_gently(*values: Any) -> Parcel:
    """Pack values as one, which `unpack` returns as a tuple; the event loop runs between chunks."""
    pieces: list[bytes] = []
    shape = await _gently(_packing_each(values, pieces))
    return Parcel(shape, tuple(pieces))


async def unpack_gently(parcel: Parcel) -> Any:
    """Unpack; the event loop runs between chunks."""
    return await _gently(_unpacking(parcel.shape, iter(parcel.pieces)))
