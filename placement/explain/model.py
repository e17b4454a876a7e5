"""Why here, why not there: survivors of each filter, and for each cluster what one more replica there would change."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

from placement import costs, floors, highs
from placement.capacity import capacity_of, devices_used
from placement.index import Filter, Index, Option
from placement.limits import exhausted, limit_uses
from placement.problem import Cluster, Intake, Model, Problem
from placement.routing import programme
from placement.solution import Limit, Solution, UnservedCode

CODES = {
    Filter.ACCELERATOR: "NoAccelerator",
    Filter.DEVICES: "NoDevices",
    Filter.INTAKE: "NotTaking",
    Filter.RESIDENCY: "Residency",
    Filter.CONTINENT: "OtherContinent",
}


def _limit_code(limit: Limit) -> str:
    match limit:
        case "max_replicas":
            return "MaxReplicas"
        case "budget":
            return "Budget"
        case _:
            assert_never(limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterResult:
    """How many clusters a filter left, and which it removed."""

    name: str
    survivors: int
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One part of the price of one more replica, in USD per hour; negative saves."""

    name: str
    usd_per_hour: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Why a model is, or is not, in a cluster. `code` is a constant; the price is that of one replica more there."""

    cluster: str
    replicas: int
    code: str
    reason: str
    usd_per_hour_if_placed: float | None
    terms: tuple[Term, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a model is where it is."""

    model: str
    summary: str
    filters: tuple[FilterResult, ...]
    clusters: tuple[Verdict, ...]
    unserved: tuple[str, ...]


def explain_model(problem: Problem, solution: Solution, model_name: str, kept_because: str = "") -> Explanation:
    """Why `model_name` is where `solution` has it, and why it is nowhere else.

    Args: kept_because: why its placement is kept where the engine would choose another. Raises: KeyError for another
        model.
    """
    return _Explainer(Index(problem), solution, model_name, kept_because).explanation()


def reasons(problem: Problem, solution: Solution) -> dict[tuple[str, str], str]:
    """(model, pool) -> one sentence: why replicas of the model are in this pool."""
    index, found = Index(problem), {}
    for model in problem.models:
        explainer = _Explainer(index, solution, model.name)
        for one in solution.replicas:
            if one.model == model.name:
                found[one.model, one.pool] = explainer.why_here(one.pool)
    return found


