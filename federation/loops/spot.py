"""Keeps what was learnt of spot for the next start."""

from __future__ import annotations

import asyncio

from federation.adapters.learnt import Learnt
from federation.loops.hub import Hub
from federation.state.reduce import SpotSeen

PERIOD_S = 300.0
"""Of the machine's seconds. What was learnt since is lost when the process is killed, and learnt again."""


class SpotLoop:
    """Remembers at the start, and keeps from time to time."""

    def __init__(self, hub: Hub, learnt: Learnt) -> None:
        self._hub = hub
        self._learnt = learnt

    def remember(self) -> None:
        """Start from what pools on spot did before."""
        self._hub.apply(SpotSeen(counts=self._learnt.spot()))

    async def run(self) -> None:
        """Keep what is new, for ever."""
        while True:
            await asyncio.sleep(PERIOD_S)
            await self.keep()

    async def keep(self) -> None:
        """Write it down."""
        if self._hub.world.spot:
            await asyncio.to_thread(self._learnt.keep_spot, self._hub.world.spot)
