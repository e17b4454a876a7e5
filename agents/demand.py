"""What the cluster's front door counted, from a file that it keeps: read again at every report."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import msgspec
import structlog
import yaml

from agents.inventory.offers import condition
from federation.wire import messages

log = structlog.get_logger("agent")
MAX_BYTES = 4 * 1024 * 1024


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Without YAML 1.1's traps: `NO` is a country, and a cell may be called as a date is."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
        first: [one for one in found if one[0].rpartition(":")[2] in ("int", "float", "null")]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


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


FORM = "a YAML or JSON list of {model, cell: {name, country, lat, lon}, requestsPerSecond}"


def _rows(document: Any) -> list[Any]:
    """The rows of one document. Raises: ValueError for what is no list of them."""
    if isinstance(document, list):
        return document
    if isinstance(document, str):
        kind = "CSV" if "," in document else "text"
    else:
        kind = "an object" if isinstance(document, dict) else "a number"
    raise ValueError(f"it holds {kind}, not a list")


def _row(raw: Any) -> _Row:
    """A row as it is written; what cannot be read of it is as if it were not there. Numbers may be text, as Prometheus
    writes them."""
    try:
        return msgspec.convert(raw, _Row, strict=False)
    except msgspec.ValidationError:
        return _Row()


class DemandFile:
    """A YAML or JSON list of {model, cell: {name, country, lat, lon}, requestsPerSecond}; None is no file."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._last: tuple[messages.DemandSample, ...] = ()
        self._complaint = ""
        self._version: object = None

    def read(self) -> tuple[messages.DemandSample, ...]:
        """The rows; a missing or broken file keeps the last good ones, and is told for as long as it is so."""
        if self._path is None:
            return ()
        try:
            known = self._path.stat()
            version = (known.st_mtime_ns, known.st_size, known.st_ino)
            if version == self._version:
                return self._last  # ten thousand rows take longer to parse than reports are apart
            self._version = version
            with self._path.open("rb") as file:
                payload = file.read(MAX_BYTES + 1)
            if len(payload) > MAX_BYTES:
                raise ValueError(f"longer than {MAX_BYTES} bytes")
            if not payload.strip():
                raise ValueError("it is empty, as a file that is being written; no counts are written as []")
            documents = [one for one in yaml.load_all(payload, Loader=_Loader) if one is not None]
            rows = [_row(one) for part in documents for one in _rows(part)]
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
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            if str(error) != self._complaint:
                log.warning("demand file kept as last read", file=str(self._path), cause=str(error))
            self._complaint = str(error)
        return self._last

    def conditions(self) -> tuple[messages.Condition, ...]:
        """What people should know of the file: why its rows are not the newest, and what it should hold."""
        self.read()
        if not self._complaint or self._path is None:
            return ()
        cause = " ".join(self._complaint.split())[:120]
        text = f"{cause}; {len(self._last)} rows of an earlier one stay. Write {FORM}, and rename it into place"
        return (condition("DemandFileRefused", f"file/{self._path.name}", text),)
