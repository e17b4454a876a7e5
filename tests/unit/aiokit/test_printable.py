"""What others wrote, on a terminal."""

from __future__ import annotations

import json

import pytest

from federation.aiokit.printable import one_line, printable


@pytest.mark.parametrize(
    ("text", "lines", "line"),
    [
        ("München, 東京, 🙂", "München, 東京, 🙂", "München, 東京, 🙂"),
        ("a\tb\nc", "a\tb\nc", r"a\u0009b\u000ac"),
        ("\x1b[31mred\x1b[0m", r"\u001b[31mred\u001b[0m", r"\u001b[31mred\u001b[0m"),
        ("\x1b]52;c;AA==\x07", r"\u001b]52;c;AA==\u0007", r"\u001b]52;c;AA==\u0007"),
        ("\x9b31m\x7f", r"\u009b31m\u007f", r"\u009b31m\u007f"),
        ("progress\rforged", r"progress\u000dforged", r"progress\u000dforged"),
        ("\u202egnp.exe\u2066", r"\u202egnp.exe\u2066", r"\u202egnp.exe\u2066"),
        ("half\udcff", r"half\udcff", r"half\udcff"),
    ],
)
def test_nothing_steers_the_terminal(text: str, lines: str, line: str) -> None:
    """An agent could clear an operator's screen, write the clipboard, or forge what the next line says."""
    assert printable(text) == lines
    assert one_line(text) == line


def test_json_stays_json() -> None:
    """Scripts would stumble over what was made fit for people."""
    given = {"name": "\x1b\x9b\u202e\n"}
    assert json.loads(printable(json.dumps(given, ensure_ascii=False))) == given
