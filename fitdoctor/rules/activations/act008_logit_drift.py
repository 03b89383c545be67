"""ACT008 logit-drift."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import lower_learning_rate
from fitdoctor.remedies.activations import hold_logits
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import ACCURACY, LOGIT_ABSMAX, LOGIT_STD, LOSS
from fitdoctor.stats import trend
from fitdoctor.views.curves import make_curve, need_curve


@rule(
    "ACT008",
    "logit-drift",
    needs=[LOGIT_ABSMAX, LOSS],
    explains=["loss-divergence", "nonfinite-loss", "best-epoch", "overconfidence-drift"],
    since="0.1.0",
)
def logit_drift(
    run: Run,
    *,
    doubling: float = 1.0,
    after: float = 0.3,
    large: float = 30.0,
    separable: float = 0.98,
    harm: float = 0.05,
    sigmas: float = 5.0,
    least: int = 20,
) -> Iterator[Finding]:
    """The outputs keep growing while the training loss no longer falls.

    Why it matters:
        Cross-entropy sees differences of outputs, not their size. Outputs that grow without making the loss
        smaller make every mistake dearer and every step larger, until rounding or overflow ends the run.

    How it is measured:
        After the first `after` of the run: the largest output of a record doubles `doubling` times per quarter of the
        run (Theil and Sen's slope of its logarithm; rising by Mann and Kendall's test, p < 0.001), the typical
        output grows too, and the end is above `large`. Over the same stretch the training loss must
        rise by `sigmas` standard deviations of its noise and `harm` of its range. Where the training
        accuracy is above `separable`, growing outputs are what gradient descent does on data that it separates.

    Options:
        doubling: least doublings per quarter of the run.
        after: share of the run that is left out.
        large: least size of the largest output at the end; e^-30 is no probability that data could support.
        separable: training accuracy from which growth is normal.
        harm: least rise of the loss as a share of its range.
        sigmas: least rise of the loss in standard deviations of its noise.
        least: fewest records after the first part.

    When it is wrong:
        A learning rate that is too high makes outputs grow as well; then lr-too-high is the cause and
        explains this. A rare class met late gives large outputs for a while.

    What to do:
        A z-loss, weight decay on the last layer, a lower learning rate.

    References:
        Wortsman et al. 2023, Small-scale proxies for large-scale Transformer training instabilities (output logits
        diverge late in training; the z-loss of Chowdhery et al. 2022 holds them). Thresholds are design values.
    """
    largest = run.get(LOGIT_ABSMAX)
    assert largest is not None  # the rule needs it
    series = largest.finite
    curve = need_curve(run, LOSS)
    span = series.span
    start = round(span.first + after * (span.last - span.first))
    late = series.between(start, span.last)
    late = late[late.values > 0]
    if len(late) < least:
        raise CannotJudge(f"{len(late)} records of the outputs after the first part of the run, {least} are needed")
    steps = late.steps.astype(np.float64)
    growth = trend(np.log2(late.values), steps)
    per_quarter = growth.slope * (span.last - span.first) / 4
    end = float(np.median(late.values[-max(3, len(late) // 10) :]))
    if per_quarter < doubling or growth.p_up >= 0.001 or end < large or not _typical_grows(run, start, doubling):
        return
    part = curve.series.between(start, curve.series.span.last)
    if len(part) < 8:
        return
    tail = make_curve(part)
    rise = tail.final - float(tail.smooth[: max(3, len(tail) // 5)].min())
    accuracy = run.get(ACCURACY)
    correct = None if accuracy is None else float(np.nanmedian(accuracy.values[-max(3, len(accuracy) // 10) :]))
    if rise <= max(sigmas * tail.noise, harm * max(curve.swing, 0.0)) or (correct is not None and correct >= separable):
        return
    yield Finding(
        message=f"largest output doubles {per_quarter:.2g} times a quarter, to {end:.3g}; the loss rose by {rise:.3g}",
        severity=Severity.WARNING,
        confidence=Confidence.MEDIUM,
        span=Span(int(late.steps[0]), span.last),
        evidence=(
            Evidence.of(
                largest, f"{end:.3g} at the end, doubling {per_quarter:.1f} times per quarter", "levelling off"
            ),
            Evidence.of(curve.series, f"{curve.final:.4g} at the end, risen by {rise:.3g}", "falling"),
        ),
        remedies=(lower_learning_rate(), hold_logits()),
        could_be=("lr-too-high",),
        settle_with="train on from the last checkpoint at a tenth of the rate: outputs that still grow settle it",
    )


def _typical_grows(run: Run, start: int, doubling: float) -> bool:
    """The standard deviation of the outputs grows too, at half the speed at least: it is not one odd sample."""
    spread = run.get(LOGIT_STD)
    if spread is None:
        return True
    series = spread.finite
    late = series.between(start, series.span.last)
    late = late[late.values > 0]
    if len(late) < 3:
        return True
    slope = trend(np.log2(late.values), late.steps.astype(np.float64)).slope
    return slope * (series.span.last - series.span.first) / 4 >= doubling / 2
