"""Demand: how many users there are and where, as the sum of what front doors count.

* A front door counts its own requests. A cell's demand is the sum over all front doors that name the cell, so no
  cluster can erase or replace another's counts.
* A cell's country is the catalogue's (`cells` of a Cluster document), otherwise the majority's of the front doors that
  name the cell. A count with another country is left out and reported, so a minority cannot lift a residency rule. With
  a tie the cell is in one of the named countries, the residency rules of all of them hold, and each front door is
  informed.
* The total of one front door is bounded by its declared, known or confirmed level (`state/levels.py`). The excess is
  taken off the rows that grew most.
* A cell that a front door stops naming, while it counts others, is gone at once. A front door that counts nothing at
  all, or is silent, keeps its counts for `Timing.count_stands_s`; then they halve each `lasting_s`, and end after ten
  halvings. They stand still under the brake and while the controller is deaf. Users who appear at another front door
  meanwhile are taken off the silent one's count.

Pure. A world shares with its predecessor whatever a report does not change.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import msgspec
from immutables import MapMutation

from federation.latency.sphere import great_circle_km
from federation.state import levels, plausible
from federation.state.keys import ModelCell
from federation.state.phases import Phase
from federation.state.world import CellDemand, ClusterState, Level, World, countries, undecided
from federation.wire import messages
from federation.wire.conditions import ConditionType, condition

HALVINGS = 10
"""A count is dropped after this many halvings."""
MAX_CELLS = 20_000
PLACE_KM = 100.0
"""Two locations of a cell that are no further apart count as the same place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """The believed counts of a front door, its claim where that is higher, its level, and the findings."""

    rows: tuple[messages.DemandSample, ...]
    held: tuple[messages.DemandSample, ...] = ()
    level: Level | None
    found: tuple[messages.Condition, ...] = ()


def admit(
    world: World, state: ClusterState, rows: tuple[messages.DemandSample, ...], now_s: float, *, is_memory: bool = False
) -> Admitted:
    """The part of a cluster's counts that is believed.

    Args: is_memory: the rows are retained by the broker, from before this controller heard anything.
    """
    if not rows:
        return Admitted(rows=rows, level=state.level)
    found: list[messages.Condition] = []
    placed = _placed(world, state, rows, found)
    total = sum(row.requests_per_second for row in placed)
    believed = levels.believe(world, state, total, now_s, is_memory=is_memory)
    text = _told(state, total, believed)
    if text is not None:
        found.append(condition(text[0], "demand", text[1]))
    if total <= believed.rps:
        return Admitted(rows=placed, level=believed.level, found=tuple(found))
    admitted = _levelled(placed, state.counted, believed.rps)
    return Admitted(rows=admitted, held=placed, level=believed.level, found=tuple(found))


def _told(state: ClusterState, total: float, believed: levels.Believed) -> tuple[ConditionType, str] | None:
    """Type and text of the condition of a front door that grew, or whose claim is not fully believed; otherwise
    None."""
    known_rps = max(believed.level.known.rps, levels.LEAST_RPS)
    text = f"{total:.6g} requests per second all together, {total / known_rps:.3g} times what was known"
    confirm = f'`isochrone confirm {state.name} --reason "…"`'
    if total > believed.most_rps and believed.rps >= believed.most_rps:
        most = f"{believed.most_rps:g}, which is the bound: {believed.rps:.6g} are believed"
        return "ImplausibleDemand", f"{total:.6g} requests per second all together is more than {most}"
    if total > believed.by_lasting_rps and believed.rps >= believed.by_lasting_rps:
        return "DemandDoubted", f"{text}: {believed.rps:.6g} are believed, and no more until {confirm}"
    if total > believed.rps:
        return "DemandDoubted", f"{text}: {believed.rps:.6g} are believed, more as it lasts or at once by {confirm}"
    if total > levels.STEP_FACTOR * known_rps:
        return (
            "DemandGrew",
            f"{text}: believed, as each step lasted, and served last in a shortage; {confirm} makes it known",
        )
    return None


def unconfirmed(world: World, cluster: str) -> tuple[str, ...]:
    """Models whose claimed demand at a front door exceeds what is believed, and which an operator may confirm."""
    state = world.clusters[cluster]
    if sum(row.requests_per_second for row in state.counted) > levels.most_rps(world, cluster) * (1 - 1e-9):
        return ()
    counted = {(row.model, row.cell.name): row.requests_per_second for row in state.counted}
    more = (row for row in state.held if row.requests_per_second > counted.get((row.model, row.cell.name), 0.0))
    return tuple(sorted({row.model for row in more}))


