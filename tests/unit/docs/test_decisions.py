"""Decision records: one number each, and all four parts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.docs.papers import DOCS, name_of

RECORDS = sorted((DOCS / "decisions").glob("0*.md"))
LONGEST_LINES = 60


def test_numbers_are_unique_and_without_gaps() -> None:
    """Two records of one number could not be told apart in a discussion."""
    assert [int(path.name[:4]) for path in RECORDS] == list(range(1, len(RECORDS) + 1))


@pytest.mark.parametrize("path", RECORDS, ids=name_of)
def test_a_record_has_its_number_and_all_its_parts(path: Path) -> None:
    """A reader would learn what was decided, and not what else was possible or what it costs."""
    text = path.read_text(encoding="utf-8")
    assert text.startswith(f"# {path.name[:4]}: ")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Rejected", "Cost"]
    assert len(text.splitlines()) <= LONGEST_LINES, "a record is short: explain at length on a page of docs/design"
