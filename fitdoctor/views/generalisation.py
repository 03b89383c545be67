"""How a held-out curve regressed from its best: the test that overfitting rules share."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fitdoctor.signals import ACCURACY, TOP5_ACCURACY
from fitdoctor.stats import mad_sigma, median, trend
from fitdoctor.views.curves import LEAST, Curve

MOST_WANDER = 2.5
"""Largest factor that correlated noise may put on a standard error: that of an AR(1) coefficient near 0.7. What
wanders more is a trend."""


@dataclass(frozen=True, slots=True)
class Regress:
    """By how much a held-out curve got worse after its best.

    Attributes:
        best_index: index of the best smoothed value.
        best_step: its step.
        rise: level of the last quarter after the best minus the level around the best; > 0 is worse.
        errors: the rise in standard errors of the difference of the two medians.
        p: one-sided p-value of "it worsens after the best" (Mann-Kendall).
        share: the rise as a share of the curve's range.
        kept: share of the rise that the smoothed curve keeps throughout the second half after the best; 0 when it
            came back, or with fewer than 8 values after the best.
    """

    best_index: int
    best_step: int
    rise: float
    errors: float
    p: float
    share: float
    kept: float


def regress(curve: Curve, train: Curve | None = None, *, least_after: int = 4) -> Regress | None:
    """The regress of a held-out curve; None when fewer than `least_after` values follow its best.

    The range is that of the held-out curve, or from the first training loss to the held-out best where that
    is wider: a log whose first evaluation comes after an epoch does not show most of what was learned. For the
    same reason the range of an accuracy is counted from zero.

    The best of n noisy values lies below the truth by up to 2.5 standard deviations, so the level around
    the best is a median of its neighbours and the standard error counts both medians (a median of k
    normal values has standard error 1.25 sigma / sqrt(k)). Where the held-out curve wanders, so that neighbouring
    values are alike, both that error and the trend test are widened by the wander measured.
    """
    b = curve.best_index
    after = curve.values[b:]
    if len(after) < least_after:
        return None
    window = 3 if len(curve) < 20 else 5
    around = curve.values[max(0, b - window // 2) : b + window // 2 + 1]
    last = after[-max(2, len(after) // 4) :]
    rise = median(last) - median(around)
    wander = _wander(curve, b, rise, window)
    error = wander * 1.25 * curve.noise * math.sqrt(1 / len(last) + 1 / len(around))
    errors = rise / error if error > 0 else math.copysign(math.inf, rise) if rise else 0.0
    swing = max(curve.swing, train.start - curve.best if train is not None else 0.0)
    if curve.series.signal.quantity in (ACCURACY, TOP5_ACCURACY):
        swing = max(swing, -curve.best)  # the curve is flipped
    share = rise / swing if swing > 0 else math.inf if rise > 0 else 0.0
    return Regress(b, int(curve.steps[b]), rise, errors, trend(after, widen=wander).p_up, share, _kept(curve, b, rise))


def worsened(found: Regress | None, *, errors: float, share: float, p: float) -> bool:
    """Whether a regress is both significant and large enough to matter.

    A curve that jumps up after its best and stays there, or creeps back a little, has no rising trend; it
    counts when all of its second half stands above the best by as much as is asked of the end.
    """
    if found is None or found.errors <= errors or found.share <= share:
        return False
    return found.p < p or (found.kept * found.errors > errors and found.kept * found.share > share)


def _kept(curve: Curve, best: int, rise: float) -> float:
    after = curve.smooth[best:]
    if len(after) < LEAST or rise <= 0:
        return 0.0
    return max(0.0, float(after[len(after) // 2 :].min() - after[0])) / rise


def _wander(curve: Curve, best: int, rise: float, window: int) -> float:
    """How much more the smoothed curve moves than independent noise would let it: 1 to `MOST_WANDER`.

    Taken between neighbouring windows, from where the curve first reached the level that it ends at: before
    that it was still descending. On plateaus of AR(1) noise it brings the alarms of the overfitting rule
    from 10 to 2 % (rho 0.5) and from 30 to 5 % (rho 0.7), at hardly any cost in power (tests/test_generalisation.py).
    """
    reached = np.nonzero(curve.smooth[: best + 1] <= curve.smooth[best] + max(rise, 0.0))[0]
    settled = curve.smooth[int(reached[0]) :]
    independent = 1.25 * curve.noise / math.sqrt(window)
    if len(settled) < 4 * window or independent == 0:
        return 1.0
    moved = mad_sigma(settled[window:] - settled[:-window]) / math.sqrt(2)
    return min(max(moved / independent, 1.0), MOST_WANDER)
