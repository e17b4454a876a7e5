"""Vivaldi network coordinates with height (Dabek et al., SIGCOMM 2004): what others estimate round trips by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Sites = NDArray[np.int64]
DIMENSIONS = 3
ROUNDS = 60
GAIN, ERROR_GAIN = 0.25, 0.25
LEAST_HEIGHT_MS = 0.1


@dataclass(frozen=True, kw_only=True)
class Coordinates:
    """`at` [sites, dimensions] and `height` [sites], in ms."""

    at: Floats
    height: Floats

    def between(self, one: Sites, other: Sites) -> Floats:
        """Milliseconds for pairs."""
        flat = np.linalg.norm(self.at[one] - self.at[other], axis=1)
        return np.asarray(np.maximum(flat + self.height[one] + self.height[other], 0.1))


def fit(sites: int, one: Sites, other: Sites, rtt_ms: Floats, seed: int) -> Coordinates:
    """Springs relaxed over all measurements in random order, each moving both of its ends."""
    rng = np.random.default_rng(seed)
    at = rng.normal(0.0, 30.0, (sites, DIMENSIONS)).tolist()
    height = [10.0] * sites
    doubt = [1.0] * sites
    pairs = list(zip(one.tolist(), other.tolist(), rtt_ms.tolist(), strict=True))
    for _ in range(ROUNDS if pairs else 0):
        for number in rng.permutation(len(pairs)).tolist():
            i, j, ms = pairs[number]
            for me, you in ((i, j), (j, i)):
                a, b = at[me], at[you]
                away = [x - y for x, y in zip(a, b, strict=True)]
                flat = sum(x * x for x in away) ** 0.5 or 1e-6
                length = flat + height[me] + height[you]
                trust = doubt[me] / (doubt[me] + doubt[you])
                error = abs(length - ms) / ms
                doubt[me] = min(2.0, max(0.02, error * ERROR_GAIN * trust + doubt[me] * (1 - ERROR_GAIN * trust)))
                force = GAIN * trust * (ms - length)
                at[me] = [x + force * step / length for x, step in zip(a, away, strict=True)]
                height[me] = max(LEAST_HEIGHT_MS, height[me] + force * (height[me] + height[you]) / length)
    return Coordinates(at=np.array(at), height=np.array(height))
