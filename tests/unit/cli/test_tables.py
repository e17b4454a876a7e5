"""Rows as kubectl prints them."""

from __future__ import annotations

import json

import pytest
import yaml

from federation.api import views
from federation.cli import tables

EVENT = views.EventView(
    id=1, at_s=0.0, type="Normal", reason="Started", object="controller", message="started\x1b[31m\nforged"
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "<unknown>"), (0.9, "0s"), (119.0, "119s"), (303.0, "5m3s"), (7800.0, "2h10m"), (260_000.0, "3d")],
)
def test_an_age_is_short(seconds: float | None, text: str) -> None:
    """A column of seconds would have to be divided in one's head, and an unknown age would look like a fresh one."""
    assert tables.age(seconds) == text


@pytest.mark.parametrize("word", ["events", "event", "ev", "EVENTS"])
def test_a_kind_has_all_its_names(word: str) -> None:
    """Words that kubectl takes would be refused."""
    found = tables.find(word)
    assert found is not None and found[0] == "events"


def test_short_names_are_of_one_kind_each() -> None:
    """`get pl` would list another kind than the one that was meant."""
    names = [name for kind in tables.KINDS.values() for name in (kind.singular, *kind.short)]
    assert len(names) - len(set(names)) == 1, "`plan` is both the name and the short name of plans"


def test_a_cell_cannot_forge_a_row_or_steer_the_terminal() -> None:
    """An agent's message could show a healthy cluster that does not exist."""
    text = tables.table(tables.KINDS["events"], [EVENT], wide=False)
    assert len(text.splitlines()) == 2
    assert "\x1b" not in text


def test_an_empty_list_says_so() -> None:
    """An operator could not tell an empty answer from a command that failed."""
    assert tables.table(tables.KINDS["gateways"], [], wide=False) == "no gateways"


def test_json_and_yaml_hold_the_same() -> None:
    """A script would lose a field by changing its format."""
    as_json, as_yaml = (tables.document([EVENT], form) for form in ("json", "yaml"))
    assert json.loads(as_json) == yaml.safe_load(as_yaml)
