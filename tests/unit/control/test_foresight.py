"""The forecast of a whole fleet's demand, as series come and go."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from immutables import Map

from federation.control.forecast import Forecaster
from federation.control.foresight import HORIZONS, LEARNING, Foreseer
from federation.state.keys import ModelCell
from federation.state.world import CellDemand, World
from tests.builders import a_world


def asked(world: World, **rps: float) -> World:
    """The world in which these cells ask for chat, counted at fra."""
    demand = {
        ModelCell(("chat", cell)): CellDemand(requests_per_second=value, reporter="fra", counts=(("fra", value),))
        for cell, value in rps.items()
    }
    return replace(world, demand=Map(demand))


def test_steady_users_are_expected_to_stay() -> None:
    """Replicas would be paid for users who do not come."""
    foreseer, world = Foreseer(), a_world("fra", "iad")
    for step in range(LEARNING + 5):
        found = foreseer.look(asked(world, Bonn=30.0, Trier=10.0), step)
    assert found.expected["chat", "fra"] == pytest.approx(dict.fromkeys(HORIZONS, 1.0))


def test_a_start_says_nothing_in_its_first_hour() -> None:
    """A controller that has just started would plan by its own ignorance."""
    foreseer, world = Foreseer(), a_world("fra")
    found = [foreseer.look(asked(world, Bonn=30.0), step) for step in range(LEARNING)]
    assert not any(one.expected for one in found[:-1])
    assert found[-1].expected


def test_a_new_series_changes_nothing_of_those_that_are_known() -> None:
    """One new model would make the fleet forget what it learnt."""
    values = np.random.default_rng(1).gamma(4, 5, (400, 3))
    alone = Forecaster(2, step_s=600, horizons=[1, 3], sums=[[0, 1]])
    grown = Forecaster(2, step_s=600, horizons=[1, 3], sums=[[0, 1]])
    for step, row in enumerate(values):
        alone.update(step, row[:2])
        if step == 200:
            grown = grown.resized([0, None, 1], [[0, 2]])
        grown.update(step, row[:2] if step < 200 else np.array([row[0], row[2], row[1]]))
    np.testing.assert_allclose(grown.points[:, [0, 2, 3]], alone.points)
    np.testing.assert_allclose(grown.quantiles[..., [0, 2, 3]], alone.quantiles)


def test_a_forecaster_of_nothing_grows() -> None:
    """A controller without users would never forecast any."""
    empty = Forecaster(0, step_s=60, horizons=[10])
    empty.update(0, np.zeros(0))
    grown = empty.resized([None], [[0]])
    for step in range(1, 40):
        grown.update(step, np.array([5.0]))
    np.testing.assert_allclose(grown.points, 5.0, rtol=0.01)
