"""What browsers measured is followed within minutes, and moved by nobody alone."""

from __future__ import annotations

import pytest
from immutables import Map

from federation.state import measured
from federation.state.measured import KEPT_S, Measured, Pairs, Window, following
from federation.state.reduce import RoundTripsMeasured
from tests.builders import a_report, a_world, hear, heard, some_demand

PLACES = {("cell", "paris"): (48.9, 2.4), ("cluster", "fra"): (50.1, 8.7), ("cluster", "nrt"): (35.8, 140.4)}


def windows(*many: tuple[float, ...], senders: int = 3, cluster: str = "fra") -> tuple[Pairs, float]:
    """What is believed after one window a minute, and the newest median."""
    pairs: Pairs = Map()
    for minute, rtts in enumerate(many):
        pairs = following(pairs, [Window("paris", cluster, rtts, senders)], PLACES, 60.0 * minute).pairs
    one = pairs.get(("paris", cluster))
    return pairs, round(one.rtt_ms, 2) if one is not None else 0.0


def test_a_change_of_route_is_followed_within_minutes() -> None:
    """Users would go on being sent the long way after a cable broke."""
    assert windows((20.0,) * 5)[1] == 20.0
    assert 48.0 < windows((20.0,) * 5, *[(60.0,) * 5] * 4)[1] <= 60.0
    assert 20.0 <= windows((60.0,) * 5, *[(20.0,) * 5] * 4)[1] < 24.0


def test_one_sender_moves_nothing_and_many_little_at_once() -> None:
    """Anyone with a browser could send a city's users around the world, or draw them."""
    assert windows((5_000.0,) * 9, senders=2)[0] == Map()
    assert windows((20.0,) * 5, (4_900.0,) * 5)[1] == 30.0
    assert windows((20.0, 20.0, 20.0, 4_000.0, 0.2))[1] == 20.0


def test_faster_than_light_is_a_wrong_place_and_no_measurement() -> None:
    """A cell with a namesake's coordinates would make Tokyo the nearest to Paris."""
    found = following(Map(), [Window("paris", "nrt", (12.0,) * 5, 5)], PLACES, 0.0)
    assert found.impossible == (("paris", "nrt"),)
    assert found.pairs == Map()
    world = heard(a_world("fra", "nrt"), a_report("fra", demand=(some_demand("chat", "paris", 1.0, country="FR"),)))
    event = RoundTripsMeasured(windows=(Window("paris", "nrt", (12.0,) * 5, 5),), now_s=1.0)
    reduced = hear(world, event)
    assert [note.reason for note in reduced.notes] == ["RoundTripsDoubted"]
    assert hear(reduced.world, event).notes == (), "it is told once"


def test_what_nobody_knows_is_not_kept_and_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages could fill the controller's memory with cells of their own."""
    assert following(Map(), [Window("atlantis", "fra", (20.0,) * 5, 5)], PLACES, 0.0).pairs == Map()
    monkeypatch.setattr(measured, "MOST_PAIRS", 10)
    old: Pairs = Map(
        {(f"c{n}", "fra"): Measured(rtt_ms=1.0, rtt_ms_p95=1.0, windows=1, heard_s=float(n)) for n in range(30)}
    )
    kept = following(old, [Window("paris", "fra", (20.0,) * 5, 5)], PLACES, 40.0).pairs
    assert len(kept) == 10
    assert ("paris", "fra") in kept
    assert following(kept, [], PLACES, 40.0 + KEPT_S).pairs == kept, "few are kept, to be told by their age"
