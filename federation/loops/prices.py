"""Reads the price feeds, for ever: files when they change, URLs when they are due."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from federation.adapters.feeds import Feeds, Source
from federation.adapters.learnt import Learnt
from federation.loops.hub import Hub
from federation.prices import book
from federation.prices.formats import parse
from federation.prices.rows import FeedError, Instances, Parsed
from federation.state.reduce import PricesRead

LOOK_S = 10.0
"""Between looks at files, in seconds of the machine."""
RETRY_S = 60.0
"""For a URL that failed."""


class PriceLoop:
    """Keeps the world's prices as feeds have them."""

    def __init__(
        self, hub: Hub, sources: tuple[Source, ...], learnt: Learnt, instances: Instances, period_s: float
    ) -> None:
        self._hub = hub
        self._sources = sources
        self._learnt = learnt
        self._instances = instances
        self._period_s = period_s
        self._feeds = Feeds()
        self._due_s: dict[str, float] = {}
        self._parsed: dict[str, Parsed] = {}

    def remember(self) -> None:
        """Start from what feeds said before a restart, of those that are still given, in their order."""
        known = {one.name: one for one in self._learnt.prices()}
        for source in self._sources:
            feed = known.get(source.name, book.Feed(name=source.name))
            self._hub.apply(PricesRead(feed=replace(feed, error="", problems=())))

    async def run(self) -> None:
        """Look at every feed, for ever."""
        while True:
            await self.once()
            await asyncio.sleep(LOOK_S)

    async def once(self) -> None:
        """Read what is due."""
        loop = asyncio.get_running_loop()
        for source in self._sources:
            if loop.time() < self._due_s.get(source.name, 0.0):
                continue
            before = next(one for one in self._hub.world.prices.feeds if one.name == source.name)
            following = await self._read(source, before)
            wait_s = 0.0 if not source.is_url else self._period_s if not following.error else RETRY_S
            self._due_s[source.name] = loop.time() + wait_s
            if following is not before:
                self._hub.apply(PricesRead(feed=following))
                if not following.error:
                    await asyncio.to_thread(self._learnt.keep_prices, self._hub.world.prices.feeds)
        self._measure()

    async def _read(self, source: Source, before: book.Feed) -> book.Feed:
        now_s = self._hub.clock.wall_s()
        try:
            payload = await self._feeds.fetch(source)
            if payload is not None:
                self._parsed[source.name] = await asyncio.to_thread(parse, payload, source.provider, self._instances)
        except FeedError as error:
            following = book.failed(before, str(error))
            return following if following.error != before.error else before
        parsed = self._parsed.get(source.name)
        if parsed is None or (payload is None and not source.is_url and not before.waiting):
            return before  # a file that stays as it is says nothing new, but what jumped in it may have lasted
        return await asyncio.to_thread(book.read, before, parsed, now_s)

    def _measure(self) -> None:
        now_s = self._hub.clock.wall_s()
        ages = {(one.name,): now_s - one.read_s for one in self._hub.world.prices.feeds if one.prices}
        self._hub.metrics.set_all(self._hub.metrics.price_feed_age_seconds, ages)
