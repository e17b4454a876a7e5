"""Whose orders the agents obey: this controller's, another's, or those of a memory that was lost.

Agents refuse an epoch lower than the highest that they accepted. So a controller with a new database has to go beyond
it, and one whose agents have gone beyond its own has been replaced and must be quiet. Controllers on one broker hear
each other besides: of two, one is quiet.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from federation.control.plan import Plan, Replicas
from federation.state.phases import Phase
from federation.state.world import ClusterState, World
from federation.wire import messages

LEAP = 1000
"""An epoch grows by one a start: one that is so far beyond what most agents obey is not believed by itself."""
SILENT_S = 15.0
"""Of the machine's seconds: three heartbeats. A controller that is not heard for so long is gone."""
LISTEN_S = 1.0
"""Of the machine's seconds: another controller answers a new one at once, so one that is there is heard by then."""
PROVEN_S = 60.0
"""Of the machine's seconds: a controller that says that it leads is believed for so long before agents obey it."""
TOGETHER_S = 5.0
"""Two that started so close together are told apart by their names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """Another controller on this broker, as last heard; `heard_s` in monotonic seconds of this machine."""

    controller: str
    epoch: int
    uptime_s: float
    heard_s: float


def yields_to(
    rivals: Iterable[Rival],
    *,
    controller: str,
    epoch: int,
    uptime_s: float,
    now_s: float,
    higher_leads: bool = True,
    elder_leads: bool = True,
) -> str:
    """Why this controller must be quiet beside another that is alive, or nothing. Of two the same one is quiet to both.

    The higher epoch leads, as agents will have it; of one epoch (two databases) the one that was there first.

    Args: higher_leads, elder_leads: whether a heartbeat is enough to say so, see `Hub.rivalled`.
    """
    for rival in sorted(rivals, key=lambda one: one.controller):
        if now_s - rival.heard_s > SILENT_S or rival.epoch > messages.MOST_EPOCH:
            continue
        older_s = rival.uptime_s + (now_s - rival.heard_s) - uptime_s
        elder = rival.controller < controller if abs(older_s) < TOGETHER_S else older_s > 0
        if (rival.epoch > epoch and higher_leads) or (rival.epoch == epoch and elder and elder_leads):
            return (
                f"nothing is decided: controller {rival.controller} leads with epoch {rival.epoch}, this one "
                f"({controller}) has {epoch}; stop one of them. To lead with this one, start it with --take-over"
            )
    return ""


def highest_epoch(world: World, *, ordered: bool = False, rivals: Iterable[Rival] = ()) -> int:
    """The highest epoch that agents obey, or that one of `rivals` says it has; 0 when none does.

    By itself a controller goes no further than a little beyond what most agents obey: one that claims more may lie, or
    have been lied to. Args: ordered: an operator wants this controller to lead, whatever agents have accepted: it goes
    as far beyond most as one forged order can lead an agent, and no rival leads it further.
    """
    claimed = sorted(
        state.report.epoch
        for state in world.clusters.values()
        if state.report is not None and state.report.epoch <= messages.MOST_EPOCH
    )
    bound = statistics.median_low(claimed or [0]) + (messages.MOST_EPOCH_LEAP if ordered else LEAP)
    said = (*(min(epoch, bound) if ordered else epoch for epoch in claimed), *(rival.epoch for rival in rivals))
    return max((epoch for epoch in said if epoch <= bound), default=0)


def told_epoch(epoch: int, state: ClusterState) -> int:
    """The epoch of an order for this cluster: ours, or as far towards it as its agent follows at once.

    A fleet that was led beyond a forged epoch takes in new agents, and those that were not lied to.
    """
    if state.report is None:
        return epoch
    return min(epoch, state.report.epoch + messages.MOST_EPOCH_LEAP)


def outvoted(world: World, epoch: int) -> str:
    """Why this controller should be quiet, or nothing.

    More than half of the clusters that are heard must obey a higher epoch: one agent that claims so proves nothing.
    """
    heard = [
        state.report.epoch
        for state in world.clusters.values()
        if state.report is not None and state.phase is Phase.READY and state.report.epoch <= messages.MOST_EPOCH
    ]
    higher = [theirs for theirs in heard if theirs > epoch]
    if 2 * len(higher) <= len(heard):
        return ""
    return (
        f"nothing is decided: {len(higher)} of {len(heard)} clusters obey epoch {max(higher)} of another controller, "
        f"this one has {epoch}; if the other is gone for good, start this one with --take-over"
    )


def most_obey_beyond(world: World, epoch: int) -> bool:
    """Whether more than half of the clusters that ever reported obeyed a higher epoch then, silent now or not."""
    known = [state.report.epoch for state in world.clusters.values() if state.report is not None]
    return 2 * sum(epoch < theirs <= messages.MOST_EPOCH for theirs in known) > len(known)


def most_obey(world: World, epoch: int, generation: int) -> bool:
    """Whether more than half of them obeyed an order of this epoch, up to this one."""
    known = [one.report for one in world.clusters.values() if one.report is not None]
    return 2 * sum(one.epoch == epoch and 0 < one.generation <= generation for one in known) > len(known)


def is_beyond_memory(report: messages.Report, epoch: int, generation: int) -> bool:
    """Whether an agent obeys an order of our epoch that we do not know: the database is older than our last start."""
    return report.epoch == epoch and report.generation > generation


def has_forgotten(world: World, plan: Plan, epoch: int) -> bool:
    """Whether most clusters that are heard say so of a plan that no start of this epoch has committed."""
    heard = [
        state.report for state in world.clusters.values() if state.report is not None and state.phase is Phase.READY
    ]
    beyond = [one for one in heard if is_beyond_memory(one, epoch, plan.generation)]
    return plan.epoch < epoch and 2 * len(beyond) > len(heard)


def adopted(plan: Plan, world: World, clusters: Collection[str] | None = None) -> Plan:
    """The plan with what runs and is not named in it: where a controller goes on from that does not remember all.

    Args: clusters: from which it is taken; from all without.

    Models without a document or a policy are left alone: those may only not have been handed in again yet. Clusters
    that are not heard yet follow when they are. No more is taken than is ready or has devices, whatever an agent says.
    """
    named = {one.key for one in plan.desired}
    found = tuple(
        one for one in _running(world) if one.key not in named and (clusters is None or one.cluster in clusters)
    )
    if not found:
        return plan
    aims = plan.target_by_key()
    return replace(
        plan,
        placement=replace(
            plan.placement,
            replicas=_sorted((*plan.placement.replicas, *(one for one in found if one.key not in aims))),
        ),
        desired=_sorted((*plan.desired, *found)),
    )


def _sorted(replicas: Iterable[Replicas]) -> tuple[Replicas, ...]:
    return tuple(sorted(replicas, key=lambda one: one.key))


def _running(world: World) -> tuple[Replicas, ...]:
    placed = {model for policy in world.documents.policies for model in policy.spec.models.match_names}
    known = placed & {document.metadata.name for document in world.documents.models}
    found = []
    for name, state in sorted(world.clusters.items()):
        if state.report is None:
            continue
        offered = {pool.key: pool.allocatable for pool in state.report.pools}
        for one in sorted(state.report.replicas, key=lambda one: one.key):
            count = min(one.desired, max(one.ready, offered.get(one.pool, 0)))
            if one.model in known and count > 0:
                found.append(
                    Replicas(model=one.model, cluster=name, pool=one.pool, replicas=count, reason="found running")
                )
    return tuple(found)
