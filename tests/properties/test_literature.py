"""The engine's programme on files of the literature whose optima are known."""

from __future__ import annotations

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


def test_a_file_that_is_something_else_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("3 4 capacity", encoding="ascii")
    with pytest.raises(ValueError, match=r"notes\.txt: no cap file"):
        literature.read(path, "cap")
