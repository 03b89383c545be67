"""How a rule sees that training itself went wrong: the harm that turns a fault into an error.

A fault of bookkeeping is exact, but some do no harm. Only where the training loss says so is it an error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fitdoctor.finding import Evidence, Severity
from fitdoctor.rule import CannotJudge
from fitdoctor.run import Run
from fitdoctor.signals import LOSS, TARGET_STD
from fitdoctor.views.curves import Curve, begins_at_start, chance_loss, find_curve, make_curve, place

BEGUN, ENOUGH = 50, 300
"""Steps before which an outcome says nothing, and after which a training that has learned nothing is no longer at
its beginning: the usual first plateau lasts an epoch or 300 steps. A finished run is judged by its end."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far training got, against a model that has learned nothing.

    Attributes:
        curve: the training loss.
        left: the final training loss as a share of what an untrained model would have (`untrained_loss`); infinite
            when the loss is no number.
        mature: whether the run is over, or has gone on for `ENOUGH` steps.
        guessing: whether `left` is a share of the loss of guessing, and not of whatever the first loss was.
    """

    curve: Curve
    left: float
    mature: bool
    guessing: bool = True

    @property
    def idle(self) -> bool:
        """Next to nothing was learned, and there was time for it."""
        return self.left > 0.9 and (self.mature or self.left == math.inf)

    @property
    def unsolved(self) -> bool:
        """Less than half of what there is to learn was learned."""
        return self.left > 0.5


def untrained_loss(run: Run, curve: Curve) -> float | None:
    """The loss of guessing where it is known, else the first loss of a log that holds the beginning; None otherwise.

    A model that begins below the loss of guessing has been trained before: what it still gains is no measure of harm.
    Guessing the mean has the variance of the targets as its squared error: a regression that begins far above, by its
    initialisation, has learned nothing before it comes down to that.
    """
    summed = run.facts.get("loss_reduction") == "sum"
    chance = None if summed else chance_loss(run)
    reference = chance if chance is not None else curve.start if begins_at_start(run, curve.series) else None
    spread = run.get(TARGET_STD) if run.facts.get("loss_function") == "MSELoss" and not summed else None
    if reference is not None and chance is None and spread is not None and len(spread.finite):
        reference = min(reference, float(np.median(spread.finite.values)) ** 2)
    return reference if reference is not None and math.isfinite(reference) and reference > 0 else None


def need_standing(run: Run) -> Standing:
    """How far training got: the harm gate of rules on layers.

    Raises:
        CannotJudge: when the training loss is too short, or has no scale.
    """
    curve = find_curve(run, LOSS)
    series = run.get(LOSS)
    if series is not None and len(series) >= 2 and not np.isfinite(series.values[-1]):
        return Standing(make_curve(series, least=1), math.inf, True)
    steps = 0 if series is None else series.span.last - series.span.first
    if curve is None or (run.step_unit == "step" and steps < BEGUN - 1):
        raise CannotJudge(f"the training loss covers {steps} steps, {BEGUN} are needed to see whether it matters")
    untrained = untrained_loss(run, curve)
    if untrained is None:
        raise CannotJudge("the training loss of an untrained model is neither known nor logged, or not positive")
    mature = run.finished is True or run.step_unit != "step" or steps >= ENOUGH
    known = run.facts.get("loss_reduction") != "sum" and (
        chance_loss(run) is not None
        or (run.facts.get("loss_function") == "MSELoss" and run.get(TARGET_STD) is not None)
    )
    return Standing(curve, curve.final / untrained, mature, known)


def find_standing(run: Run) -> Standing | None:
    """How far training got, or None where that cannot be told."""
    try:
        return need_standing(run)
    except CannotJudge:
        return None


def harm(run: Run) -> Evidence | None:
    """Evidence that the training loss is no longer finite, blew up, or never came down; None where it shows none.

    Never came down: after 300 steps, or at the end of a finished run of at least 50, the loss is above 0.9 of
    `untrained_loss`. Blew up: it ends further above
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
    return _blew_up(curve) or _never_fell(run)


def severity_by_harm(run: Run) -> tuple[Severity, tuple[Evidence, ...]]:
    """An error with its evidence where training went wrong, a warning otherwise."""
    seen = harm(run)
    return (Severity.WARNING, ()) if seen is None else (Severity.ERROR, (seen,))


def _blew_up(curve: Curve) -> Evidence | None:
    above = curve.final - curve.best
    if not above > max(0.2 * abs(curve.start), 5 * curve.noise, 0.2 * curve.swing):
        return None
    return Evidence.of(curve.series, f"{curve.final:.4g} at the end", f"near its best, {curve.best:.4g}")


def _never_fell(run: Run) -> Evidence | None:
    stand = find_standing(run)
    if run.step_unit == "epoch" or stand is None or not stand.idle:
        return None
    curve = stand.curve
    before = curve.final / stand.left
    return Evidence.of(curve.series, f"{curve.final:.4g} at the end", f"far below {before:.4g}, where it began")
