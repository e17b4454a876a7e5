"""What must not be lost, in SQLite: accepted policy revisions, epoch, plans, cordons, routing table, audit.

Write-ahead log, full synchronisation: when a call returns, its effect survives `kill -9` and a power cut. One
connection, used from one worker thread, so that a slow disk does not stop the event loop. The whole database can be
rebuilt from nothing but the policy files and the agents' reports; epochs alone cannot, and agents refuse lower ones.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from federation.control.plan import Plan, Routes
from federation.state.world import Cordon

T = TypeVar("T")
SCHEMA_VERSION = 1
PLANS_KEPT = 1000
WITHDRAWN = b""

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS policies (
    revision INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, payload BLOB NOT NULL,
    accepted_at_s REAL NOT NULL, actor TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS policies_by_name ON policies (name, revision);
CREATE TABLE IF NOT EXISTS plans (
    epoch INTEGER NOT NULL, generation INTEGER NOT NULL, at_s REAL NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (epoch, generation));
CREATE TABLE IF NOT EXISTS routes (id INTEGER PRIMARY KEY CHECK (id = 1), body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS cordons (cluster TEXT PRIMARY KEY, reason TEXT NOT NULL, drain INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT, at_s REAL NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL,
    object TEXT NOT NULL, reason TEXT NOT NULL);
"""


class StoreError(Exception):
    """The database cannot be used. The message says what to do; nothing was written."""


class StoreFull(StoreError):
    """No space: what is stored stays served, writes are refused."""


class Stale(StoreError):
    """The commit was made against a plan that is no longer the newest; nothing was written."""


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
    """What a controller starts from. The epoch is already this start's own."""

    epoch: int
    plan: Plan
    routes: Routes
    policies: tuple[PolicyRevision, ...]
    cordons: Mapping[str, Cordon]


