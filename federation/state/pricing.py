"""The price of a pool's devices, its source, and the risk of spot: the only home of these questions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from federation.policy import documents
from federation.prices.book import Place
from federation.state import spot
from federation.state.keys import ClusterPool
from federation.state.plausible import CATALOGUE_USD_FACTOR
from federation.state.world import World
from federation.wire.messages import PoolKey, PoolReport


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPrice:
    """USD per device-hour. `source`: `agent`, `catalogue`, or `feed NAME`; `read_s` (wall clock): when a feed gave it.

    `doubt`: a feed's price that is not believed; empty otherwise.
    """

    usd_per_device_hour: float
    source: str
    read_s: float | None = None
    doubt: str = ""


def pool_price(
    world: World, document: documents.Cluster, pool: PoolReport, declared: documents.AcceleratorPool | None
) -> PoolPrice | None:
    """The agent's own price; otherwise that of the first feed with a price for the pool's instance types or product;
    otherwise the catalogue's; None without any.

    Hardware that the catalogue gives for nothing costs nothing whatever a feed says. A feed below a tenth of the
    catalogue's price is not believed. Feeds do not price devices that replicas share.
    """
    if pool.usd_per_device_hour is not None:
        return PoolPrice(usd_per_device_hour=pool.usd_per_device_hour, source="agent")
    known = declared.usd_per_device_hour if declared is not None else None
    doubt = ""
    if known != 0 and pool.sharing == "none":
        quote = world.prices.quote(place(document, pool), pool.key)
        if quote is not None and (known is None or quote.usd_per_device_hour * CATALOGUE_USD_FACTOR >= known):
            usd = quote.usd_per_device_hour
            return PoolPrice(usd_per_device_hour=usd, source=f"feed {quote.feed}", read_s=quote.read_s)
        if quote is not None:
            doubt = (
                f"feed {quote.feed} has {quote.usd_per_device_hour:.4g} USD, which is not believed beside the catalogue"
            )
    return PoolPrice(usd_per_device_hour=known, source="catalogue", doubt=doubt) if known is not None else None


def pools_of(
    world: World, document: documents.Cluster
) -> Iterator[tuple[PoolReport, documents.AcceleratorPool | None]]:
    """Each reported or declared pool, in order, with its declaration."""
    declared = {one.key: one for one in document.spec.accelerators}
    report = world.clusters[document.metadata.name].report
    reported = {pool.key: pool for pool in report.pools} if report is not None else {}
    for key in sorted(declared.keys() | reported.keys()):
        one = declared.get(key)
        vram_gib = one.vram_gib if one is not None else 0.0
        yield reported.get(key) or PoolReport(key=key, vram_gib=vram_gib, allocatable=0, free=0), one


def place(document: documents.Cluster, pool: PoolReport) -> Place:
    """Where the pool's nodes are: by their labels, and by the catalogue where labels are missing."""
    return Place(
        provider=document.spec.provider.lower(),
        region=pool.region or document.spec.region,
        zones=frozenset(pool.zones or ([document.spec.zone] if document.spec.zone else [])),
        instance_types=frozenset(pool.instance_types),
    )


Seen = Mapping[tuple[str, str], spot.Counts]
"""(region, product) -> counts of spot there."""


def seen_by_region(world: World) -> Seen:
    """The counts of spot by region. Regions of different providers are different."""
    regions = {one.metadata.name: _region(one) for one in world.documents.clusters} if world.spot else {}
    return spot.region_counts(world.spot, regions)


def spot_seen(world: World) -> object:
    """The part of the spot counts that changes the problem: not each minute of holding a device."""
    return {
        key: (round(10 * math.log1p(one.hours)), round(one.losses, 1), round(one.granted, 1), round(one.refused, 1))
        for key, one in world.spot.items()
    }


def pool_risk(
    world: World, document: documents.Cluster, key: PoolKey, declared: documents.AcceleratorPool | None, seen: Seen
) -> spot.SpotRisk:
    """The risk of a pool: the catalogue's, otherwise the provider's known one; corrected by the counts."""
    if key.market != "spot":
        return spot.SpotRisk()
    known = world.spot_risk(document.spec.provider, key.product)
    losses = declared.losses_per_hour if declared is not None else None
    chance = declared.replacement_chance if declared is not None else None
    risk = spot.SpotRisk(
        known.losses_per_hour if losses is None else losses, known.replacement_chance if chance is None else chance
    )
    ours = world.spot.get(ClusterPool(document.metadata.name, key))
    theirs = seen.get((_region(document), key.product))
    if theirs is not None:
        own = ours.bounded() if ours is not None else spot.Counts(at_s=theirs.at_s)
        others = theirs.plus(hours=-own.hours, losses=-own.losses, granted=-own.granted, refused=-own.refused)
        risk = spot.expected(risk, others.not_negative())
    return spot.expected(risk, ours) if ours is not None else risk


def _region(document: documents.Cluster) -> str:
    return f"{document.spec.provider}/{document.spec.region}"
