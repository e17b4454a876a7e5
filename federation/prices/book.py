"""Believed prices: of each feed the last good price of every offer, its age, and the prices that wait to be believed.

Pure. A feed that cannot be read, or that omits an offer, changes nothing: the believed price stays and ages. A price
that jumps waits until it lasts. Where much of a feed jumps together, its unit or currency has probably changed, and the
whole feed waits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from federation.prices.rows import Offer, Parsed, Price, similarity
from federation.wire.messages import PoolKey

LEAST_USD, MOST_USD = 0.001, 1_000.0
"""Bounds per device-hour of anything on sale; the most expensive device costs some 15 USD."""
JUMP_FACTOR = 3.0
"""A price that changes by this factor between two readings waits. List prices have fallen by less than half at a
time."""
TOGETHER = 0.3
"""Where this fraction of the known offers jumps in one reading, the whole feed waits."""
LASTING_S = 3_600.0
"""A jump is believed after it was read for an hour, at least twice."""
KEPT_S = 14 * 86_400.0
"""A price that a feed stops giving is believed for two weeks."""


class Believed(NamedTuple):
    """A price and the time of its last reading."""

    usd: float
    read_s: float


class Waiting(NamedTuple):
    """A price that jumped, since when it is read, and how often."""

    usd: float
    since_s: float
    readings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """The state of one feed. Instants are seconds of the wall clock, because they outlive the process.

    `read_s`: the last usable reading. `error`: why the newest reading was not usable; empty otherwise.
    """

    name: str
    form: str = ""
    read_s: float = -math.inf
    error: str = ""
    problems: tuple[str, ...] = ()
    left_out: int = 0
    prices: Mapping[Offer, Believed] = field(default_factory=dict)
    waiting: Mapping[Offer, Waiting] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A price for a pool, its offer, its source and its age."""

    usd_per_device_hour: float
    offer: Offer
    feed: str
    read_s: float


def failed(feed: Feed, error: str) -> Feed:
    """The feed after an unusable reading: all prices stay, and age."""
    return replace(feed, error=error[:500])


def read(feed: Feed, parsed: Parsed, now_s: float) -> Feed:
    """The feed after a reading."""
    prices = {offer: one for offer, one in feed.prices.items() if now_s - one.read_s < KEPT_S}
    waiting: dict[Offer, Waiting] = {}
    jumps, implausible, known = [], [], 0
    for offer, usd in parsed.prices:
        before = prices.get(offer)
        known += before is not None
        if not LEAST_USD <= usd <= MOST_USD:
            implausible.append(Price(offer, usd))
        elif before is None or _is_near(usd, before.usd):
            prices[offer] = Believed(usd, now_s)
        else:
            jumps.append(Price(offer, usd))
    for offer, usd in jumps:
        earlier = feed.waiting.get(offer)
        if earlier is None or not _is_near(usd, earlier.usd):
            earlier = Waiting(usd, now_s, 0)
        one = Waiting(usd, earlier.since_s, earlier.readings + 1)
        if one.readings > 1 and now_s - one.since_s >= LASTING_S:
            prices[offer] = Believed(usd, now_s)
        else:
            waiting[offer] = one
    told = [*parsed.problems]
    if implausible:
        told.insert(0, f"{_told(implausible[0])}, not within {LEAST_USD:g} and {MOST_USD:g} USD{_more(implausible)}")
    if waiting and known and len(jumps) >= TOGETHER * known and len(jumps) > 1:
        text = f"{len(jumps)} of {known} prices changed by more than {JUMP_FACTOR:g} times at once"
        told.insert(0, f"{text}: maybe another unit or currency; the reading waits until it lasts")
        prices = {offer: one for offer, one in feed.prices.items() if now_s - one.read_s < KEPT_S}
    elif waiting:
        offer, first = next(iter(waiting.items()))
        text = f"{_told(Price(offer, first.usd))} after {prices[offer].usd:.4g}: waits until it lasts"
        told.insert(0, text + _more(waiting))
    return Feed(
        name=feed.name,
        form=parsed.form,
        read_s=now_s,
        problems=tuple(told),
        left_out=parsed.left_out + len(implausible),
        prices=prices,
        waiting=waiting,
    )


