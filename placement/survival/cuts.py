"""Surviving the loss of a domain within the objective, by cutting planes.

After the loss of any one domain, the clusters that are left must be able to serve a given share of all requests on
time. By Hall's condition that holds when, for every set S of users, the capacity left within reach of S plus the demand
of all others is at least that share of the demand. There are too many sets to write down, so each is a `Cut` that is
separated when a placement violates it: a maximum flow finds the set with the largest deficit. A cut is a row over
replicas, valid for every feasible placement, so the bound of a programme with some cuts is a bound of the one with all.

Users whom no cluster could serve on time, wherever replicas run, are left out of the demand: nothing protects them.

Source: Hall, On representatives of subsets, Journal of the London Mathematical Society 10 (1935); separation by maximum
flow and minimum cut: Ford and Fulkerson, Flows in Networks (1962).
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from placement.index import Bools, Cut, Floats, Index, InTime, Option
from placement.problem import Model

DUST_RPS = 1e-7
SHORT = 1e-6
"""Share of the protected demand that may be missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AfterLoss:
    """After the loss of a domain: `servable_rps` of `wanted_rps` on time, and the `cells` of the largest deficit."""

    lost: str
    servable_rps: float
    wanted_rps: float
    cells: frozenset[str]

    @property
    def is_short(self) -> bool:
        """Whether less than the protected demand can be served."""
        return self.servable_rps < self.wanted_rps * (1.0 - SHORT) - DUST_RPS


def cut_rows(
    index: Index, model: Model, options: Sequence[Option], cuts: Sequence[Cut]
) -> list[tuple[str, dict[int, float], float]]:
    """(lost domain, option -> requests per second of a replica, least sum) of each of these cuts that can bind."""
    if not cuts or model.survive is None:
        return []
    users = index.in_time(model)
    place = {name: at for at, name in enumerate(users.cells)}
    domain = [index.clusters[option.pool.cluster].domain(model.survive) for option in options]
    found = []
    for cut in cuts:
        which = [place[name] for name in sorted(cut.cells) if name in place]
        others = float(users.rps.sum() - users.rps[which].sum())
        lower = model.survive_within_fraction * float(users.rps.sum()) - others
        near: Bools = users.reach[which].any(axis=0).reshape(len(users.clusters))
        reached = {name for name, is_near in zip(users.clusters, near, strict=True) if is_near}
        if lower > DUST_RPS:
            terms = {
                at: option.shape.requests_per_second * model.target_utilisation
                for at, option in enumerate(options)
                if option.pool.cluster in reached and domain[at] != cut.lost
            }
            found.append((cut.lost, terms, lower))
    return found


def after_losses(index: Index, model: Model, counts: Mapping[str, float]) -> list[AfterLoss]:
    """What can be served after the loss of each domain. Args: counts: pool -> replicas."""
    if model.survive is None or model.survive_within_fraction <= 0.0:
        return []
    users = index.in_time(model)
    place = {name: at for at, name in enumerate(users.clusters)}
    room = np.zeros(len(place))
    domains: dict[str, list[int]] = {}
    for option in index.options(model):
        if count := counts.get(option.pool.name, 0.0):
            room[place[option.pool.cluster]] += count * option.shape.requests_per_second * model.target_utilisation
    for name, at in place.items():
        domains.setdefault(index.clusters[name].domain(model.survive), []).append(at)
    holding = {name: ats for name, ats in domains.items() if room[ats].any()} or dict(sorted(domains.items())[:1])
    rps, reach, of = _alike(users, room)
    wanted = model.survive_within_fraction * float(rps.sum())
    before, found = _Flow(rps, reach, room), []
    for name, ats in sorted(holding.items()):
        flow = before.without(ats)
        lacking = flow.fill(wanted)
        cells = frozenset(cell for cell, one in zip(users.cells, of, strict=True) if lacking[one])
        found.append(AfterLoss(lost=name, servable_rps=flow.served_rps, wanted_rps=wanted, cells=cells))
    return found


