"""Which curve a falling (or rising) piece of a learning rate follows: least squares on a few candidates.

Numbers in, numbers out: nothing here knows what a learning rate is. Every fit looks at no more than
`MOST_POINTS` points, so its cost does not depend on the length of the log.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Curve = Literal["linear", "exponential", "inverse-sqrt", "inverse-time", "cosine", "polynomial"]

MOST_POINTS = 128
FIT_TOLERANCE = 0.01
"""Largest residual, as a share of the piece's height, at which a curve still counts as the one. The
nearest wrong candidates (cosine against polynomial, exponential against inverse-time) stay above 0.02
on complete schedules; logs that round to three digits stay below 0.005."""

EXACT = 2e-4
"""Residuals below this are rounding: among them the simplest curve wins."""


@dataclass(frozen=True, slots=True)
class Fit:
    """One candidate curve through a piece.

    Attributes:
        curve: its family.
        residual: largest distance from a point, as a share of the piece's height.
        end: where on the x axis the curve reaches its lowest value, or None when it never does.
        floor: the value it has there.
        parameter: the power of a polynomial, the factor per unit of x of an exponential, else nan.
    """

    curve: Curve
    residual: float
    end: float | None = None
    floor: float = 0.0
    parameter: float = float("nan")


def best_fit(x: FloatArray, y: FloatArray, *, slack: float = 0.0) -> Fit | None:
    """The simplest curve that a falling piece follows, or None.

    Args:
        x: float64[n], increasing.
        y: float64[n], falling, non-negative.
        slack: how far before ``x[0]`` the fall may have begun unseen (one logging interval).
    """
    if len(x) < 3 or not y[0] > y[-1] >= 0:
        return None
    keep = (
        np.unique(np.linspace(0, len(x) - 1, MOST_POINTS).round().astype(np.int64))
        if len(x) > MOST_POINTS
        else slice(None)
    )
    x, y = x[keep], y[keep]
    fits = [f for f in _candidates(x, y, slack) if np.isfinite(f.residual)]
    lowest = min((f.residual for f in fits), default=np.inf)
    good = max(2 * lowest, EXACT)
    chosen = next((f for f in fits if f.residual <= min(good, FIT_TOLERANCE)), None)
    if chosen and chosen.curve == "polynomial" and abs(chosen.parameter - 1) < 0.05:
        return fits[0] if fits[0].residual <= FIT_TOLERANCE else chosen  # a line, logged unevenly
    return chosen


def rising_curve(x: FloatArray, y: FloatArray) -> Curve | None:
    """ "linear", "cosine" or another curve for a rising piece, or None when nothing fits or tells."""
    if len(x) < 5:
        return None
    fit = best_fit(-x[::-1], y[::-1])
    return fit.curve if fit else None


def _candidates(x: FloatArray, y: FloatArray, slack: float) -> Iterator[Fit]:
    """The candidates, the simplest first."""
    height = float(y[0] - y[-1])
    yield _linear(x, y, height)
    if y[-1] > 0 and len(x) >= 3:
        yield _exponential(x, y, height)
        yield _inverse_power(x, y, height, 2.0, "inverse-sqrt")
        yield _inverse_power(x, y, height, 1.0, "inverse-time")
    if len(x) >= 4:
        yield _cosine(x, y, height, slack)
    if len(x) >= 5:
        yield _polynomial(x, y, height)


def _line(x: FloatArray, y: FloatArray) -> tuple[float, float]:
    """Slope and intercept by least squares."""
    centre = x - x.mean()
    slope = float(centre @ (y - y.mean()) / (centre @ centre))
    return slope, float(y.mean() - slope * x.mean())


def _linear(x: FloatArray, y: FloatArray, height: float) -> Fit:
    slope, intercept = _line(x, y)
    residual = float(np.abs(slope * x + intercept - y).max()) / height
    return Fit("linear", residual, end=-intercept / slope if slope < 0 else None)


def _exponential(x: FloatArray, y: FloatArray, height: float) -> Fit:
    slope, intercept = _line(x, np.log(y))
    fitted = np.exp(np.clip(slope * x + intercept, -700, 700))
    residual = float(np.abs(fitted - y).max()) / height
    return Fit("exponential", residual, parameter=float(np.exp(np.clip(slope, -700, 700))))


def _inverse_power(x: FloatArray, y: FloatArray, height: float, power: float, curve: Curve) -> Fit:
    """y = c (x + s)^(-1/power): then y^-power is a line in x."""
    relative = y / y[0]
    if relative[-1] < 1e-6:  # no inverse power falls so far in one run; and the powers would overflow
        return Fit(curve, np.inf)
    slope, intercept = _line(x, relative**-power)
    line = slope * x + intercept
    if slope <= 0 or line.min() <= 0:
        return Fit(curve, np.inf)
    return Fit(curve, float(np.abs(line ** (-1 / power) * y[0] - y).max()) / height)


def _cosine(x: FloatArray, y: FloatArray, height: float, slack: float) -> Fit:
    """Half a cosine from its top, possibly cut off: y = a + b cos(pi (x - x0) / T).

    T is searched on a grid that is narrowed around the best value; the start x0 as well where the
    log is too sparse to show it. Of a floor at zero and a free floor, zero wins unless it fits worse.
    """
    length = float(x[-1] - x[0])
    # A piece may begin and end up to one point away from the curve's own turning points.
    shortest = np.log(min(0.99, 1 - 1.5 / (len(x) - 1)))
    best = {True: Fit("cosine", np.inf), False: Fit("cosine", np.inf)}
    starts = np.linspace(x[0] - slack, x[0], 13) if slack > 0.02 * length else np.array([x[0]])
    for start in starts:
        for zero_floor in (True, False):
            low, high = shortest, np.log(12.0)
            for _ in range(4):
                periods = (x[-1] - start) * np.exp(np.linspace(low, high, 24))
                residual, floor = _cosine_residuals(x, y, start, periods, zero_floor)
                i = int(residual.argmin())
                if residual[i] / height < best[zero_floor].residual:
                    end, bottom = float(start + periods[i]), float(max(floor[i], 0.0))
                    best[zero_floor] = Fit("cosine", float(residual[i]) / height, end, bottom)
                width = (high - low) / 12
                centre = float(np.log(periods[i] / (x[-1] - start)))
                low, high = max(centre - width, shortest), centre + width
    return best[True] if best[True].residual <= max(2 * best[False].residual, EXACT) else best[False]


def _cosine_residuals(
    x: FloatArray, y: FloatArray, start: float, periods: FloatArray, zero_floor: bool
) -> tuple[FloatArray, FloatArray]:
    """Largest residual and lowest value of the best cosine for each half period."""
    wave = np.cos(np.pi * (x[None, :] - start) / periods[:, None])
    if zero_floor:
        wave = 1 + wave
        scale = (wave @ y) / np.einsum("ij,ij->i", wave, wave)
        return np.abs(scale[:, None] * wave - y).max(axis=1), np.zeros(len(periods))
    centre = wave - wave.mean(axis=1, keepdims=True)
    scale = (centre @ (y - y.mean())) / np.maximum(np.einsum("ij,ij->i", centre, centre), 1e-300)
    offset = y.mean() - scale * wave.mean(axis=1)
    residual = np.abs(offset[:, None] + scale[:, None] * wave - y).max(axis=1)
    floor = offset - scale
    impossible = (scale <= 0) | (floor < -0.02 * y[0])
    return np.where(impossible, np.inf, residual), floor


def _polynomial(x: FloatArray, y: FloatArray, height: float) -> Fit:
    """y = floor + A (1 - (x - x0) / T)^p with floor 0 or the last value; p from a line in the logs."""
    length = float(x[-1] - x[0])
    best = Fit("polynomial", np.inf)
    for floor in {0.0, float(y[-1])}:
        above = y - floor > 1e-6 * y[0]
        u, logs = (x[above] - x[0]) / length, np.log(y[above] - floor)
        if len(u) < 4:
            continue
        low, high = max(float(u[-1]), 1e-3) * (1 + 1e-9), 8.0
        for _ in range(5):
            grid = np.geomspace(low, high, 24)
            residual, power = _power_residuals(u, logs, grid, x, y, floor)
            i = int(residual.argmin())
            if residual[i] / height < best.residual:
                best = Fit(
                    "polynomial",
                    float(residual[i]) / height,
                    float(x[0] + length * grid[i]),
                    floor,
                    float(power[i]),
                )
            low, high = float(grid[max(i - 1, 0)]), float(grid[min(i + 1, len(grid) - 1)])
    return best


def _power_residuals(
    u: FloatArray, logs: FloatArray, ends: FloatArray, x: FloatArray, y: FloatArray, floor: float
) -> tuple[FloatArray, FloatArray]:
    """Largest residual and power of the best polynomial for each end, in units of the piece's length."""
    left = np.log1p(-u[None, :] / ends[:, None])
    centre = left - left.mean(axis=1, keepdims=True)
    power = (centre @ (logs - logs.mean())) / np.maximum(np.einsum("ij,ij->i", centre, centre), 1e-300)
    scale = logs.mean() - power * left.mean(axis=1)
    whole = np.maximum(1 - (x[None, :] - x[0]) / ((x[-1] - x[0]) * ends[:, None]), 0)
    safe = np.clip(power, 0.2, 10.0)  # CosineAnnealingLR and friends never need more; beyond it is an exponential
    fitted = floor + np.exp(np.clip(scale, -700, 700))[:, None] * whole ** safe[:, None]
    residual = np.abs(fitted - y).max(axis=1)
    return np.where(power == safe, residual, np.inf), power
