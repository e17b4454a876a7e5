"""Recovery of a damaged database: its intact rows, its losses, and their replacements.

The damaged file stays beside the new one, for people. No row with a wrong checksum is used.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import structlog

from federation.adapters import records
from federation.adapters.manifest import Manifest, highest
from federation.adapters.records import AUDIT, CORDONS, PLANS, POLICIES, ROUTES, Contents, State

WITHDRAWN = b""
"""The content of a policy revision that takes the file out of force: no file can have it."""
HEAD = bytes.fromhex("53514c69746520666f726d61742033001000020200402020")
"""The head of every file that the store writes: SQLite's mark, pages of 4096 bytes, a write-ahead log."""
_UMASK = threading.Lock()
log = structlog.get_logger("store")


@dataclass(slots=True)
class Found:
    """The findings about a database."""

    contents: Contents = field(default_factory=Contents)
    losses: list[str] = field(default_factory=list)
    is_incomplete: bool = False
    is_epoch_known: bool = True


def judge(contents: Contents, manifest: Manifest, path: Path) -> Found:
    """The losses of a database, and whether they concern orders to agents."""
    found = Found(contents=contents)
    state = contents.state
    known = highest(manifest, as_manifest(state)) if state is not None else manifest
    newest = contents.rows[PLANS.name][-1][0] if contents.rows.get(PLANS.name) else 0
    if state is None:
        found.losses.append(f"{path}: the row that says how far it had come is damaged")
        found.is_incomplete = True
        found.is_epoch_known = manifest.change > 0
    elif state.change < manifest.change:
        found.losses.append(
            f"{path} is older than its manifest: it has {state.change} of {manifest.change} changes, so "
            f"{extent(manifest)} are not all in it. What the agents run is taken over; hand in what is missing"
        )
        found.is_incomplete = True
    plans = PLANS.name in contents.damaged or PLANS.name in contents.incomplete
    if newest < known.generation or (plans and not known.generation):
        used = f"plan {newest}" if newest else "no plan"
        found.losses.append(
            f"{path}: plan {known.generation or '(number unknown)'} is not in it, {used} is; what agents were told "
            "since is taken from what they run"
        )
        found.is_incomplete = True
    elif plans:
        found.losses.append(f"{path}: plans of the past are damaged; the newest, {newest}, is good")
    in_force = {row[1]: row[0] for row in contents.rows.get(POLICIES.name, ())}
    for revision, name in contents.damaged.get(POLICIES.name, ()):
        used = f"its revision {in_force[name]} is used" if name in in_force else "none of its revisions is left"
        found.losses.append(f"{path}: policy {name!r} revision {revision} is damaged; {used}")
        found.is_incomplete = True
    if POLICIES.name in contents.incomplete and POLICIES.name not in contents.damaged:
        found.losses.append(f"{path}: policies are missing; hand in again what `isochrone get policies` does not list")
        found.is_incomplete = True
    for table, what in (
        (ROUTES, "routing tables are damaged; the newest good one is used"),
        (CORDONS, "cordons and drains are lost; cordon or drain again the clusters that must take no load"),
        (AUDIT, "entries of the audit are lost"),
    ):
        if table.name in contents.damaged or table.name in contents.incomplete:
            found.losses.append(f"{path}: {what}")
    return found


def rescue(path: Path) -> Contents:
    """Everything readable of a damaged file; where SQLite does not recognise it, of a copy with a repaired head."""
    contents = nothing()
    contents.state = None
    copy = path.with_name(f"{path.name}.copy")
    for mends_head in (False, True):
        try:
            shutil.copyfile(path, copy)
            if size(wal(path)):
                shutil.copyfile(wal(path), wal(copy))
            if mends_head:
                _mend_head(copy)
            with closing(sqlite3.connect(copy, isolation_level=None)) as db:
                db.text_factory = bytes
                for read in (records.read, records.read_version_1):
                    found = read(db)
                    if any(found.rows.values()) or found.state is not None:
                        return found
        except sqlite3.Error as error:
            log.warning("nothing can be read of the damaged database", cause=str(error), head_mended=mends_head)
        finally:
            for one in (copy, wal(copy), shm(copy)):
                one.unlink(missing_ok=True)
    contents.incomplete = {table.name for table in records.RECORDS}
    return contents


def _mend_head(path: Path) -> None:
    """Write the store's own head: pages of 4096 bytes, UTF-8, no free pages, size by the file's length."""
    with path.open("r+b") as file:
        file.write(HEAD)
        file.seek(28)
        file.write(bytes(12))
        file.seek(44)
        file.write(
            (4).to_bytes(4, "big") + bytes(8) + (1).to_bytes(4, "big") + records.SCHEMA_VERSION.to_bytes(4, "big")
        )
        file.write(bytes(28))


def set_aside(path: Path, *, keep: bool = False) -> Path:
    """Rename a database and its log to say that it is damaged. With `keep`, the file stays under its own name too."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    pairs = [(one, other) for one, other in ((path, aside), (wal(path), wal(aside))) if one.exists()]
    try:
        for one, other in pairs:
            shutil.copy2(one, other)
            other.chmod(0o600)
    except OSError:
        for _, other in pairs:
            other.unlink(missing_ok=True)
        raise
    if not keep:
        for one, _ in pairs:
            one.unlink()
    return aside


def show_names(contents: Contents) -> None:
    """Policies that were read under hidden names (a ConfigMap's `..<timestamp>/x.yaml`) get their visible names."""
    rows = contents.rows[POLICIES.name]
    newest = {row[1]: row for row in rows}
    revision = max((row[0] for row in rows), default=0)
    for name, row in sorted(newest.items()):
        shown = "/".join(part for part in PurePosixPath(name).parts if not part.startswith("."))
        if row[2] == WITHDRAWN or shown in (name, "") or newest.get(shown, (0, "", WITHDRAWN))[2] != WITHDRAWN:
            continue
        newest[shown] = (revision + 1, shown, row[2], row[3], row[4])
        rows.append(newest[shown])
        rows.append((revision + 2, name, WITHDRAWN, row[3], row[4]))
        revision += 2


def nothing(state: State | None = None) -> Contents:
    return Contents(state=state, rows={table.name: deque() for table in records.RECORDS})


def as_state(manifest: Manifest) -> State:
    return State(
        epoch=manifest.epoch, generation=manifest.generation, revision=manifest.revision, change=manifest.change
    )


def as_manifest(state: State) -> Manifest:
    return Manifest(epoch=state.epoch, generation=state.generation, revision=state.revision, change=state.change)


def extent(manifest: Manifest) -> str:
    return f"plans up to {manifest.generation} and policies up to revision {manifest.revision}"


@contextmanager
def private() -> Iterator[None]:
    """Files created inside this context are readable by this user alone."""
    with _UMASK:  # it is the process's: two who change it at once would leave it changed
        before = os.umask(0o077)
        try:
            yield
        finally:
            os.umask(before)


def wal(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def shm(path: Path) -> Path:
    return path.with_name(f"{path.name}-shm")


def size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
