"""How a loss falls along the sum of the learning rates, and what more of it would gain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fitdoctor.run import Run
from fitdoctor.stats import median, trend
from fitdoctor.views.curves import Curve, rate_clock

FACTOR = 3.0
"""The step between two rates that are tried after each other (Godbole et al. 2023: about one half-decade)."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What the sum of learning rates bought.

    Attributes:
        last: fall of the loss while the sum grew to `FACTOR` times, up to the end, as a share of the range.
        ahead: fall to be expected of `FACTOR` times that sum again, as a share of the range.
        p_down: p-value that the loss fell over that last stretch.
    """

    last: float
    ahead: float
    p_down: float


def pace(run: Run, curve: Curve) -> Pace | None:
    """How a curve fell along the sum of the learning rates; None where less than 4 values lie in the last stretch.

    With steps too short to overshoot, the loss depends on that sum alone, whatever the schedule: a rate `FACTOR` times
    as high reaches in as many steps what `FACTOR` times as many steps would reach at this one. Where the loss falls as
    a power of the sum, equal factors gain shares of a constant ratio. So the last stretch is cut into two of an equal
    factor; the next two gain by the ratio of these, at most as much each. More than all of the loss that is left
    cannot be gained.
    """
    if curve.swing <= 0:
        return None
    clock = rate_clock(run, curve)
    third, middle = (int(np.searchsorted(clock, FACTOR**-share)) for share in (1.0, 0.5))
    if third < 2 or middle == third or len(curve) - third < 4:
        return None
    level, end = _level(curve, third), _end(curve, middle)
    first, second = level - _level(curve, middle), _level(curve, middle) - end
    ratio = min(1.0, second / first) if first > 0 else 1.0
    ahead = max(second, 0.0) * (ratio + ratio**2)
    if curve.final > 0 and not curve.flipped:
        ahead = min(ahead, max(end, 0.0))
    return Pace((level - end) / curve.swing, ahead / curve.swing, trend(curve.values[third:]).p_down)


def _level(curve: Curve, index: int) -> float:
    """The curve around one of its points: median of a tenth of its length."""
    width = max(1, len(curve) // 20)
    return median(curve.values[max(0, index - width) : index + width + 1])


def _end(curve: Curve, since: int) -> float:
    """The level at the very end: `Curve.final` is that of the middle of the values that it is the median of."""
    late = curve.values[since:]
    if len(late) < 3:
        return curve.final
    lag = (max(3, len(curve) // 10) - 1) / 2
    return curve.final + min(trend(late).change, 0.0) * lag / (len(late) - 1)
