"""What a hostile agent says of its own cluster: each lie makes of a true report what is put on the wire.

A liar speaks under its own cluster's name only: another's is refused by the broker and by the controller.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from msgspec.structs import replace

from federation.wire import messages
from tests.builders import some_demand

Lie = Callable[[messages.Report, Random], messages.Report]
GHOSTS = 500


def _demand(rps: float) -> Lie:
    def lie(report: messages.Report, chance: Random) -> messages.Report:
        mine = report.demand or (_here(report, "Nowhere", 1.0),)
        return replace(report, demand=tuple(replace(one, requests_per_second=rps) for one in mine))

    return lie


def _here(report: messages.Report, cell: str, rps: float) -> messages.DemandSample:
    country = {"fra": "DE", "par": "FR", "iad": "US", "nrt": "JP"}[report.cluster[:3]]
    return some_demand("chat", cell, rps, country=country, at=report.cluster[:3])


def _ghosts(report: messages.Report, chance: Random) -> messages.Report:
    ghosts = tuple(_here(report, f"ghost-{n}", 1_000.0) for n in range(GHOSTS))
    return replace(report, demand=(*report.demand, *ghosts))


def _berlin_in_us(report: messages.Report, chance: Random) -> messages.Report:
    berlin = some_demand("chat", "Berlin", chance.choice((0.0, 1.0, 50.0)), country="US", at="iad")
    return replace(report, demand=(*report.demand, berlin))


def _pools(**fields: Any) -> Lie:
    def lie(report: messages.Report, chance: Random) -> messages.Report:
        return replace(report, pools=tuple(replace(pool, **fields) for pool in report.pools))

    return lie


def _ready(report: messages.Report, chance: Random) -> messages.Report:
    count = 1_000_000
    mine = report.replicas or (
        messages.ReplicaReport(model="chat", pool=report.pools[0].key, desired=count, ready=count),
    )
    said = tuple(replace(one, desired=count, ready=count, scheduled=count, reason="", cause="") for one in mine)
    return replace(report, replicas=said)


def _rtt(rtt_ms: float) -> Lie:
    def lie(report: messages.Report, chance: Random) -> messages.Report:
        peers = tuple(replace(one, rtt_ms_p50=rtt_ms, rtt_ms_p95=rtt_ms) for one in report.peers)
        return replace(report, peers=peers)

    return lie


def _epoch(report: messages.Report, chance: Random) -> messages.Report:
    most = chance.choice((messages.MOST_ORDINAL, messages.MOST_EPOCH, messages.MOST_EPOCH + 1, 2**60))
    return replace(report, epoch=most, generation=messages.MOST_ORDINAL)


def _order(report: messages.Report, chance: Random) -> messages.Report:
    return replace(report, boot_order=chance.choice((2**31, 2**53, 2**63 - 1)))


def _sequence(report: messages.Report, chance: Random) -> messages.Report:
    return replace(report, seq=chance.choice((report.seq, 2**53, 2**63 - 1)))


def _clock(report: messages.Report, chance: Random) -> messages.Report:
    return replace(report, clock_s=chance.choice((-1e18, 0.0, 1e18, 1e308)))


def _strings(report: messages.Report, chance: Random) -> messages.Report:
    """All texts and lists as long as the wire takes them."""
    conditions = tuple(
        messages.Condition(type="C" * 60, object=f"{n:02d}" + "\u0000\ufffd" * 149, message="\u202e\n" * 150)
        for n in range(64)
    )
    said = tuple(replace(one, reason="r" * 300, restarts=1_000_000) for one in report.replicas)
    return replace(report, conditions=conditions, replicas=said, kubernetes_version="k" * 60, probe="p" * 300)


def _beyond(report: messages.Report, chance: Random) -> messages.Report:
    """What the wire refuses: the cluster is as silent."""
    return chance.choice(
        (
            replace(report, kubernetes_version="k" * 61),
            replace(report, pools=tuple(replace(pool, vram_gib=float("nan")) for pool in report.pools)),
            replace(report, pools=tuple(replace(pool, free=-1) for pool in report.pools)),
            replace(report, seq=0),
            replace(report, cluster="fra-1"),
        )
    )


LIES: Mapping[str, Lie] = {
    "demand of 1e308": _demand(1e308),
    "demand of 1e9": _demand(1e9),
    "500 ghost cells": _ghosts,
    "Berlin is in the US": _berlin_in_us,
    "price 0": _pools(usd_per_device_hour=0.0),
    "price 1e-9": _pools(usd_per_device_hour=1e-9),
    "price 1e300": _pools(usd_per_device_hour=1e300),
    "a million free devices": _pools(allocatable=1_000_000, free=1_000_000),
    "a million ready": _ready,
    "round trips of 0 ms": _rtt(0.0),
    "round trips of 0.01 ms": _rtt(0.01),
    "round trips of 1e6 ms": _rtt(1e6),
    "an epoch beyond all": _epoch,
    "a boot order beyond all": _order,
    "a sequence beyond all": _sequence,
    "a clock of another age": _clock,
    "strings at their bounds": _strings,
    "beyond the wire's bounds": _beyond,
}
COSTLY = "500 ghost cells"
"""Told more seldom: each of its seconds costs as many of the machine's as a hundred of another's."""
TWO_AGENTS = "two agents under one name"
"""Not a change of a report: a second agent that reports the same cluster beside the first, and obeys nothing."""
KINDS = (*LIES, TWO_AGENTS)
