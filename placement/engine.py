"""The engine's two doors: `solve` says where replicas should be, `route` who is served by those that are."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, get_args

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from placement import formulation, highs, kernel, rules, spare, survival
from placement.filters import Index, Option
from placement.model import (
    Cell,
    Cost,
    DevicePrice,
    Floor,
    Flow,
    Intake,
    Limit,
    Model,
    Over,
    Placed,
    Problem,
    Reached,
    Ready,
    RoomPrice,
    Routing,
    RttMatrix,
    Shortfall,
    Solution,
    Unserved,
    UnservedCode,
)

if TYPE_CHECKING:
    from placement import large, transport

EXACT_COLUMNS = 64
"""Up to so many (model, pool) pairs the programme is solved to proven optimality; a larger one near its relaxation."""
EXACT_NODE_LIMIT = 100_000
NEAR_GAP, ANY_GAP = 0.005, 1e9
NEAR_NODE_LIMIT = 500
"""Half a percent is less than policies' minimum gain, so a better answer within it would not be acted on."""
NEAR_ARCS = 10
"""A large programme is searched with so many clusters for each demand, the cheapest by the relaxed prices, and those
that the relaxation uses: a third of the arcs and of the time at the demo's size, for the same costs."""
LUMPY_GAP = 0.02
LUMPY_NODE_LIMIT = 50
ALONE_ARCS, LUMPY_ARCS, MORE_ARCS, WHOLE_ARCS = 500, 1_000, 1_500, 2_000
SEARCH_GAP, ROUNDS_ALONE, SEARCHES = 0.001, 3, 18
FEW_REPLICAS, WHOLE_FLOWS = 3, 6_000
"""Where replicas are few, a plan near the relaxation may be far from the best. Then model by model is placed anew,
which takes two seconds at the demo's size. Only what is still farther than LOOSE_GAP from its bound, or has few
replicas in the pools that it uses, is searched as a whole, and from there two and three models at a time: that may take
a minute, and several in worlds of more than WHOLE_FLOWS (the demo's has 15,000), for which no control cycle waits.
Small kernels go first: with more arcs from the start the same nodes end worse as often as better. Up to WHOLE_ARCS all
arcs are kept: that improves the bound too."""
DUST_RPS = 1e-6
CAP_NEAR = 1e-4
"""A cap is reached when so small a part of it is left."""
ROUND = 1e-6
SPARED_RPS = 1e-4
"""More than what rounding makes of the flows of a cluster."""
AS_FORESEEN = 0.0005
"""So much more of a model's requests may be late than the plan foresees, rather than that clusters are beyond what it
counts on."""
DECIMALS = 6

COUNTS: frozenset[Floor] = frozenset(get_args(Floor)) - {"survive", "survive_within"}
"""The floors that say how many replicas, or in how many places."""
LARGE_PAIRS = 200_000
"""Pairs of a demand and a cluster; the demo has 20,000. Below this HiGHS ends in seconds, and finds the better plan
where a region is short of devices."""

LOOSE_GAP = 0.05
"""A plan this far from its bound is more likely near the best than the bound is: whole replicas, or a shortage."""
WORTH_SAYING_USD = 0.005
MOST_SCARCE = 20

Capacity = dict[str, float]
_FlowsOf = Callable[[Index, Model, Capacity, Capacity, "_RoutingPrices"], tuple[list[Flow], dict[str, float]]]
Rates = Mapping[str, Mapping[tuple[str, str], float]]
"""model -> (cell, cluster) -> requests per second."""


def solve(problem: Problem, *, work: int | None = None) -> Solution:
    """The cheapest placement within the hard rules; how far from optimal it may be, the solution's `gap` says.

    Floors that no placement can hold are missed by as little as possible and reported as shortfalls. When not all can
    be served, models of higher priority are, whatever that costs the others.
    Args: work: nodes of branch and bound for each programme, in place of what its size has; the best plan within them
        is given.
    Raises: RuntimeError when the solver gives no answer to a programme that has one.
    """
    index = Index(problem)
    if is_large(problem):
        return _solve_large(index, work)
    for _ in range(spare.PLANS):
        solution = _solve_small(index, work)
        if not spare.learn(index, counts_of(solution)):
            return solution
    counts = spare.added(index, counts_of(solution))
    return _solution(
        index,
        counts,
        solution.bound_usd_per_hour,
        device_usd={one.pool: one.usd_per_hour for one in solution.scarce},
        limit_usd={(one.limit, one.subject): one.usd_per_hour for one in solution.reached},
    )


def counts_of(solution: Solution) -> dict[tuple[str, str], int]:
    """(model, pool) -> replicas."""
    return {(one.model, one.pool): one.replicas for one in solution.replicas}


def _solve_small(index: Index, work: int | None) -> Solution:
    solution, uneven = _solve_whole(index, (), work), frozenset[str]()
    if short := _capped_and_short(index, solution):
        other = _solve_whole(index, (), work, uneven=short)
        if _unserved_rps(other, short) < _unserved_rps(solution, short) * (1.0 - ROUND):
            solution, uneven = other, short
    tiers = _tiers(index, solution, work, uneven)
    return _solve_whole(index, tiers, work, uneven=uneven) if tiers else solution


def _capped_and_short(index: Index, solution: Solution) -> frozenset[str]:
    """Models that leave users unserved, and of which no domain may hold more than a part: that may be why."""
    short = {one.model for one in solution.unserved}
    return frozenset(one.name for one in index.problem.models if one.yields and one.name in short)


