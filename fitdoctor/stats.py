"""Numeric helpers: numpy in, numpy or numbers out, linear time, know nothing of training.

Every function takes float64[n] and ignores nothing silently: callers pass finite values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MAD_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


_SORTED = 1000
"""Values up to which sorting them all is faster than `numpy.median` is to call."""


def median(values: FloatArray) -> float:
    """What `numpy.median` returns for one dimension, several times faster for few values; nan for none."""
    n = len(values)
    if not 0 < n <= _SORTED:
        return float(np.median(values)) if n else math.nan
    ordered = np.sort(values)
    last = float(ordered[-1])
    if last != last:  # nan is sorted to the end
        return last
    high = float(ordered[n // 2])
    return high if n % 2 else (float(ordered[n // 2 - 1]) + high) / 2


def mad_sigma(values: FloatArray) -> float:
    """Robust standard deviation: 1.4826 times the median absolute deviation; 0 for fewer than 2 values."""
    if len(values) < 2:
        return 0.0
    return MAD_TO_SIGMA * median(np.abs(values - median(values)))


def noise_scale(values: FloatArray, *, burn_in: float = 0.1) -> float:
    """Standard deviation of the point-to-point noise of a series, whatever its trend.

    The median absolute deviation of first differences, over sqrt(2) because a difference of two
    independent values has twice the variance. The first tenth is left out: there the trend is
    steep enough to count as noise.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = np.linspace(5, 1, 2000) + 0.1 * rng.standard_normal(2000)
        >>> 0.09 < noise_scale(x) < 0.11
        True
    """
    rest = values[int(burn_in * len(values)) :]
    if len(rest) < 3:
        rest = values
    return mad_sigma(np.diff(rest)) / math.sqrt(2) if len(rest) >= 3 else 0.0


def running_median(values: FloatArray, window: int) -> FloatArray:
    """Centred running median, float64[n]; the window shrinks at both ends instead of padding.

    Args:
        values: float64[n].
        window: odd number of points.
    """
    n = len(values)
    half = window // 2
    if n == 0 or half == 0:
        return values.copy()
    out = np.empty(n)
    if n > 2 * half:
        ordered = np.sort(np.lib.stride_tricks.sliding_window_view(values, 2 * half + 1), axis=1)
        out[half : n - half] = np.where(np.isnan(ordered[:, -1]), np.nan, ordered[:, half])
    for i in [*range(min(half, n)), *range(max(half, n - half), n)]:
        reach = min(half, i, n - 1 - i)
        out[i] = median(values[i - reach : i + reach + 1])
    return out


def smooth(values: FloatArray) -> FloatArray:
    """Running median with window 3 below 20 points and 5 from there on."""
    return running_median(values, 3 if len(values) < 20 else 5)


def block_edges(n: int, blocks: int) -> IntArray:
    """Index edges that cut n points into at most `blocks` nearly equal blocks, int64[blocks + 1]."""
    return np.unique(np.linspace(0, n, min(blocks, max(n, 1)) + 1).round().astype(np.int64))


def block_medians(values: FloatArray, blocks: int = 60) -> FloatArray:
    """Medians of at most `blocks` consecutive blocks of nearly equal size, float64[<= blocks].

    A series with no more points than blocks is returned as it is.
    """
    if len(values) <= blocks:
        return values.copy()
    edges = block_edges(len(values), blocks)
    sizes = np.diff(edges)
    out = np.empty(len(sizes))
    for size in set(sizes.tolist()):  # nearly equal: two of them at most
        here = np.flatnonzero(sizes == size)
        out[here] = np.median(values[edges[here][:, None] + np.arange(size)], axis=1)
    return out


@dataclass(frozen=True, slots=True)
class Trend:
    """A robust straight line through points.

    Attributes:
        slope: median of the slopes between all pairs of points (Theil-Sen), y per x.
        p_up: one-sided p-value of "y rises" by the Mann-Kendall test.
        p_down: one-sided p-value of "y falls".
        change: slope times the x range: how much y changed over the points.
    """

    slope: float
    p_up: float
    p_down: float
    change: float


def trend(y: FloatArray, x: FloatArray | None = None, *, blocks: int = 60, widen: float = 1.0) -> Trend:
    """Theil-Sen slope and Mann-Kendall p-values (Sen 1968; Mann 1945, Kendall 1975).

    More than `blocks` points are first reduced to block medians, which keeps it linear in n.

    Args:
        y: float64[n].
        x: float64[n], increasing; 0, 1, 2 ... when left out.
        blocks: most points used.
        widen: factor on the standard deviation of the Mann-Kendall statistic, above 1 where neighbouring
            values are correlated: sqrt((1 + rho) / (1 - rho)) for an AR(1) coefficient rho.

    Example:
        >>> t = trend(np.array([5.0, 4, 4, 3, 2, 2, 1, 0]))
        >>> t.slope < 0, t.p_down < 0.001, round(t.change, 1)
        (True, True, -4.7)
    """
    x = np.arange(len(y), dtype=np.float64) if x is None else np.asarray(x, dtype=np.float64)
    x, y = block_medians(x, blocks), block_medians(y, blocks)
    n = len(y)
    if n < 3:
        return Trend(0.0, 1.0, 1.0, 0.0)
    i, j = _pairs(n)
    dx, dy = x[j] - x[i], y[j] - y[i]
    slope = median(dy / np.where(dx == 0, 1.0, dx))
    s = float(np.sign(dy).sum())
    _, ties = np.unique(y, return_counts=True)
    variance = (n * (n - 1) * (2 * n + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18
    if variance <= 0:
        return Trend(slope, 1.0, 1.0, 0.0)
    deviation = widen * math.sqrt(variance)
    p_up = _normal_tail((s - 1) / deviation)
    p_down = _normal_tail((-s - 1) / deviation)
    return Trend(slope, p_up, p_down, slope * float(x[-1] - x[0]))


@cache
def _pairs(n: int) -> tuple[IntArray, IntArray]:
    """Numbers of the first and of the second of all pairs of n points."""
    i, j = np.triu_indices(n, 1)
    i.flags.writeable = j.flags.writeable = False
    return i, j


def _normal_tail(z: float) -> float:
    return min(1.0, 0.5 * math.erfc(z / math.sqrt(2)))


@dataclass(frozen=True, slots=True)
class ChangePoint:
    """The best cut of a series into two levels.

    Attributes:
        index: first point of the second level.
        before: median before it.
        after: median from it on.
        gain: share of the total absolute deviation that the cut removes, 0 to 1.
    """

    index: int
    before: float
    after: float
    gain: float


def change_point(values: FloatArray, *, least: int = 5) -> ChangePoint | None:
    """The cut that minimises the summed absolute deviation from two medians.

    Args:
        values: float64[n]; pass block medians (n <= 200), the search is quadratic in n.
        least: fewest points on each side.

    Returns:
        The best cut, or None with fewer than ``2 * least`` points or no deviation at all.
    """
    n = len(values)
    total = float(np.abs(values - median(values)).sum()) if n else 0.0
    if n < 2 * least or total == 0.0:
        return None
    costs = [
        float(np.abs(values[:k] - median(values[:k])).sum() + np.abs(values[k:] - median(values[k:])).sum())
        for k in range(least, n - least + 1)
    ]
    best = int(np.argmin(costs))
    k = best + least
    return ChangePoint(k, median(values[:k]), median(values[k:]), 1.0 - costs[best] / total)


def spike_z(values: FloatArray, *, window: int = 200, floor: float = 1e-3) -> FloatArray:
    """How far each value stands above the values just before it, in robust standard deviations.

    The reference of point t is the median and MAD of the `window` points before its block, so the
    cost is linear: references are computed at every ``window // 4``-th point and held in between.
    The first ``window // 4`` points have no past and get 0.

    Args:
        values: float64[n], logarithms of a positive series.
        window: points of the past that count.
        floor: smallest standard deviation, in log units.

    Returns:
        float64[n].
    """
    n = len(values)
    z = np.zeros(n)
    stride = max(1, window // 4)
    for start in range(stride, n, stride):
        past = values[max(0, start - window) : start]
        center = median(past)
        scale = MAD_TO_SIGMA * median(np.abs(past - center)) + floor
        z[start : start + stride] = (values[start : start + stride] - center) / scale
    return z


@dataclass(frozen=True, slots=True)
class Forecast:
    """A saturating curve fitted to a falling series.

    Attributes:
        gain: how much further it would fall over the horizon, in units of y (never negative).
        floor: the level it tends to.
        scatter: robust standard deviation of the residuals.
    """

    gain: float
    floor: float
    scatter: float


def forecast(y: FloatArray, *, horizon: float = 0.25, least: int = 8) -> Forecast | None:
    """Extrapolate a falling curve by the better of L + A t^-b and L + A e^-kt.

    Both are linear in L and A, so for each b or k of a grid they are fitted by least squares that
    are reweighted twice against outliers (Huber). Learning curves have no universal form (Viering &
    Loog 2022), so the result only serves to say that more training would help, never how good it gets.

    Args:
        y: float64[n]; more than 60 points are reduced to block medians.
        horizon: how far ahead, as a share of n.
        least: fewest points.

    Returns:
        None with fewer than `least` points.
    """
    if len(y) < least:
        return None
    y = block_medians(y)
    n = len(y)
    t = np.arange(1, n + 1, dtype=np.float64)
    start = int(0.1 * n)
    best: tuple[float, float, float, float] | None = None
    for shape in _shapes(n):
        basis = shape(t[start:])
        level, amplitude, cost, scatter = _robust_line(basis, y[start:])
        if amplitude < 0:
            continue
        ahead = amplitude * float(shape(np.array([float(n)]))[0] - shape(np.array([n * (1 + horizon)]))[0])
        if best is None or cost < best[0]:
            best = (cost, ahead, level, scatter)
    if best is None:
        return Forecast(0.0, float(y[-1]), noise_scale(y))
    return Forecast(max(0.0, best[1]), best[2], best[3])


def _shapes(n: int) -> list[Callable[[FloatArray], FloatArray]]:
    """The falling shapes that a forecast tries, as functions of the point's number."""

    def power(exponent: float) -> Callable[[FloatArray], FloatArray]:
        return lambda t: np.asarray(t**-exponent, dtype=np.float64)

    def exponential(rate: float) -> Callable[[FloatArray], FloatArray]:
        return lambda t: np.asarray(np.exp(-rate * t / n), dtype=np.float64)

    powers = [power(b) for b in (0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0)]
    return powers + [exponential(k) for k in (0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 20.0)]


