"""The durable state of a controller in SQLite: accepted policy revisions, epoch, plans, cordons, routing table, audit.

Write-ahead log, full synchronisation: when a call returns, its effect survives `kill -9` and a power cut. One
connection is used from one worker thread, so that a slow disk does not block the event loop.

Every write is fenced: a controller whose epoch is not the newest writes nothing. Every row has a checksum, and a
manifest beside the file records the highest state (`records.py`, `manifest.py`), so damage, losses and restored backups
are found when the database is opened. Intact rows are used, losses are reported, and the damaged file is kept
(`salvage.py`).

A full disk must not keep users on lost clusters. Routing tables and plans therefore go on from memory and are written
when there is space. A plan that agents were told and that is not stored is safe for agents, because the next start has
a higher epoch. It is not safe for the next start, whose remembered plan may ask to stop running replicas. So the plan's
generation is written to the manifest first, which needs no space. A start that finds a higher generation there than in
the database knows that its plan is old, and takes over what the agents run (`Remembered.is_incomplete`). Where not even
the manifest can be written, agents are told nothing new. Orders of people are durable or refused.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from federation.adapters import records
from federation.adapters.copies import Copies
from federation.adapters.manifest import FORMAT, Manifest, ManifestDamaged, ManifestFile, sync_directory
from federation.adapters.records import AUDIT, CORDONS, PLANS, POLICIES, ROUTES, ROUTES_KEPT, Book, Contents, State
from federation.adapters.salvage import (
    HEAD,
    WITHDRAWN,
    Found,
    as_manifest,
    as_state,
    extent,
    judge,
    nothing,
    private,
    rescue,
    set_aside,
    shm,
    show_names,
    size,
    wal,
)
from federation.control import stored
from federation.control.plan import Plan, Routes
from federation.state.reasons import EventReason
from federation.state.reduce import Note
from federation.state.world import Cordon

T = TypeVar("T")
PLANS_KEPT = 1000
PLAN_COLUMNS = "generation, epoch, at_s, body, checksum"
NEWEST = 2**62
"""A generation above all others."""
LEAST_SPACE_BYTES = 256 * 1024
"""Less free space than this counts as a full disk: SQLite reports some writes that found no space as failed."""
NO_DAMAGE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    }
)
"""Errors that the environment of the file causes, not damage."""
log = structlog.get_logger("store")


class StoreError(Exception):
    """The database cannot be used. The message says what to do; nothing was written."""


class StoreFull(StoreError):
    """No space: the stored state is still served, writes are refused."""


class Stale(StoreError):
    """The commit was made against a plan that is not the newest; nothing was written."""


class Superseded(Stale):
    """Another controller has taken a higher epoch; nothing was written, and nothing will be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRevision:
    """One accepted policy file. Revisions strictly increase over all files."""

    revision: int
    name: str
    payload: bytes
    accepted_at_s: float
    actor: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """The state that a controller starts from. The epoch is this start's own."""

    epoch: int
    plan: Plan
    routes: Routes
    policies: tuple[PolicyRevision, ...]
    cordons: Mapping[str, Cordon]
    losses: tuple[str, ...] = ()
    """Losses and their replacements, in sentences."""
    is_incomplete: bool = False
    """Plans or policies are lost: the last orders to agents are unknown, and `plan` has none of them."""
    is_epoch_known: bool = True
    """Whether the epoch is certain to exceed all earlier ones."""


@dataclass(slots=True)
class _Pending:
    """State in force that is not written yet."""

    plan: Plan | None = None
    routes: Routes | None = None

    def __bool__(self) -> bool:
        return self.plan is not None or self.routes is not None


