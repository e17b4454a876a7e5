"""Reaching a controller: where it is, what opens it, and what to do when it cannot be reached."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from federation.aiokit import context
from federation.cli.client import Client, CliError, listen_at
from federation.cli.main import cli


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of this machine."""
    monkeypatch.setenv("ISOCHRONE_CONFIG", str(tmp_path / "config.json"))
    for name in ("ISOCHRONE_SERVER", "ISOCHRONE_TOKEN", "ISOCHRONE_TOKEN_FILE", "ISOCHRONE_CA_FILE"):
        monkeypatch.delenv(name, raising=False)


def failure(*arguments: str) -> CliError:
    """What a command fails with."""
    done = CliRunner().invoke(cli, list(arguments), standalone_mode=False)
    assert isinstance(done.exception, CliError), done.exception
    return done.exception


def test_without_a_controller_a_user_is_told_how_to_start_one() -> None:
    """The first command of a new user would end in a connection error."""
    error = failure("get", "clusters")
    assert "no controller is known" in str(error)
    assert "isochrone demo" in error.hint
    assert error.status == 3


def test_a_token_goes_only_to_the_controller_that_it_opens() -> None:
    """A mistyped --server would get the token of another controller."""
    context.write(context.Context(server="http://127.0.0.1:8480", token="secret"))
    error = failure("--server", "http://127.0.0.1:9999", "get", "clusters")
    assert "no token for http://127.0.0.1:9999" in str(error)
    assert error.status == 4


@pytest.mark.parametrize("server", ["127.0.0.1:8480", "ftp://127.0.0.1", "http://"])
def test_what_is_no_url_is_refused(server: str) -> None:
    """A missing http:// would end in a stack trace."""
    with pytest.raises(CliError, match="not a URL"):
        Client(server, "token")


def test_a_token_never_travels_in_plain_text() -> None:
    """Anybody on the network could read the token and command the fleet."""
    with pytest.raises(CliError, match="plain text"):
        Client("http://controller.example", "token")
    assert Client("https://controller.example", "token").server == "https://controller.example"


def test_a_controller_that_does_not_answer_has_an_exit_code_of_its_own() -> None:
    """A script could not tell a controller that is down from a wrong command."""
    context.write(context.Context(server="http://127.0.0.1:1", token="secret"))
    assert failure("get", "clusters").status == 3


def test_a_wrong_address_is_refused_by_the_name_of_its_option() -> None:
    """With three addresses among the options a user could not tell which one is wrong."""
    assert listen_at("--listen", "[::1]:8480", "127.0.0.1:8480") == ("::1", 8480)
    with pytest.raises(click.UsageError, match="--listen"):
        listen_at("--listen", "8480", "127.0.0.1:8480")
