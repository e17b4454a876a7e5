"""On round trips that were really measured, where the data lie beside the project."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench import latency as bench

CITIES = bench.DATA / "latency"


@pytest.mark.skipif(not CITIES.exists(), reason="no ../shared/data/latency")
def test_real_users_are_known_far_better_than_by_distance() -> None:
    """Users would be sent to clusters that are near on the map and far on the wire."""
    matrix = bench.read(CITIES / "cities_rtt.csv", CITIES / "cities_places.csv", bench.shipped("aws"))
    ours, line = [], []
    for seed in range(3):
        draw = bench.Draw(matrix, 20, seed)
        own = draw.measured(3)
        was_shown = np.zeros(draw.truth.shape, dtype=bool)
        was_shown[own.one, own.other] = True
        ours.append(draw.figures(draw.estimator(own).rtt_ms().astype(np.float64), was_shown))
        line.append(draw.figures(draw.by_distance(), was_shown))
    median, p90, regret_ms = np.mean(ours, axis=0)
    assert median < 8.5
    assert p90 < 33.0
    assert regret_ms < 0.5 * np.mean(line, axis=0)[2]
