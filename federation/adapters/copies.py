"""Copies of the newest revision of each policy file, beside the database, so that a damaged row or a lost database
takes no policy out of force.

One file each, named by its revision, with its checksum. A copy that cannot be written is missing until the next start.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec
import structlog

from federation.adapters import records
from federation.adapters.manifest import sync_directory
from federation.adapters.records import POLICIES, Contents, Row
from federation.adapters.salvage import private

log = structlog.get_logger("store")


class _Copy(msgspec.Struct, frozen=True, kw_only=True):
    revision: int
    name: str
    payload: bytes
    accepted_at_s: float
    actor: str
    checksum: bytes

    @property
    def row(self) -> Row:
        return (self.revision, self.name, self.payload, self.accepted_at_s, self.actor)


class Copies:
    """The copies in a directory, which is created when it is needed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._known: dict[int, str] | None = None
        """Revision -> file, once the directory has been read."""

    def keep(self, rows: Iterable[Row]) -> None:
        """Keep a copy of each of these revisions, and none of earlier ones of the same files."""
        newest = {row[1]: row for row in sorted(rows)}
        try:
            if self._known is None:
                self._known = {copy.revision: copy.name for copy in self._read()}
            known = self._known
            new = [row for row in newest.values() if row[0] not in known]
            if new:
                with private():
                    self.directory.mkdir(mode=0o700, exist_ok=True)
                    for row in new:
                        self._write(row)
                        known[row[0]] = row[1]
            old = [at for at, name in known.items() if name in newest and at < newest[name][0]]
            for revision in old:
                self._path(revision).unlink(missing_ok=True)
                del known[revision]
            if new:
                sync_directory(self.directory)
        except OSError as error:
            log.warning("a policy has no copy beside the database", cause=str(error))

    def restore(self, contents: Contents) -> list[Row]:
        """Add missing rows to `contents` from the copies; returns them."""
        rows = contents.rows[POLICIES.name]
        have = {row[0] for row in rows}
        found = [copy.row for copy in self._read() if copy.revision not in have]
        if found:
            contents.rows[POLICIES.name] = type(rows)(sorted([*rows, *found]))
            restored = {row[0] for row in found}
            damaged = [one for one in contents.damaged.pop(POLICIES.name, ()) if one[0] not in restored]
            if damaged:
                contents.damaged[POLICIES.name] = damaged
            if records.has_all(contents, POLICIES):
                contents.incomplete.discard(POLICIES.name)
        return found

    def _read(self) -> list[_Copy]:
        """Intact copies, by revision."""
        found = []
        for path in sorted(self.directory.glob("*.json")) if self.directory.is_dir() else ():
            try:
                copy = msgspec.json.decode(path.read_bytes(), type=_Copy)
            except (OSError, msgspec.DecodeError):
                continue
            if path == self._path(copy.revision) and records.digest(POLICIES, copy.row) == copy.checksum:
                found.append(copy)
        return sorted(found, key=lambda one: one.revision)

    def _write(self, row: Row) -> None:
        path = self._path(row[0])
        revision, name, payload, accepted_at_s, actor = row
        copy = _Copy(
            revision=revision,
            name=name,
            payload=payload,
            accepted_at_s=accepted_at_s,
            actor=actor,
            checksum=records.digest(POLICIES, row),
        )
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            file.write(msgspec.json.encode(copy))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)

    def _path(self, revision: int) -> Path:
        return self.directory / f"{revision:016d}.json"
