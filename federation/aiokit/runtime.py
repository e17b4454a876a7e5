"""What a process of one event loop asks of the interpreter, so that nobody who waits for the loop waits for it long."""

from __future__ import annotations

import gc
import sys

SWITCH_S = 0.0005
"""How long a thread that computes keeps the loop from going on; Python's own 5 ms add up when messages are many."""
YOUNG, MIDDLE, OLD = 50_000, 5, 20
"""Objects, and collections of younger ones, between collections of cycles. Beliefs are many, live long and have no
cycles: with Python's own thresholds a quarter of the time of a large fleet's controller goes into finding none. A
collection holds every thread: 50,000 objects take some 40 ms, and those of five such collections 150."""


def prefer_the_loop() -> None:
    """Once, when everything is loaded: what there is now is not looked through again."""
    sys.setswitchinterval(SWITCH_S)
    gc.set_threshold(YOUNG, MIDDLE, OLD)
    gc.collect()
    gc.freeze()