def _unserved_rps(solution: Solution, models: frozenset[str]) -> float:
    return sum(one.requests_per_second for one in solution.unserved if one.model in models)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Whole:
    """A programme with its answer in whole replicas; `misses` says that some floor cannot be held.

    `relaxed` is a programme of the same question with its answer in fractions, where the search began with one.
    """

    made: formulation.Formulation
    found: highs.Found
    misses: bool
    relaxed: tuple[formulation.Formulation, highs.Found] | None


def _solve_whole(
    index: Index, tiers: Sequence[formulation.Tier], work: int | None, *, uneven: frozenset[str] = frozenset()
) -> Solution:
    whole = _answer(index, work, tiers=tiers, uneven=uneven)
    counts = {key: round(whole.found.values[column]) for key, column in whole.made.replicas.items()}
    made, relaxed = whole.relaxed if whole.relaxed and not whole.misses else _relaxed(index, whole.misses, tiers)
    return _solution(
        index,
        {key: count for key, count in sorted(counts.items()) if count > 0},
        relaxed.objective if whole.misses else whole.found.bound,
        device_usd=_device_usd(index, made, relaxed),
        limit_usd={limit: -float(relaxed.duals[row]) for limit, row in made.limits.items()},
    )


def _relaxed(
    index: Index, without_floors: bool, tiers: Sequence[formulation.Tier]
) -> tuple[formulation.Formulation, highs.Found]:
    made = formulation.formulate(index, without_floors=without_floors, tiers=tiers)
    relaxed = highs.solve(made.programme, relaxed=True)
    assert relaxed is not None, "what has an answer in whole numbers has one in fractions"
    return made, relaxed


def _device_usd(index: Index, made: formulation.Formulation, relaxed: highs.Found) -> dict[str, float]:
    """Pool -> USD per hour of one more device. Where one model fills a pool, its own limit is what binds there."""
    usd = {pool: -float(relaxed.duals[row]) for pool, row in made.devices.items()}
    for model in index.problem.models:
        for option in index.options(model):
            pool = option.pool
            if pool.name in usd and option.most == pool.devices // option.shape.devices:
                bound = -float(relaxed.reduced[made.replicas[model.name, pool.name]])
                usd[pool.name] = max(usd[pool.name], bound / option.shape.devices)
    return usd


def _answer(
    index: Index,
    work: int | None,
    *,
    tiers: Sequence[formulation.Tier] = (),
    least: float = -math.inf,
    uneven: frozenset[str] = frozenset(),
) -> _Whole:
    for missable, exposed in _concessions(index, tiers, least):
        made = formulation.formulate(index, missable=missable, exposed=exposed, uneven=uneven, tiers=tiers, least=least)
        found, fractions = _search(made, work)
        if found is None:
            continue
        relaxed = (made, fractions) if fractions is not None else None
        if _is_loose(found, LUMPY_GAP):
            found = _searched(made, found, work)
        return _Whole(made=made, found=found, misses=bool(missable or uneven), relaxed=relaxed)
    raise RuntimeError("the solver gave no answer, though leaving everything unserved is one")


def _concessions(
    index: Index, tiers: Sequence[formulation.Tier], least: float
) -> Iterator[tuple[frozenset[Floor], frozenset[str]]]:
    """What may be missed, less before more: floors, and the models that need not survive a loss.

    One model that cannot be protected costs no other its protection: those of high priority, and of these the dearest
    to leave unserved, keep theirs before others do.
    """
    yield frozenset(), frozenset()
    yield COUNTS, frozenset()
    protected = [model for model in index.problem.models if model.survive is not None]
    protected.sort(key=lambda one: (-one.priority, -one.unserved_usd_per_1000, one.name))
    for relaxed in (True, False):  # in whole replicas less fits than in fractions, and to know how much takes longer
        exposed = everyone = frozenset(model.name for model in protected)
        for model in protected if len(protected) > 1 else ():
            fewer = exposed - {model.name}
            made = formulation.formulate(index, missable=COUNTS, exposed=fewer, tiers=tiers, least=least)
            if highs.solve(made.programme, gap=ANY_GAP, node_limit=NEAR_NODE_LIMIT, relaxed=relaxed) is not None:
                exposed = fewer
        if exposed and exposed != everyone:
            yield COUNTS, exposed
    yield COUNTS, everyone


def _is_loose(found: highs.Found, gap: float) -> bool:
    return found.objective - found.bound > gap * abs(found.objective)


def _has_few(made: formulation.Formulation, found: highs.Found) -> bool:
    """Whether pools that are used have few replicas: then each of them that is not whole weighs much."""
    counts = [round(found.values[column]) for column in made.replicas.values()]
    used = sum(1 for count in counts if count)
    return bool(sum(counts) < FEW_REPLICAS * used)


def _searched(made: formulation.Formulation, found: highs.Found, work: int | None) -> highs.Found:
    """An answer that is no worse than `found`, and closer to its bound."""
    tight = kernel.tighten(made.programme, made.facilities)
    if tight is None:
        return found
    found = replace(found, bound=min(max(found.bound, tight.found.objective), found.objective))
    if not _is_loose(found, LUMPY_GAP):
        return found
    nodes = LUMPY_NODE_LIMIT if work is None else work
    alone = ROUNDS_ALONE * len({one.group for one in made.facilities})
    found = tight.improve(found, 1, arcs=ALONE_ARCS, gap=SEARCH_GAP, node_limit=nodes, searches=alone)
    is_poor = _is_loose(found, LOOSE_GAP) or (_has_few(made, found) and _is_loose(found, NEAR_GAP))
    if is_poor and len(made.flows) <= WHOLE_FLOWS:
        arcs = WHOLE_ARCS if len(made.flows) <= WHOLE_ARCS else LUMPY_ARCS
        other = tight.search(arcs=arcs, gap=NEAR_GAP, node_limit=nodes) or found
        other = tight.improve(other, 2, arcs=LUMPY_ARCS, gap=SEARCH_GAP, node_limit=nodes, searches=SEARCHES)
        other = tight.improve(other, 2, arcs=MORE_ARCS, gap=SEARCH_GAP, node_limit=nodes, searches=SEARCHES)
        other = tight.improve(other, 3, arcs=MORE_ARCS, gap=SEARCH_GAP, node_limit=4 * nodes, searches=SEARCHES)
        if other.objective < found.objective:
            found = replace(other, bound=found.bound)
        found = replace(found, bound=max(found.bound, other.bound))
    return replace(found, bound=min(found.bound, found.objective))


