"""Secrets are refused where others can read them, and never shown."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from federation.aiokit.confidential import has_password, shown
from federation.cli.main import cli


@pytest.mark.parametrize("url", ["mqtts://me:hunter2@b:8883", "me:hunter2@b", "//me:hunter2@b", "mqtts:/me:hunter2@b"])
def test_a_password_is_seen_however_the_url_is_mistyped(url: str) -> None:
    """A URL with one slash too few would print its password in an error."""
    assert has_password(url)
    assert "hunter2" not in shown(url)


def test_a_url_without_secrets_is_shown_whole() -> None:
    """An error about a plain address would hide the address."""
    assert shown("mqtt://127.0.0.1:1883") == "mqtt://127.0.0.1:1883"


def test_a_token_as_an_argument_is_refused_without_being_shown() -> None:
    """Everybody on the machine could read the token in the list of processes, and in the terminal's history."""
    done = CliRunner().invoke(cli, ["--token", "hunter2", "get", "clusters"])
    assert done.exit_code == 2
    assert "--token-file" in done.output
    assert "hunter2" not in done.output
