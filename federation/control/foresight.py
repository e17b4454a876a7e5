"""The forecast of all demand, minute by minute: by model and region, and the sum of each model. Pure.

A region is that of the front door that counts the users. A cell's forecast is its part of its region's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from federation.control.forecast import Floats, Forecaster
from federation.policy.documents import DemandForecast
from federation.state.world import World

STEP_S = 60
HORIZONS = (10, 30)
"""Minutes."""
QUANTILES: dict[DemandForecast, float] = {"p50": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95}
"""By their names in policies."""
SHOWN: DemandForecast = "p90"
MOST_AHEAD = 2.0
"""Plans are made for at most so many times the demand of now, whatever is forecast."""
PLAN_S = 60.0
"""Until the next plan, beyond a model's warm-up."""
MOST_SERIES = 2_000
"""Of the largest; a fleet has a few hundred."""
LEARNING = 60
"""Minutes of a start in which nothing is said."""

Series = tuple[str, str]
"""(model, region)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foresight:
    """Demand relative to that of now, by minutes ahead: the expected, and what it stays below by each quantile."""

    expected: Mapping[Series, Mapping[int, float]] = field(default_factory=dict)
    quantiles: Mapping[DemandForecast, Mapping[Series, Mapping[int, float]]] = field(default_factory=dict)

    @property
    def below(self) -> Mapping[Series, Mapping[int, float]]:
        """What demand stays below nine times in ten."""
        return self.quantiles.get(SHOWN, {})


class Foreseer:
    """Streams the demand of worlds."""

    def __init__(self) -> None:
        self._series: list[Series] = []
        self._models: list[str] = []
        self._forecaster = Forecaster(0, step_s=STEP_S, horizons=HORIZONS, quantiles=tuple(QUANTILES.values()))
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
        points, below = self._forecaster.points, self._forecaster.quantiles
        now = np.maximum(values, 1e-9)
        asked = [(number, key) for number, key in enumerate(self._series) if values[number] > 0]

        def ratios(told: Floats) -> dict[Series, dict[int, float]]:
            return {
                key: {minutes: float(told[row, number] / now[number]) for row, minutes in enumerate(HORIZONS)}
                for number, key in asked
            }

        quantiles = {name: ratios(below[row]) for row, name in enumerate(QUANTILES)}
        return Foresight(expected=ratios(points), quantiles=quantiles)

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


def growth(world: World, foresight: Foresight) -> dict[Series, float]:
    """(model, region) -> how many times the demand of now plans are made for; models whose policy does not ask for it,
    and what is not forecast to grow, are left out.

    Replicas that are ordered now serve after the model's warm-up, and until then no other plan can help: it is the
    demand of that time that counts, between the forecasts of now, ten and thirty minutes.
    """
    found: dict[Series, float] = {}
    warmup_s = {one.metadata.name: one.spec.warmup_seconds for one in world.documents.models}
    for model, needed_s in warmup_s.items():
        policy = world.documents.policy_of(model)
        if policy is None or policy.spec.demand_forecast == "off":
            continue
        minutes = (needed_s + PLAN_S) / 60.0
        for series, told in foresight.quantiles.get(policy.spec.demand_forecast, {}).items():
            if series[0] == model:
                ratio = float(np.interp(minutes, (0.0, *HORIZONS), (1.0, *(told[one] for one in HORIZONS))))
                if ratio > 1.0:
                    found[series] = round(min(MOST_AHEAD, ratio), 2)
    return found
