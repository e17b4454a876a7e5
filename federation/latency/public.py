"""What is known of the ways of the world before a fleet has measured anything: meshes of public places."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np
import yaml

from federation.latency.estimator import Pairs, Prior
from federation.latency.sphere import on_the_sphere


class _Site(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    lat: float
    lon: float
    ms: str
    """To the sites above it, in their order; `-` where nobody measured."""


class _Sites(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    sites: tuple[_Site, ...]


def read(texts: Iterable[str]) -> Prior:
    """Meshes as YAML, each by itself: nothing is known between two of them.

    Raises: msgspec.ValidationError, ValueError where a text is not such a mesh.
    """
    sites: list[_Site] = []
    pairs: list[tuple[int, int, float]] = []
    for text in texts:
        first = len(sites)
        sites += msgspec.convert(yaml.safe_load(text), _Sites).sites
        for row, site in enumerate(sites[first:]):
            told = site.ms.split()
            if len(told) != row:
                raise ValueError(f"site {site.name}: {len(told)} round trips, but {row} sites are above it")
            pairs += [(first + row, first + at, float(ms)) for at, ms in enumerate(told) if ms != "-"]
    table = np.array(pairs, np.float64).reshape(-1, 3)
    return Prior(
        at=on_the_sphere([(one.lat, one.lon) for one in sites]),
        pairs=Pairs(one=table[:, 0].astype(np.int64), other=table[:, 1].astype(np.int64), rtt_ms=table[:, 2]),
    )
