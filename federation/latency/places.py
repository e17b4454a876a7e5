"""Places that measurements prove wrong: which, and where they rather are.

A round trip that is faster than light in fibre says that one of its two places is not where it is declared to be, or
that the source lies. It is never raised to what physics allows: on a wrong place that would be wrong everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from federation.latency.line import Line
from federation.latency.sphere import KM_PER_RTT_MS, Vectors, between_km, paired_km

Floats = NDArray[np.float64]

SLACK_MS, SLACK_PART = 2.0, 0.08
"""A round trip may be so much faster than light: places are cities, not buildings."""
HEIGHTS_MS = (0.0, 5.0, 12.0, 25.0, 50.0, 90.0)
"""That a place's own access may add."""
LEAST = 2
"""Impossible round trips of a site whose place somebody wrote down."""
MOST_SUSPECTS = 64
"""Sites that are looked at before one is moved: those with the largest parts that are impossible."""
MOST_PENALTY = 8.0
"""Of one measurement that a place makes impossible."""
ENOUGH_GAIN = math.log(0.97 / 0.03)
"""In log likelihood: three places in a hundred are wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """Site `site` is rather at `lat`, `lon` (degrees), `km` from where it is declared to be: `impossible` of its
    `measured` round trips are faster than light in fibre, as `fastest_ms` over `fastest_km`; there `left` are."""

    site: int
    lat: float
    lon: float
    km: float
    impossible: int
    left: int
    measured: int
    fastest_ms: float
    fastest_km: float


def impossible(km: Floats, rtt_ms: Floats) -> NDArray[np.bool_]:
    """Whether round trips are faster than light in fibre, beyond what the accuracy of places explains."""
    return km / KM_PER_RTT_MS - rtt_ms > np.maximum(SLACK_MS, SLACK_PART * rtt_ms)


def relocate(
    at: Vectors,
    one: NDArray[np.int64],
    other: NDArray[np.int64],
    rtt_ms: Floats,
    line: Line,
    *,
    sure: int = 0,
    candidates: Vectors | None = None,
    most_candidates: int = 1024,
) -> tuple[Vectors, tuple[Moved, ...]]:
    """Places as measurements allow them, and which were moved: the one that gains most first, each once at most.

    Args: at: [sites] as declared. one, other, rtt_ms: [measurements]. sure: the first so many sites are not moved for
        one round trip alone, which may be the other's lie. candidates: places besides those of the sites
        where one may be; of all these `most_candidates` are looked at, spread over all.
    """
    at = at.copy()
    known = at.copy() if candidates is None else np.vstack([at, candidates])
    if len(known) > most_candidates:
        known = known[np.linspace(0, len(known) - 1, most_candidates).astype(np.int64)]
    total = np.maximum(1, np.bincount(np.concatenate([one, other]), minlength=len(at)))
    moved: list[Moved] = []
    fixed: set[int] = set()
    cache: dict[int, tuple[float, int]] = {}
    while True:
        beats = impossible(paired_km(at[one], at[other]), rtt_ms)
        bad = np.bincount(np.concatenate([one[beats], other[beats]]), minlength=len(at))
        needed = np.where(np.arange(len(at)) < sure, LEAST, 1)
        worst = np.argsort(-bad / total, kind="stable").tolist()
        suspects = [site for site in worst if bad[site] >= needed[site] and site not in fixed]
        best: tuple[float, int, int] | None = None
        for site in suspects[:MOST_SUSPECTS]:
            if site not in cache:
                cache[site] = _best_place(site, at, known, one, other, rtt_ms, line)
            gain, place = cache[site]
            if gain > ENOUGH_GAIN and (best is None or gain > best[0]):
                best = gain, site, place
        if best is None:
            return at, tuple(moved)
        _, site, place = best
        mine = (one == site) | (other == site)
        ms = rtt_ms[mine]
        peers = np.where(one[mine] == site, other[mine], one[mine])
        km = between_km(at[site : site + 1], at[peers])[0]
        far = int(np.argmax(km / KM_PER_RTT_MS - ms))
        left = int(impossible(between_km(known[place : place + 1], at[peers])[0], ms).sum())
        moved.append(
            Moved(
                site=site,
                lat=math.degrees(math.asin(known[place, 2])),
                lon=math.degrees(math.atan2(known[place, 1], known[place, 0])),
                km=float(between_km(at[site : site + 1], known[place : place + 1])[0, 0]),
                impossible=int(beats[mine].sum()),
                left=left,
                measured=int(mine.sum()),
                fastest_ms=float(ms[far]),
                fastest_km=float(km[far]),
            )
        )
        at[site] = known[place]
        fixed.add(site)
        for peer in peers.tolist():
            cache.pop(peer, None)


def _best_place(
    site: int,
    at: Vectors,
    known: Vectors,
    one: NDArray[np.int64],
    other: NDArray[np.int64],
    rtt_ms: Floats,
    line: Line,
) -> tuple[float, int]:
    """How much likelier the likeliest place is than the one it has, and which it is."""
    mine = (one == site) | (other == site)
    peers = np.where(one[mine] == site, other[mine], one[mine])
    there = np.vstack([at[site : site + 1], known])
    score = likelihood(between_km(there, at[peers]), rtt_ms[mine], line)
    place = int(np.argmax(score[1:]))
    return float(score[1 + place] - score[0]), place


def likelihood(km: Floats, rtt_ms: Floats, line: Line) -> Floats:
    """[places]: log likelihood of a site's round trips, were it there; with the access that explains them best.

    Args: km: [places, measurements]; rtt_ms: [measurements].
    """
    floor = km / KM_PER_RTT_MS - rtt_ms
    penalty = np.clip(floor / np.maximum(0.05 * rtt_ms, 1.0), 0.0, MOST_PENALTY).sum(axis=1)
    best = np.full(len(km), -np.inf)
    for height in HEIGHTS_MS:
        t = np.log(rtt_ms / (line.at(km) + height)) / 0.3
        best = np.maximum(best, (-2.0 * np.log1p(t**2 / 3.0)).sum(axis=1) - height / 30.0)
    return np.asarray(best - penalty)
