"""The forecast of all demand, minute by minute: by model and region, and the sum of each model. Pure.

A region is that of the front door that counts the users. A cell's forecast is its part of its region's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from federation.control.forecast import Floats, Forecaster
from federation.state.world import World

STEP_S = 60
HORIZONS = (10, 30)
"""Minutes."""
QUANTILE = 0.9
MOST_SERIES = 2_000
"""Of the largest; a fleet has a few hundred."""
LEARNING = 60
"""Minutes of a start in which nothing is said."""

Series = tuple[str, str]
"""(model, region)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foresight:
    """Demand relative to that of now, by minutes ahead: the expected, and what it stays below nine times in ten."""

    expected: Mapping[Series, Mapping[int, float]] = field(default_factory=dict)
    below: Mapping[Series, Mapping[int, float]] = field(default_factory=dict)


class Foreseer:
    """Streams the demand of worlds."""

    def __init__(self) -> None:
        self._series: list[Series] = []
        self._models: list[str] = []
        self._forecaster = Forecaster(0, step_s=STEP_S, horizons=HORIZONS, quantiles=(QUANTILE,))
        self._seen = 0

    def look(self, world: World, step: int) -> Foresight:
        """Take the demand of one minute; `step` counts minutes from midnight UTC of any day."""
        rps = by_region(world)
        known = set(self._series)
        new = sorted(rps.keys() - known, key=lambda key: (-rps[key], key))[: MOST_SERIES - len(known)]
        if new:
            self._grow(new)
        values = np.array([rps.get(key, 0.0) for key in self._series])
        self._forecaster.update(step, values)
        self._seen += 1
        if self._seen < LEARNING:
            return Foresight()
        points, below = self._forecaster.points, self._forecaster.quantiles[0]
        now = np.maximum(values, 1e-9)
        asked = [(number, key) for number, key in enumerate(self._series) if values[number] > 0]

        def ratios(told: Floats) -> dict[Series, dict[int, float]]:
            return {
                key: {minutes: float(told[row, number] / now[number]) for row, minutes in enumerate(HORIZONS)}
                for number, key in asked
            }

        return Foresight(expected=ratios(points), below=ratios(below))

    def _grow(self, new: list[Series]) -> None:
        origins: list[int | None] = [*range(len(self._series)), *(None for _ in new)]
        self._series += new
        self._models += [model for model in dict.fromkeys(model for model, _ in new) if model not in self._models]
        sums = [[n for n, (name, _) in enumerate(self._series) if name == model] for model in self._models]
        self._forecaster = self._forecaster.resized(origins, sums)


def by_region(world: World) -> dict[Series, float]:
    """(model, region) -> requests per second."""
    regions = {one.metadata.name: one.spec.region for one in world.documents.clusters}
    found: dict[Series, float] = defaultdict(float)
    for (model, _), one in world.demand.items():
        found[model, regions.get(one.reporter, one.reporter)] += one.requests_per_second
    return found