def confirmed(world: World, cluster: str, model: str, now_s: float) -> World:
    """The world in which a front door's claim is believed, up to the declared or physical bound.

    Args: model: confirm the users of this model only; empty: of all models.
    """
    state = world.clusters[cluster]
    if state.level is None:
        return world
    counted = {(row.model, row.cell.name): row for row in state.counted}
    wanted = [row if model in ("", row.model) else counted.get((row.model, row.cell.name)) for row in state.held]
    rows = tuple(row for row in wanted if row is not None) if state.held else state.counted
    if sum(row.requests_per_second for row in rows) > (most := levels.most_rps(world, cluster)):
        rows = _levelled(rows, state.counted, most)
    rps = sum(row.requests_per_second for row in rows)
    is_doubted = sum(row.requests_per_second for row in state.held) > rps
    level = levels.confirmed(rps, now_s, is_doubted=is_doubted)
    findings = state.findings if is_doubted else tuple(one for one in state.findings if one.object != "demand")
    known = replace(state, level=level, held=state.held if is_doubted else (), findings=findings)
    following = world.with_clusters({cluster: known})
    return count(following, state, rows, state.counted_s)


def _levelled(
    rows: tuple[messages.DemandSample, ...], counted: tuple[messages.DemandSample, ...], most: float
) -> tuple[messages.DemandSample, ...]:
    """Rows scaled to a total of `most`: earlier counts first, then growth, with the largest growth cut to one size."""
    known = {(row.model, row.cell.name): row.requests_per_second for row in counted}
    kept = [min(row.requests_per_second, known.get((row.model, row.cell.name), 0.0)) for row in rows]
    if sum(kept) >= most:
        given = _cut(kept, most)
    else:
        grew = [row.requests_per_second - base for row, base in zip(rows, kept, strict=True)]
        given = [base + more for base, more in zip(kept, _cut(grew, most - sum(kept)), strict=True)]
    return tuple(
        msgspec.structs.replace(row, requests_per_second=rps) for row, rps in zip(rows, given, strict=True) if rps > 0
    )


def _cut(sizes: list[float], most: float) -> list[float]:
    """The rows with the largest cut to one size, so that their total is `most`."""
    left, size = most, 0.0
    for number, one in enumerate(sorted(sizes)):
        remaining = len(sizes) - number
        if one * remaining >= left:
            size = left / remaining
            break
        left -= one
    return [min(one, size) for one in sizes]


def _placed(
    world: World,
    state: ClusterState,
    rows: tuple[messages.DemandSample, ...],
    found: list[messages.Condition],
) -> tuple[messages.DemandSample, ...]:
    """Rows with their cells at the believed location, each (model, cell) once.

    A count of zero says nothing about a cell that others count. An absurd count is replaced by the last good one,
    otherwise by the front door's bound: zero would claim that the cell has no users.
    """
    verdicts: dict[str, tuple[messages.UserCell, str]] = {}
    ties: dict[str, str] = {}
    kept: dict[ModelCell, messages.DemandSample] = {}
    refused = None
    for row in rows:
        name = row.cell.name
        if row.requests_per_second == 0.0 and any(who != state.name for who, _ in world.claims.get(name, ())):
            continue
        if name not in verdicts:
            verdicts[name] = row.cell, _why_not_there(world, state.name, row.cell, ties)
        place, why = verdicts[name]
        if not why and row.cell != place:
            why = "it is in two places by one report"
        key, believed = ModelCell((row.model, name)), row
        if not why and not row.requests_per_second <= levels.MOST_RPS:
            refused = refused or (name, f"{row.requests_per_second:.6g} requests per second")
            good = next((one for one in state.counted if (one.model, one.cell.name) == key), None)
            if good is None and not levels.is_declared(world, state.name):
                continue
            believed = good or msgspec.structs.replace(row, requests_per_second=levels.most_rps(world, state.name))
        elif why:
            refused = refused or (name, why)
            continue
        if key in kept:
            refused = refused or (name, f"it is named twice for {row.model}")
        kept.setdefault(key, believed)
    if refused is not None:
        text = f"counts of {refused[0]} are left out: {refused[1]}"
        found.append(condition("ImplausibleCell", f"cell/{refused[0]}", text[:300]))
    if ties:
        first, more = min(ties), f" (and {len(ties) - 1} cells more)" if len(ties) > 1 else ""
        text = f"equally many front doors disagree on the place of {first}{more}: {ties[first]}; residency of all holds"
        found.append(condition("CellDisputed", f"cell/{first}", text[:300]))
    return rows if len(kept) == len(rows) and refused is None else tuple(kept.values())


