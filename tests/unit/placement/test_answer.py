"""From rates to flows by name."""

from __future__ import annotations

import pytest

from placement.answer import rounded_flows
from placement.index import Index
from tests.unit.placement.test_costs import MODEL, PROBLEM


def test_a_cell_is_never_served_more_than_it_asks_for() -> None:
    """Rounding would send requests that do not exist, and the verifier would refuse the plan."""
    flows, missing = rounded_flows(Index(PROBLEM), MODEL, {("u", "c"): 4.0000004})
    assert [one.requests_per_second for one in flows] == [4.0] and missing == {}


def test_dust_is_no_flow_and_what_is_missing_is_told() -> None:
    """Gateways would hold routes for a millionth of a request, or users be lost from the account."""
    assert rounded_flows(Index(PROBLEM), MODEL, {("u", "c"): 1e-7}) == ([], {"u": 4.0})
    [only], missing = rounded_flows(Index(PROBLEM), MODEL, {("u", "c"): 3.0})
    assert (only.latency_ms, only.within_objective) == (10.0, True)
    assert missing == {"u": pytest.approx(1.0)}