class Store:
    """The database of one controller.

    Args: path: of the database file; None keeps it in memory, for a trial.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._connection: sqlite3.Connection | None = None
        self._manifest = ManifestFile(path.with_suffix(".manifest.json")) if path is not None else None
        self._copies = Copies(path.with_suffix(".policies")) if path is not None else None
        self._epoch = 0
        self._generation = 0
        self._identity: tuple[int, int] | None = None
        self._pending = _Pending()
        self._written_routes: Routes | None = None
        """The routes in the newest row of the open file; they are not written again."""
        self._failing: type[StoreError] | None = None
        self._had_manifest = False
        """Whether the database is of a version with a manifest."""
        self._said: set[str] = set()
        self._notes: deque[Note] = deque()
        self.tell: Callable[[Note], None] = _log
        """Receives the events of the store."""

    async def open(self) -> Remembered:
        """Open or create the database, take the next epoch, and return the remembered state.

        Damage is reported and the damaged file is kept. On a full disk the file is read, and everything goes on from
        memory.
        Raises: StoreError when it cannot be read, or is of a newer version.
        """
        return await self._run(self._open)

    async def close(self) -> None:
        """Close the file; later calls fail."""
        await self._run(self._close)
        self._pool.shutdown()

    async def commit(self, plan: Plan, routes: Routes) -> None:
        """Make a plan and its routing table the newest, both or neither; in memory on a full disk.

        Raises: Superseded; Stale when the newest plan is not the one before it; StoreError when a restart could not
            know that agents were told this plan.
        """

        def work() -> None:
            try:
                self._transact(lambda book: self._commit(book, plan, routes))
                self._written_routes = routes
            except Stale:
                raise
            except StoreError:
                self._fence(None)
                self._follows(plan, None)
                try:
                    self._reach(Manifest(epoch=self._epoch, generation=plan.generation))
                except StoreError as error:
                    self._say("PlanNotKept", f"{error}; agents are told nothing new, as a restart would not know of it")
                    raise
                self._pending = _Pending(plan, routes)
            self._generation = plan.generation

        await self._run(work)

    async def save_routes(self, routes: Routes) -> None:
        """Store the shares in force, so that a restart continues with them; in memory on a full disk.

        Raises: Superseded.
        """

        def work() -> None:
            try:
                self._transact(lambda book: self._put_routes(book, routes))
                self._written_routes = routes
            except Stale:
                raise
            except StoreError:
                self._fence(None)
                self._pending.routes = routes

        await self._run(work)

    async def take_epoch(self, epoch: int) -> None:
        """Use this epoch from here on. It never falls. Raises: Superseded, StoreError."""

        def work() -> None:
            self._fence(records.state_of(self._db) if self._connection is not None else None)
            self._reach(Manifest(epoch=epoch))
            self._epoch = max(epoch, self._epoch)
            try:
                self._transact(lambda book: {"epoch": self._epoch})
            except Stale:
                raise
            except StoreError:  # the manifest has it
                if self._manifest is None:
                    raise

        await self._run(work)

    async def keep_up(self) -> None:
        """Write pending state. Raises: Superseded, StoreError."""

        def work() -> None:
            if self._pending or self._failing is not None or self._connection is None:
                self._transact(lambda book: {})
            elif self._path is not None:
                self._watch_file()
                self._fence(records.state_of(self._db))

        with suppress(StoreFull):
            await self._run(work)

    async def add_policy(self, name: str, payload: bytes, *, at_s: float, actor: str) -> int:
        """Store an accepted policy file, durably; returns its revision. Raises: StoreError."""
        return (await self.add_policies({name: payload}, at_s=at_s, actor=actor))[name]

    async def add_policies(
        self, files: Mapping[str, bytes], *, replaced: Collection[str] = (), at_s: float, actor: str, reason: str = ""
    ) -> dict[str, int]:
        """Store accepted policy files, all or none, and withdraw those that they replace; returns their revisions.

        Raises: StoreError.
        """
        given: dict[str, int] = {}

        def write(book: Book) -> dict[str, int]:
            given.clear()
            revision = book.state.revision + 1
            for name in sorted(replaced):
                book.put(POLICIES, revision, name, WITHDRAWN, at_s, actor)
                self._audit(book, at_s, actor, "delete", f"policy/{name}", "its documents are in other files")
                revision += 1
            for name, payload in sorted(files.items()):
                book.put(POLICIES, revision, name, payload, at_s, actor)
                self._audit(book, at_s, actor, "apply", f"policy/{name}", reason)
                given[name] = revision
                revision += 1
            return {"revision": revision - 1}

        def work() -> None:
            self._transact(write)
            self._copy([*files, *replaced])

        await self._run(work)
        return given

    async def withdraw_policy(self, name: str, *, at_s: float, actor: str, reason: str = "") -> None:
        """Withdraw a policy file. Its revisions are kept; an empty one, which no file can have, ends them."""

        def write(book: Book) -> dict[str, int]:
            revision = book.state.revision + 1
            book.put(POLICIES, revision, name, WITHDRAWN, at_s, actor)
            self._audit(book, at_s, actor, "delete", f"policy/{name}", reason)
            return {"revision": revision}

        def work() -> None:
            self._transact(write)
            self._copy([name])

        await self._run(work)

    def _copy(self, names: Collection[str]) -> None:
        """Copy the newest revisions of these files."""
        if self._copies is None:
            return
        columns = ", ".join(POLICIES.columns)
        query = f"SELECT {columns}, checksum FROM policies WHERE name = ? ORDER BY revision DESC LIMIT 1"
        found = (self._db.execute(query, (name,)).fetchone() for name in names)
        self._copies.keep(row for one in found if one is not None and (row := records.good(POLICIES, one)) is not None)

    async def set_cordon(self, cluster: str, cordon: Cordon | None, *, at_s: float, actor: str) -> None:
        """Store a cordon or drain; None removes it. Raises: StoreError."""

        def write(book: Book) -> dict[str, int]:
            if cordon is None:
                book.drop(CORDONS, "cluster = ?", cluster)
            else:
                book.put(CORDONS, cluster, cordon.reason, int(cordon.drain))
            action = "uncordon" if cordon is None else "drain" if cordon.drain else "cordon"
            self._audit(book, at_s, actor, action, f"cluster/{cluster}", cordon.reason if cordon else "")
            return {}

        await self._run(lambda: self._transact(write))

    async def keep_word(self, action: str, subject: str, reason: str, *, at_s: float, actor: str) -> None:
        """Record an operator's confirmation in the audit; it takes effect without being stored. Raises: StoreError."""

        def write(book: Book) -> dict[str, int]:
            self._audit(book, at_s, actor, action, subject, reason)
            return {}

        await self._run(lambda: self._transact(write))

    async def plans(self, limit: int, *, before: int = NEWEST) -> tuple[Plan, ...]:
        """The newest plans of a generation below `before`, newest first. Damaged ones are left out and reported
        once."""

        def read() -> tuple[Plan, ...]:
            pending = self._pending.plan
            found = [pending] if pending is not None and pending.generation < before else []
            if self._connection is None and self._path is not None:
                return tuple(found)
            query = f"SELECT {PLAN_COLUMNS} FROM plans WHERE generation < ? ORDER BY generation DESC LIMIT ?"
            for row in self._db.execute(query, (before, limit)):
                plan = self._good_plan(row)
                if plan is not None:
                    found.append(plan)
            return tuple(found[:limit])

        return await self._run(read)

    def _good_plan(self, row: records.Row) -> Plan | None:
        plan = _plan(row)
        if plan is None:
            self._say("StoreDamaged", f"plan {row[0]} in {self._path} is damaged; a restart will mend the file")
        return plan

    async def plan(self, generation: int) -> Plan | None:
        """One plan; None if it is not kept or damaged."""

        def read() -> Plan | None:
            pending = self._pending.plan
            if pending is not None and pending.generation == generation:
                return pending
            if self._connection is None and self._path is not None:
                return None
            row = self._db.execute(f"SELECT {PLAN_COLUMNS} FROM plans WHERE generation = ?", (generation,)).fetchone()
            return None if row is None else self._good_plan(row)

        return await self._run(read)

    async def earlier_policy(self, name: str, revision: int | None = None) -> tuple[int, bytes] | None:
        """Revision and content of an earlier policy file: the given revision, or the newest that differs from the one
        in force. None if there is none, or it is damaged. Raises: StoreError."""

        def read() -> tuple[int, bytes] | None:
            columns = "revision, name, payload, accepted_at_s, actor, checksum"
            query = f"SELECT {columns} FROM policies WHERE name = ? ORDER BY revision DESC"
            rows = self._db.execute(query, (name,)).fetchall()
            for row in rows:
                is_meant = row[0] == revision if revision is not None else row[2] != rows[0][2]
                values = records.good(POLICIES, row) if is_meant and row[2] != WITHDRAWN else None
                if values is not None:
                    return int(row[0]), bytes(row[2])
            return None

        return await self._run(read)

    # ---- in the worker thread

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError("the store is not open")
        return self._connection

    async def _run(self, work: Callable[[], T]) -> T:
        def called() -> T:
            with self._translated():
                return work()

        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, called)
        finally:
            while self._notes:
                self.tell(self._notes.popleft())

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Translates errors of SQLite and the system."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self._as_ours(error) from error

    def _as_ours(self, error: sqlite3.Error | OSError) -> StoreError:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or self._is_full(error):
            return StoreFull(f"{self._path}: no space left on the disk ({error})")
        return StoreError(f"{self._path}: {error}")

    def _is_full(self, error: sqlite3.Error | OSError) -> bool:
        code = getattr(error, "sqlite_errorcode", 0) or 0
        kinds = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
        if self._path is None or not (isinstance(error, OSError) or code & 0xFF in kinds):
            return False
        try:
            space = os.statvfs(self._path.parent)
        except OSError:
            return False
        return space.f_bavail * space.f_frsize < LEAST_SPACE_BYTES

    def _transact(self, work: Callable[[Book], dict[str, int]], *, is_fenced: bool = True) -> None:
        """Run `work`, which returns the reached state, in one transaction, together with pending state.

        Raises: StoreError, and then nothing is written.
        """
        try:
            with self._translated():
                if self._connection is None:
                    self._open_again()
                self._watch_file()
                with self._db as db:
                    db.execute("BEGIN IMMEDIATE")
                    state = records.state_of(db)
                    if state is None:
                        raise StoreError(f"{self._path} is damaged; restart this controller, which mends it")
                    if is_fenced:
                        self._fence(state)
                    known = self._read_manifest()
                    so_far = msgspec.structs.replace(
                        state, change=max(state.change, known.change), revision=max(state.revision, known.revision)
                    )
                    book = Book(db, so_far)
                    reached = self._catch_up(book) | work(book)
                    state = book.finish(**({"epoch": max(self._epoch, book.state.epoch)} | reached))
        except Stale:
            raise
        except StoreError as error:
            if self._failing is not type(error):
                reason: EventReason = "StoreFull" if isinstance(error, StoreFull) else "StoreFailed"
                text = f"{error}; routing and plans go on from memory, what people order is refused"
                self._notes.append(Note(type="Warning", reason=reason, object="controller", message=text))
            self._failing = type(error)
            raise
        self._pending = _Pending()
        self._generation = max(self._generation, state.generation)
        if self._failing is not None:
            self._failing = None
            self._said.clear()
            text = "the store can be written again; what was kept in memory is stored"
            self._notes.append(Note(reason="StoreBack", object="controller", message=text))
        try:
            self._reach(as_manifest(state))
        except StoreError as error:
            self._say("ManifestFailed", f"{error}; damage of the database could go unnoticed until it can be written")

    def _catch_up(self, book: Book) -> dict[str, int]:
        if self._pending.plan is not None:
            return self._commit(book, self._pending.plan, self._pending.routes or Routes(), again=True)
        if self._pending.routes is not None:
            return self._put_routes(book, self._pending.routes)
        return {}

    def _commit(self, book: Book, plan: Plan, routes: Routes, *, again: bool = False) -> dict[str, int]:
        if not again:
            self._follows(plan, book.state)
        book.put(PLANS, plan.generation, plan.epoch, plan.at_s, records.packed(msgspec.json.encode(plan)))
        book.drop(PLANS, "generation <= ?", plan.generation - PLANS_KEPT)
        return self._put_routes(book, routes) | {"generation": plan.generation}

    def _put_routes(self, book: Book, routes: Routes) -> dict[str, int]:
        if routes is self._written_routes:
            return {}
        number = book.state.routes + 1
        book.put(ROUTES, number, records.packed(msgspec.json.encode(routes)))
        book.drop(ROUTES, "id <= ?", number - ROUTES_KEPT)
        return {"routes": number}

    def _follows(self, plan: Plan, state: State | None) -> None:
        """Raises: Stale when the plan is not the next one."""
        newest = max(self._generation, state.generation if state is not None else 0)
        if plan.generation != newest + 1 or plan.epoch != self._epoch:
            raise Stale(
                f"plan {plan.epoch}.{plan.generation} follows neither generation {newest} nor epoch {self._epoch}"
            )

    def _fence(self, state: State | None) -> None:
        """Raises: Superseded when another controller has taken a higher epoch."""
        newest = max(state.epoch if state is not None else 0, self._read_manifest().epoch)
        if newest > self._epoch:
            raise Superseded(
                f"another controller, epoch {newest}, uses this database; this one has epoch {self._epoch}"
            )

    def _read_manifest(self) -> Manifest:
        if self._manifest is None:
            return Manifest()
        try:
            return self._manifest.read() or Manifest()
        except ManifestDamaged:
            return Manifest()

    def _reach(self, given: Manifest) -> None:
        if self._manifest is None:
            return
        with self._translated():
            self._manifest.reach(given)

    def _say(self, reason: EventReason, text: str) -> None:
        """Report something once, and again after the store could not be written."""
        if text not in self._said:
            self._said.add(text)
            self._notes.append(Note(type="Warning", reason=reason, object="controller", message=text))

    @staticmethod
    def _audit(book: Book, at_s: float, actor: str, action: str, subject: str, reason: str) -> None:
        number = book.state.audit + 1
        book.state = msgspec.structs.replace(book.state, audit=number)
        book.put(AUDIT, number, at_s, actor, action, subject, reason)

    def _watch_file(self) -> None:
        """Restore the file if it vanished while it was open; its content is still readable here. Raises: StoreError."""
        if self._path is None or self._identity is None or self._identity == _identity(self._path):
            return
        if self._path.exists():
            raise StoreError(
                f"{self._path} was exchanged for another file while this controller had it open; restart it to use that"
            )
        wal(self._path).unlink(missing_ok=True)
        fresh = self._path.with_name(f"{self._path.name}.new")
        fresh.unlink(missing_ok=True)
        with private(), closing(sqlite3.connect(fresh, isolation_level=None)) as copy:
            self._db.backup(copy)
        self._close()
        fresh.replace(self._path)
        sync_directory(self._path.parent)
        self._connect()
        self._say(
            "StoreVanished", f"{self._path} vanished while it was open; it was written again with all that it had"
        )

    # ---- opening

    def _open(self) -> Remembered:
        if self._path is None:
            self._connect()
            return self._take_over(Found(), Manifest())
        if not self._path.parent.is_dir():
            self._path.parent.mkdir(parents=True, mode=0o700)
        assert self._manifest is not None
        known, losses = None, []
        try:
            known = self._manifest.read()
        except ManifestDamaged as error:
            losses.append(f"{error}: how far the database had come is not known for certain; it is written again")
        manifest = known or Manifest()
        if manifest.format > FORMAT:
            raise StoreError(f"{self._manifest.path} was written by a newer version; use that one")
        try:
            found = self._look(manifest)
        except (sqlite3.Error, OSError, StoreFull) as error:
            if not isinstance(error, StoreFull) and not isinstance(self._as_ours(error), StoreFull):
                raise
            self._close()
            found = self._look_only(manifest)
        if known is None and not losses and self._had_manifest:
            losses.append(f"{self._manifest.path} is gone; it is written again")
        if losses and not found.contents.is_whole:
            found.is_epoch_known = False
        found.losses[:0] = losses
        return self._take_over(found, manifest)

    def _take_over(self, found: Found, manifest: Manifest) -> Remembered:
        """Take the next epoch, durably, and assemble the remembered state."""
        contents = found.contents
        state = contents.state or State()
        plans = contents.rows.get(PLANS.name, deque())
        plan = _plan_of(plans[-1]) if plans else Plan()
        self._generation = max(state.generation, manifest.generation, plan.generation)
        if found.is_incomplete:
            plan = replace(plan.without_orders(), generation=self._generation)

        def take(book: Book) -> dict[str, int]:
            self._epoch = max(book.state.epoch, self._read_manifest().epoch, plan.epoch) + 1
            return {"epoch": self._epoch, "generation": self._generation}

        try:
            self._transact(take, is_fenced=False)
        except StoreFull:
            least = max(state.epoch, manifest.epoch, plan.epoch) + 1
            try:
                with self._translated():
                    self._epoch = self._manifest.next_epoch(least) if self._manifest is not None else least
            except StoreError:
                self._epoch = least
                found.is_epoch_known = False
        self._said.update(found.losses)
        if self._copies is not None:
            self._copies.keep(contents.rows.get(POLICIES.name, ()))
        return Remembered(
            epoch=self._epoch,
            plan=plan,
            routes=_routes(contents),
            policies=_policies(contents),
            cordons={
                cluster: Cordon(reason=reason, drain=bool(drain))
                for cluster, reason, drain in contents.rows.get(CORDONS.name, ())
            },
            losses=tuple(found.losses),
            is_incomplete=found.is_incomplete,
            is_epoch_known=found.is_epoch_known,
        )

    def _connect(self) -> None:
        """Open the file, creating it readable by this user alone."""
        if self._path is not None:
            for path in (self._path, wal(self._path), shm(self._path), self._path.with_suffix(".manifest.json")):
                with suppress(FileNotFoundError):
                    path.chmod(0o600)
        with private():
            db = sqlite3.connect(self._path or ":memory:", isolation_level=None, check_same_thread=False)
            self._connection = db
            db.text_factory = bytes
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if self._path is None:
            with db:
                db.execute("BEGIN IMMEDIATE")
                records.create(db)
                Book(db, State()).finish()
            return
        self._identity = _identity(self._path)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._identity = None
        self._written_routes = None

    def _open_again(self) -> None:
        """Open for writing after a start that could only read. Raises: StoreError."""
        if self._path is None:
            raise StoreError("the store is not open")
        try:
            found = self._look(self._read_manifest())
            for loss in found.losses if not found.contents.is_whole else ():
                self._say("StoreDamaged", loss)
        except (sqlite3.Error, OSError, StoreError):
            self._close()
            raise

    def _look(self, manifest: Manifest) -> Found:
        """Open the database for reading and writing; a damaged one is moved away. Raises: sqlite3.Error, OSError."""
        assert self._path is not None
        had = size(self._path)
        if not had:
            if size(wal(self._path)):  # SQLite would delete it
                set_aside(self._path)
            self._reach(Manifest())  # before the database is there, so that one without a manifest has lost it
            self._connect()
            return self._begin(manifest, is_missing=had is None)
        try:
            with self._path.open("rb") as file:
                head = file.read(len(HEAD))
            if head[:18] + head[20:] != HEAD[:18] + HEAD[20:] or head[18] not in (1, 2) or head[19] not in (1, 2):
                raise sqlite3.DatabaseError("its head is not that of our files")
            self._connect()
            version = self._version()
            if (problem := self._db.execute("PRAGMA quick_check(1)").fetchone()[0]) != b"ok":
                raise sqlite3.DatabaseError(problem.decode(errors="replace"))
            if version == 1:
                contents = records.read_version_1(self._db)
                if contents.is_whole:
                    self._reach(Manifest())
                    return self._migrate(contents)
            elif version == 0 and not self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                self._reach(Manifest())
                return self._begin(manifest, is_missing=False)
            elif version in records.READABLE and records.has_tables(self._db):
                self._had_manifest = True
                contents = records.read(self._db)
                if contents.is_whole:
                    if version != records.SCHEMA_VERSION:
                        self._db.execute(f"PRAGMA user_version = {records.SCHEMA_VERSION}")
                    found = judge(contents, manifest, self._path)
                    if contents.state is not None and contents.state.change < manifest.change:
                        with suppress(OSError):  # no space: it is only for people to look at
                            found.losses.append(f"what was found is kept as {set_aside(self._path, keep=True).name}")
                    return found
        except sqlite3.DatabaseError as error:
            if (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in NO_DAMAGE:
                raise
            log.error("the database is damaged", file=str(self._path), cause=str(error))
        return self._salvage(manifest)

    def _version(self) -> int:
        """The schema version. Raises: StoreError when it is newer than this one."""
        version: int = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > records.SCHEMA_VERSION:
            raise StoreError(
                f"{self._path} was written by a newer version (schema {version}, this is {records.SCHEMA_VERSION}); "
                "use that version, or move the file away to start from the policy files and the agents' reports"
            )
        return version

    def _look_only(self, manifest: Manifest) -> Found:
        """Read without writing, not even the log's index: for a full disk. Raises: StoreError."""
        assert self._path is not None
        if not size(self._path):
            return judge(Contents(state=State()), manifest, self._path)
        with private(), closing(sqlite3.connect(self._path, isolation_level=None)) as db:
            db.text_factory = bytes
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            contents = records.read_version_1(db) if version == 1 else records.read(db)
        if version == 1:
            show_names(contents)
        found = judge(contents, manifest, self._path)
        found.is_epoch_known = self._manifest is not None and self._manifest.path.exists()
        return found

    def _begin(self, manifest: Manifest, *, is_missing: bool) -> Found:
        """Create a database that starts at the manifest's state."""
        with self._db as db:
            db.execute("BEGIN IMMEDIATE")
            records.create(db)
            contents = nothing()
            restored = self._copies.restore(contents) if manifest.change and self._copies is not None else []
            contents.state = records.fill(db, contents, as_state(manifest))
        found = Found(contents=contents)
        if manifest.change:
            what = "is gone" if is_missing else "was emptied"
            found.is_incomplete = True
            back = f"{len(restored)} policy files come back from their copies" if restored else "policies of the "
            back += "" if restored else "directory come back, hand in the others again"
            found.losses.append(
                f"{self._path} {what}: {extent(manifest)} are lost. What the agents run is taken over and nothing is "
                f"stopped; {back}, and cordon again"
            )
        return found

    def _migrate(self, contents: Contents) -> Found:
        """Migrate from schema 1, in one transaction."""
        assert contents.state is not None
        show_names(contents)
        revision = max((row[0] for row in contents.rows[POLICIES.name]), default=0)
        with self._db as db:
            db.execute("BEGIN IMMEDIATE")
            for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                if not name.startswith(b"sqlite_"):
                    db.execute(f'DROP TABLE "{name.decode()}"')
            records.create(db)
            state = msgspec.structs.replace(contents.state, revision=max(revision, contents.state.revision))
            contents.state = records.fill(db, contents, state)
        return Found(contents=contents)

    def _salvage(self, manifest: Manifest) -> Found:
        """Keep the damaged file, and write its readable rows into a fresh one."""
        assert self._path is not None
        self._close()
        aside = set_aside(self._path, keep=True)
        contents = rescue(aside)
        restored = self._copies.restore(contents) if self._copies is not None else []
        found = judge(contents, manifest, self._path)
        for row in restored:
            found.losses.append(f"{self._path}: policy {row[1]!r} revision {row[0]} is damaged; its copy is used")
        found.losses.append(f"the damaged file is kept as {aside.name}")
        state = contents.state or State()
        plans = contents.rows[PLANS.name]
        policies = contents.rows[POLICIES.name]
        state = State(
            epoch=max(state.epoch, manifest.epoch, *(row[1] for row in plans), 0),
            generation=max(state.generation, manifest.generation, *(row[0] for row in plans), 0),
            revision=max(state.revision, manifest.revision, *(row[0] for row in policies), 0),
            audit=max(state.audit, *(row[0] for row in contents.rows[AUDIT.name]), 0),
            routes=max(state.routes, *(row[0] for row in contents.rows[ROUTES.name]), 0),
            change=max(state.change, manifest.change),
        )
        fresh = self._path.with_name(f"{self._path.name}.new")
        for path in (fresh, wal(fresh), shm(fresh)):
            path.unlink(missing_ok=True)
        with private(), closing(sqlite3.connect(fresh, isolation_level=None)) as db:
            db.text_factory = bytes
            with db:
                db.execute("BEGIN IMMEDIATE")
                records.create(db)
                contents.state = records.fill(db, contents, state)
        for path in (wal(self._path), shm(self._path)):
            path.unlink(missing_ok=True)
        fresh.replace(self._path)
        sync_directory(self._path.parent)
        self._connect()
        return found


def _policies(contents: Contents) -> tuple[PolicyRevision, ...]:
    newest = {row[1]: row for row in contents.rows.get(POLICIES.name, ())}
    return tuple(
        PolicyRevision(revision=revision, name=name, payload=payload, accepted_at_s=at_s, actor=actor)
        for revision, name, payload, at_s, actor in sorted(newest.values())
        if payload != WITHDRAWN
    )


def _routes(contents: Contents) -> Routes:
    rows = contents.rows.get(ROUTES.name)
    return msgspec.json.decode(records.unpacked(rows[-1][1]), type=Routes) if rows else Routes()


def _plan(row: records.Row) -> Plan | None:
    values = records.good(PLANS, row)
    return None if values is None else _plan_of(values)


def _plan_of(values: records.Row) -> Plan:
    return stored.decode(records.unpacked(values[-1]))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _log(note: Note) -> None:
    emit = log.warning if note.type == "Warning" else log.info
    emit(note.message, reason=note.reason)
