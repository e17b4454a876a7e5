"""The only door to HiGHS."""

from __future__ import annotations

import numpy as np
import pytest

from placement import highs


def a_table() -> highs.Table:
    """Two options, cost 1 and 3, of which x + 2y >= 4.5 must be had, x at most 2."""
    table = highs.Table()
    columns = table.columns(np.array([1.0, 3.0]), upper=np.array([2.0, np.inf]), integer=True)
    row = table.rows(1, lower=4.5)
    table.entries(np.repeat(row, 2), columns[::-1], np.array([1.0, 1.0]))
    table.entries(row, columns[1:], 1.0)
    return table


def test_blocks_and_single_rows_say_the_same_programme() -> None:
    """The large engine would solve another problem than the exact one."""
    programme = highs.Programme()
    x = programme.column(1.0, upper=2.0, integer=True)
    y = programme.column(3.0, integer=True)
    programme.row({x: 1.0, y: 2.0}, lower=4.5)
    for relaxed in (False, True):
        one, other = highs.solve(programme, relaxed=relaxed), highs.solve(a_table(), relaxed=relaxed)
        assert one is not None and other is not None
        assert one.values == pytest.approx(other.values) and one.objective == pytest.approx(other.objective)
        assert one.duals == pytest.approx(other.duals)


def test_whole_numbers_cost_no_less_than_fractions() -> None:
    """A bound above the answer would call every plan wrong."""
    whole, relaxed = highs.solve(a_table()), highs.solve(a_table(), relaxed=True)
    assert whole is not None and relaxed is not None
    assert whole.objective == pytest.approx(7.0) and relaxed.objective == pytest.approx(5.75)
    assert relaxed.duals == pytest.approx([1.5])


def test_a_programme_without_columns_has_an_answer_when_nothing_satisfies_its_rows() -> None:
    """An empty fleet would crash the planner."""
    programme = highs.Programme()
    programme.row({}, upper=1.0)
    found = highs.solve(programme)
    assert found is not None and found.objective == 0.0
    programme.row({}, lower=1.0)
    assert highs.solve(programme) is None
