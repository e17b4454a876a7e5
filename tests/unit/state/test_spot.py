"""What is learnt of spot moves what plans expect of it, as far as it was seen and no farther."""

from __future__ import annotations

import pytest

from federation.policy import documents
from federation.state.keys import ClusterPool
from federation.state.pricing import pool_risk, seen_by_region
from federation.state.reduce import DocumentsAccepted, SpotSeen
from federation.state.spot import HALF_LIFE_S, LEAST_CHANCE, Counts, SpotRisk, expected
from federation.state.world import World
from tests.builders import L4, L4_SPOT, a_cluster, a_world, told

KNOWN = SpotRisk(0.2, 0.6)


def seen(**counts: float) -> Counts:
    """These counts, of this moment."""
    return Counts(at_s=0.0).plus(**counts)


def test_nothing_seen_moves_nothing() -> None:
    """A new cluster would be planned as if spot were never taken back."""
    assert expected(KNOWN, seen()) == pytest.approx(KNOWN)


def test_what_is_seen_for_long_is_believed() -> None:
    """A pool that is taken back every hour would be planned at the provider's average for ever."""
    calm = expected(KNOWN, seen(hours=5_000.0, losses=10.0, granted=95.0, refused=5.0))
    rough = expected(KNOWN, seen(hours=500.0, losses=500.0, granted=5.0, refused=95.0))
    assert calm.losses_per_hour < 0.02
    assert calm.replacement_chance > 0.9
    assert rough.losses_per_hour > 0.9
    assert rough.replacement_chance < 0.15


def test_one_loss_is_no_storm_and_no_chance_is_nothing() -> None:
    """A single loss in the first hour would make a pool look taken back every hour."""
    assert expected(KNOWN, seen(hours=1.0, losses=1.0)).losses_per_hour < 0.25
    assert expected(KNOWN, seen(refused=1e6)).replacement_chance == LEAST_CHANCE


def test_what_was_seen_long_ago_weighs_less() -> None:
    """A market that was rough in spring would be avoided in autumn."""
    old = seen(hours=100.0, losses=50.0).at(HALF_LIFE_S)
    assert (old.hours, old.losses) == (50.0, 25.0)
    assert old.at(0.0).hours == 50.0, "a clock that went back fades nothing and brings nothing back"


def a_region(**counts: Counts) -> World:
    """Three clusters of one region, and what was seen of their spot."""
    catalogue = tuple(a_cluster(name, region="eu") for name in ("fra-1", "fra-2", "fra-3"))
    world = told(a_world(), DocumentsAccepted(documents=documents.Documents(clusters=catalogue), now_s=0.0))
    by_pool = {ClusterPool(name.replace("_", "-"), L4_SPOT): one for name, one in counts.items()}
    return told(world, SpotSeen(counts=by_pool))


def losses(world: World, name: str) -> float:
    """What is expected of a cluster's L4 on spot."""
    document = world.catalogue(name)
    declared = next(one for one in document.spec.accelerators if one.market == "spot")
    return pool_risk(world, document, L4_SPOT, declared, seen_by_region(world)).losses_per_hour


def test_a_region_tells_of_its_other_clusters() -> None:
    """A storm in one zone's cluster would be met anew by every other of the region."""
    world = a_region(fra_1=seen(hours=200.0, losses=200.0))
    assert losses(world, "fra-1") >= losses(world, "fra-2") > 0.4
    assert losses(a_region(), "fra-2") == 0.0


def test_one_cluster_does_not_speak_for_its_region() -> None:
    """A cluster that lies of its losses would price everybody's spot."""
    lies = a_region(fra_1=seen(hours=1e9, losses=1e12), fra_2=seen(hours=3_000.0), fra_3=seen(hours=3_000.0))
    assert losses(lies, "fra-2") < 0.4
    assert pool_risk(lies, lies.catalogue("fra-1"), L4, None, seen_by_region(lies)) == SpotRisk()
