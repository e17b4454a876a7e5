"""Text of others, made fit for a terminal: what would move the cursor, colour, hide or reorder is shown, not done."""

from __future__ import annotations

import re

_MARKS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029"
"""Turn the direction of writing, or end a line."""
_CONTROL = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_MARKS}\ud800-\udfff]")
_CONTROL_OR_BREAK = re.compile(f"[\x00-\x1f\x7f-\x9f{_MARKS}\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Several lines. Control characters become `\u001b`, which JSON reads back as what it was."""
    return _CONTROL.sub(_shown, text)


def one_line(text: str) -> str:
    """The same of what must stay one line: a name or a message that forges no further lines."""
    return _CONTROL_OR_BREAK.sub(_shown, text)


def _shown(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
