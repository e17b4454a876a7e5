"""The command group: fast to start, and helpful with a misspelt word."""

from __future__ import annotations

import importlib
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from federation.cli.main import LAZY, cli


@pytest.mark.parametrize("name", LAZY)
def test_every_command_exists_and_has_examples(name: str) -> None:
    """The help would list a command that fails, or one without an example to copy."""
    module, _, attribute = LAZY[name][0].partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    assert "Examples:" in (command.epilog or "")


def test_a_misspelt_command_is_answered_with_the_one_that_was_meant() -> None:
    """A user would have to list all commands for one wrong letter."""
    done = CliRunner().invoke(cli, ["drian", "fra-1"])
    assert done.exit_code == 2
    assert "Did you mean drain?" in done.output


def test_help_loads_neither_the_solver_nor_the_server() -> None:
    """`isochrone --help`, and each press of Tab, would take a second."""
    heavy = ("highspy", "numba", "aiohttp", "kubernetes", "grpc")
    code = f"import sys, federation.cli.main; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
