"""Bounds the log: of each kind of line a fixed number per window, then the number of omitted ones."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog

WINDOW_S = 10.0
LINES, STACKS = 100, 10
"""Lines of one kind per window; lines of one kind with a stack."""
KINDS = 1_000
UNTOLD = "more_like_this"


class Repeats:
    """Counts lines by kind: the line of code that logs it, or the reason of an event, never its text."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._windows: dict[object, tuple[float, int]] = {}

    def count(self, kind: object, most: int = LINES) -> int | None:
        """None: omit the line. Otherwise the number of omitted lines of this kind since the last one."""
        now_s = self._now_s()
        begun_s, lines = self._windows.get(kind, (now_s, 0))
        untold = 0
        if now_s - begun_s >= WINDOW_S:
            begun_s, lines, untold = now_s, 0, max(0, lines - most)
        if kind not in self._windows and len(self._windows) >= KINDS:
            self._windows.clear()
        self._windows[kind] = (begun_s, lines + 1)
        return None if lines >= most else untold


class StructlogRepeats:
    """A processor of structlog that drops lines beyond the bound."""

    def __init__(self, repeats: Repeats) -> None:
        self._repeats = repeats

    def __call__(self, logger: Any, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        has_stack = bool(event.get("exc_info"))
        kind = (level, event.get("reason") or event.get("event"))
        untold = self._repeats.count(kind, STACKS if has_stack else LINES)
        if untold is None:
            raise structlog.DropEvent
        if untold:
            event[UNTOLD] = untold
        return event


class LoggingRepeats(logging.Filter):
    """The same for the logging of libraries."""

    def __init__(self, repeats: Repeats) -> None:
        super().__init__()
        self._repeats = repeats

    def filter(self, record: logging.LogRecord) -> bool:
        untold = self._repeats.count((record.name, record.pathname, record.lineno), STACKS)
        if untold is None:
            return False
        if untold:
            record.msg, record.args = f"{record.getMessage()} ({untold} {UNTOLD.replace('_', ' ')})", None
        return True
