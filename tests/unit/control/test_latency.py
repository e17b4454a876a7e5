"""What a user is believed to wait, and where the figure comes from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from federation.control import latency
from federation.latency.sphere import great_circle_km
from federation.state.keys import CellCluster
from federation.state.world import World
from federation.wire import messages
from tests.builders import PLACES, a_report, a_world, heard, renamed, some_demand


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
    """Users would be sent over a detour that the agents have measured."""
    by_distance = latency.estimate(measured(), ["Berlin"])[CellCluster("Berlin", "iad")]
    by_agent = latency.estimate(measured(300.0), ["Berlin"])[CellCluster("Berlin", "iad")]
    assert by_distance.source.startswith("estimated over 65")
    assert by_agent.rtt_ms == pytest.approx(300 + latency.BASE_RTT_MS)
    assert by_agent.source == "measured from fra, 0 km from the users"


def test_a_measurement_of_the_other_side_serves_too() -> None:
    """A pair that only one side measures would be planned by distance."""
    assert latency.estimate(measured(300.0, by="iad"), ["Berlin"])[CellCluster("Berlin", "iad")].source.startswith(
        "measured"
    )


def test_an_estimate_says_what_it_is_based_on_and_how_old_that_is() -> None:
    """The map would show a guess over the distance as if somebody had measured it, or last week's as today's."""
    pair = CellCluster("Berlin", "iad")
    assert latency.between(measured(), [pair])[pair].basis == "prior"
    assert latency.between(measured(), [pair])[pair].measured_s is None
    world = measured(300.0, by="iad")
    found = latency.between(world, [pair])[pair]
    assert found.basis == "inferred", "nobody has measured the users themselves"
    assert found.measured_s == world.clusters["iad"].heard_s


def test_no_samples_are_no_measurement() -> None:
    """A peer that never answered would look like the nearest of all."""
    found = latency.estimate(measured(0.0, samples=0), ["Berlin"])[CellCluster("Berlin", "iad")]
    assert found.source.startswith("estimated")


def test_all_pairs_at_once_are_what_each_is_by_itself() -> None:
    """Some user would be believed near a cluster that is far, and nobody would see it among millions of pairs."""
    rng = np.random.default_rng(5)
    names = [f"{place}-{at}" for at in range(4) for place in ("fra", "iad", "nrt")]
    users = {f"cell-{at}": rng.uniform((-80, -180), (80, 180)).tolist() for at in range(20)}
    demand = tuple(
        messages.DemandSample(
            model="chat", cell=messages.UserCell(name=name, country="DE", lat=lat, lon=lon), requests_per_second=1.0
        )
        for name, (lat, lon) in users.items()
    )
    rtt_ms = {(a, b): float(rng.uniform(210, 500)) for a in names for b in names if a != b and rng.random() < 0.4}
    reports = []
    for name in names:
        peers = tuple(
            messages.PeerRtt(cluster=other, rtt_ms_p50=value, rtt_ms_p95=value, samples=3)
            for (one, other), value in rtt_ms.items()
            if one == name
        )
        reports.append(renamed(a_report(name, demand=demand if name == names[0] else ()), peers=peers))
    world = heard(a_world(*names), *reports)
    found = latency.estimate(world, users)
    some = latency.between(world, {*found, CellCluster("nowhere", "fra-0"), CellCluster("cell-0", "nobody")})
    assert {pair: replace(one, measured_s=None) for pair, one in some.items()} == dict(found)
    assert len(found) == len(users) * len(names)
    for (cell, cluster), estimate in found.items():
        lat, lon = users[cell]
        km = {name: great_circle_km(lat, lon, *PLACES[name[:3]][:2]) for name in names}
        near = min(names, key=lambda name: (round(km[name], 3), name))
        known = rtt_ms.get((near, cluster), rtt_ms.get((cluster, near)))
        way_km = km[cluster] if known is None else km[near]
        expected_ms = latency.BASE_RTT_MS + latency.RTT_MS_PER_KM * way_km + (known or 0.0)
        assert estimate.rtt_ms == pytest.approx(expected_ms, abs=0.02)
        assert estimate.source.startswith("estimated" if known is None else f"measured from {near},")


def test_nothing_to_estimate_is_no_error() -> None:
    """A controller without clusters, or that nobody has asked anything, would stop."""
    assert not latency.estimate(a_world(), [])
    assert not latency.estimate(measured(), [])
    assert not latency.between(measured(), ())


def test_who_is_just_within_the_objective_stays_within_it() -> None:
    """A cell would be late by a millionth of a millisecond, and replicas be paid for to mend that."""
    found = latency.estimate(measured(71.4), ["Berlin"])
    assert found[CellCluster("Berlin", "iad")].rtt_ms == 80.3
    assert found.rtt_ms[found.cells["Berlin"], found.clusters["iad"]] + 19.7 <= 100.0