def _tiers(index: Index, solution: Solution, work: int | None, uneven: frozenset[str]) -> list[formulation.Tier]:
    """What models of each priority but the lowest must leave unserved; nothing where none of them goes short."""
    priorities = sorted({model.priority for model in index.problem.models}, reverse=True)
    short = {one.model for one in solution.unserved}
    if not any(model.name in short and model.priority > priorities[-1] for model in index.problem.models):
        return []
    tiers: list[formulation.Tier] = []
    for priority in priorities[:-1]:
        whole = _answer(index, work, tiers=tiers, least=priority, uneven=uneven)
        models = frozenset(model.name for model in index.problem.models if model.priority == priority)
        left = sum(whole.found.values[at] for (name, _), at in whole.made.unserved.items() if name in models)
        tiers.append(formulation.Tier(models=models, unserved_rps=float(left) * (1.0 + ROUND) + ROUND))
    return tiers


def is_large(problem: Problem) -> bool:
    """Whether the programme over every pair of a cell and a cluster would take longer than a control cycle."""
    return len(problem.demands) * len(problem.clusters) > LARGE_PAIRS


def _solve_large(index: Index, work: int | None) -> Solution:
    from placement import large  # numba takes a second to load, which small worlds need not pay

    return solution_of(index, large.solve(index, work=large.WORK if work is None else work))


def solution_of(index: Index, answer: large.Answer) -> Solution:
    """A large world's answer, priced and explained."""
    return _solution(
        index,
        answer.counts,
        answer.bound_usd_per_hour,
        answer.rates,
        device_usd=answer.device_usd,
        limit_usd=answer.limit_usd,
    )


def _search(made: formulation.Formulation, work: int | None) -> tuple[highs.Found | None, highs.Found | None]:
    """An answer, proven optimal when the programme is small, and the one in fractions where it began with that.

    A large one is relaxed first; then whole numbers are searched for near the relaxed ones. Replica counts are large
    there, so little is lost by rounding, and the relaxation's value is a proven bound of what is.
    """
    programme = made.programme
    if len(made.replicas) <= EXACT_COLUMNS:
        nodes = EXACT_NODE_LIMIT if work is None else work
        return highs.solve(programme, gap=1e-9, node_limit=nodes, asks_twice=True), None
    relaxed = highs.solve(programme, relaxed=True)
    if relaxed is None:
        return None, None
    lower, upper = list(programme.lower), list(programme.upper)
    for column in made.replicas.values():
        value = float(relaxed.values[column])
        if value <= ROUND:
            programme.upper[column] = lower[column]
        else:
            programme.lower[column] = max(lower[column], math.floor(value + ROUND))
            programme.upper[column] = min(upper[column], math.ceil(value - ROUND) + 1.0)
    nodes = NEAR_NODE_LIMIT if work is None else work
    found = kernel.solve_part(programme, _near_arcs(made, relaxed), gap=NEAR_GAP, node_limit=nodes)
    programme.lower[:], programme.upper[:] = lower, upper
    if found is None:
        found = highs.solve(programme, gap=NEAR_GAP, node_limit=nodes, asks_twice=True)
    return found and replace(found, bound=relaxed.objective), relaxed


def _near_arcs(made: formulation.Formulation, relaxed: highs.Found) -> NDArray[np.bool_]:
    """Which columns are kept: all but the flows that would cost most beyond the relaxation's prices."""
    kept = np.ones(len(relaxed.values), bool)
    arcs: dict[tuple[str, str], list[int]] = defaultdict(list)
    for (model, cell, _), column in made.flows.items():
        arcs[model, cell].append(column)
    for columns in arcs.values():
        some = np.array(columns)
        is_used = relaxed.values[some] > DUST_RPS
        order = np.argsort(np.where(is_used, -np.inf, relaxed.reduced[some]), kind="stable")
        kept[some[order[max(NEAR_ARCS, int(is_used.sum())) :]]] = False
    return kept


def _solution(
    index: Index,
    counts: Mapping[tuple[str, str], int],
    bound: float,
    rates: Rates | None = None,
    *,
    device_usd: Mapping[str, float],
    limit_usd: Mapping[tuple[Limit, str], float],
) -> Solution:
    """Everything priced from the answer. Without `rates`, routing is found again for the whole numbers, exactly."""
    flows: list[Flow] = []
    unserved: list[Unserved] = []
    shortfalls: list[Shortfall] = []
    scarce = [DevicePrice(pool=pool, usd_per_hour=usd) for pool, usd in device_usd.items() if usd > WORTH_SAYING_USD]
    scarce.sort(key=lambda one: (-one.usd_per_hour, one.pool))
    limits = counted(index, counts, limit_usd)
    for model in index.problem.models:
        if rates is not None:
            parts, missing = _told(index, model, rates.get(model.name, {}))
        else:
            usable, _ = capacity_of(index, model, counts)
            unserved_usd = formulation.USD_PER_HOUR * model.unserved_usd_per_1000
            price = _RoutingPrices(overload=0.0, unserved=unserved_usd)
            parts, missing = _known_first(_flows, index, model, usable, {}, price)
        flows += parts
        full = _full_continents(index, model, parts) if missing else {}
        room = _with_room(capacity_of(index, model, counts)[0], {}, parts) if full else set()
        why = [_why(index, model, cell, rps, counts, scarce, limits, room, full) for cell, rps in missing.items()]
        unserved += _growth_told(index, model, why)
        shortfalls += _shortfalls(index, model, counts, limits)
    cost = _placed_cost(index, counts, flows, unserved)
    bound = min(bound, cost.total)
    gap = _gap(cost, bound)
    return Solution(
        replicas=tuple(Placed(model=m, pool=p, replicas=n) for (m, p), n in sorted(counts.items())),
        flows=tuple(sorted(flows)),
        unserved=tuple(sorted(unserved)),
        shortfalls=tuple(shortfalls),
        cost=cost,
        bound_usd_per_hour=bound,
        gap=gap,
        is_loose=gap > LOOSE_GAP,
        scarce=tuple(scarce[:MOST_SCARCE]),
        reached=_reached(limits),
    )


