"""YAML as people write it: positions are right, traps are words, and hostile input ends at once."""

from __future__ import annotations

from typing import Any

import pytest

from federation.yamlkit.source import Position, YamlProblem, read


def value(text: str) -> Any:
    """The plain value of the only document."""
    (node,) = read(text.encode())
    return node.plain()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("a: no", {"a": "no"}),
        ("a: on", {"a": "on"}),
        ("a: 12:30:00", {"a": "12:30:00"}),
        ("a: 3.0", {"a": 3}),
        ("a: 1e+06", {"a": 1_000_000}),
        ("a: 0x10", {"a": 16}),
        ("a: '3'", {"a": "3"}),
        ("a: ~", {"a": None}),
        ("a: [true, 1.5]", {"a": [True, 1.5]}),
    ],
)
def test_a_value_is_what_its_author_meant(text: str, meant: Any) -> None:
    """Norway would be false, and a time of day a number of seconds."""
    assert value(text) == meant


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        ("a: &x 1", 1, 4, "anchors"),
        ("a: 1\nb: *x", 2, 4, "anchors"),
        ("a: 1\na: 2", 2, 1, "twice"),
        ("a: !!python/object x", 1, 4, "tag"),
        ("a:\n  <<: {b: 1}", 2, 3, "merge"),
        ("a: .nan", 1, 4, "no number"),
        ("a: 1e999", 1, 4, "out of range"),
        ("a: [1, 2", 2, 1, "not YAML"),
        ("? [a]\n: 1", 1, 3, "key"),
    ],
)
def test_what_is_refused_is_refused_at_its_place(text: str, line: int, column: int, says: str) -> None:
    """An author would search a long file, or an alias would make gigabytes of nine lines."""
    with pytest.raises(YamlProblem, match=says) as caught:
        read(text.encode())
    assert caught.value.mark == Position(line=line, column=column)


def test_depth_has_a_bound_before_the_stack_has() -> None:
    """A file of brackets would end the controller."""
    with pytest.raises(YamlProblem, match="deeper"):
        read(b"[" * 10_000)


def test_each_value_knows_its_place() -> None:
    """A refusal of a field would point at the document."""
    (first, second) = read(b"a: 1\n---\nb:\n  - c: 2\n")
    assert first.items is not None and second.items is not None
    assert first.items["a"].mark == Position(line=1, column=4)
    elements = second.items["b"].elements
    assert elements is not None and elements[0].key_marks == {"c": Position(line=4, column=5)}
