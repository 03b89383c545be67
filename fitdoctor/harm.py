"""How a rule sees that training itself went wrong: the harm that turns a fault into an error.

A fault of bookkeeping is exact, but some do no harm. Only where the training loss says so is it an error.
"""

from __future__ import annotations

import math

import numpy as np

from fitdoctor.curves import Curve, begins_at_start, chance_loss, find_curve, place
from fitdoctor.finding import Evidence, Severity
from fitdoctor.run import Run
from fitdoctor.signals import LOSS

ENOUGH = 300
"""Steps after which a training that has not learned anything is no longer at its beginning: a first
epoch or 300 steps is the span of the usual initial plateau."""
LEAST_STEPS = 50
"""Fewest steps of a finished training that is judged by its outcome."""


def harm(run: Run) -> Evidence | None:
    """Evidence that the training loss is no longer finite, blew up, or never came down; None where it shows none.

    Never came down: after 300 steps, or at the end of a finished run of at least 50, the loss is above 0.9 of
    that of guessing, or of its first value where the classes are unknown. Blew up: it ends further above
    its best than a fifth of what it started from, five standard deviations of its noise and a fifth of its range.
    """
    loss = run.get(LOSS)
    if loss is None:
        return None
    bad = ~np.isfinite(loss.values)
    if bad.any() and bool(bad[-1]):
        first = int(loss.steps[int(np.argmax(bad))])
        return Evidence.of(loss, f"not finite from {place(run, first)} on", "a finite number", ((first, "not finite"),))
    curve = find_curve(run, LOSS)
    if curve is None:
        return None
    return _blew_up(curve) or _never_fell(run, curve)


def severity_by_harm(run: Run) -> tuple[Severity, tuple[Evidence, ...]]:
    """An error with its evidence where training went wrong, a warning otherwise."""
    seen = harm(run)
    return (Severity.WARNING, ()) if seen is None else (Severity.ERROR, (seen,))


def _blew_up(curve: Curve) -> Evidence | None:
    above = curve.final - curve.best
    if not above > max(0.2 * abs(curve.start), 5 * curve.noise, 0.2 * curve.swing):
        return None
    return Evidence.of(curve.series, f"{curve.final:.4g} at the end", f"near its best, {curve.best:.4g}")


def _never_fell(run: Run, curve: Curve) -> Evidence | None:
    steps = curve.series.span.last - curve.series.span.first
    if run.step_unit == "epoch" or steps < (LEAST_STEPS if run.finished else ENOUGH):
        return None
    reference = chance_loss(run)
    if reference is None and begins_at_start(run, curve.series):
        reference = curve.start
    if reference is None or not math.isfinite(reference) or reference <= 0 or curve.final <= 0.9 * reference:
        return None
    return Evidence.of(curve.series, f"{curve.final:.4g} at the end", f"far below {reference:.4g}, where it began")
