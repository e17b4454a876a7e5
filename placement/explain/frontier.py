"""What near costs: the fewest dollars for each mean round trip, by a sweep over what a millisecond is worth.

At a price of the millisecond the engine finds the plan whose dollars and priced milliseconds are the fewest together:
no plan is nearer for the same dollars, and none cheaper at the same distance. Each next price is the slope between two
neighbours of what was found, which finds what is farthest below the line between them.

Of small worlds these are plans in parts of replicas: solved exactly, each in a tenth of a second, and without the steps
of whole replicas, which are as large as what one price differs from the next. Whole replicas cost a little more: how
much more they do at the policies' own prices says `Standing`. Of large worlds the plans are of whole replicas, within
the engine's gap.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from placement import capacity, costs, engine, highs
from placement.costs import THOUSANDS_PER_HOUR
from placement.exact import formulation
from placement.highs import Found, Programme
from placement.index import Index
from placement.nearest import nearest_ms
from placement.problem import NEARER_USD_PER_1000_PER_MS, Budget, Problem
from placement.solution import Solution

POINTS = 12
DEAREST_PART = 0.5
"""The dearest millisecond makes of the farthest way so much of what serving a late request is worth: beyond, far users
would rather be turned away."""
ROUND = 1e-12
CLOSE = 1e-6
"""Two plans are the same when they differ in no more than this part."""
STEPS_MS = (10.0, 5.0, 2.0, 1.0, 0.5)
TOLD_USD = 0.005
NO_MOVES_H = 1e9
"""Over so long what starts cost is nothing: this is about where replicas are, not about how they get there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A plan on the curve: `usd_per_hour` is all that it costs but priced milliseconds and moves.

    `usd_per_1000_per_ms` is the price of a millisecond that gives it, `gap` how far it is from its own bound at most.
    """

    usd_per_1000_per_ms: float
    usd_per_hour: float
    rtt_ms_mean: float
    excess_ms_mean: float
    unserved_rps: float
    gap: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where policies stand: `planned` in whole replicas as the plan has it, `on_curve` the same by the curve's means.

    `in_parts`: the curve's plans are in parts of replicas.
    """

    planned: Point | None
    on_curve: Point | None
    in_parts: bool


