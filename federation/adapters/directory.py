"""The policy files of a directory, as people and Kubernetes write them: whole, once, and without ever blocking.

A ConfigMap's volume and git-sync show a file through links into a directory of its own, which is exchanged at each
edit. A file is therefore identified by its visible name: names that begin with a dot are skipped, links are followed,
and a file that is reached twice is read once. Anything but a regular file is reported and not opened: a pipe would
block its reader for ever.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from federation.yamlkit.source import MAX_BYTES

SUFFIXES = (".yaml", ".yml")
ATTEMPTS = 3
KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The contents of a directory at one look.

    Args: files: content by name, at most slightly above the limit of a policy file. refused: entries named like a
        policy file that could not be read, and why. writing: files that changed while they were read. is_there: False
        when the directory itself cannot be read, which says nothing about its files.
    """

    files: dict[str, bytes]
    refused: dict[str, str]
    writing: frozenset[str] = frozenset()
    is_there: bool = True

    def is_unknown(self, name: str) -> bool:
        """Whether a file that is not among `files` may exist all the same."""
        above = {parent.as_posix() for parent in Path(name).parents}
        return name in self.writing or name in self.refused or bool(above & self.refused.keys())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    mark: tuple[int, ...]
    payload: bytes
    is_settled: bool
    """Whether the file was read twice with the same mark: a clock too coarse to tell two writes apart has moved on."""


class PolicyDirectory:
    """A directory that is read repeatedly; unchanged files are not read again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: dict[str, _Seen] = {}
        self._writing: frozenset[str] = frozenset()

    def read(self) -> Reading:
        """The directory's contents. No file or directory makes it raise."""
        for _ in range(ATTEMPTS - 1):
            reading = self._read()
            if all(self._is_as_read(name) for name in reading.files):
                return reading
        return self._read()

    def _is_as_read(self, name: str) -> bool:
        """Whether the entries that were read still exist: otherwise the directory was exchanged, and half of it may be
        old."""
        try:
            return _mark((self.path / name).stat()) == self._seen[name].mark
        except OSError:
            return False

    def _read(self) -> Reading:
        files: dict[str, bytes] = {}
        refused: dict[str, str] = {}
        writing: set[str] = set()
        seen: dict[str, _Seen] = {}
        try:
            root = _identity(self.path.stat())
            found = sorted(_walk(self.path, "", (root,), {root}, refused))
        except OSError as error:
            return Reading(files={}, refused={".": _cause(error)}, is_there=False)
        read: set[tuple[int, int]] = set()
        for name in found:
            try:
                one = _read(self.path / name, self._seen.get(name), read)
            except OSError as error:
                refused[name] = _cause(error)
                continue
            if one is None:
                continue
            if isinstance(one, _Seen):
                seen[name] = one
                files[name] = one.payload
            elif one == "":
                writing.add(name)
                if name in self._writing:
                    refused[name] = "it changes while it is read: it is read when whoever writes it has ended"
            else:
                refused[name] = one
        self._seen, self._writing = seen, frozenset(writing)
        return Reading(files=files, refused=refused, writing=self._writing)


def _walk(
    directory: Path,
    prefix: str,
    above: tuple[tuple[int, int], ...],
    visited: set[tuple[int, int]],
    told: dict[str, str],
) -> Iterator[str]:
    """Names of entries called like a policy file, at any depth. Raises: OSError when `directory` cannot be listed."""
    with os.scandir(directory) as listing:
        entries = sorted((one for one in listing if not one.name.startswith(".")), key=lambda one: one.name)
    below: list[tuple[str, tuple[int, int], bool]] = []
    for entry in entries:
        name = f"{prefix}{entry.name}"
        if not name.isprintable():
            continue
        try:
            status = entry.stat()
        except OSError as error:
            if entry.name.endswith(SUFFIXES):
                told[name] = _cause(error)
            continue
        if not stat.S_ISDIR(status.st_mode):
            if entry.name.endswith(SUFFIXES):
                yield name
            continue
        if entry.name.endswith(SUFFIXES):
            told[name] = "it is a directory, not a file"
        below.append((name, _identity(status), entry.is_symlink()))
    # A link's name stays when what it leads to is exchanged: it comes first.
    for name, identity, _ in sorted(below, key=lambda one: (not one[2], one[0])):
        if identity in above:
            told[name] = "it is a link that leads to a directory above it"
        elif identity not in visited:
            visited.add(identity)
            try:
                yield from _walk(directory / Path(name).name, f"{name}/", (*above, identity), visited, told)
            except OSError as error:
                told[name] = _cause(error)


def _read(path: Path, known: _Seen | None, read: set[tuple[int, int]]) -> _Seen | str | None:
    """The file; or why it is not read (empty: it is being written); None when it was read under another name."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        return f"it is {KINDS.get(stat.S_IFMT(status.st_mode), 'no file')}, not a file"
    if _identity(status) in read:
        return None
    read.add(_identity(status))
    if known is not None and known.is_settled and known.mark == _mark(status):
        return known
    # Not waiting, and looking again: what was a file a moment ago may be a pipe.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    with os.fdopen(handle, "rb") as file:
        before = os.fstat(handle)
        if not stat.S_ISREG(before.st_mode):
            return "it is no file any more"
        payload = file.read(MAX_BYTES + 1)
        after = os.fstat(handle)
    if _mark(before) != _mark(after) or len(payload) < min(after.st_size, MAX_BYTES + 1):
        return ""
    return _Seen(mark=_mark(after), payload=payload, is_settled=known is not None and known.mark == _mark(after))


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _mark(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _cause(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
