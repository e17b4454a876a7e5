"""Demand 10 and 30 minutes ahead, rolling: ours beside last value, yesterday, Holt-Winters and conformal margins.

`python -m tests.bench.demand --series FILE` takes any CSV of `t_s` (equal steps) and one column a client. Of the first
half is learnt, and Holt-Winters is tuned on it; every step of the second is an origin. Groups are three random splits
of the clients into eight. Errors are pooled: the sum of absolute errors over the sum of what was to be forecast.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from federation.control.forecast import DAY_S, Floats, Forecaster

Ints = npt.NDArray[np.int64]
DATA = Path(__file__).parents[3] / "shared" / "data" / "llm-traces" / "servegen_m-large_clients.csv"
"""Not part of the project: what uses it does without where it is not there."""
HORIZONS_S = (600, 1_800)
LEVEL = 0.9
CONFORMAL_S = 2 * DAY_S
SPLITS, GROUPS = 3, 8
LEVEL_RATES, SEASON_RATES = (0.2, 0.4, 0.6, 0.8, 0.95), (0.02, 0.05, 0.1, 0.2, 0.4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """What is forecast: `values` [T, N] of steps of `step_s`, and sums of their columns."""

    values: Floats
    step_s: int
    sums: Sequence[Sequence[int]]

    @property
    def all(self) -> Floats:
        """[T, S], the sums behind: first the total, then the groups."""
        added = [self.values[:, list(parts)].sum(axis=1) for parts in self.sums]
        return np.column_stack([self.values, *added])

    @property
    def kinds(self) -> dict[str, slice]:
        clients = self.values.shape[1]
        return {
            "total": slice(clients, clients + 1),
            "groups": slice(clients + 1, clients + len(self.sums)),
            "clients": slice(0, clients),
        }


def grouped(values: Floats, step_s: int) -> Series:
    """With the total and the random groups."""
    rng = np.random.default_rng(1)
    shuffled = [rng.permutation(values.shape[1]) for _ in range(SPLITS)]
    groups = [order[row::GROUPS].tolist() for order in shuffled for row in range(GROUPS)]
    return Series(values=values, step_s=step_s, sums=[range(values.shape[1]), *groups])


def from_file(path: Path) -> Series:
    """Raises click.ClickException where steps are not equal or no two days are there."""
    rows = np.genfromtxt(path, delimiter=",", skip_header=1)
    steps_s = np.unique(np.diff(rows[:, 0]))
    if len(steps_s) != 1:
        raise click.ClickException(f"{path}: steps differ: {steps_s[:5].tolist()} s")
    if rows.shape[0] * steps_s[0] < 4 * DAY_S:
        raise click.ClickException(f"{path}: shorter than four days")
    return grouped(rows[:, 1:], int(steps_s[0]))


def rhythm(step_s: int = 600, days: int = 14, clients: int = 24) -> Series:
    """A clean daily rhythm: two harmonics shifted by client, days that differ by 10 %, the noise of counting."""
    rng = np.random.default_rng(3)
    day = np.arange(days * DAY_S // step_s)[:, None] * step_s / DAY_S
    shift = np.arange(clients) / clients
    shape = 1 + 0.6 * np.sin(2 * np.pi * (day - shift)) + 0.2 * np.sin(4 * np.pi * (day - shift))
    factors = np.exp(0.1 * rng.standard_normal((days + 1, clients)))
    daily = np.column_stack([np.interp(day[:, 0], np.arange(days + 1), factor) for factor in factors.T])
    rps = shape * daily * rng.uniform(5, 50, clients)
    return grouped(rng.poisson(rps * step_s) / step_s * np.exp(0.03 * rng.standard_normal(rps.shape)), step_s)


def ours(series: Series) -> tuple[Floats, Floats]:
    """[H, T, S] forecasts and quantiles by their origin."""
    steps = [horizon_s // series.step_s for horizon_s in HORIZONS_S]
    clients = series.values.shape[1]
    forecaster = Forecaster(clients, step_s=series.step_s, horizons=steps, sums=series.sums, quantiles=(LEVEL,))
    points, quantiles = [], []
    for step, values in enumerate(series.values):
        forecaster.update(step, values)
        points.append(forecaster.points.copy())
        quantiles.append(forecaster.quantiles[0].copy())
    return np.array(points).swapaxes(0, 1), np.array(quantiles).swapaxes(0, 1)


def holt_winters(values: Floats, step_s: int, ahead: Sequence[int], level: float, season: float) -> Floats:
    """[H, T, S]: level and daily season without a trend, begun from the first day; rates per step."""
    slots = DAY_S // step_s
    usual = values[:slots].mean(axis=0)
    now, seasons = values[slots - 1], values[:slots] - usual
    now = now - seasons[-1]
    out = np.zeros((len(ahead), *values.shape))
    for step in range(slots, len(values)):
        seen, slot = values[step], step % slots
        now = now + level * (seen - seasons[slot] - now)
        seasons[slot] += season * (seen - now - seasons[slot])
        for row, steps in enumerate(ahead):
            out[row, step] = np.maximum(0, now + seasons[(step + steps) % slots])
    return out


def _conformal(told: Floats, values: Floats, ahead: int, origins: Ints, step_s: int) -> Floats:
    """[origins, S], forecasts and the margin that held of those of the last two days."""
    off = values[ahead:] - told[:-ahead]
    kept = CONFORMAL_S // step_s
    margins = []
    for origin in origins:
        known = origin - ahead + 1
        margins.append(np.quantile(off[max(0, known - kept) : known], LEVEL, axis=0))
    return np.asarray(told[origins] + np.array(margins))


def _pinball(told: Floats, seen: Floats) -> Floats:
    return np.asarray(np.maximum(LEVEL * (seen - told), (LEVEL - 1) * (seen - told)))


def compare(name: str, series: Series) -> Iterator[dict[str, object]]:
    """A line for each horizon and kind of series."""
    values, step_s = series.all, series.step_s
    half = len(values) // 2
    day = DAY_S // step_s
    steps = [horizon_s // step_s for horizon_s in HORIZONS_S]
    began_s = time.process_time()
    points, quantiles = ours(series)
    update_ms = (time.process_time() - began_s) / len(values) * 1e3
    tried = {
        rates: holt_winters(values, step_s, steps, *rates) for rates in itertools.product(LEVEL_RATES, SEASON_RATES)
    }
    for row, ahead in enumerate(steps):
        origins = np.arange(half - ahead, len(values) - ahead)
        learnt = np.arange(2 * day, half - ahead)
        seen = values[origins + ahead]
        last_conformal = _conformal(values, values, ahead, origins, step_s)
        for kind, columns in series.kinds.items():
            load = seen[:, columns].sum()

            def off(told: Floats, columns: slice = columns, seen: Floats = seen, load: float = load) -> float:
                return float(np.abs(told[:, columns] - seen[:, columns]).sum() / load)

            def pinball(told: Floats, columns: slice = columns, seen: Floats = seen, load: float = load) -> float:
                return float(_pinball(told[:, columns], seen[:, columns]).sum() / load)

            def week_one(told: Floats, columns: slice = columns, learnt: Ints = learnt, ahead: int = ahead) -> float:
                return float(np.abs(told[learnt][:, columns] - values[learnt + ahead][:, columns]).sum())

            rates = min(tried, key=lambda rates: week_one(tried[rates][row]))
            smoothed = tried[rates][row]
            found = {
                "last": off(values[origins]),
                "yesterday": off(values[origins + ahead - day]),
                "holt_winters": off(smoothed[origins]),
                "ours": off(points[row][origins]),
            }
            naive = min(found["last"], found["yesterday"])
            margins = {
                "last_conformal": pinball(last_conformal),
                "holt_winters_conformal": pinball(_conformal(smoothed, values, ahead, origins, step_s)),
                "ours": pinball(quantiles[row][origins]),
            }
            covered = (seen <= quantiles[row][origins])[:, columns].mean()
            yield {
                "series": name,
                "minutes": ahead * step_s // 60,
                "kind": kind,
                "error": {key: round(value, 4) for key, value in found.items()},
                "ours_to_better_naive_pct": round(100 * (found["ours"] / naive - 1), 1),
                "ours_to_best_pct": round(100 * (found["ours"] / min(naive, found["holt_winters"]) - 1), 1),
                "pinball": {key: round(value, 4) for key, value in margins.items()},
                "pinball_to_last_conformal_pct": round(100 * (margins["ours"] / margins["last_conformal"] - 1), 1),
                "coverage": round(float(covered), 3),
                "update_ms_cpu": round(update_ms, 2),
            }


def cost(series: int = 1_000, step_s: int = 60, updates: int = 600) -> dict[str, object]:
    """What an update costs once every ring is full."""
    forecaster = Forecaster(series, step_s=step_s, horizons=[s // step_s for s in HORIZONS_S])
    values = np.random.default_rng(0).gamma(2, 5, (updates, series))
    took_ms = []
    for step, row in enumerate(values):
        began_s = time.process_time()
        forecaster.update(step, row)
        took_ms.append((time.process_time() - began_s) * 1e3)
    settled = took_ms[updates // 2 :]
    return {
        "series": f"{series} random",
        "update_ms_cpu_p50": round(float(np.median(settled)), 2),
        "update_ms_cpu_p99": round(float(np.quantile(settled, 0.99)), 2),
    }


def demand() -> Iterator[dict[str, object]]:
    """The service's clients where they are there, a clean rhythm, and what an update costs."""
    if DATA.is_file():
        yield from compare(DATA.stem, from_file(DATA))
    else:
        yield {"series": DATA.stem, "skipped": "not on this machine"}
    yield from compare("rhythm", rhythm())
    yield cost()


@click.command()
@click.option("--series", "path", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
def main(path: Path) -> None:
    """Compare on the clients of a file."""
    for result in compare(path.stem, from_file(path)):
        click.echo(json.dumps(result))


if __name__ == "__main__":
    main()
