"""A shift moves requests in one act: place, warm, move by steps, drain, remove; and it goes back when it does harm.
Pure.

Its memory is small and may be lost. After a restart the timers start again, and a receiver that still degrades is seen
to degrade.

* A receiver is *warm* when it has been ready for as long as gateways need to check its health.
* A receiver whose replicas fail or are slower than the policy allows is *held*: it gets no more requests. When that
  lasts a whole step, it is *barred*: it goes back to the requests that it had before the shift. After the policy's
  time, which doubles with each failure, it is tried again.
* A cluster that was lost gets no new requests until it is trusted again, so a cluster that comes and goes moves its
  requests once.
* A cluster that loses its requests is *drained*: its replicas stop when it has got no requests for the policy's time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from federation.control.plan import Route, Routes
from federation.policy.documents import Traffic
from federation.state.keys import ModelCluster
from federation.state.phases import Phase
from federation.state.reasons import EventReason
from federation.state.reduce import Note
from federation.state.world import World

WARM_S = 3.0
"""A cluster may get requests when its first replica has been ready for this long: by then gateways have checked it."""
LONGEST_BAR_S = 3600.0
FORGET_S = 3600.0
LEAST_RPS = 0.5
"""Fewer requests than this say nothing about how well a cluster serves."""
GREW = 1e-3
WATCHED_STEPS = 4.0
"""For this many steps after its last growth, a receiver answers for that growth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverGrowth:
    """A receiver that was given more requests: its earlier part of each cell's requests, and the instant."""

    before: Mapping[str, float]
    grew_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A receiver that did harm: it keeps no more than `before` until `until_s`. `strikes` counts its failures."""

    before: Mapping[str, float]
    until_s: float
    strikes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftMemory:
    """The memory of all shifts; instants are monotonic seconds of the controller's clock."""

    ready_s: Mapping[ModelCluster, float] = field(default_factory=dict)
    growths: Mapping[ModelCluster, ReceiverGrowth] = field(default_factory=dict)
    bad_s: Mapping[ModelCluster, float] = field(default_factory=dict)
    """When a growing receiver began to violate its policy."""
    bars: Mapping[ModelCluster, Bar] = field(default_factory=dict)
    loads: Mapping[ModelCluster, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    """(instant, requests per second) that were routed there, for the time of draining."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """The bounds of the next step. `held`: may not grow. `barred`: no more than before the shift.

    `why` has a sentence for each receiver that is held or barred.
    """

    memory: ShiftMemory
    held: frozenset[ModelCluster] = frozenset()
    barred: Mapping[ModelCluster, Bar] = field(default_factory=dict)
    why: Mapping[ModelCluster, str] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()


def look(memory: ShiftMemory, world: World, routes: Routes, traffic: Mapping[str, Traffic], now_s: float) -> Outlook:
    """The bounds of the next step, and the memory after it. Args: traffic: model -> policy."""
    memory = _readiness(memory, world, now_s)
    receiving = _receiving(memory, routes, traffic, now_s)
    held: set[ModelCluster] = set()
    why: dict[ModelCluster, str] = {}
    notes: list[Note] = []
    bad_s, bars = dict(memory.bad_s), {key: bar for key, bar in memory.bars.items() if now_s < bar.until_s + FORGET_S}
    for key in sorted(memory.ready_s):
        if now_s - memory.ready_s[key] < WARM_S:
            held.add(key)
            why[key] = f"{key.cluster} is not warm yet"
    for key in sorted(receiving | bad_s.keys()):
        rules = traffic.get(key.model, Traffic())
        complaint = _complaint(world, key, rules)
        if not complaint or key not in receiving:
            bad_s.pop(key, None)
            continue
        held.add(key)
        why[key] = complaint
        since_s = bad_s.setdefault(key, now_s)
        if since_s == now_s:
            notes.append(_warn("ShiftHeld", key, f"the shift of {key.model} to {key.cluster} waits: {complaint}"))
        if now_s - since_s >= rules.step_seconds and not _in_force(bars.get(key), now_s):
            strikes = (bars[key].strikes if key in bars else 0) + 1
            wait_s = min(LONGEST_BAR_S, rules.retry_seconds * 2 ** (strikes - 1))
            growth = memory.growths.get(key)
            bars[key] = Bar(before=growth.before if growth else {}, until_s=now_s + wait_s, strikes=strikes)
            bad_s.pop(key)
            text = f"{key.model} goes back from {key.cluster}: {complaint}; tried again in {wait_s:.0f} s"
            notes.append(_warn("ShiftBack", key, text))
    in_force = {key: bar for key, bar in sorted(bars.items()) if _in_force(bar, now_s)}
    why |= {
        key: f"{key.cluster} did harm and is tried again in {bar.until_s - now_s:.0f} s"
        for key, bar in in_force.items()
    }
    for key, bar in _unsteady(world, routes, traffic, now_s).items():
        in_force.setdefault(key, bar)
        why.setdefault(key, f"{key.cluster} came back and is not heard steadily yet")
    return Outlook(
        memory=replace(memory, bad_s=bad_s, bars=bars),
        held=frozenset(held),
        barred=in_force,
        why=why,
        notes=tuple(notes),
    )


def _in_force(bar: Bar | None, now_s: float) -> bool:
    return bar is not None and now_s < bar.until_s


def _unsteady(world: World, routes: Routes, traffic: Mapping[str, Traffic], now_s: float) -> dict[ModelCluster, Bar]:
    """Clusters that came back recently: they keep their requests, and get no new ones."""
    bars = {}
    for name, state in sorted(world.clusters.items()):
        if state.phase is Phase.READY and state.unsteady_s is not None:
            for model in sorted(traffic):
                kept = {route.cell: _share(route, name) for route in routes.routes if route.model == model}
                bars[ModelCluster(model, name)] = Bar(before=kept, until_s=now_s, strikes=0)
    return bars


def _readiness(memory: ShiftMemory, world: World, now_s: float) -> ShiftMemory:
    ready = {ModelCluster(model, cluster) for (model, cluster, _), count in world.ready_replicas().items() if count > 0}
    started = not memory.ready_s
    since = {key: memory.ready_s.get(key, -math.inf if started else now_s) for key in ready}
    return replace(memory, ready_s=since)


def _receiving(
    memory: ShiftMemory, routes: Routes, traffic: Mapping[str, Traffic], now_s: float
) -> frozenset[ModelCluster]:
    """The receivers that grow by the routes in force, or grew recently."""
    recent = {
        key
        for key, growth in memory.growths.items()
        if now_s - growth.grew_s < WATCHED_STEPS * traffic.get(key.model, Traffic()).step_seconds
    }
    growing = {
        ModelCluster(route.model, share.cluster)
        for route in routes.routes
        for share in (route.target if route.target is not route.now else ())
        if share.share > _share(route, share.cluster) + GREW and _share(route, share.cluster) > 0
    }
    return frozenset(recent | growing)


def _share(route: Route, cluster: str) -> float:
    return next((one.share for one in route.now if one.cluster == cluster), 0.0)


def _complaint(world: World, key: ModelCluster, rules: Traffic) -> str:
    """The reason why a receiver should get no more requests, by its own gateway's measurements; empty without any."""
    model, cluster = key
    state = world.clusters.get(cluster)
    if state is None or state.report is None or state.phase is not Phase.READY:
        return ""
    objective = next((d.spec.slo.p95_latency_ms for d in world.documents.models if d.metadata.name == model), math.inf)
    limit_ms = rules.max_latency_ms if rules.max_latency_ms is not None else objective
    for one in state.report.served:
        if one.model != model or one.requests_per_second < LEAST_RPS:
            continue
        if 100 * one.error_share > rules.max_error_percent:
            return f"{cluster} fails {100 * one.error_share:.1f} % of requests, more than {rules.max_error_percent:g} %"
        if one.latency_ms_p95 is not None and one.latency_ms_p95 > limit_ms:
            return f"{cluster} takes {one.latency_ms_p95:.0f} ms, more than {limit_ms:g} ms"
    return ""


def after(
    memory: ShiftMemory,
    before: Routes,
    routes: Routes,
    load_rps: Mapping[ModelCluster, float],
    traffic: Mapping[str, Traffic],
    now_s: float,
) -> ShiftMemory:
    """The memory once `routes` follow `before` and send `load_rps`."""
    growths = {
        key: growth
        for key, growth in memory.growths.items()
        if now_s - growth.grew_s < WATCHED_STEPS * traffic.get(key.model, Traffic()).step_seconds
        or key in memory.bars
        or key in memory.bad_s
    }
    earlier = before.by_key() if routes is not before else {}
    for route in routes.routes if routes is not before else ():
        old = earlier.get(route.key)
        if old is route:
            continue
        for share in route.now:
            had = _share(old, share.cluster) if old is not None else 0.0
            if old is not None and old.now and share.share > had + GREW:
                key = ModelCluster(route.model, share.cluster)
                known = growths.get(key)
                kept = {} if known is None else dict(known.before)
                kept.setdefault(route.cell, had)
                growths[key] = ReceiverGrowth(before=kept, grew_s=now_s)
    loads = {}
    for key in sorted(memory.loads.keys() | load_rps.keys()):
        window_s = traffic.get(key.model, Traffic()).drain_seconds
        past = [(at_s, rps) for at_s, rps in memory.loads.get(key, ()) if now_s - at_s <= window_s and at_s < now_s]
        loads[key] = (*past, (now_s, load_rps.get(key, 0.0)))
    return replace(memory, growths=growths, loads={key: rows for key, rows in loads.items() if any(r for _, r in rows)})


def peak_rps(memory: ShiftMemory) -> dict[ModelCluster, float]:
    """The peak that each receiver got within the draining time: as many requests may still be under way."""
    return {key: max(rps for _, rps in rows) for key, rows in memory.loads.items()}


def restrain(
    present: Mapping[str, float], following: Mapping[str, float], model: str, cell: str, outlook: Outlook
) -> dict[str, float]:
    """A cell's next shares, where receivers that may not grow keep theirs. The remainder stays where it was, if it can
    be served there.

    Only the present shares that can still be served are kept; the others go to their targets.
    """
    result = dict(following)
    for cluster in sorted(following):
        had = present.get(cluster, 0.0)
        if (model, cluster) in outlook.held and following[cluster] > had + 1e-9:
            spare = {c: part - following.get(c, 0.0) for c, part in present.items() if part > following.get(c, 0.0)}
            spare = {c: part for c, part in spare.items() if c in following or c in present}
            room = sum(spare.values())
            back = min(following[cluster] - had, room)
            if back <= 0:
                continue
            result[cluster] -= back
            for c, part in spare.items():
                result[c] = result.get(c, 0.0) + back * part / room
    return {cluster: part for cluster, part in result.items() if part > 1e-6}


def _warn(reason: EventReason, key: ModelCluster, message: str) -> Note:
    return Note(type="Warning", reason=reason, object=f"model/{key.model}", message=message)
