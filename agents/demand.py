"""What the cluster's front door counted, from a file that it keeps: read again at every report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import structlog
import yaml

from federation.wire import messages

log = structlog.get_logger("agent")
MAX_BYTES = 4 * 1024 * 1024


class _Cell(msgspec.Struct, frozen=True, kw_only=True):
    name: str = ""
    country: str = ""
    lat: float = float("nan")
    lon: float = float("nan")


class _Row(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """As it is written: which rows can be sent, and what is told of the others, `agents/outgoing.py` says."""

    model: str = ""
    cell: _Cell = _Cell()
    requests_per_second: float = float("nan")


class DemandFile:
    """A YAML or JSON list of {model, cell: {name, country, lat, lon}, requestsPerSecond}; None is no file."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._last: tuple[messages.DemandSample, ...] = ()
        self._complaint = ""
        self._version: object = None

    def read(self) -> tuple[messages.DemandSample, ...]:
        """The rows; a missing or broken file keeps the last good ones, and is said once."""
        if self._path is None:
            return ()
        try:
            known = self._path.stat()
            version = (known.st_mtime_ns, known.st_size, known.st_ino)
            if version == self._version:
                return self._last  # ten thousand rows take longer to parse than reports are apart
            self._version = version
            with self._path.open("rb") as file:
                raw: Any = yaml.load(file.read(MAX_BYTES), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            rows = msgspec.convert(raw, tuple[_Row, ...])
            self._last = tuple(
                messages.DemandSample(
                    model=row.model,
                    cell=messages.UserCell(
                        name=row.cell.name, country=row.cell.country, lat=row.cell.lat, lon=row.cell.lon
                    ),
                    requests_per_second=row.requests_per_second,
                )
                for row in rows
            )
            self._complaint = ""
        except (OSError, yaml.YAMLError, msgspec.ValidationError) as error:
            if str(error) != self._complaint:
                log.warning("demand file kept as last read", file=str(self._path), cause=str(error))
            self._complaint = str(error)
        return self._last
