"""What a user is believed to wait, and where the figure comes from."""

from __future__ import annotations

import pytest

from federation.control import latency
from federation.state.world import World
from federation.wire import messages
from tests.builders import a_report, a_world, heard, renamed, some_demand


def measured(rtt_ms: float | None = None, *, by: str = "fra", samples: int = 20) -> World:
    """Users at Frankfurt; Frankfurt (or Ashburn) has measured the way between the two."""
    other = "iad" if by == "fra" else "fra"
    peers = (
        ()
        if rtt_ms is None
        else (messages.PeerRtt(cluster=other, rtt_ms_p50=rtt_ms, rtt_ms_p95=rtt_ms, samples=samples),)
    )
    reports = {"fra": a_report("fra", demand=(some_demand("chat", "Berlin", 10),)), "iad": a_report("iad")}
    reports[by] = renamed(reports[by], peers=peers)
    return heard(a_world("fra", "iad"), *reports.values())


def test_a_measured_round_trip_is_believed_over_distance() -> None:
    by_distance = latency.estimate(measured(), ["Berlin"])["Berlin", "iad"]
    by_agent = latency.estimate(measured(300.0), ["Berlin"])["Berlin", "iad"]
    assert by_distance.source.startswith("estimated over 65")
    assert by_agent.rtt_ms == pytest.approx(300 + latency.BASE_RTT_MS)
    assert by_agent.source == "measured from fra, 0 km from the users"


def test_a_measurement_of_the_other_side_serves_too() -> None:
    assert latency.estimate(measured(300.0, by="iad"), ["Berlin"])["Berlin", "iad"].source.startswith("measured")


def test_no_samples_are_no_measurement() -> None:
    """A peer that never answered would look like the nearest of all."""
    found = latency.estimate(measured(0.0, samples=0), ["Berlin"])["Berlin", "iad"]
    assert found.source.startswith("estimated")


@pytest.mark.parametrize(
    ("one", "other", "km"),
    [((0, 0), (0, 0), 0), ((0, 0), (0, 180), 20015), ((52.5, 13.4), (48.9, 2.4), 877), ((0, 179.5), (0, -179.5), 111)],
)
def test_distance_is_over_the_globe(one: tuple[float, float], other: tuple[float, float], km: float) -> None:
    assert latency.distance_km(*one, *other) == pytest.approx(km, rel=0.01, abs=0.5)
