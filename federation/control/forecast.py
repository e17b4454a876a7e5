"""Demand some minutes ahead: a mixture of cheap forecasters, re-weighted by how each did of late.

One number a series and step comes in; for each horizon a forecast and quantiles come out. No series needs a model of
its own: members that suit steady, daily, hourly or bursty traffic all run, and a series' recent errors choose. A sum of
series is forecast half directly, half as the sum of its parts, which is better than either.

Shapes: N series and G sums of them make S = N + G columns, the sums last; H horizons, Q quantiles, K members,
C candidates for a quantile. Values are of any unit and not negative.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

DAY_S = 86_400
HOUR_S = 3_600
COARSE_S = 600
"""Noise below ten minutes is no season: seasons and medians work on values so far apart, or on steps if those are."""
SMOOTH_S, FAST_S = 900, 300
PROFILE_NEAR_S = 900
PROFILE_RATE = 0.4
"""A day's weight in the daily profile."""
RATIO_MOST = 4.0
SEASONAL_RATES = ((0.8, 0.1), (0.3, 0.2))
"""Of level and season, in ten minutes: for traffic that wanders, and for a clean rhythm."""
MEDIAN_S = 7_200
MEMORY_S = 60_000
"""How long an error counts against a member: the time constant of its decay."""
SHARPNESS, QUANTILE_SHARPNESS = 20.0, 10.0
"""What being worse than the best costs a member: the exponent per relative excess of its loss."""
SPREADS = np.array((0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0))
SPREAD_MEMORIES_S = (6 * HOUR_S, HOUR_S)
SPREAD_FLOOR = 0.05
MARKUPS = (1.1, 1.3)
MAXIMA_S = (HOUR_S, 2 * HOUR_S, 6 * HOUR_S)
MARGIN_RATE = 0.05
_TINY = 1e-12


class Forecaster:
    """Streams series of one step length; an update takes about a millisecond for 1,000 of them."""

    points: Floats
    """[H, S], the forecast of the value at each horizon."""
    quantiles: Floats
    """[Q, H, S], what the value stays below with that probability."""

    def __init__(
        self,
        series: int,
        *,
        step_s: int,
        horizons: Sequence[int],
        sums: Sequence[Sequence[int]] = (),
        quantiles: Sequence[float] = (0.9,),
    ) -> None:
        """`horizons` in steps; each of `sums` names the series that it adds up.

        Raises ValueError where a step is neither a part nor a multiple of ten minutes that divides the day, a horizon
        is below one step, or a quantile is not in [0.5, 1).
        """
        if DAY_S % step_s or (COARSE_S % step_s and step_s % COARSE_S):
            raise ValueError(f"a step of {step_s} s is neither a part nor a multiple of ten minutes")
        if not horizons or min(horizons) < 1:
            raise ValueError("a horizon is one step at least")
        if any(not 0.5 <= level < 1 for level in quantiles):
            raise ValueError("a quantile is in [0.5, 1)")
        self.step_s = step_s
        self._steps, self._quantiles = tuple(horizons), tuple(quantiles)
        self._sums = np.zeros((len(sums), series))
        for row, parts in enumerate(sums):
            self._sums[row, list(parts)] = 1.0
        width = series + len(sums)
        self._series = series
        self._past = _Past(width, step_s)
        self._horizons = [_Horizon(steps, step_s, series, self._sums, quantiles) for steps in horizons]
        self.points = np.zeros((len(horizons), width))
        self.quantiles = np.zeros((len(quantiles), len(horizons), width))

    def update(self, step: int, values: Floats) -> None:
        """Take what was seen in a step, [N], and forecast from there. `step` counts from midnight UTC of any day."""
        seen = np.concatenate([values, self._sums @ values])
        for horizon in self._horizons:
            horizon.score(seen)
        self._past.take(step, seen)
        for row, horizon in enumerate(self._horizons):
            self.points[row], self.quantiles[:, row] = horizon.forecast(step, self._past)

    def resized(self, origins: Sequence[int | None], sums: Sequence[Sequence[int]] = ()) -> Forecaster:
        """The forecaster of other series: for each the column of this one that it goes on from, or None for a new one.

        Sums go on from the sum at the same place, as far as there are any.
        """
        made = Forecaster(len(origins), step_s=self.step_s, horizons=self._steps, sums=sums, quantiles=self._quantiles)
        kept = min(len(sums), len(self._sums))
        columns: list[int | None] = [*origins, *(self._series + row for row in range(kept))]
        columns += [None] * (len(sums) - kept)
        made._past = self._past.taken(columns)
        made._horizons = [one.taken(columns, len(origins), made._sums) for one in self._horizons]
        made.points, made.quantiles = _columns(self.points, columns), _columns(self.quantiles, columns)
        return made


