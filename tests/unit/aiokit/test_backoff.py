"""Retries spread out, and stay within their bounds."""

from __future__ import annotations

import random

from federation.aiokit.backoff import Backoff


def test_delays_grow_to_their_cap_and_no_further() -> None:
    """A broker that is down for an hour would be asked every second, or not again for a day."""
    backoff = Backoff(random.Random(1), base_s=1.0, cap_s=8.0)
    delays = [backoff.next_s() for _ in range(200)]
    assert all(delay <= bound for delay, bound in zip(delays, [1.0, 2.0, 4.0, *[8.0] * 197], strict=True))
    assert max(delays) > 7.0


def test_clients_do_not_return_together() -> None:
    """After an outage all agents would connect in the same second, and bring the broker down again."""
    first = {Backoff(random.Random(seed), base_s=10.0).next_s() for seed in range(100)}
    assert min(first) < 1.0 and max(first) > 9.0


def test_a_success_begins_anew() -> None:
    """One short break would be followed by the long delay of the outage before it."""
    backoff = Backoff(random.Random(1), base_s=1.0, cap_s=60.0)
    for _ in range(10):
        backoff.next_s()
    backoff.reset()
    assert backoff.next_s() <= 1.0
