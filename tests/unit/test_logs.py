"""Logs: machines read JSON, people read text, and nobody's words steer a terminal."""

from __future__ import annotations

import json
import subprocess
import sys

CODE = """
import structlog
from federation.logs import configure
configure({style!r})
structlog.get_logger("test").info("said \\x1b[31mred\\nforged", by="a\\x1b[2Jb")
"""


def logged(style: str) -> str:
    """What a process with this style writes to standard error."""
    done = subprocess.run([sys.executable, "-c", CODE.format(style=style)], capture_output=True, text=True, check=True)
    return done.stderr


def test_a_line_of_json_is_one_object() -> None:
    """A collector of logs would lose lines that hold a line break."""
    (line,) = logged("json").splitlines()
    assert json.loads(line)["level"] == "info"


def test_foreign_words_do_not_steer_the_terminal() -> None:
    """An agent's name could clear the operator's screen, or forge a line of the log."""
    text = logged("text")
    assert "\x1b" not in text
    assert len(text.splitlines()) == 1
