"""Completion of shells, and the version."""

from __future__ import annotations

from importlib import metadata

import pytest
from click.testing import CliRunner

from federation.cli.main import cli


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_completes_this_command(shell: str) -> None:
    """Pressing Tab would do nothing, or complete another program's commands."""
    done = CliRunner().invoke(cli, ["completion", shell])
    assert done.exit_code == 0
    assert "_ISOCHRONE_COMPLETE" in done.output
    assert "isochrone" in done.output


def test_a_shell_that_is_not_known_is_refused_with_those_that_are() -> None:
    """A user of another shell would source an empty script."""
    done = CliRunner().invoke(cli, ["completion", "tcsh"])
    assert done.exit_code == 2
    assert "zsh" in done.output


def test_the_version_is_that_of_the_package() -> None:
    """A report of a fault would name another version than the one that runs."""
    assert CliRunner().invoke(cli, ["version"]).output.strip() == metadata.version("isochrone")
