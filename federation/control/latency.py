"""From measurements between clusters to latency between users and clusters.

A user cell is not measured itself. Where the agents of the cluster nearest to the cell have measured the round trip to
another cluster, that measurement is used, and the way from the cell to the nearest cluster is added by distance;
elsewhere the whole path is estimated by distance. Every figure says where it comes from.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from federation.state.keys import CellCluster
from federation.state.world import World

AT_ONCE = 256
"""Cells: a thread that works on more keeps the event loop waiting for as long as one step takes."""
Floats = NDArray[np.float32]
Places = tuple[tuple[float, float], ...]
"""Latitudes and longitudes in degrees."""

BASE_RTT_MS = 8.9
RTT_MS_PER_KM = 0.01573
"""Round trip by great-circle distance. Source: least squares over the 32 x 32 AWS regions of cloudping.co (one-year
median, 2025-05-29); median relative error 14 %."""
EARTH_RADIUS_KM = 6371.0088


Basis = Literal["measured", "inferred", "prior"]
"""Of an estimate: measurements of this very pair, measurements of other pairs, or distance alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Round trip between a cell and a cluster, and where the figure comes from."""

    cell: str
    cluster: str
    rtt_ms: float
    source: str
    basis: Basis = "prior"
    measured_s: float | None = None
    """When the newest measurement behind it was heard (monotonic seconds of the controller's clock)."""
    confidence: float | None = None
    """The chance that the true round trip is within 20 % of `rtt_ms`; None where nothing says it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Estimates(Mapping[CellCluster, Estimate]):
    """(cell, cluster) -> estimate, in arrays [cells, clusters]: there may be ten millions of them.

    `nearest` [cells] is the column of the cluster nearest to each cell. How old a measurement is they do not say.
    """

    cells: Mapping[str, int]
    """Name -> row, in order of the names; `clusters` the same of columns."""
    clusters: Mapping[str, int]
    rtt_ms: Floats
    km: Floats
    nearest: NDArray[np.int64]
    is_measured: NDArray[np.bool_]

    def __getitem__(self, pair: CellCluster) -> Estimate:
        row, column = self.cells[pair[0]], self.clusters[pair[1]]
        basis: Basis = "prior"
        source = f"estimated over {self.km[row, column]:.0f} km"
        if self.is_measured[row, column]:
            near = int(self.nearest[row])
            basis = "inferred"
            source = f"measured from {tuple(self.clusters)[near]}, {self.km[row, near]:.0f} km from the users"
        rtt_ms = round(float(self.rtt_ms[row, column]), 2)
        return Estimate(cell=pair[0], cluster=pair[1], rtt_ms=rtt_ms, source=source, basis=basis)

    def __iter__(self) -> Iterator[CellCluster]:
        return itertools.starmap(CellCluster, itertools.product(self.cells, self.clusters))

    def __len__(self) -> int:
        return self.rtt_ms.size


def estimate(world: World, cells: Iterable[str]) -> Estimates:
    """For every cluster of the catalogue."""
    users = tuple(sorted(cells))
    places = {document.metadata.name: document.spec.location for document in world.documents.clusters}
    clusters = tuple(sorted(places))
    km = _distances_km(
        tuple((world.cells[name].lat, world.cells[name].lon) for name in users),
        tuple((places[name].lat, places[name].lon) for name in clusters),
    )
    rtt_ms, nearest = np.empty_like(km), np.zeros(len(users), np.int64)
    is_measured = np.zeros(km.shape, dtype=bool)
    measured = _measured_ms(world, clusters)
    for first in range(0, len(users) if clusters else 0, AT_ONCE):
        some = slice(first, first + AT_ONCE)
        near = km[some].argmin(axis=1)
        told = measured[near]
        known = ~np.isnan(told)
        way_km = np.where(known, np.take_along_axis(km[some], near[:, None], axis=1), km[some])
        rtt_ms[some] = _below(np.round(BASE_RTT_MS + RTT_MS_PER_KM * way_km + np.where(known, told, 0.0), 2))
        nearest[some], is_measured[some] = near, known
    return Estimates(
        cells={name: row for row, name in enumerate(users)},
        clusters={name: column for column, name in enumerate(clusters)},
        rtt_ms=rtt_ms,
        km=km,
        nearest=nearest,
        is_measured=is_measured,
    )


def between(world: World, pairs: Collection[CellCluster]) -> dict[CellCluster, Estimate]:
    """The same figures as `estimate`, for some (cell, cluster) alone: without an array over all of them.

    Cells that are not known and clusters that are not in the catalogue are left out.
    """
    places = {document.metadata.name: document.spec.location for document in world.documents.clusters}
    wanted = sorted(pair for pair in pairs if pair[0] in world.cells and pair[1] in places)
    users, clusters = sorted({cell for cell, _ in wanted}), tuple(sorted(places))
    rows = {name: row for row, name in enumerate(users)}
    columns = {name: column for column, name in enumerate(clusters)}
    users_at = tuple((world.cells[name].lat, world.cells[name].lon) for name in users)
    clusters_at = tuple((places[name].lat, places[name].lon) for name in clusters)
    one, other, nearest = on_the_sphere(users_at), on_the_sphere(clusters_at), _nearest(users_at, clusters_at)
    at = np.array([(rows[cell], columns[cluster]) for cell, cluster in wanted], np.int64).reshape(-1, 2)
    km = _km(np.einsum("ij,ij->i", one[at[:, 0]], other[at[:, 1]]))
    near_km = _km(np.einsum("ij,ij->i", one, other[nearest]))[at[:, 0]]
    told = np.full(len(wanted), np.nan, np.float32)
    told_by: dict[int, str] = {}
    by_pair: dict[str, dict[str, float]] = {}
    for row, (cell, cluster) in enumerate(wanted):
        near = clusters[nearest[rows[cell]]]
        for who, whom in ((near, cluster), (cluster, near)) if near != cluster else ():
            if who not in by_pair:
                by_pair[who] = _measured_by(world, who)
            if (rtt_ms := by_pair[who].get(whom)) is not None:
                told[row], told_by[row] = rtt_ms, who
                break
    known = ~np.isnan(told)
    way_km = np.where(known, near_km, km)
    rtt = _below(np.round(BASE_RTT_MS + RTT_MS_PER_KM * way_km + np.where(known, told, np.float32(0.0)), 2)).tolist()
    made = {}
    for row, (cell, cluster) in enumerate(wanted):
        basis: Basis = "prior"
        measured_s = None
        source = f"estimated over {km[row]:.0f} km"
        if known[row]:
            basis = "inferred"
            measured_s = world.clusters[told_by[row]].heard_s
            source = f"measured from {clusters[nearest[rows[cell]]]}, {near_km[row]:.0f} km from the users"
        made[CellCluster(cell, cluster)] = Estimate(
            cell=cell,
            cluster=cluster,
            rtt_ms=round(rtt[row], 2),
            source=source,
            basis=basis,
            measured_s=measured_s,
        )
    return made


@functools.lru_cache(maxsize=8)
def _nearest(users: Places, clusters: Places) -> NDArray[np.int64]:
    """[users]: the column of the nearest cluster; of places that seldom change, so the newest are kept."""
    made = np.zeros(len(users), np.int64)
    one, other = on_the_sphere(users), on_the_sphere(clusters)
    for first in range(0, len(users) if clusters else 0, AT_ONCE):
        some = slice(first, first + AT_ONCE)
        made[some] = _km(one[some] @ other.T).argmin(axis=1)
    return made


def _measured_by(world: World, name: str) -> dict[str, float]:
    """Peer -> round trip in ms, as the agent of a cluster measured it."""
    report = world.clusters[name].report
    return {one.cluster: one.rtt_ms_p50 for one in report.peers if one.samples > 0} if report is not None else {}


def _km(cosine: NDArray[np.float64]) -> Floats:
    """Great-circle distances by the scalar products of unit vectors."""
    chord = np.sqrt(np.clip(2.0 - 2.0 * cosine, 0.0, 4.0))
    return (2 * EARTH_RADIUS_KM * np.arcsin(chord / 2)).astype(np.float32)


def _below(values: NDArray[np.float64]) -> Floats:
    """In single precision, and none above what it was: who is just within the objective stays within it."""
    made = values.astype(np.float32)
    return np.where(made > values, np.nextafter(made, np.float32(0.0)), made)


@functools.lru_cache(maxsize=2)
def _distances_km(users: Places, clusters: Places) -> Floats:
    """[users, clusters]: of places that seldom change, so the newest are kept."""
    one, other = on_the_sphere(users), on_the_sphere(clusters)
    made = np.empty((len(users), len(clusters)), np.float32)
    for first in range(0, len(users), AT_ONCE):
        some = slice(first, first + AT_ONCE)
        made[some] = _km(one[some] @ other.T)
    return made


def on_the_sphere(places: Places) -> NDArray[np.float64]:
    """[places, 3] of length one."""
    lat, lon = np.radians(np.array(places).reshape(-1, 2)).T
    return np.column_stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])


def _measured_ms(world: World, clusters: tuple[str, ...]) -> Floats:
    """[clusters, clusters]: what the one of the row measured, else the other; NaN where neither did."""
    at = {name: number for number, name in enumerate(clusters)}
    made = np.full((len(clusters), len(clusters)), np.nan, np.float32)
    for name, state in world.clusters.items():
        for peer in state.report.peers if state.report is not None else ():
            if peer.samples > 0 and peer.cluster in at:
                made[at[name], at[peer.cluster]] = peer.rtt_ms_p50
    np.fill_diagonal(made, np.nan)
    return np.where(np.isnan(made), made.T, made)