def _alike(users: InTime, room: Floats) -> tuple[Floats, Bools, NDArray[np.int64]]:
    """Users with equal reach merged: ([K] rps, [K, C] reach, [U] class of each user)."""
    reach = users.reach & (room > 0.0)
    if not len(users.cells):
        return users.rps, reach, np.zeros(0, np.int64)
    _, first, of = np.unique(np.packbits(reach, axis=1), axis=0, return_index=True, return_inverse=True)
    of = of.reshape(-1).astype(np.int64)
    return np.bincount(of, weights=users.rps, minlength=len(first)).astype(np.float64), reach[first], of


class _Flow:
    """A maximum flow from demand `rps` [K] over `reach` [K, C] into `room` [C]: greedy, then augmenting paths."""

    def __init__(self, rps: Floats, reach: Bools, room: Floats) -> None:
        self._reach = reach
        self._flow, self._unserved, self._free = np.zeros(reach.shape), rps.copy(), room.copy()
        self._asked = float(rps.sum())
        self._greedy()

    def without(self, clusters: list[int]) -> _Flow:
        """A copy without the capacity of these clusters."""
        made = copy.copy(self)
        made._flow, made._free = self._flow.copy(), self._free.copy()
        made._unserved = self._unserved + self._flow[:, clusters].sum(axis=1)
        made._flow[:, clusters], made._free[clusters] = 0.0, 0.0
        made._greedy()
        return made

    @property
    def served_rps(self) -> float:
        """Requests per second served in all."""
        return self._asked - float(self._unserved.sum())

    def _greedy(self) -> None:
        """Serve users with the fewest clusters in reach first, at the first clusters with room."""
        order = np.argsort(self._reach.sum(axis=1), kind="stable")
        for user in order[self._unserved[order] > DUST_RPS]:
            there = np.flatnonzero(self._reach[user] & (self._free > DUST_RPS))
            free = self._free[there]
            take = np.clip(self._unserved[user] - (np.cumsum(free) - free), 0.0, free)
            self._flow[user, there] += take
            self._free[there] -= take
            self._unserved[user] -= take.sum()

    def fill(self, enough: float) -> Bools:
        """Augment until the flow is maximal or serves `enough` requests per second.

        Gives [K] the source side of the minimum cut: classes with unserved demand and those reachable from them by
        augmenting paths, so that all capacity within their reach is used.
        """
        while True:
            seen: Bools = self._unserved > DUST_RPS
            if self.served_rps >= enough or not seen.any():
                return seen
            end, by_user, by_cluster = self._augmenting_path(seen)
            if end < 0:
                return seen
            steps, user, most = [], int(by_user[end]), float(self._free[end])
            steps.append((user, end))
            while self._unserved[user] <= DUST_RPS:
                gives = int(by_cluster[user])
                most = min(most, float(self._flow[user, gives]))
                user = int(by_user[gives])
                steps.append((user, gives))
            most = min(most, float(self._unserved[user]))
            self._free[end] -= most
            self._unserved[user] -= most
            for taker, cluster in steps:
                self._flow[taker, cluster] += most
            for (giver, _), (_, cluster) in itertools.pairwise(steps):
                self._flow[giver, cluster] -= most

    def _augmenting_path(self, seen: Bools) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
        """A shortest augmenting path: (its cluster with room, or -1; [C] user before each cluster; [K] cluster before
        each user). `seen` grows by the users reached."""
        users, clusters = self._reach.shape
        by_user, by_cluster = np.full(clusters, -1), np.full(users, -1)
        front, known = np.flatnonzero(seen), np.zeros(clusters, dtype=bool)
        while len(front):
            new = np.flatnonzero(self._reach[front].any(axis=0) & ~known)
            if not len(new):
                break
            by_user[new] = front[self._reach[np.ix_(front, new)].argmax(axis=0)]
            known[new] = True
            if (self._free[new] > DUST_RPS).any():
                return int(new[self._free[new].argmax()]), by_user, by_cluster
            serves = self._flow[:, new] > DUST_RPS
            front = np.flatnonzero(serves.any(axis=1) & ~seen)
            by_cluster[front] = new[serves[front].argmax(axis=1)]
            seen[front] = True
        return -1, by_user, by_cluster
