"""Separation rounds for surviving the loss of a domain, and spare replicas for what they leave violated.

A placement is solved with the known cuts, checked, and solved again with the cuts that it violated. After PLANS rounds,
whole replicas are added until all cuts hold, so the plan is safe and its gap includes their cost.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from placement import floors, highs, limits
from placement.index import Cut, Index
from placement.problem import Model
from placement.survival import cuts

Counts = Mapping[tuple[str, str], int]
"""(model, pool) -> replicas."""

PLANS = 4
"""Placements solved before spare replicas are added."""
ROUNDS = 20
"""Rounds of raising replicas to satisfy the cuts and separating further cuts."""
GAP, NODES = 0.002, 200
SLACK = 1.2
"""A cut is kept for the next problem when its sum is less than this multiple of its right-hand side."""
MISSED_USD = 1e4
"""Penalty of one request per second of a violated row; more than any replica costs."""


def learn_cuts(index: Index, counts: Counts) -> bool:
    """Add to `index.cuts` the cuts that this placement violates, and those that cheap extensions of it would violate.

    Gives whether the placement violated a new one.
    """
    for model in _protected(index):
        if not index.cuts.get(model.name):  # extending an empty placement meets most sets that matter
            _held(index, model, {key: n for key, n in counts.items() if key[0] != model.name}, whole=False)
    learned = {model.name for model in _protected(index) if _held(index, model, counts, whole=False)[1]}
    return bool(learned)


def tight_cuts(index: Index, counts: Counts) -> dict[str, tuple[Cut, ...]]:
    """The known cuts that these replicas satisfy with little slack."""
    kept = {}
    for model in _protected(index):
        options = index.options(model)
        mine = [counts.get((model.name, option.pool.name), 0) for option in options]
        kept[model.name] = tuple(
            cut
            for cut in index.cuts.get(model.name, ())
            for _, terms, lower in cuts.cut_rows(index, model, options, (cut,))
            if sum(term * mine[at] for at, term in terms.items()) < SLACK * lower
        )
    return kept


def with_spares(index: Index, counts: Counts) -> dict[tuple[str, str], int]:
    """The placement with whole replicas added until its cuts hold, as far as devices and limits allow."""
    made = dict(counts)
    for model in _protected(index):
        now, _ = _held(index, model, made, whole=True)
        made |= {(model.name, pool): round(count) for pool, count in now.items() if round(count) > 0}
    return made


def _protected(index: Index) -> list[Model]:
    return [one for one in index.problem.models if one.survive is not None and one.survive_within_fraction > 0.0]


def _held(index: Index, model: Model, counts: Counts, *, whole: bool) -> tuple[dict[str, float], bool]:
    """(pool -> replicas, no fewer than these, that satisfy all cuts if possible; whether a new cut was separated)."""
    now = {one.pool.name: float(counts.get((model.name, one.pool.name), 0)) for one in index.options(model)}
    is_new = False
    for _ in range(ROUNDS):
        short = [one for one in cuts.after_losses(index, model, now) if one.is_short]
        known = index.cuts.get(model.name, ())
        new = {Cut(lost=one.lost, cells=one.cells) for one in short} - set(known)
        if not new and not (whole and short and not is_new):
            break
        is_new = True
        index.cuts[model.name] = (*known, *sorted(new, key=lambda one: (one.lost, sorted(one.cells))))
        now = _raised(index, model, counts, now, whole=whole)
    return now, is_new


def _raised(index: Index, model: Model, counts: Counts, now: Mapping[str, float], *, whole: bool) -> dict[str, float]:
    """The cheapest replicas, nowhere fewer than `now`, that meet all floors as far as possible within the devices and
    limits that other models' `counts` leave."""
    options = index.options(model)
    free = _free(index, model, counts)
    programme = highs.Programme()
    columns = []
    for option in options:
        least = now[option.pool.name]
        most = min(float(option.most), free[option.pool.name] // option.shape.devices)
        usd = option.shape.devices * option.pool.usd_per_device_hour
        columns.append(programme.column(usd, lower=least, upper=max(least, most), integer=whole))
    at = {option.pool.name: column for option, column in zip(options, columns, strict=True)}
    for rule in floors.floors(index, model, options):
        missed = programme.column(MISSED_USD)
        programme.row({**{columns[one]: term for one, term in rule.terms.items()}, missed: 1.0}, lower=rule.lower)
    if model.spot_max_fraction < 1.0:
        terms = {
            column: (1.0 if option.pool.market == "spot" else 0.0) - model.spot_max_fraction
            for option, column in zip(options, columns, strict=True)
        }
        held = sum(term * now[option.pool.name] for option, term in zip(options, terms.values(), strict=True))
        programme.row(terms, upper=max(0.0, held))
    for limit in limits.upper_rules(index):
        terms = {at[pool]: term for (name, pool), term in limit.terms.items() if name == model.name}
        others = sum(term * counts.get(key, 0) for key, term in limit.terms.items() if key[0] != model.name)
        taken = sum(term * now[pool] for (name, pool), term in limit.terms.items() if name == model.name)
        if terms:
            programme.row(terms, upper=max(limit.upper - others, taken))
    found = highs.solve(programme, gap=GAP, node_limit=NODES)
    if found is None:
        return dict(now)
    values = np.round(found.values) if whole else found.values
    return {option.pool.name: float(values[column]) for option, column in zip(options, columns, strict=True)}


def _free(index: Index, model: Model, counts: Counts) -> dict[str, float]:
    """Pool -> devices that other models leave free."""
    taken: dict[str, int] = defaultdict(int)
    for (name, pool), count in counts.items():
        if name != model.name:
            taken[pool] += count * index.models[name].devices_in(index.pools[pool])
    return {one.name: float(one.devices - taken[one.name]) for one in index.problem.pools}