class Sweep:
    """The curve, point by point. Args: model: of it alone, with all others where `solution` has them."""

    def __init__(self, problem: Problem, solution: Solution, model: str | None = None) -> None:
        asked = problem if model is None else _alone(problem, solution, model)
        asked = replace(
            asked,
            move_horizon_h=NO_MOVES_H,
            models=tuple(replace(one, max_starts=None) for one in asked.models),
        )
        self._problem, self._is_large = asked, engine.is_large(asked)
        self._index = Index(asked)
        self._dearest = _dearest(asked)
        self._best = {one.name: nearest_ms(self._index, one) for one in asked.models}
        self._solution, self._model = solution, model
        self._found: dict[float, _Plan] = {}
        self._tried: set[float] = set()

    def standing(self) -> Standing:
        """Where policies stand, by their own prices."""
        flows = {
            (one.model, one.cell, one.cluster): one.requests_per_second
            for one in self._solution.flows
            if self._model in (None, one.model)
        }
        counts = {(one.model, one.pool): one.replicas for one in self._solution.replicas}
        planned = self._plan(flows, self._usd(counts, flows), self._solution.gap)
        own = self._solved(self._problem)
        price = max((one.latency_usd_per_1000_per_ms for one in self._problem.models), default=0.0)
        return Standing(planned=_point(planned, price), on_curve=_point(own, price), in_parts=not self._is_large)

    def step(self) -> bool:
        """One plan more; False when there is none to be added."""
        while len(self._found) < POINTS:
            price = self._next_price()
            if price is None:
                return False
            self._tried.add(price)
            plan = self._solved(priced(self._problem, price))
            is_new = not any(plan.is_like(other) for other in self._found.values())
            if is_new or len(self._found) < 2:
                self._found[price] = plan
                return True
        return False

    def points(self) -> tuple[Point, ...]:
        """What was found so far, the cheapest first: the nearer, the dearer.

        At each price it is the best of all plans that were found, so that what one search misses another mends.
        """
        made: list[Point] = []
        for price, own in sorted(self._found.items()):
            bound = own.total(price) * (1.0 - own.gap)
            best = min(self._found.values(), key=lambda one: (one.total(price), one.rps_ms))
            total = best.total(price)
            gap = max(0.0, (total - bound) / total) if total > 0 else 0.0
            point = _point(replace(best, gap=gap), price)
            if point is not None and not any(one.rtt_ms_mean == point.rtt_ms_mean for one in made):
                made.append(point)
        return tuple(made)

    def _next_price(self) -> float | None:
        """The slope between the two neighbours with most between them; the extremes first."""
        for price in (NEARER_USD_PER_1000_PER_MS, self._dearest):
            if price not in self._tried:
                return price
        plans = sorted(self._found.values(), key=lambda one: one.rps_ms)
        most, chosen = 0.0, None
        usd_all = abs(plans[0].usd - plans[-1].usd) if plans else 0.0
        ms_all = abs(plans[-1].rps_ms - plans[0].rps_ms) if plans else 0.0
        for near, far in itertools.pairwise(plans):
            dollars, ms = near.usd - far.usd, far.rps_ms - near.rps_ms
            if dollars <= CLOSE * usd_all or ms <= CLOSE * ms_all:
                continue
            price = dollars / (THOUSANDS_PER_HOUR * ms)
            between = (dollars / usd_all) + (ms / ms_all)
            if price not in self._tried and between > most:
                most, chosen = between, price
        return chosen

    def _solved(self, problem: Problem) -> _Plan:
        if self._is_large:
            made = engine.solve(problem)
            rates = {(one.model, one.cell, one.cluster): one.requests_per_second for one in made.flows}
            return self._plan(rates, made.cost.total - made.cost.proximity, made.gap)
        index = Index(problem)
        programme = formulation.formulate(index)
        found = highs.solve(programme.programme, relaxed=True)
        if found is None:  # floors that cannot be held
            programme = formulation.formulate(index, without_floors=True)
            found = highs.solve(programme.programme, relaxed=True)
        assert found is not None, "leaving everything unserved is an answer"
        rates = {key: rps for key, column in programme.flows.items() if (rps := float(found.values[column])) > 0}
        far = 0.0
        for (name, cell, cluster), rps in rates.items():
            model = index.models[name]
            far += rps * THOUSANDS_PER_HOUR * model.way_usd_per_1000(index.latency_ms(model, cell, cluster))
        gap = 1.0 - _proved_usd(programme.programme, found) / found.objective if found.objective > 0 else 0.0
        return self._plan(rates, found.objective - far, max(0.0, gap))

    def _usd(self, counts: Mapping[tuple[str, str], int], rates: Mapping[tuple[str, str, str], float]) -> float:
        """What so many replicas and what they serve cost, but for nearness and moves."""
        index, usd = self._index, 0.0
        left = {(one.model, one.cell): one.requests_per_second for one in self._problem.demands}
        for (name, cell, cluster), rps in rates.items():
            model, latency_ms = index.models[name], index.latency_ms(index.models[name], cell, cluster)
            served = costs.served_usd_per_rps(model, index.clusters[cluster], latency_ms)
            usd += rps * (served - THOUSANDS_PER_HOUR * model.way_usd_per_1000(latency_ms))
            left[name, cell] -= rps
        for (name, _), rps in left.items():
            usd += max(0.0, rps) * THOUSANDS_PER_HOUR * index.models[name].unserved_usd_per_1000
        for model in self._problem.models:
            usd += costs.events_usd_per_hour(index, model, counts)
            for option in index.options(model):
                risk = costs.risk_usd_per_hour(self._problem, model, option.shape, option.pool)
                one = option.shape.devices * option.pool.usd_per_device_hour + risk
                usd += counts.get((model.name, option.pool.name), 0) * one
        return usd

    def _plan(self, rates: Mapping[tuple[str, str, str], float], usd: float, gap: float) -> _Plan:
        """Args: usd: all but nearness and moves."""
        index, served, rps_ms, rps_excess = self._index, 0.0, 0.0, 0.0
        for (name, cell, cluster), rps in rates.items():
            rtt_ms = index.rtt_ms[cell, cluster]
            served, rps_ms = served + rps, rps_ms + rps * rtt_ms
            rps_excess += rps * max(0.0, rtt_ms - self._best[name].get(cell, rtt_ms))
        asked = sum(one.requests_per_second for one in self._problem.demands)
        unserved = asked - served if asked - served > CLOSE * asked else 0.0
        return _Plan(usd=usd, rps_ms=rps_ms, rps_excess=rps_excess, served=served, unserved=unserved, gap=gap)


def _proved_usd(programme: Programme, found: Found) -> float:
    """What the prices of rows and bounds prove that no answer in fractions costs less than."""
    usd = 0.0
    for prices, lower, upper in (
        (found.duals, programme.row_lower, programme.row_upper),
        (found.reduced, programme.lower, programme.upper),
    ):
        at = np.where(prices > 0, np.array(lower, float), np.array(upper, float))
        usd += float(np.where(np.abs(prices) > ROUND, prices * np.where(np.isfinite(at), at, 0.0), 0.0).sum())
    return usd


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """USD per hour but for nearness, and requests per second with the milliseconds of their ways."""

    usd: float
    rps_ms: float
    rps_excess: float
    served: float
    unserved: float
    gap: float

    def total(self, price: float) -> float:
        return self.usd + THOUSANDS_PER_HOUR * price * self.rps_ms

    def is_like(self, other: _Plan) -> bool:
        usd, ms = max(self.usd, other.usd), max(self.rps_ms, other.rps_ms)
        return abs(self.usd - other.usd) <= CLOSE * usd and abs(self.rps_ms - other.rps_ms) <= CLOSE * ms


