"""What is believed of price feeds: one outlier moves nothing, silence only ages, and pools find their price."""

from __future__ import annotations

from federation.prices.book import KEPT_S, LASTING_S, Book, Feed, Place, failed, read
from federation.prices.rows import Market, Offer, Parsed, Price
from federation.wire.messages import PoolKey

L4 = PoolKey(product="NVIDIA-L4", market="on-demand")


def offer(accelerator: str = "L4", market: Market = "on-demand", zone: str = "", kind: str = "g6.xlarge") -> Offer:
    """Of Frankfurt."""
    return Offer("aws", "eu-central-1", zone, kind, accelerator, market)


def reading(*prices: tuple[Offer, float]) -> Parsed:
    """What a feed says."""
    return Parsed(form="test", prices=tuple(Price(*one) for one in prices))


FRANKFURT = Place("aws", "eu-central-1")


def usd(feed: Feed, place: Place = FRANKFURT, key: PoolKey = L4) -> float | None:
    """What a device costs by this feed."""
    quote = Book(feeds=(feed,)).quote(place, key)
    return None if quote is None else quote.usd_per_device_hour


def test_a_price_that_jumps_waits_until_it_lasts() -> None:
    """One bad row, a thousand times yesterday's or a tenth, would move a region's replicas and back."""
    feed = read(Feed(name="f"), reading((offer(), 1.0)), 0.0)
    for claimed in (1000.0 - 1, 0.1, 3.5):
        jumped = read(feed, reading((offer(), claimed)), 60.0)
        assert usd(jumped) == 1.0
        assert "waits until it lasts" in jumped.problems[0]
        assert usd(read(jumped, reading((offer(), 1.0)), 120.0)) == 1.0, "it went back"
        soon = read(jumped, reading((offer(), claimed)), 60.0 + LASTING_S - 1.0)
        assert usd(soon) == 1.0
        assert usd(read(soon, reading((offer(), claimed)), 60.0 + LASTING_S)) == claimed
    assert usd(read(feed, reading((offer(), 0.56)), 60.0)) == 0.56, "list prices were nearly halved at once"


def test_what_cannot_be_a_price_is_left_out() -> None:
    """A price in cents would make everything a hundred times dearer."""
    feed = read(Feed(name="f"), reading((offer(), 1.0)), 0.0)
    for claimed in (5_000.0, 0.000_1):
        following = read(feed, reading((offer(), claimed)), 9e6)
        assert usd(following) in (1.0, None)
        assert "not within" in following.problems[0]


def test_where_much_jumps_together_all_of_the_reading_waits() -> None:
    """A feed whose currency changed would be half believed, and replicas would go to that half."""
    many = [(offer(kind=f"g6.{n}xlarge"), 1.0 + n / 10) for n in range(10)]
    feed = read(Feed(name="f"), reading(*many), 0.0)
    other = [(one, price * (150.0 if n < 6 else 1.2)) for n, (one, price) in enumerate(many)]
    following = read(feed, reading(*other), 60.0)
    assert {one: b.usd for one, b in following.prices.items()} == dict(many)
    assert "6 of 10 prices changed" in following.problems[0]


def test_what_a_feed_leaves_out_or_cannot_say_stays_and_ages() -> None:
    """A feed that is down for an hour would take every GPU's price away, and the models with it."""
    feed = read(Feed(name="f"), reading((offer(), 1.0), (offer("L40S"), 2.0)), 0.0)
    broken = failed(feed, "502 Bad Gateway")
    assert (usd(broken), broken.error, broken.read_s) == (1.0, "502 Bad Gateway", 0.0)
    shrunk = read(broken, reading((offer("L40S"), 2.0)), 3600.0)
    quote = Book(feeds=(shrunk,)).quote(FRANKFURT, L4)
    assert quote is not None
    assert quote.read_s == 0.0
    assert usd(read(shrunk, reading((offer("L40S"), 2.0)), KEPT_S)) is None


def test_a_pool_is_priced_by_its_instance_types_then_by_its_product() -> None:
    """A node with one GPU among 64 cores would be priced as the small one, or a pool would have another's price."""
    feed = read(
        Feed(name="f"),
        reading(
            (offer(kind="g6.xlarge"), 0.8),
            (offer(kind="g6.4xlarge"), 1.3),
            (offer(kind="g6.16xlarge"), 3.4),
            (offer(kind="g6.xlarge", market="spot", zone="eu-central-1a"), 0.3),
            (offer(kind="g6.xlarge", market="spot", zone="eu-central-1b"), 0.4),
            (offer("H100", kind="p5.48xlarge"), 7.0),
        ),
        0.0,
    )
    assert usd(feed) == 1.3, "the middle one of what is sold with an L4"
    assert usd(feed, FRANKFURT._replace(instance_types=frozenset({"g6.16xlarge"}))) == 3.4
    assert usd(feed, FRANKFURT._replace(instance_types=frozenset({"g6.xlarge", "g6.4xlarge"}))) == 1.3
    assert usd(feed, FRANKFURT._replace(instance_types=frozenset({"unknown.large"}))) == 1.3
    spot = PoolKey(product="NVIDIA-L4", market="spot")
    assert usd(feed, FRANKFURT._replace(zones=frozenset({"eu-central-1a"})), spot) == 0.3
    assert usd(feed, FRANKFURT._replace(instance_types=frozenset({"g6.xlarge"})), spot) == 0.4
    assert usd(feed, Place("aws", "eu-west-1")) is None
    assert usd(feed, Place("gcp", "eu-central-1")) is None
    third = PoolKey(product="NVIDIA-H100-80GB-HBM3", mig_profile="3g.40gb", market="on-demand")
    assert usd(feed, key=third) == 7.0 * 3 / 7
    assert usd(feed, key=PoolKey(product="NVIDIA-L40S", market="on-demand")) is None


def test_the_first_feed_that_has_a_price_counts() -> None:
    """A contract's price would be overruled by the list's."""
    contract = read(Feed(name="contract"), reading((offer(), 0.5)), 0.0)
    listed = read(Feed(name="list"), reading((offer(), 0.8), (offer("L40S"), 1.9)), 0.0)
    book = Book(feeds=(contract, listed))
    found = [book.quote(FRANKFURT, L4), book.quote(FRANKFURT, PoolKey(product="NVIDIA-L40S", market="on-demand"))]
    assert [(one.feed, one.usd_per_device_hour) for one in found if one] == [("contract", 0.5), ("list", 1.9)]
