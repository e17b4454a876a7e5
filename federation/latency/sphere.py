"""Places on the earth and the distances between them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float64]
"""[places, 3] of length one."""

EARTH_RADIUS_KM = 6371.0088
KM_PER_RTT_MS = 100.0
"""Light in fibre goes 200 km in a millisecond, there and back half as far."""


def on_the_sphere(places: Sequence[tuple[float, float]]) -> Vectors:
    """Args: places: latitudes and longitudes in degrees."""
    lat, lon = np.radians(np.array(places, np.float64).reshape(-1, 2)).T
    return np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])


def great_circle_km(lat_a: float, lon_a: float, lat_b: float, lon_b: float) -> float:
    """Between two places given in degrees (haversine)."""
    phi_a, phi_b = math.radians(lat_a), math.radians(lat_b)
    half = math.sin((phi_b - phi_a) / 2) ** 2
    half += math.cos(phi_a) * math.cos(phi_b) * math.sin(math.radians(lon_b - lon_a) / 2) ** 2
    return 2 * EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, half)))


def arc_km(cosine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Great-circle distances by the scalar products of unit vectors."""
    chord = np.sqrt(np.clip(2.0 - 2.0 * cosine, 0.0, 4.0))
    return 2 * EARTH_RADIUS_KM * np.arcsin(chord / 2)


def between_km(some: Vectors, others: Vectors) -> NDArray[np.float64]:
    """[some, others]."""
    return arc_km(some @ others.T)


def paired_km(some: Vectors, others: Vectors) -> NDArray[np.float64]:
    """[pairs]: of the n-th with the n-th."""
    return arc_km(np.einsum("ij,ij->i", some, others))