class _Explainer:
    def __init__(self, index: Index, solution: Solution, model_name: str, kept_because: str = "") -> None:
        self.index = index
        self.kept_because = kept_because
        self.solution = solution
        self.model: Model = self.index.models[model_name]
        self.counts = {(one.model, one.pool): one.replicas for one in solution.replicas}
        self.options = self.index.options(self.model)
        self.used = devices_used(index, self.counts)
        self.load = {cluster.name: 0.0 for cluster in index.problem.clusters}
        self.late_in: set[str] = set()
        self.cells_of: dict[str, list[tuple[float, str]]] = defaultdict(list)
        for flow in solution.flows:
            if flow.model == model_name:
                self.load[flow.cluster] += flow.requests_per_second
                self.cells_of[flow.cluster].append((flow.requests_per_second, flow.cell))
                if not flow.within_objective:
                    self.late_in.add(flow.cluster)
        self.usable, _ = capacity_of(self.index, self.model, self.counts)
        limit_usd = {(one.limit, one.subject): one.usd_per_hour for one in solution.reached}
        self.limits = limit_uses(index, self.counts, limit_usd)

    def explanation(self) -> Explanation:
        removed = {cluster.name: self.index.removed_by(self.model, cluster) for cluster in self.index.problem.clusters}
        base = self._flow_cost(self.usable)
        verdicts = [self._verdict(cluster, removed[cluster.name], base) for cluster in self.index.problem.clusters]
        placed = [verdict for verdict in verdicts if verdict.replicas]
        total = sum(verdict.replicas for verdict in placed)
        asked = sum(demand.requests_per_second for demand in self.index.demands[self.model.name])
        summary = (
            f"{total} replicas in {len(placed)} of {len(verdicts)} clusters for {asked:.1f} requests per second "
            f"within {self.model.objective_ms:g} ms{self._caps()}{self._limits_say()}"
        )
        return Explanation(
            model=self.model.name,
            summary=summary,
            filters=_filter_results(removed),
            clusters=tuple(sorted(verdicts, key=lambda one: (-one.replicas, one.cluster))),
            unserved=tuple(one.reason for one in self.solution.unserved if one.model == self.model.name),
        )

    def _limits_say(self) -> str:
        """Which of policy's limits leave no room for one more replica of the model."""
        return "".join(f"; {one.reached.says}" for one in exhausted(self.model, self.options, self.limits))

    def _caps(self) -> str:
        """What policy lets other continents serve, and whose requests would go there if it let them serve more."""
        if self.model.other_continents_max_fraction >= 1.0:
            return ""
        whose = sorted({self.index.cells[cell].continent or "an unknown continent" for cell in self._held_back()})
        binds = f", which leaves some of {', '.join(whose)} unserved" if whose else ""
        return f"; {self._cap_says()}{binds}"

    def _cap_says(self) -> str:
        percent = 100.0 * self.model.other_continents_max_fraction
        return f"policy lets other continents serve at most {percent:g} % of a continent's requests"

    def _held_back(self) -> list[str]:
        """Cells whose requests the cap leaves unserved."""
        mine = [one for one in self.solution.unserved if one.model == self.model.name]
        return [one.cell for one in mine if one.code is UnservedCode.CONTINENT_CAP]

    def why_here(self, pool_name: str) -> str:
        """What the replicas in a pool are for."""
        pool = self.index.pools[pool_name]
        option = self.options[self._at[pool_name]] if pool_name in self._at else None
        rps = self.load[pool.cluster]
        if rps <= 0:
            return self._why_idle(pool_name)
        cells = [cell for _, cell in sorted(self.cells_of[pool.cluster], key=lambda one: (-one[0], one[1]))]
        names = ", ".join(cells[:3]) + (f" and {len(cells) - 3} more" if len(cells) > 3 else "")
        is_late = pool.cluster in self.late_in
        when = "though some of it is late" if is_late else f"within {self.model.objective_ms:g} ms"
        usd = option.shape.devices * pool.usd_per_device_hour if option else 0.0
        risk = self._risk(option) if option else 0.0
        risks = f" and {risk:.2f} for its risk" if risk >= 0.005 else ""
        return f"serves {rps:.1f} requests per second from {names} {when}, at {usd:.2f} USD per replica and hour{risks}"

    def _risk(self, option: Option, more: int = 0) -> float:
        """What the losses of one of the replicas in a pool are expected to cost, or with `more` of one replica more."""
        if option.pool.losses_per_hour <= 0:
            return 0.0
        at, found = self._at[option.pool.name], self._events
        with_it = list(self._replicas)
        with_it[at] += more
        without = list(with_it)
        without[at] -= 1
        zones = sum(
            costs.event_usd_per_rps(self.model, one) * (one.unserved_rps(with_it) - one.unserved_rps(without))
            for one in found.get(at, ())
        )
        return zones + costs.risk_usd_per_hour(self.index.problem, self.model, option.shape, option.pool)

    @functools.cached_property
    def _events(self) -> Mapping[int, list[floors.Event]]:
        """Row of an option -> losses of whole zones that its replicas count in."""
        found: dict[int, list[floors.Event]] = defaultdict(list)
        for one in floors.events(self.index, self.model, self.options):
            for at in one.terms:
                found[at].append(one)
        return found

    @functools.cached_property
    def _at(self) -> Mapping[str, int]:
        """Pool -> row of its option."""
        return {option.pool.name: at for at, option in enumerate(self.options)}

    @functools.cached_property
    def _replicas(self) -> Sequence[int]:
        """Of the model, by option."""
        return [self.counts.get((self.model.name, option.pool.name), 0) for option in self.options]

    def _why_idle(self, pool_name: str) -> str:
        pool = self.index.pools[pool_name]
        intake = self.index.clusters[pool.cluster].intake
        if intake is Intake.HELD:
            return "kept: the cluster is not heard, and what runs there is expected back"
        floors = [
            f"{what} {wanted}"
            for what, wanted in (
                ("minReplicas", self.model.min_replicas),
                ("minOnDemandReplicas", self.model.min_on_demand),
                ("minRegions", self.model.min_regions),
                ("survive", self.model.survive),
                ("surviveWithinObjectivePercent", f"{100.0 * self.model.survive_within_fraction:g}".lstrip("0")),
                ("availability.target", self.model.target_fraction and f"{100.0 * self.model.target_fraction:g} %"),
                ("maxPartPerDomain", self.model.max_part and f"{100.0 * self.model.max_part.fraction:g} %"),
            )
            if wanted
        ]
        floors += [f"the pin of {pin.replicas}" for pin in self.model.pins if pin.cluster == pool.cluster]
        if floors:
            return f"kept ready for {' and '.join(floors)} of the policy"
        return f"kept: {self.kept_because or 'stopping it is worth less than half a percent of the plan'}"

    def _verdict(self, cluster: Cluster, removed: Filter | None, base: float) -> Verdict:
        pools = {pool.name for pool in self.index.problem.pools if pool.cluster == cluster.name}
        here = sum(self.counts.get((self.model.name, name), 0) for name in pools)
        if here:
            names = sorted(name for name in pools if self.counts.get((self.model.name, name)))
            reason = "; ".join(self.why_here(name) for name in names[:1])
            return self._say(cluster, here, "Placed", reason)
        if removed is not None:
            return self._say(cluster, 0, CODES[removed], self._why_removed(cluster, removed))
        return self._why_not(cluster, base)

    def _why_removed(self, cluster: Cluster, removed: Filter) -> str:
        match removed:
            case Filter.ACCELERATOR:
                wanted = " or ".join(sorted({shape.product for shape in self.model.shapes}))
                return f"no accelerator that {self.model.name} runs on: it needs {wanted}"
            case Filter.DEVICES:
                return "its accelerators fit, but fewer are usable, in sum or on any one node, than one replica needs"
            case Filter.INTAKE:
                return f"{cluster.intake.value}: it is given no new replicas"
            case Filter.RESIDENCY:
                where = ", ".join(cluster.jurisdictions) or "no declared jurisdiction"
                return f"no user of {self.model.name} may be served in {where}"
            case Filter.CONTINENT:
                where = cluster.continent or "an unknown continent"
                return f"it is in {where}, no user is, and policy lets other continents serve none"

    def _why_not(self, cluster: Cluster, base: float) -> Verdict:
        free = [option for option in self.options if option.pool.cluster == cluster.name and self._has_room(option)]
        if not free:
            takers = sorted({m for (m, name) in self.counts if self.index.pools[name].cluster == cluster.name})
            return self._say(cluster, 0, "Full", f"its devices that fit are taken by {', '.join(takers) or 'others'}")
        free = [option for option in free if not self._is_beyond_spot(option)]
        if not free:
            text = f"only spot devices are free there, and policy allows {self.model.spot_max_fraction:.0%} on spot"
            return self._say(cluster, 0, "SpotLimit", text)
        even = [option for option in free if not self._is_beyond_part(option)]
        if not even:
            return self._say(cluster, 0, "MaxPartPerDomain", self._part_says(cluster))
        free = even
        if self.model.max_starts is not None and self._started() >= self.model.max_starts:
            return self._say(cluster, 0, "MovesPerHour", "no more replicas may be started this hour")
        if limits := exhausted(self.model, free, self.limits):
            return self._say(cluster, 0, _limit_code(limits[0].rule.limit), limits[0].reached.says)
        option = min(
            free, key=lambda one: (one.shape.devices * one.pool.usd_per_device_hour + self._risk(one, 1), one.pool.name)
        )
        device, risk = option.shape.devices * option.pool.usd_per_device_hour, self._risk(option, 1)
        start = costs.start_usd_per_hour(self.index.problem, self.model, option)
        more = dict(self.usable)
        gained = option.shape.requests_per_second * self.model.target_utilisation
        more[cluster.name] = more.get(cluster.name, 0.0) + gained
        requests = self._flow_cost(more) - base
        terms = (
            Term(name="accelerators", usd_per_hour=round(device, 4)),
            *((Term(name="risk", usd_per_hour=round(risk, 4)),) if risk else ()),
            Term(name="start", usd_per_hour=round(start, 4)),
            Term(name="requests", usd_per_hour=round(requests, 4)),
        )
        total = device + risk + start + requests
        code, reason = self._compare(option, device, total)
        return Verdict(
            cluster=cluster.name,
            replicas=0,
            code=code,
            reason=reason,
            usd_per_hour_if_placed=round(total, 4),
            terms=terms,
        )

    def _compare(self, option: Option, device: float, total: float) -> tuple[str, str]:
        """The sentence for a cluster that could have a replica and has none."""
        cells = [demand.cell for demand in self.index.demands[self.model.name]]
        near = min(
            (
                self.index.latency_ms(self.model, cell, option.pool.cluster)
                for cell in cells
                if (cell, option.pool.cluster) in self.index.rtt_ms
            ),
            default=float("inf"),
        )
        if near > self.model.objective_ms:
            text = (
                f"its nearest users would wait {near:.0f} ms, the objective is {self.model.objective_ms:g} ms: "
                f"{near - self.model.objective_ms:.0f} ms less would bring them in"
            )
            return "TooFar", text
        per_rps = device / option.shape.requests_per_second
        cheapest = self._cheapest_placed()
        if cheapest is not None and per_rps > cheapest[0] * 1.001:
            return "Dearer", (
                f"a request per second costs {per_rps:.3f} USD/h there, {cheapest[0]:.3f} in {cheapest[1]} that serves "
                f"instead; one replica more would add {total:.2f} USD/h{self._would_pay(option, total)}"
            )
        held_back = self._held_back()
        if held_back and all(self.index.leaves(cell, option.pool.cluster) for cell in held_back):
            whom = f"{', '.join(held_back[:3])}{' and elsewhere' if len(held_back) > 3 else ''}"
            return "ContinentCap", (
                f"{self._cap_says()}, and they do: one replica more there would add {total:.2f} USD/h and serve none "
                f"of those who are left in {whom}"
            )
        return "NotNeeded", (
            f"what is placed serves the same users; one replica more there would add {total:.2f} USD/h"
            f"{self._would_pay(option, total)}"
            if total >= 0
            else f"one replica more would save {-total:.2f} USD/h; {self._why_not_better()}"
        )

    def _why_not_better(self) -> str:
        """Why the placement is not the best."""
        if self.kept_because:
            return f"the placement is kept: {self.kept_because}"
        return "a plan is solved to half a percent, and that is less"

    def _would_pay(self, option: Option, total: float) -> str:
        """The price of a device at which one more replica would pay, where there is one."""
        now = option.pool.usd_per_device_hour
        price = now - total / option.shape.devices
        if price <= 0:
            return ", and no price of its devices alone would make it pay"
        return f", and would pay below {price:.2f} USD per device and hour instead of {now:.2f}"

    def _cheapest_placed(self) -> tuple[float, str] | None:
        placed = [
            (one.shape.devices * one.pool.usd_per_device_hour / one.shape.requests_per_second, one.pool.cluster)
            for one in self.options
            if self.counts.get((self.model.name, one.pool.name))
        ]
        return min(placed, default=None)

    def _is_beyond_part(self, option: Option) -> bool:
        """Whether one replica more would be more than a domain may hold of what all can serve."""
        most = self.model.max_part
        if most is None:
            return False
        domain = self.index.clusters[option.pool.cluster].domain(most.domain)
        rps = option.shape.requests_per_second * self.model.target_utilisation
        names = self.usable.keys() & self.index.clusters.keys()
        here = sum(self.usable[name] for name in names if self.index.clusters[name].domain(most.domain) == domain)
        return here + rps > most.fraction * (sum(self.usable.values()) + rps) + 1e-6

    def _part_says(self, cluster: Cluster) -> str:
        most = self.model.max_part
        assert most is not None, "nothing else is beyond it"
        domain = cluster.domain(most.domain)
        return f"one replica more, and {domain} would hold more than {100.0 * most.fraction:g} % of what all can serve"

    def _is_beyond_spot(self, option: Option) -> bool:
        """Whether one more replica there would be more on spot than policy allows."""
        if option.pool.market != "spot":
            return False
        total = 1 + sum(self.counts.get((self.model.name, one.pool.name), 0) for one in self.options)
        spot = 1 + sum(
            self.counts.get((self.model.name, one.pool.name), 0) for one in self.options if one.pool.market == "spot"
        )
        return spot > self.model.spot_max_fraction * total + 1e-9

    def _started(self) -> int:
        names = [one.pool.name for one in self.options]
        return sum(
            max(0, self.counts.get((self.model.name, name), 0) - self.index.current.get((self.model.name, name), 0))
            for name in names
        )

    def _has_room(self, option: Option) -> bool:
        if self.index.clusters[option.pool.cluster].intake is not Intake.OPEN:
            return False
        if self.counts.get((self.model.name, option.pool.name), 0) >= option.most:
            return False
        return option.pool.devices - self.used[option.pool.name] >= option.shape.devices

    def _flow_cost(self, capacity: Mapping[str, float]) -> float:
        """USD per hour of late, far and unserved requests over this capacity."""
        if not self.index.demands[self.model.name]:
            return 0.0
        price = costs.THOUSANDS_PER_HOUR * self.model.unserved_usd_per_1000
        made = programme.formulate_flows(
            self.index, self.model, capacity, overload={}, unserved_usd=price, overload_usd=price
        )
        found = highs.solve(made.programme)
        assert found is not None, "leaving everything unserved is an answer"
        return found.objective

    def _say(self, cluster: Cluster, replicas: int, code: str, reason: str) -> Verdict:
        return Verdict(
            cluster=cluster.name, replicas=replicas, code=code, reason=reason, usd_per_hour_if_placed=None, terms=()
        )


def _filter_results(removed: Mapping[str, Filter | None]) -> tuple[FilterResult, ...]:
    left = len(removed)
    results = []
    for kind in Filter:
        names = tuple(sorted(name for name, by in removed.items() if by is kind))
        left -= len(names)
        results.append(FilterResult(name=kind.value, survivors=left, removed=names))
    return tuple(results)
