"""The round trip between users and clusters, as the world lets it be estimated (`federation/latency`).

Agents measure the round trip to other clusters; of a user cell its place is known. Every figure says what it is based
on, how sure it is, and how old the newest measurement behind it is.
"""

from __future__ import annotations

import functools
import itertools
import math
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from federation.latency import sources
from federation.latency.estimator import HOPE, LEAST_VARIANCE, Fleet
from federation.latency.estimator import Pairs as SitePairs
from federation.latency.line import PRIOR
from federation.latency.own import MOST_EACH, Own
from federation.latency.sphere import on_the_sphere, paired_km
from federation.policy.documents import Cluster
from federation.state.identity import ByIdentity
from federation.state.keys import CellCluster
from federation.state.measured import Pairs
from federation.state.world import World
from federation.wire.messages import Condition

AT_ONCE = 256
"""Cells: a thread that works on more keeps the event loop waiting for as long as one step takes."""
Floats = NDArray[np.float32]
Places = tuple[tuple[float, float], ...]
"""Latitudes and longitudes in degrees."""

BASE_RTT_MS, RTT_MS_PER_KM = PRIOR.base_ms, PRIOR.ms_per_km
"""Round trip by great-circle distance where nothing is measured and nothing is known beforehand."""
SURE = 0.20
"""Confidence is the chance that the true round trip is within so much of the estimate."""
CATALOGUES = 4
"""Of which the newest knowledge is kept."""
MANY = 256
CHANGED, CHANGED_MS = 0.25, 3.0
"""A way has changed where its round trip is so much another one."""
SCATTERED, SCATTERED_MS, FEW = 0.10, 1.0, 0.02
"""So many of them may be so much other ones before all are worked out again."""
MOST_CLUSTERS = 2_000
"""Of more, a user's measurements say something of the measured pairs alone."""
MEASURED = 0.9
"""Confidence in what users measured themselves, at least."""
SPREAD = 1.2
"""95th percentile of round trips over their median, where no agent has measured it: a guess."""

