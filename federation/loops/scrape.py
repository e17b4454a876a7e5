"""Asks Prometheus, for ever, and tells the hub what it had."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import structlog

from federation.adapters import prometheus
from federation.loops.hub import Hub
from federation.state import scraped
from federation.state.reduce import PrometheusRead
from federation.state.world import Scraped

log = structlog.get_logger("prometheus")


class ScrapeLoop:
    """Of one Prometheus."""

    def __init__(self, hub: Hub, settings: scraped.Prometheus) -> None:
        self._hub = hub
        self._settings = settings
        self._queries = scraped.queries(settings)

    async def run(self) -> None:
        """Ask each period, for ever."""
        while True:
            await self.once()
            await asyncio.sleep(self._settings.period_seconds)

    async def once(self) -> None:
        """Ask all queries; where one cannot be answered, all that is known stays as it is and ages."""
        before = self._hub.world.scraped
        now_s = self._hub.clock.monotonic_s()
        try:
            answers = await prometheus.ask(self._settings, self._queries)
        except prometheus.PrometheusError as error:
            following = replace(before, error=str(error)[:500])
        else:
            found = await asyncio.to_thread(scraped.read, self._settings, answers)
            following = Scraped(at_s=now_s, by_cluster=found)
        self._hub.apply(PrometheusRead(scraped=following))
