"""Makes foreign text safe for a terminal: characters that move the cursor, colour, hide or reorder are shown
escaped."""

from __future__ import annotations

import re

_MARKS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029"
"""Characters that change the direction of writing, or end a line."""
_CONTROL = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{_MARKS}\ud800-\udfff]")
_CONTROL_OR_BREAK = re.compile(f"[\x00-\x1f\x7f-\x9f{_MARKS}\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Several lines. Control characters become `\u001b`, which JSON reads back unchanged."""
    return _CONTROL.sub(_shown, text)


def one_line(text: str) -> str:
    """The same for text of one line: a name or a message cannot forge further lines."""
    return _CONTROL_OR_BREAK.sub(_shown, text)


def _shown(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
