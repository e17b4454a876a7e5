"""From few measurements to the round trip between every user and every cluster, with how well it is known.

In this order: a robust line over distance; who lies and who is not where the catalogue has it; what clusters and public
regions measured among each other, which says what every pair is beyond the line (`mesh`); what users measured
themselves, which says the same of them and of users near them (`own`). A pair that was measured is what was measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from federation.latency import mesh, places, sources
from federation.latency.kernel import NOISE_MS, OWN, Floats, Sites, alike
from federation.latency.line import PRIOR, Line, fit
from federation.latency.own import MOST_EACH, Own
from federation.latency.sources import Refused
from federation.latency.sphere import Vectors, between_km, paired_km

Singles = NDArray[np.float32]
AT_ONCE = 256
"""Users: a thread that works on more keeps the event loop waiting for as long as one step takes."""
LEAST_VARIANCE = 0.03**2
HOPE = 1.0
"""Standard deviations by which an unmeasured pair may be better than expected, where it is chosen for measuring."""
LEAST_KM = 100.0
"""Round trips within one place say nothing of any way."""
MOST_CANDIDATES = 1024
PRIOR_DOUBT = 0.3**2
"""Variance of what is known beforehand: it was measured elsewhere, over other networks and at another time."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """[measurements] between sites of one numbering, or from rows of one to those of another, in milliseconds."""

    one: Sites
    other: Sites
    rtt_ms: Floats

    @staticmethod
    def none() -> Pairs:
        """No measurement."""
        return Pairs(one=np.zeros(0, np.int64), other=np.zeros(0, np.int64), rtt_ms=np.zeros(0))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prior:
    """A mesh of public places that was measured beforehand. Args: at: [sites]; pairs: between them."""

    at: Vectors
    pairs: Pairs


NO_PRIOR = Prior(at=np.zeros((0, 3)), pairs=Pairs.none())


class Fleet:
    """What clusters measured among each other, and public places: it says something of every pair of places.

    `at_clusters`, `at_users`: where they rather are; `believed`: the pairs of clusters whose measurements count.
    `moved` and `refused` name sites: clusters first, then users.

    Args: clusters, users: where they are declared to be. between: measurements between clusters. own: from users
        (`one`) to clusters: of these, only what they say of places counts here.
    """

    def __init__(
        self,
        *,
        clusters: Vectors,
        between: Pairs,
        users: Vectors | None = None,
        own: Pairs | None = None,
        prior: Prior = NO_PRIOR,
        check_sources: bool = True,
    ) -> None:
        users = np.zeros((0, 3)) if users is None else users
        own = Pairs.none() if own is None else own
        count = len(clusters)
        declared = np.vstack([clusters, users])
        one, other, ms = between.one, between.other, between.rtt_ms
        public = paired_km(prior.at[prior.pairs.one], prior.at[prior.pairs.other])
        by_prior = fit(public, prior.pairs.rtt_ms, PRIOR)
        line = fit(paired_km(declared[one], declared[other]), ms, by_prior)
        self.refused: tuple[Refused, ...] = ()
        if check_sources:
            self.refused = sources.impossible(declared, one, other, ms, count)
            one, other, ms = _without(self.refused, one, other, ms)
        at, self.moved = places.relocate(
            declared,
            np.concatenate([one, own.one + count]),
            np.concatenate([other, own.other]),
            np.concatenate([ms, own.rtt_ms]),
            line,
            sure=count,
            candidates=prior.at,
            most_candidates=MOST_CANDIDATES,
        )
        km = paired_km(at[one], at[other])
        line = fit(km[km > LEAST_KM], ms[km > LEAST_KM], by_prior)
        if check_sources:
            faster = sources.too_fast(at, one, other, ms, line, count)
            self.refused += faster
            one, other, ms = _without(faster, one, other, ms)
        can_be = ~places.impossible(paired_km(at[one], at[other]), ms)
        one, other, ms = one[can_be], other[can_be], ms[can_be]
        self.line: Line = line
        self.believed = one, other
        is_way = paired_km(at[one], at[other]) > LEAST_KM
        one, other, ms = one[is_way], other[is_way], ms[is_way]
        self.at_clusters, self.at_users = at[:count], at[count:]
        y = np.concatenate(
            [
                np.log(ms / line.at(paired_km(at[one], at[other]))),
                np.log(prior.pairs.rtt_ms / by_prior.at(public)),
            ]
        )
        doubt = np.concatenate([np.zeros(len(ms)), np.full(len(public), PRIOR_DOUBT)])
        sites = np.unique(np.concatenate([one, other]))
        number = np.full(len(at), -1, np.int64)
        number[sites] = np.arange(len(sites))
        self.mesh = mesh.fit(
            np.vstack([at[sites], prior.at]),
            np.concatenate([number[one], prior.pairs.one + len(sites)]),
            np.concatenate([number[other], prior.pairs.other + len(sites)]),
            y,
            doubt,
            line,
        )
        similar = self.mesh.similar(self.at_clusters)
        self._onto = (self.mesh.weight @ similar.T).astype(np.float32)
        self._known = self.mesh.explained(similar)
        self._unit = float(alike(np.zeros(1))[0])

    def log_ms(self, users: Vectors, similar: Singles) -> Singles:
        """[users, clusters]. Args: similar: [users, sites] of the mesh."""
        model = self.line.at(between_km(users, self.at_clusters)).astype(np.float32)
        return np.asarray(np.log(model) + similar @ self._onto)

    def similar(self, users: Vectors) -> Singles:
        """[users, sites] of the mesh."""
        return self.mesh.similar(users).astype(np.float32)

    def pairs(self, users: Vectors, row: Sites, column: Sites) -> tuple[Floats, Floats]:
        """[pairs]: logarithm of the round trip and its variance, without an array over all."""
        similar = self.mesh.similar(users)
        model = self.line.at(paired_km(users[row], self.at_clusters[column]))
        log_ms = np.empty(len(row))
        for first in range(0, len(row), AT_ONCE):
            some = slice(first, first + AT_ONCE)
            log_ms[some] = np.einsum("ij,ji->i", similar[row[some]], self._onto[:, column[some]])
        known = np.minimum(self.mesh.explained(similar)[row] * self._known[column], self._unit**2)
        return log_ms + np.log(model), (self._unit + OWN) ** 2 - known + (NOISE_MS / model) ** 2

    def variance(self, users: Vectors, similar: Singles) -> Singles:
        """[users, clusters]: of those logarithms."""
        model = self.line.at(between_km(users, self.at_clusters))
        known = np.minimum(self.mesh.explained(similar)[:, None] * self._known[None, :], self._unit**2)
        return np.asarray((self._unit + OWN) ** 2 - known + (NOISE_MS / model) ** 2, np.float32)

    def between_clusters(self, one: Sites, other: Sites) -> Floats:
        """[pairs]: milliseconds between clusters."""
        similar = self.mesh.similar(self.at_clusters)
        beyond = np.einsum("ij,ij->i", (similar @ self.mesh.weight)[one], similar[other])
        km = paired_km(self.at_clusters[one], self.at_clusters[other])
        return np.asarray(self.line.at(km) * np.exp(beyond))


class Estimator:
    """The same with what users measured themselves.

    `log_ms`, `sigma` [users, clusters]: logarithm of the round trip in milliseconds and its standard deviation;
    `measured_ms` [users, clusters]: NaN where nobody measured.

    Args: own: from users (`one`) to clusters.
    """

    def __init__(self, fleet: Fleet, own: Pairs) -> None:
        self.fleet = fleet
        users = fleet.at_users
        shape = len(users), len(fleet.at_clusters)
        similar = np.empty((len(users), len(fleet.mesh.at)), np.float32)
        self._of_mesh, self._variance = np.empty(shape, np.float32), np.empty(shape, np.float32)
        for first in range(0, len(users), AT_ONCE):
            some = slice(first, first + AT_ONCE)
            similar[some] = fleet.mesh.similar(users[some])
            self._of_mesh[some] = fleet.log_ms(users[some], similar[some])
            self._variance[some] = fleet.variance(users[some], similar[some])
        self._own = Own(fleet.mesh, users, fleet.at_clusters, similar)
        self.measured_ms = np.full(shape, np.nan, np.float32)
        order = np.lexsort((own.rtt_ms, own.one))
        who, starts = np.unique(own.one[order], return_index=True)
        for user, rows in zip(who.tolist(), np.split(order, starts[1:]) if len(who) else (), strict=True):
            self._tell(user, own.other[rows], own.rtt_ms[rows])
        self._own.settle()
        self.log_ms, self.sigma = np.empty(shape, np.float32), np.empty(shape, np.float32)
        for first in range(0, len(users), AT_ONCE):
            self._work_out(np.arange(first, min(first + AT_ONCE, len(users))))

    def _tell(self, user: int, clusters: Sites, rtt_ms: Floats) -> None:
        best = np.argsort(rtt_ms, kind="stable")
        clusters, rtt_ms = clusters[best], rtt_ms[best]
        self.measured_ms[user] = np.nan
        self.measured_ms[user, clusters] = rtt_ms
        self._own.tell(
            user, clusters[:MOST_EACH], np.log(rtt_ms[:MOST_EACH]) - self._of_mesh[user, clusters[:MOST_EACH]]
        )

    def _work_out(self, users: Sites) -> None:
        added, less = self._own.rows(users)
        self.log_ms[users] = self._of_mesh[users] + added
        self.sigma[users] = np.sqrt(np.maximum(self._variance[users] - less, LEAST_VARIANCE))

    def tell(self, user: int, clusters: Sites, rtt_ms: Floats) -> None:
        """What a user's measurements are now: the row of that user is worked out again, those near it with the next
        whole estimate."""
        was_known = bool(np.isfinite(self.measured_ms[user]).any())
        self._tell(user, clusters, rtt_ms)
        if was_known != bool(len(clusters)):
            self._own.settle()
        self._work_out(np.array([user]))

    def rtt_ms(self) -> Singles:
        """[users, clusters]: measured, else estimated."""
        made = np.exp(self.log_ms)
        return np.where(np.isnan(self.measured_ms), made, self.measured_ms)

    def ask(self, users: Sites | None = None) -> Sites:
        """[users]: the cluster that each should measure next: the unmeasured one that may be the nearest."""
        some = slice(None) if users is None else users
        hoped = self.log_ms[some] - HOPE * self.sigma[some]
        return np.asarray(np.where(np.isnan(self.measured_ms[some]), hoped, np.inf).argmin(axis=1))


def _without(refused: tuple[Refused, ...], one: Sites, other: Sites, ms: Floats) -> tuple[Sites, Sites, Floats]:
    if not refused:
        return one, other, ms
    names = np.array([each.site for each in refused])
    kept = ~(np.isin(one, names) | np.isin(other, names))
    return one[kept], other[kept], ms[kept]