def _point(plan: _Plan, price: float) -> Point | None:
    """None where nobody is served: then there is no mean."""
    if plan.served <= 0:
        return None
    return Point(
        usd_per_1000_per_ms=price,
        usd_per_hour=plan.usd,
        rtt_ms_mean=plan.rps_ms / plan.served,
        excess_ms_mean=plan.rps_excess / plan.served,
        unserved_rps=plan.unserved,
        gap=plan.gap,
    )


def _dearest(problem: Problem) -> float:
    """The most that a millisecond of 1,000 requests is tried at."""
    farthest_ms = max(1.0, problem.rtt_matrix().farthest_ms)
    asked = {one.model for one in problem.demands if one.requests_per_second > 0}
    worth = [one.unserved_usd_per_1000 - one.late_usd_per_1000 for one in problem.models if one.name in asked]
    return max(2 * NEARER_USD_PER_1000_PER_MS, DEAREST_PART * min(worth, default=0.0) / farthest_ms)


def priced(problem: Problem, price: float) -> Problem:
    """The same where each millisecond of a way is worth so much, whatever policies say of it."""
    models = (replace(one, latency_usd_per_1000_per_ms=price, bends=()) for one in problem.models)
    return replace(problem, models=tuple(models))


def _alone(problem: Problem, solution: Solution, name: str) -> Problem:
    """One model's question, with the devices and the budget that the others leave it. Raises: KeyError for another."""
    index = Index(problem)
    model = index.models[name]
    others = {(one.model, one.pool): one.replicas for one in solution.replicas if one.model != name}
    used = capacity.devices_used(index, others)
    budgets = []
    for budget in problem.budgets:
        if name in budget.models:
            spent = 0.0
            for (other, pool_name), count in others.items():
                pool = index.pools[pool_name]
                shape = index.models[other].shape_for(pool)
                if other in budget.models and shape is not None:
                    spent += count * shape.devices * pool.usd_per_device_hour
            budgets.append(Budget(name=budget.name, models=(name,), usd_per_hour=max(0.0, budget.usd_per_hour - spent)))
    return replace(
        problem,
        models=(model,),
        pools=tuple(replace(one, devices=max(0, one.devices - used[one.name])) for one in problem.pools),
        demands=tuple(one for one in problem.demands if one.model == name),
        current=tuple(one for one in problem.current if one.model == name),
        room=tuple(one for one in problem.room if one.model == name),
        budgets=tuple(budgets),
    )


def says(points: Sequence[Point], standing: Standing) -> str:
    """Where policies stand on the curve and what a step to either side costs, in sentences."""
    here = standing.on_curve
    if here is None or not points:
        return "nobody is served: there is nothing to be nearer to"
    text = f"policy stands at {here.rtt_ms_mean:.1f} ms for {here.usd_per_hour:.0f} USD/h"
    near, far = _step(points, here, -1.0), _step(points, here, 1.0)
    steps = []
    if near is not None:
        steps.append(f"{near[0]:g} ms nearer costs {near[1]:.3g} USD/h more")
    if far is not None:
        steps.append(f"{far[0]:g} ms farther saves {far[1]:.3g} USD/h")
    text = f"{text}: {', '.join(steps)}" if steps else f"{text}, where there is no other choice"
    planned = standing.planned
    if planned is None or abs(planned.usd_per_hour - here.usd_per_hour) < TOLD_USD:
        return text
    return f"{text}; in whole replicas the plan is at {planned.rtt_ms_mean:.1f} ms for {planned.usd_per_hour:.0f} USD/h"


def _step(points: Sequence[Point], here: Point, side: float) -> tuple[float, float] | None:
    """(milliseconds, USD per hour) of the largest round step to that side that the curve allows, up to 10 ms."""
    curve = sorted((one.rtt_ms_mean, one.usd_per_hour) for one in points)
    ms, usd = zip(*curve, strict=True)
    for step in STEPS_MS:
        there = here.rtt_ms_mean + side * step
        if ms[0] <= there <= ms[-1]:
            change = abs(float(np.interp(there, ms, usd)) - float(np.interp(here.rtt_ms_mean, ms, usd)))
            if change >= TOLD_USD:
                return step, change
    return None
