"""Spot that may be taken back: the rule that prices it against on-demand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from placement import risk
from placement.risk import Belief, Order, Terms, Zone

OLD, YOUNG = Belief(age_s=200_000.0, was_granted=True), Belief(age_s=0.0, was_granted=True)


def order(*zones: Zone, on_demand: int = 0, on_demand_ready: int = 0, target: int = 3) -> Order:
    return risk.order(Terms.of(target, 180.0, 30.0), zones, on_demand, on_demand_ready)


def test_zones_without_trouble_need_no_on_demand() -> None:
    """Users would pay three times for what is not needed."""
    zones = [Zone(region=name, held=1, ready=1, belief=OLD) for name in "abc"]
    assert order(*zones, on_demand=3, on_demand_ready=3) == Order(spot=(1, 1, 1), on_demand=0)


def test_on_demand_comes_before_a_loss_where_the_only_zone_is_young() -> None:
    """Users would find nothing serving for a warm-up after each loss in a zone that loses every hour."""
    zones = [
        Zone(region="a", held=3, ready=3, belief=YOUNG),
        Zone(region="b", belief=Belief(age_s=0, was_granted=False)),
    ]
    assert order(*zones).on_demand > 0


def test_nothing_ready_goes_before_what_replaces_it_is_ready() -> None:
    """Users would go unserved while the cheaper replica warms up."""
    warming = [Zone(region=name, held=1, ready=0, belief=OLD) for name in "abc"]
    assert order(*warming, on_demand=3, on_demand_ready=3).on_demand == 3
    assert order(*warming, on_demand=3, on_demand_ready=0).on_demand == 0


def test_after_a_loss_every_zone_is_asked_at_once() -> None:
    """Users would wait a warm-up longer for each zone that refuses."""
    lost = Zone(region="a", held=0, belief=Belief(age_s=0.0))
    asked = order(lost, Zone(region="b"), Zone(region="c"))
    assert min(asked.spot) >= 3


def test_what_falls_together_is_not_counted_on_to_stand_alone() -> None:
    """Users of two zones of one region would be served by nothing when the region goes."""
    half = np.array([1, 1]), np.array([1, 1]), np.array([0.5, 0.5]), np.array([1.0, 1.0])
    apart = risk._survivors(*half, np.array([0, 1]), 2, 2)
    together = risk._survivors(*half, np.array([0, 0]), 1, 2)
    assert apart == pytest.approx([0.25, 0.5, 0.25])
    assert together[0] > apart[0]
    assert together.sum() == pytest.approx(1.0)
    assert together @ [0, 1, 2] == pytest.approx(1.0)  # each zone alone is lost as often


def test_survivors_are_those_of_every_case_counted_one_by_one() -> None:
    """Plans would hold too few spares for a loss of spot, or pay for too many."""
    counts, held = np.array([2, 3]), np.array([2, 1])
    lost, launches = np.array([0.1, 0.2]), np.array([0.9, 0.7])
    wanted = np.zeros(6)
    for is_lost, is_granted in itertools.product(itertools.product((0, 1), repeat=2), (0, 1)):
        chance = np.prod(np.where(is_lost, lost, 1 - lost)) * (launches[1] if is_granted else 1 - launches[1])
        wanted[(not is_lost[0]) * 2 + (not is_lost[1]) * (3 if is_granted else 1)] += chance
    found = risk._survivors(counts, held, lost, launches, np.array([0, 1]), 2, 5)
    assert found == pytest.approx(wanted)


def test_a_zone_is_trusted_more_the_longer_it_had_no_trouble() -> None:
    """Replicas would return at once to a zone that has just taken them back."""
    assert YOUNG.lost_within(210.0) > 10 * OLD.lost_within(210.0)
    refused = OLD.after(30.0, held=1, asked=2, got=1)
    assert refused.age_s == 0.0
    assert refused.launches(1) < 0.1 < OLD.launches(1)
    assert Belief().after(30.0, held=0, asked=1, got=0).launches(0) == 0.0
