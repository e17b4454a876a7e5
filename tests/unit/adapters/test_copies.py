"""Copies of policy files: the newest of each, and only intact ones are used."""

from __future__ import annotations

import stat
from collections import deque
from pathlib import Path

import pytest

from federation.adapters.copies import Copies
from federation.adapters.records import POLICIES, Contents, Row


def row(revision: int, name: str = "chat.yaml", payload: bytes = b"a") -> Row:
    return (revision, name, payload, 1.0, "me")


@pytest.fixture
def copies(tmp_path: Path) -> Copies:
    """A directory without copies."""
    return Copies(tmp_path / "policies")


def restored(copies: Copies, *rows: Row) -> list[Row]:
    """The rows of a store that has these, with the copies."""
    contents = Contents(rows={POLICIES.name: deque(rows)})
    Copies(copies.directory).restore(contents)
    return list(contents.rows[POLICIES.name])


def test_a_lost_database_gets_its_policies_back(copies: Copies) -> None:
    """A lost volume would take every model out of force."""
    copies.keep([row(1), row(2, "vision.yaml")])
    assert restored(copies) == [row(1), row(2, "vision.yaml")]


def test_only_the_newest_revision_of_a_file_is_kept(copies: Copies) -> None:
    """A restored controller would put an old revision in force, or copies would fill the disk."""
    copies.keep([row(1)])
    copies.keep([row(3, payload=b"b"), row(2)])
    assert restored(copies) == [row(3, payload=b"b")]
    assert len(list(copies.directory.iterdir())) == 1


def test_a_damaged_or_renamed_copy_is_not_used(copies: Copies) -> None:
    """A copy that somebody edited would come into force without having been checked."""
    copies.keep([row(1), row(2, "vision.yaml")])
    first, second = sorted(copies.directory.iterdir())
    first.write_bytes(first.read_bytes().replace(b"chat", b"cats"))
    second.rename(second.with_name("0000000000000009.json"))
    assert restored(copies) == []


def test_a_row_that_is_there_is_not_replaced(copies: Copies) -> None:
    """An intact database would be overwritten by its copies."""
    copies.keep([row(1, payload=b"copy")])
    assert restored(copies, row(1, payload=b"store")) == [row(1, payload=b"store")]


def test_others_cannot_read_a_copy(copies: Copies) -> None:
    """Every user of the machine could read the policies."""
    copies.keep([row(1)])
    assert stat.S_IMODE(copies.directory.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(one.stat().st_mode) == 0o600 for one in copies.directory.iterdir())
