"""Forecasts demand, minute by minute, for ever."""

from __future__ import annotations

from federation.control.foresight import STEP_S, Foreseer
from federation.loops.hub import Hub


class Foresee:
    """The loop of one controller; what it knows is lost with the process and learnt again."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._foreseer = Foreseer()

    async def run(self) -> None:
        """Look once in each minute of the controller's clock."""
        while True:
            await self.once()
            await self._hub.clock.sleep(STEP_S)

    async def once(self) -> None:
        """Nothing is learnt before the clusters are heard."""
        hub = self._hub
        if hub.world.is_settled(hub.clock.monotonic_s()):
            step = int(hub.clock.wall_s() // STEP_S)
            hub.foresight = await hub.beside(self._foreseer.look, hub.world, step)
