"""Where users would have the ready replicas of a model near: the least round trip from each square of a grid.

The grid is the same for every fleet, so that what it costs to send and to draw is bounded however many clusters and
user cells there are. Squares have round trips of the same estimates as user cells.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from immutables import Map

from federation.control import latency
from federation.state.world import World
from federation.wire.messages import UserCell

STEP_DEG = 3
WEST_DEG, NORTH_DEG = -169, 84
"""Of the grid's edges: the map is cut at this meridian, which crosses hardly any land."""
COLUMNS, ROWS = 120, 47
NEAREST = 8
"""Clusters per square that are looked at: a farther one is the best so seldom that no line on a map shows it."""
AT_ONCE = 256
NOWHERE = "ZZ"
"""ISO 3166-1 leaves this code to its users."""


def isochrones(world: World, ready: Sequence[str]) -> tuple[latency.Estimate, ...]:
    """[squares]: the best estimate to one of the clusters where replicas are ready, row by row from the north west.

    The `cell` of an estimate is the number of its square. Without a cluster there are no squares.
    """
    places = {document.metadata.name: document.spec.location for document in world.documents.clusters}
    clusters = sorted(name for name in ready if name in places)
    if not clusters:
        return ()
    pairs = _nearest(tuple((places[name].lat, places[name].lon) for name in clusters))
    estimates = latency.between(
        replace(world, cells=_cells()),
        [(str(square), clusters[column]) for square, columns in enumerate(pairs) for column in columns],
    )
    best: list[latency.Estimate | None] = [None] * (COLUMNS * ROWS)
    for (cell, _), estimate in sorted(estimates.items()):
        square = int(cell)
        known = best[square]
        if known is None or estimate.rtt_ms < known.rtt_ms:
            best[square] = estimate
    return tuple(one for one in best if one is not None)


def middles() -> Iterator[tuple[float, float]]:
    """Latitude and longitude of the middle of each square."""
    for row in range(ROWS):
        for column in range(COLUMNS):
            lon = WEST_DEG + (column + 0.5) * STEP_DEG
            yield NORTH_DEG - (row + 0.5) * STEP_DEG, lon if lon < 180 else lon - 360


@functools.cache
def _cells() -> Map[str, UserCell]:
    return Map(
        {
            str(square): UserCell(name=str(square), country=NOWHERE, lat=lat, lon=lon)
            for square, (lat, lon) in enumerate(middles())
        }
    )


def _nearest(clusters: latency.Places) -> list[list[int]]:
    """[squares, NEAREST]: columns of the nearest clusters."""
    squares, others = latency.on_the_sphere(tuple(middles())), latency.on_the_sphere(clusters)
    some = min(NEAREST, len(clusters))
    found: list[list[int]] = []
    for first in range(0, len(squares), AT_ONCE):
        cosine = squares[first : first + AT_ONCE] @ others.T
        found += np.argpartition(-cosine, some - 1, axis=1)[:, :some].tolist()
    return found
