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
from numpy.typing import NDArray

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
AT_ONCE = 8_000_000
"""Squares times clusters: all at once would take a gigabyte at 10,000 clusters."""
LONGEST_NAME = 100
"""Of a cell, in a report."""
NOWHERE = "ZZ"
"""ISO 3166-1 leaves this code to its users."""


def isochrones(world: World, ready: Sequence[str]) -> tuple[latency.Estimate, ...]:
    """[squares]: the best estimate to one of the clusters where replicas are ready, row by row from the north west.

    The `cell` of an estimate is the number of its square. Without a cluster there are no squares.
    """
    clusters, at_clusters = _placed(world, ready)
    if not clusters:
        return ()
    on_grid = replace(world, cells=world.cells.update(_squares()))
    names, places = tuple(_name(square) for square in range(COLUMNS * ROWS)), tuple(middles())
    at_once = max(256, AT_ONCE // len(world.clusters))
    best: list[latency.Estimate] = []
    for first in range(0, len(names), at_once):
        some = names[first : first + at_once]
        near = _nearest(places[first : first + at_once], at_clusters)
        row = np.repeat(np.arange(len(some)), near.shape[1])
        columns = [clusters[column] for column in near.ravel().tolist()]
        rtt_ms = latency.round_trips(on_grid, some, row, columns).reshape(near.shape)
        chosen = near[np.arange(len(some)), rtt_ms.argmin(axis=1)].tolist()
        pairs = [CellCluster(name, clusters[column]) for name, column in zip(some, chosen, strict=True)]
        estimates = latency.between(on_grid, pairs)
        best += [estimates[pair] for pair in pairs]
    return tuple(best)


def at_place(world: World, ready: Sequence[str], lat: float, lon: float) -> tuple[latency.Estimate, ...]:
    """To the nearest of the clusters where replicas are ready, the best first."""
    clusters, at_clusters = _placed(world, ready)
    if not clusters:
        return ()
    cell = UserCell(name=_name(0), country=NOWHERE, lat=lat, lon=lon)
    near = _nearest(((lat, lon),), at_clusters)[0].tolist()
    pairs = [CellCluster(cell.name, clusters[column]) for column in near]
    estimates = latency.between(replace(world, cells=world.cells.set(cell.name, cell)), pairs)
    return tuple(sorted(estimates.values(), key=lambda one: (one.rtt_ms, one.cluster)))


def middles() -> Iterator[tuple[float, float]]:
    """Latitude and longitude of the middle of each square."""
    for row in range(ROWS):
        for column in range(COLUMNS):
            lon = WEST_DEG + (column + 0.5) * STEP_DEG
            yield NORTH_DEG - (row + 0.5) * STEP_DEG, lon if lon < 180 else lon - 360


def _placed(world: World, ready: Sequence[str]) -> tuple[list[str], latency.Places]:
    """Clusters of the catalogue, in order of their names, and where they are."""
    places = {document.metadata.name: document.spec.location for document in world.documents.clusters}
    clusters = sorted(name for name in ready if name in places)
    return clusters, tuple((places[name].lat, places[name].lon) for name in clusters)


def _name(square: int) -> str:
    """Longer than a report lets the name of a cell be, so that it is no cell's."""
    return f"{square:>{LONGEST_NAME + 1}}"


@functools.cache
def _squares() -> Map[str, UserCell]:
    return Map(
        {
            _name(square): UserCell(name=_name(square), country=NOWHERE, lat=lat, lon=lon)
            for square, (lat, lon) in enumerate(middles())
        }
    )


def _nearest(users: latency.Places, clusters: latency.Places) -> NDArray[np.int64]:
    """[users, NEAREST]: columns of the nearest clusters, in order of their names."""
    cosine = on_the_sphere(users) @ on_the_sphere(clusters).T
    some = min(NEAREST, len(clusters))
    return np.sort(np.argpartition(-cosine, some - 1, axis=1)[:, :some], axis=1)
