"""SCH001 warmup-too-long."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import shorten_warm_up
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import LR, Signal
from fitdoctor.views.curves import learning_rate, place
from fitdoctor.views.plans import whole_length
from fitdoctor.views.schedules import recognise


@rule(
    "SCH001",
    "warmup-too-long",
    needs=[(Signal(LR), Signal(LR, layer="*"))],
    explains=["undertrained", "lr-too-low", "underfitting"],
    since="0.1.0",
)
def warmup_too_long(
    run: Run, *, share: float = 0.25, wasted: float = 0.5, reached: float = 0.9, least: int = 8
) -> Iterator[Finding]:
    """The learning rate spends much of the run below the peak it is warming up to.

    Why it matters:
        During warm-up the rate is smaller than the one that was chosen. A warm-up counted in steps that are
        few in a long run can take up most of a short one, which then never trains at its own rate.

    How it is measured:
        From the logged learning rate: it rises from the start, and it is still below `reached` of its peak
        after `share` of the run (a note) or `wasted` of it (a warning), or it still rises at the end (a
        warning). Cyclic schedules are not judged, nor is one-cycle once it falls again.

    Options:
        share: share of the run in warm-up that is worth a note.
        wasted: share of the run in warm-up that is worth a warning.
        reached: share of the peak that counts as reached.
        least: fewest logged learning rates.

    When it is wrong:
        A learning-rate range test rises from beginning to end on purpose. So do methods that estimate the
        rate while they train.

    What to do:
        Warm up for at most a tenth of the run.

    References:
        Godbole et al. 2023, Deep Learning Tuning Playbook: warm-up of at most 10 % of the budget; Goyal et
        al. 2017 use 5 of 90 epochs. One-cycle rises for 30 % (Smith and Topin 2018).
    """
    rate = learning_rate(run)
    assert rate is not None  # the rule needs it
    rate = rate.finite
    if len(rate) < least:
        raise CannotJudge(f"{len(rate)} learning rates logged, {least} are needed")
    whole = whole_length(run)
    schedule = recognise(rate)
    if schedule is None or schedule.warmup_steps == 0 or schedule.kind in ("cyclic", "warm-restarts", "unknown"):
        return
    if next(s for s in schedule.segments if s.direction == "up").sudden:
        return  # one jump is a change of settings, or a warm-up too short to matter
    rising = schedule.kind == "warm-up"
    if schedule.kind == "one-cycle" or (rising and rate.span.last < whole.last - 0.02 * (whole.last - whole.first)):
        return  # one-cycle rises for long on purpose; a run in the midst of its plan may still rise
    low = rate.steps[rate.values < reached * schedule.peak]
    peak_at = int(rate.steps[np.argmax(rate.values)])
    last_low = int(low[low < peak_at].max(initial=whole.first))
    length = max(whole.last - whole.first, 1)
    spent = (last_low - whole.first) / length
    if not rising and spent <= share:
        return
    state = "still rises at the end" if rising else f"is below {reached:.0%} of its peak for {spent:.0%} of the run"
    yield Finding(
        message=f"learning rate {state} ({place(run, rate.span.last if rising else last_low)})",
        severity=Severity.WARNING if rising or spent > wasted else Severity.NOTE,
        confidence=Confidence.HIGH,
        span=Span(whole.first, last_low),
        evidence=(
            Evidence.of(
                rate,
                f"below {reached:.0%} of its peak until {place(run, last_low)}",
                f"at its peak by {place(run, whole.first + round(0.1 * length))}, a tenth of the run",
                marks=((last_low, "end of warm-up"),),
            ),
        ),
        remedies=(shorten_warm_up(max(1, round(0.05 * length))),),
        could_be=("a learning-rate range test",) if rising else (),
    )
