"""Which clusters are near each other, by the catalogue: for what would grow with the square of a fleet. Pure."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from federation.latency.sphere import on_the_sphere
from federation.policy.documents import Cluster
from federation.state.identity import ByIdentity

MOST = 256
"""Neighbours that are kept of each cluster."""
ENOUGH = 4
"""Who is wanted is looked for beyond the neighbours only where less than this part of them is found there."""
AT_ONCE = 64
"""Rows of distances: a thread that works on more keeps the event loop waiting for as long as one step takes."""
ALL_MEASURE = 101
"""In a fleet of up to so many clusters, each measures the round trip to all others."""
NEAR_PEERS, FAR_PEERS = 48, 16
"""In a larger one: to its neighbours, and to some all over the fleet, which say what the distance is worth."""


class Neighbours:
    """The neighbours of each cluster, the nearest first.

    Args: clusters: of the catalogue.
    """

    def __init__(self, clusters: tuple[Cluster, ...]) -> None:
        self.names = tuple(one.metadata.name for one in clusters)
        self._row = {name: row for row, name in enumerate(self.names)}
        places = tuple((one.spec.location.lat, one.spec.location.lon) for one in clusters)
        self._at = on_the_sphere(places).astype(np.float32)
        self._near = _nearest(self._at, min(MOST, len(clusters) - 1))

    def of(self, cluster: str) -> Iterator[str]:
        """Those of a cluster, `MOST` at most."""
        return map(self.names.__getitem__, self._near[self._row[cluster]].tolist())

    def nearest(self, cluster: str, wanted: int, among: Callable[[str], bool], all_of: Collection[str]) -> list[str]:
        """The `wanted` nearest to a cluster for which `among` holds; fewer where a quarter of them are neighbours.

        Args: all_of: every one for which it holds.
        """
        found: list[str] = []
        for name in self.of(cluster):
            if among(name):
                found.append(name)
                if len(found) == wanted:
                    return found
        if len(self.names) <= MOST + 1 or ENOUGH * len(found) >= wanted:
            return found
        rows = np.array(sorted(self._row[name] for name in all_of if name in self._row and name != cluster), np.int64)
        order = rows[np.argsort(-(self._at[rows] @ self._at[self._row[cluster]]), kind="stable")[:wanted]]
        return [self.names[row] for row in order.tolist()]

    def peers(self, cluster: str, known: Collection[str]) -> list[str]:
        """Whom it should measure, by name. Args: known: who can be measured."""
        if len(self.names) <= ALL_MEASURE:
            return [name for name in self.names if name in known and name != cluster]
        near = [name for name in self.of(cluster) if name in known][:NEAR_PEERS]
        step = len(self.names) / FAR_PEERS
        row = self._row[cluster]
        far = (self.names[int(row + at * step) % len(self.names)] for at in range(1, FAR_PEERS))
        return sorted({*near, *(name for name in far if name in known)} - {cluster})


def neighbours(clusters: tuple[Cluster, ...]) -> Neighbours:
    """Those of a catalogue; the newest two are kept. Ten thousand clusters take seconds, so ask in a thread."""
    return _neighbours(ByIdentity(clusters))


@functools.lru_cache(maxsize=2)
def _neighbours(known: ByIdentity[tuple[Cluster, ...]]) -> Neighbours:
    return Neighbours(known.value)


def _nearest(at: NDArray[np.float32], most: int) -> NDArray[np.int32]:
    """[clusters, most] rows of the nearest others, the nearest first; of equal distances the first by name."""
    found = np.empty((len(at), max(0, most)), np.int32)
    for first in range(0, len(at) if most > 0 else 0, AT_ONCE):
        rows = np.arange(first, min(first + AT_ONCE, len(at)))
        closeness = at[rows] @ at.T
        closeness[np.arange(len(rows)), rows] = -2.0
        some = np.argpartition(-closeness, most - 1, axis=1)[:, :most]
        some.sort(axis=1)
        order = np.argsort(-np.take_along_axis(closeness, some, axis=1), axis=1, kind="stable")
        found[rows] = np.take_along_axis(some, order, axis=1)
    return found
