"""How beliefs change: `reduce(world, event)` returns the next world and the events to report.

Pure and total: an event without effect returns the same world. Knowledge never goes backwards (an older boot, a lower
sequence number, a retained message about something known better), and omission is not a deletion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, cast

import msgspec

from federation.policy.documents import Documents
from federation.prices.book import Feed
from federation.state import capacity, demand, levels, measured, plausible, sources
from federation.state.keys import ClusterPool
from federation.state.measured import Window
from federation.state.phases import TABLE, Phase, Sign
from federation.state.reasons import EventReason
from federation.state.spot import Counts
from federation.state.world import Brake, ClusterState, Cordon, Lent, OtherStart, Scraped, Setbacks, World
from federation.wire import messages
from federation.wire.conditions import ConditionType

BRAKE_SHARE = 1 / 3
"""The share of all clusters that must fall silent within one stale time for the controller to doubt itself. There is no
such rule for one region: the product must act on the loss of a region."""
BURST_LEAST, BURST_SHARE = 8, 1 / 20
"""The least number, and the least share of all clusters, of unbelieved last wills that count as a burst: more may
follow."""
BRAKE_LEAST = 2
"""Fewer silent clusters than this never set the brake, unless they are all clusters."""
MAX_OTHER_STARTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A message arrived. `retained` marks the broker's memory, which proves nothing about the present.

    `wall_s` is the controller's own wall clock in Unix seconds, from which an agent's skew follows; None if unknown.
    """

    message: messages.Message
    now_s: float
    retained: bool = False
    wall_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TimePassed:
    """The time is `now_s`. `waiting`: cluster -> arrival of its newest report that waits to be read. Such a cluster is
    not silent, however long the controller takes to read the report."""

    now_s: float
    waiting: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slept:
    """The controller did not run for `gap_s` (starved or paused). Messages it missed meanwhile are not a cluster's
    silence."""

    gap_s: float
    now_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerLost:
    """The controller's own connection to the broker broke: the controller is deaf, and no silence counts."""

    now_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerFound:
    """The connection to the broker is back; silence counts from this moment."""

    now_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentsAccepted:
    """The documents in force changed."""

    documents: Documents
    now_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CordonsSet:
    """The cordons and drains in force changed."""

    cordons: Mapping[str, Cordon]


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """An operator confirmed what waits of a cluster's claims: all of it, or the users of the named model."""

    cluster: str
    model: str
    reason: str
    now_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """An event for people: `reason` is listed in `state/reasons.py`, `message` is a sentence."""

    type: Literal["Normal", "Warning"] = "Normal"
    reason: EventReason | ConditionType
    object: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PricesRead:
    """A price feed was read, or could not be."""

    feed: Feed


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTripsMeasured:
    """What users' browsers measured in one window."""

    windows: tuple[Window, ...]
    now_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SpotSeen:
    """What pools on spot did since the last look."""

    counts: Mapping[ClusterPool, Counts]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrometheusRead:
    """Prometheus was asked for demand and the load of engines, or could not be."""

    scraped: Scraped


@dataclass(frozen=True, slots=True, kw_only=True)
class SetbacksSeen:
    """Orders that did not become ready, as `control/setbacks.py` finds them."""

    setbacks: Setbacks
    notes: tuple[Note, ...]


