"""One controller of the simulator: its loops by the second, on a database that may be another's too."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from federation.adapters.manifest import Manifest
from federation.adapters.records import Book
from federation.adapters.store import Store
from federation.loops import keep
from federation.loops.hub import Hub
from federation.loops.plan import Planner
from federation.loops.policies import PolicyIntake
from federation.loops.publish import Publisher
from federation.loops.steer import Steer
from federation.metrics import Metrics
from federation.state.reduce import BrokerFound, BrokerLost, Heard, Slept, TimePassed
from federation.state.world import Timing, World, validate
from federation.wire import messages

if TYPE_CHECKING:
    from tests.sim.fleet import SimFleet

REPORT_S, TICK_S, PLAN_S, SPACING_S = 10.0, 5.0, 60.0, 5.0
BEAT_S = 5.0
Disk = Literal["", "full", "takes nothing"]
"""Full: no transaction finds space, the manifest is rewritten in place. Takes nothing: not even that."""


class SimStore(Store):
    """The store on the fleet's disk."""

    def __init__(self, path: Path, disk: Callable[[], Disk]) -> None:
        super().__init__(path)
        self._disk = disk

    @property
    def is_behind(self) -> bool:
        """Whether something is still to be written."""
        return bool(self._pending) or self._failing is not None

    def _transact(self, work: Callable[[Book], dict[str, int]], *, is_fenced: bool = True) -> None:
        def on_a_full_disk(book: Book) -> dict[str, int]:
            work(book)
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

        super()._transact(on_a_full_disk if self._disk() else work, is_fenced=is_fenced)

    def _reach(self, given: Manifest) -> None:
        if self._disk() == "takes nothing":
            with self._translated():
                raise OSError(28, "No space left on device")
        super()._reach(given)


class SimController:
    """A controller that has been started. While it does not run it is dead, or its machine is asleep.

    Its parts are production's; who wakes them when is written here.
    """

    def __init__(self, fleet: SimFleet, store: SimStore, hub: Hub) -> None:
        self.fleet, self.store, self.hub = fleet, store, hub
        self.steer = Steer(hub, fleet.engine, store)  # type: ignore[arg-type]
        self.planner = Planner(hub, fleet.engine, self.steer)  # type: ignore[arg-type]
        self.publisher = Publisher(hub, fleet)  # type: ignore[arg-type]
        self.desk = PolicyIntake(hub, store, fleet.engine)
        self.runs = True
        self._told_s = self._tick_s = self._plan_s = self._publish_s = self._beat_s = self._keep_s = fleet.clock.now_s

    @classmethod
    async def started(cls, fleet: SimFleet, store: SimStore) -> SimController:
        """On what the store remembers. Raises: StoreError."""
        remembered = await store.open()
        hub = Hub(
            world=World(timing=Timing(report_interval_s=REPORT_S, tick_s=TICK_S), started_s=fleet.clock.now_s),
            plan=remembered.plan,
            routes=remembered.routes,
            epoch=remembered.epoch,
            clock=fleet.clock,
            metrics=Metrics(),
            controller=f"controller-{next(fleet.names):03d}",
        )
        store.tell = hub.tell
        hub.adopts |= remembered.is_incomplete
        hub.may_take_over |= not remembered.is_epoch_known
        made = cls(fleet, store, hub)
        await fleet.hand_in(made, remembered)
        await made._connected()
        return made

    async def _connected(self) -> None:
        self.hub.apply(BrokerFound(now_s=self.fleet.clock.now_s))
        self.fleet.beat(self)
        await self.fleet.tell_retained(self)
        await self.publisher.everything()

    async def resume(self) -> None:
        """It goes on where it was stopped; the broker had given it up."""
        self.runs = True
        self.hub.apply(BrokerLost(now_s=self.fleet.clock.now_s))
        await self._connected()

    async def stop(self) -> None:
        """Kill it."""
        self.runs = False
        await self.store.close()

    def hear(self, message: messages.Message, *, retained: bool) -> None:
        """A message of an agent, as its link gives it."""
        clock = self.fleet.clock
        self.hub.apply(Heard(message=message, now_s=clock.now_s, retained=retained, wall_s=clock.wall_s()))

    async def step(self) -> None:
        """One second has passed."""
        hub, now_s = self.hub, self.fleet.clock.now_s
        if now_s >= min(self._tick_s, hub.look_at_s):
            if now_s - self._told_s > hub.world.timing.longest_tick_s():
                hub.apply(Slept(gap_s=now_s - self._told_s, now_s=now_s))
            self._told_s, self._tick_s, hub.look_at_s = now_s, now_s + TICK_S, float("inf")
            hub.apply(TimePassed(now_s=now_s))
            validate(hub.world)
            quiet = hub.may_take_over or hub.outvoted()
            if hub.world.is_settled(now_s) and not quiet:
                await self.steer.once("")
        why = await hub.replan.wait(0) if hub.replan._event.is_set() else ""
        if now_s >= self._plan_s or (why and now_s >= self._plan_s - PLAN_S + SPACING_S):
            self._plan_s = now_s + PLAN_S
            sentence = await self.planner.once(why or "the planning period")
            self.fleet.said.append(f"{now_s:7.0f} {sentence}")
        elif why:
            hub.replan.set(why)
        if now_s >= self._publish_s or hub.republish._event.is_set():
            await hub.republish.wait(0)
            self._publish_s = now_s + REPORT_S
            if not hub.outvoted():
                await self.publisher.sessions()
                await self.publisher.unacknowledged()
                await self.publisher.peers(again=False)
        if now_s >= self._beat_s:
            self._beat_s = now_s + BEAT_S
            self.fleet.beat(self)
        if now_s >= self._keep_s:
            self._keep_s = now_s + keep.PERIOD_S
            if self.fleet.others or self.store.is_behind:  # else it would find nothing to do, and read files for that
                await keep.once(hub, self.store)