def _why_not_there(world: World, cluster: str, cell: messages.UserCell, ties: dict[str, str]) -> str:
    """Why a cluster's counts of a cell are left out; empty if they are not. A tie between countries is recorded in
    `ties`."""
    declared = plausible.cell_countries(world).get(cell.name, cell.country)
    if declared != cell.country:
        return f"it is in {declared} by the catalogue, not in {cell.country}"
    claims = world.claims.get(cell.name, ())
    others = [(who, where) for who, where in claims if who != cluster]
    if not others:
        if cell.name not in world.cells and len(world.cells) - _unclaimed(world) >= MAX_CELLS:
            return f"{MAX_CELLS} cells are known already"
        return ""
    said = dict(claims) | {cluster: cell}
    believed = _believed_place(world, said.values())
    possible = countries(believed.country)
    if cell.country not in possible:
        return f"most front doors that count it place it in {' or '.join(possible)}, not in {cell.country}"
    if len(possible) > 1:
        ties[cell.name] = ", ".join(f"{who} says {where.country}" for who, where in sorted(said.items()))
    elif great_circle_km(believed.lat, believed.lon, cell.lat, cell.lon) > PLACE_KM:
        return "most front doors that count it place it elsewhere"
    return ""


def _unclaimed(world: World) -> int:
    return len(world.cells) - len(world.claims)


def _believed_place(world: World, claims: Iterable[messages.UserCell]) -> messages.UserCell:
    """The catalogue's location; otherwise the majority's, by country, as its first member gives it. A tie yields all of
    them."""
    votes: dict[str, list[messages.UserCell]] = {}
    for where in claims:
        votes.setdefault(where.country, []).append(where)
    declared = plausible.cell_countries(world).get(where.name)
    if declared is not None:
        return votes[declared][0] if declared in votes else msgspec.structs.replace(where, country=declared)
    most = max(map(len, votes.values()))
    first, *others = [country for country, said in votes.items() if len(said) == most]
    place = votes[first][0]
    return msgspec.structs.replace(place, country=undecided([first, *others])) if others else place


def count(world: World, before: ClusterState, rows: tuple[messages.DemandSample, ...], at_s: float) -> World:
    """The world after a cluster's front door counted these rows at `at_s`, as `admit` returned them.

    Args: world: with the cluster's state after the report. before: its state before the report.
    """
    name = before.name
    state = replace(world.clusters[name], counted=rows, counted_s=at_s, count_weight=1.0)
    following = world.with_clusters({name: state})
    if rows == before.counted and before.count_weight == 1.0 and _is_fresh(before, world):
        return following
    following = _with_claims(following, name, before.counted, rows)
    earlier = {ModelCell((row.model, row.cell.name)): row.requests_per_second for row in before.counted}
    with following.demand.mutate() as demand:
        for row in rows:
            key = ModelCell((row.model, row.cell.name))
            _put(following, demand, key, name, row.requests_per_second, earlier.pop(key, 0.0))
        for key in earlier:
            _take_out(following, demand, key, name)
        following = replace(following, demand=demand.finish())
    return following


_Demand = MapMutation[ModelCell, CellDemand]


def _put(world: World, demand: _Demand, key: ModelCell, name: str, rps: float, earlier_rps: float) -> None:
    known = demand.get(key)
    if known is None or (len(known.counts) == 1 and known.counts[0][0] == name):
        if known is None or known.requests_per_second != rps:
            demand[key] = CellDemand(requests_per_second=rps, reporter=name, counts=((name, rps),))
        return
    counts = {**dict(known.counts), name: rps}
    came = rps - earlier_rps
    for other in counts:
        if came > 0 and other != name and not _is_fresh(world.clusters[other], world):
            taken = min(came, counts[other])
            counts[other] -= taken
            came -= taken
    if came < 0:
        _give_back(world, counts, key, name, -came)
    demand[key] = _summed(world, tuple(counts.items()))


def _take_out(world: World, demand: _Demand, key: ModelCell, name: str) -> None:
    counts = dict(demand[key].counts)
    left = counts.pop(name, 0.0)
    if counts:
        _give_back(world, counts, key, name, left)
        demand[key] = _summed(world, tuple(counts.items()))
    else:
        del demand[key]


def _give_back(world: World, counts: dict[str, float], key: ModelCell, name: str, rps: float) -> None:
    """Users who leave `name` may be those who came from a silent front door: its counts return to what it counted last.

    Otherwise a front door that claims its users for a moment, and then no more, would take them out of the world.
    """
    for other in counts:
        state = world.clusters[other]
        if rps <= 0 or other == name or _is_fresh(state, world):
            continue
        counted = next(
            (row.requests_per_second for row in state.counted if (row.model, row.cell.name) == key), counts[other]
        )
        back = min(rps, max(0.0, counted - counts[other]))
        counts[other] += back
        rps -= back