def assess(
    solution: Solution, problem: Problem, counts: Ready, flows: tuple[Flow, ...], unserved: tuple[Unserved, ...]
) -> Solution:
    """Another placement than the `solution`, with its own routing, priced and measured by the same bound.

    What a cluster serves beyond the target utilisation costs as much as if it were late; as no plan counts on that, it
    may cost less than the bound, which says little then.
    """
    index = Index(problem)
    cost = _placed_cost(index, counts, flows, unserved)
    mine: dict[str, list[Flow]] = {model.name: [] for model in problem.models}
    for flow in flows:
        mine[flow.model].append(flow)
    for model in problem.models:
        rps = sum(overload_rps(index, model, counts, mine[model.name]).values())
        cost = replace(cost, late=cost.late + formulation.USD_PER_HOUR * rps * model.late_usd_per_1000)
    bound = min(solution.bound_usd_per_hour, cost.total)
    limit_usd = {(one.limit, one.subject): one.usd_per_hour for one in solution.reached}
    limits = counted(index, counts, limit_usd)
    return replace(
        solution,
        replicas=tuple(Placed(model=m, pool=p, replicas=n) for (m, p), n in sorted(counts.items()) if n > 0),
        flows=flows,
        unserved=unserved,
        shortfalls=tuple(one for model in problem.models for one in _shortfalls(index, model, counts, limits)),
        cost=cost,
        bound_usd_per_hour=bound,
        gap=_gap(cost, bound),
        is_loose=solution.is_loose or cost.total < solution.bound_usd_per_hour - WORTH_SAYING_USD,
        reached=_reached(limits),
    )


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
    foreseen = foreseen or {}
    if is_large(problem):
        return _route_many(index, counts, last, foreseen)
    flows: list[Flow] = []
    unserved: list[Unserved] = []
    over: list[Over] = []
    farthest_ms = problem.rtt_matrix().farthest_ms
    for model in problem.models:
        usable, beyond = capacity_of(index, model, counts)
        price = _RoutingPrices.of(index, model, farthest_ms)
        parts, missing = _known_first(_fair_flows, index, model, usable, beyond, price)
        if _overloads(usable, parts):
            spared = _known_first(_fair_flows, index, model, usable, beyond, price.sparing)
            is_enough, why = _weighed(model, usable, (parts, missing), spared, foreseen.get(model.name))
            parts, missing = spared if is_enough else (parts, missing)
            over += _over(model, usable, parts, why)
        flows += parts
        unserved += _not_routed(index, model, usable, beyond, parts, missing)
    cost = _cost(index, flows, unserved, accelerators=0.0, moves=0.0)
    return Routing(flows=tuple(sorted(flows)), unserved=tuple(sorted(unserved)), cost=cost, over=tuple(over))


def _overloads(usable: Capacity, flows: Iterable[Flow]) -> dict[str, float]:
    """Cluster -> requests per second of these flows above what plans count on there."""
    load: Capacity = defaultdict(float)
    for flow in flows:
        load[flow.cluster] += flow.requests_per_second
    over = {cluster: rps - usable.get(cluster, 0.0) for cluster, rps in sorted(load.items())}
    return {cluster: rps for cluster, rps in over.items() if rps > SPARED_RPS}


def late_parts(solution: Solution) -> dict[str, float]:
    """Model -> part of the requests it serves that are late."""
    served: dict[str, float] = defaultdict(float)
    late: dict[str, float] = defaultdict(float)
    for flow in solution.flows:
        served[flow.model] += flow.requests_per_second
        late[flow.model] += 0.0 if flow.within_objective else flow.requests_per_second
    return {name: late[name] / rps for name, rps in served.items()}


def _weighed(
    model: Model,
    usable: Capacity,
    routed: tuple[Sequence[Flow], Mapping[str, float]],
    spared: tuple[Sequence[Flow], Mapping[str, float]],
    foreseen: float | None,
) -> tuple[bool, str]:
    """Whether a routing in which clusters are beyond the target utilisation only for who would go unserved is good
    enough, and why clusters are beyond it in the one that is taken."""
    served = sum(flow.requests_per_second for flow in routed[0])
    late, more_late = (
        sum(flow.requests_per_second for flow in flows if not flow.within_objective) for flows in (routed[0], spared[0])
    )
    least = SPARED_RPS + ROUND * served
    most_late = late + least if foreseen is None else max(late + least, (foreseen + AS_FORESEEN) * served)
    needed = sum(_overloads(usable, spared[0]).values())
    lost = f"{needed:.6g} requests per second of {model.name} would go unserved"
    if more_late <= most_late and sum(spared[1].values()) <= sum(routed[1].values()) + least:
        return True, f"else {lost}"
    why = f"else {more_late - late:.6g} requests per second of {model.name} would be late"
    return False, f"{why}, and {lost}" if needed else why


