"""Values compared by identity."""

from __future__ import annotations

from federation.state.identity import ByIdentity


def test_equal_values_are_other_keys() -> None:
    """A cache would read hundreds of thousands of rows to find out whether they changed."""
    rows, same_rows = {"a": 1}, {"a": 1}
    assert ByIdentity(rows) == ByIdentity(rows) and hash(ByIdentity(rows)) == hash(ByIdentity(rows))
    assert ByIdentity(rows) != ByIdentity(same_rows)
    assert ByIdentity(rows) != rows
