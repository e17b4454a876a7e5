"""What browsers of a cell are asked to measure: of the clusters near it first those that may be the nearest. Pure."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from immutables import Map
from numpy.typing import NDArray

from federation.control import latency
from federation.latency.sphere import between_km, on_the_sphere
from federation.policy.documents import Documents
from federation.state.identity import ByIdentity
from federation.state.phases import Phase
from federation.state.world import World
from federation.wire.messages import UserCell

NEAR = 16
"""Clusters near a cell that may be measured from it."""
MOST = 3
"""That a page is asked to measure at one time."""
FRESH_S = 600.0
"""A pair that was measured this lately is asked for after the others."""
CELL_KM = 500.0
"""A user farther from every cell that is known belongs to none."""


class Target(NamedTuple):
    """A cluster, and the resource that a browser fetches to measure it."""

    cluster: str
    url: str


def cell_of(world: World, lat: float, lon: float) -> str:
    """The known cell nearest to a place in degrees; empty where none is near."""
    names, at = _cells(ByIdentity(world.cells))
    if not names:
        return ""
    km = between_km(on_the_sphere([(lat, lon)]), at)[0]
    nearest = int(km.argmin())
    return names[nearest] if km[nearest] <= CELL_KM else ""


def targets(world: World, cell: str, now_s: float) -> tuple[Target, ...]:
    """Of the clusters near a cell that are ready and can be measured, those not measured lately, and of these those
    that are the nearest if their way is better than expected (`latency.hopes`)."""
    found = world.cells.get(cell)
    if found is None:
        return ()
    known, at = _measurable(ByIdentity(world.documents))
    ready = [row for row, one in enumerate(known) if world.clusters[one.cluster].phase is Phase.READY]
    if not ready:
        return ()
    km = between_km(on_the_sphere([(found.lat, found.lon)]), at[ready])[0]
    near = [known[ready[row]] for row in np.argsort(km, kind="stable")[:NEAR]]

    def is_fresh(one: Target) -> bool:
        measured = world.measured.get((cell, one.cluster))
        return measured is not None and now_s - measured.heard_s < FRESH_S

    hoped_ms = dict(zip(near, latency.hopes(world, cell, [one.cluster for one in near]), strict=True))
    return tuple(sorted(near, key=lambda one: (is_fresh(one), hoped_ms[one]))[:MOST])


@functools.lru_cache(maxsize=2)
def _cells(known: ByIdentity[Map[str, UserCell]]) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    cells = known.value
    names = tuple(sorted(cells))
    return names, on_the_sphere([(cells[name].lat, cells[name].lon) for name in names])


@functools.lru_cache(maxsize=2)
def _measurable(known: ByIdentity[Documents]) -> tuple[tuple[Target, ...], NDArray[np.float64]]:
    found, places = [], []
    for one in known.value.clusters:
        if one.spec.gateway is not None and one.spec.gateway.measure_url:
            found.append(Target(one.metadata.name, one.spec.gateway.measure_url))
            places.append((one.spec.location.lat, one.spec.location.lon))
    return tuple(found), on_the_sphere(places)
