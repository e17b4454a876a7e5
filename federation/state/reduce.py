"""How belief changes: `reduce(world, event)` gives the next world and what is worth telling.

Pure and total: an event that should not change anything returns the same world. Knowledge never goes backwards (an
older boot, a lower sequence number, the broker's memory of what is already known better), and what is not said is
not forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from federation.policy.documents import Documents
from federation.state.phases import TABLE, Phase, Sign
from federation.state.world import CellDemand, ClusterState, Cordon, World
from federation.wire import messages

BRAKE_SHARE = 1 / 3
"""When this share of all clusters falls silent within one stale time, the controller doubts itself first. There is no
such rule for one region: a region that is lost is what the product must act on."""
BRAKE_LEAST = 2
MAX_CELLS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A message came. `retained` marks the broker's memory, which proves nothing about now."""

    message: messages.Message
    now_s: float
    retained: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TimePassed:
    """It is now `now_s`."""

    now_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Slept:
    """This controller did not run for `gap_s` (starved, paused): what it missed meanwhile is nobody's silence."""

    gap_s: float
    now_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerLost:
    """The controller's own connection broke: it is deaf, and no silence counts."""

    now_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerFound:
    """The controller hears again; silence counts from now."""

    now_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentsAccepted:
    """These are the documents in force."""

    documents: Documents
    now_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CordonsSet:
    """These are the operators' words in force."""

    cordons: Mapping[str, Cordon]


