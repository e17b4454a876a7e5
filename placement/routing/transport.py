"""Transportation problems of any size: cells over clusters, one problem for each model.

Given replicas, models are independent. `shortest_paths` solves a problem over every pair, starting from the duals of
the last routing or of a sample of the cells. With caps on requests that leave a continent it is a linear programme by
column generation: it holds the pairs that matter, cells whose cluster is certain count as load, and pairs of negative
reduced cost are added until there are none. Both are optimal over all pairs, which their duals prove.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import highspy
import numpy as np
from numpy.typing import NDArray

from placement import costs, highs
from placement.index import Index
from placement.jit import compiled
from placement.problem import Model, RttMatrix, leaves
from placement.request_costs import near_usd, request_usd, ways_usd
from placement.routing import shortest_paths

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

SCALE = 1e3
"""Factor on costs for the solver, whose tolerances are absolute: the price of a millisecond must exceed them."""
SAVES_USD = 1e-8
"""USD per hour and request per second: costs that differ by less are equal."""
SAMPLE = 600
"""Cells of the sample programme that gives the first duals of a larger one."""
SAMPLES = (100, 400, 2_000)
"""Cells of the samples that give the first duals of `shortest_paths`, each starting from those before."""
KNOWN = 0.5
"""Duals of the last routing are used when clusters with this share of the capacity have one."""
WAYS, MORE_WAYS = 4, 3
"""Pairs of a cell at the start, and added in a round of column generation."""
SURE = 0.95
"""Share of a cluster's capacity that is fixed at the first duals, for the cells of greatest regret."""
ROUNDS = 60
"""Rounds of column generation, more than any problem has needed; after them the gap tells what is left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportProblem:
    """One model's cells [D], clusters [K] and continents with a cap [G].

    `usd` [D, K + 1]: USD per hour of one request per second served there, infinite where it may not be; the last
    column of one that nobody serves, which is the same for all. `rps` [D] asked, above zero. `most` [K] requests per
    second that plans count on, `over` [K] what can be taken beyond that at `over_usd`. `cap_of` [D] and `leaving`
    [D, K]: which cap a cell is under, or -1, and where its requests count for it; `cap_rps` [G]. Without caps nothing
    is in `leaving`.
    """

    usd: Floats
    rps: Floats
    most: Floats
    over: Floats
    over_usd: float
    unserved_usd: float
    cap_of: Ints
    leaving: Bools
    cap_rps: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class ScarcityPrices:
    """Duals: USD per hour of one more request per second of capacity [K], and of cap [G]."""

    cluster: Floats
    cap: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """Flows by position, sorted by cell and cluster: requests per second; their USD per hour and its lower bound; duals
    of capacity [K]."""

    cell: Ints
    cluster: Ints
    rps: Floats
    usd: float
    bound_usd: float
    prices: Floats


def solve(asked: TransportProblem, prices: Floats | None = None) -> Routed:
    """The optimal routing of one model. Args: prices: [K] duals to start from, NaN where unknown."""
    if not asked.rps.size or not asked.most.size:
        none = np.zeros(0, np.int64)
        usd = float(asked.rps.sum()) * asked.unserved_usd
        zeros = np.zeros(len(asked.most))
        return Routed(cell=none, cluster=none, rps=np.zeros(0), usd=usd, bound_usd=usd, prices=zeros)
    if len(asked.cap_rps):
        return _Programme(asked, _first_prices(asked)).solve()
    cell, cluster, rps, last = shortest_paths.flow(
        asked.usd, asked.rps, asked.most, asked.over, asked.over_usd, _begin_at(asked, prices)
    )
    found = ScarcityPrices(cluster=last, cap=np.zeros(0))
    return _routed(asked, cell, cluster, rps, found, shortest_paths.least_usd(asked.usd, last))


def _begin_at(asked: TransportProblem, known: Floats | None) -> Floats:
    """[K] duals to start from: the known ones, or those of samples of the cells."""
    if known is not None:
        is_known = ~np.isnan(known)
        if asked.most[is_known].sum() >= KNOWN * asked.most.sum():
            return np.where(is_known, known, known[is_known].mean() if is_known.any() else 0.0)
    prices = np.zeros(len(asked.most))
    for size in SAMPLES:
        if len(asked.rps) <= 2 * size:
            break
        one, weight = _sample(asked, prices, size)
        prices = shortest_paths.flow(asked.usd[one], weight, asked.most, asked.over, asked.over_usd, prices)[3]
    return prices


def _sample(asked: TransportProblem, prices: Floats, size: int) -> tuple[Ints, Floats]:
    """([size] sampled cells, [size] requests per second that each stands for).

    A sampled cell stands for cells with the same two cheapest clusters and a similar regret.
    """
    first, second, regret = shortest_paths.two_best(asked.usd, prices)
    order = np.lexsort((regret, second, first, asked.cap_of))
    start = np.arange(size) * len(order) // size
    middle = (start + np.append(start[1:], len(order))) // 2
    return order[middle], np.add.reduceat(asked.rps[order], start)


def _routed(
    asked: TransportProblem, cell: Ints, cluster: Ints, rps: Floats, prices: ScarcityPrices, least: Floats
) -> Routed:
    """The solution with its bound. Args: least: [D] least USD per hour of one request per second at these duals."""
    missing = asked.rps.sum() - rps.sum()
    load = np.bincount(cluster, rps, minlength=len(asked.most))
    over = np.maximum(0.0, load - asked.most)
    usd = (asked.usd[cell, cluster] * rps).sum() + missing * asked.unserved_usd + over.sum() * asked.over_usd
    bound = (least * asked.rps).sum() - (prices.cluster * asked.most).sum() - (prices.cap * asked.cap_rps).sum()
    bound -= (np.maximum(0.0, prices.cluster - asked.over_usd) * asked.over).sum()
    order = np.lexsort((cluster, cell))
    return Routed(
        cell=cell[order],
        cluster=cluster[order],
        rps=rps[order],
        usd=float(usd),
        bound_usd=float(bound),
        prices=prices.cluster,
    )


def _first_prices(asked: TransportProblem) -> ScarcityPrices:
    """Duals of a sample of the cells."""
    nothing = ScarcityPrices(cluster=np.zeros(len(asked.most)), cap=np.zeros(len(asked.cap_rps)))
    if len(asked.rps) <= 2 * SAMPLE:
        return nothing
    one, weight = _sample(asked, nothing.cluster, SAMPLE)
    sample = replace(asked, usd=asked.usd[one], rps=weight, cap_of=asked.cap_of[one], leaving=asked.leaving[one])
    found = _Programme(sample, nothing)
    found.solve()
    return found.prices


class TransportProblems:
    """What the problems of all models share: positions of cells and clusters, and classes of equal cells."""

    def __init__(self, index: Index, rtt_ms: RttMatrix) -> None:
        self._index, self._rtt_ms = index, rtt_ms.rtt_ms
        cells = index.problem.cells
        self._cell_at = {cell.name: at for at, cell in enumerate(cells)}
        self._row = rtt_ms.rows([cell.name for cell in cells])
        self._column = dict(zip(index.clusters, rtt_ms.columns(list(index.clusters)).tolist(), strict=True))
        self._kinds = list({(cell.country, cell.continent): cell for cell in cells}.values())
        kind_at = {(cell.country, cell.continent): at for at, cell in enumerate(self._kinds)}
        self._kind = np.array([kind_at[cell.country, cell.continent] for cell in cells], dtype=np.int64)

    def question(
        self,
        model: Model,
        capacity: Mapping[str, float],
        overload: Mapping[str, float],
        unserved_usd: float,
        overload_usd: float,
    ) -> TransportProblem:
        """The problem of one model, over its demands and the clusters of `capacity` by name.

        Args: capacity: cluster -> requests per second at the target utilisation. overload: cluster -> requests per
            second above it. overload_usd, unserved_usd: USD per hour of one such request per second, above every
            possible cost of serving it otherwise.
        """
        index, demands = self._index, self._index.demands[model.name]
        clusters = [index.clusters[name] for name in sorted(capacity)]
        at = self._cells(model)
        shape = len(self._kinds), len(clusters)
        allowed = [[index.problem.allows(model, cell, one) for one in clusters] for cell in self._kinds]
        most = index.may_leave_rps(model) if model.is_capped else {}
        cap_at = {continent: number for number, continent in enumerate(most)}
        cap_of = np.array([cap_at.get(cell.continent, -1) for cell in self._kinds], dtype=np.int64)
        away = [[leaves(cell, one) for one in clusters] for cell in self._kinds] if most else []
        kind = self._kind[at]
        return TransportProblem(
            usd=_usd(
                self._rtt_ms,
                self._row[at],
                self._columns(sorted(capacity)),
                kind,
                np.array(allowed, dtype=bool).reshape(shape),
                np.array([costs.egress_usd_per_rps(model, one) for one in clusters]),
                _RequestPrice(
                    service_ms=model.service_latency_ms,
                    objective_ms=model.objective_ms,
                    late_usd=costs.THOUSANDS_PER_HOUR * model.late_usd_per_1000,
                    near_usd=near_usd((model,))[0],
                    unserved_usd=unserved_usd,
                ),
            ),
            rps=np.fromiter((one.requests_per_second for one in demands), np.float64, len(demands)),
            most=np.array([capacity[one.name] for one in clusters]),
            over=np.array([overload.get(one.name, 0.0) for one in clusters]),
            over_usd=overload_usd,
            unserved_usd=unserved_usd,
            cap_of=cap_of[kind],
            leaving=np.array(away, dtype=bool).reshape(shape)[kind] if most else np.zeros((len(kind), 0), dtype=bool),
            cap_rps=np.array(list(most.values())),
        )

    def latency_ms(self, model: Model, clusters: Sequence[str], cell: Ints, cluster: Ints) -> Floats:
        """[n] latency of these pairs, by positions in a problem over these clusters."""
        rtt_ms = self._rtt_ms[self._row[self._cells(model)[cell]], self._columns(clusters)[cluster]]
        made: Floats = rtt_ms.astype(np.float64) + model.service_latency_ms
        return made

    def way_usd(self, model: Model, latency_ms: Floats) -> Floats:
        """[n] USD per hour of distance for one request per second at these latencies."""
        return ways_usd(latency_ms - model.service_latency_ms, near_usd((model,))[0])

    def _cells(self, model: Model) -> Ints:
        demands = self._index.demands[model.name]
        return np.fromiter((self._cell_at[one.cell] for one in demands), np.int64, len(demands))

    def _columns(self, clusters: Sequence[str]) -> Ints:
        return np.array([self._column[name] for name in clusters], dtype=np.int64)


class _RequestPrice(NamedTuple):
    """Of one model, as in `large.arrays.Arrays`: USD per hour of one request per second."""

    service_ms: float
    objective_ms: float
    late_usd: float
    near_usd: Floats
    unserved_usd: float


@compiled
def _usd(
    rtt_ms: Singles,
    row: Ints,
    column: Ints,
    kind: Ints,
    allowed: Bools,
    egress_usd: Floats,
    price: _RequestPrice,
) -> Floats:
    """[D, K + 1] as `TransportProblem.usd`.

    Args: row: [D] of `rtt_ms`. column: [K] of it; both -1 where no latency is known. kind: [D] the row of `allowed`.
        egress_usd: [K].
    """
    cells, clusters = len(row), len(column)
    usd = np.empty((cells, clusters + 1))
    for cell in range(cells):
        at, of = row[cell], kind[cell]
        usd[cell, clusters] = price.unserved_usd
        for cluster in range(clusters):
            paid = np.inf
            if at >= 0 and column[cluster] >= 0 and allowed[of, cluster]:
                away_ms = np.float64(rtt_ms[at, column[cluster]])
                if away_ms == away_ms:
                    paid = egress_usd[cluster] + request_usd(
                        away_ms, price.service_ms, price.objective_ms, price.late_usd, price.near_usd
                    )
            usd[cell, cluster] = paid
    return usd


class _Programme:
    """The programme over pairs that matter. Rows: clusters [K], caps [G], then cells as they are opened."""

    def __init__(self, asked: TransportProblem, prices: ScarcityPrices) -> None:
        self.asked, self.prices = asked, prices
        self._usd = asked.usd[:, :-1]
        self._cells, self._clusters = self._usd.shape
        self._caps = len(asked.cap_rps)
        self._load = np.zeros(self._clusters)
        self._left = np.zeros(self._caps)
        self._row_of = np.full(self._cells, -1)
        """[D] the row of each open cell; -1 of a fixed one, which counts as load."""
        self._way = np.full(self._cells, -1)
        """[D] the cluster of each fixed cell; -1: unserved."""
        self._has = np.zeros((self._cells, self._clusters), dtype=bool)
        self._column_cell: list[Ints] = []
        self._column_cluster: list[Ints] = []
        self._begin()

    def solve(self) -> Routed:
        """Column generation: open cells and add pairs until none has negative reduced cost."""
        for _ in range(ROUNDS):
            found = self._run()
            if not self._add(found):
                return self._read(found)
        return self._read(self._run())

    # ---- the programme

    def _begin(self) -> None:
        asked = self.asked
        reduced = self._reduced()
        is_open, at = self._doubtful(reduced)
        self._lp = highs.quiet()
        for upper in asked.most:
            self._lp.addRow(-highspy.kHighsInf, float(upper), 0, np.zeros(0, np.int32), np.zeros(0))
        for upper in asked.cap_rps:
            self._lp.addRow(-highspy.kHighsInf, float(upper), 0, np.zeros(0, np.int32), np.zeros(0))
        rows = np.arange(self._clusters)
        self._slack(rows, np.full(self._clusters, asked.over_usd), asked.over)
        # The load of fixed cells may exceed a capacity until more cells are opened: slack at a prohibitive price.
        never = 4.0 * (asked.unserved_usd + asked.over_usd)
        every = np.arange(self._clusters + self._caps)
        self._slack(every, np.full(len(every), never), np.full(len(every), np.inf))
        self._serve(np.flatnonzero(~is_open), at)
        self._open(np.flatnonzero(is_open), reduced)

    def _doubtful(self, reduced: Floats) -> tuple[Bools, Ints]:
        """([D] cells that the programme has to decide, [D] the cheapest cluster of each at the present duals).

        Each cluster keeps the cells of greatest regret, up to the share SURE of its capacity.
        """
        asked = self.asked
        best, at = self._best(reduced)
        if self._cells <= 2 * SAMPLE:
            return np.ones(self._cells, dtype=bool), at
        every, way = np.arange(self._cells), np.maximum(at, 0)
        others = reduced.copy()
        others[every, way] = np.inf
        regret = np.minimum(others.min(axis=1), asked.unserved_usd) - best
        order = np.lexsort((-regret, way))
        load = np.cumsum(asked.rps[order])
        first = np.searchsorted(way[order], np.arange(self._clusters))
        before = np.append(0.0, load)[first]
        is_open = np.empty(self._cells, dtype=bool)
        is_open[order] = load - before[way[order]] > SURE * asked.most[way[order]]
        return is_open | (at < 0) | ((asked.cap_of >= 0) & asked.leaving[every, way]), at

    def _slack(self, rows: Ints, usd: Floats, upper: Floats) -> None:
        """Add slack columns to rows."""
        count = len(rows)
        self._lp.addCols(
            count,
            usd * SCALE,
            np.zeros(count),
            upper,
            count,
            np.arange(count, dtype=np.int32),
            rows.astype(np.int32),
            np.full(count, -1.0),
        )
        self._column_cell.append(np.full(count, -1))
        self._column_cluster.append(np.full(count, -1))

    def _serve(self, cells: Ints, at: Ints) -> None:
        """Fix cells to these clusters; they count as load."""
        self._way[cells] = at[cells]
        self._weigh(cells, 1.0)

    def _weigh(self, cells: Ints, sign: float) -> None:
        asked = self.asked
        served = cells[self._way[cells] >= 0]
        way = self._way[served]
        self._load += sign * np.bincount(way, asked.rps[served], minlength=self._clusters)
        if self._caps:
            leaves = asked.leaving[served, way] & (asked.cap_of[served] >= 0)
            self._left += sign * np.bincount(
                asked.cap_of[served[leaves]], asked.rps[served[leaves]], minlength=self._caps
            )

    def _open(self, cells: Ints, reduced: Floats) -> None:
        """Open cells: add their rows, each with its cheapest pairs at the present duals."""
        if not len(cells):
            return
        asked, lp = self.asked, self._lp
        first = int(lp.getNumRow())
        empty, none = np.zeros(len(cells), np.int32), np.zeros(0, np.int32)
        lp.addRows(len(cells), asked.rps[cells], asked.rps[cells], 0, empty, none, np.zeros(0))
        self._row_of[cells] = np.arange(first, first + len(cells))
        count = len(cells)
        lp.addCols(
            count,
            np.full(count, asked.unserved_usd * SCALE),
            np.zeros(count),
            np.full(count, np.inf),
            count,
            np.arange(count, dtype=np.int32),
            self._row_of[cells].astype(np.int32),
            np.ones(count),
        )
        self._column_cell.append(cells)
        self._column_cluster.append(np.full(count, -1))
        few = min(WAYS, self._clusters)
        near = np.sort(np.argpartition(reduced[cells], few - 1, axis=1)[:, :few], axis=1)
        one, way = np.repeat(cells, near.shape[1]), near.reshape(-1)
        self._columns(one, way)

    def _columns(self, one: Ints, way: Ints) -> None:
        """Add these pairs of open cells, where permitted and not yet in."""
        asked = self.asked
        new = np.isfinite(self._usd[one, way]) & ~self._has[one, way]
        one, way = one[new], way[new]
        if not len(one):
            return
        self._has[one, way] = True
        leaves = asked.leaving[one, way] & (asked.cap_of[one] >= 0) if self._caps else np.zeros(len(one), dtype=bool)
        size = 2 + leaves.astype(np.int64)
        start = np.concatenate([[0], np.cumsum(size)])
        rows = np.empty(start[-1], np.int32)
        rows[start[:-1]] = way
        rows[start[:-1] + 1] = self._row_of[one]
        rows[start[:-1][leaves] + 2] = self._clusters + asked.cap_of[one[leaves]]
        self._lp.addCols(
            len(one),
            self._usd[one, way] * SCALE,
            np.zeros(len(one)),
            np.full(len(one), np.inf),
            len(rows),
            start[:-1].astype(np.int32),
            rows,
            np.ones(len(rows)),
        )
        self._column_cell.append(one)
        self._column_cluster.append(way)

    def _run(self) -> highs.Found:
        asked, lp = self.asked, self._lp
        room = np.concatenate([asked.most - self._load, asked.cap_rps - self._left])
        low = np.full(len(room), -highspy.kHighsInf)
        lp.changeRowsBounds(len(room), np.arange(len(room), dtype=np.int32), low, room)
        lp.run()
        info, answer = lp.getInfo(), lp.getSolution()
        assert info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
        values, duals = np.asarray(answer.col_value), np.asarray(answer.row_dual)
        scarce = np.maximum(0.0, -duals[: self._clusters + self._caps] / SCALE)
        self.prices = ScarcityPrices(cluster=scarce[: self._clusters], cap=scarce[self._clusters :])
        usd = float(info.objective_function_value) / SCALE
        return highs.Found(values=values, objective=usd, bound=usd, duals=duals / SCALE, reduced=values)

    # ---- prices

    def _reduced(self) -> Floats:
        """[D, K] USD per hour of one request per second with the duals of capacity and cap."""
        asked = self.asked
        usd: Floats = self._usd + self.prices.cluster
        if self._caps:
            priced = np.where(asked.cap_of >= 0, self.prices.cap[asked.cap_of], 0.0)
            usd = usd + np.where(asked.leaving, priced[:, None], 0.0)
        return usd

    def _best(self, reduced: Floats) -> tuple[Floats, Ints]:
        """([D] least USD per hour of one request per second, [D] its cluster, -1: unserved)."""
        at = reduced.argmin(axis=1)
        best = reduced[np.arange(len(at)), at]
        served = best <= self.asked.unserved_usd
        return np.where(served, best, self.asked.unserved_usd), np.where(served, at, -1)

    def _add(self, found: highs.Found) -> bool:
        """Open cells and add pairs of negative reduced cost at the newest duals; whether there were any."""
        reduced = self._reduced()
        best, _ = self._best(reduced)
        closed = np.flatnonzero(self._row_of < 0)
        paid = np.where(
            self._way[closed] >= 0,
            reduced[closed, np.maximum(self._way[closed], 0)],
            self.asked.unserved_usd,
        )
        saves = paid - best[closed]
        worst = np.argsort(-saves, kind="stable")[:SAMPLE]
        better = closed[worst[saves[worst] > SAVES_USD]]
        if len(better):
            self._weigh(better, -1.0)
            self._open(better, reduced)
            self._columns(better[self._way[better] >= 0], self._way[better[self._way[better] >= 0]])
            self._way[better] = -1
        inside = np.flatnonzero((self._row_of >= 0) & (self._row_of < len(found.duals)))
        cell_usd = found.duals[self._row_of[inside]]
        gains = cell_usd[:, None] - reduced[inside]
        few = min(MORE_WAYS, self._clusters)
        top = np.argpartition(-gains, few - 1, axis=1)[:, :few]
        gain = np.take_along_axis(gains, top, axis=1)
        row, column = np.nonzero(gain > SAVES_USD)
        before = int(self._lp.getNumCol())
        self._columns(inside[row], top[row, column])
        return bool(len(better)) or int(self._lp.getNumCol()) > before

    def _read(self, found: highs.Found) -> Routed:
        asked = self.asked
        cell, cluster = np.concatenate(self._column_cell), np.concatenate(self._column_cluster)
        used = np.flatnonzero((cell >= 0) & (cluster >= 0) & (found.values > 0))
        closed = np.flatnonzero((self._row_of < 0) & (self._way >= 0))
        one = np.concatenate([cell[used], closed])
        way = np.concatenate([cluster[used], self._way[closed]])
        rps = np.concatenate([found.values[used], asked.rps[closed]])
        best, _ = self._best(self._reduced())
        price = np.minimum(self.prices.cluster, asked.unserved_usd + asked.over_usd)  # above this, unserved is cheaper
        return _routed(asked, one, way, rps, ScarcityPrices(cluster=price, cap=self.prices.cap), best)
