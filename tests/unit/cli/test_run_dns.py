"""Options of the DNS backend."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from federation.cli import run_dns
from federation.cli.client import CliError
from federation.cli.main import cli


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller by option, and no settings of this machine."""
    monkeypatch.setenv("ISOCHRONE_CONFIG", str(tmp_path / "config.json"))
    monkeypatch.setenv("ISOCHRONE_SERVER", "http://127.0.0.1:8480")
    monkeypatch.setenv("ISOCHRONE_TOKEN", "secret")
    monkeypatch.setattr(run_dns, "configure", lambda style: None)


@pytest.mark.parametrize("zone", ["", "-", "models..example", "models_example", "x" * 300])
def test_what_is_no_zone_is_refused(zone: str) -> None:
    """PowerDNS would ask for names that are never answered."""
    done = CliRunner().invoke(cli, ["dns", "--zone", zone])
    assert done.exit_code == 2
    assert "models.example" in done.output


def test_a_wrong_line_of_places_is_named(tmp_path: Path) -> None:
    """A table of thousands of subnets would have to be searched for one wrong line."""
    places = tmp_path / "places.csv"
    places.write_text("198.51.100.0/24,DE,52.5,13.4\n198.51.100.0/24,Germany,52.5,13.4\n")
    done = CliRunner().invoke(cli, ["dns", "--zone", "models.example", "--places", str(places)], standalone_mode=False)
    assert isinstance(done.exception, CliError)
    assert "line 2" in str(done.exception)
