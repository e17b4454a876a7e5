"""Options of the controller: what contradicts itself is refused before anything starts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from federation.cli import run_controller
from federation.cli.main import cli


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The settings with which a controller would have been started; none is."""
    found: list[Any] = []

    async def run(settings: Any, token: str | None) -> int:
        found.append((settings, token))
        await asyncio.sleep(0)
        return 0

    monkeypatch.setattr(run_controller, "_run", run)
    monkeypatch.setattr(run_controller, "configure", lambda style: None)
    for name in ("ISOCHRONE_TOKEN", "ISOCHRONE_TOKEN_FILE", "ISOCHRONE_BROKER"):
        monkeypatch.delenv(name, raising=False)
    return found


def asked(*arguments: str, **environment: str) -> tuple[int, str]:
    """Exit code and output of `isochrone controller`."""
    done = CliRunner().invoke(cli, ["controller", *arguments], env=environment)
    return done.exit_code, done.output


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--policies", "no-such-directory"), "configs/policies"),
        (("--listen", "8480"), "--listen"),
        (("--xds-cert", "file.pem"), "--xds-listen"),
        (("--xds-listen", "127.0.0.1:1", "--xds-cert", "file.pem"), "--xds-ca"),
        (("--solver", "127.0.0.1:8786"), "dask://HOST:PORT"),
        (("--broker", "mqtts://me:hunter2@broker"), "--broker-password-file"),
        (("--report-interval", "0"), "--report-interval"),
    ],
)
def test_what_cannot_work_is_refused_with_the_option_to_correct(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[Any], arguments: tuple[str, ...], says: str
) -> None:
    """The controller would start, and serve gateways in plain text, plan nothing, or show its password."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.pem").touch()
    policies = () if "--policies" in arguments else ("--policies", ".")
    code, output = asked(*policies, *arguments)
    assert (code, started) == (2, [])
    assert says in output
    assert "hunter2" not in output


def test_silence_follows_the_report_interval(tmp_path: Path, started: list[Any]) -> None:
    """With slower reports every cluster would be taken for silent between two of them."""
    code, output = asked("--policies", str(tmp_path), "--report-interval", "60")
    assert code == 0, output
    ((settings, _),) = started
    assert settings.timing.stale_after_s == 4 * settings.timing.report_interval_s == 240.0


def test_the_environment_serves_where_no_option_is_given(tmp_path: Path, started: list[Any]) -> None:
    """A container could not be configured without arguments, and its token would be in the list of processes."""
    code, output = asked(ISOCHRONE_POLICIES=str(tmp_path), ISOCHRONE_LISTEN="127.0.0.1:9000", ISOCHRONE_TOKEN="secret")
    assert code == 0, output
    ((settings, token),) = started
    assert (settings.listen.port, token) == (9000, "secret")
