"""Delays between retries: capped exponential with full jitter, so that many clients do not return at once."""

from __future__ import annotations

import random


class Backoff:
    """Delays for one thing that is retried.

    Args: base_s: upper bound of the first delay. cap_s: upper bound of any. rng: the caller's chance.
    Source: the "full jitter" scheme of the AWS Builders' Library.
    """

    def __init__(self, rng: random.Random, *, base_s: float = 1.0, cap_s: float = 60.0) -> None:
        self._rng = rng
        self._base_s = base_s
        self._cap_s = cap_s
        self._attempts = 0

    def next_s(self) -> float:
        """The delay before the next attempt; each call counts as a failure."""
        bound_s = min(self._cap_s, self._base_s * 2.0 ** min(self._attempts, 30))
        self._attempts += 1
        return self._rng.uniform(0.0, bound_s)

    def reset(self) -> None:
        """Start from the base delay again, after a success."""
        self._attempts = 0
