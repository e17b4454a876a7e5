"""Kernel search for capacitated facility location: a tight LP relaxation, and small MIPs over its best arcs.

The replicas of one model in a pool are facilities, as the literature's warehouses are. `x <= min(capacity, demand) * n`
holds for each arc into a facility in whole numbers and makes the relaxation strong. There are as many of these
variable upper bounds as arcs, and few of them bind, so only violated ones are added (cutting planes).

The duals of the demand rows price each facility by itself: its cost less the most that it can earn when filled (a
fractional knapsack) is a lower bound of what opening it adds to the objective. The kernel is the arcs that add least,
by their facility and by themselves. The MIP over the kernel is small and contains good solutions.

Source: Guastaroba and Speranza, Kernel search for the capacitated facility location problem, Journal of Heuristics 18
(2012).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from placement import highs
from placement.highs import Found, Programme, Relaxation

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NO_ROWS: tuple[Ints, Ints, Floats] = (np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0))
NOTHING_FIXED: Mapping[int, float] = {}
ROUNDS = 50
BROKEN = 1e-6
USED = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Facility:
    """Arcs with common capacity: the programme's `row` says sum(arcs) <= sum(capacity * n).

    The upper bound of an arc's column is the demand behind it.
    """

    row: int
    arcs: Sequence[int]
    capacity: dict[int, float]
    """Integer column -> capacity of one unit of it."""
    group: str = ""
    """Facilities of different groups serve different demands and share little but devices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The variable upper bounds of a programme: `x[arc] - sum(value * x[column]) <= 0`, stored by row."""

    arc: Ints
    starts: Ints
    columns: Ints
    values: Floats

    def broken(self, values: Floats) -> Ints:
        """Positions of the rows that these values violate."""
        over = np.add.reduceat(self.values * values[self.columns], self.starts[:-1]) if len(self.arc) else np.zeros(0)
        return np.flatnonzero(over > BROKEN)

    def rows(self, some: Ints) -> tuple[Ints, Ints, Floats]:
        """(starts, columns, values) of these rows alone."""
        lengths = self.starts[some + 1] - self.starts[some]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        at = np.arange(starts[-1]) + np.repeat(self.starts[some] - starts[:-1], lengths)
        return starts, self.columns[at], self.values[at]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tight:
    """The relaxation with all variable upper bounds; `added` bounds from below what each arc adds to it."""

    programme: Programme
    facilities: Sequence[Facility]
    bounds: Bounds
    found: Found
    added: Floats
    """Of `bounds.arc`."""

    def search(self, *, arcs: int, gap: float, node_limit: int, time_limit_s: float | None = None) -> Found | None:
        """The best integer solution found over a kernel of `arcs` arcs; its bound is that of the relaxation."""
        kept = np.argsort(self.added, kind="stable")[:arcs]
        return self._searched(kept, {}, gap=gap, node_limit=node_limit, time_limit_s=time_limit_s)

    def improve(self, found: Found, together: int, *, arcs: int, gap: float, node_limit: int, searches: int) -> Found:
        """A solution no worse than `found`: `together` groups at a time are searched, the others keep their facilities.

        The kernel is the arcs that `found` uses and `arcs` more: one of the used arcs alone finds nothing new.
        Each combination of groups has its turn in each round. It ends with a round that gains less than `gap`, or after
        so many `searches`.
        """
        names = sorted({one.group for one in self.facilities})
        choices = list(itertools.combinations(names, min(together, len(names))))
        group = np.repeat([one.group for one in self.facilities], [len(one.arcs) for one in self.facilities])
        before = found.objective
        for turn, chosen in enumerate(itertools.islice(itertools.cycle(choices), searches), start=1):
            fixed = {
                site: float(round(found.values[site]))
                for one in self.facilities
                if one.group not in chosen
                for site in one.capacity
            }
            used = found.values[self.bounds.arc] > USED
            added = np.where(used, -1.0, np.where(np.isin(group, chosen), self.added, np.inf))
            count = min(arcs + int(used.sum()), int(np.isfinite(added).sum()))
            kept = np.argsort(added, kind="stable")[:count]
            better = self._searched(kept, fixed, gap=gap, node_limit=node_limit)
            if better is not None and better.objective < found.objective:
                found = replace(better, bound=max(found.bound, better.bound))
            if turn % len(choices) == 0:
                if found.objective > before - gap * abs(before):
                    break
                before = found.objective
        return found

    def _searched(
        self,
        arcs: Ints,
        fixed: Mapping[int, float],
        *,
        gap: float,
        node_limit: int,
        time_limit_s: float | None = None,
    ) -> Found | None:
        """The best solution over these arcs (positions in `bounds.arc`) with some columns fixed."""
        kept = np.ones(len(self.programme.cost), bool)
        kept[self.bounds.arc] = False
        kept[self.bounds.arc[arcs]] = True
        found = solve_part(
            self.programme,
            kept,
            rows=self.bounds.rows(np.sort(arcs)),
            fixed=fixed,
            gap=gap,
            node_limit=node_limit,
            time_limit_s=time_limit_s,
        )
        if found is None:
            return None
        bound = found.bound if kept.all() and not fixed else self.found.objective
        return replace(found, bound=min(max(bound, self.found.objective), found.objective))


def tighten(programme: Programme, facilities: Sequence[Facility]) -> Tight | None:
    """The tight relaxation, or None where it is infeasible."""
    bounds = _bounds(programme, facilities)
    relaxation = Relaxation(programme)
    row_of = np.full(len(bounds.arc), -1)
    found = relaxation.solve() if len(bounds.arc) else highs.solve(programme, relaxed=True)
    for _ in range(ROUNDS):
        if found is None:
            return None
        broken = bounds.broken(found.values)
        broken = broken[row_of[broken] < 0]
        if not len(broken):
            break
        row_of[broken] = relaxation.rows + np.arange(len(broken))
        relaxation.add(*bounds.rows(broken))
        found = relaxation.solve()
    if found is None:
        return None
    return Tight(
        programme=programme,
        facilities=facilities,
        bounds=bounds,
        found=found,
        added=_added(programme, facilities, found, np.where(row_of >= 0, np.append(found.duals, 0.0)[row_of], 0.0)),
    )


def solve_part(
    programme: Programme,
    kept: NDArray[np.bool_],
    *,
    rows: tuple[Ints, Ints, Floats] = NO_ROWS,
    fixed: Mapping[int, float] = NOTHING_FIXED,
    gap: float,
    node_limit: int,
    time_limit_s: float | None = None,
) -> Found | None:
    """The best solution found over the `kept` columns, the others being zero; its bound is that of this restriction.

    Args: rows: additional rows, as `Bounds.rows` gives. fixed: column -> value.
    """
    part = _part(programme, kept, rows)
    number = np.cumsum(kept) - 1
    for column, value in fixed.items():
        part.lower[number[column]] = part.upper[number[column]] = value
    found = highs.solve(part, gap=gap, node_limit=node_limit, time_limit_s=time_limit_s)
    if found is None:
        return None
    values, reduced = np.zeros(len(kept)), np.zeros(len(kept))
    values[kept], reduced[kept] = found.values, found.reduced
    return replace(found, values=values, reduced=reduced)


def _bounds(programme: Programme, facilities: Sequence[Facility]) -> Bounds:
    upper = np.array(programme.upper)
    arc, starts, columns, values = [], [np.zeros(1, np.int64)], [], []
    first = 0
    for one in facilities:
        arcs, sites = np.array(one.arcs, np.int64), list(one.capacity)
        most = np.minimum(np.array(list(one.capacity.values()))[None, :], upper[arcs][:, None])
        arc.append(arcs)
        columns.append(np.column_stack([arcs, np.tile(np.array(sites, np.int64), (len(arcs), 1))]).reshape(-1))
        values.append(np.column_stack([np.ones(len(arcs)), -most]).reshape(-1))
        starts.append(first + (1 + len(sites)) * np.arange(1, len(arcs) + 1))
        first = int(starts[-1][-1]) if len(arcs) else first
    none = np.zeros(0, np.int64)
    return Bounds(
        arc=np.concatenate([none, *arc]),
        starts=np.concatenate(starts),
        columns=np.concatenate([none, *columns]),
        values=np.concatenate([np.zeros(0), *values]),
    )


def _added(programme: Programme, facilities: Sequence[Facility], found: Found, bound_duals: Floats) -> Floats:
    """[arcs] lower bound of what serving all of an arc's demand adds to the relaxation; negative for arcs in use.

    An arc needs a facility: it adds what opening the facility adds, plus its own reduced cost.
    """
    upper, made, first = np.array(programme.upper), [np.zeros(0)], 0
    for one in facilities:
        arcs = np.array(one.arcs, np.int64)
        duals = bound_duals[first : first + len(arcs)]
        first += len(arcs)
        price = found.duals[one.row]
        usd = found.reduced[arcs] + price + duals
        least = np.full(len(arcs), np.inf)
        for site, capacity in one.capacity.items():
            most = np.minimum(capacity, upper[arcs])
            opening = float(found.reduced[site] - price * capacity - duals @ most)
            own = _knapsack_price(usd, most, capacity)
            opening += float(np.minimum(usd + own, 0.0) @ most) - own * capacity
            least = np.minimum(least, max(opening, 0.0) + np.maximum(usd + own, 0.0) * most)
        made.append(np.where(found.values[arcs] > USED, -1.0, least))
    return np.concatenate(made)


def _knapsack_price(usd: Floats, most: Floats, capacity: float) -> float:
    """The dual of capacity in the fractional knapsack of arcs by saving; zero where they do not fill it."""
    order = np.argsort(usd, kind="stable")
    full = int(np.searchsorted(np.cumsum(most[order]), capacity))
    return max(0.0, -float(usd[order[full]])) if full < len(usd) else 0.0


def _part(programme: Programme, kept: NDArray[np.bool_], rows: tuple[Ints, Ints, Floats]) -> Programme:
    """The programme over the `kept` columns, with additional rows `<= 0`."""
    number = np.cumsum(kept) - 1
    part = Programme()
    for column in np.flatnonzero(kept):
        part.cost.append(programme.cost[column])
        part.lower.append(programme.lower[column])
        part.upper.append(programme.upper[column])
        part.is_integer.append(programme.is_integer[column])
    columns, values = np.array(programme.columns, np.int64), np.array(programme.values)
    inside = kept[columns] if len(columns) else np.zeros(0, bool)
    lengths = np.concatenate([[0], np.cumsum(inside)])[np.array(programme.starts)]
    starts, more, terms = rows
    part.starts = lengths.tolist() + (lengths[-1] + starts[1:]).tolist()
    part.columns = number[columns[inside]].tolist() + number[more].tolist()
    part.values = values[inside].tolist() + terms.tolist()
    part.row_lower = programme.row_lower + [-np.inf] * (len(starts) - 1)
    part.row_upper = programme.row_upper + [0.0] * (len(starts) - 1)
    return part
