"""Replicas that do not become ready, and replicas that die again and again, are feedback to the plan. Pure.

A replica that is not ready within the model's warm-up and a margin counts as absent, and the plan uses another place.
The pool is tried again after a time that doubles with each failure: with one replica first, and twice as many after
each success, so that a healed pool gets its load back gradually.

A cause that belongs to the model (its image, its arguments) in more than one cluster, while it is ready nowhere, ends
the search for other places: until its document changes, the model is tried again only where it has failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from federation.control import desired as desired_state
from federation.state.keys import PlacementKey
from federation.state.phases import Phase
from federation.state.reduce import Note
from federation.state.world import Setback, Setbacks, Wait, World
from federation.wire.messages import Cause, ReplicaReport

MARGIN_S = 60.0
"""Beyond the model's warm-up: nodes pull images, and probes take time."""
FIRST_RETRY_S = 300.0
LONGEST_RETRY_S = 3600.0
DEATHS = 3
"""Replicas that died this often within `DEATHS_WITHIN_S` are not relied on."""
DEATHS_WITHIN_S = 900.0
OF_THE_MODEL: frozenset[Cause] = frozenset({"image", "crash", "config", "refused"})
"""Causes that a model may bring along to any cluster."""
HUNTED = 2
"""A model that has failed in this many clusters, for a cause of its own, is tried in no other."""


def look(world: World, desired: Mapping[PlacementKey, int], now_s: float) -> tuple[Setbacks, tuple[Note, ...]]:
    """The replicas that did not become ready, and the events. Args: desired: the counts that agents were told.

    Under the brake nothing is concluded: a cluster that is not heard is not known to have failed.
    """
    before = world.setbacks
    if world.brake is not None or world.deaf:
        return before, ()
    warmup_s = {document.metadata.name: document.spec.warmup_seconds for document in world.documents.models}
    version = {document.metadata.name: desired_state.version(document) for document in world.documents.models}
    reports = {
        (one.model, name, one.pool): one
        for name, state in world.clusters.items()
        if state.report is not None
        for one in state.report.replicas
    }
    waits: dict[PlacementKey, Wait] = {}
    backoffs = {
        key: one
        for key, one in before.backoffs.items()
        if version.get(key.model) == one.version
        and key.cluster in world.clusters
        and now_s <= one.until_s + LONGEST_RETRY_S
    }
    notes: list[Note] = []
    for key, count in sorted(desired.items(), key=lambda one: one[0]):
        if key.model not in warmup_s or key.cluster not in world.clusters or count <= 0:
            continue
        earlier, report = before.waits.get(key), reports.get(key)
        if world.clusters[key.cluster].phase is not Phase.READY:
            if earlier is not None:
                waits[key] = replace(earlier, since_s=now_s)  # what is not heard is not late
            continue
        patience_s = warmup_s[key.model] + MARGIN_S
        wait, backoff = _wait(earlier, report, count, now_s), backoffs.get(key)
        is_barred = backoff is not None and now_s < backoff.until_s
        if not is_barred and _has_failed(wait, count, patience_s, now_s):
            backoffs[key] = _backed_off(world, key, wait, backoff, report, version[key.model], now_s)
            notes.append(_failure(backoffs[key], count, patience_s, now_s))
            wait = replace(wait, since_s=now_s, deaths_s=())
        elif backoff is not None and is_barred and backoff.cause != "crash" and wait.ready > backoff.kept:
            backoffs[key] = replace(backoff, kept=wait.ready)  # late, and there all the same
        elif backoff is not None and not is_barred:
            if wait.ready > backoff.kept:
                backoffs[key] = backoff = replace(backoff, kept=wait.ready, is_tried=True)
            if backoff.is_tried and wait.ready >= count and now_s - wait.since_s >= patience_s:
                del backoffs[key]
                text = f"{key.model} in {key.cluster} on {key.pool.text} is well again: {wait.ready} replicas ready"
                notes.append(Note(reason="ReplicasRecovered", object=f"model/{key.model}", message=text))
        waits[key] = wait
    following = Setbacks(waits=waits, backoffs=backoffs)
    for model in sorted({key.model for key in backoffs}):
        text = why_not_hunted(world, following, model, now_s)
        if text and not why_not_hunted(world, before, model, now_s):
            notes.append(Note(type="Warning", reason="ModelFails", object=f"model/{model}", message=text))
    return (before if following == before else following), tuple(notes)


def most(setbacks: Setbacks, key: PlacementKey, now_s: float) -> int | None:
    """How many replicas may be planned at `key`, or None where nothing bounds them."""
    backoff = setbacks.backoffs.get(key)
    return backoff.kept if backoff is not None and now_s < backoff.until_s else None


