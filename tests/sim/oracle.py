"""What must hold at every second of a hostile story, by the truth and not by what the controller believes."""

from __future__ import annotations

import functools
import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

from federation.control import routing
from federation.control.placement_cycle import Solve
from federation.control.plan import Routes
from federation.latency.sphere import great_circle_km
from federation.policy.documents import Documents
from federation.state.phases import Phase
from federation.state.world import ClusterState
from federation.wire import messages
from tests.builders import PLACES
from tests.sim.controller import TICK_S
from tests.sim.fleet import SimAgent, SimFleet

LATE_S = 60.0
"""Messages are late: an order may rest on what was true so long before it was given."""
EACH_RPS = 10.0
REGIONS = 2
GONE = (Phase.UNREACHABLE, Phase.LOST)
EU = ("fra", "par")
MOST_RPS = 80.0
"""What each front door counts at most, as declared: what a lie that lasts is believed to the end."""
LEAST_USD, MOST_USD = 0.1, 10_000.0
"""A tenth of the catalogue's price is the least that is believed."""
MOST_DEVICES = 16
"""Twice what is declared of a pool."""
MOST_READY = 64
"""A controller that starts does not know what was there a moment ago."""
KM_PER_RTT_MS, MOST_RTT_MS = 100.0, 5_000.0


PERSON = "somebody"
"""Who hands in policies and forces what does harm: stops that name this person are meant."""


