"""A small file beside the database with the least that the database must hold, so that an emptied, exchanged or
restored database is not taken for a new one.

Two slots of one page each are written in turn and in place: whenever the machine stops, one of them is whole, and a
full disk takes the write. Changes are recorded after the database has them, so the manifest never claims too much of a
killed process.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

SLOT_BYTES = 4096
SLOTS = 2
FORMAT = 1


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The highest values that were ever reached. None of them falls.

    Args: epoch: taken by a start. generation: of a plan that agents were told, whether stored or not. revision: of an
        accepted policy. change: the number of writes to the database.
    """

    format: int = FORMAT
    epoch: int = 0
    generation: int = 0
    revision: int = 0
    change: int = 0


class _Slot(msgspec.Struct, frozen=True, kw_only=True):
    serial: int
    holds: Manifest
    checksum: str


class ManifestDamaged(ValueError):
    """The file exists and none of its slots can be read."""


class ManifestFile:
    """The file at a path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Manifest | None:
        """The content; None without a file. Raises: ManifestDamaged; OSError."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        slots = _slots(content)
        if not slots:
            raise ManifestDamaged(f"{self.path} is damaged")
        return max(slots.values(), key=lambda one: one.serial).holds

    def reach(self, given: Manifest) -> Manifest:
        """Raise the content to at least `given`, durably; returns the result. Raises: OSError."""
        return self._write(lambda known: highest(known, given))

    def next_epoch(self, least: int) -> int:
        """Take an unused epoch, `least` or higher, durably. Raises: OSError."""
        return self._write(lambda known: msgspec.structs.replace(known, epoch=max(known.epoch + 1, least))).epoch

    def _write(self, change: Callable[[Manifest], Manifest]) -> Manifest:
        if not self.path.exists():
            self._create(made := change(Manifest()))
            return made
        with self._locked() as handle:
            slots = _slots(os.pread(handle, SLOTS * SLOT_BYTES, 0))
            newest = max(slots, key=lambda one: slots[one].serial, default=0)
            known = slots[newest].holds if slots else Manifest()
            serial = slots[newest].serial if slots else 0
            holds = change(known)
            if holds == known and len(slots) == SLOTS:
                return holds
            for number in range(SLOTS) if len(slots) < SLOTS else (1 - newest,):
                os.pwrite(handle, _page(serial + 1 + number, holds), number * SLOT_BYTES)
            os.fdatasync(handle)
            return holds

    def _create(self, holds: Manifest) -> None:
        """Create the file complete from its first moment."""
        temporary = self.path.with_name(f"{self.path.name}.new")
        temporary.unlink(missing_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(handle, b"".join(_page(number + 1, holds) for number in range(SLOTS)))
            os.fsync(handle)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)
        temporary.replace(self.path)
        sync_directory(self.path.parent)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        handle = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield handle
        finally:
            os.close(handle)


def highest(one: Manifest, other: Manifest) -> Manifest:
    """The maximum of both, field by field."""
    return Manifest(
        epoch=max(one.epoch, other.epoch),
        generation=max(one.generation, other.generation),
        revision=max(one.revision, other.revision),
        change=max(one.change, other.change),
    )


def sync_directory(directory: Path) -> None:
    """Make created and removed names of a directory durable."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _page(serial: int, holds: Manifest) -> bytes:
    slot = _Slot(serial=serial, holds=holds, checksum=_checksum(serial, holds))
    return msgspec.json.encode(slot).ljust(SLOT_BYTES - 1) + b"\n"


def _slots(content: bytes) -> dict[int, _Slot]:
    found = {}
    for number in range(SLOTS):
        page = content[number * SLOT_BYTES : (number + 1) * SLOT_BYTES]
        try:
            slot = msgspec.json.decode(page, type=_Slot)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        if page == _page(slot.serial, slot.holds):
            found[number] = slot
    return found


def _checksum(serial: int, holds: Manifest) -> str:
    return hashlib.blake2b(msgspec.msgpack.encode((serial, holds)), digest_size=16).hexdigest()
