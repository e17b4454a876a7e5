"""Rules of STYLE.md that a machine can hold without a false alarm."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("federation", "placement", "agents", "tests", "docs")
SOURCES = [
    path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")) if "node_modules" not in path.parts
]
TESTS = [path for path in SOURCES if path.name.startswith("test_")]
LEAST_WORDS = 4
HISTORY = re.compile(
    r"\b(no longer|used to be|previously|formerly|was fixed|has been fixed|TODO|FIXME|XXX)\b", re.IGNORECASE
)


def undocumented(source: str) -> list[str]:
    """The names of the tests in `source` without a docstring of at least `LEAST_WORDS` words."""
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and len((ast.get_docstring(node) or "").split()) < LEAST_WORDS
    ]


def comments(source: str) -> Iterator[str]:
    """The texts of all `#` comments in `source`."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def name_of(path: Path) -> str:
    """The path from the repository's root: a test's id."""
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", TESTS, ids=name_of)
def test_every_test_says_what_users_lose(path: Path) -> None:
    """Whoever breaks a test could not tell whether users are harmed or an implementation detail has changed."""
    assert undocumented(path.read_text(encoding="utf-8")) == []


def test_a_test_without_a_docstring_is_found() -> None:
    """The rule would hold nothing."""
    source = (
        'def test_a():\n    pass\nasync def test_b():\n    """Users would lose requests."""\nclass C:\n'
        "    def test_c(self): ..."
    )
    assert undocumented(source) == ["test_a", "test_c"]


def test_comments_tell_no_history() -> None:
    """A reader would learn how the code came to be, which the commits tell, and not what it does."""
    found = [
        f"{name_of(path)}: {comment}"
        for path in SOURCES
        for comment in comments(path.read_text(encoding="utf-8"))
        if HISTORY.search(comment)
    ]
    assert found == []
