"""The exact distance between two places. Of many pairs, `sphere.py` gives it within 0.6 % in a fraction of the time."""

from __future__ import annotations

from geopy.distance import geodesic


def distance_km(lat_a: float, lon_a: float, lat_b: float, lon_b: float) -> float:
    """Geodesic distance on the ellipsoid WGS 84. Args: degrees. It takes about 0.1 ms."""
    return float(geodesic((lat_a, lon_a), (lat_b, lon_b)).km)
