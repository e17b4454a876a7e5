"""The engine for small and middling problems: one mixed-integer programme over every pair of a cell and a cluster.

Up to EXACT_COLUMNS it is solved to proven optimality. A larger one is solved near its LP relaxation, whose objective is
the bound; where that leaves a gap, `kernel_search` tightens the relaxation and searches around it. Floors that cannot
be met are conceded step by step (`_concessions`), and priorities are lexicographic (`_tiers`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from placement import costs, highs
from placement.answer import DUST_RPS, LOOSE_GAP, Answer
from placement.capacity import capacity_of
from placement.exact import formulation, kernel_search
from placement.index import Index
from placement.routing.flows import RoutingPrices, known_first, least_cost_flows
from placement.solution import Floor, Flow
from placement.survival import spares

EXACT_COLUMNS = 64
"""Most (model, pool) pairs for which the programme is solved to proven optimality."""
EXACT_NODE_LIMIT = 100_000
NEAR_GAP, ANY_GAP = 0.005, 1e9
NEAR_NODE_LIMIT = 500
"""Half a percent is less than policies' minimum gain, so a better answer within it would not be acted on."""
NEAR_ARCS = 10
"""Near the relaxation, each demand keeps so many arcs of least reduced cost, and the arcs that the relaxation uses: a
third of the arcs and of the time at the demo's size, at the same cost."""
LUMPY_GAP = 0.02
LUMPY_NODE_LIMIT = 50
ALONE_ARCS, LUMPY_ARCS, MORE_ARCS, WHOLE_ARCS = 500, 1_000, 1_500, 2_000
SEARCH_GAP, ROUNDS_ALONE, SEARCHES = 0.001, 3, 18
FEW_REPLICAS, WHOLE_FLOWS = 3, 6_000
"""Parameters of the kernel search, for plans near the relaxation that are further than LUMPY_GAP from their bound.

First one model at a time (ALONE_ARCS, ROUNDS_ALONE), which takes two seconds at the demo's size. A plan that is then
still further than LOOSE_GAP from its bound, or has fewer than FEW_REPLICAS per pool, is searched as a whole and then
two and three models at a time. That may take a minute, and several minutes above WHOLE_FLOWS flows (the demo has
15,000), which are therefore left out. Small kernels go first: with the same nodes, larger ones are worse as often as
better. Up to WHOLE_ARCS arcs all are kept, which improves the bound too."""
ROUND = 1e-6

COUNTS: frozenset[Floor] = frozenset(get_args(Floor)) - {"survive", "survive_within"}
"""Floors on the number of replicas or of places."""


def solve(index: Index, *, work: int | None = None) -> Answer:
    """The best placement found. Args: work: nodes of branch and bound for each programme; None: by its size.

    Raises: RuntimeError when the solver gives no answer to a programme that has one.
    """
    for _ in range(spares.PLANS):
        answer = _with_priorities(index, work)
        if not spares.learn_cuts(index, answer.counts):
            return answer
    counts = spares.with_spares(index, answer.counts)
    flows, unserved_rps = _routed(index, counts)
    return replace(answer, counts=counts, flows=flows, unserved_rps=unserved_rps)


def _with_priorities(index: Index, work: int | None) -> Answer:
    answer, uneven = _solve_whole(index, (), work), frozenset[str]()
    if short := _yielding_and_short(index, answer):
        other = _solve_whole(index, (), work, uneven=short)
        if _unserved_rps(other, short) < _unserved_rps(answer, short) * (1.0 - ROUND):
            answer, uneven = other, short
    tiers = _tiers(index, answer, work, uneven)
    return _solve_whole(index, tiers, work, uneven=uneven) if tiers else answer


def _yielding_and_short(index: Index, answer: Answer) -> frozenset[str]:
    """Models with unserved users that have a yielding floor, which may be the cause."""
    short = {model for model, _ in answer.unserved_rps}
    return frozenset(one.name for one in index.problem.models if one.yields and one.name in short)


def _unserved_rps(answer: Answer, models: frozenset[str]) -> float:
    return sum(rps for (model, _), rps in answer.unserved_rps.items() if model in models)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Whole:
    """A programme with its integer solution; `misses`: some floor cannot be met.

    `relaxed` is the LP relaxation with its solution, where the search began with it.
    """

    made: formulation.Formulation
    found: highs.Found
    misses: bool
    relaxed: tuple[formulation.Formulation, highs.Found] | None


def _solve_whole(
    index: Index, tiers: Sequence[formulation.Tier], work: int | None, *, uneven: frozenset[str] = frozenset()
) -> Answer:
    whole = _conceding(index, work, tiers=tiers, uneven=uneven)
    every = {key: round(whole.found.values[column]) for key, column in whole.made.replicas.items()}
    counts = {key: count for key, count in sorted(every.items()) if count > 0}
    flows, unserved_rps = _routed(index, counts)
    made, relaxed = whole.relaxed if whole.relaxed and not whole.misses else _relaxed(index, whole.misses, tiers)
    return Answer(
        counts=counts,
        flows=flows,
        unserved_rps=unserved_rps,
        bound_usd_per_hour=relaxed.objective if whole.misses else whole.found.bound,
        device_usd=_device_usd(index, made, relaxed),
        limit_usd={limit: -float(relaxed.duals[row]) for limit, row in made.limits.items()},
    )


