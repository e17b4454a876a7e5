"""Round trips as a line over distance: what is believed of pairs that nobody measured anything about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ROUNDS = 30
PRIOR_WEIGHT = 6.0
"""Of the line that is known beforehand, in measurements."""
LEAST_BASE_MS, LEAST_MS_PER_KM = 0.5, 0.0105


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A round trip takes `base_ms` and `ms_per_km` for each kilometre of the great circle."""

    base_ms: float
    ms_per_km: float

    def at(self, km: Floats) -> Floats:
        """Milliseconds for distances."""
        return self.base_ms + self.ms_per_km * km


PRIOR = Line(base_ms=8.9, ms_per_km=0.01573)
"""Source: least squares over the 32 x 32 AWS regions of cloudping.co (one-year median, 2025-05-29); median relative
error 14 %."""
_PRIOR_KM = np.array([100.0, 1000.0, 4000.0, 12000.0])


def fit(km: Floats, rtt_ms: Floats, prior: Line = PRIOR) -> Line:
    """The line that halves the relative errors: least absolute deviations, by reweighting; of few measurements near
    the prior.

    Args: km, rtt_ms: [measurements].
    """
    km = np.concatenate([km, _PRIOR_KM])
    rtt_ms = np.concatenate([rtt_ms, prior.at(_PRIOR_KM)])
    share = np.ones(len(km))
    share[-len(_PRIOR_KM) :] = PRIOR_WEIGHT / len(_PRIOR_KM)
    line = prior
    for _ in range(ROUNDS):
        model = line.at(km)
        weight = share / (model * np.maximum(np.abs(rtt_ms - model), 0.03 * model))
        total, mean_km, mean_ms = weight.sum(), weight @ km, weight @ rtt_ms
        spread = total * (weight @ km**2) - mean_km**2
        slope = (total * (weight @ (km * rtt_ms)) - mean_km * mean_ms) / spread
        slope = max(LEAST_MS_PER_KM, float(slope))
        line = Line(base_ms=max(LEAST_BASE_MS, float((mean_ms - slope * mean_km) / total)), ms_per_km=slope)
    return line