def _is_near(one: float, other: float) -> bool:
    return one <= other * JUMP_FACTOR and other <= one * JUMP_FACTOR


def _told(price: Price) -> str:
    return f"{price.usd_per_device_hour:.4g} USD for {price.offer.text}"


def _more(many: object) -> str:
    count = len(many) - 1  # type: ignore[arg-type]
    return f", and {count} more" if count else ""


class Place(NamedTuple):
    """Where a pool's nodes are, by their labels and the catalogue."""

    provider: str
    region: str
    zones: frozenset[str] = frozenset()
    instance_types: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Book:
    """All feeds in order of precedence: the first with a price for a pool decides."""

    feeds: tuple[Feed, ...] = ()
    _index: dict[tuple[str, str], list[tuple[Feed, Offer, Believed]]] = field(init=False, compare=False, repr=False)
    _quotes: dict[tuple[Place, PoolKey], Quote | None] = field(init=False, compare=False, repr=False)
    """Quotes already looked up: thousands of pools are in few places."""

    def __post_init__(self) -> None:
        index: dict[tuple[str, str], list[tuple[Feed, Offer, Believed]]] = {}
        for feed in self.feeds:
            for offer, one in feed.prices.items():
                index.setdefault((offer.provider, offer.region), []).append((feed, offer, one))
        object.__setattr__(self, "_index", index)
        object.__setattr__(self, "_quotes", {})

    def following(self, feed: Feed) -> Book:
        """The book with a new state of a feed; an unknown feed is added last."""
        if any(one.name == feed.name for one in self.feeds):
            return Book(feeds=tuple(feed if one.name == feed.name else one for one in self.feeds))
        return Book(feeds=(*self.feeds, feed))

    def quote(self, place: Place, key: PoolKey) -> Quote | None:
        """The price of a device of a pool by the first feed that has one; for a MIG instance its fraction of the card's
        compute.

        Among several instance types or zones the highest price, because it is unknown which one is in use; by the
        product's name alone the median over the instances sold with it. Instance types, where nodes name them, are more
        specific than a product.
        """
        asked = (place, key)
        if asked not in self._quotes:
            self._quotes[asked] = self._quote(place, key)
        return self._quotes[asked]

    def _quote(self, place: Place, key: PoolKey) -> Quote | None:
        found = self._index.get((place.provider, place.region), [])
        for feed in self.feeds:
            ours = [(offer, one) for by, offer, one in found if by is feed and offer.market == key.market]
            best = _of_types(ours, place) or _of_product(ours, place, key.product)
            if best is not None:
                offer, one = best
                usd = one.usd * _share(key.mig_profile)
                return Quote(usd_per_device_hour=usd, offer=offer, feed=feed.name, read_s=one.read_s)
        return None


_Offers = list[tuple[Offer, Believed]]


def _of_types(offers: _Offers, place: Place) -> tuple[Offer, Believed] | None:
    found = _in_zones([one for one in offers if one[0].instance_type in place.instance_types], place)
    return max(found, key=_by_price, default=None)


def _of_product(offers: _Offers, place: Place, product: str) -> tuple[Offer, Believed] | None:
    near = [(similarity(offer.accelerator, product), offer, one) for offer, one in offers]
    best = max((score for score, _, _ in near), default=0)
    found = _in_zones([(offer, one) for score, offer, one in near if score == best], place) if best else []
    return sorted(found, key=_by_price)[(len(found) - 1) // 2] if found else None


def _by_price(one: tuple[Offer, Believed]) -> tuple[float, Offer]:
    return one[1].usd, one[0]


def _in_zones(offers: _Offers, place: Place) -> _Offers:
    """The offers in the pool's zones, where both name zones; otherwise all."""
    own = [one for one in offers if one[0].zone in place.zones]
    return own or offers


def _share(profile: str) -> float:
    """The fraction of the seven compute slices that a MIG instance has."""
    slices = profile.partition("g.")[0]
    return int(slices) / 7.0 if slices.isdigit() else 1.0
