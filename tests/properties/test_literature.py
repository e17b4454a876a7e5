"""The engine's programme on files of the literature whose optima are known."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench import literature
from tests.bench.literature import DATA

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the literature's files are in shared/, which is not here")


@pytest.mark.slow
def test_the_small_files_of_or_library_are_solved_to_their_optimum_and_proved() -> None:
    """An engine that is wrong about textbook worlds is wrong about real ones, and its bound proves nothing."""
    known = literature.small_optima()
    assert len(known) == 37
    for name, optimum in known.items():
        answer = literature.solve(literature.read(DATA / "orlib_cap" / f"{name}.txt", "cap"))
        assert answer is not None and literature.is_proved(answer), name
        assert answer.objective == pytest.approx(optimum, abs=0.01), name


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_large_files_of_or_library_come_within_a_ten_thousandth_of_their_optimum() -> None:
    """Plans of many sites would waste money. The least capacity of each file; `make bench CASE=literature` has all."""
    for name, capacity, optimum in literature.large_optima()[::4]:
        answer = literature.solve(literature.read(DATA / "orlib_cap" / f"{name}.txt", "cap", capacity=capacity))
        assert answer is not None and answer.bound <= optimum * (1 + 1e-6), name
        assert answer.objective == pytest.approx(optimum, rel=1e-4), name


@pytest.mark.slow
def test_customers_that_may_be_split_never_cost_more() -> None:
    """The first 24 of Holmberg et al., whose optima are for customers that may not be split."""
    for number, single in enumerate(literature.single_source_optima()[:24], start=1):
        answer = literature.solve(literature.read(DATA / "holmberg" / f"p{number}.txt", "holmberg"))
        assert answer is not None and literature.is_proved(answer), number
        assert answer.objective <= single + 0.01, number


def test_a_file_is_solved_from_the_command_line_into_one_line_of_json() -> None:
    """Nobody could check our figures on the files that everybody uses."""
    path = DATA / "orlib_cap" / "cap41.txt"
    command = [sys.executable, "-m", "tests.bench.placement", "--instance", str(path), "--format", "cap"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    line = json.loads(ran.stdout)
    assert line["is_proved"] and line["value"] == pytest.approx(literature.small_optima()["cap41"], abs=0.01)


@pytest.mark.parametrize("form", ["cap", "holmberg"])
@pytest.mark.parametrize(
    "text",
    ["", "0 0", "2 1 9 1 9 1 5", "2 1 9 1 9 1 5 nan 1", "2 1 1 1 1 1 5 1 1", "2 1 -9 1 99 1 5 1 1", "\u00b5"],
    ids=["empty", "nobody", "cut off", "not a number", "too little", "negative", "not ASCII"],
)
def test_a_file_with_nonsense_is_refused_with_its_name(tmp_path: Path, text: str, form: literature.Format) -> None:
    """A benchmark would report nothing as if it were an answer."""
    path = tmp_path / "odd.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"odd\.txt: no {form} file"):
        literature.read(path, form)


def test_a_file_that_is_something_else_is_refused_with_its_name(tmp_path: Path) -> None:
    """A benchmark would compare its answer with the optimum of another instance."""
    path = tmp_path / "notes.txt"
    path.write_text("3 4 capacity", encoding="ascii")
    with pytest.raises(ValueError, match=r"notes\.txt: no cap file"):
        literature.read(path, "cap")
