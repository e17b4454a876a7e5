"""The tables of the store: each row with a checksum, each table with a tally of its rows.

The checksum finds a row that anything else changed. The tally, which is the sum without carry of all checksums of a
table, finds a missing row. The only row of `meta` holds the tallies and the highest epoch, generation and revision.
"""

from __future__ import annotations

import hashlib
import sqlite3
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from federation.control import stored
from federation.control.plan import Routes

SCHEMA_VERSION = 4
READABLE = (2, 3, SCHEMA_VERSION)
"""Schema versions with these tables. 3 may have packed bodies, 4 has plans with a `placement`; older versions read
neither."""
PACKED_FROM_BYTES = 16 * 1024
"""Shorter bodies are not compressed."""
PLANS_SALVAGED = 50
ROUTES_KEPT = 3
CHECKSUM_BYTES = 16
Kind = type[int] | type[float] | type[str] | type[bytes]
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """A table: its columns with their types. The first column identifies a row."""

    name: str
    columns: Mapping[str, Kind]

    @property
    def key(self) -> str:
        """The column that identifies a row."""
        return next(iter(self.columns))

    @property
    def sql(self) -> str:
        """Its definition. One B-tree and no index, so that no row can be present in one and absent in the other."""
        words = {int: "INTEGER", float: "REAL", str: "TEXT", bytes: "BLOB"}
        parts = [f"{name} {words[kind]} NOT NULL" for name, kind in self.columns.items()]
        parts[0] = parts[0].replace(" NOT NULL", " PRIMARY KEY NOT NULL")
        ending = " WITHOUT ROWID" if self.columns[self.key] is str else ""
        return f"CREATE TABLE {self.name} ({', '.join(parts)}, checksum BLOB NOT NULL){ending}"


POLICIES = Table(
    name="policies", columns={"revision": int, "name": str, "payload": bytes, "accepted_at_s": float, "actor": str}
)
PLANS = Table(name="plans", columns={"generation": int, "epoch": int, "at_s": float, "body": bytes})
ROUTES = Table(name="routes", columns={"id": int, "body": bytes})
CORDONS = Table(name="cordons", columns={"cluster": str, "reason": str, "drain": int})
AUDIT = Table(
    name="audit", columns={"id": int, "at_s": float, "actor": str, "action": str, "object": str, "reason": str}
)
META = Table(name="meta", columns={"key": str, "value": bytes})
RECORDS = (POLICIES, PLANS, ROUTES, CORDONS, AUDIT)
TABLES = (*RECORDS, META)
STATE = "state"


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The highest epoch, generation and revision, and the tally of each table."""

    epoch: int = 0
    generation: int = 0
    revision: int = 0
    audit: int = 0
    routes: int = 0
    change: int = 0
    tallies: dict[str, bytes] = msgspec.field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Contents:
    """All intact rows of a database, and the damage.

    Args: rows: by table, in the order of their keys; of plans the newest only. damaged: by table, the key and name that
        are still readable of each damaged row. incomplete: tables with missing or unreachable rows.
    """

    state: State | None = None
    rows: dict[str, deque[Row]] = field(default_factory=dict)
    damaged: dict[str, list[Row]] = field(default_factory=dict)
    incomplete: set[str] = field(default_factory=set)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is damaged or missing."""
        return self.state is not None and not self.damaged and not self.incomplete


def packed(body: bytes) -> bytes:
    """The stored form of a plan or a routing table: for a large fleet its JSON is megabytes of similar rows."""
    return zlib.compress(body, 1) if len(body) >= PACKED_FROM_BYTES else body


def unpacked(body: bytes) -> bytes:
    """The JSON of a stored body."""
    return body if body.startswith(b"{") else zlib.decompress(body)


