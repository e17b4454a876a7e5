"""What the loops share: the newest belief, the newest plan, and the marks by which one wakes another.

Everything here is touched from one event loop only, so it needs no locks but the one that keeps commits apart. Events
only mark work; each loop runs at its own pace and looks at the newest belief when it does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import structlog

from federation.adapters.solver import Answer
from federation.aiokit.clock import Clock
from federation.control import leadership
from federation.control.plan import Plan, Routes
from federation.control.problem import Formulated, formulate
from federation.metrics import Metrics
from federation.state.reduce import Event, Heard, Note, reduce
from federation.state.world import PlacementKey, World
from federation.traffic.snapshot import Index, RouteSnapshot
from federation.traffic.status import GatewayStatus
from federation.traffic.table import Tables

log = structlog.get_logger("controller")
EVENTS_KEPT = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldEvent:
    """A note with its place in the stream."""

    id: int
    at_s: float
    type: Literal["Normal", "Warning"]
    reason: str
    object: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Thought:
    """The newest solve, kept so that `explain` can say why."""

    formulated: Formulated
    answer: Answer
    at_s: float


class Mark:
    """Something to be done soon, and who asked first."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._why = ""

    def set(self, why: str) -> None:
        """Ask for it."""
        self._why = self._why or why
        self._event.set()

    async def wait(self, timeout_s: float) -> str:
        """Who asked first, or nothing when `timeout_s` of the machine's seconds passed."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return ""
        why, self._why = self._why, ""
        self._event.clear()
        return why


class Hub:
    """The controller's memory while it runs."""

    def __init__(self, *, world: World, plan: Plan, routes: Routes, epoch: int, clock: Clock, metrics: Metrics) -> None:
        self.world = world
        self.plan = plan
        self.routes = routes
        self.epoch = epoch
        self.may_take_over = plan.generation == 0
        """Whether the next plan may go beyond the epochs of others: nothing is remembered, or an operator said so."""
        self.clock = clock
        self.metrics = metrics
        self.thought: Thought | None = None
        self.planned_s = float("-inf")
        """The instant (monotonic) that the newest plan was made of."""
        self.postponed: frozenset[PlacementKey] = frozenset()
        """Where a change that the newest plan has to wait with would have more replicas."""
        self.gateways: Mapping[str, GatewayStatus] = {}
        """By the gateway's own name; those that are gone are kept, as what they hold still serves."""
        self.tables = Tables(by_cluster={}, missing=())
        """What gateways were last told."""
        self.index = Index(RouteSnapshot())
        """What the route API answers from."""
        self.message = "starting"
        self.replan = Mark()
        self.resteer = Mark()
        self.republish = Mark()
        self.committing = asyncio.Lock()
        self.events: deque[ToldEvent] = deque(maxlen=EVENTS_KEPT)
        self._next_event_id = 1
        self._changed = asyncio.Event()

    def apply(self, event: Event) -> None:
        """Believe an event, tell what is worth telling, and mark what has to be done about it."""
        reduced = reduce(self.world, event)
        if isinstance(event, Heard):
            self.metrics.reports_total.labels(result=reduced.result).inc()
        if reduced.world is self.world and not reduced.notes:
            return
        self.world = reduced.world
        why = reduced.notes[0].message if reduced.notes else "a report"
        for note in reduced.notes:
            self.tell(note)
        if reduced.reroute:
            self.resteer.set(why)
            self.wake()
        if reduced.replan:
            self.replan.set(why)

    def tell(self, note: Note) -> None:
        """Add to the event stream and the log."""
        told = ToldEvent(
            id=self._next_event_id,
            at_s=self.clock.wall_s(),
            type=note.type,
            reason=note.reason,
            object=note.object,
            message=note.message,
        )
        self._next_event_id += 1
        self.events.append(told)
        emit = log.warning if note.type == "Warning" else log.info
        emit(note.message, reason=note.reason, object=note.object)
        self.wake()

    def wake(self) -> None:
        """Let everyone who watches look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    def watch(self) -> asyncio.Event:
        """What the next `wake` sets: taken before looking, so that no change is missed meanwhile."""
        return self._changed

    async def change(self, timeout_s: float, since: asyncio.Event | None = None) -> None:
        """Return at the next `wake` (since `watch` gave `since`), or after `timeout_s` of the machine's seconds."""
        waiting = since or self._changed
        try:
            async with asyncio.timeout(timeout_s):
                await waiting.wait()
        except TimeoutError:
            return

    def outvoted(self) -> str:
        """Why this controller must be quiet because another leads, or nothing."""
        return leadership.outvoted(self.world, self.epoch)

    async def formulate(self, world: World, now_s: float) -> Formulated:
        """What to ask the engine of this world, given the plan in force now: in a thread, as it may take a second."""
        plan = self.plan
        return await asyncio.to_thread(
            formulate, world, target=plan.target_by_key(), desired=plan.desired_by_key(), now_s=now_s
        )

    def demand_rps(self) -> Mapping[tuple[str, str], float]:
        """(model, cell) -> requests per second, as last counted."""
        return {key: demand.requests_per_second for key, demand in self.world.demand.items()}
