"""LOS003 plateau."""

from __future__ import annotations

from collections.abc import Iterator

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import decay_learning_rate, overfit_one_batch
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import LOSS
from fitdoctor.views.curves import need_curve, place, rate_left, settled_after


@rule("LOS003", "plateau", needs=[LOSS], since="0.1.0", state=True, live=False)
def plateau(run: Run, *, share: float = 0.3, gain: float = 0.01, solved: float = 0.02) -> Iterator[Finding]:
    """The training loss is flat over the last part of the run.

    Why it matters:
        Further steps at these settings will not help. Whether that means "done" or "stuck" the loss alone
        does not say; the finding is a note that lists what fits.

    How it is measured:
        No significant trend (Mann-Kendall) over the last `share` of the run, and a fitted saturating curve
        promises less than `gain` of the range from a quarter more training. A loss below `solved` of its
        first value counts as solved and is not reported.

    Options:
        share: share of the run at its end.
        gain: least forecast gain worth mentioning, as a share of the range covered.
        solved: share of the first loss below which nothing is left to gain.

    When it is wrong:
        Delayed generalisation and long saddle plateaus look flat before they drop.

    What to do:
        If the result is good enough, stop earlier. If not, the finding lists what could hold it.

    References:
        Viering and Loog 2022 on extrapolating learning curves. Thresholds are design values.
    """
    curve = need_curve(run, LOSS, least=20)
    tail = curve.tail(share)
    if len(tail) < 8:
        raise CannotJudge(f"{len(tail)} values of train loss in the last {share:.0%}, 8 are needed")
    flat = curve.tail_trend(share)
    if curve.swing <= 0 or (min(flat.p_down, flat.p_up) < 0.05 and abs(flat.change) > gain * curve.swing):
        return
    if curve.gain_ahead() >= gain * curve.swing or abs(flat.change) > 2 * gain * curve.swing:
        return
    if curve.start > 0 and curve.final < solved * curve.start:
        return
    since = int(curve.steps[min(len(curve) - 1, round(settled_after(curve) * len(curve)))])
    left = rate_left(run)
    annealed = left is not None and left < 0.1
    yield Finding(
        message=f"training loss flat at {curve.final:.4g} since {place(run, since)}",
        severity=Severity.NOTE,
        confidence=Confidence.HIGH,
        span=Span(since, int(curve.steps[-1])),
        evidence=(
            Evidence.of(
                curve.series,
                f"{curve.final:.4g}, changing {flat.change:+.2g} over the last {share:.0%}",
                f"falling by at least {gain:.0%} of the {curve.swing:.3g} covered so far",
                marks=((since, "flat"),),
            ),
        ),
        remedies=(overfit_one_batch(),) if annealed else (decay_learning_rate(), overfit_one_batch()),
        could_be=("converged", "underfitting")
        if annealed
        else ("converged", "lr-noise-floor", "lr-too-high", "underfitting"),
        settle_with="anneal the learning rate to 0 over 5-10 % of the budget: "
        "a drop means the rate, none means model or data",
    )
