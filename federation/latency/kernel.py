"""How alike round trips are, by where their ends are; one set of numbers for the exact and the fast form.

What a pair's round trip is beyond the line, as a logarithm, is alike for pairs whose ends are near each other. A
kernel S over sites gives one over unordered pairs: S_ik S_jl + S_il S_jk.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Sites = NDArray[np.int64]

EVERYWHERE = 0.010
FAR, FAR_KM = 0.44, 5000.0
NEAR, NEAR_KM = 0.0114, 330.0
OWN = 0.0027
"""Of what one site has alone."""
NOISE, NOISE_MS = 0.16, 5.0
"""Standard deviation of one measurement: a part of it, and milliseconds."""
FREEDOM = 3.0
"""Of the noise, a Student's: a measurement that fits nowhere counts little."""
REWEIGHTINGS = 2


def alike(km: Floats) -> Floats:
    """S of sites so far apart, without what one site has alone."""
    return EVERYWHERE + FAR * np.exp(km / -FAR_KM) + NEAR * np.exp(km / -NEAR_KM)


def noise(model_ms: Floats) -> Floats:
    """Variance of one measurement's logarithm. Args: model_ms: [measurements] by the line."""
    return NOISE**2 + (NOISE_MS / model_ms) ** 2


def weights(left: Floats, variance: Floats) -> Floats:
    """How much measurements count by what the model leaves of them."""
    return (FREEDOM + 1.0) / (FREEDOM + left**2 / variance)