class Broken(AssertionError):
    """Something that must hold does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Second:
    """What was true at one second. `eu_rps` may be served in the EU alone, `rps` anywhere."""

    at_s: float
    eu_rps: float
    rps: float
    ready: Mapping[str, int]
    floor: int
    most: float


class Oracle:
    """Watches one fleet. Args: liar: whose counts need not be true."""

    def __init__(self, fleet: SimFleet, liar: str) -> None:
        self._fleet, self.liar = fleet, liar
        self._seconds: list[Second] = []
        self._given_s: dict[tuple[str, int, int], float] = {}
        self._fence = (0, 0)
        self._braked: tuple[object, object] | None = None
        self._braked_routes: Routes | None = None
        self._documents: Documents | None = None
        self._seen: dict[str, ClusterState] = {}
        self._solve: Solve | None = None
        self._least, self._most = 0, math.inf
        self._seen_routes: Routes | None = None
        self.braked_s = 0
        self.stops = self.ordered = 0
        self.may_stop = False
        """Whether somebody has forced anything yet."""

    def given(self, desired: messages.Desired) -> None:
        """The controller gave this order: for the first time, or again."""
        self._given_s.setdefault((desired.cluster, desired.epoch, desired.generation), self._fleet.clock.now_s)

    def carried_out(self, agent: SimAgent, desired: messages.Desired, before: int, after: int) -> None:
        """An agent carried out an order: truly ready there were `before`, and are `after`."""
        if after >= before:
            return
        self.stops += 1
        fleet = self._fleet
        reasons = [one.stop_reason for one in desired.workloads]
        if self.may_stop and any(f"by {PERSON}: " in one for one in reasons):
            self.ordered += 1
            return
        key = (desired.cluster, desired.epoch, desired.generation)
        since_s = self._given_s.get(key, fleet.clock.now_s) - LATE_S
        first = bisect_left(self._seconds, since_s, key=lambda one: one.at_s)
        window = [*self._seconds[first:], self._now()]
        eu_rps, rps = min(one.eu_rps for one in window), min(one.rps for one in window)
        elsewhere = max(sum(n for name, n in one.ready.items() if name != agent.name) for one in window)
        left = elsewhere + after
        floor = min(one.floor for one in window)
        said = f"{agent.name} stops {before - after} of {before} ready by {key[1]}.{key[2]} ({reasons})"
        served, had_served = (
            max(_served_rps(self._with(one, agent.name, count), eu_rps, rps) for one in window)
            for count in (after, before)
        )
        if served + 1e-6 < had_served and left < min(one.most for one in window):
            raise Broken(f"{said}; {left} left carry {served:.0f} and not {had_served:.0f} requests/s: {fleet.ready()}")
        if left < floor <= elsewhere + before:
            raise Broken(f"{said}; {left} left are below the floor: {fleet.ready()}")
        regions = max(len({n for n, count in self._with(one, agent.name, after).items() if count}) for one in window)
        had = max(len({n for n, count in self._with(one, agent.name, before).items() if count}) for one in window)
        if regions < REGIONS <= had:
            raise Broken(f"{said}; what is left is in {regions} region: {fleet.ready()}")

    def kept(self, agent: SimAgent, before: int, after: int, ordered: int) -> None:
        """An agent held its cluster to its order: truly ready there were `before`, and are `after`."""
        if after < min(before, ordered):
            raise Broken(f"{agent.name} stops {before - after} of {before} ready though {ordered} are ordered")

    @staticmethod
    def _with(second: Second, name: str, count: int) -> dict[str, int]:
        return {**second.ready, name: count}

    def look(self) -> None:
        """One second has passed."""
        self._seconds.append(self._now())
        self._look_at_shares()
        self._look_at_fence()
        self._look_at_brake()
        self._look_at_beliefs()

    def _now(self) -> Second:
        fleet, asked_rps = self._fleet, {True: 0.0, False: 0.0}
        for name, agent in fleet.agents.items():
            if agent.cells and self._can_be_known(name):
                true_rps = sum(cell.requests_per_second for cell in agent.cells)
                is_unsure = name == self.liar or self._waits(name)
                true_rps = min(true_rps, self._believed_rps(name)) if is_unsure else true_rps
                asked_rps[name[:3] in EU] += true_rps
        self._look_at_policy()
        return Second(
            at_s=fleet.clock.now_s,
            eu_rps=asked_rps[True],
            rps=asked_rps[False],
            ready=fleet.ready(),
            floor=self._least,
            most=self._most,
        )

    def _believed_rps(self, name: str) -> float:
        """What is believed that a door counts: of one that lies, what it truly counts cannot be known."""
        return sum(row.requests_per_second for row in self._fleet.hub.world.clusters[name].counted)

    def _waits(self, name: str) -> bool:
        """Whether more is claimed than is believed: by the stated rule a jump waits until it lasts."""
        level = self._fleet.hub.world.clusters[name].level
        return level is not None and level.is_doubted

    def _look_at_policy(self) -> None:
        known = self._fleet.hub.world.documents
        if known is not self._documents:
            policy = known.policy_of("chat")
            self._documents = known
            self._least = policy.spec.availability.min_replicas if policy is not None else 0
            most = policy.spec.availability.max_replicas if policy is not None else None
            self._most = math.inf if most is None else most

    def _can_be_known(self, name: str) -> bool:
        """Whether what its door counts still stands: by the stated rule, unheard it decays, and a controller that
        starts where the broker has forgotten it cannot know it."""
        world = self._fleet.hub.world
        state = world.clusters[name]
        if state.report is None:
            return False
        heard_s = state.heard_s if state.heard_s is not None else world.started_s
        return self._fleet.clock.now_s - heard_s < world.timing.count_stands_s

    def _look_at_shares(self) -> None:
        self._look_at_the_lost()
        routes = self._fleet.hub.routes
        if routes is self._seen_routes:
            return
        self._seen_routes = routes
        for route in routes.routes:
            total = sum(share.share for share in route.now)
            if total > 1 + 1e-4:
                raise Broken(f"{route.cell} is served {total:.4f} times")
            if route.cell == "Berlin" and any(share.cluster[:3] not in EU for share in route.now):
                raise Broken(f"Berlin is sent out of the EU: {[share.cluster for share in route.now]}")

    def _look_at_the_lost(self) -> None:
        """Whatever ails the controller, requests leave who is lost."""
        hub, now_s = self._fleet.hub, self._fleet.clock.now_s
        gone = [n for n, one in hub.world.clusters.items() if one.phase in GONE and now_s - one.since_s > 2 * TICK_S]
        if not gone or hub.world.braked or hub.may_take_over or hub.outvoted() or not hub.world.is_settled(now_s):
            return
        late = {share.cluster for route in hub.routes.routes for share in route.now}.intersection(gone)
        if late:
            raise Broken(f"requests still go to {sorted(late)}")

    def _look_at_fence(self) -> None:
        hub = self._fleet.hub
        fence = (hub.epoch, hub.plan.generation)
        if fence < self._fence:
            raise Broken(f"the plan's fence went back from {self._fence} to {fence}")
        self._fence = fence

    def _look_at_brake(self) -> None:
        hub = self._fleet.hub
        if not hub.world.braked:
            self._braked = self._braked_routes = None
            return
        self.braked_s += 1
        desired = hub.plan.desired
        routable = {name: hub.world.is_routable(name) for name in hub.world.clusters}
        if self._braked is not None and self._braked != (desired, routable):
            raise Broken(f"under the brake desired states or routable clusters change: {hub.world.braked}")
        before = self._braked_routes or hub.routes
        if before is not hub.routes:
            left = routing.without_replicas(hub.world, before)  # who says of itself that none is ready is left
            was, now = before.by_key(), hub.routes.by_key()
            changed = {key for key in was.keys() | now.keys() if was.get(key) != now.get(key)} - left
            if changed:
                raise Broken(f"under the brake shares of {sorted(changed)} change: {hub.world.braked}")
        self._braked, self._braked_routes = (desired, routable), hub.routes

    def _look_at_beliefs(self) -> None:
        """What is believed of each member can be true of some cluster, and is no more than was declared of this one."""
        hub = self._fleet.hub
        for name, state in hub.world.clusters.items():
            if self._seen.get(name) is state:
                continue
            self._seen[name] = state
            counted_rps = sum(row.requests_per_second for row in state.counted)
            if not counted_rps <= MOST_RPS + 1e-6:
                raise Broken(f"{name} is believed to count {counted_rps:g} requests/s")
            report = state.report
            if report is None:
                continue
            for pool in report.pools:
                usd = pool.usd_per_device_hour
                if usd is not None and not LEAST_USD <= usd <= MOST_USD:
                    raise Broken(f"{name} is believed to have {pool.key.text} at {usd:g} USD")
            ready = sum(one.ready for one in report.replicas)
            if ready > MOST_READY:
                raise Broken(f"{ready} replicas are believed to be ready in {name}")
            is_told = any(one.type == "ImplausibleRoundTrip" for one in state.findings)
            for peer in report.peers if not is_told else ():  # the estimator finds out whose place or word is wrong
                light_ms = _light_ms(name[:3], peer.cluster[:3])
                if not light_ms * 0.9 - 2.0 < peer.rtt_ms_p50 <= MOST_RTT_MS or peer.rtt_ms_p50 <= 0.0:
                    raise Broken(f"{peer.cluster} is believed to be {peer.rtt_ms_p50:g} ms from {name}")
        berlin = hub.world.cells.get("Berlin")
        if berlin is not None and "DE" not in berlin.country:
            raise Broken(f"Berlin is believed to be in {berlin.country}")
        if hub.last_solve is self._solve:
            return
        self._solve = hub.last_solve
        for one in hub.last_solve.formulated.problem.pools if hub.last_solve is not None else ():
            if one.devices > MOST_DEVICES:
                raise Broken(f"plans count on {one.devices} devices of {one.name}")

    def forget(self) -> None:
        """The controller starts again: whether it braked before is nothing that it must remember."""
        self._braked = self._braked_routes = None


def _served_rps(ready: Mapping[str, int], eu_rps: float, rps: float) -> float:
    """What replicas in these clusters serve of what may be served in the EU alone, and of what may be anywhere."""
    in_eu = EACH_RPS * sum(count for name, count in ready.items() if name[:3] in EU)
    elsewhere = EACH_RPS * sum(count for name, count in ready.items() if name[:3] not in EU)
    return min(eu_rps, in_eu) + min(rps, elsewhere + max(0.0, in_eu - eu_rps))


@functools.cache
def _light_ms(one: str, other: str) -> float:
    """What light takes there and back through fibre."""
    here, there = PLACES[one], PLACES[other]
    return great_circle_km(here[0], here[1], there[0], there[1]) / KM_PER_RTT_MS
