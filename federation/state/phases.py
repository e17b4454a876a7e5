"""The phases of a cluster as a table: a (phase, sign) pair that is not in it cannot occur.

Routing follows the phase at once; placement follows only after the policy's toleration.
"""

from __future__ import annotations

from enum import Enum


class Phase(Enum):
    """How far a cluster can be trusted."""

    UNKNOWN = "unknown"
    """Not heard since this controller started. It keeps its replicas and gets nothing new."""
    READY = "ready"
    """Its agent reports."""
    UNREACHABLE = "unreachable"
    """Silent, or its last will was received. It gets no requests; its replicas still count."""
    LOST = "lost"
    """Silent for longer than any policy tolerates. Its replicas are replaced elsewhere; none is deleted there."""


class Sign(Enum):
    """What moves a cluster from one phase to another."""

    HEARD = "heard"
    """A report came from the agent itself, not from the broker's memory."""
    SILENT = "silent"
    """No report for the stale time."""
    WILL = "will"
    """The broker reported that the agent's connection broke."""
    TOLERATED = "tolerated"
    """Unreachable for longer than the longest toleration."""


TABLE: dict[tuple[Phase, Sign], Phase] = {
    (Phase.UNKNOWN, Sign.HEARD): Phase.READY,
    (Phase.UNKNOWN, Sign.SILENT): Phase.UNREACHABLE,
    (Phase.UNKNOWN, Sign.WILL): Phase.UNKNOWN,  # may be the broker's memory of long ago
    (Phase.READY, Sign.HEARD): Phase.READY,
    (Phase.READY, Sign.SILENT): Phase.UNREACHABLE,
    (Phase.READY, Sign.WILL): Phase.UNREACHABLE,
    (Phase.UNREACHABLE, Sign.HEARD): Phase.READY,
    (Phase.UNREACHABLE, Sign.SILENT): Phase.UNREACHABLE,
    (Phase.UNREACHABLE, Sign.WILL): Phase.UNREACHABLE,
    (Phase.UNREACHABLE, Sign.TOLERATED): Phase.LOST,
    (Phase.LOST, Sign.HEARD): Phase.READY,
    (Phase.LOST, Sign.SILENT): Phase.LOST,
    (Phase.LOST, Sign.WILL): Phase.LOST,
    (Phase.LOST, Sign.TOLERATED): Phase.LOST,
}
