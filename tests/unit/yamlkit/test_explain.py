"""A type's refusal in plain words: where, what was expected, and the word that was probably meant."""

from __future__ import annotations

from typing import Annotated

import msgspec
import pytest
from msgspec import Meta

from federation.yamlkit.explain import did_you_mean, explain, refusals, short, without_nulls
from federation.yamlkit.source import YamlNode, read


class Inner(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    step_seconds: Annotated[float, Meta(gt=0, description="time between two steps")] = 1.0


class Outer(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    name: str
    inner: Inner = msgspec.field(default_factory=Inner)


def problems(text: str) -> list[str]:
    """Every problem of a document, as a compiler writes it."""
    (node,) = read(text.encode())
    return [explain("f.yaml", node, Outer, one).text() for one in refusals(node, Outer)]


def test_a_misspelt_field_is_shown_with_the_one_that_was_meant() -> None:
    """An author would read the reference to find one letter."""
    (text,) = problems("name: a\ninner:\n  stepSecond: 2\n")
    assert text.startswith("f.yaml:3:3: ")
    assert "stepSeconds" in text


def test_a_value_out_of_bounds_is_shown_with_what_the_field_means() -> None:
    """An author would learn that a number is wrong and not which ones are right."""
    (text,) = problems("name: a\ninner: {stepSeconds: 0}\n")
    assert text.startswith("f.yaml:2:22: ")
    assert "time between two steps" in text


def test_all_faults_are_told_at_once() -> None:
    """An author would correct a file one fault at a time."""
    assert len(problems("inner: {stepSeconds: x}\n")) == 2


def test_a_field_that_a_template_left_open_is_as_if_absent() -> None:
    """Helm's `null` for an unset value would be refused."""
    (node,) = read(b"name: a\ninner: null\n")
    cut = without_nulls(node, Outer)
    assert isinstance(cut, YamlNode) and cut.items is not None and set(cut.items) == {"name"}


@pytest.mark.parametrize(("word", "hint"), [("regoin", "region"), ("xyzzy", "")])
def test_a_hint_is_given_only_where_it_is_near(word: str, hint: str) -> None:
    """A far-fetched guess would lead an author away from the fault."""
    said = did_you_mean(word, ["region", "zone", "provider"])
    assert (hint in said) if hint else (said == "")


def test_a_long_value_does_not_hide_the_rest_of_the_line() -> None:
    """The hint at the end of the line would be out of sight."""
    assert len(short("x" * 10_000)) < 200
