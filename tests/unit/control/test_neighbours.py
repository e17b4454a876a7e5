"""Who is near whom: what would grow with the square of a fleet is bounded by it."""

from __future__ import annotations

import random

import msgspec

from federation.control.neighbours import ALL_MEASURE, FAR_PEERS, MOST, NEAR_PEERS, Neighbours
from federation.latency.sphere import great_circle_km
from federation.policy import documents
from tests.builders import a_cluster


def scattered(count: int) -> tuple[documents.Cluster, ...]:
    rng = random.Random(3)
    found = []
    for number in range(count):
        one = a_cluster(f"fra-{number:04}")
        at = msgspec.structs.replace(one.spec.location, lat=rng.uniform(-80, 80), lon=rng.uniform(-180, 180))
        found.append(msgspec.structs.replace(one, spec=msgspec.structs.replace(one.spec, location=at)))
    return tuple(found)


def km(one: documents.Cluster, other: documents.Cluster) -> float:
    here, there = one.spec.location, other.spec.location
    return great_circle_km(here.lat, here.lon, there.lat, there.lon)


def test_neighbours_are_the_nearest_in_order() -> None:
    """Spill-over and measurements would go around the world."""
    clusters = scattered(400)
    near = list(Neighbours(clusters).of("fra-0007"))
    others = sorted((one for one in clusters if one.metadata.name != "fra-0007"), key=lambda one: km(clusters[7], one))
    assert len(near) == MOST
    assert near[:50] == [one.metadata.name for one in others[:50]]


def test_a_helper_is_found_however_far_it_is() -> None:
    """A region of which all neighbours are full would have nobody to send requests to."""
    clusters = scattered(400)
    made = Neighbours(clusters)
    far = list(made.of("fra-0007"))
    others = {one.metadata.name for one in clusters} - {*far, "fra-0007"}
    found = made.nearest("fra-0007", 3, others.__contains__, others)
    assert len(found) == 3 and set(found) <= others


def test_peers_are_all_in_a_small_fleet_and_some_in_a_large_one() -> None:
    """Ten thousand agents would be told ten thousand peers each: gigabytes, and more than a message may hold."""
    names = [one.metadata.name for one in scattered(ALL_MEASURE)]
    small = Neighbours(scattered(ALL_MEASURE))
    assert small.peers(names[0], set(names)) == names[1:]
    large = scattered(600)
    known = {one.metadata.name for one in large}
    told = {name: Neighbours.peers(made, name, known) for made in [Neighbours(large)] for name in sorted(known)}
    assert all(NEAR_PEERS <= len(peers) <= NEAR_PEERS + FAR_PEERS for peers in told.values())
    assert all(name not in peers for name, peers in told.items())
    assert all(len(known - {peer for peers in told.values() for peer in peers}) == 0 for _ in "x"), "all are measured"
