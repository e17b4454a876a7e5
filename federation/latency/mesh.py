"""What measurements between clusters, and between public regions, say of every pair of places on earth.

The mean of the Gaussian process of `kernel` is s_i' A s_j, where A holds one number for each measured pair of sites:
so it is two products of matrices for all pairs, however many. A is found by conjugate gradients, each step two products
as well. Of many clusters, those that are near each other are one site, and what they measured is put together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from federation.latency.kernel import OWN, REWEIGHTINGS, Floats, Sites, alike, noise, weights
from federation.latency.line import Line
from federation.latency.sphere import Vectors, between_km, paired_km

MOST_SITES = 512
DENSE = 1500
"""Measured pairs up to which the system is solved at once."""
STEPS = 40
"""Of conjugate gradients at most."""
ENOUGH = 1e-3
"""Part of the residual at which they end."""
EXPLAINED_NOISE = 0.2
"""What explains a site by others: the part of the kernel that counts as noise."""
Singles = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Mesh:
    """`at` [sites] are those of `weight` [sites, sites] (A above); `explain` [sites, sites] is (S + noise)^-1 over
    those that measured, which tells how well they know other places."""

    line: Line
    at: Vectors
    weight: Floats
    explain: Floats

    def similar(self, at: Vectors) -> Floats:
        """[places, sites] of the kernel."""
        return alike(between_km(at, self.at))

    def explained(self, some: Floats | Singles) -> Floats:
        """[places]: how much of S is known."""
        return np.asarray(np.einsum("ij,ij->i", some @ self.explain, some))


def fit(at: Vectors, one: Sites, other: Sites, y_each: Floats, doubt: Floats, line: Line) -> Mesh:
    """Args: at: [sites], where they rather are. one, other: [measurements]; y_each, doubt: the logarithm of each over
    the line's, and its variance beyond that of a measurement."""
    anchors, belongs = _anchors(at)
    low, high = np.minimum(belongs[one], belongs[other]), np.maximum(belongs[one], belongs[other])
    pairs, back = np.unique(low * len(anchors) + high, return_inverse=True)
    count = np.bincount(back, minlength=len(pairs)).astype(np.float64)
    y = np.bincount(back, weights=y_each, minlength=len(pairs)) / np.maximum(count, 1.0)
    k, m = pairs // max(1, len(anchors)), pairs % max(1, len(anchors))
    place = at[anchors]
    site = alike(between_km(place, place)) + OWN * np.eye(len(place))
    variance = noise(line.at(paired_km(place[k], place[m]))) * (0.5 + 0.5 / np.maximum(count, 1.0))
    variance += np.bincount(back, weights=doubt, minlength=len(pairs)) / np.maximum(count, 1.0)
    weight, alpha = np.ones(len(y)), np.zeros(len(y))
    covariance = site[k][:, k] * site[m][:, m] + site[k][:, m] * site[m][:, k] if len(y) <= DENSE else None
    for turn in range(REWEIGHTINGS + 1):
        if covariance is not None:
            alpha = np.linalg.solve(covariance + np.diag(variance / weight), y)
        else:
            alpha = _gradients(site.astype(np.float32), k, m, variance / weight, y, alpha)
        if turn < REWEIGHTINGS:
            weight = weights(variance / weight * alpha, variance)
    measured = np.zeros(len(anchors), dtype=bool)
    measured[k] = measured[m] = True
    return Mesh(line, place, _symmetric(len(anchors), k, m, alpha), _explaining(site, measured))


def _symmetric(sites: int, k: Sites, m: Sites, alpha: Floats) -> Floats:
    made = np.zeros((sites, sites))
    made[k, m] = alpha
    made[m, k] += alpha
    return made


def _explaining(site: Floats, measured: NDArray[np.bool_]) -> Floats:
    made = np.zeros_like(site)
    known = np.flatnonzero(measured)
    inner = site[np.ix_(known, known)] + EXPLAINED_NOISE * alike(np.zeros(1))[0] * np.eye(len(known))
    made[np.ix_(known, known)] = np.linalg.inv(inner) if len(known) else 0.0
    return made


def _gradients(site: Singles, k: Sites, m: Sites, variance: Floats, y: Floats, start: Floats) -> Floats:
    """alpha of (K + diag(variance)) alpha = y."""

    def product(alpha: Floats) -> Floats:
        made = np.zeros(site.shape, np.float32)
        made[k, m] = alpha
        made[m, k] += alpha
        return (site @ made @ site)[k, m] + variance * alpha

    diagonal = site[k, k].astype(np.float64) * site[m, m] + site[k, m].astype(np.float64) ** 2 + variance
    alpha = start.copy()
    left = y - product(alpha)
    step = towards = left / diagonal
    size = float(left @ towards)
    target = ENOUGH * float(np.sqrt(y @ y))
    for _ in range(STEPS):
        if np.sqrt(left @ left) <= target:
            break
        along = product(step)
        length = size / float(step @ along)
        alpha += length * step
        left = left - length * along
        towards = left / diagonal
        size, before = float(left @ towards), size
        step = towards + size / before * step
    return alpha


def _anchors(at: Vectors) -> tuple[Sites, Sites]:
    """Sites that stand for all ([anchors] rows), and the anchor of each: the farthest from all others first."""
    if len(at) <= MOST_SITES:
        return np.arange(len(at)), np.arange(len(at))
    chosen = [0]
    closeness, belongs = at @ at[0], np.zeros(len(at), np.int64)
    while len(chosen) < MOST_SITES:
        farthest = int(np.argmin(closeness))
        to = at @ at[farthest]
        nearer = to > closeness
        belongs[nearer] = len(chosen)
        closeness = np.maximum(closeness, to)
        chosen.append(farthest)
    return np.array(chosen), belongs
