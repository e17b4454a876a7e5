"""A policy with a budget, while prices rise: what it spends, and what people are told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.testbed.fleet import POOL, Fleet
from tests.testbed.small_world import MODEL, PLACES, POLICY

BUDGET = 7.0
DEARER = 1.8
LIMITED: dict[str, Any] = {**POLICY, "spec": {**POLICY["spec"], "budget": {"maxUsdPerHour": BUDGET}}}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet of its own, settled within its budget."""
    with Fleet(tmp_path) as made:
        assert made.apply("chat.yaml", MODEL, LIMITED)[0] == 200
        made.until(made.is_settled, "placement")
        yield made


def usd_per_hour(fleet: Fleet, times: float) -> float:
    """What all that runs in the clusters costs, asked of the clusters themselves."""
    ready = fleet.do(lambda: {name: sum(backend.ready().values()) for name, backend in fleet.backends.items()})
    return sum(count * times * PLACES[name][4] for name, count in ready.items())


def test_prices_that_rise_bring_a_policy_down_to_its_budget(fleet: Fleet) -> None:
    """The federation would spend what policy forbids for as long as prices stay high, and say nothing of it."""
    assert 0.5 * BUDGET < usd_per_hour(fleet, 1.0) <= BUDGET
    assert fleet.get("/v1/plans")["items"][0]["limits"] == []
    assert usd_per_hour(fleet, DEARER) > BUDGET
    for name, place in PLACES.items():
        pool = msgspec.structs.replace(POOL, usd_per_device_hour=DEARER * place[4])
        fleet.do(lambda name=name, pool=pool: fleet.backends[name].set_pools((pool,)))  # type: ignore[misc]
    fleet.until(lambda: usd_per_hour(fleet, DEARER) <= BUDGET, "fewer replicas")
    [model] = fleet.get("/v1/models")["items"]
    assert model["replicas_ready"] >= 3, "the floor holds within the budget"
    assert any(text.startswith("policy chat spends") for text in model["reasons"]), model["reasons"]
    plans = fleet.get("/v1/plans?limit=50")["items"]
    assert any("its budget is 7.00" in one["summary"] for one in plans), [one["summary"] for one in plans]
    assert any("maxUsdPerHour 7.00" in text for text in plans[0]["limits"]), plans[0]["limits"]
    told = fleet.get("/v1/explain/placement/chat-8b")
    assert "maxUsdPerHour 7.00" in told["summary"]
    assert any("raise budget.maxUsdPerHour of chat" in text for text in told["unserved"]), told["unserved"]
