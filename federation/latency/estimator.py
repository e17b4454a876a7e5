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
MOST_CANDIDATES = 1024


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


class Estimator:
    """All that is known at one time.

    `log_ms`, `sigma` [users, clusters]: logarithm of the round trip in milliseconds and its standard deviation;
    `measured_ms` [users, clusters]: NaN where nobody measured. `moved` and `refused` name sites: clusters first, then
    users, then those of the prior.

    Args: clusters, users: where they are declared to be. mesh: between clusters. own: from users (`one`) to clusters.
    """

    def __init__(
        self,
        *,
        clusters: Vectors,
        users: Vectors,
        between: Pairs,
        own: Pairs,
        prior: Prior = NO_PRIOR,
        check_sources: bool = True,
    ) -> None:
        self._count, self._users = len(clusters), len(users)
        declared = np.vstack([clusters, users, prior.at])
        first_user, first_prior = self._count, self._count + self._users
        one = np.concatenate([between.one, prior.pairs.one + first_prior])
        other = np.concatenate([between.other, prior.pairs.other + first_prior])
        ms = np.concatenate([between.rtt_ms, prior.pairs.rtt_ms])
        line = fit(paired_km(declared[one], declared[other]), ms, PRIOR)
        self.refused: tuple[Refused, ...] = ()
        if check_sources:
            self.refused = sources.impossible(declared, one, other, ms, self._count)
            one, other, ms = _without(self.refused, one, other, ms)
        all_one = np.concatenate([one, own.one + first_user])
        all_other = np.concatenate([other, own.other])
        all_ms = np.concatenate([ms, own.rtt_ms])
        at, self.moved = places.relocate(declared, all_one, all_other, all_ms, line, most_candidates=MOST_CANDIDATES)
        line = fit(paired_km(at[one], at[other]), ms, PRIOR)
        if check_sources:
            faster = sources.too_fast(at, one, other, ms, line, self._count)
            self.refused += faster
            one, other, ms = _without(faster, one, other, ms)
        self.line: Line = line
        sites = np.unique(np.concatenate([one, other]))
        number = np.full(len(at), -1, np.int64)
        number[sites] = np.arange(len(sites))
        self._mesh = mesh.fit(at[sites], number[one], number[other], ms, line)
        self._at_clusters, self._at_users = at[:first_user], at[first_user:first_prior]
        self._fit_all(own)

    def _fit_all(self, own: Pairs) -> None:
        shape = self._users, self._count
        to_clusters = self._mesh.similar(self._at_clusters)
        onto = (self._mesh.weight @ to_clusters.T).astype(np.float32)
        known_of_clusters = self._mesh.explained(to_clusters)
        similar = np.empty((self._users, len(self._mesh.at)), np.float32)
        self._of_mesh, self.sigma = np.empty(shape, np.float32), np.empty(shape, np.float32)
        unit = float(alike(np.zeros(1))[0])
        for first in range(0, self._users, AT_ONCE):
            some = slice(first, first + AT_ONCE)
            to_some = self._mesh.similar(self._at_users[some])
            similar[some] = to_some
            model = self.line.at(between_km(self._at_users[some], self._at_clusters))
            self._of_mesh[some] = np.log(model) + similar[some] @ onto
            known = np.minimum(self._mesh.explained(to_some)[:, None] * known_of_clusters[None, :], unit**2)
            self.sigma[some] = (unit + OWN) ** 2 - known + (NOISE_MS / model) ** 2
        self._own = Own(self._mesh, self._at_users, self._at_clusters, similar)
        self._variance = self.sigma
        self.measured_ms = np.full(shape, np.nan, np.float32)
        order = np.lexsort((own.rtt_ms, own.one))
        who, starts = np.unique(own.one[order], return_index=True)
        for user, rows in zip(who.tolist(), np.split(order, starts[1:]) if len(who) else (), strict=True):
            self._tell(user, own.other[rows], own.rtt_ms[rows])
        self._own.settle()
        self.log_ms, self.sigma = np.empty(shape, np.float32), np.empty(shape, np.float32)
        for first in range(0, self._users, AT_ONCE):
            self._work_out(np.arange(first, min(first + AT_ONCE, self._users)))

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

    def between_clusters(self, one: Sites, other: Sites) -> Floats:
        """[pairs]: milliseconds between clusters."""
        similar = self._mesh.similar(self._at_clusters)
        beyond = np.einsum("ij,ij->i", (similar @ self._mesh.weight)[one], similar[other])
        km = paired_km(self._at_clusters[one], self._at_clusters[other])
        return np.asarray(self.line.at(km) * np.exp(beyond))

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
