"""SCH003 scheduler-misstepped."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import step_scheduler_once
from fitdoctor.remedies.setup import step_scheduler_after_optimizer, step_scheduler_at_all
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Series, Span
from fitdoctor.signals import LOSS, LR, Signal
from fitdoctor.views.curves import find_curve, learning_rate, place
from fitdoctor.views.plans import planned_length, steps_per_epoch, whole_length
from fitdoctor.views.schedules import Schedule, recognise

ENDING = ("cosine", "one-cycle", "linear", "polynomial")
"""Schedules that are built with the number of steps they take."""


@rule(
    "SCH003",
    "scheduler-misstepped",
    needs=[(Signal(LR), Signal(LR, layer="*"))],
    explains=["lr-decay-too-early", "plateau", "underfitting", "no-learning", "lr-too-low", "undertrained"],
    since="0.1.0",
)
def scheduler_misstepped(
    run: Run,
    *,
    spent: float = 0.01,
    early: float = 0.1,
    idle: float = 0.2,
    left: float = 0.2,
    long: int = 300,
    least: int = 8,
) -> Iterator[Finding]:
    """The schedule's length does not match the run: it was stepped too often, too rarely, or not at all.

    Why it matters:
        A scheduler counts its own calls. Stepped once per batch with a length in epochs, the rate is gone
        after the first epochs, or goes up and down again; stepped once per epoch with a length in batches,
        it never falls.

    How it is measured:
        From the shape of the logged learning rate. (1) A cosine that falls and then gradually rises again
        ran past its end: a warning when the run ends above `left` of the peak. (2) The rate falls below
        `spent` of its peak within the first `early` of the run and stays there, other than by a single cut. (3) A
        schedule that is built with its own length reaches its end and stays below `spent` of the peak for more
        than `idle` of the run. (4) A finished run ends above `left` of the peak, on a curve that would have gone on
        for more
        than a tenth of the run. (5) A step schedule with a known epoch length cuts more than once an epoch.
        (6) The log names a scheduler, and the rate never moves. Where hooks counted its calls: (7) it was never
        called in a finished run of several evaluations or `long` steps; (8) it was called before the first
        optimizer step, which skips its first value: a note.

    Options:
        spent: share of the peak below which the rate hardly moves the weights.
        early: share of the run.
        idle: share of the run spent at the schedule's lowest value.
        left: share of the peak.
        long: steps of a run in which any scheduler should have been called.
        least: fewest logged learning rates.

    When it is wrong:
        A run stopped early ends in the middle of its schedule; only runs known to be finished are reported
        for that. A tail at a small constant rate can be meant. Warm restarts, cyclic and one-cycle
        schedules, warm-up and constant rates are healthy and are not reported.

    What to do:
        Give the scheduler the number of times it is really called, and call it once per optimizer step.

    References:
        PyTorch documentation: CosineAnnealingLR is periodic beyond T_max; OneCycleLR is stepped per batch.
        Loshchilov and Hutter 2017 for warm restarts. Shares are design values.
    """
    rate = learning_rate(run)
    assert rate is not None  # the rule needs it
    rate = rate.finite
    if len(rate) < least:
        raise CannotJudge(f"{len(rate)} learning rates logged, {least} are needed")
    schedule = recognise(rate)
    if schedule is None or schedule.peak <= 0:
        raise CannotJudge("the learning rate is 0 throughout")
    checks = (
        _rises_again(run, rate, schedule, left),
        _never_called(run, rate, long),
        _never_moves(run, rate, schedule),
        _cuts_within_epochs(run, rate, schedule),
        _spent_early(run, rate, schedule, spent, early, idle),
        _never_arrives(run, rate, schedule, left),
        _called_first(run, rate),
    )
    found = next((f for f in checks if f is not None), None)
    if found is not None:
        yield found
    elif run.finished is False and planned_length(run) is None:
        raise CannotJudge("the run is not finished and its planned length is unknown; set the fact planned_steps")


def _total(run: Run) -> int | None:
    """Number of steps of the whole run, or None while it is not known."""
    try:
        whole = whole_length(run)
    except CannotJudge:
        return None
    return whole.last - whole.first + 1


def _unlearned(run: Run) -> bool:
    """The training loss ends within a tenth of where it began."""
    curve = find_curve(run, LOSS)
    return curve is not None and curve.final > 0.9 * curve.start > 0


def _rises_again(run: Run, rate: Series, schedule: Schedule, left: float) -> Finding | None:
    if not schedule.rises_again or schedule.kind != "cyclic":
        return None
    valley = next(s.last for s in schedule.segments if s.direction == "down")
    waves = "" if schedule.cycles == 1 else f", {schedule.cycles} times"
    high = schedule.final > left * schedule.peak
    return Finding(
        message=f"learning rate falls until {place(run, valley)} and then rises again{waves}",
        severity=Severity.WARNING if high else Severity.NOTE,
        confidence=Confidence.HIGH if schedule.cycles == 1 else Confidence.MEDIUM,
        span=Span(valley, rate.span.last),
        evidence=(
            Evidence.of(
                rate,
                f"{schedule.final:.3g} at the end, {schedule.final / schedule.peak:.0%} of its peak",
                "its lowest value at the end",
                marks=((valley, "end of the cosine"),),
            ),
        ),
        remedies=(step_scheduler_once(_total(run), run.step_unit),),
        could_be=() if schedule.cycles == 1 else ("a cosine wave that is meant",),
    )


def _calls(run: Run) -> int | None:
    """How often hooks saw the scheduler called, None where they did not look."""
    calls = run.facts.get("scheduler_steps")
    return calls if isinstance(calls, int) and not isinstance(calls, bool) else None


def _never_called(run: Run, rate: Series, long: int) -> Finding | None:
    held = run.get(LOSS, "val")
    steps = rate.span.last - rate.span.first
    if _calls(run) != 0 or run.finished is not True or (steps < long and (held is None or len(held) < 2)):
        return None
    name = str(run.facts.get("lr_scheduler", "the scheduler"))[:30]
    seen = f"{rate.values[0]:.3g} at first, {rate.values[-1]:.3g} at the end"
    return Finding(
        message=f"{name} was not stepped once in {steps + 1} steps of the optimizer",
        severity=Severity.WARNING,
        confidence=Confidence.HIGH,
        span=rate.span,
        evidence=(Evidence.of(rate, seen, "a rate that follows its plan"),),
        remedies=(step_scheduler_at_all(),),
    )


def _called_first(run: Run, rate: Series) -> Finding | None:
    if run.facts.get("scheduler_before_optimizer") is not True:
        return None
    return Finding(
        message=f"the scheduler is stepped before the optimizer: the rate of step 1 is {rate.values[0]:.3g}",
        severity=Severity.NOTE,
        confidence=Confidence.HIGH,
        span=rate.span,
        evidence=(Evidence.of(rate, f"{rate.values[0]:.3g} at the first step", "the first value of the schedule"),),
        remedies=(step_scheduler_after_optimizer(),),
    )


def _never_moves(run: Run, rate: Series, schedule: Schedule) -> Finding | None:
    if _calls(run) is not None:
        return None  # the calls are known: a rate that stays is what the scheduler says
    named = str(run.facts.get("lr_scheduler", run.facts.get("schedule", ""))).lower()
    if schedule.kind != "constant" or not named or any(word in named for word in ("constant", "none", "plateau")):
        return None
    if schedule.warmup_steps or _total(run) is None or rate.span.last < 0.9 * (_total(run) or 0):
        return None
    return Finding(
        message=f"learning rate stays at {schedule.final:.3g} although the log names the scheduler {named[:30]!r}",
        severity=Severity.WARNING,
        confidence=Confidence.MEDIUM,
        span=rate.span,
        evidence=(Evidence.of(rate, f"{schedule.final:.3g} at all {len(rate)} points", "a rate that falls"),),
        remedies=(step_scheduler_once(_total(run), run.step_unit),),
        could_be=("the log shows another parameter group", "a schedule whose first change lies beyond the run"),
    )


def _cuts_within_epochs(run: Run, rate: Series, schedule: Schedule) -> Finding | None:
    per_epoch = steps_per_epoch(run)
    if per_epoch is None or schedule.kind != "step" or not 0 < schedule.every < 0.9 * per_epoch:
        return None
    if len(schedule.milestones) < 3:
        return None
    times = per_epoch / schedule.every
    return Finding(
        message=f"learning rate is cut {times:.1f} times an epoch, every {schedule.every} of {per_epoch} steps",
        severity=Severity.ERROR if _unlearned(run) else Severity.WARNING,
        confidence=Confidence.HIGH,
        span=rate.span,
        evidence=(
            Evidence.of(
                rate,
                f"x{schedule.factor:.3g} every {schedule.every} steps",
                f"cuts at ends of epochs, every {per_epoch} steps",
                marks=tuple((m, "cut") for m in schedule.milestones[:5]),
            ),
        ),
        remedies=(step_scheduler_once(None, "epoch"),),
    )


def _spent_early(run: Run, rate: Series, schedule: Schedule, spent: float, early: float, idle: float) -> Finding | None:
    total = _total(run)
    limit = spent * schedule.peak * (1 + 1e-6)  # two cuts to a tenth are a hundredth, but for rounding
    if total is None or schedule.final > limit or schedule.kind in ("warm-restarts", "constant"):
        return None
    if schedule.kind == "step" and len(schedule.milestones) == 1:
        return None  # one cut has no pace that calls could be counted by: lr-decay-too-early
    high = np.flatnonzero(rate.values > limit)
    at = int(rate.steps[high[-1] + 1])
    done = (at - rate.span.first) / total
    seen = (rate.span.last - at) / total  # what has not been logged yet may still rise
    ran_out = (
        schedule.kind in ENDING and seen > idle and schedule.final <= 1.01 * float(rate.values[high[-1] + 1 :].min())
    )
    if not (done < early and seen > 0.5) and not ran_out:
        return None
    curve = find_curve(run, LOSS)
    return Finding(
        message=f"learning rate is below {spent:.0%} of its peak after {done:.0%} of the run ({place(run, at)})",
        severity=Severity.ERROR if done < early and _unlearned(run) else Severity.WARNING,
        confidence=Confidence.HIGH if done < early else Confidence.MEDIUM,
        span=Span(rate.span.first if done < early else at, rate.span.last),
        evidence=(
            Evidence.of(
                rate,
                f"{schedule.final:.3g} from {place(run, at)} on, peak {schedule.peak:.3g} ({schedule})",
                "its lowest value near the end of the run",
                marks=((at, "spent"),),
            ),
            *((Evidence.of(curve.series, f"{curve.final:.4g} at the end"),) if curve is not None else ()),
        ),
        remedies=(step_scheduler_once(total, run.step_unit),),
        could_be=("lr-decay-too-early",),
    )


def _never_arrives(run: Run, rate: Series, schedule: Schedule, left: float) -> Finding | None:
    total = _total(run)
    end = schedule.planned_end
    if total is None or end is None or schedule.kind not in ENDING or schedule.final <= left * schedule.peak:
        return None
    planned = planned_length(run)
    complete = run.finished is True or (planned is not None and rate.span.last >= 0.98 * planned)
    if not complete or end - rate.span.first <= 1.1 * total:
        return None
    return Finding(
        message=f"run ends at {schedule.final / schedule.peak:.0%} of the peak learning rate; "
        f"its {schedule.kind} schedule ends at {run.step_unit} {end}",
        severity=Severity.WARNING,
        confidence=Confidence.MEDIUM,
        span=Span(rate.span.last, rate.span.last),
        evidence=(
            Evidence.of(
                rate,
                f"{schedule.final:.3g} at {place(run, rate.span.last)}",
                f"near its lowest value; the {schedule.kind} would get there at {run.step_unit} {end}",
            ),
        ),
        remedies=(step_scheduler_once(total, run.step_unit),),
        could_be=("a run that was stopped early",),
    )
