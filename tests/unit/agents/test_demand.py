"""The file in which a front door says what it counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from agents.demand import DemandFile

ROW = "- {model: chat, cell: {name: Berlin, country: DE, lat: 52.5, lon: 13.4}, requestsPerSecond: %d}\n"


def test_a_file_is_parsed_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent with ten thousand rows would parse for longer than its reports are apart, and be taken for silent."""
    path, parsed, load = tmp_path / "demand.yaml", [], yaml.load

    def counting(*given: Any, **more: Any) -> Any:
        parsed.append(1)
        return load(*given, **more)

    monkeypatch.setattr(yaml, "load", counting)
    file = DemandFile(path)
    assert file.read() == (), "it may come later"
    path.write_text(ROW % 10)
    assert [[one.requests_per_second for one in file.read()] for _ in range(3)] == [[10.0]] * 3
    assert len(parsed) == 1
    path.write_text(ROW % 250)
    assert [one.requests_per_second for one in file.read()] == [250.0]
    path.write_text("- {model: chat")
    assert [[one.requests_per_second for one in file.read()] for _ in range(2)] == [[250.0]] * 2, "the last good rows"
    path.unlink()
    assert [one.requests_per_second for one in file.read()] == [250.0]
    path.write_text(ROW % 7)
    assert [one.requests_per_second for one in file.read()] == [7.0]
