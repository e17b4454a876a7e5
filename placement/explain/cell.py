"""Why a cell's requests go where they go: for each cluster, what one request per second would cost there and why."""

from __future__ import annotations

import math
from dataclasses import dataclass

from placement import costs, highs
from placement.capacity import capacity_of
from placement.costs import THOUSANDS_PER_HOUR
from placement.explain.model import Term
from placement.index import Index
from placement.problem import Model, Problem
from placement.routing import programme
from placement.solution import Solution

EVEN_USD = 1e-6
"""Ways this close in price, in USD per hour of a request per second, are the same to a plan."""
BISECTED_MS = 1e-3
"""How closely the latency is told at which another cluster would serve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One cluster for one cell. `terms` and their sum are of one request per second, in USD per hour.

    `code` is a constant. `latency_ms` is None where nothing is known of the way; `usd_per_hour` where none can be said.
    """

    cluster: str
    requests_per_second: float
    latency_ms: float | None
    code: str
    reason: str
    usd_per_hour: float | None
    terms: tuple[Term, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CellExplanation:
    """Why a cell's requests to a model go where they go. `ways`: those that serve first, then by price."""

    model: str
    cell: str
    summary: str
    ways: tuple[Way, ...]
    unserved: tuple[str, ...]


def explain_cell(problem: Problem, solution: Solution, model_name: str, cell_name: str) -> CellExplanation:
    """Why requests of `cell_name` to `model_name` go where `solution` sends them.

    Raises: KeyError for another model, another cell, or a cell without demand for the model.
    """
    index = Index(problem)
    model, cell = index.models[model_name], index.cells[cell_name]
    asked = {one.cell: one.requests_per_second for one in index.demands[model_name]}[cell_name]
    flows = {
        one.cluster: one.requests_per_second
        for one in solution.flows
        if one.model == model_name and one.cell == cell_name
    }
    priced = _Prices(index, solution, model, cell_name)
    ways = [priced.way(cluster, flows.get(cluster, 0.0)) for cluster in index.clusters]
    served = sum(flows.values())
    summary = (
        f"{served:.2f} of {asked:.2f} requests per second of {cell.name} are served by "
        f"{', '.join(sorted(flows)) or 'nobody'}; one more would cost {priced.marginal_usd:.4g} USD/h"
    )
    return CellExplanation(
        model=model_name,
        cell=cell_name,
        summary=summary,
        ways=tuple(sorted(ways, key=_rank)),
        unserved=tuple(one.reason for one in solution.unserved if (one.model, one.cell) == (model_name, cell_name)),
    )


def _rank(way: Way) -> tuple[float, float, str]:
    return -way.requests_per_second, math.inf if way.usd_per_hour is None else way.usd_per_hour, way.cluster


class _Prices:
    """What room in each cluster is worth, and a request more that may leave the continent, by the duals of the model's
    routing over the replicas of the plan."""

    def __init__(self, index: Index, solution: Solution, model: Model, cell: str) -> None:
        self._index, self._model, self._cell = index, model, cell
        usable, beyond = capacity_of(index, model, {(one.model, one.pool): one.replicas for one in solution.replicas})
        price = THOUSANDS_PER_HOUR * model.unserved_usd_per_1000
        late = THOUSANDS_PER_HOUR * model.late_usd_per_1000
        made = programme.formulate_flows(index, model, usable, overload=beyond, unserved_usd=price, overload_usd=late)
        found = highs.solve(made.programme)
        assert found is not None, "leaving everything unserved is an answer"
        row = made.cap_rows.get(index.cells[cell].continent)
        self._leaving_usd = max(0.0, -float(found.duals[row])) if row is not None else 0.0
        self._room_usd = {cluster: max(0.0, -float(found.duals[row])) for cluster, row in made.capacity_rows.items()}
        self.marginal_usd = float(found.duals[made.demand_rows[cell]])

    def way(self, name: str, rps: float) -> Way:
        index, model = self._index, self._model
        cluster, cell = index.clusters[name], index.cells[self._cell]
        if name not in index.allowed(model, cell):
            where = ", ".join(cluster.jurisdictions) or "no declared jurisdiction"
            if name in index.residing(model, cell):
                text = f"it is in {cluster.continent or 'an unknown continent'}, these users in "
                text += f"{cell.continent or 'another'}, and policy lets other continents serve none"
                return self._nothing(name, rps, "OtherContinent", text)
            return self._nothing(name, rps, "Residency", f"users in {cell.country} may not be served in {where}")
        if (self._cell, name) not in index.rtt_ms:
            return self._nothing(name, rps, "NoLatency", "nothing is known of how far it is")
        latency_ms = index.latency_ms(model, self._cell, name)
        near = THOUSANDS_PER_HOUR * model.way_usd_per_1000(latency_ms)
        terms = {
            "distance": near,
            "late": THOUSANDS_PER_HOUR * model.late_usd_per_1000 if latency_ms > model.objective_ms else 0.0,
            "egress": costs.egress_usd_per_rps(model, cluster),
            "room": self._room_usd.get(name, 0.0),
        }
        if self._leaving_usd > EVEN_USD and index.leaves(self._cell, name):
            terms["continent"] = self._leaving_usd
        total = sum(terms.values())
        code, reason = self._say(name, rps, latency_ms, total)
        return Way(
            cluster=name,
            requests_per_second=rps,
            latency_ms=round(latency_ms, 3),
            code=code,
            reason=reason,
            usd_per_hour=round(total, 6),
            terms=tuple(Term(name=key, usd_per_hour=round(usd, 6)) for key, usd in terms.items()),
        )

    def _say(self, name: str, rps: float, latency_ms: float, total: float) -> tuple[str, str]:
        more = total - self.marginal_usd
        if rps > 0 and more <= EVEN_USD:
            return "Serves", f"{rps:.2f} requests per second at {latency_ms:.0f} ms"
        if rps > 0:
            return "Kept", f"serves {rps:.2f} requests per second; the best way would save {more:.2g} USD/h for each"
        if name not in self._room_usd:
            return "NoReplicas", f"{self._model.name} has no replica there; `explain placement` says why"
        if more <= EVEN_USD:
            return "Even", "as good as what serves"
        away_usd = self._leaving_usd if self._index.leaves(self._cell, name) else 0.0
        if total - away_usd - EVEN_USD <= self.marginal_usd and away_usd > EVEN_USD:
            percent = 100.0 * self._model.other_continents_max_fraction
            text = f"policy lets other continents serve at most {percent:g} % of the requests of these users' continent"
            return "ContinentCap", f"{text}, and they do: one more is worth {away_usd:.2g} USD/h to others of them"
        own = total - self._room_usd[name]
        if own < self.marginal_usd:
            text = f"full: its room is worth {self._room_usd[name]:.2g} USD/h per request per second to others"
            return "Full", f"{text}, {more:.2g} more than here"
        return "Dearer", f"{more:.2g} USD/h more for each request per second{self._would_serve(name, latency_ms, more)}"

    def _would_serve(self, name: str, latency_ms: float, more_usd: float) -> str:
        """The latency at which it would be as good as the best, where there is one."""
        model, cluster = self._model, self._index.clusters[name]

        def usd(wait_ms: float) -> float:
            return costs.served_usd_per_rps(model, cluster, wait_ms)

        most_usd, least_ms, most_ms = usd(latency_ms) - more_usd, model.service_latency_ms, latency_ms
        if usd(least_ms) > most_usd:
            return ", however near it were"
        while most_ms - least_ms > BISECTED_MS:
            middle_ms = (least_ms + most_ms) / 2
            least_ms, most_ms = (middle_ms, most_ms) if usd(middle_ms) <= most_usd else (least_ms, middle_ms)
        return f", and would serve at {least_ms:.0f} ms instead of {latency_ms:.0f} ms"

    def _nothing(self, name: str, rps: float, code: str, reason: str) -> Way:
        return Way(
            cluster=name,
            requests_per_second=rps,
            latency_ms=None,
            code=code,
            reason=reason,
            usd_per_hour=None,
            terms=(),
        )
