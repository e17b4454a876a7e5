"""The world: ties of countries, and what must always hold of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from federation.state import world as worlds
from federation.state.world import Timing
from tests.builders import a_report, a_world, heard


def test_a_tie_is_in_each_of_its_countries() -> None:
    """Residency of one of two countries that front doors name would not hold."""
    assert set(worlds.countries("DE/US")) == {"DE", "US"}
    assert set(worlds.countries(worlds.undecided(["US", "DE"]))) == {"DE", "US"}


def test_a_world_with_a_cluster_under_another_name_is_caught() -> None:
    """A fault in the code would let one cluster be planned with another's devices."""
    world = heard(a_world("fra", "iad"), a_report("fra"))
    worlds.validate(world)
    wrong = world.with_clusters({"fra": replace(world.clusters["iad"], name="iad")})
    with pytest.raises(AssertionError):
        worlds.validate(wrong)


def test_times_stand_in_their_order() -> None:
    """A cluster would be lost before it is overdue, or an agent replaced before it is silent."""
    timing = Timing()
    assert timing.report_interval_s < timing.session_after_s < timing.overdue_after_s < timing.stale_after_s
    assert timing.steady_after_s(0) < timing.steady_after_s(3)
