"""Plausibility: bounds on each number of a report, and jumps that wait until they last.

`examine` returns a report without impossible values, and a finding for each kind of omission. Only the impossible value
is omitted: its last good value stays in force with its age, or it is unknown. The rest of the report is believed, so
one wrong number never blocks decisions that depend on others.

Pure. Physical bounds are constants here. Declared bounds are in the catalogue, which an operator raises to confirm what
a cluster has. `isochrone confirm` confirms a jump that waits.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from federation.latency.sphere import EARTH_RADIUS_KM, KM_PER_RTT_MS
from federation.policy import documents
from federation.state.identity import ByIdentity
from federation.state.world import IMPLAUSIBLE_REPLICAS, ClusterState, Doubt, World
from federation.wire import messages
from federation.wire.conditions import ConditionType, condition

MOST_POOL_DEVICES = 100_000
"""Devices of one pool; more than the largest data centres have of one product."""
MOST_VRAM_GIB = 2_048.0
"""Memory of one device; several times the largest."""
MOST_DEVICES_PER_NODE = 4_096
LEAST_USD, MOST_USD = 0.0001, 10_000.0
"""Bounds of a price per device-hour. A price of 0 is believed only where the catalogue says so."""
CATALOGUE_USD_FACTOR = 10.0
"""A price below the catalogue's by this factor is not believed; spot prices stay well above it."""
CATALOGUE_VRAM_FACTOR = 1.25
DECLARED_DEVICES_FACTOR = 2
"""A pool counts for at most this multiple of the devices that the catalogue declares."""
UNDECLARED_DEVICES = 64
"""Devices that an undeclared pool counts for before replicas were seen ready in it."""
RAMP_FACTOR = 2
"""An undeclared pool counts for this multiple of the devices whose replicas were ordered and seen ready."""
PLACE_SLACK_KM = 150.0
"""A location in the catalogue is that of a city, not of a building."""
MOST_RTT_MS = 5_000.0
"""The time-out of an agent's probe."""
JUMP_FACTOR = 10.0
"""A price or a round trip that changes by this factor between two reports waits until it lasts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """The believable part of a report (all but its demand), the findings, and the jumps that wait."""

    report: messages.Report
    findings: tuple[messages.Condition, ...]
    doubts: Mapping[str, Doubt]


@dataclass(slots=True)
class _Notebook:
    """Collects findings and jumps while a report is examined."""

    cluster: str
    now_s: float
    lasting_s: float
    earlier: Mapping[str, Doubt]
    found: dict[tuple[ConditionType, str], str] = field(default_factory=dict)
    doubts: dict[str, Doubt] = field(default_factory=dict)

    def tell(self, kind: ConditionType, subject: str, message: str) -> None:
        self.found.setdefault((kind, subject), message[:300])

    @property
    def waits(self) -> str:
        """The text that says what a jump waits for."""
        return f'waits until it lasts, or `isochrone confirm {self.cluster} --reason "…"`'

    def settled(self, key: str, before: float | None, claimed: float) -> float:
        """The claim, or the earlier value while the claim is a jump that has not lasted."""
        if before is None or not before > 0 or _is_near(before, claimed):
            return claimed
        earlier = self.earlier.get(key)
        if earlier is None or not _is_near(earlier.value, claimed):
            earlier = Doubt(value=claimed, since_s=self.now_s)
        if self.now_s - earlier.since_s >= self.lasting_s:
            return claimed
        self.doubts[key] = earlier
        return before


def examine(world: World, state: ClusterState, report: messages.Report, now_s: float) -> Examined:
    """The report of a cluster of the catalogue without impossible values. Its demand is left unchanged."""
    book = _Notebook(cluster=state.name, now_s=now_s, lasting_s=world.timing.lasting_s, earlier=state.doubts)
    document = document_of(world, state.name)
    before = state.report
    pools = _pools(report, document, before, book)
    replicas = _replicas(world, report, pools, document, before, book)
    peers = _peers(world, report, before, book)
    if pools is not report.pools or replicas is not report.replicas or peers is not report.peers:
        report = msgspec.structs.replace(report, pools=pools, replicas=replicas, peers=peers)
    findings = tuple(condition(kind, subject, text) for (kind, subject), text in sorted(book.found.items()))
    return Examined(report=report, findings=findings, doubts=book.doubts)


def counted_on(declared: int, ready_devices: int) -> int:
    """The most devices of a pool that plans count on.

    Args: declared: devices in the catalogue; 0 where it declares none. ready_devices: devices held by replicas that
        were ordered and seen ready.
    """
    at_once = DECLARED_DEVICES_FACTOR * declared if declared else UNDECLARED_DEVICES
    ramped = ready_devices if declared else RAMP_FACTOR * ready_devices
    return max(at_once, ramped)


def documents_by_name(world: World) -> Mapping[str, documents.Cluster]:
    """The clusters of the catalogue."""
    return _by_name(ByIdentity(world.documents))


def document_of(world: World, cluster: str) -> documents.Cluster | None:
    """The Cluster document of `cluster`, or None."""
    return _by_name(ByIdentity(world.documents)).get(cluster)


def devices_each(world: World) -> Mapping[tuple[str, str, str], int]:
    """(model, product, MIG profile) -> devices of one replica."""
    return _devices_each(ByIdentity(world.documents))


# ---- pools


def _pools(
    report: messages.Report, document: documents.Cluster | None, before: messages.Report | None, book: _Notebook
) -> tuple[messages.PoolReport, ...]:
    declared = declared_pools(document)
    earlier = {pool.key: pool for pool in before.pools} if before is not None else {}
    ready: dict[messages.PoolKey, int] = {}
    for replica in report.replicas:
        ready[replica.pool] = ready.get(replica.pool, 0) + replica.ready
    made: dict[messages.PoolKey, messages.PoolReport] = {}
    for pool in report.pools:
        if pool.key in made:
            book.tell("ImplausiblePool", f"pool/{pool.key.text}", "named twice: the first counts")
            continue
        made[pool.key] = _pool(pool, declared.get(pool.key), earlier.get(pool.key), ready.get(pool.key, 0), book)
    following = tuple(made.values())
    same = len(following) == len(report.pools) and all(map(_is, following, report.pools))
    return report.pools if same else following


def _pool(
    pool: messages.PoolReport,
    declared: documents.AcceleratorPool | None,
    before: messages.PoolReport | None,
    ready: int,
    book: _Notebook,
) -> messages.PoolReport:
    subject = f"pool/{pool.key.text}"
    changes: dict[str, object] = {}
    if pool.allocatable > MOST_POOL_DEVICES:
        kept = before.allocatable if before is not None else 0
        text = f"{pool.allocatable} devices, more than {MOST_POOL_DEVICES}: {kept} are believed"
        book.tell("ImplausibleDevices", subject, text)
        changes |= {"allocatable": kept, "free": min(before.free if before is not None else 0, kept), "room": None}
    elif pool.free > pool.allocatable:
        book.tell("ImplausibleDevices", subject, f"{pool.free} devices are free of {pool.allocatable}: those are")
        changes["free"] = pool.allocatable
    if "room" not in changes and any(one.devices > MOST_DEVICES_PER_NODE for one in pool.room or ()):
        book.tell(
            "ImplausibleDevices", subject, f"a node has more than {MOST_DEVICES_PER_NODE} devices: it is left out"
        )
        changes["room"] = tuple(one for one in pool.room or () if one.devices <= MOST_DEVICES_PER_NODE)
    number = declared.devices if declared is not None else 0
    most = counted_on(number, ready)
    if pool.allocatable > most and "allocatable" not in changes:
        how = f"the catalogue declares {number}" if number else "the catalogue declares none"
        text = f"{pool.allocatable} devices are reported and {how}: {most} are counted on; confirm with `devices` there"
        book.tell("DevicesDoubted", subject, text)
    changes |= _vram(pool, declared, subject, book)
    changes |= _price(pool, declared, before, subject, book)
    return msgspec.structs.replace(pool, **changes) if changes else pool


def _vram(
    pool: messages.PoolReport, declared: documents.AcceleratorPool | None, subject: str, book: _Notebook
) -> dict[str, object]:
    most = MOST_VRAM_GIB if declared is None else min(MOST_VRAM_GIB, CATALOGUE_VRAM_FACTOR * declared.vram_gib)
    if not pool.vram_known or 0 < pool.vram_gib <= most:
        return {}
    book.tell("ImplausibleMemory", subject, f"{pool.vram_gib:.6g} GiB of one device, not above 0 and up to {most:g}")
    return {"vram_gib": 0.0, "vram_known": False}


def _price(
    pool: messages.PoolReport,
    declared: documents.AcceleratorPool | None,
    before: messages.PoolReport | None,
    subject: str,
    book: _Notebook,
) -> dict[str, object]:
    usd = pool.usd_per_device_hour
    if usd is None:
        return {}
    known = declared.usd_per_device_hour if declared is not None else None
    last = before.usd_per_device_hour if before is not None else None
    if usd == 0 and known == 0:
        return {}
    if not LEAST_USD <= usd <= MOST_USD or (known and usd * CATALOGUE_USD_FACTOR < known):
        against = f"the catalogue has {known:g}" if known else f"not within {LEAST_USD:g} and {MOST_USD:g}"
        book.tell("ImplausiblePrice", subject, f"{usd:.6g} USD per device-hour: {against}, which is not believed")
        return {"usd_per_device_hour": last}
    believed = book.settled(f"price {subject}", last, usd)
    if believed == usd:
        return {}
    book.tell("PriceDoubted", subject, f"{usd:.6g} USD per device-hour after {believed:.6g}: {book.waits}")
    return {"usd_per_device_hour": believed}


# ---- replicas


def _replicas(
    world: World,
    report: messages.Report,
    pools: tuple[messages.PoolReport, ...],
    document: documents.Cluster | None,
    before: messages.Report | None,
    book: _Notebook,
) -> tuple[messages.ReplicaReport, ...]:
    """Replicas with ready counts bounded by the scheduled ones, and by the devices offered, offered before, or
    declared."""
    if not report.replicas:
        return report.replicas
    exist = {key: one.devices for key, one in declared_pools(document).items()}
    for pool in (*pools, *(before.pools if before is not None else ())):
        exist[pool.key] = max(exist.get(pool.key, 0), pool.allocatable)
    for node in report.nodes:
        if node.devices <= MOST_DEVICES_PER_NODE:
            exist[node.pool] = min(MOST_POOL_DEVICES, exist.get(node.pool, 0) + node.devices)
        else:
            text = f"node {node.name} has {node.devices} devices, more than {MOST_DEVICES_PER_NODE}: they do not count"
            book.tell("ImplausibleDevices", f"pool/{node.pool.text}", text)
    each = _devices_each(ByIdentity(world.documents))
    running = {one.key: one.ready for one in before.replicas} if before is not None else {}
    made = []
    for replica in report.replicas:
        key = replica.pool
        devices = each.get((replica.model, key.product, key.mig_profile), 1)
        if before is None:  # a plugin may just restart: nothing tells what was there a moment ago
            exist[key] = max(exist.get(key, 0), UNDECLARED_DEVICES)
        # What was believed to be ready stays so while its devices are not seen for a moment.
        most = max(exist.get(key, 0) // devices, running.get(messages.ModelPool(replica.model, key), 0))
        if replica.scheduled is not None:
            most = min(most, max(replica.scheduled, replica.desired))
        ready = min(replica.ready, most)
        exist[key] = max(0, exist.get(key, 0) - ready * devices)
        if ready < replica.ready:
            text = f"{replica.ready} replicas of {replica.model} ready, more than there can be: {ready} are believed"
            book.tell(IMPLAUSIBLE_REPLICAS, f"model/{replica.model}", f"{text} on {key.text}")
            replica = msgspec.structs.replace(replica, ready=ready)
        made.append(replica)
    following = tuple(made)
    return report.replicas if all(map(_is, following, report.replicas)) else following


def declared_pools(document: documents.Cluster | None) -> dict[messages.PoolKey, documents.AcceleratorPool]:
    """The accelerator pools in the catalogue's document of a cluster."""
    return {one.key: one for one in (document.spec.accelerators if document is not None else ())}


