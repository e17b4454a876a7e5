"""Sources that are not believed: whose round trips no place on earth explains, or are faster than all others'."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from federation.latency import places
from federation.latency.kernel import Floats, Sites
from federation.latency.line import Line
from federation.latency.sphere import Vectors, between_km, paired_km

IMPOSSIBLE, STILL_IMPOSSIBLE = 0.30, 0.20
"""Parts of a source's round trips that are faster than light in fibre: where it is declared to be, and wherever it may
be."""
TOO_FAST = -0.35
"""Median of the logarithm of a source's round trips over the line's."""
DISAGREE, DISAGREE_MS = 2.0, 5.0
"""Two measurements of one pair are not of the same way where one is so many times the other, and so much more."""
FAR_KM = 1500.0
"""What a line over distance says of shorter ways is too little to call a source a liar."""
ENOUGH = 4
"""Round trips of a source below which its median says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Nothing that was measured from or to `site` counts, and why."""

    site: int
    why: str


def impossible(at: Vectors, one: Sites, other: Sites, rtt_ms: Floats, first: int) -> tuple[Refused, ...]:
    """Those of the first sites that lie so that physics proves it.

    Args: at: [sites] as declared. first: how many sites may be refused.
    """
    beats = places.impossible(paired_km(at[one], at[other]), rtt_ms)
    total = np.bincount(np.concatenate([one, other]), minlength=len(at))
    bad = np.bincount(np.concatenate([one[beats], other[beats]]), minlength=len(at))
    suspects = np.flatnonzero((bad > IMPOSSIBLE * total) & (total >= ENOUGH))
    refused: list[Refused] = []
    for site in sorted((one_ for one_ in suspects.tolist() if one_ < first), key=lambda one_: -bad[one_] / total[one_]):
        mine = (one == site) | (other == site)
        peers = np.where(one[mine] == site, other[mine], one[mine])
        counted = ~np.isin(peers, [each.site for each in refused])
        peers, ms = peers[counted], rtt_ms[mine][counted]
        if not len(peers) or not _beats(at[site : site + 1], at[peers], ms)[0] > IMPOSSIBLE:
            continue
        left = float(_beats(at, at[peers], ms).min())
        if left > STILL_IMPOSSIBLE:
            part = float(_beats(at[site : site + 1], at[peers], ms)[0])
            text = f"{part:.0%} of its round trips are faster than light in fibre, and {left:.0%} wherever it may be"
            refused.append(Refused(site=site, why=text))
    return tuple(refused)


def _beats(there: Vectors, peers: Vectors, rtt_ms: Floats) -> Floats:
    """[places]: the part of round trips that would be impossible there."""
    return np.asarray(places.impossible(between_km(there, peers), rtt_ms[None, :]).mean(axis=1))


def too_fast(at: Vectors, one: Sites, other: Sites, rtt_ms: Floats, line: Line, first: int) -> tuple[Refused, ...]:
    """Those of the first sites whose round trips over long ways are much faster than distance lets expect."""
    km = paired_km(at[one], at[other])
    is_far = km > FAR_KM
    one, other = one[is_far], other[is_far]
    beyond = np.log(rtt_ms[is_far] / line.at(km[is_far]))
    sites = np.concatenate([one, other])
    order = np.argsort(sites, kind="stable")
    who, starts = np.unique(sites[order], return_index=True)
    both = np.concatenate([beyond, beyond])[order]
    refused: list[Refused] = []
    for site, some in zip(who.tolist(), np.split(both, starts[1:]) if len(who) else (), strict=True):
        if site < first and len(some) >= ENOUGH and float(np.median(some)) < TOO_FAST:
            text = f"half of its round trips are below {np.exp(np.median(some)):.0%} of what distance lets expect"
            refused.append(Refused(site=site, why=text))
    return tuple(refused)


def agree(one: Sites, other: Sites, rtt_ms: Floats, sites: int) -> tuple[Sites, Sites, Floats, tuple[Refused, ...]]:
    """Each measured pair once, of both directions the smaller; and whose word does not count.

    A source whose round trips are other ones than its peers measure, of most pairs that both measured, is refused;
    what others say of it counts.

    Args: one: [measurements] who says so; other: of whom. sites: how many there are.
    """
    key, back = one * sites + other, other * sites + one
    order = np.argsort(key)
    at = np.searchsorted(key[order], back)
    at = order[np.minimum(at, max(0, len(key) - 1))] if len(key) else at
    is_both = key[at] == back if len(key) else np.zeros(0, dtype=bool)
    counterpart = np.where(is_both, rtt_ms[at], np.nan)
    larger, smaller = np.fmax(rtt_ms, counterpart), np.fmin(rtt_ms, counterpart)
    differs = is_both & (larger > DISAGREE * smaller) & (larger - smaller > DISAGREE_MS)
    refused: list[Refused] = []
    kept = np.ones(len(one), dtype=bool)
    while True:
        asked = np.bincount(one[is_both & kept], minlength=sites)
        bad = np.bincount(one[differs & kept], minlength=sites)
        part = np.where(asked >= ENOUGH, bad / np.maximum(asked, 1), 0.0)
        worst = int(np.argmax(part)) if sites else 0
        if not sites or part[worst] <= 0.5:
            break
        text = f"{bad[worst]} of {asked[worst]} peers measure another round trip to it than it says"
        refused.append(Refused(site=worst, why=text))
        mine = (one == worst) | (other == worst)
        is_both &= ~mine
        differs &= ~mine
        kept &= one != worst
    low, high = np.minimum(one[kept], other[kept]), np.maximum(one[kept], other[kept])
    order = np.argsort(rtt_ms[kept], kind="stable")
    pairs, first = np.unique((low * sites + high)[order], return_index=True)
    return pairs // max(1, sites), pairs % max(1, sites), rtt_ms[kept][order][first], tuple(refused)
