"""The heartbeat: lets silence become knowledge, and keeps the gauges true."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

from federation.loops.hub import Hub
from federation.state.phases import Phase
from federation.state.reduce import Slept, TimePassed


async def run(hub: Hub) -> None:
    """Tell the world the time, every tick and when something is to be believed, for ever."""
    clock = hub.clock
    told_s = clock.monotonic_s()
    while True:
        due_s = min(told_s + hub.world.timing.tick_s, hub.look_at_s)
        if await hub.look.wait(max(0.0, due_s - clock.monotonic_s())):
            continue
        now_s = clock.monotonic_s()
        if now_s - told_s > hub.world.timing.longest_tick_s():
            hub.apply(Slept(gap_s=now_s - told_s, now_s=now_s))
        hub.look_at_s = float("inf")
        hub.apply(TimePassed(now_s=now_s, waiting=hub.waiting()))
        told_s = now_s
        hub.resteer.set("")
        measure(hub)
        hub.wake()


def measure(hub: Hub) -> None:
    """Set every gauge from the newest belief. Labels are names of the catalogue and of the plan, never what an agent
    makes up, and go when their cluster or model goes."""
    world, metrics = hub.world, hub.metrics
    phases = Counter(state.phase for state in world.clusters.values())
    for phase in Phase:
        metrics.clusters.labels(state=phase.value).set(phases[phase])
    desired, ready = Counter[str](), Counter[str]()
    for (model, _, _), count in hub.plan.desired_by_key().items():
        desired[model] += count
    for (model, _, _), count in world.ready_replicas().items():
        ready[model] += count
    models = sorted(desired.keys() | {one.metadata.name for one in hub.documents_in_force().models})
    replicas = {
        (model, state): count[model] for model in models for state, count in (("desired", desired), ("ready", ready))
    }
    metrics.set_all(metrics.model_replicas, replicas)
    for cause, usd in asdict(hub.plan.placement.cost).items():
        metrics.plan_cost_usd_per_hour.labels(cause=cause).set(usd)
    round_trips = {
        (model, figure): ms / 1000.0
        for model, near in hub.plan.placement.near_by_model.items()
        for figure, ms in (("mean", near.rtt_ms_mean), ("p95", near.rtt_ms_p95), ("excess", near.excess_ms_mean))
    }
    metrics.set_all(metrics.plan_round_trip_seconds, round_trips)
    metrics.plan_generation.set(hub.plan.generation)
    metrics.plan_epoch.set(hub.epoch)
    metrics.brake_active.set(1 if world.braked else 0)
