"""DNS answers from a route snapshot: the front doors that a resolver's users are given. Pure.

A name is `MODEL.ZONE`. The client's subnet (EDNS) locates its users. A subnet gets the same answer while shares stand,
and over many subnets the answers are distributed as the shares. A subnet of unknown location is answered with clusters
that may serve everyone.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from federation.traffic.snapshot import Entry, Index

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a subnet's users are: degrees, WGS 84; `country` is ISO 3166-1 alpha-2."""

    country: str
    lat: float
    lon: float


class Places:
    """Locations by subnet; the longest prefix that contains an address wins."""

    def __init__(self, rows: Iterable[tuple[Network, Place]] = ()) -> None:
        self._by_length: dict[tuple[int, int], dict[int, Place]] = {}
        for network, place in rows:
            key = (network.version, network.prefixlen)
            self._by_length.setdefault(key, {})[int(network.network_address)] = place
        self._lengths = sorted(self._by_length, reverse=True)

    def of(self, network: Network) -> tuple[Place, int] | None:
        """The location of a subnet, and the length of the prefix that gives it."""
        for version, length in self._lengths:
            if version == network.version and length <= network.prefixlen:
                bits = network.max_prefixlen - length
                place = self._by_length[version, length].get(int(network.network_address) >> bits << bits)
                if place is not None:
                    return place, length
        return None


def parse_places(text: str) -> Places:
    """Places from lines `prefix,country,latitude,longitude`; `#` begins a comment. Raises: ValueError with the line."""
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        try:
            prefix, country, lat, lon = (part.strip() for part in content.split(","))
            place = Place(country=country, lat=float(lat), lon=float(lon))
            if not (re.fullmatch("[A-Z]{2}", country) and abs(place.lat) <= 90 and abs(place.lon) <= 180):
                raise ValueError("a country is two capitals, as DE; degrees are from -90 to 90 and from -180 to 180")
            rows.append((ipaddress.ip_network(prefix, strict=False), place))
        except ValueError as error:
            raise ValueError(
                f"line {number}: {content!r}: expected prefix,country,latitude,longitude ({error})"
            ) from None
    return Places(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One record of an answer; `ttl_s` in seconds. `scope` is the prefix length that the answer holds for."""

    name: str
    kind: str
    content: str
    ttl_s: int
    scope: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """An authoritative server's data about itself: the zone's name without a final dot, and its name server."""

    name: str
    server: str
    contact: str
    ttl_s: int = 3600

    def soa(self) -> Record:
        """Start of authority. The serial is always 1, because a computed zone is never transferred; negative answers
        live 30 s."""
        content = f"{self.server}. {self.contact}. 1 3600 600 86400 30"
        return Record(name=self.name, kind="SOA", content=content, ttl_s=self.ttl_s)

    def ns(self) -> Record:
        """Its name server."""
        return Record(name=self.name, kind="NS", content=f"{self.server}.", ttl_s=self.ttl_s)


def answer(
    zone: Zone, index: Index, places: Places, name: str, kind: str, client: Network | None, sick: frozenset[str]
) -> list[Record]:
    """The records for a question; empty when there are none.

    Args: name: without a final dot. kind: `A`, `AAAA`, `SOA`, `NS` or `ANY`. client: the queried subnet, or the
        resolver's address. sick: clusters whose front door does not answer; they are avoided while any other is left,
        including helpers that the plan does not name.
    """
    name = name.rstrip(".").lower()
    if name == zone.name:
        return [record for record in (zone.soa(), zone.ns()) if kind in (record.kind, "ANY")]
    model, _, rest = name.partition(".")
    if rest != zone.name or kind not in ("A", "AAAA", "ANY"):
        return []
    found = places.of(client) if client is not None else None
    entry = _entry(index, model, found[0] if found else None)
    if entry is None:
        return []
    choices = (*entry.answer.clusters, *entry.answer.helpers)
    addressed: Mapping[str, str] = {one.cluster: one.address for one in choices if one.address}
    if not addressed:
        return []
    doorless = frozenset(one.cluster for one in choices if not one.address)
    spared = sick | doorless
    if not addressed.keys() - spared:
        spared = doorless
    address = addressed[entry.pick(str(client), spared)]
    mine = "AAAA" if ":" in address else "A"
    if kind not in (mine, "ANY"):
        return []
    # Another subnet may fall to another cluster, so an answer holds for the one that asked.
    scope = client.prefixlen if client is not None else 0
    return [Record(name=name, kind=mine, content=address, ttl_s=entry.answer.ttl_s, scope=scope)]


def _entry(index: Index, model: str, place: Place | None) -> Entry | None:
    if place is None:
        return index.anywhere(model)
    return index.at(model, place.lat, place.lon, place.country)