def limits(setbacks: Setbacks, now_s: float) -> dict[PlacementKey, int]:
    """How many of the planned replicas agents may be told at once: one more than are ready, then twice as many."""
    return {
        key: one.kept if now_s < one.until_s else one.kept + max(1, one.kept) for key, one in setbacks.backoffs.items()
    }


def why_not_hunted(world: World, setbacks: Setbacks, model: str, now_s: float) -> str:
    """Why a model that fails wherever it starts is not tried in further clusters; empty where it is."""
    failed = [
        one
        for key, one in sorted(setbacks.backoffs.items(), key=lambda item: item[0])
        if key.model == model and one.cause in OF_THE_MODEL and not one.is_tried
    ]
    places = sorted({one.key.cluster for one in failed})
    if len(places) < HUNTED or any(key.model == model for key in world.ready_replicas()):
        return ""
    again_s = max(0.0, min(one.until_s for one in failed) - now_s)
    return (
        f"{model} fails wherever it starts ({', '.join(places)}): {failed[0].reason}. No other cluster is tried; these "
        f"are tried again in {again_s:.0f} s. Correct its Model document"
    )


def sentence(backoff: Setback, now_s: float) -> str:
    """For people: what failed, why, and when it is tried again."""
    model, cluster, pool = backoff.key
    again = f"tried again in {backoff.until_s - now_s:.0f} s" if now_s < backoff.until_s else "tried again"
    return f"{model} in {cluster} on {pool.text}: {backoff.reason}; {again}"


def _wait(earlier: Wait | None, report: ReplicaReport | None, count: int, now_s: float) -> Wait:
    ready = report.ready if report is not None else 0
    restarts = report.restarts if report is not None else 0
    if earlier is None:
        return Wait(since_s=now_s, wanted=count, ready=ready, restarts=restarts)
    died = restarts > earlier.restarts or (count >= earlier.wanted and ready < min(earlier.ready, count))
    deaths_s = tuple(at_s for at_s in earlier.deaths_s if now_s - at_s <= DEATHS_WITHIN_S)
    is_progress = ready > earlier.ready or count > earlier.wanted
    fell_short = ready < count and earlier.ready >= earlier.wanted
    return Wait(
        since_s=now_s if is_progress or fell_short else earlier.since_s,
        wanted=count,
        ready=ready,
        restarts=restarts,
        deaths_s=(*deaths_s, now_s) if died else deaths_s,
    )


def _has_failed(wait: Wait, count: int, patience_s: float, now_s: float) -> bool:
    return len(wait.deaths_s) >= DEATHS or (wait.ready < count and now_s - wait.since_s >= patience_s)


def _backed_off(
    world: World,
    key: PlacementKey,
    wait: Wait,
    earlier: Setback | None,
    report: ReplicaReport | None,
    version: str,
    now_s: float,
) -> Setback:
    strikes = earlier.strikes + 1 if earlier is not None else 1
    cause: Cause = "crash" if len(wait.deaths_s) >= DEATHS else report.cause if report is not None else "refused"
    reason = report.reason if report is not None else _refusal(world, key)
    if not reason:
        reason = f"died {len(wait.deaths_s)} times" if wait.deaths_s else "its cluster does not say why"
    return Setback(
        key=key,
        cause=cause,
        reason=reason,
        kept=wait.ready if len(wait.deaths_s) < DEATHS else 0,
        until_s=now_s + min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** (strikes - 1)),
        strikes=strikes,
        version=version,
    )


def _refusal(world: World, key: PlacementKey) -> str:
    """What the agent or its API server said of an order that left no trace."""
    state = world.clusters[key.cluster]
    conditions = state.report.conditions if state.report is not None else ()
    subject = f"model/{key.model} on {key.pool.text}"
    told = [one.message for one in conditions if one.object == subject]
    if told:
        return told[0]
    return state.ack.error if state.ack is not None and not state.ack.ok else ""


def _failure(backoff: Setback, count: int, patience_s: float, now_s: float) -> Note:
    model, cluster, pool = backoff.key
    head = f"{count - backoff.kept} of {count} replicas of {model} in {cluster} on {pool.text} "
    verb = "die again and again" if backoff.cause == "crash" else f"did not become ready in {patience_s:.0f} s"
    tail = f"they count as not there; tried again in {backoff.until_s - now_s:.0f} s"
    text = f"{head}{verb}: {backoff.reason}; {tail}"
    return Note(type="Warning", reason="ReplicasFailed", object=f"model/{model}", message=text)
