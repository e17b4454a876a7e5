"""Executors for placement solves outside the controller's own process."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

SCHEME = "dask"
CONNECT_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lent:
    """Workers that belong to somebody else; `close` ends the connection and leaves them running."""

    executor: Executor
    close: Callable[[], None]


def check(url: str) -> str:
    """The address of a Dask scheduler in Dask's form. Raises: ValueError that says what is wrong with the URL."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme != SCHEME or not parts.hostname or not port:
        raise ValueError(f"{url!r} is not dask://HOST:PORT, the address of a Dask scheduler, as dask://127.0.0.1:8786")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"tcp://{host}:{port}"


def connect(url: str) -> Lent:
    """The workers of the scheduler at this URL; blocks until it answers.

    Raises: ValueError for a bad URL or without Dask installed, OSError without an answer.
    """
    address = check(url)
    try:
        distributed: Any = importlib.import_module("distributed")
    except ImportError as error:
        raise ValueError(f"{url} needs Dask, which is not installed: pip install 'isochrone[dask]'") from error
    try:
        client = distributed.Client(address, timeout=CONNECT_S, set_as_default=False)
    except OSError as error:
        raise OSError(f"no Dask scheduler answers at {url}: {error}; start one with `dask scheduler`") from error
    return Lent(executor=client.get_executor(pure=False), close=client.close)
