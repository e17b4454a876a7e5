"""What the benchmark of forecasts is held to."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench import demand

FILE = demand.DATA.stem
BELOW_PCT = {(FILE, 10): (0.0, -4.0, -4.0), (FILE, 30): (0.0, -6.0, -7.0), ("rhythm", 30): (-15.0, -15.0, -15.0)}
PINBALL_PCT = {10: (-3.0, -5.0, -7.0), 30: (-4.0, -7.0, -10.0)}
KINDS = ("total", "groups", "clients")


def test_forecasts_keep_their_lead() -> None:
    """Plans that look ahead would do worse than plans that take demand as it is."""
    if not demand.DATA.is_file():
        pytest.skip("the recorded clients of a service are not on this machine")
    for name, series in ((FILE, demand.from_file(demand.DATA)), ("rhythm", demand.rhythm())):
        for line in demand.compare(name, series):
            minutes, kind = int(str(line["minutes"])), KINDS.index(str(line["kind"]))

            def found(key: str, line: dict[str, object] = line) -> float:
                return float(str(line[key]))

            assert found("ours_to_better_naive_pct") <= BELOW_PCT.get((name, minutes), (0.0,) * 3)[kind], line
            assert found("ours_to_best_pct") <= 3.0, line
            assert found("pinball_to_last_conformal_pct") <= PINBALL_PCT[minutes][kind], line
            assert 0.87 <= found("coverage") <= 0.94, line


def test_holt_winters_of_the_benchmark_learns_a_rhythm() -> None:
    """Beating a baseline that does not work says nothing."""
    day = np.arange(10 * 144)[:, None] / 144
    values = 20 + 10 * np.sin(2 * np.pi * (day - np.array([0.0, 0.3])))
    told = demand.holt_winters(values, 600, [6], 0.4, 0.4)[0]
    origins = np.arange(8 * 144, 10 * 144 - 6)
    seen = values[origins + 6]
    assert np.abs(told[origins] - seen).sum() < 0.3 * np.abs(values[origins] - seen).sum()
