"""The engine's programme on files of the literature whose optima are known."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import literature

DATA = Path(__file__).parents[3] / "shared" / "data" / "facility-location"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the literature's files are in shared/, which is not here")


def optima() -> dict[str, float]:
    """File -> optimum, for the files with one."""
    rows = [line.split() for line in (DATA / "orlib_cap" / "capopt.txt").read_text(encoding="ascii").splitlines()]
    return {row[0]: float(row[1]) for row in rows if len(row) == 2 and row[0].startswith("cap")}


@pytest.mark.slow
def test_the_small_files_of_or_library_are_solved_to_their_optimum_and_proved() -> None:
    """An engine that is wrong about textbook worlds is wrong about real ones, and its bound proves nothing."""
    known = optima()
    assert len(known) == 37
    for name, optimum in known.items():
        answer = literature.solve(literature.read(DATA / "orlib_cap" / f"{name}.txt", "cap"))
        assert answer is not None and literature.is_proved(answer), name
        assert answer.objective == pytest.approx(optimum, abs=0.01), name


@pytest.mark.slow
def test_customers_that_may_be_split_never_cost_more() -> None:
    """The first 24 of Holmberg et al., whose optima are for customers that may not be split."""
    bounds = [float(word) for word in (DATA / "holmberg" / "os.txt").read_text(encoding="ascii").split()]
    for number, single in enumerate(bounds[:24], start=1):
        answer = literature.solve(literature.read(DATA / "holmberg" / f"p{number}.txt", "holmberg"))
        assert answer is not None and literature.is_proved(answer), number
        assert answer.objective <= single + 0.01, number


def test_a_file_that_is_something_else_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("3 4 capacity", encoding="ascii")
    with pytest.raises(ValueError, match=r"notes\.txt: no cap file"):
        literature.read(path, "cap")
