"""MQTT topics: one per cluster and direction, so that a broker's access list is the authorisation.

An agent may publish `report`, `ack` and `status` of its own cluster and read its own `desired`, `peers`, `traffic` and
`session`; the controller may do the opposite. Controllers exchange heartbeats under `_controller`, which is no
cluster's name, in the kinds that agents publish: each proves that its own subscriptions work.
"""

from __future__ import annotations

from typing import Literal, get_args

PREFIX = "isochrone/v1"
Kind = Literal["report", "desired", "ack", "status", "peers", "traffic", "session"]
FROM_AGENTS: tuple[Kind, ...] = ("report", "ack", "status")
CONTROLLER = "_controller"


def topic(cluster: str, kind: Kind) -> str:
    """The topic of one cluster and direction."""
    return f"{PREFIX}/{cluster}/{kind}"


def subscription(kind: Kind) -> str:
    """What the controller subscribes to, to hear `kind` from every cluster."""
    return f"{PREFIX}/+/{kind}"


def parse(text: str) -> tuple[str, Kind] | None:
    """(cluster, kind) of a topic, or None for a topic outside this protocol."""
    parts = text.split("/")
    if len(parts) != 4 or "/".join(parts[:2]) != PREFIX or not parts[2] or parts[3] not in get_args(Kind):
        return None
    return parts[2], parts[3]  # type: ignore[return-value]
