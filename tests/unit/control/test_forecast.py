"""The forecast of demand: plans that look ahead are as good as this."""

from __future__ import annotations

import numpy as np
import pytest

from federation.control.forecast import Floats, Forecaster


def run(values: Floats, *, step_s: int = 600, horizon: int = 3) -> tuple[Floats, Floats]:
    """[T, S] forecasts and 0.9 quantiles by their origin; the last column is the sum of all."""
    clients = values.shape[1]
    forecaster = Forecaster(clients, step_s=step_s, horizons=[horizon], sums=[range(clients)])
    points, quantiles = [], []
    for step, row in enumerate(values):
        forecaster.update(step, row)
        points.append(forecaster.points[0].copy())
        quantiles.append(forecaster.quantiles[0, 0].copy())
    return np.array(points), np.array(quantiles)


def test_no_forecast_knows_what_comes_after() -> None:
    """A forecast that looks ahead in a test is worse than none in a fleet."""
    values = np.random.default_rng(1).gamma(3, 5, (500, 4))
    other = values.copy()
    other[400:] *= 7
    for told, differs in zip(run(values), run(other), strict=True):
        np.testing.assert_array_equal(told[:400], differs[:400])
        assert not np.array_equal(told[400:], differs[400:])


def test_steady_traffic_is_forecast_as_it_is() -> None:
    """Users whose traffic does not change would pay for capacity that nobody needs."""
    points, quantiles = run(np.full((300, 3), 40.0))
    np.testing.assert_allclose(points[-1], [40, 40, 40, 120], rtol=1e-6)
    assert np.all(quantiles[-1] <= points[-1] * 1.05)


def test_nothing_asked_for_is_nothing_forecast() -> None:
    """A model without users would be given replicas, or a division by zero would stop the plan."""
    points, quantiles = run(np.zeros((50, 2)))
    assert not points.any()
    assert not quantiles.any()


@pytest.mark.parametrize("step_s", [60, 600, 1_200])
def test_a_daily_rhythm_is_learnt(step_s: int) -> None:
    """Each morning's rise would find replicas still loading."""
    day = 86_400 // step_s
    rng = np.random.default_rng(2)
    phase = np.arange(4 * day)[:, None] / day + np.array([0.0, 0.3])
    days = np.interp(phase[:, 0], range(5), (1.0, 1.2, 0.9, 1.1, 0.95))[:, None]
    values = rng.poisson(days * (2 + np.sin(2 * np.pi * phase)) * 20 * step_s) / step_s
    horizon = max(1, 1_800 // step_s)
    points, quantiles = run(values, step_s=step_s, horizon=horizon)
    origins = np.arange(3 * day, 4 * day - horizon)
    seen = values[origins + horizon]
    ours = np.abs(points[origins, :2] - seen).sum()
    naive = min(np.abs(values[origins] - seen).sum(), np.abs(values[origins + horizon - day] - seen).sum())
    assert ours < 0.85 * naive
    assert (seen <= quantiles[origins, :2]).mean() > 0.8


def test_a_quantile_covers_what_it_says() -> None:
    """Who asks for nine in ten would be short more often, or pay for more than that."""
    values = np.random.default_rng(3).gamma(4, 5, (2_000, 8))
    _, quantiles = run(values)
    assert 0.87 < (values[1_003:, :] <= quantiles[1_000:-3, :8]).mean() < 0.94


def test_higher_quantiles_lie_higher() -> None:
    """A policy that asks for more safety would get less."""
    forecaster = Forecaster(3, step_s=600, horizons=[1, 3], quantiles=(0.5, 0.9, 0.97))
    for step, row in enumerate(np.random.default_rng(4).gamma(4, 5, (800, 3))):
        forecaster.update(step, row)
    half, nine, most = forecaster.quantiles.mean(axis=(1, 2))
    assert half < nine < most


@pytest.mark.parametrize("wrong", [{"step_s": 7}, {"step_s": 900}, {"horizons": [0]}, {"quantiles": [0.2]}])
def test_what_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    """A wrong step would silently mix times of day."""
    with pytest.raises(ValueError):
        Forecaster(1, **{"step_s": 600, "horizons": [1], **wrong})  # type: ignore[arg-type]