def _columns(values: Floats, columns: Sequence[int | None]) -> Floats:
    """These of the last axis; 0 where there is none."""
    if not values.shape[-1]:
        return np.zeros((*values.shape[:-1], len(columns)))
    wanted = np.array([-1 if one is None else one for one in columns])
    return np.where(wanted >= 0, values[..., wanted], 0.0)


class _Past:
    """What members need of what was seen; all of shape [.., S]."""

    def __init__(self, width: int, step_s: int) -> None:
        self.step_s = step_s
        self.slots = DAY_S // step_s
        self.stride = max(1, COARSE_S // step_s)
        self.kept = np.zeros((6 * HOUR_S // step_s + 1, width))
        self.count = 0
        self.now = self.smooth = self.fast = np.zeros(width)
        self.level = np.zeros((len(SEASONAL_RATES), width))
        self.daily = np.zeros((self.slots, width))
        self.known = np.zeros(self.slots, dtype=bool)
        self.season = np.zeros((len(SEASONAL_RATES), self.slots // self.stride, width))
        self.peaks = np.zeros((max(MAXIMA_S) // max(COARSE_S, step_s), width))
        self.median = np.zeros(width)
        self.maxima = np.zeros((len(MAXIMA_S), width))

    def taken(self, columns: Sequence[int | None]) -> _Past:
        """The same of these series."""
        made = copy.copy(self)
        for name in ("kept", "now", "smooth", "fast", "level", "daily", "season", "peaks", "median", "maxima"):
            setattr(made, name, _columns(getattr(self, name), columns))
        made.known = self.known.copy()
        return made

    def take(self, step: int, seen: Floats) -> None:
        if self.count == 0:
            self.smooth = self.fast = seen
            self.level[:] = seen
        slot = step % self.slots
        coarse = slot // self.stride
        self.now = seen
        self.kept[self.count % len(self.kept)] = seen
        self.count += 1
        self.median = np.median(self._strided(MEDIAN_S), axis=0)
        self._peak(coarse, seen, fresh=slot % self.stride == 0)
        self.smooth = self.smooth + _rate(self.step_s, SMOOTH_S) * (seen - self.smooth)
        self.fast = self.fast + _rate(self.step_s, FAST_S) * (seen - self.fast)
        self.daily[slot] += (PROFILE_RATE if self.known[slot] else 1.0) * (seen - self.daily[slot])
        self.known[slot] = True
        if self.count == self.slots:
            self._begin_season(coarse)
        for row, rates in enumerate(SEASONAL_RATES):
            of_level, of_season = (1 - (1 - rate) ** (self.step_s / COARSE_S) for rate in rates)
            season = self.season[row, coarse]
            self.level[row] += of_level * (seen - season - self.level[row])
            season += of_season * (seen - self.level[row] - season)

    def _begin_season(self, coarse: int) -> None:
        """From the first whole day; errors alone would take weeks to make one."""
        by_season = self.daily.reshape(-1, self.stride, self.daily.shape[1]).mean(axis=1)
        self.season[:] = by_season - by_season.mean(axis=0)
        self.level[:] = self.now - self.season[:, coarse]

    def ago(self, steps: int) -> Floats:
        """[S], what was seen so many steps ago, or the oldest that is kept."""
        back = min(steps, self.count - 1, len(self.kept) - 1)
        kept: Floats = self.kept[(self.count - 1 - back) % len(self.kept)]
        return kept

    def _strided(self, span_s: int) -> Floats:
        """[.., S], of what was seen within so long every ten minutes' value."""
        steps = min(max(1, span_s // self.step_s), self.count)
        rows: Floats = self.kept[(self.count - 1 - np.arange(0, steps, self.stride)) % len(self.kept)]
        return rows

    def _peak(self, coarse: int, seen: Floats, *, fresh: bool) -> None:
        row = coarse % len(self.peaks)
        self.peaks[row] = seen if fresh else np.maximum(self.peaks[row], seen)
        for index, span_s in enumerate(MAXIMA_S):
            back = max(1, span_s // max(COARSE_S, self.step_s))
            self.maxima[index] = self.peaks[(row - np.arange(back)) % len(self.peaks)].max(axis=0)

    def usual(self, step: int) -> Floats:
        """[S], the daily profile there, of the slots around that are known; what is seen where none is."""
        near = PROFILE_NEAR_S // self.step_s
        around = np.arange(step - near, step + near + 1) % self.slots
        around = around[self.known[around]]
        return self.daily[around].mean(axis=0) if around.size else self.now


class _Horizon:
    """The members' forecasts so many steps ahead, what they were off, and what follows."""

    def __init__(self, steps: int, step_s: int, series: int, sums: Floats, levels: Sequence[float]) -> None:
        width = series + len(sums)
        self.steps, self.step_s, self.series, self.sums = steps, step_s, series, sums
        self.levels = np.array(levels)
        self.loss = np.zeros(0)
        self.missed = np.zeros(0)
        self.spread = np.zeros((len(SPREAD_MEMORIES_S), width))
        self.scored = 0
        self.margin = np.zeros((2, len(levels), width))
        self.told: deque[tuple[Floats, Floats, Floats, Floats]] = deque()

    def taken(self, columns: Sequence[int | None], series: int, sums: Floats) -> _Horizon:
        """The same of these series."""
        made = copy.copy(self)
        made.series, made.sums = series, sums
        for name in ("loss", "missed", "spread", "margin"):
            values = getattr(self, name)
            setattr(made, name, _columns(values, columns) if values.size else values)
        if not self.spread.size:
            made.spread, made.margin = _columns(self.spread, columns), _columns(self.margin, columns)
        made.told = deque(tuple(_columns(one, columns) for one in told) for told in self.told)  # type: ignore[misc]
        return made

    def score(self, seen: Floats) -> None:
        """Learn from what was forecast for this step, if anything was."""
        if len(self.told) < self.steps:
            return
        members, point, spread, candidates = self.told.popleft()
        kept = np.exp(-self.step_s / MEMORY_S)
        self.loss = kept * self.loss + np.abs(members - seen)
        under = seen - candidates
        levels = self.levels[:, None, None]
        self.missed = kept * self.missed + np.maximum(levels * under, (levels - 1) * under)
        off = np.abs(seen - point)
        for row, memory_s in enumerate(SPREAD_MEMORIES_S):
            rate = 1.0 if self.scored == 0 else _rate(self.step_s, memory_s)
            self.spread[row] += rate * (off - self.spread[row])
        self.scored += 1
        for row, scale in enumerate((self.spread[0], spread)):
            beyond = (seen - point) > self.margin[row] * (1.0 if row == 0 else scale)
            unit = scale if row == 0 else 1.0
            self.margin[row] += MARGIN_RATE * unit * (beyond - (1 - self.levels[:, None]))

    def forecast(self, step: int, past: _Past) -> tuple[Floats, Floats]:
        """[S] and [Q, S]."""
        members = self._members(step, past)
        if not self.loss.size:
            self.loss = np.zeros_like(members)
        mixed = (_weights(self.loss, SHARPNESS) * members).sum(axis=0)
        point = mixed.copy()
        point[self.series :] = (mixed[self.series :] + self.sums @ mixed[: self.series]) / 2
        spread = self.spread + SPREAD_FLOOR * point
        candidates = self._candidates(members, point, spread, past)
        if not self.missed.size:
            self.missed = np.zeros((len(self.levels), *candidates.shape[1:]))
        quantiles = (_weights(self.missed, QUANTILE_SHARPNESS) * candidates).sum(axis=1)
        self.told.append((members, point, spread[0], candidates))
        return point, quantiles

    def _members(self, step: int, past: _Past) -> Floats:
        """[K, S]."""
        then, usual = past.usual(step + self.steps), past.usual(step)
        to = (step + self.steps) % past.slots // past.stride
        recent = past.fast if self.step_s < COARSE_S else past.now
        hours = -(-self.steps * self.step_s // HOUR_S) * HOUR_S // self.step_s
        ratio = np.minimum(then / np.maximum(usual, _TINY), RATIO_MOST)
        rows = [
            past.now,
            past.smooth,
            recent + then - usual,
            past.smooth * ratio,
            past.ago(max(0, hours - self.steps)),
            past.median,
            *(past.level + past.season[:, to]),
        ]
        if self.step_s < COARSE_S:
            rows.append(past.fast)
        members: Floats = np.maximum(0.0, np.array(rows))
        return members

    def _candidates(self, members: Floats, point: Floats, spread: Floats, past: _Past) -> Floats:
        """[Q, C, S]."""
        shared = [point + z * scale for scale in spread for z in SPREADS]
        shared += [members[row] + z * spread[0] for row, z in ((0, 1.0), (1, 1.0), (6, 1.0))]
        shared += [point * up for up in MARKUPS]
        common = np.array([*shared, *past.maxima])
        own = np.stack([point + self.margin[0], point + self.margin[1] * spread[0]], axis=1)
        return np.concatenate([np.broadcast_to(common, (len(self.levels), *common.shape)), own], axis=1)


def _rate(step_s: float, memory_s: float) -> float:
    """The weight of a new value in an average that forgets with this time constant."""
    return float(1 - np.exp(-step_s / memory_s))


def _weights(loss: Floats, sharpness: float) -> Floats:
    """Of losses along the last axis but one; they add up to 1."""
    least = loss.min(axis=-2, keepdims=True) + _TINY
    weights: Floats = np.exp(-sharpness * (loss / least - 1))
    weights /= weights.sum(axis=-2, keepdims=True)
    return weights
