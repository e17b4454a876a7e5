"""The demo's world from its YAML: clusters, models and policies, users, distances, and the day's story."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import yaml
from msgspec import Meta

from federation.policy.documents import (
    Base,
    Cluster,
    Continent,
    Country,
    Document,
    Documents,
    Fraction,
    Model,
    Name,
    NonNegative,
    PlacementPolicy,
    Positive,
)

DOCUMENT_FILES = ("clusters.yaml", "models.yaml", "policies.yaml")
"""The files that are policy documents; the others are read by the demo alone."""
Latitude = Annotated[float, Meta(ge=-90, le=90)]
Longitude = Annotated[float, Meta(ge=-180, le=180)]


class Place(Base, frozen=True, kw_only=True):
    """A city whose people use the models: one user cell."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    country: Country
    continent: Continent
    lat: Latitude
    lon: Longitude
    population: Annotated[int, Meta(gt=0)]


class Site(Base, frozen=True, kw_only=True):
    """A location; degrees, WGS 84."""

    lat: Latitude
    lon: Longitude


class Rtt(Base, frozen=True, kw_only=True):
    """Measured round trips between `sites`: each row up to the diagonal, columns in the order of the rows."""

    sites: dict[str, Site]
    rtt_ms: dict[str, tuple[Positive, ...]]


class Adoption(Base, frozen=True, kw_only=True):
    """Share of the people that are users: the country's where it is given, else the continent's."""

    continents: dict[Continent, Fraction]
    countries: dict[Country, Fraction]


class Rhythm(Base, frozen=True, kw_only=True):
    """How demand varies over places and hours."""

    hourly: Annotated[tuple[Positive, ...], Meta(min_length=24, max_length=24)]
    adoption: Adoption
    rps_per_million_users: dict[Name, NonNegative]


class Network(Base, frozen=True, kw_only=True):
    """The terms of a round trip."""

    anchor_km: NonNegative
    base_rtt_ms: NonNegative
    rtt_ms_per_km: Positive
    user_access_ms: NonNegative
    edge_base_rtt_ms: NonNegative
    jitter: Fraction


class Episode(Base, frozen=True, kw_only=True):
    """An event from one fraction of the day to another."""

    start: Fraction = msgspec.field(name="from")
    until: Fraction
    says: Annotated[str, Meta(min_length=1, max_length=200)]

    def is_on(self, day_fraction: float) -> bool:
        """Whether it is in progress."""
        return self.start <= day_fraction % 1.0 < self.until


class PriceRise(Episode, frozen=True, kw_only=True, tag_field="kind", tag="price"):
    """Devices of some clusters cost `factor` times as much."""

    clusters: tuple[Name, ...]
    factor: Positive


class SpotGone(Episode, frozen=True, kw_only=True, tag_field="kind", tag="spot-gone"):
    """A provider takes all its spot devices back."""

    provider: Name


class Outage(Episode, frozen=True, kw_only=True, tag_field="kind", tag="outage"):
    """Clusters are lost and come back."""

    clusters: tuple[Name, ...]


class Surge(Episode, frozen=True, kw_only=True, tag_field="kind", tag="surge"):
    """A continent asks for `factor` times as much."""

    continent: Continent
    factor: Positive


StoryEvent = PriceRise | SpotGone | Outage | Surge


class Day(Base, frozen=True, kw_only=True):
    """How a day goes."""

    demand: Rhythm
    network: Network
    story: tuple[StoryEvent, ...]


class _Places(Base, frozen=True, kw_only=True):
    places: tuple[Place, ...]


class Catalogue(msgspec.Struct, frozen=True, kw_only=True):
    """All data of the demo's world."""

    documents: Documents
    places: tuple[Place, ...]
    rtt: Rtt
    day: Day


_T = TypeVar("_T")


def folder() -> Traversable:
    """The folder of the demo's YAML: in the package of a wheel, or in `configs/` of a source tree."""
    packaged = resources.files("federation") / "configs" / "demo"
    if packaged.is_dir():
        return packaged
    return Path(__file__).resolve().parents[2] / "configs" / "demo"


def load(source: Traversable | None = None) -> Catalogue:
    """The demo's world.

    Raises: ValueError when a file is invalid, or names something that no other file defines.
    """
    source = source or folder()
    found: list[Document] = []
    for name in DOCUMENT_FILES:
        parts = yaml.load_all((source / name).read_text(encoding="utf-8"), _Loader)
        found += [_convert(part, Document, name) for part in parts if part is not None]
    catalogue = Catalogue(
        documents=Documents(
            models=_sorted(found, Model),
            policies=_sorted(found, PlacementPolicy),
            clusters=_sorted(found, Cluster),
        ),
        places=_read(source / "places.yaml", _Places).places,
        rtt=_read(source / "rtt.yaml", Rtt),
        day=_read(source / "day.yaml", Day),
    )
    _check(catalogue)
    return catalogue


# The C parser where it is built in: the whole catalogue then loads in a tenth of the time.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _read(file: Traversable, kind: type[_T]) -> _T:
    found: _T = _convert(yaml.load(file.read_text(encoding="utf-8"), _Loader), kind, file.name)
    return found


def _convert(value: object, kind: Any, name: str) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{name}: {error}") from error


_D = TypeVar("_D", Model, PlacementPolicy, Cluster)


def _sorted(found: list[Document], kind: type[_D]) -> tuple[_D, ...]:
    return tuple(sorted((one for one in found if isinstance(one, kind)), key=lambda one: one.metadata.name))


def _check(catalogue: Catalogue) -> None:
    clusters = {one.metadata.name: one.spec.provider for one in catalogue.documents.clusters}
    models = {one.metadata.name for one in catalogue.documents.models}
    _same("day.yaml: rpsPerMillionUsers and the models", catalogue.day.demand.rps_per_million_users, models)
    _same("rtt.yaml: rttMs and sites", catalogue.rtt.rtt_ms, catalogue.rtt.sites)
    for i, (name, row) in enumerate(catalogue.rtt.rtt_ms.items(), 1):
        if len(row) != i:
            raise ValueError(f"rtt.yaml: row {name} has {len(row)} columns, expected {i}")
    for event in catalogue.day.story:
        named = event.clusters if isinstance(event, PriceRise | Outage) else ()
        for name in named:
            if name not in clusters:
                raise ValueError(f"day.yaml: no cluster is called {name}")
        if isinstance(event, SpotGone) and event.provider not in clusters.values():
            raise ValueError(f"day.yaml: no cluster is of provider {event.provider}")


def _same(what: str, left: Mapping[str, object], right: Mapping[str, object] | set[str]) -> None:
    if set(left) != set(right):
        raise ValueError(f"{what} differ: {', '.join(sorted(set(left) ^ set(right)))}")
