"""Whose orders the agents obey: this controller's, another's, or those of a memory that was lost.

Agents refuse an epoch lower than the highest that they accepted. So a controller with a new database has to go beyond
it, and one whose agents have gone beyond its own has been replaced and must be quiet.
"""

from __future__ import annotations

from federation.control.plan import Replicas
from federation.state.phases import Phase
from federation.state.world import World

MAX_EPOCH = 900_000
"""A report that claims more is not believed: epochs grow by one a start."""


def highest_epoch(world: World) -> int:
    """The highest epoch that any agent says it accepted; 0 when none did."""
    claimed = (state.report.epoch for state in world.clusters.values() if state.report is not None)
    return max((epoch for epoch in claimed if epoch <= MAX_EPOCH), default=0)


def outvoted(world: World, epoch: int) -> str:
    """Why this controller should be quiet, or nothing.

    More than half of the clusters that are heard must obey a higher epoch: one agent that claims so proves nothing.
    """
    heard = [s.report.epoch for s in world.clusters.values() if s.report is not None and s.phase is Phase.READY]
    higher = [theirs for theirs in heard if theirs > epoch]
    if 2 * len(higher) <= len(heard):
        return ""
    return (
        f"nothing is decided: {len(higher)} of {len(heard)} clusters obey epoch {max(higher)} of another controller, "
        f"this one has {epoch}; if the other is gone for good, start this one with --take-over"
    )


def inherited(world: World) -> tuple[Replicas, ...]:
    """What runs already, of the models that are known: where a controller without a memory starts from.

    Models that it does not know are left alone: their policies may only not have been handed in again yet.
    """
    known = {document.metadata.name for document in world.documents.models}
    return tuple(
        Replicas(model=replica.model, cluster=name, pool=replica.pool, replicas=replica.desired, reason="found running")
        for name, state in sorted(world.clusters.items())
        if state.report is not None
        for replica in sorted(state.report.replicas, key=lambda one: (one.model, one.pool))
        if replica.model in known and replica.desired > 0
    )
