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
from federation.latency.sphere import on_the_sphere
from federation.state.keys import CellCluster
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
    best: dict[int, latency.Estimate] = {}
    for estimate in _estimates(world, ready, _squares()):
        square = int(estimate.cell)
        if square not in best or estimate.rtt_ms < best[square].rtt_ms:
            best[square] = estimate
    return tuple(best[square] for square in sorted(best))


def at_place(world: World, ready: Sequence[str], lat: float, lon: float) -> tuple[latency.Estimate, ...]:
    """To the nearest of the clusters where replicas are ready, the best first."""
    cell = UserCell(name="here", country=NOWHERE, lat=lat, lon=lon)
    return tuple(sorted(_estimates(world, ready, Map({cell.name: cell})), key=lambda one: (one.rtt_ms, one.cluster)))


def middles() -> Iterator[tuple[float, float]]:
    """Latitude and longitude of the middle of each square."""
    for row in range(ROWS):
        for column in range(COLUMNS):
            lon = WEST_DEG + (column + 0.5) * STEP_DEG
            yield NORTH_DEG - (row + 0.5) * STEP_DEG, lon if lon < 180 else lon - 360


def _estimates(world: World, ready: Sequence[str], cells: Map[str, UserCell]) -> list[latency.Estimate]:
    """Of each cell to its nearest clusters, in a stable order."""
    places = {document.metadata.name: document.spec.location for document in world.documents.clusters}
    clusters = sorted(name for name in ready if name in places)
    if not clusters:
        return []
    near = _nearest(
        tuple((one.lat, one.lon) for one in cells.values()),
        tuple((places[name].lat, places[name].lon) for name in clusters),
    )
    pairs = [
        CellCluster(cell, clusters[column]) for cell, columns in zip(cells, near, strict=True) for column in columns
    ]
    estimates = latency.between(replace(world, cells=cells), pairs)
    return [estimates[pair] for pair in sorted(pairs)]


@functools.cache
def _squares() -> Map[str, UserCell]:
    return Map(
        {
            str(square): UserCell(name=str(square), country=NOWHERE, lat=lat, lon=lon)
            for square, (lat, lon) in enumerate(middles())
        }
    )


def _nearest(users: latency.Places, clusters: latency.Places) -> list[list[int]]:
    """[users, NEAREST]: columns of the nearest clusters."""
    places, others = on_the_sphere(users), on_the_sphere(clusters)
    some = min(NEAREST, len(clusters))
    found: list[list[int]] = []
    for first in range(0, len(places), AT_ONCE):
        cosine = places[first : first + AT_ONCE] @ others.T
        found += np.argpartition(-cosine, some - 1, axis=1)[:, :some].tolist()
    return found
