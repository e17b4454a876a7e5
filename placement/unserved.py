"""Why demand is left unserved: a code and a sentence, with what would have to be different."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import assert_never

from msgspec import structs

from placement import costs
from placement.answer import DUST_RPS
from placement.capacity import Capacity, capacity_of, devices_used, with_room
from placement.index import Index
from placement.limits import LimitUse, exhausted
from placement.problem import Cell, Intake, Model
from placement.solution import DevicePrice, Flow, Limit, Reached, Ready, Unserved, UnservedCode

CAP_NEAR = 1e-4
"""A cap is reached when so small a part of it is left."""


def by_plan(
    index: Index,
    model: Model,
    counts: Ready,
    flows: Sequence[Flow],
    missing: Mapping[str, float],
    scarce: Sequence[DevicePrice],
    limits: Sequence[LimitUse],
) -> list[Unserved]:
    """Why a placement with these flows of `model` leaves requests unserved. Args: missing: cell -> requests per second.
    scarce: pools of which one more device would save, the dearest first."""
    full = _full_continents(index, model, flows) if missing else {}
    room = with_room(capacity_of(index, model, counts)[0], {}, flows) if full else set()
    why = [_why(index, model, cell, rps, counts, scarce, limits, room, full) for cell, rps in missing.items()]
    return _growth_told(index, model, why)


def by_routing(
    index: Index,
    model: Model,
    usable: Capacity,
    beyond: Capacity,
    flows: Sequence[Flow],
    missing: Mapping[str, float],
) -> list[Unserved]:
    """Why a routing over ready replicas leaves requests unserved. Args: as of `by_plan`; usable, beyond: as
    `capacity_of` gives them."""
    full = _full_continents(index, model, flows) if missing else {}
    room = with_room(usable, beyond, flows) if full else set()
    why = [_why_not_routed(index, model, cell, rps, usable, room, full) for cell, rps in missing.items()]
    return _growth_told(index, model, why)


def _why(
    index: Index,
    model: Model,
    cell_name: str,
    rps: float,
    counts: Mapping[tuple[str, str], int],
    scarce: Sequence[DevicePrice],
    limits: Sequence[LimitUse],
    room: set[str],
    full: Mapping[str, float],
) -> Unserved:
    """Why a placement leaves users unserved: what would have to be different, and what that would save."""
    cell = index.cells[cell_name]
    fitting = index.fitting(model)
    code, reason = _why_nowhere(index, model, cell)
    if code is None:
        able = set(index.servers(model, cell, fitting))
        home = {name for name in able if not index.leaves(cell_name, name)} if cell.continent in full else able
        beyond = _beyond_cap(index, model, cell, fitting) if cell.continent in full else set()
        free = _with_free_devices(index, model, home, counts)
        elsewhere = sorted(beyond & room) or _with_free_devices(index, model, beyond, counts)
        if elsewhere and not free:
            code = UnservedCode.CONTINENT_CAP
            reason = f"{cap_says(model, cell)}; {elsewhere[0]} has room"
        elif free and (limit := _limit_of(index, model, cell, free, counts, limits)) is not None:
            code = _code(limit.limit)
            reason = f"{limit.says}; {free[0]} has free devices: {_raise(limit)}"
        elif free:
            code = UnservedCode.PRICE
            reason = (
                f"serving {cell.name} would cost more than the {model.unserved_usd_per_1000:g} USD per 1,000 that "
                f"policy puts on an unserved request; {free[0]} has free devices"
            )
        else:
            code = UnservedCode.CAPACITY
            reason = (
                f"every device that fits {model.name} in the {len(able)} clusters that may serve {cell.name} is taken"
                f"{_would_save(index, model, able, scarce)}"
            )
    return Unserved(model=model.name, cell=cell.name, requests_per_second=rps, code=code, reason=reason)


def _limit_of(
    index: Index, model: Model, cell: Cell, clusters: Iterable[str], counts: Ready, limits: Sequence[LimitUse]
) -> Reached | None:
    """The limit that keeps the model from one more replica in these clusters that would be worth it, if one does."""
    within = set(clusters) if limits else set()
    unserved_usd = costs.THOUSANDS_PER_HOUR * model.unserved_usd_per_1000
    worth = []
    for option in index.options(model) if limits else ():
        cluster, usd = option.pool.cluster, option.shape.devices * option.pool.usd_per_device_hour
        if cluster in within and counts.get((model.name, option.pool.name), 0) < option.most:
            latency_ms = index.latency_ms(model, cell.name, cluster)
            served_usd = costs.served_usd_per_rps(model, index.clusters[cluster], latency_ms)
            if usd / (option.shape.requests_per_second * model.target_utilisation) + served_usd < unserved_usd:
                worth.append(option)
    return next((one.reached for one in exhausted(model, worth, limits)), None)


def _code(limit: Limit) -> UnservedCode:
    match limit:
        case "max_replicas":
            return UnservedCode.MAX_REPLICAS
        case "budget":
            return UnservedCode.BUDGET
        case _:
            assert_never(limit)


def _raise(limit: Reached) -> str:
    match limit.limit:
        case "max_replicas":
            return f"raise availability.maxReplicas of the policy of {limit.subject}"
        case "budget":
            return f"raise budget.maxUsdPerHour of {limit.subject}"
        case _:
            assert_never(limit.limit)


def _would_save(index: Index, model: Model, able: set[str], scarce: Sequence[DevicePrice]) -> str:
    for one in scarce:
        pool = index.pools[one.pool]
        if pool.cluster in able and model.shape_for(pool) is not None:
            return f"; one more {pool.product} in {pool.cluster} would save up to {one.usd_per_hour:.2f} USD an hour"
    return ""


def _full_continents(index: Index, model: Model, flows: Sequence[Flow]) -> dict[str, float]:
    """Continent -> requests per second that leave it, where that is all that policy lets other continents serve."""
    if model.other_continents_max_fraction >= 1.0:
        return {}
    most = index.may_leave_rps(model)
    left = dict.fromkeys(most, 0.0)
    for flow in flows:
        if index.leaves(flow.cell, flow.cluster):
            left[index.cells[flow.cell].continent] += flow.requests_per_second
    return {name: rps for name, rps in left.items() if rps >= most[name] * (1.0 - CAP_NEAR) - 10 * DUST_RPS}


def _beyond_cap(index: Index, model: Model, cell: Cell, clusters: Iterable[str]) -> set[str]:
    """Those of `clusters` on other continents that could serve `cell`, were it not for the cap."""
    residing = index.residing(model, cell)
    return {
        name
        for name in clusters
        if name in residing and (cell.name, name) in index.rtt_ms and index.leaves(cell.name, name)
    }


def cap_says(model: Model, cell: Cell) -> str:
    percent = f"{100.0 * model.other_continents_max_fraction:g} %"
    if not cell.continent:
        return f"nobody knows the continent of {cell.country}, and policy lets other continents serve at most {percent}"
    return f"policy lets other continents serve at most {percent} of the requests from {cell.continent}"


def _why_not_routed(
    index: Index,
    model: Model,
    cell_name: str,
    rps: float,
    usable: Capacity,
    room: set[str],
    full: Mapping[str, float],
) -> Unserved:
    cell = index.cells[cell_name]
    code, reason = _why_nowhere(index, model, cell)
    beyond = sorted(_beyond_cap(index, model, cell, room)) if code is None and cell.continent in full else []
    if beyond:
        code, reason = UnservedCode.CONTINENT_CAP, f"{cap_says(model, cell)}; {beyond[0]} has room"
    elif code is None:
        able = index.servers(model, cell, usable)
        code = UnservedCode.WARMING if not able else UnservedCode.CAPACITY
        reason = (
            f"no replica of {model.name} that may serve {cell.name} is ready"
            if not able
            else f"the ready replicas of {model.name} that may serve {cell.name}, in {len(able)} clusters, are full"
        )
    return Unserved(model=model.name, cell=cell.name, requests_per_second=rps, code=code, reason=reason)


def _growth_told(index: Index, model: Model, unserved: list[Unserved]) -> list[Unserved]:
    """The same, with how much of it is growth that nobody vouches for."""
    grown = {one.cell: one.grown_rps for one in index.demands[model.name] if one.grown_rps > 0} if unserved else {}
    told = []
    for one in unserved:
        rps = min(one.requests_per_second, grown.get(one.cell, 0.0))
        text = (
            f"{one.reason}; {rps:.6g} requests per second of it are growth beyond what was known, which is served last"
        )
        told.append(structs.replace(one, reason=text) if rps > 10 * DUST_RPS else one)
    return told


def _why_nowhere(index: Index, model: Model, cell: Cell) -> tuple[UnservedCode, str] | tuple[None, str]:
    """The filter that leaves no cluster at all, if one does."""
    fitting = index.fitting(model)
    if not fitting:
        products = ", ".join(sorted({shape.product for shape in model.shapes}))
        return UnservedCode.NO_ACCELERATOR, f"no cluster has an accelerator that {model.name} runs on ({products})"
    resident = fitting & index.residing(model, cell)
    if not resident:
        return (
            UnservedCode.RESIDENCY,
            f"residency lets none of the {len(fitting)} clusters that fit serve {cell.country}",
        )
    allowed = fitting & index.allowed(model, cell)
    if not allowed:
        text = f"{cap_says(model, cell)}; the {len(resident)} clusters that fit and may serve {cell.country} are there"
        return UnservedCode.CONTINENT_CAP, text
    if not any((cell.name, name) in index.rtt_ms for name in allowed):
        return UnservedCode.NO_PATH, f"no latency is known from {cell.name} to any cluster that may serve it"
    return None, ""


def _with_free_devices(
    index: Index, model: Model, clusters: set[str], counts: Mapping[tuple[str, str], int]
) -> list[str]:
    used = devices_used(index, counts)
    return sorted(
        {
            option.pool.cluster
            for option in index.options(model)
            if option.pool.cluster in clusters
            and index.clusters[option.pool.cluster].intake is Intake.OPEN
            and option.pool.devices - used[option.pool.name] >= option.shape.devices
            and counts.get((model.name, option.pool.name), 0) < option.most
        }
    )
