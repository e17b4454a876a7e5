"""What a replica serves, learnt from what replicas served while they were full. Pure.

A Model document declares requests per second of a replica on each accelerator. Where engines report requests that wait,
what they answer is what they can: its ratio to the declared figure is an observation. Answering more than is counted on
is one as well. An observation has to last for `Timing.lasting_s` with the same replicas, as rates are of a minute.

The learnt factor moves towards the median of the clusters' observations by at most `STEP` per `lasting_s`, and stays
within `LEAST` and `MOST`: one wrong engine moves it by one step at a time, and in a fleet not at all.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace

from federation.policy import documents
from federation.state.world import ClusterState, Learnt, Observed, World
from federation.wire import messages

LEAST, MOST = 0.5, 2.0
STEP = 0.05
WAITING_PER_REPLICA = 1.0
"""So many requests waiting for each replica: all are full."""
FRESH_S = 600.0
"""Observations of other clusters count for so long."""

ShapeKey = tuple[str, str, str]
"""(model, product, MIG profile)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A cluster's replicas of one model, all of one shape."""

    key: ShapeKey
    replicas: int
    declared_rps: float


def factor(world: World, model: str, one: documents.Accelerator) -> float:
    """What a replica serves relative to what is declared; 1 where nothing is learnt of this declaration."""
    known = world.learnt.get((model, one.product, one.mig_profile or ""))
    return known.factor if known is not None and known.declared_rps == one.requests_per_second else 1.0


def learnt(world: World, before: ClusterState, report: messages.Report, now_s: float) -> World:
    """The world after a report of engines; the same where it teaches nothing."""
    if not report.engines and not before.observed:
        return world
    observed: dict[str, Observed] = {}
    following = world
    for engine in report.engines:
        running = running_shape(world, report, engine.model)
        if running is None or engine.requests_per_second is None or running.replicas != engine.replicas:
            continue
        ratio = engine.requests_per_second / (running.replicas * running.declared_rps)
        if not _is_full(engine) and ratio <= learnt_of(world, running).factor:
            continue
        earlier = before.observed.get(engine.model)
        lasts = earlier is not None and (earlier.key, earlier.replicas) == (running.key, running.replicas)
        since_s = earlier.since_s if lasts and earlier is not None else now_s
        one = Observed(key=running.key, replicas=running.replicas, ratio=ratio, since_s=since_s, at_s=now_s)
        observed[engine.model] = one
        if now_s - since_s >= world.timing.lasting_s:
            following = _stepped(following, before.name, running, one, now_s)
    if observed != before.observed:
        state = replace(following.clusters[before.name], observed=observed)
        following = following.with_clusters({before.name: state})
    return following


def _is_full(engine: messages.EngineSample) -> bool:
    return engine.waiting is not None and engine.waiting >= WAITING_PER_REPLICA * max(1, engine.replicas)


def running_shape(world: World, report: messages.Report, model: str) -> Running | None:
    """The replicas of a model; None where there are none, or several shapes, whose parts nobody can tell."""
    ready = [one for one in report.replicas if one.model == model and one.ready]
    shapes = {(one.pool.product, one.pool.mig_profile) for one in ready}
    if len(shapes) != 1:
        return None
    ((product, profile),) = shapes
    document = next((one for one in world.documents.models if one.metadata.name == model), None)
    for shape in document.spec.accelerators if document is not None else ():
        if (shape.product, shape.mig_profile or "") == (product, profile):
            count = sum(one.ready for one in ready)
            return Running(key=(model, product, profile), replicas=count, declared_rps=shape.requests_per_second)
    return None


def learnt_of(world: World, running: Running) -> Learnt:
    """Of the replicas' shape; a factor of 1 where nothing is learnt."""
    known = world.learnt.get(running.key)
    if known is not None and known.declared_rps == running.declared_rps:
        return known
    return Learnt(factor=1.0, declared_rps=running.declared_rps, at_s=float("-inf"))


def _stepped(world: World, cluster: str, running: Running, one: Observed, now_s: float) -> World:
    """The world with the learnt factor one step nearer to what clusters observe, if a step is due."""
    known = learnt_of(world, running)
    if now_s - known.at_s < world.timing.lasting_s:
        return world
    ratios = [one.ratio]
    for name, state in world.clusters.items():
        other = state.observed.get(running.key[0]) if name != cluster else None
        if other is not None and other.key == running.key and _counts(world, other, now_s):
            ratios.append(other.ratio)
    wanted = min(MOST, max(LEAST, statistics.median(ratios)))
    moved = min(known.factor * (1 + STEP), max(known.factor * (1 - STEP), wanted))
    if abs(wanted / known.factor - 1) < STEP / 2:
        return world
    made = Learnt(factor=moved, declared_rps=running.declared_rps, at_s=now_s)
    return replace(world, learnt=_with(world.learnt, running.key, made))


def _counts(world: World, other: Observed, now_s: float) -> bool:
    return now_s - other.at_s <= FRESH_S and other.at_s - other.since_s >= world.timing.lasting_s


def _with(learnt_by: Mapping[ShapeKey, Learnt], key: ShapeKey, made: Learnt) -> Mapping[ShapeKey, Learnt]:
    return {**learnt_by, key: made}
