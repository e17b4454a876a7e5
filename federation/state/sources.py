"""Who says how many users there are: what a cluster counts by itself, as rows of demand. Pure.

Of each model the best source counts: the file that the front door keeps, else the gateway that we program, else the
replicas' own engines, and these only while no front door of the federation counts the model, as their requests are
otherwise somebody's already.

A gateway names cells as users do. Where such a cell is, the catalogue says (`cells` of a Cluster document), else who
counts there already. Requests that name no cell, and those that engines count, are of users near the cluster: a cell
of its own (`near`), at its place.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import msgspec
from immutables import Map

from federation.state import plausible
from federation.state.world import ClusterState, Source, World
from federation.wire import messages
from federation.wire.conditions import condition

SCRAPED_FRESH = 3.0
"""Prometheus' figures count for so many stale times; afterwards it has said nothing."""
NEXT_STEP = (
    "label its gateway's pods isochrone.dev/gateway=true, or give the agent --gateway-admin or a --demand file, or the "
    "controller --prometheus"
)


def near(cluster: str) -> str:
    """The cell of users of whom nothing is known but where they came in."""
    return f"near-{cluster}"


def gathered(world: World, state: ClusterState, report: messages.Report, now_s: float) -> messages.Report:
    """The report with the counts of its gateway, of Prometheus and of its engines as demand; itself without any.

    The rows of Prometheus are among `counted` and `engines` of the result, for models of which the agent has none.
    """
    report = _supplied(world, report, now_s)
    if not report.counted and not report.engines:
        return report
    told = {row.model for row in report.demand}
    rps: dict[tuple[str, str], float] = {}
    for one in report.counted:
        if one.model not in told:
            cell = one.cell if _is_known(world, state.name, one.cell) else ""
            rps[one.model, cell] = rps.get((one.model, cell), 0.0) + one.requests_per_second
    known = told | {model for model, _ in rps}
    for engine in report.engines:
        asked_rps = engine.requests_per_second
        if (
            asked_rps is not None
            and engine.model not in known
            and not _is_counted_elsewhere(world, state, engine.model)
        ):
            rps[engine.model, ""] = asked_rps
    before = {(row.model, row.cell.name) for row in state.counted}
    rows = [
        messages.DemandSample(model=model, cell=place, requests_per_second=amount)
        for (model, cell), amount in sorted(rps.items())
        if (place := _place(world, state.name, cell)) is not None and (amount > 0 or (model, place.name) in before)
    ]
    return msgspec.structs.replace(report, demand=(*report.demand, *rows)) if rows else report


def _supplied(world: World, report: messages.Report, now_s: float) -> messages.Report:
    found = world.scraped.by_cluster.get(report.cluster)
    if found is None or now_s - world.scraped.at_s > SCRAPED_FRESH * world.timing.stale_after_s:
        return report
    counted, engines = {one.model for one in report.counted}, {one.model for one in report.engines}
    return msgspec.structs.replace(
        report,
        counted=(*report.counted, *(one for one in found.counted if one.model not in counted)),
        # Engines as they were when Prometheus last answered are no observation of engines now.
        engines=report.engines
        if world.scraped.error
        else (*report.engines, *(one for one in found.engines if one.model not in engines)),
    )


def missing(world: World, report: messages.Report) -> tuple[messages.Condition, ...]:
    """Models that are ready in a cluster and whose users nobody counts. Of a report as `gathered` gave it."""
    ready = {one.model for one in report.replicas if one.ready and not world.doors.get(one.model, 0)}
    if not ready:
        return ()
    ready -= {row.model for row in report.demand} | {row.model for row in report.counted}
    ready -= {one.model for one in report.engines if one.requests_per_second is not None}
    text = "no source of demand for {} in {}: {}"
    return tuple(
        condition("NoDemandSource", f"model/{model}", text.format(model, report.cluster, NEXT_STEP))
        for model in sorted(ready)
        if world.documents.is_placed(model)
    )


def noted(world: World, before: ClusterState, sent: messages.Report, raw: messages.Report) -> World:
    """The world with the source of each model's counts at a cluster.

    Args: sent: the report as the agent sent it. raw: as `gathered` gave it.
    """
    found: dict[str, Source] = {row.model: "engines" for row in raw.demand}
    found.update({row.model: "prometheus" for row in raw.counted})
    found.update({row.model: "gateway" for row in sent.counted})
    found.update({row.model: "file" for row in sent.demand})
    if found == before.sources:
        return world
    following = world.doors
    for model in {*found, *before.sources}:
        change = _is_door(found.get(model)) - _is_door(before.sources.get(model))
        if change:
            following = following.set(model, following.get(model, 0) + change)
    state = replace(world.clusters[before.name], sources=found)
    return replace(world.with_clusters({before.name: state}), doors=following)


def doors(world: World) -> Map[str, int]:
    """Of all clusters of the world."""
    found = Counter(m for state in world.clusters.values() for m, one in state.sources.items() if _is_door(one))
    return Map(found)


def _is_door(source: Source | None) -> bool:
    return source in ("file", "gateway", "prometheus")


def _is_counted_elsewhere(world: World, state: ClusterState, model: str) -> bool:
    return world.doors.get(model, 0) - _is_door(state.sources.get(model)) > 0


def _is_known(world: World, cluster: str, cell: str) -> bool:
    document = plausible.document_of(world, cluster)
    return cell in world.cells or (document is not None and any(one.name == cell for one in document.spec.cells))


def _place(world: World, cluster: str, cell: str) -> messages.UserCell | None:
    """Where users of a cell are; None where the cluster has no document any more."""
    document = plausible.document_of(world, cluster)
    if document is None:
        return None
    here = document.spec.location
    if not cell:
        return messages.UserCell(name=near(cluster), country=here.country, lat=here.lat, lon=here.lon)
    declared = next((one for one in document.spec.cells if one.name == cell), None)
    if declared is not None and declared.lat is not None and declared.lon is not None:
        return messages.UserCell(name=cell, country=declared.country, lat=declared.lat, lon=declared.lon)
    known = world.cells.get(cell)
    if known is not None and "/" not in known.country:
        return known
    country = declared.country if declared is not None else here.country
    return messages.UserCell(name=cell, country=country, lat=here.lat, lon=here.lon)
