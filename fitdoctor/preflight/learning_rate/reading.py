"""How a range test is read: loss over a growing rate -> where it learns, and where it breaks away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fitdoctor.run import FloatArray

SMOOTHING = 0.9
"""Share of the past in the moving average: about ten steps, a fifth of a decade in a usual ramp."""

RISE = 0.1
"""Rise of the smoothed loss above its lowest value that counts as breaking away, as a share of all it had fallen."""

FALLEN = 0.1
"""Fall of the smoothed loss, as a share of all it falls, that counts as having begun to learn."""


@dataclass(frozen=True, slots=True)
class Ramp:
    """One range test.

    Attributes:
        rates: float64[n], the rate of each step, growing.
        losses: float64[n], the loss of each step before it; the last may be nan.
        diverged: whether the ramp ended because the loss broke away.
    """

    rates: FloatArray
    losses: FloatArray
    diverged: bool


@dataclass(frozen=True, slots=True)
class Reading:
    """What one ramp says.

    Attributes:
        begins: rate at which the loss has begun to fall.
        steepest: rate at which it falls fastest per factor of the rate.
        lowest: rate of the lowest smoothed loss.
        edge: the largest rate before the loss breaks away; the last one where it never does.
        reached: whether the edge was reached.
    """

    begins: float
    steepest: float
    lowest: float
    edge: float
    reached: bool


def smoothed(losses: FloatArray, share: float = SMOOTHING) -> FloatArray:
    """Exponential moving average without the bias of its beginning."""
    out = np.empty(len(losses))
    mean, weight = 0.0, 0.0
    for i, loss in enumerate(losses):
        mean = share * mean + (1 - share) * float(loss)
        weight = share * weight + (1 - share)
        out[i] = mean / weight
    return out


def read(ramp: Ramp) -> Reading | None:
    """Read a ramp; None where the loss falls by no more than its noise."""
    kept = np.isfinite(ramp.losses)
    last = int(np.argmin(kept)) if not kept.all() else len(kept)
    rates, losses = ramp.rates[:last], ramp.losses[:last]
    if len(losses) < 20:
        return None
    curve = smoothed(losses)
    start = float(np.median(losses[: max(5, len(losses) // 10)]))
    noise = 1.4826 * float(np.median(np.abs(np.diff(losses)))) / 2**0.5
    low = int(np.argmin(curve))
    fall = start - float(curve[low])
    # An average of ten steps has a third of the noise of one.
    if fall < max(noise, 1e-3 * abs(start)):
        return None
    begins = int(np.argmax(curve < start - FALLEN * fall))
    after = curve[low:] > curve[low] + RISE * fall
    reached = bool(after.any())
    edge = low + int(np.argmax(after)) if reached else len(curve) - 1
    slope = np.gradient(curve, np.log(rates))
    steepest = int(np.argmin(slope[: low + 1])) if low else 0
    return Reading(
        float(rates[begins]), float(rates[steepest]), float(rates[low]), float(rates[edge]), reached or ramp.diverged
    )


@dataclass(frozen=True, slots=True)
class Interval:
    """Several readings taken together: medians in logarithms, and how far they spread."""

    low: float
    suggestion: float
    high: float
    edge: float
    spread: float
    reached: bool


def interval(readings: Sequence[Reading]) -> Interval:
    """An interval of rates from the readings of some ramps.

    The suggestion is the geometric mean of the rate of steepest fall and of a quarter of the lowest point's: the first
    is too careful for a ramp that has to begin from nothing, the second too bold once the noise of a
    constant rate adds up. See benchmarks/accuracy/find_lr.py for what that gives.
    """

    def middle(values: Sequence[float]) -> float:
        return float(np.exp(np.median(np.log(values))))

    edge = middle([r.edge for r in readings])
    lowest = middle([r.lowest for r in readings])
    steepest = middle([r.steepest for r in readings])
    begins = middle([r.begins for r in readings])
    suggestion = min((steepest * lowest / 4) ** 0.5, edge / 3)
    low = min(max(begins, suggestion / 10), suggestion / 2)
    high = max(min(lowest / 2, edge / 2), suggestion)
    logs = np.log10([r.edge for r in readings])
    return Interval(low, suggestion, high, edge, float(np.ptp(logs)), all(r.reached for r in readings))
