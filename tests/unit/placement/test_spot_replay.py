"""The replay of recorded spot capacity pays and counts as its description says."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest

from tests.bench import spot
from tests.bench.spot import Seen, Task

TASK = Task(zones=("a-1a", "b-1a"), target=2, warmup_s=60)


class Fixed:
    """Always the same."""

    def step(self, seen: Seen) -> tuple[Sequence[int], int]:
        return (2, 0), 1


def test_what_is_held_is_paid_and_what_is_warm_serves() -> None:
    """Figures would flatter a rule whose replicas serve before they are ready."""
    capacity = np.array([[2, 2, 2, 2, 0, 2, 2, 2], [2] * 8])
    score = spot.replay(Fixed(), TASK, capacity)
    assert score.available == pytest.approx(3 / 6)  # steps 2, 3 and 7; the loss at 4 costs itself and a warm-up
    assert score.dark == 0.0
    assert score.cost == pytest.approx((5 * 2 + 6 * 3) / (3 * 2 * 6))


def test_full_knowledge_uses_spot_whenever_it_lasts() -> None:
    """The benchmark's best possible cost would be wrong, and with it every ratio to it."""
    capacity = np.array([[2] * 20 + [0] * 20, [0] * 10 + [2] * 30])
    assert spot.full_knowledge(TASK, capacity) == pytest.approx((38 * 2 + 2 * 2) / (3 * 2 * 38))
    assert spot.full_knowledge(TASK, np.zeros((2, 40), dtype=np.int64)) == pytest.approx(1.0)


@pytest.mark.parametrize("rule", spot.RULES, ids=lambda rule: rule.name)
def test_every_rule_serves_where_spot_is_never_taken_back(rule: type[spot.Priced]) -> None:
    """The benchmark would blame a rule for losses that its own replay causes."""
    score = spot.replay(rule(TASK, random.Random(1)), TASK, np.full((2, 200), 4))
    assert score.available > 0.97
    assert score.cost <= 1.0