def create(db: sqlite3.Connection) -> None:
    """Create the empty tables within the caller's transaction."""
    for table in TABLES:
        db.execute(table.sql)
    db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def has_tables(db: sqlite3.Connection) -> bool:
    """Whether the tables are exactly those of this schema."""
    found = db.execute("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall()
    return {(_text(name), _text(sql)) for name, sql in found} == {(one.name, one.sql) for one in TABLES}


class Book:
    """Reads and writes rows within one transaction of the caller."""

    def __init__(self, db: sqlite3.Connection, state: State) -> None:
        self._db = db
        self.state = state
        self._tallies = dict(state.tallies)

    def put(self, table: Table, *values: Any) -> None:
        """Write a row; it replaces the row with its key."""
        row = tuple(kind(value) for kind, value in zip(table.columns.values(), values, strict=True))
        self.drop(table, f"{table.key} = ?", row[0])
        checksum = digest(table, row)
        marks = ", ".join("?" * (len(row) + 1))
        self._db.execute(f"INSERT INTO {table.name} VALUES ({marks})", (*row, checksum))
        self._count(table, checksum)

    def drop(self, table: Table, where: str, *values: object) -> None:
        """Remove rows."""
        for (checksum,) in self._db.execute(f"SELECT checksum FROM {table.name} WHERE {where}", values).fetchall():
            self._count(table, checksum)
        self._db.execute(f"DELETE FROM {table.name} WHERE {where}", values)

    def finish(self, **reached: int) -> State:
        """Write the state, with one more change. Args: reached: new values of its fields."""
        self.state = msgspec.structs.replace(
            self.state, change=self.state.change + 1, tallies=dict(sorted(self._tallies.items())), **reached
        )
        value = msgspec.json.encode(self.state)
        checksum = digest(META, (STATE, value))
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (STATE, value, checksum))
        return self.state

    def _count(self, table: Table, checksum: bytes) -> None:
        self._tallies[table.name] = _added(self._tallies.get(table.name, bytes(CHECKSUM_BYTES)), checksum)


def state_of(db: sqlite3.Connection) -> State | None:
    """The state in `meta`; None without an intact row."""
    found = db.execute("SELECT key, value, checksum FROM meta WHERE key = ?", (STATE,)).fetchone()
    row = None if found is None else good(META, found)
    return None if row is None else msgspec.json.decode(row[1], type=State)


def good(table: Table, found: Row) -> Row | None:
    """The values of a row that was read with its checksum last; None if they do not match it."""
    *values, checksum = found
    if digest(table, values) != checksum:
        return None
    kinds = table.columns.values()
    return tuple(_text(value) if kind is str else value for kind, value in zip(kinds, values, strict=True))


def has_all(contents: Contents, table: Table) -> bool:
    """Whether `contents` has every row of a table that keeps all of its rows."""
    if contents.state is None:
        return False
    tally = bytes(CHECKSUM_BYTES)
    for row in contents.rows[table.name]:
        tally = _added(tally, digest(table, row))
    return contents.state.tallies.get(table.name, bytes(CHECKSUM_BYTES)) == tally


def digest(table: Table, values: Iterable[object]) -> bytes:
    """The checksum of a row over its table, its key and all its values."""
    plain = tuple(value.encode() if isinstance(value, str) else value for value in values)
    return hashlib.blake2b(msgspec.msgpack.encode((table.name, plain)), digest_size=CHECKSUM_BYTES).digest()


def read(db: sqlite3.Connection) -> Contents:
    """Everything readable, whatever state the file is in. Damage raises nothing."""
    contents = Contents()
    try:
        contents.state = state_of(db)
    except (sqlite3.Error, msgspec.DecodeError):
        contents.state = None
    for table in RECORDS:
        tally = bytes(CHECKSUM_BYTES)
        kept: deque[Row] = deque(maxlen=PLANS_SALVAGED if table is PLANS else None)
        for found in _reached(db, table, contents):
            row = good(table, found)
            if row is None:
                contents.damaged.setdefault(table.name, []).append(_readable(table, found))
                continue
            tally = _added(tally, found[-1])
            kept.append(row)
        contents.rows[table.name] = deque(sorted(kept))
        if contents.state is not None and contents.state.tallies.get(table.name, bytes(CHECKSUM_BYTES)) != tally:
            contents.incomplete.add(table.name)
    return contents


