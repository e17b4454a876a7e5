"""Structured logs: sentences with fields. Text for people at a terminal, JSON lines otherwise.

No kind of line can flood the log (`aiokit.repeats`), and foreign text cannot steer the terminal.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from federation.aiokit.printable import one_line, printable
from federation.aiokit.repeats import LoggingRepeats, Repeats, StructlogRepeats


def configure(style: str = "auto", *, level: int = logging.INFO) -> None:
    """Send the product's logs and the libraries' warnings to standard error, as `text`, `json`, or by its kind."""
    is_terminal = sys.stderr.isatty()
    text = style == "text" or (style == "auto" and is_terminal)
    renderer: Any = structlog.dev.ConsoleRenderer(colors=is_terminal) if text else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            StructlogRepeats(Repeats()),
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *([_printable] if text else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(LoggingRepeats(Repeats()))
        handler.setFormatter(_Printable("%(levelname)s %(name)s: %(message)s"))
    logging.getLogger("amqtt").setLevel(logging.ERROR)
    logging.getLogger("mqtt").setLevel(logging.ERROR)


def _printable(logger: Any, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {
        key: (printable(value) if key == "exception" else one_line(value)) if isinstance(value, str) else value
        for key, value in event.items()
    }


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))
