"""Rows of the store: a changed one is found by its checksum, a missing one by the tally."""

from __future__ import annotations

import sqlite3

import pytest

from federation.adapters import records
from federation.adapters.records import AUDIT, CORDONS, Book, State


@pytest.fixture
def db() -> sqlite3.Connection:
    """A database with three cordons."""
    connection = sqlite3.connect(":memory:")
    records.create(connection)
    book = Book(connection, State())
    for name in ("fra", "iad", "par"):
        book.put(CORDONS, name, "kernel", 0)
    book.finish(epoch=1)
    return connection


def test_what_was_written_is_read(db: sqlite3.Connection) -> None:
    """A restarted controller would forget cordons, and send load into maintenance."""
    contents = records.read(db)
    assert contents.is_whole
    assert [row[0] for row in contents.rows[CORDONS.name]] == ["fra", "iad", "par"]
    assert contents.state is not None and (contents.state.epoch, contents.state.change) == (1, 1)


def test_a_row_that_was_changed_is_left_out(db: sqlite3.Connection) -> None:
    """A bit that fell over on the disk would turn a cordon into a drain."""
    db.execute("UPDATE cordons SET drain = 1 WHERE cluster = 'iad'")
    contents = records.read(db)
    assert [row[0] for row in contents.rows[CORDONS.name]] == ["fra", "par"]
    assert contents.damaged[CORDONS.name] and not contents.is_whole


def test_a_row_that_is_missing_is_noticed(db: sqlite3.Connection) -> None:
    """A lost row would be taken for one that was never written."""
    db.execute("DELETE FROM cordons WHERE cluster = 'iad'")
    contents = records.read(db)
    assert CORDONS.name in contents.incomplete and not contents.is_whole
    assert not records.has_all(contents, CORDONS)


def test_a_row_under_another_key_is_not_believed(db: sqlite3.Connection) -> None:
    """Rows that were exchanged would cordon another cluster."""
    db.execute("UPDATE cordons SET cluster = 'mad' WHERE cluster = 'fra'")
    assert "mad" not in [row[0] for row in records.read(db).rows[CORDONS.name]]


def test_a_row_that_was_dropped_in_order_is_not_missed(db: sqlite3.Connection) -> None:
    """Each uncordoned cluster would be reported as damage of the database."""
    state = records.state_of(db)
    assert state is not None
    book = Book(db, state)
    book.drop(CORDONS, "cluster = ?", "fra")
    book.put(CORDONS, "iad", "another reason", 1)
    book.finish()
    assert records.read(db).is_whole


def test_a_file_with_other_tables_is_not_ours(db: sqlite3.Connection) -> None:
    """The store of another program would be opened and written to."""
    assert records.has_tables(db)
    db.execute(f"DROP TABLE {AUDIT.name}")
    assert not records.has_tables(db)


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_packed_body_is_read_back(size: int) -> None:
    """The plan of a large fleet could not be read after a restart."""
    body = b'{"a": "' + b"x" * size + b'"}'
    assert records.unpacked(records.packed(body)) == body
    assert len(records.packed(body)) <= len(body)