def _robust_line(x: FloatArray, y: FloatArray) -> tuple[float, float, float, float]:
    """Level, amplitude, Huber cost and residual scatter of y = level + amplitude * x."""
    weights = np.ones(len(y))
    level = amplitude = scatter = 0.0
    residual = y
    least = max(1e-12 * float(np.abs(y).max()), 1e-300)
    for _ in range(3):
        total = weights.sum()
        mx, my = float((weights * x).sum() / total), float((weights * y).sum() / total)
        spread = float((weights * (x - mx) ** 2).sum())
        amplitude = float((weights * (x - mx) * (y - my)).sum() / spread) if spread > 0 else 0.0
        level = my - amplitude * mx
        residual = y - level - amplitude * x
        scatter = mad_sigma(residual)
        scale = max(scatter, least)
        weights = 1.345 * scale / np.maximum(np.abs(residual), 1.345 * scale)
    a = np.abs(residual)
    cost = float(np.where(a <= 1.345 * scale, 0.5 * a**2, 1.345 * scale * (a - 0.67 * scale)).sum())
    return level, amplitude, cost, scatter


def turning_fraction(values: FloatArray) -> float:
    """Share of inner points that are local extremes: 2/3 for independent noise, 1 for a zigzag, 0 for a trend."""
    if len(values) < 3:
        return 0.0
    d = np.sign(np.diff(values))
    return float(np.mean(d[1:] * d[:-1] < 0))


def autocorrelation(values: FloatArray, lag: int = 1) -> float:
    """Correlation of a series with itself `lag` points later; 0 when it is constant or too short."""
    if len(values) <= lag + 2:
        return 0.0
    centred = values - values.mean()
    power = float((centred**2).sum())
    return float((centred[lag:] * centred[:-lag]).sum() / power) if power > 0 else 0.0


def log10_safe(values: FloatArray) -> FloatArray:
    """log10 of positive values; zeros and negatives become the smallest positive value present."""
    positive = values[values > 0]
    floor = float(positive.min()) if len(positive) else 1e-300
    return np.asarray(np.log10(np.maximum(values, floor)), dtype=np.float64)
