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

CLEAR = 1.5
"""Least fall in standard deviations of a step's loss before learning begins. The average of ten steps has a quarter of
that deviation, so this is six standard errors."""

QUIET = 0.2
"""Share of the ramp at its beginning in which nothing is learned yet: level and noise are taken from it."""


@dataclass(frozen=True, slots=True)
class Ramp:
    """One range test.

    Attributes:
        rates: float64[n], the rate of each step, growing.
        losses: float64[n], the loss of each step before it; the last may be nan.
        diverged: whether the ramp ended because the loss broke away.
        lag: mean age in steps of the gradients in a step: momentum / (1 - momentum) of heavy-ball momentum, else 0.
    """

    rates: FloatArray
    losses: FloatArray
    diverged: bool
    lag: float = 0.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What one ramp says.

    Attributes:
        half: rate at which the smoothed loss has fallen by half of all that it falls.
        most: rate at which it has fallen by nine tenths.
        lowest: rate of the lowest smoothed loss.
        edge: the largest rate before the loss breaks away; the last one where it never does.
        reached: whether the edge was reached.
    """

    half: float
    most: float
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
    """Read a ramp; None where the loss does not fall clearly."""
    if len(ramp.losses) < 2:
        return None
    kept = np.isfinite(ramp.losses)
    last = int(np.argmin(kept)) if not kept.all() else len(kept)
    # Momentum builds up over some steps while the ramp goes on: what is seen now was caused at a lower rate.
    growth = (ramp.rates[1] / ramp.rates[0]) ** -ramp.lag
    rates, losses = ramp.rates[:last] * growth, ramp.losses[:last]
    quiet = max(10, round(QUIET * len(ramp.losses)))
    if len(losses) <= 2 * quiet:
        return None
    start, noise = float(losses[:quiet].mean()), float(losses[:quiet].std())
    # The average of the first steps is over few of them, and noisier than what follows.
    rates, curve = rates[quiet // 2 :], smoothed(losses)[quiet // 2 :]
    low = int(np.argmin(curve))
    fall = start - float(curve[low])
    if fall < max(CLEAR * noise, 1e-3 * abs(start)):
        return None
    after = curve[low:] > curve[low] + RISE * fall
    reached = bool(after.any())
    edge = low + int(np.argmax(after)) if reached else len(curve) - 1
    half, most = (int(np.argmax(curve <= start - share * fall)) for share in (0.5, 0.9))
    return Reading(
        float(rates[half]), float(rates[most]), float(rates[low]), float(rates[edge]), reached or ramp.diverged
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

    The suggestion is the rate at which nine tenths of the fall are done, but at most a third of the stable edge: the
    point of the steepest fall is too careful, since a ramp has to learn on its way what a constant rate learns
    at once, and the lowest point too bold. A third, because a ramp spends only a few steps at each rate: what holds for
    them need not hold for thousands. Chosen on the calibration tasks of benchmarks/accuracy/find_lr.py.
    """

    def middle(values: Sequence[float]) -> float:
        return float(np.exp(np.median(np.log(values))))

    edge = middle([r.edge for r in readings])
    suggestion = min(middle([r.most for r in readings]), edge / 3)
    low = min(middle([r.half for r in readings]), suggestion / 2)
    high = max(min(middle([r.lowest for r in readings]), edge / 1.5), suggestion)
    logs = np.log10([r.edge for r in readings])
    return Interval(low, suggestion, high, edge, float(np.ptp(logs)), all(r.reached for r in readings))
