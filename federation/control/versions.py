"""A new version of a model is tried at one place first, then used everywhere; it is given up where it does not start.
Pure.

A new image, new arguments or other resources restart a replica. One place gets the new version first, while all others
keep the version that works. Once a replica of it is ready there, all places get it. Where none becomes ready within the
warm-up and a margin, the version is given up until the document changes, and all places get the version before it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from federation.control import setbacks
from federation.control.desired import version
from federation.control.plan import Plan, Versions
from federation.policy.documents import Model
from federation.state.keys import ClusterPool, PlacementKey
from federation.state.phases import Phase
from federation.state.reduce import Note
from federation.state.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Advance:
    """Which version of each model is settled, which is tried or refused, the start of each trial (monotonic seconds),
    and the events."""

    settled: Mapping[str, Model]
    versions: Mapping[str, Versions]
    since_s: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()


def advance(
    world: World, plan: Plan, desired: Mapping[PlacementKey, int], since_s: Mapping[str, float], now_s: float
) -> Advance:
    """The next state of all versions. Args: since_s: model -> start of its trial, as far as remembered."""
    settled: dict[str, Model] = {}
    versions: dict[str, Versions] = {}
    began_s: dict[str, float] = {}
    notes: list[Note] = []
    by_model: dict[str, dict[ClusterPool, int]] = {document.metadata.name: {} for document in world.documents.models}
    for (model, cluster, pool), count in desired.items():
        if count > 0 and model in by_model:
            by_model[model][ClusterPool(cluster, pool)] = count
    for document in world.documents.models:
        name, known = document.metadata.name, plan.settled.get(document.metadata.name)
        places = by_model[name]
        is_known = known is not None and (version(known) == version(document) or not places)
        if known is None or is_known:
            if is_known or any(_newest_ready(world, plan, name, place) for place in places):
                settled[name] = document
            continue
        settled[name] = known
        state = plan.versions.get(name)
        if state is None or state.newest != version(document):
            state = Versions(settled=known, newest=version(document))
        elif state.trial in places and state.trial is not None and _newest_ready(world, plan, name, state.trial):
            settled[name] = document
            text = f"{name}: {_what(document)} starts in {state.trial[0]}; it follows everywhere"
            notes.append(Note(reason="VersionReady", object=f"model/{name}", message=text))
            continue
        following = _try(world, document, state, places, now_s - since_s.get(name, now_s))
        versions[name] = following
        is_same = following == plan.versions.get(name)
        began_s[name] = since_s.get(name, now_s) if is_same else now_s
        if not is_same:
            notes.append(_told(document, following))
    return Advance(settled=settled, versions=versions, since_s=began_s, notes=tuple(notes))


def _try(
    world: World, document: Model, state: Versions, places: Mapping[ClusterPool, int], waited_s: float
) -> Versions:
    """The next place of the newest version's trial, or the reason why it is refused."""
    if state.refused:
        is_over = waited_s >= setbacks.LONGEST_RETRY_S
        return Versions(settled=state.settled, newest=state.newest) if is_over else state
    is_late = waited_s >= document.spec.warmup_seconds + setbacks.MARGIN_S
    name = document.metadata.name
    if is_late and state.trial is not None and (name, *state.trial) in stuck(world):
        # It has no device to start on, which is not the version's fault: somewhere else may have one.
        return replace(state, trial=_place(world, places, (state.trial[0],)) or state.trial)
    if state.trial is not None and is_late and _is_heard(world, state.trial):
        why = _why(world, name, state.trial)
        failed = (*state.failed, state.trial[0])
        is_given_up = len(failed) >= setbacks.HUNTED or _place(world, places, failed) is None
        state = replace(state, failed=failed, trial=None, refused=why if is_given_up else "")
    if not state.refused and state.trial not in places:
        state = replace(state, trial=_place(world, places, state.failed))
    return state


def _told(document: Model, state: Versions) -> Note:
    subject = f"model/{document.metadata.name}"
    head = f"{document.metadata.name}: {_what(document)}"
    if state.refused:
        text = f"{head} does not start in {' or '.join(state.failed)}: {state.refused}. The version before it stays "
        text += "everywhere; correct the Model document"
        return Note(type="Warning", reason="VersionRefused", object=subject, message=text)
    where = f"is tried in {state.trial[0]} first" if state.trial else "waits for a cluster that is heard"
    return Note(reason="VersionTried", object=subject, message=f"{head} {where}")


def stuck(world: World) -> frozenset[PlacementKey]:
    """Places where a new version waits for a device while the version before it serves: a surge needs one more."""
    return frozenset(
        PlacementKey(one.model, name, one.pool)
        for name, state in world.clusters.items()
        if state.report is not None and state.phase is Phase.READY
        for one in state.report.replicas
        if one.outdated and one.cause == "unschedulable"
    )


def _place(world: World, places: Mapping[ClusterPool, int], but: Collection[str]) -> ClusterPool | None:
    """The place for a trial: a cluster that is heard and not in `but`, with a free device if any has one, and the most
    replicas of the model to stand in."""
    free = {
        (name, pool.key): pool.free
        for name, state in world.clusters.items()
        if state.report is not None
        for pool in state.report.pools
    }
    heard = [place for place in sorted(places) if _is_heard(world, place) and place[0] not in but]
    return max(heard, key=lambda place: (free.get(place, 0) > 0, places[place]), default=None)


def _is_heard(world: World, place: ClusterPool) -> bool:
    return place[0] in world.clusters and world.clusters[place[0]].phase is Phase.READY


def is_carried_out(world: World, plan: Plan, cluster: str) -> bool:
    """Whether a cluster reported after its agent carried out the newest order."""
    state = world.clusters.get(cluster)
    if state is None or state.report is None or state.ack is None or state.phase is not Phase.READY:
        return False
    told = (plan.epoch, plan.generations.get(cluster, 0))
    is_done = state.ack.ok and (state.ack.epoch, state.ack.generation) >= told
    return is_done and state.heard_s is not None and state.ack_s is not None and state.heard_s > state.ack_s


def _newest_ready(world: World, plan: Plan, model: str, place: ClusterPool) -> bool:
    """Whether a replica of the newest order is ready there, by a report from after the order was carried out."""
    report = world.clusters[place[0]].report if place[0] in world.clusters else None
    if report is None or not is_carried_out(world, plan, place[0]):
        return False
    return any(one.model == model and one.pool == place[1] and one.ready > one.outdated for one in report.replicas)


def _why(world: World, model: str, place: ClusterPool) -> str:
    state = world.clusters[place[0]]
    rows = state.report.replicas if state.report is not None else ()
    said = [one.reason for one in rows if one.model == model and one.pool == place[1] and one.reason]
    return said[0] if said else "no replica of it became ready in time"


def _what(document: Model) -> str:
    return f"version {version(document)} ({document.spec.runtime.image})"
