"""LRN003 undertrained."""

from __future__ import annotations

from collections.abc import Iterator

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import raise_learning_rate, stretch_schedule
from fitdoctor.rule import rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import LOSS
from fitdoctor.views.curves import Curve, find_curve, held_out, need_curve, rate_left
from fitdoctor.views.steps import step_quality, training_curve


@rule("LRN003", "undertrained", needs=[LOSS], explains=["underfitting"], since="0.1.0", state=True, live=False)
def undertrained(run: Run, *, gain: float = 0.03, much: float = 0.1, horizon: float = 0.25) -> Iterator[Finding]:
    """The loss was still falling when the run ended.

    Why it matters:
        More steps would have helped; the result is that of a run cut short.

    How it is measured:
        A saturating curve fitted to the training loss, and to the validation loss where there is one,
        promises at least `gain` of the range from `horizon` more training, the fall over the last quarter (at
        least 6 values) is significant, and the rate has not been annealed. A note; a warning from `much` on,
        because most sound runs could still gain a little. Where the hooks evaluate a fixed training batch, its loss
        is used; where they measured a step quality below 0.9, the rate is long enough and only time is short.

    Options:
        gain: least forecast gain as a share of the range covered.
        much: forecast gain that makes it a warning.
        horizon: how much more training the forecast assumes, as a share of the run.

    When it is wrong:
        Learning curves have no universal shape, so the forecast is a reason to try, not a promise. Under
        a cosine schedule the late fall is the annealing itself.

    What to do:
        Train longer with the schedule stretched. If the curve is smooth, try a higher rate first.

    References:
        Viering and Loog 2022, The Shape of Learning Curves; Godbole et al. 2023 (best step in the last
        quarter: train longer). The 3 % floor is twice the forecast error on settled curves with 5 % noise.
    """
    need_curve(run, LOSS, least=12)
    curve = training_curve(run, least=12)
    left = rate_left(run, 0.1)
    if left is not None and left < 0.2:
        return
    split = held_out(run)
    val = find_curve(run, LOSS, split, least=12) if split else None
    seen = [_gain(c, horizon) for c in (curve, val) if c is not None]
    promised = min(seen)
    if promised < gain:
        return
    quality = step_quality(run)
    long_steps = quality is not None and quality.late < 0.9
    yield Finding(
        message=f"training loss still falling at the end: {promised:.0%} more of its range in sight",
        severity=Severity.WARNING if promised >= much else Severity.NOTE,
        confidence=Confidence.MEDIUM,
        span=Span(int(curve.steps[-(len(curve) // 4)]), int(curve.steps[-1])),
        evidence=(
            Evidence.of(
                curve.series,
                f"{promised:.1%} of the range to be gained by {horizon:.0%} more training",
                f"less than {gain:.0%}",
            ),
        ),
        remedies=(stretch_schedule(2.0),) if long_steps else (stretch_schedule(2.0), raise_learning_rate(3.0)),
        could_be=() if long_steps else ("lr-too-low",),
        settle_with=""
        if long_steps
        else "train a tenth of the steps at 3 times the rate: faster and as smooth means the rate, else time",
    )


def _gain(curve: Curve, horizon: float) -> float:
    share = max(0.25, 6 / len(curve))  # on 5 values or fewer no trend can reach p < 0.01
    fall = curve.tail_trend(share)
    if curve.swing <= 0 or fall.p_down > 0.01 or -fall.change < 3 * curve.noise:
        return 0.0
    return min(curve.gain_ahead(horizon), -fall.change * horizon / share) / curve.swing