Basis = Literal["measured", "inferred", "prior"]
"""Of an estimate: measurements of this very pair, measurements of other pairs, or distance and public meshes alone."""


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
    rtt_ms_p95: float | None = None
    """Of the round trips themselves, as they scatter."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Estimates(Mapping[CellCluster, Estimate]):
    """(cell, cluster) -> estimate, in an array [cells, clusters]: there may be ten millions of them."""

    world: World
    cells: Mapping[str, int]
    """Name -> row, in order of the names; `clusters` the same of columns."""
    clusters: Mapping[str, int]
    rtt_ms: Floats

    def __getitem__(self, pair: CellCluster) -> Estimate:
        if pair[0] not in self.cells or pair[1] not in self.clusters:
            raise KeyError(pair)
        return between(self.world, [pair])[pair]

    def __iter__(self) -> Iterator[CellCluster]:
        return itertools.starmap(CellCluster, itertools.product(self.cells, self.clusters))

    def __len__(self) -> int:
        return self.rtt_ms.size


def estimate(world: World, cells: Iterable[str]) -> Estimates:
    """For every cluster of the catalogue."""
    users = tuple(sorted(cells))
    known = _NEWEST.of(world)
    places = tuple((world.cells[name].lat, world.cells[name].lon) for name in users)
    rtt_ms = _all(known, places)
    if world.measured:
        others, at_others = _others_who_measured(world, users)
        rtt_ms = _all_by_users(known, ByIdentity(world.measured), users, places, others, at_others)
    return Estimates(
        world=world,
        cells={name: row for row, name in enumerate(users)},
        clusters={name: column for column, name in enumerate(known.names)},
        rtt_ms=rtt_ms,
    )


def between(world: World, pairs: Collection[CellCluster]) -> dict[CellCluster, Estimate]:
    """The same figures as `estimate`, for some (cell, cluster) alone: without an array over all of them.

    Cells that are not known and clusters that are not in the catalogue are left out.
    """
    known = _known(world)
    columns = known.columns
    wanted = sorted(pair for pair in pairs if pair[0] in world.cells and pair[1] in columns)
    users = sorted({cell for cell, _ in wanted})
    rows = {name: row for row, name in enumerate(users)}
    made: dict[CellCluster, Estimate] = {}
    if not wanted:
        return made
    at = np.array([(rows[cell], columns[cluster]) for cell, cluster in wanted], np.int64)
    at_users, log_ms, variance = _pairs(world, known, users, at[:, 0], at[:, 1])
    km = paired_km(at_users[at[:, 0]], known.fleet.at_clusters[at[:, 1]])
    rtt_ms = _below(np.round(np.exp(log_ms), 2)).tolist()
    confidence = [math.erf(math.log1p(SURE) / math.sqrt(2.0 * one)) for one in variance.tolist()]
    near = known.nearest_that_measured(at_users)
    witness_km = paired_km(at_users, known.fleet.at_clusters[near]).tolist()
    for row, ((cell, cluster), (user, column)) in enumerate(zip(wanted, at.tolist(), strict=True)):
        basis: Basis = "prior"
        source, measured_s = f"estimated over {km[row]:.0f} km", None
        if known.measured[column]:
            witness = known.names[near[user]]
            basis = "inferred"
            source = (
                f"inferred over {km[row]:.0f} km from what clusters measured, the nearest {witness}, "
                f"{witness_km[user]:.0f} km from the users"
            )
            measured_s = _newest(world, witness, cluster)
        own = world.measured.get((cell, cluster))
        if own is not None:
            basis, measured_s, rtt_ms[row] = "measured", own.heard_s, own.rtt_ms
            confidence[row] = max(confidence[row], MEASURED)
            source = f"measured by browsers of users there, {own.windows} minutes"
        made[CellCluster(cell, cluster)] = Estimate(
            cell=cell,
            cluster=cluster,
            rtt_ms=round(rtt_ms[row], 2),
            source=source,
            basis=basis,
            measured_s=measured_s,
            confidence=round(confidence[row], 3),
            rtt_ms_p95=round(own.rtt_ms_p95 if own is not None else rtt_ms[row] * known.spread[column], 2),
        )
    return made


def round_trips(world: World, users: Sequence[str], row: NDArray[np.int64], clusters: Sequence[str]) -> Floats:
    """[pairs] in ms, from cells that measured nothing themselves (by their row) to clusters of the catalogue: the
    figures of `between` alone."""
    known = _known(world)
    column = np.array([known.columns[name] for name in clusters], np.int64)
    _, log_ms, _ = _pairs(world, known, users, row, column)
    return _below(np.round(np.exp(log_ms), 2))


def hopes(world: World, cell: str, clusters: Sequence[str]) -> list[float]:
    """[clusters]: the round trip in ms that each has if its way is better than expected by a standard deviation: of
    what is not measured, the least of these may be the nearest.

    Raises: KeyError where a name is unknown.
    """
    known = _NEWEST.of(world, is_new_enough=True)
    place = on_the_sphere([(world.cells[cell].lat, world.cells[cell].lon)])
    column = np.array([known.columns[name] for name in clusters], np.int64)
    log_ms, variance = known.fleet.pairs(place, np.zeros(len(column), np.int64), column)
    return [float(one) for one in np.exp(log_ms - HOPE * np.sqrt(variance))]


def doubts(world: World) -> Mapping[str, tuple[Condition, ...]]:
    """Cluster -> why its place, or what it measures, is not believed."""
    return _known(world).doubts


# ---- what is kept as long as it holds


class _Told:
    """What clusters measured of each other, as arrays; compared by content, and the rest by identity."""

    def __init__(self, world: World) -> None:
        self.clusters, self.prior = world.documents.clusters, world.public
        names = sorted(document.metadata.name for document in self.clusters)
        number = {name: at for at, name in enumerate(names)}
        one: list[int] = []
        other: list[int] = []
        ms: list[float] = []
        p95: list[float] = []
        for name, state in world.clusters.items():
            mine = number.get(name)
            for peer in state.report.peers if state.report is not None and mine is not None else ():
                at = number.get(peer.cluster)
                if peer.samples > 0 and at is not None and at != mine and mine is not None:
                    one.append(mine)
                    other.append(at)
                    ms.append(peer.rtt_ms_p50)
                    p95.append(peer.rtt_ms_p95)
        self.one, self.other = np.array(one, np.int64), np.array(other, np.int64)
        self.rtt_ms, self.rtt_ms_p95 = np.array(ms, np.float64), np.array(p95, np.float64)

    def is_of(self, world: World) -> bool:
        """Whether the catalogue is this one."""
        return self.clusters is world.documents.clusters and self.prior is world.public

    def is_nearly(self, other: _Told) -> bool:
        """Whether the same pairs are measured, and no way has changed: a few medians scatter."""
        if not np.array_equal(self.one, other.one) or not np.array_equal(self.other, other.other):
            return False
        change_ms = np.abs(self.rtt_ms - other.rtt_ms)
        if (change_ms > np.maximum(CHANGED * other.rtt_ms, CHANGED_MS)).any():
            return False
        scattered = change_ms > np.maximum(SCATTERED * other.rtt_ms, SCATTERED_MS)
        return int(scattered.sum()) <= FEW * len(scattered)


class _Known:
    """What follows from what was told. `measured` [clusters]: whether a round trip from or to it is believed; `spread`
    [clusters]: 95th percentile over median."""

    def __init__(self, told: _Told) -> None:
        self.told = told
        documents: Mapping[str, Cluster] = {one.metadata.name: one for one in told.clusters}
        self.names = tuple(sorted(documents))
        self.columns = {name: column for column, name in enumerate(self.names)}
        places = [(documents[name].spec.location.lat, documents[name].spec.location.lon) for name in self.names]
        one, other, ms, words = sources.agree(told.one, told.other, told.rtt_ms, len(self.names))
        self.fleet = Fleet(
            clusters=on_the_sphere(places), between=SitePairs(one=one, other=other, rtt_ms=ms), prior=told.prior
        )
        self.measured = np.zeros(len(self.names), dtype=bool)
        self.measured[np.concatenate(self.fleet.believed)] = True
        self._witnesses = np.flatnonzero(self.measured)
        self.spread = _spread(told, len(self.names))
        found: dict[str, list[Condition]] = {}
        for each in (*words, *self.fleet.refused):
            text = f"{each.why}: what it measures is not believed; look at its agent's clock, proxy and network"
            found.setdefault(self.names[each.site], []).append(
                Condition(type="SourceRefused", object="peers", message=text)
            )
        for moved in self.fleet.moved:
            text = (
                f"{moved.impossible} of {moved.measured} round trips are faster than light in fibre from where the "
                f"catalogue has it, as {moved.fastest_ms:.6g} ms over {moved.fastest_km:.0f} km: it is taken to be "
                f"near {moved.lat:.2f}, {moved.lon:.2f}, {moved.km:.0f} km away; correct `location` in its document"
            )
            found.setdefault(self.names[moved.site], []).append(
                Condition(type="PlaceDoubted", object="location", message=text)
            )
        self.doubts = {name: tuple(rows) for name, rows in found.items()}

    def nearest_that_measured(self, at: NDArray[np.float64]) -> NDArray[np.int64]:
        """[places]: the cluster with a believed round trip that is nearest; 0 where there is none."""
        if not len(self._witnesses):
            return np.zeros(len(at), np.int64)
        closeness = at @ self.fleet.at_clusters[self._witnesses].T
        return np.asarray(self._witnesses[closeness.argmax(axis=1)])


def _spread(told: _Told, clusters: int) -> list[float]:
    """[clusters]: median of what agents measured from and to each."""
    ratio = np.maximum(1.0, told.rtt_ms_p95 / np.maximum(told.rtt_ms, 1e-3))
    who, both = np.concatenate([told.one, told.other]), np.concatenate([ratio, ratio])
    order = np.argsort(who, kind="stable")
    names, starts = np.unique(who[order], return_index=True)
    found = [float(np.median(ratio)) if len(ratio) else SPREAD] * clusters
    for name, rows in zip(names.tolist(), np.split(both[order], starts[1:]) if len(names) else (), strict=True):
        found[name] = float(np.median(rows))
    return found


class _Newest:
    """The newest knowledge of each of a few catalogues: it holds as long as round trips are nearly the same.

    So a report changes it only where a way has changed, and all who ask within one cycle see the same.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[int, int], _Known] = OrderedDict()

    def of(self, world: World, *, is_new_enough: bool = False) -> _Known:
        """Args: is_new_enough: what is known of these clusters serves, however old it is."""
        key = id(world.documents.clusters), id(world.public)
        with self._lock:
            known = self._known.get(key)
            if known is None or not known.told.is_of(world):
                known = None
            if known is None or not is_new_enough:
                told = _Told(world)
                if known is None or not told.is_nearly(known.told):
                    known = _Known(told)
            self._known[key] = known
            self._known.move_to_end(key)
            while len(self._known) > CATALOGUES:
                self._known.popitem(last=False)
            return known