Event = Heard | TimePassed | Slept | BrokerLost | BrokerFound | DocumentsAccepted | CordonsSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something worth telling people; `reason` is a constant, `message` a sentence."""

    type: Literal["Normal", "Warning"] = "Normal"
    reason: str
    object: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduced:
    """The next world, what to tell, and whether routing or placement should look again."""

    world: World
    notes: tuple[Note, ...] = ()
    reroute: bool = False
    replan: bool = False
    result: str = field(default="accepted")
    """For the metric: accepted, or why a message was not used."""


def reduce(world: World, event: Event) -> Reduced:
    """The world after `event`."""
    match event:
        case Heard(message=messages.Report()):
            return _on_report(world, event)
        case Heard(message=messages.Status()):
            return _on_status(world, event)
        case Heard(message=messages.Ack()):
            return _on_ack(world, event)
        case Heard():
            return Reduced(world=world, result="not-for-controllers")
        case TimePassed():
            return _on_time(world, event.now_s)
        case Slept():
            text = f"the controller did not run for {event.gap_s:.1f} s; silence counts from now"
            return Reduced(
                world=replace(world, started_s=event.now_s), notes=(_warn("ControllerSlept", "controller", text),)
            )
        case BrokerLost():
            return Reduced(
                world=replace(world, deaf=True),
                notes=(_warn("BrokerLost", "controller", "no broker: nothing is decided until it is back"),),
            )
        case BrokerFound():
            return _on_broker_found(world, event.now_s)
        case DocumentsAccepted():
            return _on_documents(world, event)
        case CordonsSet():
            return Reduced(world=replace(world, cordons=dict(event.cordons)), reroute=True, replan=True)


def _on_report(world: World, event: Heard) -> Reduced:
    report = event.message
    assert isinstance(report, messages.Report)
    state = world.clusters.get(report.cluster)
    if state is None:
        return Reduced(world=world, result="not-in-catalogue")
    if not _is_newer(report, state.report):
        same = state.report is not None and report.boot_id == state.report.boot_id and report.seq == state.report.seq
        return Reduced(world=world, result="repeated" if same else "older")
    known = replace(state, report=report)
    if event.retained:
        remembered = _with_demand(_with_cluster(world, known), report, event.now_s, unknown_only=True)
        return Reduced(world=remembered, result="remembered")
    heard = replace(known, heard_s=event.now_s)
    moved, notes = _move(world, heard, Sign.HEARD, event.now_s)
    following = _with_demand(_with_cluster(world, moved), report, event.now_s)
    changed = _inventory(report) != _inventory(state.report)
    returned = moved.phase is not state.phase
    return Reduced(
        world=following,
        notes=notes + _replica_notes(state.report, report) + _condition_notes(state.report, report),
        reroute=returned or _readiness(report) != _readiness(state.report),
        replan=returned or changed,
    )


def _is_newer(report: messages.Report, known: messages.Report | None) -> bool:
    if known is None:
        return True
    if report.boot_id == known.boot_id:
        return report.seq > known.seq
    return report.boot_order >= known.boot_order


def _inventory(report: messages.Report | None) -> object:
    """What placement depends on: a change is worth a new plan before the period ends."""
    if report is None:
        return None
    return tuple(
        (pool.key, pool.vram_gib, pool.vram_known, pool.allocatable, pool.usd_per_device_hour) for pool in report.pools
    )


def _readiness(report: messages.Report | None) -> object:
    if report is None:
        return None
    counts = tuple((replica.model, replica.pool, replica.desired, replica.ready) for replica in report.replicas)
    return counts, report.endpoints


def _replica_notes(before: messages.Report | None, after: messages.Report) -> tuple[Note, ...]:
    earlier = {(r.model, r.pool): r for r in before.replicas} if before is not None else {}
    notes = []
    for replica in after.replicas:
        known = earlier.get((replica.model, replica.pool))
        if known is not None and known.reason == replica.reason:
            continue
        if replica.reason and replica.ready < replica.desired:
            text = f"{replica.desired - replica.ready} of {replica.desired} replicas of {replica.model} not ready"
            where = f"in {after.cluster} on {replica.pool.text}"
            starting = replica.scheduled is not None and replica.scheduled >= replica.desired
            note = _warn("ReplicasNotReady", f"model/{replica.model}", f"{text} {where}: {replica.reason}")
            notes.append(replace(note, type="Normal") if starting else note)
    return tuple(notes)


def _condition_notes(before: messages.Report | None, after: messages.Report) -> tuple[Note, ...]:
    """What an agent says is wrong in its cluster, once per change of it."""
    known = set(before.conditions) if before is not None else set()
    return tuple(
        _warn(one.type, f"cluster/{after.cluster}", f"{one.object} in {after.cluster}: {one.message}")
        for one in after.conditions
        if one not in known
    )


def _with_demand(world: World, report: messages.Report, now_s: float, *, unknown_only: bool = False) -> World:
    """The front door that counted last is believed, so users who change doors are not counted twice.

    The broker's memory is believed of users of whom nothing else is known: after a restart, those behind a front door
    that is silent are still there.
    """
    if not report.demand:
        return world
    with world.cells.mutate() as cells, world.demand.mutate() as demand:
        for sample in report.demand:
            known = cells.get(sample.cell.name)
            if known is None and len(cells) >= MAX_CELLS:
                continue
            if unknown_only and (sample.model, sample.cell.name) in demand:
                continue
            if known != sample.cell:
                cells[sample.cell.name] = sample.cell
            demand[sample.model, sample.cell.name] = CellDemand(
                requests_per_second=sample.requests_per_second, at_s=now_s, reporter=report.cluster
            )
        following = replace(world, cells=cells.finish(), demand=demand.finish())
    return following


def _on_status(world: World, event: Heard) -> Reduced:
    status = event.message
    assert isinstance(status, messages.Status)
    state = world.clusters.get(status.cluster)
    if state is None:
        return Reduced(world=world, result="not-in-catalogue")
    if status.online or event.retained:
        return Reduced(world=world, result="hint")  # a birth is followed by a report, which says more
    if state.report is not None and state.report.boot_id != status.boot_id:
        return Reduced(world=world, result="older")  # the will of an earlier start, after a later one was heard
    moved, notes = _move(world, state, Sign.WILL, event.now_s)
    return Reduced(world=_with_cluster(world, moved), notes=notes, reroute=bool(notes))


def _on_ack(world: World, event: Heard) -> Reduced:
    ack = event.message
    assert isinstance(ack, messages.Ack)
    state = world.clusters.get(ack.cluster)
    if state is None:
        return Reduced(world=world, result="not-in-catalogue")
    if state.ack is not None and (ack.epoch, ack.generation) < (state.ack.epoch, state.ack.generation):
        return Reduced(world=world, result="older")
    notes: tuple[Note, ...] = ()
    if not ack.ok and (state.ack is None or state.ack.error != ack.error):
        notes = (
            _warn("Refused", f"cluster/{ack.cluster}", f"{ack.cluster} refused plan {ack.generation}: {ack.error}"),
        )
    following = replace(state, ack=ack, ack_s=event.now_s)
    return Reduced(world=_with_cluster(world, following), notes=notes)


def _on_time(world: World, now_s: float) -> Reduced:
    if world.deaf:
        return Reduced(world=world)
    toleration_s = world.timing.longest_toleration_s(world.documents.policies)
    following = world
    notes: list[Note] = []
    for state in [world.clusters[name] for name in sorted(world.clusters)]:
        last_s = max(state.heard_s if state.heard_s is not None else world.started_s, world.started_s)
        sign = None
        if state.phase is Phase.UNREACHABLE and now_s - state.since_s >= toleration_s:
            sign = Sign.TOLERATED
        elif state.phase in (Phase.READY, Phase.UNKNOWN) and now_s - last_s > world.timing.stale_after_s:
            sign = Sign.SILENT
        if sign is None:
            continue
        moved, told = _move(world, state, sign, now_s)
        following = _with_cluster(following, moved)
        notes += told
    braked = brake(following, now_s)
    trusted = {
        name: state
        for name, old in following.clusters.items()
        if (state := _trusted(old, following, now_s, braked=bool(braked or world.braked))) is not old
    }
    if trusted:
        following = replace(following, clusters={**following.clusters, **trusted})
    if braked != world.braked:
        notes.append(
            _warn("BrakeOn", "controller", braked)
            if braked
            else Note(reason="BrakeOff", object="controller", message="the brake is off: clusters are heard again")
        )
    following = replace(following, braked=braked)
    return Reduced(
        world=following,
        notes=tuple(notes),
        reroute=bool(notes or trusted),
        replan=bool(notes) or any(state.unsteady_s is None for state in trusted.values()),
    )


def _trusted(state: ClusterState, world: World, now_s: float, *, braked: bool) -> ClusterState:
    """The same, trusted again when it has been heard for long enough. What fell silent under the brake lost nothing."""
    losses_s = tuple(at_s for at_s in state.losses_s if now_s - at_s < world.timing.losses_kept_s and not braked)
    unsteady_s = state.unsteady_s
    steady_s = world.timing.steady_after_s(max(1, len(losses_s)))
    if braked or (state.phase is Phase.READY and now_s - state.since_s >= steady_s):
        unsteady_s = None
    if (losses_s, unsteady_s) == (state.losses_s, state.unsteady_s):
        return state
    return replace(state, losses_s=losses_s, unsteady_s=unsteady_s)


def brake(world: World, now_s: float) -> str:
    """Why the controller must not move anything, or nothing.

    Once on, it stays until fewer clusters are silent than its threshold; an operator who knows better cordons the
    clusters that are really gone, and they are no longer counted.
    """
    counted = [state for name, state in sorted(world.clusters.items()) if name not in world.cordons]
    silent = [
        state for state in counted if state.phase in (Phase.UNREACHABLE, Phase.LOST) and state.heard_s is not None
    ]
    if not world.braked:
        silent = [state for state in silent if now_s - state.since_s <= world.timing.stale_after_s]
    if len(silent) < max(BRAKE_LEAST, BRAKE_SHARE * len(counted)):
        return ""
    return (
        f"{len(silent)} of {len(counted)} clusters fell silent together: the controller may be the one cut off; "
        "nothing moves. Cordon those that are really gone to go on without them"
    )


def _on_broker_found(world: World, now_s: float) -> Reduced:
    note = Note(reason="BrokerFound", object="controller", message="connected to the broker")
    return Reduced(world=replace(world, deaf=False, started_s=now_s), notes=(note,))


def _on_documents(world: World, event: DocumentsAccepted) -> Reduced:
    clusters = {}
    for document in event.documents.clusters:
        name = document.metadata.name
        fresh = ClusterState(name=name, phase=Phase.UNKNOWN, since_s=event.now_s)
        clusters[name] = world.clusters.get(name, fresh)
    following = replace(world, documents=event.documents, clusters=clusters)
    return Reduced(world=following, reroute=True, replan=True)


def _with_cluster(world: World, state: ClusterState) -> World:
    return replace(world, clusters={**world.clusters, state.name: state})


_SENTENCES: dict[tuple[Phase, Sign], tuple[str, str]] = {
    (Phase.READY, Sign.HEARD): ("ClusterReady", "{name} is heard"),
    (Phase.UNREACHABLE, Sign.SILENT): ("ClusterUnreachable", "{name} is silent: its requests go elsewhere"),
    (Phase.UNREACHABLE, Sign.WILL): ("ClusterUnreachable", "{name} lost its connection: its requests go elsewhere"),
    (Phase.LOST, Sign.TOLERATED): ("ClusterLost", "{name} did not come back in time: its replicas are replaced"),
}


def _move(world: World, state: ClusterState, sign: Sign, now_s: float) -> tuple[ClusterState, tuple[Note, ...]]:
    phase = TABLE[state.phase, sign]
    if phase is state.phase:
        return state, ()
    reason, sentence = _SENTENCES[phase, sign]
    note = Note(
        type="Normal" if phase is Phase.READY else "Warning",
        reason=reason,
        object=f"cluster/{state.name}",
        message=sentence.format(name=state.name),
    )
    moved = replace(state, phase=phase, since_s=now_s)
    if state.phase is Phase.READY:
        unsteady_s = state.unsteady_s if state.unsteady_s is not None else now_s
        moved = replace(moved, losses_s=(*state.losses_s, now_s), unsteady_s=unsteady_s)
    return moved, (note,)


def _warn(reason: str, subject: str, message: str) -> Note:
    return Note(type="Warning", reason=reason, object=subject, message=message)