class Store:
    """The database of one controller.

    Args: path: of the database file; None keeps it in memory, for a trial.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self._connection: sqlite3.Connection | None = None

    async def open(self) -> Remembered:
        """Open or make the database, take the next epoch, and give what was remembered.

        Raises: StoreError when the file is damaged or of a newer version.
        """
        return await self._run(self._open)

    async def close(self) -> None:
        """Close the file; later calls fail."""
        await self._run(self._close)
        self._pool.shutdown()

    async def commit(self, plan: Plan, routes: Routes) -> None:
        """Make a plan and its routing table the newest, both or neither.

        Raises: Stale when the newest stored plan is not the one before it.
        """
        await self._run(lambda: self._commit(plan, routes))

    async def take_epoch(self, epoch: int) -> None:
        """Be this epoch from now on. It never falls."""

        def write(db: sqlite3.Connection) -> None:
            newest = max(epoch, int(self._meta(db, "epoch") or 0))
            db.execute("INSERT OR REPLACE INTO meta VALUES ('epoch', ?)", (str(newest),))

        await self._write(write)

    async def save_routes(self, routes: Routes) -> None:
        """Keep the shares in force, so that a restart goes on with them."""
        body = msgspec.json.encode(routes)
        await self._write(lambda db: db.execute("INSERT OR REPLACE INTO routes VALUES (1, ?)", (body,)))

    async def add_policy(self, name: str, payload: bytes, *, at_s: float, actor: str) -> int:
        """Keep an accepted policy file; gives its revision. Durable when it returns."""
        return (await self.add_policies({name: payload}, at_s=at_s, actor=actor))[name]

    async def add_policies(
        self, files: Mapping[str, bytes], *, replaced: Collection[str] = (), at_s: float, actor: str
    ) -> dict[str, int]:
        """Keep accepted policy files, all or none, and take those out of force that they replace; gives revisions."""

        def write(db: sqlite3.Connection) -> dict[str, int]:
            given = {}
            for name in sorted(replaced):
                self._add_revision(db, name, WITHDRAWN, at_s, actor)
                self._audit(db, at_s, actor, "delete", f"policy/{name}", "its documents are in other files")
            for name, payload in sorted(files.items()):
                given[name] = self._add_revision(db, name, payload, at_s, actor)
                self._audit(db, at_s, actor, "apply", f"policy/{name}", "")
            return given

        return await self._write(write)

    @staticmethod
    def _add_revision(db: sqlite3.Connection, name: str, payload: bytes, at_s: float, actor: str) -> int:
        cursor = db.execute(
            "INSERT INTO policies (name, payload, accepted_at_s, actor) VALUES (?, ?, ?, ?)",
            (name, payload, at_s, actor),
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    async def withdraw_policy(self, name: str, *, at_s: float, actor: str) -> None:
        """Take a policy file out of force. Its revisions are kept; an empty one, which no file can have, ends them."""

        def write(db: sqlite3.Connection) -> None:
            self._add_revision(db, name, WITHDRAWN, at_s, actor)
            self._audit(db, at_s, actor, "delete", f"policy/{name}", "")

        await self._write(write)

    async def set_cordon(self, cluster: str, cordon: Cordon | None, *, at_s: float, actor: str) -> None:
        """Keep an operator's word on a cluster, or take it back with None."""

        def write(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM cordons WHERE cluster = ?", (cluster,))
            if cordon is not None:
                db.execute("INSERT INTO cordons VALUES (?, ?, ?)", (cluster, cordon.reason, int(cordon.drain)))
            action = "uncordon" if cordon is None else "drain" if cordon.drain else "cordon"
            self._audit(db, at_s, actor, action, f"cluster/{cluster}", cordon.reason if cordon else "")

        await self._write(write)

    async def plans(self, limit: int) -> tuple[Plan, ...]:
        """The newest plans, newest first."""

        def read() -> tuple[Plan, ...]:
            rows = self._db.execute("SELECT body FROM plans ORDER BY epoch DESC, generation DESC LIMIT ?", (limit,))
            return tuple(msgspec.json.decode(row[0], type=Plan) for row in rows)

        return await self._run(read)

    @property
    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError("the store is not open")
        return self._connection

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except sqlite3.OperationalError as error:
            kind = StoreFull if "full" in str(error) else StoreError
            raise kind(f"{self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise StoreError(
                f"{self._path}: {error}. Move the file away to start from the policy files and the agents' reports"
            ) from error

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def in_transaction() -> T:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                return work(self._db)

        return await self._run(in_transaction)

    def _open(self) -> Remembered:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        db = sqlite3.connect(self._path or ":memory:", isolation_level=None, check_same_thread=False)
        self._connection = db
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        if (problem := db.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(f"damaged: {problem}")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self._path} was written by a newer version (schema {version}, this is {SCHEMA_VERSION})"
            )
        db.executescript(SCHEMA)
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        with db:
            db.execute("BEGIN IMMEDIATE")
            epoch = int(self._meta(db, "epoch") or 0) + 1
            db.execute("INSERT OR REPLACE INTO meta VALUES ('epoch', ?)", (str(epoch),))
        if self._path is not None:
            self._path.chmod(0o600)
        return Remembered(
            epoch=epoch,
            plan=self._newest_plan(db) or Plan(),
            routes=self._routes(db),
            policies=self._policies(db),
            cordons={
                cluster: Cordon(reason=reason, drain=bool(drain))
                for cluster, reason, drain in db.execute("SELECT cluster, reason, drain FROM cordons ORDER BY cluster")
            },
        )

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _commit(self, plan: Plan, routes: Routes) -> None:
        with self._db as db:
            db.execute("BEGIN IMMEDIATE")
            row = db.execute("SELECT max(generation) FROM plans").fetchone()
            newest = row[0] or 0
            epoch = int(self._meta(db, "epoch") or 0)
            if plan.generation != newest + 1 or plan.epoch != epoch:
                raise Stale(
                    f"plan {plan.epoch}.{plan.generation} follows neither generation {newest} nor epoch {epoch}"
                )
            db.execute(
                "INSERT INTO plans VALUES (?, ?, ?, ?)",
                (plan.epoch, plan.generation, plan.at_s, msgspec.json.encode(plan)),
            )
            db.execute("INSERT OR REPLACE INTO routes VALUES (1, ?)", (msgspec.json.encode(routes),))
            db.execute("DELETE FROM plans WHERE generation <= ?", (plan.generation - PLANS_KEPT,))

    @staticmethod
    def _meta(db: sqlite3.Connection, key: str) -> str | None:
        row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    @staticmethod
    def _newest_plan(db: sqlite3.Connection) -> Plan | None:
        row = db.execute("SELECT body FROM plans ORDER BY generation DESC LIMIT 1").fetchone()
        return msgspec.json.decode(row[0], type=Plan) if row else None

    @staticmethod
    def _routes(db: sqlite3.Connection) -> Routes:
        row = db.execute("SELECT body FROM routes WHERE id = 1").fetchone()
        return msgspec.json.decode(row[0], type=Routes) if row else Routes()

    @staticmethod
    def _policies(db: sqlite3.Connection) -> tuple[PolicyRevision, ...]:
        rows = db.execute(
            "SELECT max(revision), name, payload, accepted_at_s, actor FROM policies GROUP BY name ORDER BY 1"
        )
        return tuple(
            PolicyRevision(revision=r, name=n, payload=p, accepted_at_s=t, actor=who)
            for r, n, p, t, who in rows
            if p != WITHDRAWN
        )

    @staticmethod
    def _audit(db: sqlite3.Connection, at_s: float, actor: str, action: str, subject: str, reason: str) -> None:
        db.execute(
            "INSERT INTO audit (at_s, actor, action, object, reason) VALUES (?, ?, ?, ?, ?)",
            (at_s, actor, action, subject, reason),
        )