def _is_fresh(state: ClusterState, world: World) -> bool:
    """Whether the front door's counts are current."""
    if state.phase is not Phase.READY or state.heard_s is None:
        return False
    return state.heard_s - state.counted_s <= world.timing.stale_after_s


def _summed(world: World, counts: tuple[tuple[str, float], ...]) -> CellDemand:
    """Retained rows of a front door count only for cells that no other front door was heard to count."""
    heard = [one for one in counts if world.clusters[one[0]].heard_s is not None]
    total = sum(rps * world.clusters[name].count_weight for name, rps in heard or counts)
    fresh = next((name for name, _ in counts if _is_fresh(world.clusters[name], world)), counts[0][0])
    return CellDemand(requests_per_second=total, reporter=fresh, counts=counts)


def _with_claims(
    world: World, name: str, before: tuple[messages.DemandSample, ...], rows: tuple[messages.DemandSample, ...]
) -> World:
    """The world after a cluster claims the cells of `rows`, and gives up those that only `before` names."""
    claimed = {row.cell.name: row.cell for row in rows}
    earlier = {row.cell.name: row.cell for row in before}
    changed = [cell for cell in {**earlier, **claimed} if earlier.get(cell) != claimed.get(cell)]
    if not changed:
        return world
    with world.claims.mutate() as claims, world.cells.mutate() as cells:
        for cell in changed:
            said = dict(claims.get(cell, ()))
            where = claimed.get(cell)
            if where is None:
                said.pop(name, None)
            else:
                said[name] = where
            if said:
                claims[cell] = tuple(said.items())
                place = _believed_place(world, said.values())
                if cells.get(cell) != place:
                    cells[cell] = place
            else:
                claims.pop(cell, None)
        following = replace(world, claims=claims.finish(), cells=cells.finish())
    if len(following.cells) > MAX_CELLS:
        following = _without_unclaimed(following)
    return following


def placed_anew(world: World) -> World:
    """The world with each cell at the location that the catalogue in force and the claims give it."""
    moved = {
        cell: place
        for cell, said in world.claims.items()
        if (place := _believed_place(world, dict(said).values())) != world.cells.get(cell)
    }
    return replace(world, cells=world.cells.update(moved)) if moved else world


def _without_unclaimed(world: World) -> World:
    """Locations that nobody counts are forgotten when there are too many of them."""
    with world.cells.mutate() as cells:
        for cell in list(world.cells):
            if cell not in world.claims:
                del cells[cell]
        world = replace(world, cells=cells.finish())
    return world


def aged(world: World, now_s: float) -> World:
    """The world with the counts of silent front doors decayed to `now_s`."""
    if world.brake is not None or not world.is_settled(now_s):
        return world
    fresh_s = now_s - world.timing.count_stands_s
    for name, state in world.clusters.items():
        if state.counted and not (state.count_weight == 1.0 and state.counted_s > fresh_s):
            weight = min(state.count_weight, _weight(world, silent_s(world, state, now_s)))
            if weight != state.count_weight:
                world = _weighed(world, name, weight)
    return world


def forget(world: World, names: Iterable[str]) -> World:
    """The world without the counts of these front doors."""
    for name in names:
        world = _weighed(world, name, 0.0)
    return world


def silent_s(world: World, state: ClusterState, now_s: float) -> float:
    """For how long a front door has counted nothing while the controller could have heard it."""
    if state.heard_s is None:
        return now_s - state.counted_s
    began_s = state.since_s if state.phase is Phase.UNREACHABLE else 0.0
    return now_s - max(state.counted_s, world.started_s, began_s)


def _weight(world: World, quiet_s: float) -> float:
    halvings = max(0, 1 + int((quiet_s - world.timing.count_stands_s) // world.timing.lasting_s))
    return 0.5**halvings if halvings <= HALVINGS else 0.0


def _weighed(world: World, name: str, weight: float) -> World:
    """The world with a silent front door's counts multiplied by this weight; at 0 they are dropped."""
    state = world.clusters[name]
    left = replace(state, count_weight=weight)
    if weight == 0.0:
        left = replace(left, counted=(), count_weight=1.0)
    following = world.with_clusters({name: left})
    with following.demand.mutate() as demand:
        for row in state.counted:
            key = ModelCell((row.model, row.cell.name))
            if weight == 0.0:
                _take_out(following, demand, key, name)
            else:
                demand[key] = _summed(following, demand[key].counts)
        following = replace(following, demand=demand.finish())
    return _with_claims(following, name, state.counted, ()) if weight == 0.0 else following
