"""All routes in one small document, and its look-ups, for an edge function or a DNS server. Pure.

The holder of a snapshot answers for every place in the world without a request: the nearest cell decides, and a key (a
session, a subnet) maps to the same cluster while shares stand. The snapshot also names helpers, for the case that no
planned cluster answers and no new plan can be fetched.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from federation.control.plan import Routes
from federation.latency.sphere import great_circle_km
from federation.policy.documents import PlacementPolicySpec
from federation.state.world import World, countries
from federation.traffic.table import allowed_clusters, anywhere, capacity_rps, keeps_home, resident_clusters, takes

MILLION = 1_000_000
HELPERS = 2
"""The number of helpers that an answer names beside the planned clusters."""


class ClusterEntry(msgspec.Struct, frozen=True, array_like=True):
    """A cluster's front door: IP address and port, empty and 0 where it has none; degrees, WGS 84.

    `continent` is as in the snapshot's `continents`, empty where it is not known.
    """

    name: str
    address: str
    port: int
    lat: float
    lon: float
    continent: str = ""


class CellEntry(msgspec.Struct, frozen=True, array_like=True):
    """Users of one place, and (index of the cluster, millionths of their requests). A `country` of `DE/US` is one of
    the two, unknown which."""

    name: str
    country: str
    lat: float
    lon: float
    shares: tuple[tuple[int, int], ...]


class ModelEntry(msgspec.Struct, frozen=True, array_like=True):
    """One model. `anywhere` is for users of an unknown place: clusters that may serve everyone."""

    name: str
    ttl_s: int
    cells: tuple[CellEntry, ...]
    anywhere: tuple[tuple[int, int], ...]
    countries: tuple[tuple[str, tuple[int, ...]], ...]
    """Country -> clusters that may serve it, for countries in residency rules. The empty country stands for all
    others."""
    takers: tuple[int, ...] = ()
    """Clusters with ready replicas that may receive unplanned requests."""
    leaving: int = MILLION
    """Millionths of each continent's requests that other continents may serve. Below a million, no cluster of another
    continent receives unplanned requests; at 0, none at all."""


class RouteSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All routes. `version` is a digest of the content, so equal routes have equal versions, whoever serves them.

    `continents`: (continent, its countries separated by spaces), where a model needs them.
    """

    version: str = ""
    clusters: tuple[ClusterEntry, ...] = ()
    models: tuple[ModelEntry, ...] = ()
    continents: tuple[tuple[str, str], ...] = ()


def build(world: World, routes: Routes) -> RouteSnapshot:
    """The snapshot of the routes in force."""
    documents = world.documents.clusters
    numbers = {one.metadata.name: number for number, one in enumerate(documents)}
    clusters = tuple(
        ClusterEntry(
            one.metadata.name,
            one.spec.gateway.address if one.spec.gateway is not None else "",
            one.spec.gateway.port if one.spec.gateway is not None else 0,
            one.spec.location.lat,
            one.spec.location.lon,
            world.continents.get(one.spec.location.country, ""),
        )
        for one in documents
    )
    capacity = capacity_rps(world)
    models = []
    for document in world.documents.models:
        name = document.metadata.name
        policy = world.documents.policy_of(name)
        if policy is None:
            continue
        cells = []
        at_home: dict[str, Collection[str]] = {}
        mine = [route for route in routes.routes if route.model == name and route.cell in world.cells]
        for route in mine:
            cell = world.cells[route.cell]
            # A plan from before the policy changed may still be on its way off another continent.
            able: Collection[str] = numbers
            if keeps_home(policy.spec):
                if cell.country not in at_home:
                    at_home[cell.country] = allowed_clusters(world, policy.spec, cell.country)
                able = at_home[cell.country]
            parts = {
                share.cluster: share.share for share in route.now if share.cluster in numbers and share.cluster in able
            }
            cells.append(CellEntry(cell.name, cell.country, cell.lat, cell.lon, _millionths(parts, numbers)))
        models.append(
            ModelEntry(
                name,
                policy.spec.traffic.dns_ttl_seconds,
                tuple(cells),
                _millionths(anywhere(world, name, policy.spec, mine, capacity), numbers),
                _residents(world, policy.spec, numbers, cells),
                tuple(sorted(numbers[c] for (m, c), rps in capacity.items() if m == name and rps and takes(world, c))),
                round(MILLION * policy.spec.failover.max_other_continents_percent / 100.0),
            )
        )
    continents = _continents(world) if any(one.leaving < MILLION for one in models) else ()
    made = RouteSnapshot(clusters=clusters, models=tuple(models), continents=continents)
    return msgspec.structs.replace(made, version=hashlib.sha256(msgspec.json.encode(made)).hexdigest()[:16])


