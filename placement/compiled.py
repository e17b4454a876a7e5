"""Loops that Python is too slow for, compiled once by numba and cached beside the source.

Set NUMBA_DISABLE_JIT=1 and the same functions run as plain Python, with the same answers: they use no fast maths.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])
BARE: dict[str, Any] = {"cache": True, "_nrt": False}
"""numba's name for what it does not document."""


def compiled(function: F) -> F:
    """The function, compiled at its first call."""
    return cast(F, numba.njit(cache=True)(function))


def bare(function: F) -> F:
    """The same for a function that makes no arrays: references to those that it looks up are not counted, which takes
    ten times as long as the rest of a step."""
    return cast(F, numba.njit(**BARE)(function))
