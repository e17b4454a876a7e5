"""Where plans are made besides a process of our own: on an executor that the settings name."""

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
    """An executor of somebody else's workers; `close` leaves them alone and ends our connection."""

    executor: Executor
    close: Callable[[], None]


def check(url: str) -> str:
    """The address of a Dask scheduler as Dask writes it. Raises: ValueError saying what is wrong with the URL."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme != SCHEME or not parts.hostname or not port:
        raise ValueError(f"{url!r} is no dask://HOST:PORT, the address of a Dask scheduler, as dask://127.0.0.1:8786")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"tcp://{host}:{port}"


def connect(url: str) -> Lent:
    """The workers of the scheduler at this URL; blocks until it answers.

    Raises: ValueError where the URL is none or Dask is not installed, OSError where nobody answers.
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