_NEWEST = _Newest()


def _known(world: World) -> _Known:
    """For who asks about some pairs: of a large fleet, what the newest plan went by."""
    return _NEWEST.of(world, is_new_enough=len(world.documents.clusters) > MANY)


@functools.lru_cache(maxsize=1)
def _all(known: _Known, users: Places) -> Floats:
    """[users, clusters] in ms: of what seldom changes, so the newest are kept."""
    at = on_the_sphere(users)
    made = np.empty((len(users), len(known.names)), np.float32)
    for first in range(0, len(users) if len(known.names) else 0, AT_ONCE):
        some = slice(first, first + AT_ONCE)
        made[some] = _below(np.round(np.exp(known.fleet.log_ms(at[some], known.fleet.similar(at[some]))), 2))
    return made


def _pairs(
    world: World, known: _Known, users: Sequence[str], row: NDArray[np.int64], column: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Where users are; [pairs]: logarithm of the round trip in ms and its variance, with what users measured."""
    at_users = on_the_sphere([(world.cells[name].lat, world.cells[name].lon) for name in users])
    log_ms, variance = known.fleet.pairs(at_users, row, column)
    others, at_others = _others_who_measured(world, users)
    by_users = _by_users(known, world.measured, (*users, *others), np.vstack([at_users, on_the_sphere(at_others)]))
    if by_users is not None:
        added, less = by_users.pairs(row, column)
        log_ms, variance = log_ms + added, np.maximum(variance - less, LEAST_VARIANCE)
    return at_users, log_ms, variance


def _others_who_measured(world: World, users: Sequence[str]) -> tuple[tuple[str, ...], Places]:
    """The cells with measurements that are not among `users`, and where they are: they tell of users near them."""
    known = set(users)
    names = tuple(sorted({cell for cell, _ in world.measured if cell not in known and cell in world.cells}))
    return names, tuple((world.cells[name].lat, world.cells[name].lon) for name in names)


class _ByUsers:
    """What users' own measurements change, of these users and of those who measured near them.

    Args: names, at: the users that are asked about; of the others only those who measured count.
    """

    def __init__(self, known: _Known, measured: Pairs, names: Sequence[str], at: NDArray[np.float64]) -> None:
        rows = {name: row for row, name in enumerate(names)}
        found: dict[int, list[tuple[float, int]]] = {}
        for (cell, cluster), one in measured.items():
            row, column = rows.get(cell), known.columns.get(cluster)
            if row is not None and column is not None:
                found.setdefault(row, []).append((one.rtt_ms, column))
        similar = known.fleet.similar(at)
        self._own = Own(known.fleet.mesh, at, known.fleet.at_clusters, similar)
        for row, best in sorted(found.items()):
            best.sort()
            columns = np.array([column for _, column in best[:MOST_EACH]], np.int64)
            ms = np.array([ms for ms, _ in best[:MOST_EACH]])
            expected = known.fleet.log_ms(at[[row]], similar[[row]])[0, columns]
            self._own.tell(row, columns, np.log(ms) - expected)
        self._own.settle()

    def rows(self, users: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """[users, clusters]: what is added to the logarithm of the round trip, and taken from its variance."""
        return self._own.rows(users)

    def pairs(self, row: NDArray[np.int64], column: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """[pairs]: the same of some."""
        added, less = np.zeros(len(row), np.float32), np.zeros(len(row), np.float32)
        users, which = np.unique(row, return_inverse=True)
        for first in range(0, len(users), AT_ONCE):
            here = (which >= first) & (which < first + AT_ONCE)
            some_added, some_less = self.rows(users[first : first + AT_ONCE])
            added[here] = some_added[which[here] - first, column[here]]
            less[here] = some_less[which[here] - first, column[here]]
        return added, less


def _by_users(known: _Known, measured: Pairs, names: Sequence[str], at: NDArray[np.float64]) -> _ByUsers | None:
    """None where no user has measured, or where it would take clusters x clusters of memory."""
    if not measured or not len(known.names) or len(known.names) > MOST_CLUSTERS:
        return None
    return _ByUsers(known, measured, names, at)


@functools.lru_cache(maxsize=1)
def _all_by_users(
    known: _Known,
    measured: ByIdentity[Pairs],
    users: tuple[str, ...],
    places: Places,
    others: tuple[str, ...],
    at_others: Places,
) -> Floats:
    """[users, clusters] in ms, with what users measured: of their pairs, and of those near them."""
    made = _all(known, places).copy()
    by_users = _by_users(known, measured.value, (*users, *others), on_the_sphere((*places, *at_others)))
    for first in range(0, len(users) if by_users is not None else 0, AT_ONCE):
        some = np.arange(first, min(first + AT_ONCE, len(users)))
        assert by_users is not None
        added, _ = by_users.rows(some)
        made[some] = _below(np.round(made[some] * np.exp(added), 2))
    rows = {name: row for row, name in enumerate(users)}
    for (cell, cluster), one in measured.value.items():
        if cell in rows and cluster in known.columns:
            made[rows[cell], known.columns[cluster]] = round(one.rtt_ms, 2)
    return made


def _newest(world: World, *clusters: str) -> float | None:
    """When the newest report of these clusters was heard."""
    heard = [world.clusters[name].heard_s for name in clusters if name in world.clusters]
    return max((at_s for at_s in heard if at_s is not None), default=None)


def _below(values: NDArray[Any]) -> Floats:
    """In single precision, and none above what it was: who is just within the objective stays within it."""
    made = values.astype(np.float32)
    return np.where(made > values, np.nextafter(made, np.float32(0.0)), made)