def _routed(
    index: Index, counts: Mapping[tuple[str, str], int]
) -> tuple[tuple[Flow, ...], dict[tuple[str, str], float]]:
    """(the best flows over these replicas, (model, cell) -> unserved requests per second)."""
    flows: list[Flow] = []
    unserved_rps: dict[tuple[str, str], float] = {}
    for model in index.problem.models:
        usable, _ = capacity_of(index, model, counts)
        price = RoutingPrices(overload=0.0, unserved=costs.THOUSANDS_PER_HOUR * model.unserved_usd_per_1000)
        parts, missing = known_first(least_cost_flows, index, model, usable, {}, price)
        flows += parts
        unserved_rps |= {(model.name, cell): rps for cell, rps in missing.items()}
    return tuple(flows), unserved_rps


def _relaxed(
    index: Index, without_floors: bool, tiers: Sequence[formulation.Tier]
) -> tuple[formulation.Formulation, highs.Found]:
    made = formulation.formulate(index, without_floors=without_floors, tiers=tiers)
    relaxed = highs.solve(made.programme, relaxed=True)
    assert relaxed is not None, "what has an answer in whole numbers has one in fractions"
    return made, relaxed


def _device_usd(index: Index, made: formulation.Formulation, relaxed: highs.Found) -> dict[str, float]:
    """Pool -> USD per hour saved by one more device; where one model fills a pool, its own bound is what binds."""
    usd = {pool: -float(relaxed.duals[row]) for pool, row in made.devices.items()}
    for model in index.problem.models:
        for option in index.options(model):
            pool = option.pool
            if pool.name in usd and option.most == pool.devices // option.shape.devices:
                bound = -float(relaxed.reduced[made.replicas[model.name, pool.name]])
                usd[pool.name] = max(usd[pool.name], bound / option.shape.devices)
    return usd


def _conceding(
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
            found = _kernel_searched(made, found, work)
        return _Whole(made=made, found=found, misses=bool(missable or uneven), relaxed=relaxed)
    raise RuntimeError("the solver gave no answer, though leaving everything unserved is one")


def _concessions(
    index: Index, tiers: Sequence[formulation.Tier], least: float
) -> Iterator[tuple[frozenset[Floor], frozenset[str]]]:
    """(floors that may be missed, models that need not survive a loss), in order of growing concessions.

    A model that cannot be protected does not cost others their protection: it is kept by priority, then by the price of
    unserved requests.
    """
    yield frozenset(), frozenset()
    yield COUNTS, frozenset()
    protected = [model for model in index.problem.models if model.survive is not None]
    protected.sort(key=lambda one: (-one.priority, -one.unserved_usd_per_1000, one.name))
    for relaxed in (True, False):  # first judged by the LP, which is fast but optimistic
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
    """Whether used pools have few replicas, so that rounding each of them changes the cost much."""
    counts = [round(found.values[column]) for column in made.replicas.values()]
    used = sum(1 for count in counts if count)
    return bool(sum(counts) < FEW_REPLICAS * used)


def _kernel_searched(made: formulation.Formulation, found: highs.Found, work: int | None) -> highs.Found:
    """A solution no worse than `found`, with a better bound, by kernel search."""
    tight = kernel_search.tighten(made.programme, made.facilities)
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


def _tiers(index: Index, answer: Answer, work: int | None, uneven: frozenset[str]) -> list[formulation.Tier]:
    """The demand that models of each priority but the lowest must leave unserved; empty where none of them is short."""
    priorities = sorted({model.priority for model in index.problem.models}, reverse=True)
    short = {model for model, _ in answer.unserved_rps}
    if not any(model.name in short and model.priority > priorities[-1] for model in index.problem.models):
        return []
    tiers: list[formulation.Tier] = []
    for priority in priorities[:-1]:
        whole = _conceding(index, work, tiers=tiers, least=priority, uneven=uneven)
        models = frozenset(model.name for model in index.problem.models if model.priority == priority)
        left = sum(whole.found.values[at] for (name, _), at in whole.made.unserved.items() if name in models)
        tiers.append(formulation.Tier(models=models, unserved_rps=float(left) * (1.0 + ROUND) + ROUND))
    return tiers


def _search(made: formulation.Formulation, work: int | None) -> tuple[highs.Found | None, highs.Found | None]:
    """(an integer solution, proven optimal if the programme is small; the solution of its LP relaxation, if solved).

    A larger programme is relaxed first and integer values are searched next to the relaxed ones. Replica counts are
    large there, so rounding costs little, and the relaxation's objective is a proven bound.
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
    found = kernel_search.solve_part(programme, _near_arcs(made, relaxed), gap=NEAR_GAP, node_limit=nodes)
    programme.lower[:], programme.upper[:] = lower, upper
    if found is None:
        found = highs.solve(programme, gap=NEAR_GAP, node_limit=nodes, asks_twice=True)
    return found and replace(found, bound=relaxed.objective), relaxed


def _near_arcs(made: formulation.Formulation, relaxed: highs.Found) -> NDArray[np.bool_]:
    """[columns] which are kept: all but the flows of largest reduced cost in the relaxation."""
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
