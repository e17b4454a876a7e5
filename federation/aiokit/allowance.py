"""How often somebody may do something: tokens that come back at a rate, for all together and for each one."""

from __future__ import annotations

from collections import OrderedDict


class Allowance:
    """Args: per_s: what comes back. most: what can be saved up. known: senders that are told apart at one time."""

    def __init__(self, *, per_s: float, most: float, known: int = 0) -> None:
        self._per_s, self._most, self._known = per_s, most, known
        self._left: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    def takes(self, who: bytes, now_s: float) -> bool:
        """Whether this one may, which uses one token. Who is forgotten first was seen least lately."""
        left, at_s = self._left.pop(who, (self._most, now_s))
        left = min(self._most, left + max(0.0, now_s - at_s) * self._per_s)
        is_taken = left >= 1.0
        self._left[who] = (left - 1.0 if is_taken else left, now_s)
        while len(self._left) > max(1, self._known):
            self._left.popitem(last=False)
        return is_taken
