"""What replicas can serve, and the load above the target utilisation."""

from __future__ import annotations

from dataclasses import replace

import pytest

from placement.capacity import capacity_of, devices_used, overload_rps, with_room
from placement.index import Index
from tests.unit.placement.test_costs import KEY, MODEL, PROBLEM, flow


def test_a_plan_counts_on_the_target_utilisation_and_routing_on_the_rest_too() -> None:
    """Replicas would be planned full, and the first burst would go unserved."""
    usable, beyond = capacity_of(Index(PROBLEM), MODEL, {KEY: 3})
    assert usable == {"c": pytest.approx(24.0)} and beyond == {"c": pytest.approx(6.0)}


def test_replicas_that_no_longer_fit_hold_a_device_and_serve_nothing() -> None:
    """Their devices would be planned twice, or users sent to replicas that are to stop."""
    other = replace(MODEL, shapes=(replace(MODEL.shapes[0], product="B"),))
    index = Index(replace(PROBLEM, models=(other,)))
    assert capacity_of(index, other, {KEY: 3}) == ({}, {})
    assert devices_used(index, {KEY: 3}) == {KEY[1]: 3}


def test_load_above_the_target_is_overload_and_rounding_is_not() -> None:
    """A cluster would be called overloaded for a millionth of a request, or never."""
    index = Index(PROBLEM)
    assert overload_rps(index, MODEL, {KEY: 1}, [flow(8.00001, 20.0)]) == {}
    assert overload_rps(index, MODEL, {KEY: 1}, [flow(9.0, 20.0)]) == {"c": pytest.approx(1.0)}


def test_a_full_cluster_has_no_room() -> None:
    """People would be told that a cluster has room which it has not."""
    assert with_room({"c": 8.0, "d": 4.0}, {"d": 1.0}, [flow(8.0, 20.0)]) == {"d"}
