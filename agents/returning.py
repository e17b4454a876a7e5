"""When an agent tries its broker again: soon after the first failure, and spread over more time in a large fleet.

A broker that comes back, or a network, meets all agents at once. How many connections per second it should meet is the
controller's word (`wire.Session.spread_s`); each agent draws an instant within that time. Pure.
"""

from __future__ import annotations

import random

from federation.aiokit.backoff import Backoff

BASE_S, CAP_S = 0.5, 30.0


class Returning:
    """Delays of one agent. Args: rng: its own chance. interval_s: between its reports."""

    def __init__(self, rng: random.Random, *, interval_s: float) -> None:
        self._rng = rng
        # A controller that starts anew believes in silence after four reports: nobody may sleep through them.
        self._most_s = min(CAP_S, 2 * interval_s)
        self._backoff = Backoff(rng, base_s=BASE_S, cap_s=self._most_s)
        self._spread_s = 0.0

    def told(self, spread_s: float) -> None:
        """Over how long the fleet comes back, as the controller says."""
        self._spread_s = min(self._most_s, spread_s)

    def connected(self) -> None:
        """It is connected: start small again."""
        self._backoff.reset()

    def next_s(self) -> float:
        """Seconds until the next attempt."""
        return max(self._backoff.next_s(), self._rng.uniform(0.0, self._spread_s))