def _continents(world: World) -> tuple[tuple[str, str], ...]:
    made: dict[str, list[str]] = {}
    for country, continent in sorted(world.continents.items()):
        made.setdefault(continent, []).append(country)
    return tuple((continent, " ".join(found)) for continent, found in sorted(made.items()))


def _millionths(parts: Mapping[str, float], numbers: Mapping[str, int]) -> tuple[tuple[int, int], ...]:
    whole = sum(parts.values())
    return tuple(
        (numbers[cluster], round(MILLION * part / whole)) for cluster, part in sorted(parts.items()) if whole and part
    )


def _residents(
    world: World, policy: PlacementPolicySpec, numbers: Mapping[str, int], cells: Iterable[CellEntry]
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    named = {country for rule in policy.residency if rule.users_in is not None for country in rule.users_in.countries}
    named |= {cell.country for cell in cells if len(countries(cell.country)) > 1}
    return tuple(
        (country, tuple(sorted(numbers[c] for c in resident_clusters(world, policy, country))))
        for country in sorted({"", *named})
    )


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One serving cluster, its fraction of the requests, and its front door."""

    cluster: str
    share: float
    address: str
    port: int


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The clusters that serve a model's users in a place. `cluster` is the one for the given key; empty without a key.
    `helpers`: clusters to try when none of `clusters` answers, nearest first."""

    model: str
    cell: str
    ttl_s: int
    clusters: tuple[Choice, ...]
    helpers: tuple[Choice, ...] = ()
    cluster: str = ""


class Index:
    """A snapshot prepared for look-ups; each takes microseconds."""

    def __init__(self, snapshot: RouteSnapshot) -> None:
        self.snapshot = snapshot
        self.body = msgspec.json.encode(snapshot)
        home = _homes(snapshot)
        self._models = {one.name: _Model(one, snapshot.clusters, home) for one in snapshot.models}

    def models(self) -> Iterable[str]:
        """The names of the models."""
        return self._models

    def at(self, model: str, lat: float, lon: float, country: str = "") -> Entry | None:
        """The answer to a user at this location (degrees, WGS 84); None when nobody serves the model there.

        With the user's country (ISO 3166-1 alpha-2), cells of that country are preferred, and its residency rules hold
        even when the nearest cell lies across a border.
        """
        found = self._models.get(model)
        return found.at(lat, lon, country) if found is not None else None

    def cell(self, model: str, name: str, country: str = "") -> Entry | None:
        """The answer to users of a named cell; residency holds for the country as in `at`."""
        found = self._models.get(model)
        return found.by_name(name, country) if found is not None else None

    def anywhere(self, model: str) -> Entry | None:
        """The answer to a user of unknown location."""
        found = self._models.get(model)
        return found.anywhere() if found is not None else None


class Entry:
    """An answer in the forms in which it is requested."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.body = msgspec.json.encode(answer)
        self.etag = f'"{hashlib.sha256(self.body).hexdigest()[:16]}"'
        self._parts = [(one.cluster, one.share) for one in answer.clusters]

    def pick(self, key: str, but: frozenset[str] = frozenset()) -> str:
        """The cluster of a key; a helper where `but` excludes all planned clusters; as without `but` if nobody is left.

        Raises: ValueError when there is no cluster.
        """
        usable = [(cluster, share) for cluster, share in self._parts if cluster not in but]
        helpers = [one.cluster for one in self.answer.helpers if one.cluster not in but] if not usable else []
        return helpers[0] if helpers else pick(key, usable or self._parts)

    def with_pick(self, key: str) -> bytes:
        """The body with the cluster of a key."""
        return msgspec.json.encode(msgspec.structs.replace(self.answer, cluster=self.pick(key)))


def pick(key: str, parts: Sequence[tuple[str, float]]) -> str:
    """The cluster that `key` maps to, in proportion to the shares: always the same, and when shares change, as few keys
    move as possible.

    Source: weighted rendezvous hashing (Schindelhauer and Schomaker 2005): the largest of -share / ln(u), u from key
        and name.
    Raises: ValueError when there is no cluster.
    """
    if len(parts) == 1:
        return parts[0][0]

    def score(part: tuple[str, float]) -> float:
        digest = hashlib.blake2b(f"{part[0]}\0{key}".encode(), digest_size=8).digest()
        return -part[1] / math.log((int.from_bytes(digest, "big") + 1) / (2**64 + 1))

    return max(parts, key=score)[0]


def _homes(snapshot: RouteSnapshot) -> dict[str, frozenset[int]]:
    """Country -> clusters on its continent."""
    found: dict[str, frozenset[int]] = {}
    for continent, of_it in snapshot.continents:
        there = frozenset(number for number, one in enumerate(snapshot.clusters) if one.continent == continent)
        found |= dict.fromkeys(of_it.split(), there)
    return found


class _Model:
    """One model's cells as points on the sphere. `home`: country -> clusters on its continent."""

    def __init__(self, model: ModelEntry, clusters: Sequence[ClusterEntry], home: Mapping[str, frozenset[int]]) -> None:
        self._model = model
        self._home = home
        self._clusters = clusters
        self._cells = [cell for cell in model.cells if cell.shares]
        self._points = _points([(cell.lat, cell.lon) for cell in self._cells])
        self._numbers = {cell.name: number for number, cell in enumerate(self._cells)}
        self._residents = {country: frozenset(numbers) for country, numbers in model.countries}
        self._elsewhere = self._residents.pop("", frozenset(range(len(clusters))))
        self._takers = np.array(model.takers, dtype=np.int64)
        self._doors = _points([(clusters[one].lat, clusters[one].lon) for one in model.takers])
        self._in_country: dict[str, Any] = {}
        for number, cell in enumerate(self._cells):
            for country in countries(cell.country):
                self._in_country.setdefault(country, []).append(number)
        self._entries: dict[tuple[int, str], Entry | None] = {}

    def at(self, lat: float, lon: float, country: str) -> Entry | None:
        if not self._cells:
            return self.anywhere()
        among = self._in_country.get(country) if country else None
        point = _points([(lat, lon)])[0]
        if among is None:
            number = int(np.argmax(self._points @ point))
        else:
            number = among[int(np.argmax(self._points[among] @ point))]
        return self._entry(number, country)

    def by_name(self, name: str, country: str) -> Entry | None:
        number = self._numbers.get(name)
        return self._entry(number, country) if number is not None else None

    def anywhere(self) -> Entry | None:
        return self._entry(-1, "")

    def _entry(self, number: int, country: str) -> Entry | None:
        """The answer, computed once. For another country than the cell's with residency rules, only the clusters they
        allow."""
        if number >= 0 and self._cells[number].country == country:
            country = ""
        key = (number, country)
        if key not in self._entries:
            shares = self._cells[number].shares if number >= 0 else self._model.anywhere
            allowed = self._residents.get(country)
            if country and self._model.leaving <= 0:
                allowed = self._residents.get(country, self._elsewhere) & self._home.get(country, frozenset())
            if allowed is not None:
                shares = tuple(one for one in shares if one[0] in allowed) or self._nearest(number, allowed)
            self._entries[key] = self._made(number, shares, self._helpers(number, country, shares)) if shares else None
        return self._entries[key]

    def _helpers(self, number: int, country: str, shares: Sequence[tuple[int, int]]) -> list[int]:
        """Clusters that may help these users by residency; users of an unknown place by all residency rules together.

        Where other continents are capped, their clusters help nobody. Nearest first; for an unknown place in catalogue
        order.
        """
        if number >= 0:
            country = country or self._cells[number].country
            allowed = self._residents.get(country, self._elsewhere)
            takers = self._takers[np.argsort(-(self._doors @ self._points[number]), kind="stable")]
        else:
            allowed = self._elsewhere.intersection(*self._residents.values())
            takers = self._takers
        if self._model.leaving < MILLION:
            allowed = allowed & self._home.get(country, frozenset())
        planned = {one for one, _ in shares}
        return list(itertools.islice((one for one in takers.tolist() if one in allowed - planned), HELPERS))

    def _nearest(self, number: int, allowed: frozenset[int]) -> tuple[tuple[int, int], ...]:
        """Of the clusters that serve the model somewhere, the nearest one that residency allows."""
        cell = self._cells[number]
        serving = {one for other in self._cells for one, _ in other.shares} & allowed
        near = sorted(
            serving,
            key=lambda one: great_circle_km(cell.lat, cell.lon, self._clusters[one].lat, self._clusters[one].lon),
        )
        return ((near[0], MILLION),) if near else ()

    def _made(self, number: int, shares: Sequence[tuple[int, int]], helpers: Sequence[int]) -> Entry:
        whole = sum(part for _, part in shares)
        return Entry(
            Answer(
                model=self._model.name,
                cell=self._cells[number].name if number >= 0 else "",
                ttl_s=self._model.ttl_s,
                clusters=tuple(self._choice(one, round(part / whole, 6)) for one, part in shares),
                helpers=tuple(self._choice(one, 0.0) for one in helpers),
            )
        )

    def _choice(self, number: int, share: float) -> Choice:
        one = self._clusters[number]
        return Choice(cluster=one.name, share=share, address=one.address, port=one.port)


def _points(places: Sequence[tuple[float, float]]) -> Any:
    """Unit vectors of places in degrees: the nearest has the largest scalar product."""
    if len(places) == 1:
        phi, lam = math.radians(places[0][0]), math.radians(places[0][1])
        return np.array([[math.cos(phi) * math.cos(lam), math.cos(phi) * math.sin(lam), math.sin(phi)]])
    angles = np.radians(np.array(places, dtype=float).reshape(-1, 2))
    phi, lam = angles[:, 0], angles[:, 1]
    return np.column_stack((np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)))
