"""What scarce things are worth, and the lower bound that prices prove.

Any prices at all give a valid bound (weak duality), so they may come from anywhere; see `large` for where good ones do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from placement.large.arrays import Floats, Ints, World, served_usd


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """USD per hour, all at least zero.

    `device`: [P] of one more device. `capacity`: [N] of one more request per second. `rule`: [R] of one less in a rule.
    `start`: [M] of one more start in the budget. `away`: [C] of one more request per second that may leave.
    """

    device: Floats
    capacity: Floats
    rule: Floats
    start: Floats
    away: Floats


def none(world: World) -> Prices:
    """Nothing is scarce: each node's capacity costs what its cheapest device does."""
    zeros = np.zeros(len(world.node_model))
    prices = Prices(
        device=np.zeros(len(world.pool_devices)),
        capacity=zeros,
        rule=np.zeros(len(world.rule_lower)),
        start=np.zeros(len(world.service_ms)),
        away=np.zeros(len(world.cap_rps)),
    )
    return raised(world, prices)


def option_usd(world: World, prices: Prices) -> Floats:
    """[O] what a replica costs with the devices that it takes from others and the rules that it helps to keep."""
    usd = world.option_usd + prices.device[world.option_pool] * world.option_devices
    weights = prices.rule[world.rule_of] * world.rule_term
    return usd - np.bincount(world.rule_option, weights=weights, minlength=len(usd))


def raised(world: World, prices: Prices) -> Prices:
    """The same, with each node's capacity at no less than its cheapest device costs: a better bound."""
    cheapest = np.full(len(world.node_model), np.inf)
    np.minimum.at(cheapest, world.option_node, option_usd(world, prices) / world.option_rps)
    capacity = np.maximum(prices.capacity, np.where(np.isfinite(cheapest), np.maximum(0.0, cheapest), np.inf))
    return replace(prices, capacity=capacity)


def bound_usd(world: World, prices: Prices) -> float:
    """What these prices prove: no plan that keeps every rule with a price costs less."""
    base = option_usd(world, prices) - prices.capacity[world.option_node] * world.option_rps
    start = world.option_start_usd + prices.start[world.option_model]

    def term(count: Ints) -> Floats:
        cost: Floats = base * count + start * np.maximum(0, count - world.option_current)
        return cost

    now = np.clip(world.option_current, world.option_least, world.option_most)
    kept = np.minimum(np.minimum(term(world.option_least), term(world.option_most)), term(now)).sum()
    stock = np.maximum(world.pool_devices, world.used_devices(world.option_least))
    budget = prices.start * np.where(np.isfinite(world.max_starts), world.max_starts, 0.0)
    fixed = -(prices.device * stock).sum() + (prices.rule * world.rule_lower).sum() - budget.sum()
    fixed -= (prices.away * world.cap_rps).sum()
    return float(kept + fixed) + served_usd(world, prices.capacity, prices.away)
