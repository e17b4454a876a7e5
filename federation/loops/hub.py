"""The shared state of the loops: the newest beliefs, the newest plan, and the wake-ups between loops.

One event loop owns all of it, so the only lock is the one that separates commits. Events only request work; each loop
runs at its own pace, on the newest beliefs.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, ParamSpec, TypeVar

import structlog

from federation.aiokit.clock import Clock
from federation.control import foresight, leadership, staged
from federation.control.foresight import Foresight
from federation.control.placement_cycle import Solve
from federation.control.plan import Plan, Routes
from federation.control.problem import Formulated, Formulation
from federation.control.replacement import GivenUp
from federation.metrics import Metrics
from federation.policy.documents import Documents
from federation.state.keys import ModelCell, PlacementKey
from federation.state.reduce import BrokerFound, Event, Heard, Note, TimePassed, reduce
from federation.state.world import Known, World
from federation.traffic.snapshot import Index, RouteSnapshot
from federation.traffic.status import GatewayStatus
from federation.traffic.table import Tables
from federation.wire import messages, topics

log = structlog.get_logger("controller")
EVENTS_KEPT = 2000
SMALL_FLEET = 100
"""Up to this many clusters, a computation takes less time than a round trip to a thread."""
CHANGES = {"ClusterReady": "ready", "ClusterUnreachable": "unreachable", "ClusterLost": "lost"}
"""Reasons of notes about a change of a cluster's phase."""
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldEvent:
    """A note with its number in the stream."""

    id: int
    at_s: float
    type: Literal["Normal", "Warning"]
    reason: str
    object: str
    message: str


