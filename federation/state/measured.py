"""What users' own browsers measured to clusters: a robust summary of each pair, which follows changes within minutes.

Pure. A window's median counts when at least three senders gave it, and moves what is believed by at most half as much
again: one sender gains nothing alone, and a crowd of them little at once. Round trips faster than light in fibre are
left out: the place of the cell, of the cluster, or the sender's word is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec
import numpy as np
from immutables import Map

from federation.latency.sphere import KM_PER_RTT_MS, great_circle_km

LEAST_SENDERS = 3
STEP = 0.5
"""Weight of a window beside what is believed, in logarithms."""
MOST_FACTOR = 1.5
"""By which one window may change what is believed."""
MOST_RTT_MS = 5_000.0
SLACK_KM = 300.0
"""A cell is an area, and a cluster's place is a city's."""
KEPT_S = 86_400.0
MOST_PAIRS = 50_000


class Window(NamedTuple):
    """One pair's round trips in one window, in milliseconds, of so many senders."""

    cell: str
    cluster: str
    rtt_ms: tuple[float, ...]
    senders: int


class Measured(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What users of a cell measured to a cluster. `heard_s`: monotonic seconds of the controller's clock."""

    rtt_ms: float
    rtt_ms_p95: float
    windows: int
    heard_s: float


Pairs = Map[tuple[str, str], Measured]
"""(cell, cluster) -> what was measured."""


class Followed(NamedTuple):
    """What is believed after some windows, and the pairs of which a round trip cannot be true."""

    pairs: Pairs
    impossible: tuple[tuple[str, str], ...]


def following(
    before: Pairs, windows: Iterable[Window], places: Mapping[tuple[str, str], tuple[float, float]], now_s: float
) -> Followed:
    """What is believed after these windows. Args: places: (`cell` or `cluster`, name) -> latitude and longitude in
    degrees; what is not among them is left out."""
    impossible: list[tuple[str, str]] = []
    pairs = before
    for one in windows:
        key = one.cell, one.cluster
        user, there = places.get(("cell", one.cell)), places.get(("cluster", one.cluster))
        if user is None or there is None:
            continue
        least_ms = max(0.0, great_circle_km(*user, *there) - SLACK_KM) / KM_PER_RTT_MS
        good = [ms for ms in one.rtt_ms if max(least_ms, 0.05) <= ms <= MOST_RTT_MS]
        if 2 * len(good) < len(one.rtt_ms):
            impossible.append(key)
            continue
        if one.senders < LEAST_SENDERS or len(good) < LEAST_SENDERS:
            continue
        median, p95 = np.percentile(good, [50.0, 95.0])
        pairs = pairs.set(key, _moved(pairs.get(key), float(median), float(p95), now_s))
    return Followed(_bounded(pairs, now_s), tuple(impossible))


def _moved(before: Measured | None, median: float, p95: float, now_s: float) -> Measured:
    if before is None or now_s - before.heard_s > KEPT_S:
        return Measured(rtt_ms=median, rtt_ms_p95=max(median, p95), windows=1, heard_s=now_s)
    rtt_ms = before.rtt_ms * _step(median / before.rtt_ms)
    p95_ms = before.rtt_ms_p95 * _step(p95 / before.rtt_ms_p95)
    return Measured(rtt_ms=rtt_ms, rtt_ms_p95=max(rtt_ms, p95_ms), windows=before.windows + 1, heard_s=now_s)


def _step(ratio: float) -> float:
    step = STEP * math.log(ratio)
    most = math.log(MOST_FACTOR)
    return math.exp(min(most, max(-most, step)))


def _bounded(pairs: Pairs, now_s: float) -> Pairs:
    """Without what is too old, and of too many without the oldest."""
    if len(pairs) <= MOST_PAIRS:
        return pairs
    newest = sorted(pairs.items(), key=lambda one: (-one[1].heard_s, one[0]))[:MOST_PAIRS]
    return Map({key: one for key, one in newest if now_s - one.heard_s <= KEPT_S})
