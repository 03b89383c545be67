"""SCH002 lr-decay-too-early."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import decay_learning_rate, stretch_schedule
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import FloatArray, Run, Series, Span
from fitdoctor.signals import LOSS, LR, Signal
from fitdoctor.stats import forecast, trend
from fitdoctor.views.curves import Curve, learning_rate, need_curve, place
from fitdoctor.views.harm import find_standing
from fitdoctor.views.plans import whole_length
from fitdoctor.views.schedules import recognise
from fitdoctor.views.steps import left_over

CUTS = ("step", "multi-step", "plateau")
"""Schedules that stand still between cuts."""


@rule(
    "SCH002",
    "lr-decay-too-early",
    needs=[LOSS, (Signal(LR), Signal(LR, layer="*"))],
    explains=["plateau", "underfitting", "no-learning", "lr-too-low", "undertrained"],
    since="0.1.0",
)
def lr_decay_too_early(
    run: Run,
    *,
    decayed: float = 0.01,
    working: float = 0.3,
    share: float = 0.3,
    gain: float = 0.05,
    slowdown: float = 10.0,
    most: float = 2 / 3,
    solved: float = 0.05,
) -> Iterator[Finding]:
    """The learning rate decayed to almost nothing while the loss was still falling.

    Why it matters:
        Below about a hundredth of its peak the rate hardly moves the weights. The rest of the budget is
        spent without effect, and the run looks converged where it was stopped.

    How it is measured:
        The rate stays at or below `decayed` of its peak for more than `share` of the run. While it was above
        `working` of the peak the loss fell significantly, and its course there (a fitted saturating curve, or
        with fewer than 8 values the pace of its second half) promised a further fall in as much time again,
        but no more than was left. After that the pace was `slowdown` times smaller than promised, and the
        loss ends above the promise by `gain` of the range.

        A run of which more than `most` is spent needs no such forecast, unless it is solved: no plan is made like
        that, and what a loss does in its first third (a plateau on the way, the first fall) says little about the
        rest. A schedule that waits for a plateau of the loss is left to the forecast.

    Options:
        decayed: share of the peak below which the rate counts as spent.
        working: share of the peak above which it counts as working.
        share: least share of the run that is spent.
        gain: least shortfall, as a share of the range covered.
        slowdown: least ratio of progress before to progress after.
        most: share of the run that is spent from which no forecast is asked for.
        solved: share of the first training loss below which a run is solved.

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
    planless = rate.span.last - cut > most * (whole.last - whole.first) and not _waits(run, rate)
    count = int(np.searchsorted(curve.steps, _last_at_work(rate, working), side="right"))
    before = curve.values[:count]
    if count < 5 or len(curve) - count < 4:
        if not planless:
            raise CannotJudge(f"{count} losses while the rate was high, 5 are needed")
        if left_over(run, curve) > solved:
            yield _mostly_spent(run, curve, rate, cut, whole, decayed)
        return
    time = max(float(curve.steps[count - 1] - curve.steps[0]), 1.0)
    left = float(curve.steps[-1] - curve.steps[count - 1])
    promise = _promise(before, min(1.0, left / time))
    covered = max(curve.start - float(before.min()), 0.0)
    fallen = float(curve.smooth[count - 1]) - curve.final
    noise = 3 * curve.noise / np.sqrt(count / 2)  # of the level that half of them give
    slow = max(fallen, 0.0) / left * slowdown < promise / min(time, left)
    if covered <= 0 or not slow or promise - fallen < max(gain * covered, noise) or not _falling(before):
        if planless and left_over(run, curve) > solved:
            yield _mostly_spent(run, curve, rate, cut, whole, decayed)
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
                f"by {promise:.3g} in as much time again, had it gone on",
                marks=((cut, "rate spent"),),
            ),
        ),
        remedies=(decay_learning_rate(), stretch_schedule()),
        could_be=("converged",),
        settle_with="resume from the checkpoint at the cut with ten times the rate, then anneal it (5 % of the steps)",
    )


def _waits(run: Run, rate: Series) -> bool:
    """Whether the rate may have been cut because the loss stood still: a scheduler for that, or several cuts."""
    named = str(run.facts.get("lr_scheduler", "")).lower()
    if named:
        return "plateau" in named
    schedule = recognise(rate)
    return schedule is not None and schedule.kind in CUTS and len(schedule.milestones) > 1


def _mostly_spent(run: Run, curve: Curve, rate: Series, cut: int, whole: Span, decayed: float) -> Finding:
    stand = find_standing(run)
    share = (whole.last - cut) / (whole.last - whole.first)
    return Finding(
        message=f"learning rate spent at {place(run, cut)}: {share:.0%} of the run is at less than "
        f"{decayed:.0%} of its peak",
        severity=Severity.ERROR if stand is not None and stand.idle else Severity.WARNING,
        confidence=Confidence.HIGH,
        span=Span(cut, whole.last),
        evidence=(
            Evidence.of(rate, f"below {decayed:.0%} of its peak from {place(run, cut)} on", marks=((cut, "spent"),)),
            Evidence.of(curve.series, f"{curve.final:.4g} at the end, from {curve.start:.4g}"),
        ),
        remedies=(decay_learning_rate(), stretch_schedule()),
        could_be=("scheduler-misstepped",),
        settle_with="resume from the checkpoint at the cut with ten times the rate, then anneal it (5 % of the steps)",
    )


def spent_from(rate: Series, decayed: float) -> int | None:
    """First step from which the rate stays below a share of its peak to the end of the log, or None."""
    peak = float(rate.values.max()) if len(rate) else 0.0
    limit = decayed * peak * (1 + 1e-6)
    if peak <= 0 or rate.values[-1] > limit:
        return None
    high = np.flatnonzero(rate.values > limit)
    return int(rate.steps[high[-1] + 1])


def _last_at_work(rate: Series, working: float) -> int:
    """Last step at which the rate is above a share of its peak."""
    return int(rate.steps[np.flatnonzero(rate.values > working * rate.values.max())[-1]])


def _falling(before: FloatArray) -> bool:
    """Whether the loss was falling up to the cut: significantly, or with few values without exception."""
    late = before[len(before) // 2 :]
    return trend(late).p_down < 0.01 if len(late) >= 6 else bool(np.all(np.diff(before) < 0))


def _promise(before: FloatArray, horizon: float) -> float:
    """Fall that the course before the cut promised for `horizon` times its own length more."""
    if len(before) >= 8:
        seen = forecast(before, horizon=horizon)
        return 0.0 if seen is None else seen.gain
    middle = len(before) // 2
    first, second = float(before[0] - before[middle]), float(before[middle] - before[-1])
    if first <= 0 or second <= 0:
        return 0.0
    pace = min(second / first, 1.0)
    return horizon * second * (pace + pace**2)