class WakeUp:
    """A request for work, with the reason of the first request."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._event = asyncio.Event()
        self._why = ""

    def set(self, why: str) -> None:
        """Request the work."""
        self._why = self._why or why
        self._event.set()

    async def wait(self, timeout_s: float) -> str:
        """The reason of the first request; empty when `timeout_s` of the clock passed."""
        try:
            async with self._clock.timeout(timeout_s):
                await self._event.wait()
        except TimeoutError:
            return ""
        why, self._why = self._why, ""
        self._event.clear()
        return why


class Hub:
    """The controller's memory while it runs."""

    def __init__(
        self,
        *,
        world: World,
        plan: Plan,
        routes: Routes,
        epoch: int,
        clock: Clock,
        metrics: Metrics,
        controller: str = "",
    ) -> None:
        ahead_s = clock.wall_s() - clock.monotonic_s()
        known = {
            name: replace(one, since_s=min(world.started_s, one.since_s - ahead_s)) for name, one in plan.known.items()
        }
        self.world = replace(world, relied_on=plan.relied_on(routes), known=known)
        self.plan = plan
        self.routes = routes
        self.epoch = epoch
        self.may_take_over = plan.generation == 0
        """Whether the next plan may exceed the epochs of other controllers: nothing is remembered, or an operator
        ordered it."""
        self.adopts = plan.generation == 0
        """Whether running replicas that the plan does not name are taken into it, because earlier orders are not
        remembered. Only the first report of each cluster counts: later replicas are this controller's orders, or a
        false claim."""
        self._adopts_until_s: dict[str, float] = {}
        self._beyond_memory: set[str] = set()
        self._refused_s: dict[str, float] = {}
        self.superseded = ""
        """Why this controller decides nothing: another one has its database."""
        self.is_ordered_to_lead = False
        """Whether an operator ordered it."""
        self.controller = controller or secrets.token_hex(8)
        """The name of this process among controllers."""
        self.rivals: dict[str, leadership.Rival] = {}
        self._yields_since_s: float | None = None
        """Since when other controllers have claimed to lead without a break."""
        self.doubts_rivals = False
        """Whether other controllers are disbelieved until agents obey them: an operator ordered this controller to
        lead."""
        self._is_doubt_told = False
        self.clock = clock
        self.metrics = metrics
        metrics.ages_s = self._ages_s
        self._started_s = self._connected_s = self._machine_s()
        self._is_listening = False
        self._formulation, self._ahead = Formulation(), Formulation()
        self.last_solve: Solve | None = None
        """The newest solve, even where the placement in force stayed."""
        self.planned_s = float("-inf")
        """The instant (monotonic) of the beliefs behind the newest solve."""
        self.carried_s = float("-inf")
        """The same instant of the placement in force."""
        self.postponed: frozenset[PlacementKey] = frozenset()
        """Where a change that has to wait would have more replicas."""
        self.aside: Mapping[str, str] = {}
        """Models that planning fails on, with the failure: each stays where it is and is tried again in each cycle."""
        self.given_up: GivenUp = {}
        """Replicas in silent clusters that are replaced before the policy's toleration ends."""
        self.replace_at_s = float("inf")
        """When the next of them is worth replacing, if nothing changes."""
        self.foresight = Foresight()
        """The newest forecast of demand."""
        self.gateways: Mapping[str, GatewayStatus] = {}
        """By the gateway's own name; gateways that are gone stay, because their tables still serve."""
        self.tables = Tables(by_cluster={}, missing=())
        """The newest tables that gateways were sent."""
        self.index = Index(RouteSnapshot())
        """The index behind the route API."""
        self.waiting: Callable[[], Mapping[str, float]] = dict
        """Cluster -> arrival of its newest report, of reports that are not read yet."""
        self.message = "starting"
        self.serving: object = object()
        """A new object for each change of the serving replicas, as `Reduced.reroute` says."""
        self.look = WakeUp(clock)
        """Requests a time event before the next tick, at `look_at_s`."""
        self.look_at_s = float("inf")
        self.replan = WakeUp(clock)
        self.resteer = WakeUp(clock)
        self.republish = WakeUp(clock)
        self.committing = asyncio.Lock()
        self.events: deque[ToldEvent] = deque(maxlen=EVENTS_KEPT)
        self._next_event_id = 1
        self._changed = asyncio.Event()

    def _ages_s(self) -> dict[str, float]:
        """Cluster -> seconds since it was heard last. Any thread may ask."""
        now_s = self.clock.monotonic_s()
        return {name: now_s - state.heard_s for name, state in self.world.clusters.items() if state.heard_s is not None}

    def apply(self, event: Event) -> None:
        """Take an event into the beliefs, publish its notes, and wake the loops that have work."""
        if isinstance(event, BrokerFound):
            self._connected_s = self._machine_s()
        elif isinstance(event, TimePassed) and self._is_listening:
            self._is_listening = False
            self.replan.set("other controllers were listened for")
        reduced = reduce(self.world, event)
        if isinstance(event, Heard):
            self.metrics.reports_total.labels(result=reduced.result).inc()
        if reduced.look_after_s is not None:
            self.look_at_s = min(self.look_at_s, self.clock.monotonic_s() + reduced.look_after_s)
            self.look.set("something is to be believed soon")
        if isinstance(event, Heard) and isinstance(event.message, messages.Report) and reduced.world is not self.world:
            self._compare_memory(event.message)
        if reduced.greet:
            self.republish.set("another start of an agent")
        if reduced.world is self.world and not reduced.notes:
            return
        self.world = reduced.world
        why = reduced.notes[0].message if reduced.notes else "a report"
        for note in reduced.notes:
            self.tell(note)
            if note.reason in CHANGES:
                self.metrics.cluster_changes_total.labels(to=CHANGES[note.reason]).inc()
        if reduced.reroute or reduced.result == "remembered":
            self.serving = object()
        if reduced.reroute:
            self.resteer.set(why)
            self.wake()
        if reduced.replan:
            self.replan.set(why)

    def documents_in_force(self) -> Documents:
        """The documents for agents and users, with the last documents of models that are being withdrawn."""
        return staged.in_force(self.world.documents, self.plan.forced)

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
        """Wake all watchers."""
        self._changed.set()
        self._changed = asyncio.Event()

    def watch(self) -> asyncio.Event:
        """The event that the next `wake` sets: take it before looking, so that no change is missed."""
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
        """Why this controller must be quiet because another leads; empty where it need not."""
        return self.superseded or self.rivalled() or leadership.outvoted(self.world, self.epoch)

    def supersede(self, why: str) -> None:
        """Stop deciding, and report it once."""
        if not self.superseded:
            self.superseded = f"nothing is decided: {why}; stop one of them"
            self.tell(Note(type="Warning", reason="Superseded", object="controller", message=self.superseded))

    def hear_refused(self, topic: str, cause: str) -> None:
        """An unreadable message on a cluster's topic; repeats are reported once."""
        address = topics.parse(topic)
        if address is None or address[0] not in self.world.clusters:
            return
        name, now_s = address[0], self.clock.monotonic_s()
        since_s = now_s - self._refused_s.get(name, float("-inf"))
        self._refused_s[name] = now_s
        if since_s > self.world.timing.lasting_s:
            text = f"a {address[1]} of {name} is not listened to: {cause[:300]}"
            self.tell(Note(type="Warning", reason="MessageRefused", object=f"cluster/{name}", message=text))

    def adopt(self) -> None:
        """Where earlier orders are not remembered, the running replicas become the plan; under the brake nothing
        changes."""
        if not self.adopts or self.world.brake is not None:
            return
        now_s = self.clock.monotonic_s()
        for name, state in self.world.clusters.items():
            if state.heard_s is not None:
                self._adopts_until_s.setdefault(name, now_s + self.world.timing.lasting_s)
        new = {name for name, until_s in self._adopts_until_s.items() if now_s <= until_s}
        self.plan = leadership.adopted(self.plan, self.world, new)

    def _compare_memory(self, report: messages.Report) -> None:
        """Take the next epoch where an agent obeys an order of this controller that it does not remember; once per
        order."""
        name = report.cluster
        if name in self._beyond_memory or not leadership.is_beyond_memory(report, self.epoch, self.plan.generation):
            return
        self._beyond_memory.add(name)
        self.may_take_over = True
        text = (
            f"{name} obeys order {report.epoch}.{report.generation} of ours, and the newest known is "
            f"{self.plan.epoch}.{self.plan.generation}: the database is older than the last start, as from a backup; "
            "this controller goes on from what runs"
        )
        self.tell(Note(type="Warning", reason="StoreOutdated", object="controller", message=text))
        self.replan.set("the database is old")

    def forget_orders(self) -> None:
        """Continue from the running replicas, where most agents obey orders that are not remembered."""
        if leadership.has_forgotten(self.world, self.plan, self.epoch):
            self.plan, self.adopts = self.plan.without_orders(), True

    def rivalled(self) -> str:
        """Why this controller must be quiet beside another that it hears; empty where it need not.

        A heartbeat is believed for a while, or not at all where an operator ordered this controller to lead. After
        that, the obedience of agents decides: a heartbeat may be forged, or come from a controller that gives no
        orders.
        """
        now_s = self._machine_s()
        if not self._asks_agents(now_s):
            return self._yields(now_s)
        return self._yields(
            now_s,
            higher_leads=leadership.most_obey_beyond(self.world, self.epoch),
            elder_leads=not leadership.most_obey(self.world, self.epoch, self.plan.generation),
        )

    def _asks_agents(self, now_s: float) -> bool:
        has_had_time = self._yields_since_s is not None and now_s - self._yields_since_s >= leadership.PROVEN_S
        return self.doubts_rivals or has_had_time

    def _yields(self, now_s: float, *, higher_leads: bool = True, elder_leads: bool = True) -> str:
        return leadership.yields_to(
            self.rivals.values(),
            controller=self.controller,
            epoch=self.epoch,
            uptime_s=now_s - self._started_s,
            now_s=now_s,
            higher_leads=higher_leads,
            elder_leads=elder_leads,
        )

    def heartbeat(self) -> messages.Heartbeat:
        """The message to other controllers."""
        uptime_s = self._machine_s() - self._started_s
        return messages.Heartbeat(controller=self.controller, epoch=self.epoch, uptime_s=uptime_s)

    def listens(self) -> str:
        """Why it is too early to know that nobody else leads; empty when it is not. A plan is requested when the time
        is over."""
        left_s = self._connected_s + leadership.LISTEN_S - self._machine_s()
        if left_s <= 0:
            return ""
        self._is_listening = True
        self.look_at_s = min(self.look_at_s, self.clock.monotonic_s() + self.clock.ours_s(left_s))
        self.look.set("other controllers would have answered")
        return "nothing is decided: another controller on this broker would answer within a second"

    def hear_rival(self, said: messages.Heartbeat) -> bool:
        """Another controller is on this broker. Returns whether it is new, and so has not heard of this one."""
        now_s = self._machine_s()
        is_new = said.controller not in self.rivals
        if not self._yields(now_s):
            self._yields_since_s, self._is_doubt_told = None, False
        self.rivals = {name: one for name, one in self.rivals.items() if now_s - one.heard_s <= leadership.SILENT_S} | {
            said.controller: leadership.Rival(
                controller=said.controller, epoch=said.epoch, uptime_s=said.uptime_s, heard_s=now_s
            )
        }
        by_heartbeat = self._yields(now_s)
        if by_heartbeat and self._yields_since_s is None:
            self._yields_since_s = now_s
        why = self.rivalled()
        if is_new:
            text = why or f"controller {said.controller} is on this broker too, with epoch {said.epoch}"
            self.tell(Note(type="Warning", reason="OtherController", object="controller", message=text))
        if by_heartbeat and not why and not self._is_doubt_told:
            self._is_doubt_told = True
            text = (
                f"controller {said.controller} says that it leads with epoch {said.epoch}, and agents do not obey it: "
                "this controller leads. Such heartbeats are forged, or of one that gives no orders: stop it"
            )
            self.tell(Note(type="Warning", reason="OtherControllerDoubted", object="controller", message=text))
        return is_new

    def _machine_s(self) -> float:
        return self.clock.machine_s(self.clock.monotonic_s())

    async def formulate(
        self, world: World, now_s: float, aside: Mapping[str, str] | None = None, *, routes: bool = False
    ) -> Formulated:
        """The placement problem of this world, given the plan in force; in a thread, because it may take a second.

        Args: aside: models to leave out; None leaves out those that planning fails on. routes: it is asked who serves
            whom: of the demand of now, whatever is forecast.
        """
        plan = self.plan
        growth = {} if routes else foresight.growth(world, self.foresight)
        return await asyncio.to_thread(
            self._ahead if growth else self._formulation,
            world,
            target=plan.target_by_key(),
            desired=plan.desired_by_key(),
            now_s=now_s,
            aside=self.aside if aside is None else aside,
            given_up=self.given_up,
            growth=growth,
        )

    async def beside(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of pure work, in a thread for a large fleet, so that the event loop continues."""
        if len(self.world.clusters) <= SMALL_FLEET:
            return work(*args, **kwargs)
        return await asyncio.to_thread(work, *args, **kwargs)

    def known(self) -> Mapping[str, Known]:
        """Cluster -> the demand that its front door is known to count, by this or an earlier start, for the plan."""
        ahead_s = self.clock.wall_s() - self.clock.monotonic_s()
        levels = {name: state.level for name, state in self.world.clusters.items()}
        return {
            name: replace(level.known, since_s=level.known.since_s + ahead_s)
            for name, level in sorted(levels.items())
            if level is not None
        }

    def demand_rps(self) -> Mapping[ModelCell, float]:
        """(model, cell) -> requests per second, by the newest counts."""
        return {key: demand.requests_per_second for key, demand in self.world.demand.items()}
