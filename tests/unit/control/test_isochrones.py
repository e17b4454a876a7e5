"""Where users would have a model near: what the map's isochrones are drawn from."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from immutables import Map

from federation.control import isochrones, latency
from federation.latency.sphere import great_circle_km
from federation.state.measured import Measured
from federation.wire import messages
from tests.builders import PLACES, a_report, a_world, heard, renamed


def test_every_square_is_as_near_as_the_best_of_all_clusters() -> None:
    """The map would show users outside of an objective that a cluster could meet."""
    names = tuple(f"{place}-{number}" for place in ("fra", "iad", "nrt") for number in range(4))
    world = a_world(*names)
    found = isochrones.isochrones(world, names)
    assert len(found) == isochrones.COLUMNS * isochrones.ROWS
    for number, (lat, lon) in list(enumerate(isochrones.middles()))[::97]:
        km = min(great_circle_km(lat, lon, *PLACES[name[:3]][:2]) for name in names)
        assert int(found[number].cell) == number
        assert found[number].rtt_ms == pytest.approx(latency.BASE_RTT_MS + latency.RTT_MS_PER_KM * km, abs=0.05)


def test_squares_are_over_the_globe_row_by_row() -> None:
    """The isochrones would lie on another continent than the clusters."""
    middles = np.array(list(isochrones.middles()))
    assert np.abs(middles[:, 1]).max() < 180
    assert np.all(np.diff(middles[:: isochrones.COLUMNS, 0]) == -isochrones.STEP_DEG)
    found = isochrones.isochrones(a_world("fra", "iad", "nrt"), ("fra", "iad", "nrt"))
    for name in ("fra", "iad", "nrt"):
        lat, lon, _ = PLACES[name]
        nearest = np.hypot(middles[:, 0] - lat, middles[:, 1] - lon).argmin()
        assert found[nearest].cluster == name


def test_measurements_of_the_nearest_cluster_are_believed() -> None:
    """The map would show a line over distance where the agents have measured better."""
    peers = (messages.PeerRtt(cluster="iad", rtt_ms_p50=400.0, rtt_ms_p95=400.0, samples=9),)
    world = heard(a_world("fra", "iad"), renamed(a_report("fra"), peers=peers), a_report("iad"))
    found = isochrones.isochrones(world, ("iad",))
    lat, lon, _ = PLACES["fra"]
    middles = np.array(list(isochrones.middles()))
    here = found[int(np.hypot(middles[:, 0] - lat, middles[:, 1] - lon).argmin())]
    assert (here.basis, here.cluster) == ("inferred", "iad")
    assert here.rtt_ms > 200


def test_nothing_ready_is_no_square() -> None:
    """A model that runs nowhere would look near to somebody."""
    assert isochrones.isochrones(a_world("fra"), ()) == ()
    assert isochrones.isochrones(a_world("fra"), ("gone",)) == ()


@pytest.mark.slow
def test_ten_thousand_clusters_take_seconds_of_a_thread() -> None:
    """One open map would take a core of the controller."""
    names = tuple(f"{place}-{number}" for place in ("fra", "iad", "nrt") for number in range(3334))
    world = a_world(*names)
    began_s = time.process_time()
    assert len(isochrones.isochrones(world, names)) == isochrones.COLUMNS * isochrones.ROWS
    assert time.process_time() - began_s < 10.0


def test_a_place_has_the_ready_replicas_best_first() -> None:
    """Whoever opens a place on the map would be shown another cluster than the one that is best there."""
    world = a_world("fra", "iad", "nrt")
    lat, lon, _ = PLACES["iad"]
    found = isochrones.at_place(world, ("fra", "iad", "nrt"), lat, lon)
    assert [one.cluster for one in found] == ["iad", "fra", "nrt"]
    assert [one.cluster for one in isochrones.at_place(world, ("fra",), lat, lon)] == ["fra"]
    assert isochrones.at_place(world, (), lat, lon) == ()


def test_what_users_measured_tells_of_the_land_around_them() -> None:
    """The map would show an area as near where browsers have measured that it is far, and the plan knows it."""
    lat, lon, _ = PLACES["fra"]
    squares = list(enumerate(isochrones.middles()))
    here = min(squares, key=lambda one: abs(one[1][0] - lat) + abs(one[1][1] - lon))[0]
    cell = messages.UserCell(name=str(here), country="DE", lat=lat, lon=lon)
    told = Measured(rtt_ms=400.0, rtt_ms_p95=410.0, windows=9, heard_s=0.0)
    world = a_world("fra", "iad")
    measured = replace(world, cells=Map({cell.name: cell}), measured=Map({(cell.name, "iad"): told}))
    before, after = (isochrones.isochrones(one, ("iad",))[here] for one in (world, measured))
    assert after.rtt_ms > 1.5 * before.rtt_ms
    assert after.basis != "measured", "a square is no cell, also where a cell has its number for a name"