def cell_countries(world: World) -> Mapping[str, str]:
    """Cell -> the country that the catalogue gives it."""
    return _cell_countries(ByIdentity(world.documents))


@functools.lru_cache(maxsize=2)
def _by_name(known: ByIdentity[documents.Documents]) -> dict[str, documents.Cluster]:
    return {one.metadata.name: one for one in known.value.clusters}


@functools.lru_cache(maxsize=2)
def _devices_each(known: ByIdentity[documents.Documents]) -> dict[tuple[str, str, str], int]:
    """(model, product, MIG profile) -> devices of one replica."""
    return {
        (model.metadata.name, one.product, one.mig_profile or ""): one.count
        for model in known.value.models
        for one in model.spec.accelerators
    }


@functools.lru_cache(maxsize=2)
def _cell_countries(known: ByIdentity[documents.Documents]) -> dict[str, str]:
    return {cell.name: cell.country for one in known.value.clusters for cell in one.spec.cells}


# ---- round trips


def _peers(
    world: World, report: messages.Report, before: messages.Report | None, book: _Notebook
) -> tuple[messages.PeerRtt, ...]:
    if not report.peers:
        return report.peers
    places = _places(ByIdentity(world.documents))
    here = places.get(report.cluster)
    earlier = {peer.cluster: peer for peer in before.peers} if before is not None else {}
    kept: dict[str, messages.PeerRtt] = {}
    refused = []
    for peer in report.peers:
        last = earlier.get(peer.cluster)
        there = places.get(peer.cluster)
        if peer.samples and not (_is_bounded(peer) and _can_be(peer, here, there)):
            refused.append(peer)
            if last is not None and (not last.samples or _can_be(last, here, there)):
                kept[peer.cluster] = last
            elif _is_bounded(peer):  # maybe a place is wrong: `federation/latency` tells, from all of them
                kept.setdefault(peer.cluster, peer)
            continue
        rtt_ms = peer.rtt_ms_p50
        if last is not None and not _can_be(last, here, there):
            last = None  # what cannot be gives way at once to what can
        if peer.samples and last is not None and last.samples and not _is_near(last.rtt_ms_p50, rtt_ms):
            subject = f"peer/{peer.cluster}"
            if book.settled(f"rtt {peer.cluster}", last.rtt_ms_p50, rtt_ms) != rtt_ms:
                text = f"a round trip of {rtt_ms:.6g} ms after {last.rtt_ms_p50:.6g}: {book.waits}"
                book.tell("RoundTripDoubted", subject, text)
                peer = last
        kept.setdefault(peer.cluster, peer)
    if refused:
        first = refused[0]
        more = f", and {len(refused) - 1} more" if len(refused) > 1 else ""
        text = f"{first.rtt_ms_p50:.6g} ms to {first.cluster}{more}: not above 0, faster than light in fibre, or absurd"
        book.tell("ImplausibleRoundTrip", "peers", text)
    following = tuple(kept.values())
    same = len(following) == len(report.peers) and all(map(_is, following, report.peers))
    return report.peers if same else following


