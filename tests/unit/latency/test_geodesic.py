"""Distances: geopy's for a figure, the sphere's for many pairs, and how far the two differ."""

from __future__ import annotations

import numpy as np
import pytest
from geopy.distance import geodesic, great_circle

from federation.latency.geodesic import distance_km
from federation.latency.sphere import between_km, great_circle_km, on_the_sphere, paired_km

ELLIPSOID = 0.006
"""The most by which a great circle on the mean sphere differs from the geodesic on WGS 84, as a part of it."""


@pytest.mark.parametrize(
    ("one", "other", "km"),
    [((0, 0), (0, 0), 0), ((0, 0), (0, 180), 20004), ((52.5, 13.4), (48.9, 2.4), 877), ((0, 179.5), (0, -179.5), 111)],
)
def test_distance_is_over_the_globe(one: tuple[float, float], other: tuple[float, float], km: float) -> None:
    """Users near the date line or the poles would count as half a world away."""
    assert distance_km(*one, *other) == pytest.approx(km, rel=0.005, abs=0.5)
    assert great_circle_km(*one, *other) == pytest.approx(km, rel=0.01, abs=0.5)


def test_the_sphere_agrees_with_geopy_on_random_places() -> None:
    """Latencies of all pairs would be estimated over other distances than those that people are shown."""
    rng = np.random.default_rng(7)
    # Uniform on the sphere; nearly antipodal pairs, for which geodesics take long to find, are left in.
    places = np.column_stack([np.degrees(np.arcsin(rng.uniform(-1, 1, 200))), rng.uniform(-180, 180, 200)])
    some, others = places[:100], places[100:]
    exact = np.array([geodesic(tuple(a), tuple(b)).km for a, b in zip(some, others, strict=True)])
    sphere = np.array([great_circle(tuple(a), tuple(b)).km for a, b in zip(some, others, strict=True)])
    bulk = paired_km(on_the_sphere(some.tolist()), on_the_sphere(others.tolist()))
    single = np.array([great_circle_km(*a, *b) for a, b in zip(some, others, strict=True)])
    assert bulk == pytest.approx(sphere, rel=1e-6)
    assert single == pytest.approx(sphere, rel=1e-6)
    assert np.abs(bulk / exact - 1.0).max() < ELLIPSOID
    every = between_km(on_the_sphere(some.tolist()), on_the_sphere(others.tolist()))
    assert np.diag(every) == pytest.approx(bulk)
    assert distance_km(*some[0], *others[0]) == pytest.approx(exact[0])
