"""Dual prices of the scarce resources, and the Lagrangian lower bound that they prove over every pair.

By weak duality any non-negative duals give a valid bound: the capacity, device, rule, budget and cap rows are relaxed,
and what is left separates by group and by option. `plan` takes good duals from the master.

Source: Geoffrion, Lagrangean relaxation for integer programming, Mathematical Programming Study 2 (1974).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from placement.large.arrays import Arrays, Floats, Ints, served_usd


@dataclass(frozen=True, slots=True, kw_only=True)
class Duals:
    """USD per hour, all at least zero.

    `device` [P]: one more device. `capacity` [N]: one more request per second of capacity. `rule` [R]: a right-hand
    side lower by one. `start` [M]: one more start in the budget. `away` [C]: one more request per second in the cap.
    """

    device: Floats
    capacity: Floats
    rule: Floats
    start: Floats
    away: Floats


def none(arrays: Arrays) -> Duals:
    """Zero duals, but that each node's capacity costs what its cheapest replica does."""
    zeros = np.zeros(len(arrays.node_model))
    prices = Duals(
        device=np.zeros(len(arrays.pool_devices)),
        capacity=zeros,
        rule=np.zeros(len(arrays.rule_lower)),
        start=np.zeros(len(arrays.service_ms)),
        away=np.zeros(len(arrays.cap_rps)),
    )
    return raised(arrays, prices)


def option_usd(arrays: Arrays, prices: Duals) -> Floats:
    """[O] USD per hour of a replica with the duals of its devices, less those of the rules that it helps to meet."""
    usd = arrays.option_usd + prices.device[arrays.option_pool] * arrays.option_devices
    weights = prices.rule[arrays.rule_of] * arrays.rule_term
    return usd - np.bincount(arrays.rule_option, weights=weights, minlength=len(usd))


def raised(arrays: Arrays, prices: Duals) -> Duals:
    """The same with each node's capacity at no less than its cheapest replica costs, which improves the bound."""
    cheapest = np.full(len(arrays.node_model), np.inf)
    np.minimum.at(cheapest, arrays.option_node, option_usd(arrays, prices) / arrays.option_rps)
    capacity = np.maximum(prices.capacity, np.where(np.isfinite(cheapest), np.maximum(0.0, cheapest), np.inf))
    return replace(prices, capacity=capacity)


def bound_usd(arrays: Arrays, prices: Duals) -> float:
    """The Lagrangian bound: no plan that meets every rule with a positive dual costs less."""
    base = option_usd(arrays, prices) - prices.capacity[arrays.option_node] * arrays.option_rps
    start = arrays.option_start_usd + prices.start[arrays.option_model]

    def term(count: Ints) -> Floats:
        cost: Floats = base * count + start * np.maximum(0, count - arrays.option_current)
        return cost

    now = np.clip(arrays.option_current, arrays.option_least, arrays.option_most)
    kept = np.minimum(np.minimum(term(arrays.option_least), term(arrays.option_most)), term(now)).sum()
    stock = np.maximum(arrays.pool_devices, arrays.used_devices(arrays.option_least))
    budget = prices.start * np.where(np.isfinite(arrays.max_starts), arrays.max_starts, 0.0)
    fixed = -(prices.device * stock).sum() + (prices.rule * arrays.rule_lower).sum() - budget.sum()
    fixed -= (prices.away * arrays.cap_rps).sum()
    return float(kept + fixed) + served_usd(arrays, prices.capacity, prices.away)
