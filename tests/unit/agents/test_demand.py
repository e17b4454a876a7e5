"""The file in which a front door says what it counts."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from agents import outgoing
from agents.demand import DemandFile
from agents.simulated import SimulatedBackend
from federation.aiokit.clock import Clock
from tests.builders import a_report

ROW = "- {model: chat, cell: {name: Berlin, country: DE, lat: 52.5, lon: 13.4}, requestsPerSecond: %d}\n"


def test_a_file_is_parsed_when_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent with ten thousand rows would parse for longer than its reports are apart, and be taken for silent."""
    path, parsed, load = tmp_path / "demand.yaml", [], yaml.load_all

    def counting(*given: Any, **more: Any) -> Any:
        parsed.append(1)
        return load(*given, **more)

    monkeypatch.setattr(yaml, "load_all", counting)
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


CELL = "cell: {name: Oslo, country: NO, lat: 59.9, lon: 10.8}"
ODD = {
    "a-country-that-yaml-1.1-takes-for-false": f"- {{model: chat, {CELL}, requestsPerSecond: 3}}",
    "numbers-as-text": f"- {{model: chat, {CELL.replace('59.9', chr(34) + '59.9' + chr(34))}, requestsPerSecond: '3'}}",
    "json-with-tabs": '[\n\t{"model": "chat", "cell": {"name": "Oslo", "country": "NO", "lat": 59.9, "lon": 10.8},\n'
    '\t"requestsPerSecond": 3.0, "unit": null}\n]\n',
    "byte-order-mark-and-line-ends": f"\ufeff- {{model: chat, {CELL}, requestsPerSecond: 3}}\r\n",
    "several-documents": f"---\n- {{model: chat, {CELL}, requestsPerSecond: 3}}\n---\n---\n[]\n",
    "exponent": f"- {{model: chat, {CELL}, requestsPerSecond: 0.3e1}}",
    "beside-rows-that-are-none": f"- null\n- chat\n- [chat, 3]\n- {{model: chat, {CELL}, requestsPerSecond: 3}}\n"
    "- {model: [chat], cell: Oslo, requestsPerSecond: many}\n",
}


@pytest.mark.parametrize("name", ODD)
def test_counts_are_read_as_tools_write_them(tmp_path: Path, name: str) -> None:
    """One row that is written otherwise would stop all counts of a front door; users of Norway would be nobody."""
    path = tmp_path / "demand.yaml"
    path.write_text(ODD[name], encoding="utf-8")
    report, _ = outgoing.fit(a_report("fra", demand=DemandFile(path).read()))
    assert [(one.model, one.cell.country, one.cell.lat, one.requests_per_second) for one in report.demand] == [
        ("chat", "NO", 59.9, 3.0)
    ]
    assert [one.type for one in report.conditions] == ["ReportRowLeftOut"] * ("none" in name)


BROKEN = ["model: chat\n", "model,cell,rps\nchat,Oslo,3\n", "- {model: chat", "[" * 5000, "", "\n", "\x00\x01"]


@pytest.mark.parametrize("text", BROKEN)
def test_a_file_that_is_no_list_keeps_the_last_good_rows(tmp_path: Path, text: str) -> None:
    """A deploy of a broken file would be users who have all gone."""
    path = tmp_path / "demand.yaml"
    path.write_text(ROW % 10)
    file = DemandFile(path)
    assert len(file.read()) == 1
    path.write_text(text)
    assert len(file.read()) == 1


@pytest.mark.parametrize("text", [*BROKEN, None])
def test_a_file_that_is_not_read_is_told_with_what_it_should_hold(tmp_path: Path, text: str | None) -> None:
    """A front door that writes CSV would be planned for by what it counted weeks ago, and only a log would say so."""
    path = tmp_path / "demand.yaml"
    path.write_text(ROW % 10)
    file = DemandFile(path)
    assert file.conditions() == ()
    path.unlink() if text is None else path.write_text(text)
    (told,) = file.conditions()
    assert (told.type, told.object) == ("DemandFileRefused", "file/demand.yaml")
    assert "1 rows of an earlier one stay. Write a YAML or JSON list of {model, cell: {" in told.message
    assert len(told.message) < 300
    report, _ = outgoing.fit(a_report("fra", conditions=file.conditions()))
    assert report.conditions == (told,)
    path.write_text(ROW % 25)
    assert file.conditions() == ()


async def test_a_cluster_tells_of_its_file(tmp_path: Path) -> None:
    """`describe cluster` is where somebody looks."""
    path = tmp_path / "demand.csv"
    path.write_text("model,cell,rps\nchat,Oslo,3\n")
    running = SimulatedBackend(pools=(), clock=Clock(), rng=random.Random(1), told=DemandFile(path).conditions)
    (told,) = running.observe().conditions
    assert told.message.startswith("it holds CSV, not a list")
