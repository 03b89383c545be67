"""SCH002 lr-decay-too-early."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.curves import learning_rate, need_curve, place
from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.plans import whole_length
from fitdoctor.remedies import decay_learning_rate, stretch_schedule
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import FloatArray, Run, Series, Span
from fitdoctor.signals import LOSS, LR, Signal
from fitdoctor.stats import forecast, trend


@rule(
    "SCH002",
    "lr-decay-too-early",
    needs=[LOSS, (Signal(LR), Signal(LR, layer="*"))],
    explains=["plateau", "underfitting", "lr-too-low", "undertrained"],
    since="0.1.0",
)
def lr_decay_too_early(
    run: Run, *, decayed: float = 0.01, share: float = 0.3, gain: float = 0.05, slowdown: float = 10.0
) -> Iterator[Finding]:
    """The learning rate decayed to almost nothing while the loss was still falling.

    Why it matters:
        Below about a hundredth of its peak the rate hardly moves the weights. The rest of the budget is
        spent without effect, and the run looks converged where it was stopped.

    How it is measured:
        The rate stays below `decayed` of its peak for more than `share` of the run. Before that the loss
        fell significantly, and a saturating curve fitted there promised at least `gain` of the range within
        a quarter of the same time more. After it, progress per step is `slowdown` times smaller, and the
        loss ends above that promise by `gain` of the range.

    Options:
        decayed: share of the peak below which the rate counts as spent.
        share: least share of the run spent below it.
        gain: least forecast gain and shortfall, as a share of the range covered.
        slowdown: least ratio of progress before to progress after.

    When it is wrong:
        The last fall before the cut may be the annealing itself, which a fitted curve takes for a trend. A
        converged model has nothing left to forecast and is not reported.

    What to do:
        Spread the schedule over the whole run, or switch the decay off first and add it last.

    References:
        Karpathy 2019, A Recipe for Training Neural Networks: decay schedules copied from elsewhere drive the
        rate to 0 too early. Thresholds are design values.
    """
    rate = learning_rate(run)
    assert rate is not None  # the rule needs it
    rate = rate.finite
    curve = need_curve(run, LOSS, least=16)
    whole = whole_length(run)
    cut = spent_from(rate, decayed)
    if cut is None or whole.last - cut <= share * (whole.last - whole.first):
        return
    before, after = curve.values[curve.steps <= cut], curve.values[curve.steps > cut]
    if len(before) < 8 or len(after) < 4:
        raise CannotJudge(
            f"{len(before)} losses before the rate is spent, 8 are needed, and {len(after)} after it, 4 are"
        )
    promise = _promise(before)
    covered = max(curve.start - float(before.min()), 0.0)
    noise = 3 * curve.noise / np.sqrt(len(before) / 2)  # of the level that the late half of them gives
    if covered <= 0 or promise < max(gain * covered, noise) or trend(before[len(before) // 2 :]).p_down > 0.01:
        return
    steps_before = max(float(curve.steps[len(before) - 1] - curve.steps[0]), 1.0)
    fallen = max(float(np.median(before[-3:])) - curve.final, 0.0)
    per_step_after = fallen / max(float(curve.steps[-1] - cut), 1.0)
    per_step_promised = promise / (0.25 * steps_before)
    missed = promise - fallen
    if per_step_after * slowdown > per_step_promised or missed < gain * covered:
        return
    yield Finding(
        message=f"learning rate spent at {place(run, cut)}; {(whole.last - cut) / (whole.last - whole.first):.0%} "
        f"of the run then gained {fallen:.2g}",
        severity=Severity.WARNING,
        confidence=Confidence.MEDIUM,
        span=Span(cut, whole.last),
        evidence=(
            Evidence.of(rate, f"below {decayed:.0%} of its peak from {place(run, cut)} on", marks=((cut, "spent"),)),
            Evidence.of(
                curve.series,
                f"fell by {fallen:.3g} after {place(run, cut)}",
                f"by {promise:.3g} within a quarter of the time before, had it gone on",
                marks=((cut, "rate spent"),),
            ),
        ),
        remedies=(stretch_schedule(), decay_learning_rate()),
        could_be=("converged",),
        settle_with="resume from the checkpoint at the cut with ten times the rate, then anneal it (5 % of the steps)",
    )


def spent_from(rate: Series, decayed: float) -> int | None:
    """First step from which the rate stays below a share of its peak to the end of the log, or None."""
    peak = float(rate.values.max()) if len(rate) else 0.0
    if peak <= 0 or rate.values[-1] > decayed * peak:
        return None
    high = np.flatnonzero(rate.values > decayed * peak)
    return int(rate.steps[high[-1] + 1])


def _promise(before: FloatArray) -> float:
    """Fall that the curve before the cut promised for a quarter of the same time more."""
    seen = forecast(before, horizon=0.25)
    return 0.0 if seen is None else seen.gain
