"""A move of requests as one act: place, warm, shift by steps, drain, remove; and back again when it does harm. Pure.

What a shift remembers is small and may be lost: a controller that starts anew starts its timers anew, and what degrades
is seen to degrade again.

* A receiver is *warm* when it has been ready for as long as gateways need to believe it.
* While the replicas of a receiver fail or are slow beyond the policy, it is *held*: given no more. When that lasts a
  whole step, it is *barred*: its requests go back to what it had when the shift began. It is tried again after the
  policy's time, which doubles with each failure.
* A cluster that was lost is given nothing new until the world trusts it again: one that comes and goes has its
  requests moved once.
* What leaves is *drained*: its replicas stop when they have not been sent requests for the policy's time.
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
"""A cluster whose first replica is ready so long may be given requests: by then gateways have checked its health."""
LONGEST_BAR_S = 3600.0
FORGET_S = 3600.0
LEAST_RPS = 0.5
"""Fewer requests than this say nothing about how a cluster serves."""
GREW = 1e-3
WATCHED_STEPS = 4.0
"""A receiver answers for what it was given for so many steps after it last grew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverGrowth:
    """A receiver that has been given more: what it had before, in parts of each cell's requests, and when."""

    before: Mapping[str, float]
    grew_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A receiver that did harm: it keeps no more than `before` until `until_s`. `strikes` counts how often."""

    before: Mapping[str, float]
    until_s: float
    strikes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftMemory:
    """What shifts remember; all instants are monotonic seconds of the controller's clock."""

    ready_s: Mapping[ModelCluster, float] = field(default_factory=dict)
    growths: Mapping[ModelCluster, ReceiverGrowth] = field(default_factory=dict)
    bad_s: Mapping[ModelCluster, float] = field(default_factory=dict)
    """Since when a growing receiver has been beyond what the policy allows."""
    bars: Mapping[ModelCluster, Bar] = field(default_factory=dict)
    loads: Mapping[ModelCluster, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    """(instant, requests per second) that were routed there, as far back as draining needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What the next step has to respect. `held`: may not grow. `barred`: no more than it had before.

    `why` has a sentence for each that is held or barred.
    """

    memory: ShiftMemory
    held: frozenset[ModelCluster] = frozenset()
    barred: Mapping[ModelCluster, Bar] = field(default_factory=dict)
    why: Mapping[ModelCluster, str] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()


def look(memory: ShiftMemory, world: World, routes: Routes, traffic: Mapping[str, Traffic], now_s: float) -> Outlook:
    """What to respect now, and what to remember. Args: traffic: model -> policy."""
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
    """Clusters that came back not long ago: they keep what they have, and get nothing new."""
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
    """Who is given more by the routes in force, or was not long ago."""
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
    """Why a receiver should be given no more, by what its own gateway measured; nothing where nobody measures."""
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
    """What to remember once `routes` follow `before` and send `load_rps`."""
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
    """The most that each was sent within the time that draining takes: as much may still be under way there."""
    return {key: max(rps for _, rps in rows) for key, rows in memory.loads.items()}


def restrain(
    present: Mapping[str, float], following: Mapping[str, float], model: str, cell: str, outlook: Outlook
) -> dict[str, float]:
    """A cell's next shares with nobody grown who may not: what is not given stays where it was, if anything is there.

    Only what is left of `present` is kept: shares that cannot be served there any more go on to where they are sent.
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
