"""Whose price of a pool counts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from federation.prices.book import Book, Feed, read
from federation.prices.rows import Offer, Parsed, Price
from federation.state import pricing
from federation.state.pricing import PoolPrice
from federation.state.world import World
from tests.builders import L4, a_world

OFFER = Offer("test", "fra", "", "g6.xlarge", "L4", "on-demand")


def world_with(usd: float | None) -> World:
    """A feed that has this price of an L4, or none; the catalogue has 1 USD."""
    world = a_world("fra")
    if usd is None:
        return world
    feed = read(Feed(name="list"), Parsed(form="test", prices=(Price(OFFER, usd),)), 0.0)
    return replace(world, prices=Book(feeds=(feed,)))


def price(world: World, own_usd: float | None = None, *, sharing: str = "none", is_free: bool = False) -> PoolPrice:
    """The price of the first pool of fra."""
    (document,) = world.documents.clusters
    pool, declared = next((one, other) for one, other in pricing.pools_of(world, document) if one.key == L4)
    assert declared is not None
    if is_free:
        declared = structs.replace(declared, usd_per_device_hour=0.0)
    pool = structs.replace(pool, usd_per_device_hour=own_usd, sharing=sharing)
    found = pricing.pool_price(world, document, pool, declared)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("feed_usd", "own_usd", "usd", "source"),
    [(None, None, 1.0, "catalogue"), (0.8, None, 0.8, "feed list"), (0.8, 0.5, 0.5, "agent")],
)
def test_the_nearest_source_counts(feed_usd: float | None, own_usd: float | None, usd: float, source: str) -> None:
    """Plans would pay list prices for devices that their owner has under contract."""
    found = price(world_with(feed_usd), own_usd)
    assert (found.usd_per_device_hour, found.source) == (usd, source)


def test_a_feed_far_below_the_catalogue_is_doubted() -> None:
    """A feed in another unit would draw every replica to one region."""
    found = price(world_with(0.05))
    assert (found.usd_per_device_hour, found.source) == (1.0, "catalogue")
    assert "feed list" in found.doubt


def test_hardware_that_costs_nothing_has_no_list_price() -> None:
    """Replicas would leave an edge that is paid for, to save what it does not cost."""
    assert price(world_with(0.8), is_free=True).usd_per_device_hour == 0.0


def test_a_shared_device_is_not_priced_as_a_whole_one() -> None:
    """A quarter of a card would cost as much as the card, and stay empty."""
    assert price(world_with(0.8), sharing="time-slicing").source == "catalogue"