_Vector = tuple[float, float, float]


@functools.lru_cache(maxsize=2)
def _places(known: ByIdentity[documents.Documents]) -> dict[str, _Vector]:
    """Cluster -> unit vector of its location."""
    return {
        one.metadata.name: _on_the_sphere(one.spec.location.lat, one.spec.location.lon) for one in known.value.clusters
    }


def _on_the_sphere(lat: float, lon: float) -> _Vector:
    lat, lon = math.radians(lat), math.radians(lon)
    return math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat)


def _is_bounded(peer: messages.PeerRtt) -> bool:
    return 0 < peer.rtt_ms_p50 <= MOST_RTT_MS and 0 < peer.rtt_ms_p95 <= MOST_RTT_MS


def _can_be(peer: messages.PeerRtt, here: _Vector | None, there: _Vector | None) -> bool:
    """Whether it is not faster than light in fibre, as far as places are known."""
    if here is None or there is None:
        return True
    reach_km = peer.rtt_ms_p50 * KM_PER_RTT_MS + PLACE_SLACK_KM
    return reach_km >= EARTH_RADIUS_KM * math.pi or reach_km >= _angle(here, there) * EARTH_RADIUS_KM


def _angle(one: _Vector, other: _Vector) -> float:
    """Between two places, in radians."""
    chord = math.dist(one, other)
    return 2.0 * math.asin(min(1.0, chord / 2.0))


def _is_near(one: float, other: float) -> bool:
    return one <= other * JUMP_FACTOR and other <= one * JUMP_FACTOR


def _is(one: object, other: object) -> bool:
    return one is other


def new_among(before: Iterable[messages.Condition], after: Iterable[messages.Condition]) -> list[messages.Condition]:
    """Findings whose kind and object are new, whatever their figures: each is reported once."""
    known = {(one.type, one.object) for one in before}
    return [one for one in after if (one.type, one.object) not in known]
