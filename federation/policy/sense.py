"""Checks the names in documents against the fleet: jurisdictions, clusters, models, stock.

`impossible` names are refused: no plan could satisfy them with this catalogue. `doubtful` ones are accepted and
reported: the document has less effect than it says, until the fleet grows. Without a Cluster document nothing is
checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from federation.policy import documents
from federation.policy.load import Placed
from federation.yamlkit.explain import Problem, did_you_mean, problem_at

_MIG = re.compile(r"[1-7]g\..*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """Devices of one kind that a cluster has, or is expected to have. `vram_gib`: None where it is unverified."""

    product: str
    mig_profile: str
    market: str
    vram_gib: float | None
    devices: int


def impossible(file: str, placed: Placed, clusters: Iterable[documents.Cluster]) -> Iterator[Problem]:
    """Demands of a policy that no cluster of this catalogue can satisfy, and cells that are declared in two
    countries."""
    if isinstance(placed.document, documents.Cluster):
        yield from _in_two_places(file, placed, placed.document, clusters)
    if not isinstance(placed.document, documents.PlacementPolicy):
        return
    known = {one.metadata.name: one for one in clusters}
    if not known:
        return
    spec = placed.document.spec
    declared = {area for one in known.values() for area in one.spec.jurisdictions}
    for number, rule in enumerate(spec.residency):
        areas = rule.clusters_in.jurisdictions
        if declared.isdisjoint(areas):
            mark = placed.mark("spec", "residency", number, "clustersIn", "jurisdictions", 0)
            text = f"no cluster declares {' or '.join(areas)}: these users could be served nowhere"
            hint = did_you_mean(areas[0], sorted(declared)) or "a Cluster document has to declare it first"
            yield problem_at(file, mark, text, f"one of {', '.join(sorted(declared)) or 'none yet'}", hint)
    for number, pin in enumerate(spec.availability.pinned):
        if pin.cluster not in known:
            mark = placed.mark("spec", "availability", "pinned", number, "cluster")
            hint = did_you_mean(pin.cluster, sorted(known)) or "its Cluster document has to be there first"
            yield problem_at(file, mark, f"no Cluster document names {pin.cluster}", "a cluster", hint)


def _in_two_places(
    file: str, placed: Placed, document: documents.Cluster, clusters: Iterable[documents.Cluster]
) -> Iterator[Problem]:
    if not document.spec.cells:
        return
    said = {
        cell.name: (cell.country, one.metadata.name)
        for one in clusters
        if one.metadata.name != document.metadata.name
        for cell in one.spec.cells
    }
    for number, cell in enumerate(document.spec.cells):
        country, who = said.setdefault(cell.name, (cell.country, document.metadata.name))
        if country != cell.country:
            text = f"cell {cell.name} is in {country} by Cluster {who}"
            mark = placed.mark("spec", "cells", number, "country")
            yield problem_at(file, mark, text, "one country for a cell", "correct one of the two")


def doubtful(
    file: str, placed: Placed, everything: documents.Documents, reported: Mapping[str, tuple[Stock, ...]]
) -> Iterator[Problem]:
    """Documents that have less effect than they say. Args: reported: pools by cluster, as agents report them."""
    document = placed.document
    if isinstance(document, documents.Cluster):
        return
    if isinstance(document, documents.Model):
        yield from _doubtful_shapes(file, placed, document.spec)
    clusters = {one.metadata.name: one for one in everything.clusters}
    stock = {name: (*_expected(one.spec), *reported.get(name, ())) for name, one in clusters.items()}
    if isinstance(document, documents.Model) and clusters:
        if not _holders(document, stock, spot=True):
            mark = placed.mark("spec", "accelerators")
            text = f"no cluster has an accelerator that fits {document.metadata.name}: it is placed nowhere"
            yield problem_at(file, mark, text, "a product and memory that some cluster has")
    elif isinstance(document, documents.PlacementPolicy):
        yield from _doubtful_policy(file, placed, document.spec, everything, stock)


def _doubtful_shapes(file: str, placed: Placed, spec: documents.ModelSpec) -> Iterator[Problem]:
    for number, one in enumerate(spec.accelerators):
        is_slice = one.mig_profile is not None and _MIG.fullmatch(one.mig_profile) is not None
        if one.count > 1 and (is_slice or one.product.endswith("-SHARED")):
            mark = placed.mark("spec", "accelerators", number, "count")
            what = "MIG slices: a process sees one of them" if is_slice else "parts of a shared device: they may be one"
            yield problem_at(
                file, mark, f"count {one.count} asks for {what}", "count: 1", "a larger slice, or whole devices"
            )


def _doubtful_policy(
    file: str,
    placed: Placed,
    spec: documents.PlacementPolicySpec,
    everything: documents.Documents,
    stock: Mapping[str, tuple[Stock, ...]],
) -> Iterator[Problem]:
    models = {one.metadata.name: one for one in everything.models}
    clusters = {one.metadata.name: one for one in everything.clusters}
    for number, name in enumerate(spec.models.match_names):
        if name not in models:
            mark = placed.mark("spec", "models", "matchNames", number)
            others = [one for one in models if one not in spec.models.match_names]
            text = f"no Model document names {name}"
            yield problem_at(file, mark, text, "a model", did_you_mean(name, others) or "hand in its Model document")
    if not clusters:
        return
    declared = {area for one in clusters.values() for area in one.spec.jurisdictions}
    for number, rule in enumerate(spec.residency):
        for at, area in enumerate(rule.clusters_in.jurisdictions):
            if area not in declared:
                mark = placed.mark("spec", "residency", number, "clustersIn", "jurisdictions", at)
                yield problem_at(file, mark, f"no cluster declares {area}", "", did_you_mean(area, sorted(declared)))
    floors = spec.availability
    regions = {(one.spec.provider, one.spec.region) for one in clusters.values()}
    if floors.min_regions > len(regions):
        mark = placed.mark("spec", "availability", "minRegions")
        yield problem_at(file, mark, f"minRegions {floors.min_regions}: clusters are in {len(regions)} regions")
    domains = _domains(floors.survive, clusters.values())
    if floors.survive is not None and len(domains) < 2:
        mark = placed.mark("spec", "availability", "survive")
        yield problem_at(file, mark, f"clusters are in {len(domains)} {floors.survive}: nothing survives its loss")
    part = floors.max_part_per_domain
    if part is not None and (places := _domains(part.domain, clusters.values())):
        yield from _doubtful_part(file, placed, part, len(places), "clusters are")
    for name in spec.models.match_names:
        if name in models and _holders(models[name], stock, spot=True):
            yield from _doubtful_stock(file, placed, spec, models[name], clusters, stock)


def _doubtful_part(
    file: str, placed: Placed, part: documents.MaxPartPerDomain, places: int, who: str
) -> Iterator[Problem]:
    if places * part.percent < 100.0 - 1e-9:
        mark = placed.mark("spec", "availability", "maxPartPerDomain", "percent")
        many = part.domain + ("s" if places > 1 else "")
        text = f"{who} in {places} {many}: with at most {part.percent:g} % in each they cannot hold all of a model"
        yield problem_at(file, mark, text, f"{100.0 / places:g} or more", "it is missed until there are more")


def _doubtful_stock(
    file: str,
    placed: Placed,
    spec: documents.PlacementPolicySpec,
    model: documents.Model,
    clusters: Mapping[str, documents.Cluster],
    stock: Mapping[str, tuple[Stock, ...]],
) -> Iterator[Problem]:
    name, floors = model.metadata.name, spec.availability
    may_spot = spec.spot.max_fraction > 0
    room = _holders(model, stock, spot=may_spot)
    if not room:
        mark = placed.mark("spec", "spot", "maxFraction")
        yield problem_at(file, mark, f"all that fits {name} is spot: it is placed nowhere", "a fraction above 0")
        return
    if floors.min_replicas > sum(room.values()):
        mark = placed.mark("spec", "availability", "minReplicas")
        text = f"minReplicas {floors.min_replicas}: there are devices for {sum(room.values())} replicas of {name}"
        yield problem_at(file, mark, text)
    part = floors.max_part_per_domain
    if part is not None:
        places = len(_domains(part.domain, (clusters[one] for one in room if one in clusters)))
        if places < len(_domains(part.domain, clusters.values())):
            yield from _doubtful_part(file, placed, part, places, f"devices that fit {name} are")
    for number, pin in enumerate(floors.pinned):
        if pin.cluster in clusters and pin.replicas > room.get(pin.cluster, 0):
            mark = placed.mark("spec", "availability", "pinned", number, "replicas")
            text = f"{pin.cluster} has devices for {room.get(pin.cluster, 0)} replicas of {name}"
            yield problem_at(file, mark, text)
    for number, rule in enumerate(spec.residency):
        areas = set(rule.clusters_in.jurisdictions)
        allowed = {one for one, document in clusters.items() if areas & set(document.spec.jurisdictions)}
        if allowed and not allowed & room.keys():
            mark = placed.mark("spec", "residency", number)
            text = f"no cluster in {' or '.join(sorted(areas))} has an accelerator that fits {name}"
            yield problem_at(file, mark, text, "", "these users are served nowhere until one has")


def _domains(domain: str | None, clusters: Iterable[documents.Cluster]) -> set[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()
    for one in clusters:
        spec = one.spec
        way = (spec.provider, spec.region, spec.zone or one.metadata.name)
        found.add(way[: {"provider": 1, "region": 2}.get(domain or "", 3)])
    return found


def _expected(spec: documents.ClusterSpec) -> tuple[Stock, ...]:
    return tuple(
        Stock(
            product=one.product,
            mig_profile=one.mig_profile or "",
            market=one.market,
            vram_gib=one.vram_gib,
            devices=one.devices,
        )
        for one in spec.accelerators
    )


def _holders(model: documents.Model, stock: Mapping[str, tuple[Stock, ...]], *, spot: bool) -> dict[str, int]:
    """Cluster -> the most replicas of the model that its devices hold, for clusters with a pool that fits."""
    found: dict[str, int] = {}
    for name, pools in stock.items():
        most: dict[tuple[str, str, str], int] = {}
        for pool in pools:
            for shape in model.spec.accelerators:
                fits = shape.runs_on(pool.product, pool.mig_profile)
                has_memory = (
                    pool.vram_gib >= shape.min_vram_gib if pool.vram_gib is not None else not shape.min_vram_gib
                )
                if fits and has_memory and (spot or pool.market != "spot"):
                    key = (pool.product, pool.mig_profile, pool.market)
                    most[key] = max(most.get(key, 0), pool.devices // shape.count)
        if most:
            found[name] = sum(most.values())
    return found
