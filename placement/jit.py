"""Loops that Python is too slow for, compiled once by numba and cached beside the source.

Set NUMBA_DISABLE_JIT=1 and the same functions run as plain Python, with the same answers: they use no fast maths.

numba finds cached machine code outdated when the file of its function changes, not when a function changes that it
calls. So functions that call each other are in one file, but for those of SHARED, whose text counts for all.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])
BARE: dict[str, Any] = {"cache": True, "_nrt": False}
"""numba's name for what it does not document."""
SHARED = ("request_costs.py",)
"""Files of this package whose functions are compiled into functions of other files."""


def compiled(function: F) -> F:
    """The function, compiled at its first call."""
    return cast(F, _stamped(numba.njit(cache=True)(function)))


def bare(function: F) -> F:
    """The same for a function that makes no arrays: references to those that it looks up are not counted, which takes
    ten times as long as the rest of a step."""
    return cast(F, _stamped(numba.njit(**BARE)(function)))


def _stamped(dispatcher: Any) -> Any:
    """Its cached machine code is outdated when a file of SHARED changes, too. numba documents no such thing."""
    file = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if file is not None:
        file._source_stamp = (file._source_stamp, _shared_text())
    return dispatcher


@functools.cache
def _shared_text() -> str:
    texts = (Path(__file__).with_name(name).read_bytes() for name in SHARED)
    return hashlib.sha256(b"".join(texts)).hexdigest()