def _over(model: Model, usable: Capacity, flows: Iterable[Flow], reason: str) -> list[Over]:
    return [
        Over(model=model.name, cluster=name, requests_per_second=rps, reason=reason)
        for name, rps in _overloads(usable, flows).items()
    ]


def _not_routed(
    index: Index,
    model: Model,
    usable: Capacity,
    beyond: Capacity,
    flows: Sequence[Flow],
    missing: Mapping[str, float],
) -> list[Unserved]:
    full = _full_continents(index, model, flows) if missing else {}
    room = _with_room(usable, beyond, flows) if full else set()
    why = [_why_not_routed(index, model, cell, rps, usable, room, full) for cell, rps in missing.items()]
    return _growth_told(index, model, why)


def _route_many(index: Index, counts: Ready, last: Routing | None, foreseen: Mapping[str, float]) -> Routing:
    """The same where there are too many pairs for a programme over all of them. All parts are sorted by name."""
    from placement import transport  # numba takes a second to load, which small worlds need not pay

    rtt_ms = index.problem.rtt_matrix()
    asking, farthest_ms = transport.Asking(index, rtt_ms), rtt_ms.farthest_ms
    known = {(one.model, one.cluster): one.usd_per_hour for one in last.prices} if last is not None else {}
    flows: list[Flow] = []
    unserved: list[Unserved] = []
    over: list[Over] = []
    prices: list[RoomPrice] = []
    costs: list[Cost] = []
    usd = bound_usd = 0.0
    for model in index.problem.models:
        usable, beyond = capacity_of(index, model, counts)
        price, clusters = _RoutingPrices.of(index, model, farthest_ms), sorted(usable)
        begin = np.array([known.get((model.name, name), np.nan) for name in clusters])
        question = asking.question(model, usable, beyond, price.unserved, price.overload)
        found = transport.solve(question, begin)
        parts, missing, cost = _told_at_once(index, model, asking, clusters, found)
        if _overloads(usable, parts):
            sparing = asking.question(model, usable, beyond, price.sparing.unserved, price.sparing.overload)
            spared = transport.solve(sparing, found.prices)
            told = _told_at_once(index, model, asking, clusters, spared)
            is_enough, why = _weighed(model, usable, (parts, missing), told[:2], foreseen.get(model.name))
            if is_enough:
                found, (parts, missing, cost) = spared, told
            over += _over(model, usable, parts, why)
        if missing and index.by_growth(model) is not None:
            flows_of = partial(_flows_of_many, rtt_ms=rtt_ms)
            parts, missing = _known_first(flows_of, index, model, usable, beyond, price)
            cost = _cost(index, parts, (), accelerators=0.0, moves=0.0)
        flows += parts
        unserved += _not_routed(index, model, usable, beyond, parts, missing)
        costs.append(cost)
        prices += [
            RoomPrice(model=model.name, cluster=name, usd_per_hour=price)
            for name, price in zip(clusters, found.prices.tolist(), strict=True)
        ]
        usd, bound_usd = usd + found.usd, bound_usd + found.bound_usd
    costs.append(_cost(index, (), unserved, accelerators=0.0, moves=0.0))
    return Routing(
        flows=tuple(flows),
        unserved=tuple(unserved),
        cost=Cost(**{one.name: sum(getattr(cost, one.name) for cost in costs) for one in fields(Cost)}),
        gap=max(0.0, (usd - bound_usd) / usd) if usd > 0 else 0.0,
        prices=tuple(prices),
        over=tuple(over),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _RoutingPrices:
    """USD per hour of one request per second beyond what plans count on, and of an unserved one, above all that serving
    it may cost. `dearest` is above what any way and being late may cost."""

    overload: float
    unserved: float
    dearest: float = 0.0

    @property
    def sparing(self) -> _RoutingPrices:
        """The same where a request is rather late than beyond what plans count on, but not rather unserved."""
        return replace(self, overload=self.dearest, unserved=self.unserved + self.dearest)

    @staticmethod
    def of(index: Index, model: Model, farthest_ms: float) -> _RoutingPrices:
        egress = max((formulation.egress_usd_per_rps(model, one) for one in index.problem.clusters), default=0.0)
        far = model.way_usd_per_1000(farthest_ms + model.service_latency_ms)
        worst = model.unserved_usd_per_1000 + 2 * model.late_usd_per_1000 + far + 1.0
        return _RoutingPrices(
            overload=formulation.USD_PER_HOUR * model.late_usd_per_1000,
            unserved=formulation.USD_PER_HOUR * worst + egress,
            dearest=formulation.USD_PER_HOUR * (model.late_usd_per_1000 + far + 1.0) + egress,
        )


def devices_used(index: Index, counts: Mapping[tuple[str, str], int]) -> defaultdict[str, int]:
    """Pool -> devices that so many replicas take."""
    used: defaultdict[str, int] = defaultdict(int)
    for (name, pool_name), count in counts.items():
        model = index.models.get(name)
        used[pool_name] += count * (1 if model is None else model.devices_in(index.pools[pool_name]))
    return used


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """A limit, and what a placement takes of it: `used` of `most`; `usd_per_hour` is what one more of it would save."""

    rule: rules.UpperRule
    used: float
    most: float
    usd_per_hour: float

    @property
    def told(self) -> Reached:
        """For people."""
        return Reached(
            limit=self.rule.limit,
            subject=self.rule.subject,
            used=self.used,
            most=self.most,
            usd_per_hour=self.usd_per_hour,
        )

    def has_room(self, term: float) -> bool:
        """Whether a replica that takes so much of it fits."""
        return self.used + term <= self.most + ROUND


def counted(index: Index, counts: Ready, limit_usd: Mapping[tuple[Limit, str], float]) -> list[Counted]:
    """Every limit with what so many replicas take of it."""
    budgets = {one.name: one.usd_per_hour for one in index.problem.budgets}
    found = []
    for rule in rules.limits(index):
        most = budgets[rule.subject] if rule.limit == "budget" else index.models[rule.subject].max_replicas
        assert most is not None, "a rule comes from a limit"
        used = sum(term * counts.get(key, 0) for key, term in rule.terms.items())
        usd = max(0.0, limit_usd.get((rule.limit, rule.subject), 0.0))
        found.append(Counted(rule=rule, used=used, most=float(most), usd_per_hour=usd))
    return found


def _reached(limits: Sequence[Counted]) -> tuple[Reached, ...]:
    """Those that leave no room for the smallest replica that they count."""
    return tuple(sorted(one.told for one in limits if not one.has_room(min(one.rule.terms.values()))))


def capacity_of(index: Index, model: Model, counts: Mapping[tuple[str, str], int]) -> tuple[Capacity, Capacity]:
    """(cluster -> requests per second that plans count on, cluster -> what it can take beyond that)."""
    usable: Capacity = defaultdict(float)
    beyond: Capacity = defaultdict(float)
    for (name, pool_name), count in counts.items():
        pool = index.pools[pool_name]
        shape = model.shape_for(pool) if name == model.name else None
        if shape is not None:
            whole = count * shape.requests_per_second
            usable[pool.cluster] += whole * model.target_utilisation
            beyond[pool.cluster] += whole * (1.0 - model.target_utilisation)
    return dict(usable), dict(beyond)


def overload_rps(index: Index, model: Model, counts: Ready, flows: Iterable[Flow]) -> dict[str, float]:
    """Cluster -> requests per second of these flows of `model` above what plans count on there."""
    usable, _ = capacity_of(index, model, counts)
    return _overloads(usable, flows)


def _known_first(
    flows_of: _FlowsOf, index: Index, model: Model, usable: Capacity, beyond: Capacity, price: _RoutingPrices
) -> tuple[list[Flow], dict[str, float]]:
    """The flows of one model, and cell -> unserved requests per second.

    In a shortage what is known is served as if nothing had grown, and growth by what that leaves.
    """
    flows, missing = flows_of(index, model, usable, beyond, price)
    parts = index.by_growth(model) if missing else None
    if parts is None:
        return flows, missing
    known, grown = parts
    first, _ = flows_of(known, model, usable, beyond, price)
    usable, beyond = dict(usable), dict(beyond)
    for flow in first:
        over = max(0.0, flow.requests_per_second - usable[flow.cluster])
        usable[flow.cluster] -= flow.requests_per_second - over
        beyond[flow.cluster] = max(0.0, beyond.get(flow.cluster, 0.0) - over)
    second, _ = flows_of(grown, model, usable, beyond, price)
    rates: dict[tuple[str, str], float] = defaultdict(float)
    for flow in (*first, *second):
        rates[flow.cell, flow.cluster] += flow.requests_per_second
    return _told(index, model, rates)


def _fair_flows(
    index: Index, model: Model, usable: Capacity, beyond: Capacity, price: _RoutingPrices
) -> tuple[list[Flow], dict[str, float]]:
    """The same; in a shortage the cell that is served least is served as much as can be."""
    flows, missing = _flows(index, model, usable, beyond, price)
    return _flows(index, model, usable, beyond, price, is_fair=True) if missing else (flows, missing)


def _flows(
    index: Index, model: Model, usable: Capacity, beyond: Capacity, price: _RoutingPrices, *, is_fair: bool = False
) -> tuple[list[Flow], dict[str, float]]:
    """The flows of one model, and cell -> unserved requests per second."""
    if not index.demands[model.name]:
        return [], {}
    made = formulation.formulate_flows(
        index,
        model,
        usable,
        overload=beyond,
        unserved_usd=price.unserved,
        overload_usd=price.overload,
        is_fair=is_fair,
    )
    found = highs.solve(made.programme)
    assert found is not None, "leaving everything unserved is an answer"
    rates, _ = made.read(found)
    return _told(index, model, rates)


def _flows_of_many(
    index: Index, model: Model, usable: Capacity, beyond: Capacity, price: _RoutingPrices, *, rtt_ms: RttMatrix
) -> tuple[list[Flow], dict[str, float]]:
    """The same where there are too many pairs for a programme over all of them."""
    from placement import transport

    asking = transport.Asking(index, rtt_ms)
    found = transport.solve(asking.question(model, usable, beyond, price.unserved, price.overload))
    flows, missing, _ = _told_at_once(index, model, asking, sorted(usable), found)
    return flows, missing


def _told_at_once(
    index: Index, model: Model, asking: transport.Asking, clusters: Sequence[str], found: transport.Routed
) -> tuple[list[Flow], dict[str, float], Cost]:
    """Flows from positions, what they leave of each cell, and what they cost; as `_told` and `_cost` do by name."""
    demands = index.demands[model.name]
    asked = np.fromiter((one.requests_per_second for one in demands), np.float64, len(demands))
    rps = np.minimum(np.round(found.rps, DECIMALS), asked[found.cell])
    rps[rps <= DUST_RPS] = 0.0
    left = asked - np.bincount(found.cell, rps, minlength=len(asked))
    for at in np.flatnonzero(left < 0.0).tolist():  # rounded up too often
        mine = np.flatnonzero(found.cell == at)
        largest = mine[rps[mine].argmax()]
        rps[largest] += left[at]
    used = rps > 0.0
    cell, cluster, rps = found.cell[used], found.cluster[used], rps[used]
    latency_ms = asking.latency_ms(model, clusters, cell, cluster)
    within = latency_ms <= model.objective_ms
    egress_usd = np.array([formulation.egress_usd_per_rps(model, index.clusters[name]) for name in clusters])
    cost = Cost(
        accelerators=0.0,
        egress=float((egress_usd[cluster] * rps).sum()) if len(rps) else 0.0,
        late=formulation.USD_PER_HOUR * model.late_usd_per_1000 * float(rps[~within].sum()),
        unserved=0.0,
        moves=0.0,
        proximity=float((rps * asking.way_usd(model, latency_ms)).sum()),
    )
    name = model.name
    flows = [
        Flow(
            model=name,
            cell=demands[at].cell,
            cluster=clusters[to],
            requests_per_second=part,
            latency_ms=late_ms,
            within_objective=is_within,
        )
        for at, to, part, late_ms, is_within in zip(
            cell.tolist(), cluster.tolist(), rps.tolist(), latency_ms.tolist(), within.tolist(), strict=True
        )
    ]
    missing = {demands[at].cell: float(left[at]) for at in np.flatnonzero(left > 10 * DUST_RPS).tolist()}
    return flows, missing, cost


def _told(index: Index, model: Model, rates: Mapping[tuple[str, str], float]) -> tuple[list[Flow], dict[str, float]]:
    """Flows from (cell, cluster) -> requests per second, and what they leave of each cell."""
    flows = []
    left = {demand.cell: demand.requests_per_second for demand in index.demands[model.name]}
    pairs = sorted(rates)
    for (cell, cluster), rtt_ms in zip(pairs, index.rtts_ms(pairs), strict=True):
        rps = min(round(rates[cell, cluster], DECIMALS), left[cell])
        if rps <= DUST_RPS:
            continue
        left[cell] = max(0.0, left[cell] - rps)
        latency_ms = rtt_ms + model.service_latency_ms
        flows.append(
            Flow(
                model=model.name,
                cell=cell,
                cluster=cluster,
                requests_per_second=rps,
                latency_ms=latency_ms,
                within_objective=latency_ms <= model.objective_ms,
            )
        )
    return flows, {cell: rps for cell, rps in sorted(left.items()) if rps > 10 * DUST_RPS}


def _gap(cost: Cost, bound_usd_per_hour: float) -> float:
    return (cost.total - bound_usd_per_hour) / cost.total if cost.total > 0 else 0.0


def _placed_cost(
    index: Index, counts: Mapping[tuple[str, str], int], flows: Sequence[Flow], unserved: Sequence[Unserved]
) -> Cost:
    accelerators = moves = risk = 0.0
    for model in index.problem.models:
        for option in index.options(model):
            count = counts.get((model.name, option.pool.name), 0)
            accelerators += count * option.shape.devices * option.pool.usd_per_device_hour
            started = max(0, count - index.current.get((model.name, option.pool.name), 0))
            moves += started * formulation.start_usd_per_hour(index.problem, model, option)
            risk += count * formulation.risk_usd_per_hour(index.problem, model, option.shape, option.pool)
        risk += formulation.events_usd_per_hour(index, model, counts)
    return replace(_cost(index, flows, unserved, accelerators=accelerators, moves=moves), risk=risk)


def _cost(
    index: Index, flows: Sequence[Flow], unserved: Sequence[Unserved], *, accelerators: float, moves: float
) -> Cost:
    late = proximity = lost = egress = 0.0
    for flow in flows:
        model = index.models[flow.model]
        egress += flow.requests_per_second * formulation.egress_usd_per_rps(model, index.clusters[flow.cluster])
        rps = formulation.USD_PER_HOUR * flow.requests_per_second
        late += 0.0 if flow.within_objective else rps * model.late_usd_per_1000
        proximity += rps * model.way_usd_per_1000(flow.latency_ms)
    for one in unserved:
        price = index.models[one.model].unserved_usd_per_1000
        lost += formulation.USD_PER_HOUR * one.requests_per_second * price
    return Cost(accelerators=accelerators, egress=egress, late=late, unserved=lost, moves=moves, proximity=proximity)


def _why(
    index: Index,
    model: Model,
    cell_name: str,
    rps: float,
    counts: Mapping[tuple[str, str], int],
    scarce: Sequence[DevicePrice],
    limits: Sequence[Counted],
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
            reason = f"{_cap_says(model, cell)}; {elsewhere[0]} has room"
        elif free and (limit := _limit_of(index, model, cell, free, counts, limits)) is not None:
            code = UnservedCode.MAX_REPLICAS if limit.limit == "max_replicas" else UnservedCode.BUDGET
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
    index: Index, model: Model, cell: Cell, clusters: Iterable[str], counts: Ready, limits: Sequence[Counted]
) -> Reached | None:
    """The limit that keeps the model from one more replica in these clusters that would be worth it, if one does."""
    within = set(clusters) if limits else set()
    unserved_usd = formulation.USD_PER_HOUR * model.unserved_usd_per_1000
    worth = []
    for option in index.options(model) if limits else ():
        cluster, usd = option.pool.cluster, option.shape.devices * option.pool.usd_per_device_hour
        if cluster in within and counts.get((model.name, option.pool.name), 0) < option.most:
            latency_ms = index.latency_ms(model, cell.name, cluster)
            served_usd = formulation.served_usd_per_rps(model, index.clusters[cluster], latency_ms)
            if usd / (option.shape.requests_per_second * model.target_utilisation) + served_usd < unserved_usd:
                worth.append(option)
    return next((one.told for one in limits_on(model, worth, limits)), None)


def limits_on(model: Model, options: Sequence[Option], limits: Sequence[Counted]) -> list[Counted]:
    """The limits that leave no room for one more replica of the model in any of these options.

    A budget may have something left and still be one: when no replica fits in what is left.
    """
    keys = [(model.name, option.pool.name) for option in options]
    return [
        one
        for one in limits
        if not one.rule.terms.keys().isdisjoint(keys)
        and not one.has_room(min(one.rule.terms.get(k, 0.0) for k in keys))
    ]


def _raise(limit: Reached) -> str:
    if limit.limit == "max_replicas":
        return f"raise availability.maxReplicas of the policy of {limit.subject}"
    return f"raise budget.maxUsdPerHour of {limit.subject}"


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


def _cap_says(model: Model, cell: Cell) -> str:
    percent = f"{100.0 * model.other_continents_max_fraction:g} %"
    if not cell.continent:
        return f"nobody knows the continent of {cell.country}, and policy lets other continents serve at most {percent}"
    return f"policy lets other continents serve at most {percent} of the requests from {cell.continent}"


def _with_room(usable: Capacity, beyond: Capacity, flows: Sequence[Flow]) -> set[str]:
    """Clusters whose replicas are not all in use."""
    used: Capacity = defaultdict(float)
    for flow in flows:
        used[flow.cluster] += flow.requests_per_second
    return {name for name, rps in usable.items() if rps + beyond.get(name, 0.0) - used[name] > 10 * DUST_RPS}


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
        code, reason = UnservedCode.CONTINENT_CAP, f"{_cap_says(model, cell)}; {beyond[0]} has room"
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
        text = f"{_cap_says(model, cell)}; the {len(resident)} clusters that fit and may serve {cell.country} are there"
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


def _shortfalls(index: Index, model: Model, counts: Ready, limits: Sequence[Counted]) -> list[Shortfall]:
    options = index.options(model)
    mine = [counts.get((model.name, option.pool.name), 0) for option in options]
    full = "; ".join(one.told.says for one in limits_on(model, options, limits))
    missed: dict[tuple[Floor, str], Shortfall] = {}
    for rule in rules.floors(index, model, options):
        placed = sum(term * mine[at] for at, term in rule.terms.items())
        if rule.floor == "survive_within":
            continue
        if rule.floor == "max_part":
            if placed < rule.lower - ROUND:
                missed[rule.floor, rule.subject] = _uneven(index, model, rule.subject, options, mine, full)
            continue
        known = missed.get((rule.floor, rule.subject))
        if placed < rule.lower - ROUND and (known is None or rule.lower - placed > known.wanted - known.placed):
            missed[rule.floor, rule.subject] = Shortfall(
                model=model.name,
                rule=rule.floor,
                subject=rule.subject,
                wanted=rule.lower,
                placed=placed,
                reason=_why_missed(model, rule, placed, full),
            )
    replicas = {option.pool.name: float(count) for option, count in zip(options, mine, strict=True)}
    for one in survival.left(index, model, replicas):
        if one.is_short:
            missed["survive_within", one.lost] = Shortfall(
                model=model.name,
                rule="survive_within",
                subject=one.lost,
                wanted=one.wanted_rps,
                placed=one.servable_rps,
                reason=(
                    f"{model.name}: without {one.lost} only {one.servable_rps:.1f} of {one.wanted_rps:.1f} requests "
                    f"per second could be served within the objective; "
                    f"{full or 'within reach are no devices for the rest'}"
                ),
            )
    regions = {index.clusters[option.pool.cluster].region for at, option in enumerate(options) if mine[at]}
    if len(regions) < model.min_regions:
        text = f"{model.name}: in {len(regions)} of {model.min_regions} regions that policy asks; "
        missed["min_regions", ""] = Shortfall(
            model=model.name,
            rule="min_regions",
            wanted=model.min_regions,
            placed=len(regions),
            reason=text + (full or "no other has devices"),
        )
    return [missed[key] for key in sorted(missed)]


def _uneven(
    index: Index, model: Model, domain: str, options: Sequence[Option], counts: Sequence[int], full: str
) -> Shortfall:
    """What a domain holds beyond its part."""
    most = model.max_part
    assert most is not None, "a rule comes from a limit"
    rps = [count * option.shape.requests_per_second for option, count in zip(options, counts, strict=True)]
    here = [index.clusters[option.pool.cluster].domain(most.domain) == domain for option in options]
    part = 100.0 * sum(each for each, is_here in zip(rps, here, strict=True) if is_here) / sum(rps)
    return Shortfall(
        model=model.name,
        rule="max_part",
        subject=domain,
        wanted=100.0 * most.fraction,
        placed=part,
        reason=(
            f"{model.name}: {domain} holds {part:.0f} % of what its replicas can serve, policy asks at most "
            f"{100.0 * most.fraction:g} %; {full or 'nowhere else are there devices for its users'}"
        ),
    )


def _why_missed(model: Model, rule: rules.Rule, placed: float, full: str) -> str:
    """Args: full: which of policy's own limits are in the way, or nothing: then devices are."""
    if rule.floor == "survive":
        return (
            f"{model.name}: without {rule.subject} only {placed:.1f} of {rule.lower:.1f} requests per second that "
            f"policy protects could be served; {full or 'nowhere else are there devices for the rest'}"
        )
    if rule.floor == "availability":
        return (
            f"{model.name}: while spot in {rule.subject} is lost, {rule.lower - placed:.1f} requests per second more "
            f"go unserved than availability.target allows; {full or 'nowhere else are there devices for its users'}"
        )
    whose = {"pin": f"pinned to {rule.subject}", "min_on_demand": "that policy asks off spot"}
    asked = whose.get(rule.floor, "that policy asks")
    if full:
        return f"{model.name}: only {placed:.0f} of {rule.lower:.0f} replicas {asked} may run; {full}"
    return f"{model.name}: only {placed:.0f} of {rule.lower:.0f} replicas {asked} have devices that fit"