def _reached(db: sqlite3.Connection, table: Table, contents: Contents) -> Iterator[Row]:
    """Rows from both ends of the table, as far as its pages are readable. The newest plans come last."""
    columns = ", ".join((*table.columns, "checksum"))
    seen: set[object] = set()
    for order in ("ASC", "DESC"):
        try:
            for found in db.execute(f"SELECT {columns} FROM {table.name} ORDER BY {table.key} {order}"):
                if found[0] in seen:
                    break
                seen.add(found[0])
                yield found
            else:
                return
        except (sqlite3.Error, MemoryError, OverflowError):
            contents.incomplete.add(table.name)


def _readable(table: Table, found: Row) -> Row:
    """The readable part of a damaged row: its key, and for a policy its name."""
    name = found[1] if table is POLICIES else b""
    return found[0], name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def fill(db: sqlite3.Connection, contents: Contents, state: State) -> State:
    """Write intact rows into empty tables within the caller's transaction; returns the written state."""
    book = Book(db, msgspec.structs.replace(state, tallies={}))
    for table in RECORDS:
        for row in contents.rows[table.name]:
            book.put(table, *row)
    return book.finish()


# ---- schema 1: no checksums

VERSION_1 = {
    POLICIES: "SELECT revision, name, payload, accepted_at_s, actor FROM policies ORDER BY revision",
    PLANS: "SELECT generation, epoch, at_s, body FROM plans ORDER BY epoch, generation",
    ROUTES: "SELECT id, body FROM routes",
    CORDONS: "SELECT cluster, reason, drain FROM cordons ORDER BY cluster",
    AUDIT: "SELECT id, at_s, actor, action, object, reason FROM audit ORDER BY id",
}


def read_version_1(db: sqlite3.Connection) -> Contents:
    """Everything readable of a database of schema 1; a row that cannot be decoded counts as damaged."""
    contents = Contents()
    reached = dict.fromkeys((POLICIES.name, AUDIT.name, PLANS.name, ROUTES.name), 0)
    for table, query in VERSION_1.items():
        rows: dict[object, Row] = {}
        try:
            for found in db.execute(query):
                try:
                    row = _as_declared(table, found)
                except (TypeError, ValueError, msgspec.DecodeError):
                    contents.damaged.setdefault(table.name, []).append(_readable(table, found))
                    continue
                rows[row[0]] = row
                if isinstance(row[0], int):
                    reached[table.name] = max(reached[table.name], row[0])
        except (sqlite3.Error, MemoryError, OverflowError):
            contents.incomplete.add(table.name)
        contents.rows[table.name] = deque(sorted(rows.values()))
    try:
        found = db.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
        if found is None and not any(contents.rows.values()):
            found = (0,)  # its first start was killed before it took an epoch
        epoch = int(found[0])
    except (sqlite3.Error, TypeError, ValueError):
        return contents
    contents.state = State(
        epoch=epoch,
        generation=reached[PLANS.name],
        revision=reached[POLICIES.name],
        audit=reached[AUDIT.name],
        routes=reached[ROUTES.name],
    )
    return contents


def _as_declared(table: Table, found: Row) -> Row:
    """Raises: TypeError, ValueError, DecodeError."""
    row: list[Any] = []
    for (name, kind), value in zip(table.columns.items(), found, strict=True):
        given = _text(value) if kind is str and isinstance(value, bytes) else value
        if kind is float and isinstance(given, int):
            given = float(given)
        if not isinstance(given, kind):
            raise TypeError(f"{table.name}.{name} is no {kind.__name__}")
        row.append(given)
    if table is PLANS:
        stored.decode(row[-1])
    if table is ROUTES:
        msgspec.json.decode(row[-1], type=Routes)
    return tuple(row)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _added(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))
