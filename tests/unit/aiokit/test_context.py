"""The file by which the command line finds its controller."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from federation.aiokit import context
from federation.aiokit.context import Context

HERE = Context(server="http://127.0.0.1:8480", token="secret")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of the test's own."""
    file = tmp_path / "below" / "config.json"
    monkeypatch.setenv("ISOCHRONE_CONFIG", str(file))
    return file


def test_what_was_written_is_read(place: Path) -> None:
    """The first command after `isochrone controller` would find no controller."""
    assert context.read() is None
    context.write(HERE)
    assert context.read() == HERE
    assert [one.name for one in place.parent.iterdir()] == ["config.json"]


def test_others_cannot_read_the_token(place: Path) -> None:
    """Every user of the machine could command the fleet."""
    context.write(HERE)
    assert stat.S_IMODE(place.stat().st_mode) == 0o600


def test_a_damaged_file_is_said_with_a_way_out(place: Path) -> None:
    """Every command would end in a stack trace until somebody finds the file."""
    place.parent.mkdir()
    place.write_text("{")
    with pytest.raises(ValueError, match=r"config\.json.*remove it"):
        context.read()
