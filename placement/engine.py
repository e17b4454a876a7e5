"""The engine's doors: `solve` says where replicas should be, `route` who is served by those that are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from placement import costs, unserved
from placement.answer import LOOSE_GAP, Answer
from placement.capacity import overload_rps
from placement.exact import solve as exact
from placement.index import Index
from placement.limits import limit_uses, reached
from placement.problem import Placed, Problem
from placement.routing import route as routing
from placement.shortfalls import shortfalls
from placement.solution import DevicePrice, Flow, Ready, Routing, Shortfall, Solution, Unserved

LARGE_PAIRS = 200_000
"""Pairs of a demand and a cluster; the demo has 20,000. Below this HiGHS ends in seconds, and finds the better plan
where a region is short of devices."""
WORTH_SAYING_USD = 0.005
MOST_SCARCE = 20


def solve(problem: Problem, *, work: int | None = None) -> Solution:
    """The cheapest placement within the hard rules; how far from optimal it may be, the solution's `gap` says.

    Floors that no placement can hold are missed by as little as possible and reported as shortfalls. When not all can
    be served, models of higher priority are, whatever that costs the others.
    Args: work: nodes of branch and bound for each programme, in place of what its size has; the best plan within them
        is given.
    Raises: RuntimeError when the solver gives no answer to a programme that has one.
    """
    index = Index(problem)
    if not is_large(problem):
        return solution_of(index, exact.solve(index, work=work))
    from placement.large import plan  # numba takes a second to load, which small worlds need not pay

    return solution_of(index, plan.solve(index, work=plan.WORK if work is None else work))


def is_large(problem: Problem) -> bool:
    """Whether the programme over every pair of a cell and a cluster would take longer than a control cycle."""
    return len(problem.demands) * len(problem.clusters) > LARGE_PAIRS


def solution_of(index: Index, answer: Answer) -> Solution:
    """An engine's answer, priced and explained."""
    counts = answer.counts
    scarce = [
        DevicePrice(pool=pool, usd_per_hour=usd) for pool, usd in answer.device_usd.items() if usd > WORTH_SAYING_USD
    ]
    scarce.sort(key=lambda one: (-one.usd_per_hour, one.pool))
    limits = limit_uses(index, counts, answer.limit_usd)
    flows = by_model(index, answer.flows)
    missing: dict[str, dict[str, float]] = {model.name: {} for model in index.problem.models}
    for (name, cell), rps in answer.unserved_rps.items():
        missing[name][cell] = rps
    reasons: list[Unserved] = []
    missed: list[Shortfall] = []
    for model in index.problem.models:
        reasons += unserved.by_plan(index, model, counts, flows[model.name], missing[model.name], scarce, limits)
        missed += shortfalls(index, model, counts, limits)
    cost = costs.placement_cost(index, counts, answer.flows, reasons)
    bound = min(answer.bound_usd_per_hour, cost.total)
    gap = costs.gap(cost, bound)
    return Solution(
        replicas=tuple(Placed(model=m, pool=p, replicas=n) for (m, p), n in sorted(counts.items())),
        flows=tuple(sorted(answer.flows)),
        unserved=tuple(sorted(reasons)),
        shortfalls=tuple(missed),
        cost=cost,
        bound_usd_per_hour=bound,
        gap=gap,
        is_loose=gap > LOOSE_GAP,
        scarce=tuple(scarce[:MOST_SCARCE]),
        reached=reached(limits),
    )


def assess(
    solution: Solution, problem: Problem, counts: Ready, flows: tuple[Flow, ...], missing: tuple[Unserved, ...]
) -> Solution:
    """Another placement than the `solution`, with its own routing, priced and measured by the same bound.

    What a cluster serves beyond the target utilisation costs as much as if it were late; as no plan counts on that, it
    may cost less than the bound, which says little then.
    """
    index = Index(problem)
    cost = costs.placement_cost(index, counts, flows, missing)
    mine = by_model(index, flows)
    for model in problem.models:
        rps = sum(overload_rps(index, model, counts, mine[model.name]).values())
        cost = replace(cost, late=cost.late + costs.THOUSANDS_PER_HOUR * rps * model.late_usd_per_1000)
    bound = min(solution.bound_usd_per_hour, cost.total)
    limit_usd = {(one.limit, one.subject): one.usd_per_hour for one in solution.reached}
    limits = limit_uses(index, counts, limit_usd)
    return replace(
        solution,
        replicas=tuple(Placed(model=m, pool=p, replicas=n) for (m, p), n in sorted(counts.items()) if n > 0),
        flows=flows,
        unserved=missing,
        shortfalls=tuple(one for model in problem.models for one in shortfalls(index, model, counts, limits)),
        cost=cost,
        bound_usd_per_hour=bound,
        gap=costs.gap(cost, bound),
        is_loose=solution.is_loose or cost.total < solution.bound_usd_per_hour - WORTH_SAYING_USD,
        reached=reached(limits),
    )


def by_model(index: Index, flows: Iterable[Flow]) -> dict[str, list[Flow]]:
    """Model -> its flows, of every model."""
    found: dict[str, list[Flow]] = {model.name: [] for model in index.problem.models}
    for flow in flows:
        found[flow.model].append(flow)
    return found


def route(
    problem: Problem, ready: Ready, last: Routing | None = None, foreseen: Mapping[str, float] | None = None
) -> Routing:
    """The best routing over `ready` replicas in reachable clusters.

    Serving comes before price: what the replicas can carry is carried, beyond the target utilisation too, which is
    priced as if it were late. But clusters are beyond it only for who would go unserved else, when no more of a model's
    requests are late by that than the plan foresees; `over` tells which are and why. Where replicas cannot carry all,
    the cell that is served least is served as much as can be.
    Args: last: an earlier routing, from whose prices a large world's is found sooner. It is as good without. foreseen:
        model -> part of its requests that the plan serves late (`late_parts`); nothing where it is not known.
    """
    index = Index(problem)
    counts = {
        key: count
        for key, count in sorted(ready.items())
        if count > 0 and key[1] in index.pools and index.clusters[index.pools[key[1]].cluster].reachable
    }
    if is_large(problem):
        return routing.route_many(index, counts, last, foreseen or {})
    return routing.route(index, counts, foreseen or {})


def late_parts(solution: Solution) -> dict[str, float]:
    """Model -> part of the requests it serves that are late."""
    served: dict[str, float] = defaultdict(float)
    late: dict[str, float] = defaultdict(float)
    for flow in solution.flows:
        served[flow.model] += flow.requests_per_second
        late[flow.model] += 0.0 if flow.within_objective else flow.requests_per_second
    return {name: late[name] / rps for name, rps in served.items()}
