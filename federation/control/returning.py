"""Over how long a fleet's agents come back when all their connections broke. Pure."""

from __future__ import annotations

import math

PER_S = 500.0
"""Connections that a broker should meet in a second: with mutual TLS each costs it about a millisecond."""
MOST_INTERVALS = 1.5
"""A fleet is back before its clusters are overdue, which is after two and a half of four reports' time."""


def spread_s(clusters: int, interval_s: float) -> float:
    """The time over which agents should spread.

    It doubles with the fleet, so that one cluster more does not mean that all have to be told anew. Args: interval_s:
    between two reports of an agent.
    """
    size: float = 2.0 ** math.ceil(math.log2(max(1, clusters)))
    return min(size / PER_S, MOST_INTERVALS * interval_s)