Event = (
    Heard
    | TimePassed
    | Slept
    | BrokerLost
    | BrokerFound
    | DocumentsAccepted
    | CordonsSet
    | Confirmed
    | PricesRead
    | PrometheusRead
    | RoundTripsMeasured
    | SetbacksSeen
    | SpotSeen
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduced:
    """The next world, the events to report, and which loops should look again."""

    world: World
    notes: tuple[Note, ...] = ()
    reroute: bool = False
    replan: bool = False
    look_after_s: float | None = None
    """Seconds until the next `TimePassed` is needed, because something becomes believable then."""
    greet: bool = False
    """Whether another start of an agent came into force, which waits to be told so."""
    result: str = field(default="accepted")
    """For the metric of messages: `accepted`, or why the message was not used."""


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
            return _on_time(_as_arrived(world, event.waiting, event.now_s), event.now_s)
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
        case Confirmed():
            return _on_confirmed(world, event)
        case RoundTripsMeasured():
            return _on_round_trips(world, event)
        case SpotSeen():
            return Reduced(world=replace(world, spot=event.counts))
        case PricesRead():
            return _on_prices(world, event.feed)
        case PrometheusRead():
            return _on_prometheus(world, event.scraped)
        case SetbacksSeen():
            changed = event.setbacks.backoffs != world.setbacks.backoffs
            return Reduced(world=replace(world, setbacks=event.setbacks), notes=event.notes, replan=changed)


def _on_report(world: World, event: Heard) -> Reduced:
    report = event.message
    assert isinstance(report, messages.Report)
    state = world.clusters.get(report.cluster)
    if state is None:
        return Reduced(world=world, result="not-in-catalogue")
    known = state.report
    is_lower = known is not None and known.boot_id == report.boot_id and report.seq <= known.seq
    if known is not None and is_lower and not _goes_on_from_lower(world, state, event):
        if event.retained or report.seq == known.seq:
            return Reduced(world=world, result="repeated" if report.seq == known.seq else "older")
        lower = OtherStart(seq=report.seq, heard_s=event.now_s)
        return Reduced(world=_with_cluster(world, replace(state, lower=lower)), result="older")
    if event.retained:
        if known is not None and known.boot_id != report.boot_id:
            return Reduced(world=world, result="older")  # which start is in force, only what is alive can say
        raw = sources.gathered(world, state, report, event.now_s)
        judged, believed, _ = _believed(world, state, raw, event.now_s, is_memory=True)
        remembered = _with_cluster(world, replace(judged, report=believed))
        following = _counted(remembered, state, raw, believed, event.now_s - _age_s(report, event.wall_s))
        return Reduced(world=sources.noted(following, state, report, raw), result="remembered")
    if known is not None and known.boot_id != report.boot_id:
        other = state.others.get(report.boot_id)
        if other is not None and report.seq <= other.seq:
            return Reduced(world=world, result="older")
        if not _is_vacant(world, state, event.now_s):
            return _on_second(world, state, report, event.now_s)
    is_same = known is not None and known.boot_id == report.boot_id
    before, sent, raw = state, report, sources.gathered(world, state, report, event.now_s)
    state, report, doubted = _believed(world, state, raw, event.now_s)
    disputed_with, told = _dispute(state, event.now_s, world.timing.stale_after_s) if is_same else ("", ())
    skew_s, skewed = _skew(state, report, event.wall_s, world.timing.skew_s)
    heard = replace(
        state,
        report=report,
        heard_s=event.now_s,
        will_s=None,
        has_left=False,
        lower=None,
        others=_others(state, report),
        disputed_with=disputed_with,
        lent=_lent(world, state, report, event.now_s),
        skew_s=skew_s,
    )
    moved, notes = _move(world, heard, Sign.HEARD, event.now_s)
    following = _counted(_with_cluster(world, moved), before, raw, report, event.now_s)
    following = sources.noted(following, before, sent, raw)
    following = capacity.learnt(following, before, report, event.now_s)
    if is_lower and known is not None:
        told = (*told, _went_back(known, report))
    changed = _inventory(report) != _inventory(state.report)
    returned = moved.phase is not state.phase
    return Reduced(
        world=following,
        notes=notes + told + skewed + doubted + _replica_notes(known, report) + _condition_notes(known, report),
        greet=not is_same or state.heard_s is None,
        reroute=returned or _readiness(report) != _readiness(state.report),
        replan=returned or changed or following.learnt is not world.learnt,
    )


def _age_s(report: messages.Report, wall_s: float | None) -> float:
    """The age of a retained report by the agent's own clock; 0 where it is unknown."""
    return max(0.0, wall_s - report.clock_s) if wall_s is not None and report.clock_s is not None else 0.0


def _is_vacant(world: World, state: ClusterState, now_s: float) -> bool:
    """Whether another start of the agent may replace the one in force, because that one is gone or was never heard by
    this controller. Only speech and silence decide; clocks and counts of starts do not."""
    if state.heard_s is None or state.has_left or state.will_s is not None:
        return True
    silent_s = now_s - max(state.heard_s, world.started_s)
    return state.phase is not Phase.READY or silent_s > world.timing.session_after_s


def _goes_on_from_lower(world: World, state: ClusterState, event: Heard) -> bool:
    """Whether the agent in force continues from a lower sequence number than one seen under its name: the higher number
    was forged, or the machine was set back.

    As with another start, the higher number must have been silent for a while. It takes two lower reports in order, so
    that one report that was late on its way is no sign of life.
    """
    report = event.message
    assert isinstance(report, messages.Report)
    if event.retained or state.lower is None or report.seq <= state.lower.seq:
        return False
    silent_s = event.now_s - max(world.started_s, state.heard_s if state.heard_s is not None else world.started_s)
    return silent_s > world.timing.session_after_s


def _went_back(known: messages.Report, report: messages.Report) -> Note:
    text = (
        f"{report.cluster} goes on from report {report.seq} after {known.seq} of the same start: "
        "that one was forged, or its machine was set back"
    )
    return _warn("SequenceWentBack", f"cluster/{report.cluster}", text)


def _others(state: ClusterState, report: messages.Report) -> dict[str, OtherStart]:
    """The other starts once `report` is in force; the start that was in force before becomes one of them."""
    others = {boot: other for boot, other in state.others.items() if boot != report.boot_id}
    if state.report is not None and state.report.boot_id != report.boot_id:
        others[state.report.boot_id] = OtherStart(seq=state.report.seq, heard_s=float("-inf"))
    return _newest(others)


def _newest(others: dict[str, OtherStart]) -> dict[str, OtherStart]:
    """The most recently heard starts, as many as are remembered."""
    return dict(sorted(others.items(), key=lambda one: one[1].heard_s)[-MAX_OTHER_STARTS:])


def _on_second(world: World, state: ClusterState, report: messages.Report, now_s: float) -> Reduced:
    """Another start speaks while the one in force does: it waits until that one is gone."""
    others = _newest({**state.others, report.boot_id: OtherStart(seq=report.seq, heard_s=now_s)})
    return Reduced(world=_with_cluster(world, replace(state, others=others)), result="second")


def _dispute(state: ClusterState, now_s: float, within_s: float) -> tuple[str, tuple[Note, ...]]:
    """The second agent that speaks under the name, or nothing. It is reported once, when the agent in force goes on
    speaking after another began to.

    Args: state: before the report of the agent in force that arrived at `now_s`.
    """
    rivals = state.rivals(now_s, within_s)
    if state.disputed_with in rivals:
        return state.disputed_with, ()
    new = [boot for boot in rivals if state.heard_s is not None and state.others[boot].heard_s > state.heard_s]
    if not new or state.report is None:
        return "", ()
    text = (
        f"two agents report as {state.name}: start {state.report.boot_id} is in force, start {new[0]} is not listened "
        "to while that one speaks; end one of them, or give it a name of its own"
    )
    return new[0], (_warn("NameTaken", f"cluster/{state.name}", text),)


def _skew(
    state: ClusterState, report: messages.Report, wall_s: float | None, bound_s: float
) -> tuple[float, tuple[Note, ...]]:
    """The agent's clock minus the controller's in seconds, and the event when it passes `bound_s`."""
    if wall_s is None or report.clock_s is None:
        return state.skew_s, ()
    skew_s = report.clock_s - wall_s
    if (abs(skew_s) > bound_s) == (abs(state.skew_s) > bound_s):
        return skew_s, ()
    subject = f"cluster/{state.name}"
    if abs(skew_s) <= bound_s:
        note = Note(reason="ClockInStep", object=subject, message=f"the clock of {state.name} agrees with ours again")
    else:
        side = "ahead of" if skew_s > 0 else "behind"
        text = f"the clock of {state.name} is {abs(skew_s):.0f} s {side} the controller's; nothing is ordered by it"
        note = _warn("ClockSkew", subject, f"{text}, but set the one that is wrong")
    return skew_s, (note,)


def _inventory(report: messages.Report | None) -> object:
    """The part of a report that placement depends on: a change of it is worth a plan before the period ends."""
    if report is None:
        return None
    return tuple(
        (pool.key, pool.vram_gib, pool.vram_known, pool.allocatable, pool.usd_per_device_hour) for pool in report.pools
    )


def _lent(world: World, state: ClusterState, report: messages.Report, now_s: float) -> dict[messages.PoolKey, Lent]:
    """Pools that offer fewer devices than their ready replicas hold, as they were before.

    Devices that are announced to leave are not lent: their replicas are to be replaced first.
    """
    offered = {pool.key: pool.allocatable for pool in report.pools}
    leaving = {pool.key: pool.leaving for pool in report.pools}
    before = {pool.key: pool for pool in state.report.pools} if state.report is not None else {}
    found = {}
    for key, held in _devices_held(world, report).items():
        known = state.lent.get(key)
        pool = known.pool if known is not None else before.get(key)
        held -= leaving.get(key, 0)
        if pool is None or held <= offered.get(key, 0):
            continue
        found[key] = Lent(
            pool=msgspec.structs.replace(pool, allocatable=min(held, pool.allocatable), free=0),
            since_s=known.since_s if known is not None else now_s,
        )
    return found


def _devices_held(world: World, report: messages.Report) -> dict[messages.PoolKey, int]:
    """Pool -> devices that ready replicas of ours hold in it."""
    shapes = plausible.devices_each(world)
    held: dict[messages.PoolKey, int] = {}
    for replica in report.replicas:
        each = shapes.get((replica.model, replica.pool.product, replica.pool.mig_profile), 1)
        held[replica.pool] = held.get(replica.pool, 0) + replica.ready * each
    return {key: count for key, count in held.items() if count}


def _readiness(report: messages.Report | None) -> object:
    if report is None:
        return None
    counts = tuple((replica.model, replica.pool, replica.desired, replica.ready) for replica in report.replicas)
    return counts, report.endpoints


def _replica_notes(before: messages.Report | None, after: messages.Report) -> tuple[Note, ...]:
    earlier = {r.key: r for r in before.replicas} if before is not None else {}
    notes = []
    for replica in after.replicas:
        known = earlier.get(replica.key)
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
    """New conditions of an agent's cluster, each reported once per change."""
    known = set(before.conditions) if before is not None else set()
    return tuple(_of_condition(one, after.cluster) for one in after.conditions if one not in known)


def _believed(
    world: World, state: ClusterState, report: messages.Report, now_s: float, *, is_memory: bool = False
) -> tuple[ClusterState, messages.Report, tuple[Note, ...]]:
    """The believable part of a report, the state with its findings, and the events of new findings."""
    examined = plausible.examine(world, state, report, now_s)
    admitted = demand.admit(world, state, report.demand, now_s, is_memory=is_memory)
    findings = examined.findings + admitted.found + (() if is_memory else sources.missing(world, report))
    notes = tuple(_of_condition(one, state.name) for one in plausible.new_among(state.findings, findings))
    believed = examined.report
    if admitted.rows is not report.demand:
        believed = msgspec.structs.replace(believed, demand=admitted.rows)
    found = (findings, examined.doubts, admitted.level, admitted.held)
    if found != (state.findings, state.doubts, state.level, state.held):
        state = replace(state, findings=findings, doubts=examined.doubts, level=admitted.level, held=admitted.held)
    return state, believed, notes


def _counted(world: World, before: ClusterState, raw: messages.Report, believed: messages.Report, at_s: float) -> World:
    """The world with a front door's counts; a front door that counts nothing at all says nothing."""
    return demand.count(world, before, believed.demand, at_s) if raw.demand else world


def _on_status(world: World, event: Heard) -> Reduced:
    status = event.message
    assert isinstance(status, messages.Status)
    state = world.clusters.get(status.cluster)
    if state is None:
        return Reduced(world=world, result="not-in-catalogue")
    if status.online or event.retained:
        return Reduced(world=world, result="hint")  # a birth is followed by a report, which says more
    if state.report is None or state.report.boot_id != status.boot_id:
        return Reduced(world=world, result="older")  # the will of another start than the one in force
    if state.heard_s is not None and state.heard_s > event.now_s:
        return Reduced(world=world, result="older")  # it was heard since
    if status.goodbye:
        return Reduced(world=_with_cluster(world, replace(state, has_left=True)))
    if state.will_s is not None or state.phase is not Phase.READY:
        return Reduced(world=world)
    dying = _with_cluster(world, replace(state, will_s=event.now_s))
    return Reduced(world=dying, look_after_s=world.timing.will_grace_s)


def _on_ack(world: World, event: Heard) -> Reduced:
    ack = event.message
    assert isinstance(ack, messages.Ack)
    state = world.clusters.get(ack.cluster)
    if state is None:
        return Reduced(world=world, result="not-in-catalogue")
    if state.report is not None and state.report.boot_id != ack.boot_id:
        return Reduced(world=world, result="older")  # of another start than the one in force
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
    before = world
    # The brake is decided before silence is believed: what it protects is what held before the cause.
    braked = _with_brake(world, now_s)
    world, notes = braked.world, list(braked.notes)
    was_braked, is_braked = before.brake is not None, world.brake is not None
    toleration_s = world.timing.longest_toleration_s(world.documents.policies)
    following = world
    are_believed = not is_braked and not _is_burst(world, now_s)
    for state in world.clusters.values():
        if was_braked and not is_braked and state.phase is Phase.UNREACHABLE:
            state = replace(state, since_s=now_s)  # silence under the brake proved nothing
            following = _with_cluster(following, state)
        sign = None
        if state.phase is Phase.UNREACHABLE and now_s - state.since_s >= toleration_s and not is_braked:
            sign = Sign.TOLERATED
        elif state.phase is Phase.READY and are_believed and _will_is_due(state, world, now_s):
            sign = Sign.WILL
        elif state.phase in (Phase.READY, Phase.UNKNOWN) and _silent_s(world, state, now_s) > (
            world.timing.stale_after_s
        ):
            sign = Sign.SILENT
        if sign is None:
            continue
        moved, told = _move(world, replace(state, will_s=None), sign, now_s)
        following = _with_cluster(following, moved)
        notes += told
    trusted = {
        name: state
        for name, old in following.clusters.items()
        if (old.losses_s or old.unsteady_s is not None)
        and (state := _trusted(old, following, now_s, braked=was_braked or is_braked)) is not old
    }
    if trusted:
        following = following.with_clusters(trusted)
    following = demand.aged(following, now_s)
    return Reduced(
        world=following,
        notes=tuple(notes),
        reroute=bool(notes or trusted),
        replan=bool(notes) or any(state.unsteady_s is None for state in trusted.values()),
        look_after_s=world.timing.will_grace_s
        if any(s.will_s is not None for s in following.clusters.values())
        else None,
    )


def _as_arrived(world: World, waiting: Mapping[str, float], now_s: float) -> World:
    """The world in which overdue clusters were heard when their waiting reports arrived, whatever these contain."""
    if not waiting:
        return world
    missed_s = now_s - world.timing.overdue_after_s
    later = {
        name: replace(state, heard_s=at_s, will_s=None)
        for name, state in world.clusters.items()
        if state.heard_s is not None
        and (state.heard_s < missed_s or state.will_s is not None)
        and (at_s := waiting.get(name, state.heard_s)) > state.heard_s
    }
    return world.with_clusters(later) if later else world


def _is_burst(world: World, now_s: float) -> bool:
    """Whether so many last wills arrive together that more are to be awaited, though not for ever."""
    wills_s = [state.will_s for state in world.clusters.values() if state.will_s is not None]
    if len(wills_s) < max(BURST_LEAST, BURST_SHARE * len(world.clusters)):
        return False
    goes_on = now_s - max(wills_s) < world.timing.will_grace_s - 1e-6
    return goes_on and now_s - min(wills_s) < world.timing.wills_most_s


def _will_is_due(state: ClusterState, world: World, now_s: float) -> bool:
    return state.will_s is not None and now_s - state.will_s >= world.timing.will_grace_s - 1e-6


def _silent_s(world: World, state: ClusterState, now_s: float) -> float:
    """For how long a cluster was silent while the controller could have heard it."""
    return now_s - max(state.heard_s if state.heard_s is not None else world.started_s, world.started_s)


def _trusted(state: ClusterState, world: World, now_s: float, *, braked: bool) -> ClusterState:
    """The state, trusted again once it was heard for long enough. Silence under the brake costs no trust."""
    losses_s = tuple(at_s for at_s in state.losses_s if now_s - at_s < world.timing.losses_kept_s and not braked)
    unsteady_s = state.unsteady_s
    steady_s = world.timing.steady_after_s(max(1, len(losses_s)))
    if braked or (state.phase is Phase.READY and now_s - state.since_s >= steady_s):
        unsteady_s = None
    if (losses_s, unsteady_s) == (state.losses_s, state.unsteady_s):
        return state
    return replace(state, losses_s=losses_s, unsteady_s=unsteady_s)


def _with_brake(world: World, now_s: float) -> Reduced:
    """The world with the brake set or released, and the events of that."""
    following = brake(world, now_s)
    if following == world.brake:
        return Reduced(world=world)
    notes: tuple[Note, ...] = ()
    if world.brake is None and following is not None:
        notes = (_warn("BrakeOn", "controller", following.text),)
    elif following is None:
        notes = (Note(reason="BrakeOff", object="controller", message="the brake is off: clusters are heard again"),)
    return Reduced(world=replace(world, brake=following), notes=notes, reroute=bool(notes), replan=bool(notes))


def brake(world: World, now_s: float) -> Brake | None:
    """Why the controller must not move anything, or None.

    Counted are clusters that were heard, or that an earlier start relied on, without those that an operator cordoned
    (an operator who knows more cordons the clusters that are gone) and those that were gone before. The brake is set
    when the first of the clusters that fell silent together is due to be believed gone: by then the others are overdue,
    or their last wills have arrived. It is released when none is silent, or when too few are to doubt the controller
    and a stale time has passed since each returned cluster came back and since the controller listens again. Clusters
    that are still on their way back are therefore not taken for lost, and one that comes and goes does not hold the
    brake.
    """
    if world.brake is None and not any(_is_doubtful(world, state, now_s) for state in world.clusters.values()):
        return None
    counted = [
        state
        for name, state in world.clusters.items()
        if name not in world.cordons
        and (state.heard_s is not None or name in world.relied_on)
        and not _was_gone_before(world, state, now_s)
    ]
    silent = tuple(state.name for state in counted if _is_doubtful(world, state, now_s))
    enough = bool(silent) and len(silent) >= min(len(counted), max(BRAKE_LEAST, BRAKE_SHARE * len(counted)))
    if world.brake is None:
        is_due = any(_is_due(world, state, now_s) for state in counted)
        if not (enough and is_due):
            return None
        phases = {name: state.phase for name, state in world.clusters.items()}
        return Brake(since_s=now_s, phases=phases, silent=silent, counted=len(counted))
    heard = {state.name for state in counted} - {*silent}
    back_s = {**dict.fromkeys(sorted(heard.intersection(world.brake.silent)), now_s), **world.brake.back_s}
    is_fresh = now_s - max([world.started_s, *back_s.values()]) >= world.timing.stale_after_s
    if not enough and (not silent or is_fresh):
        return None
    return replace(world.brake, silent=silent, counted=len(counted), back_s=back_s)


def _is_doubtful(world: World, state: ClusterState, now_s: float) -> bool:
    """Whether a cluster is silent, or about to be believed silent."""
    if state.phase is Phase.UNREACHABLE:
        return True
    return state.will_s is not None or _silent_s(world, state, now_s) > world.timing.overdue_after_s


def _is_due(world: World, state: ClusterState, now_s: float) -> bool:
    """Whether a cluster is due to be believed gone at this instant, or was a moment ago."""
    if state.phase is Phase.UNREACHABLE:
        return True
    return state.will_s is not None or _silent_s(world, state, now_s) > world.timing.stale_after_s


def _was_gone_before(world: World, state: ClusterState, now_s: float) -> bool:
    """Whether a cluster fell silent more than one stale time before the others, or before the brake. Clusters that fall
    silent together have one cause. A cluster that is gone for weeks must neither hold the brake nor weaken it."""
    if state.phase is Phase.LOST:
        return True
    at_s = world.brake.since_s if world.brake is not None else now_s
    return state.phase is Phase.UNREACHABLE and at_s - state.since_s > world.timing.stale_after_s


def _on_broker_found(world: World, now_s: float) -> Reduced:
    note = Note(reason="BrokerFound", object="controller", message="connected to the broker")
    return Reduced(world=replace(world, deaf=False, started_s=now_s), notes=(note,))


def waits(world: World, cluster: str, model: str = "") -> bool:
    """Whether any claim of a cluster waits for an operator's confirmation: of one model, or at all."""
    state = world.clusters[cluster]
    if model:
        return model in demand.unconfirmed(world, cluster)
    grew = any(one.type == "DemandGrew" for one in state.findings)
    return grew or bool(state.doubts or demand.unconfirmed(world, cluster))


def _on_confirmed(world: World, event: Confirmed) -> Reduced:
    name = event.cluster
    if name not in world.clusters or not waits(world, name, event.model):
        return Reduced(world=world)
    following = demand.confirmed(world, name, event.model, event.now_s)
    state = following.clusters[name]
    rps = sum(row.requests_per_second for row in state.counted)
    told = [f"{rps:.6g} requests per second"] if state.level is not None else []
    if not event.model:  # believed with the next report, as if they had lasted
        told += [f"{key} {doubt.value:.6g}" for key, doubt in sorted(state.doubts.items())]
        doubts = {key: replace(doubt, since_s=float("-inf")) for key, doubt in state.doubts.items()}
        following = _with_cluster(following, replace(state, doubts=doubts))
    text = f"{name} is believed by confirmation: {', '.join(told)}: {event.reason}"
    note = Note(reason="Confirmed", object=f"cluster/{name}", message=text)
    return Reduced(world=following, notes=(note,), reroute=True, replan=True)


def _on_round_trips(world: World, event: RoundTripsMeasured) -> Reduced:
    """What browsers measured is believed as far as `measured.following` has it; a pair that cannot be is told once."""
    places = {("cell", one.cell): _place_of_cell(world, one.cell) for one in event.windows}
    by_name = plausible.documents_by_name(world)
    for one in event.windows:
        if one.cluster in by_name:
            location = by_name[one.cluster].spec.location
            places["cluster", one.cluster] = location.lat, location.lon
    known = {key: place for key, place in places.items() if place is not None}
    followed = measured.following(world.measured, event.windows, known, event.now_s)
    told = {(one.cell, one.cluster) for one in event.windows}
    doubted = (world.doubted - told) | frozenset(followed.impossible)
    notes = []
    if news := sorted(doubted - world.doubted):
        cell, cluster = news[0]
        more = f", and {len(news) - 1} more" if len(news) > 1 else ""
        text = f"browsers in {cell} measure {cluster} faster than light in fibre{more}: one of the places is wrong"
        notes.append(_warn("RoundTripsDoubted", f"cell/{cell}", text))
    return Reduced(world=replace(world, measured=followed.pairs, doubted=doubted), notes=tuple(notes))


def _place_of_cell(world: World, cell: str) -> tuple[float, float] | None:
    found = world.cells.get(cell)
    return (found.lat, found.lon) if found is not None else None


def _on_prices(world: World, feed: Feed) -> Reduced:
    before = next((one for one in world.prices.feeds if one.name == feed.name), Feed(name=feed.name))
    name, notes = f"feed/{feed.name}", []
    if feed.error and feed.error != before.error:
        text = f"feed {feed.name} could not be read, and what is known stays in force: {feed.error}"
        notes.append(_warn("PriceFeedFailed", name, text))
    elif feed.prices and not feed.error and (before.error or not before.prices):
        text = f"feed {feed.name} ({feed.form}) has {len(feed.prices)} prices of accelerators"
        notes.append(Note(reason="PriceFeedRead", object=name, message=text))
    news = [text for text in feed.problems if text not in before.problems]
    if news and not feed.error:
        more = f"; and {len(news) - 1} more" if len(news) > 1 else ""
        notes.append(_warn("PricesDoubted", name, f"feed {feed.name}: {news[0]}{more}"))
    were = {offer: one.usd for offer, one in before.prices.items()}
    is_another = were != {offer: one.usd for offer, one in feed.prices.items()}
    following = replace(world, prices=world.prices.following(feed))
    return Reduced(world=following, notes=tuple(notes), replan=is_another)


def _on_prometheus(world: World, scraped: Scraped) -> Reduced:
    """The figures count with each cluster's next report."""
    notes: tuple[Note, ...] = ()
    if scraped.error and scraped.error != world.scraped.error:
        text = f"Prometheus could not be asked, and what it said ages: {scraped.error}"
        notes = (_warn("PrometheusFailed", "prometheus", text),)
    elif not scraped.error and (world.scraped.error or not world.scraped.by_cluster) and scraped.by_cluster:
        text = f"Prometheus has figures of {len(scraped.by_cluster)} clusters"
        notes = (Note(reason="PrometheusRead", object="prometheus", message=text),)
    return Reduced(world=replace(world, scraped=scraped), notes=notes)


def _on_documents(world: World, event: DocumentsAccepted) -> Reduced:
    named = {document.metadata.name for document in event.documents.clusters}
    world = demand.forget(world, sorted(world.clusters.keys() - named))
    clusters = {}
    for document in event.documents.clusters:
        name = document.metadata.name
        clusters[name] = world.clusters.get(name) or _unheard(world, name, event.now_s)
    following = replace(world, documents=event.documents, clusters=clusters)
    if len(world.clusters) != len(clusters):
        following = replace(following, doors=sources.doors(following))
    if plausible.cell_countries(following) != plausible.cell_countries(world):
        following = demand.placed_anew(following)
    return Reduced(world=following, reroute=True, replan=True)


def _unheard(world: World, name: str, now_s: float) -> ClusterState:
    known = world.known.get(name)
    level = levels.remembered(known) if known is not None else None
    return ClusterState(name=name, phase=Phase.UNKNOWN, since_s=now_s, level=level)


def _with_cluster(world: World, state: ClusterState) -> World:
    return world.with_clusters({state.name: state})


_SENTENCES: dict[tuple[Phase, Sign], tuple[EventReason, str]] = {
    (Phase.READY, Sign.HEARD): ("ClusterReady", "{name} reports"),
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


def _of_condition(found: messages.Condition, cluster: str) -> Note:
    """The event of a condition; an agent of another version may report a type that is not listed."""
    reason = cast(ConditionType, found.type)
    return Note(
        type="Warning",
        reason=reason,
        object=f"cluster/{cluster}",
        message=f"{found.object} in {cluster}: {found.message}",
    )


def _warn(reason: EventReason, subject: str, message: str) -> Note:
    return Note(type="Warning", reason=reason, object=subject, message=message)
