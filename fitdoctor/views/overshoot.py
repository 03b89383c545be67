"""Signs that the steps are too long: what each looks at, and what it saw."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fitdoctor.finding import Confidence, Severity
from fitdoctor.run import Run, Series
from fitdoctor.signals import ACCURACY, LOSS, PROBE_LOSS, STEP_QUALITY, UPDATE_RATIO
from fitdoctor.stats import mad_sigma
from fitdoctor.views.curves import (
    Curve,
    barely_moved,
    begins_at_start,
    chance_loss,
    find_curve,
    held_out,
    jitter,
    learning_rate,
    place,
    rate_left,
    share_of_run,
    shared_jitter,
)
from fitdoctor.views.harm import find_standing, untrained_loss
from fitdoctor.views.norms import adaptive_optimizer
from fitdoctor.views.steps import (
    UNDONE,
    beats_guessing,
    drowned,
    first_updates,
    left_over,
    noise_of_dropout,
    progress,
    stable_edge,
    step_quality,
    training_curve,
)

LOST = 0.2
"""Rise above the best loss, as a share of the first, at which what was learned is lost again."""
LARGE = 3.0
"""First loss, in losses of guessing, above which the initialisation is at fault and not the rate."""
MOVING = 1e-3
"""Largest update relative to the weights below which no step of a run can be too long: the usual size of a good one."""
GETS_ON = 0.1
"""Progress over the last 30 % of a run, as a share of its range, at which it is still on its way."""
EARLY_CAUSES = ("bad initialisation", "unnormalised inputs", "a bug in the loss")


@dataclass(frozen=True, slots=True)
class Sign:
    """One sign that steps are too long.

    Attributes:
        message: what went wrong, with its numbers.
        observed: what `series` shows.
        expected: what it would show otherwise.
        onset: the step at which it began.
        early: whether the first steps did it, so that a warm-up helps; else the last ones, and a decay does.
    """

    message: str
    observed: str
    expected: str
    onset: int
    series: Series
    severity: Severity
    confidence: Confidence
    could_be: tuple[str, ...]
    early: bool


def ramped(run: Run, series: Series, factor: float) -> Sign | None:
    """The loss grew severalfold just before it turned non-finite."""
    bad = np.nonzero(~np.isfinite(series.values))[0]
    if len(bad) == 0:
        return None
    first = int(bad[0])
    before = series[:first]
    if len(bad) < 0.5 * (len(series) - first) or len(before) < 2:
        return None  # it came back, or nothing was seen before
    values = before.values
    best = float(values.min())
    last = float(np.median(values[-3:])) if len(values) >= 12 else float(values[-1])
    scale = max(abs(float(values[0])), abs(best))
    if not (best > 0 and last > factor * max(best, 0.5 * scale)):
        return None
    low = int(np.argmin(values))
    onset = int(before.steps[min(low + 1, len(before) - 1)])
    return Sign(
        message=f"training loss grew {last / best:.2g}-fold to {last:.3g}, "
        f"then turned non-finite at {place(run, int(series.steps[first]))}",
        observed=f"{last:.4g} just before the first non-finite value",
        expected=f"near its best, {best:.4g}",
        onset=onset,
        series=series,
        severity=Severity.ERROR,
        confidence=Confidence.MEDIUM,
        could_be=("exploding-gradients", "bad initialisation"),
        early=True,
    )


def climbed(run: Run, curve: Curve, factor: float, poor: float) -> Sign | None:
    """The loss climbed above where it began, and the run never made up for it."""
    start = curve.start
    if start <= 0 or drowned(run) is not None:
        return None
    # a single high value counts only where one value is worth something: noise below 5 % of the start
    heights = curve.values if curve.noise < 0.05 * start else curve.smooth
    peak_index = int(np.argmax(heights))
    peak = float(heights[peak_index])
    if peak < start * (1 + factor) + 5 * curve.noise:
        return None
    if _trained_and_kept(run, curve):
        return None
    aloft = float(np.mean(curve.smooth > start))
    late = curve.tail_trend(0.6)
    stalled = late.p_down > 0.01 or -late.change < 0.03 * max(start - curve.best, 0.0)
    if aloft < 0.2 and curve.final < 0.9 * start and not (curve.final > 0.5 * start and stalled):
        return None  # back below its start soon, and getting on: a catapult or a rough first phase
    above = np.nonzero(curve.values > start * (1 + factor / 2))[0]
    onset = int(curve.steps[int(above[0])]) if len(above) else int(curve.steps[peak_index])
    return Sign(
        message=f"training loss climbed from {start:.4g} to {peak:.4g} and ended at {curve.final:.4g}",
        observed=f"{peak:.4g} at {place(run, int(curve.steps[peak_index]))}, {curve.final:.4g} at the end",
        expected=f"falling from {start:.4g}",
        onset=onset,
        series=curve.series,
        severity=_by_ending(run, curve, poor),
        confidence=Confidence.MEDIUM,
        could_be=("a change of the data",) if share_of_run(run, onset) > 0.2 else EARLY_CAUSES,
        early=True,
    )


def _trained_and_kept(run: Run, curve: Curve) -> bool:
    """Whether it began as a trained model and is as good as it was: then its own first loss is no measure."""
    chance = chance_loss(run)
    return chance is not None and curve.start < 0.5 * chance and curve.final < curve.start + 0.05 * chance


def _by_ending(run: Run, curve: Curve, poor: float) -> Severity:
    """What a blow-up is worth, by where it ended: a note where training and held-out loss made up for it."""
    if curve.final >= poor * curve.start:
        return Severity.ERROR
    split = held_out(run)
    val = find_curve(run, LOSS, split) if split else None
    return Severity.NOTE if val is None or val.final < poor * curve.start else Severity.WARNING


def no_room(run: Run, room: float) -> Sign | None:
    """The first steps were near or above the stable rate, and the run learned nothing or lost it again."""
    stand = find_standing(run)
    if stand is None or stand.left == math.inf or noise_of_dropout(run) is not None:
        return None  # what ends as no number may have learned before
    curve, idle = stand.curve, stand.idle and not beats_guessing(run)
    lost = stand.mature and stand.unsolved and curve.final - curve.best > LOST * curve.start
    if not (idle or lost) or _trained_and_kept(run, curve):
        return None
    if _began_large(run, curve):
        return None  # outputs drawn as large make any step too long
    ended = "nothing was learned" if idle else "what was learned was lost"
    seen = _overshoots(run, room) or (_undoes(run) if idle else None)
    if seen is None:
        return None
    what, observed, expected, series = seen
    return Sign(
        message=f"the first steps {what}, and {ended}: loss {curve.final:.4g}",
        observed=observed,
        expected=f"{expected}, or a loss that falls",
        onset=curve.series.span.first,
        series=series,
        severity=Severity.ERROR,
        confidence=Confidence.HIGH,
        could_be=(),
        early=True,
    )


def _began_large(run: Run, curve: Curve) -> bool:
    untrained = untrained_loss(run, curve)
    return untrained is not None and curve.start > LARGE * untrained


def _hardly_moves(run: Run) -> bool:
    moved = run.get(UPDATE_RATIO)
    return moved is not None and len(moved.finite) > 0 and float(moved.finite.values.max()) < MOVING


def _overshoots(run: Run, room: float) -> tuple[str, str, str, Series] | None:
    """First steps that lower the loss of their own batch by much less than the gradient promises."""
    edge, quality = stable_edge(run), run.get(STEP_QUALITY)
    if edge is None or edge >= room or quality is None or len(quality.finite) < 5 or _hardly_moves(run):
        return None  # the quality of one step scatters; what very short ones change is rounding
    helped = 1 - 1 / edge
    return (
        f"overshoot (step quality {helped:.2g})",
        f"lower quartile {helped:.2g} over the first steps at the whole rate",
        f"above {1 - 1 / room:.2f}",
        quality,
    )


def _undoes(run: Run) -> tuple[str, str, str, Series] | None:
    """First steps so long that they undo the initialisation."""
    first, ratio = first_updates(run), run.get(UPDATE_RATIO)
    if first is None or ratio is None or first < UNDONE:
        return None
    return f"are {first:.2g} times the weights", f"up to {first:.2g} in the first records", f"below {UNDONE:g}", ratio


def outgrown(run: Run, curve: Curve, poor: float) -> Sign | None:
    """What was learned while the rate warmed up was lost at the whole rate, for most of the time there."""
    rate = learning_rate(run)
    if rate is None or len(rate.finite) < 5 or curve.start <= 0:
        return None
    used, peak = rate.finite.at(curve.steps), float(rate.finite.values.max())
    high = np.flatnonzero(used >= 0.5 * peak)
    if not len(high) or high[0] < 2 or used[0] > 0.25 * peak:
        return None  # no warm-up
    warm = curve.smooth[: high[0] + 1]
    best, whole = float(warm.min()), curve.smooth[high]
    margin = max(curve.noise, 0.05 * (curve.start - best))
    above = float(np.mean(whole > best + margin))
    if above < 0.5 or len(whole) < 5 or curve.final < poor * curve.start or _trained_and_kept(run, curve):
        return None
    onset = int(curve.steps[int(warm.argmin())])
    level = float(np.median(whole))
    return Sign(
        message=f"warm-up reached a loss of {best:.3g}, the whole rate held {level:.3g}; it ends at {curve.final:.3g}",
        observed=f"{best:.4g} at {place(run, onset)}, above {best + margin:.4g} for {above:.0%} of the time since",
        expected="falling on at the whole rate",
        onset=onset,
        series=curve.series,
        severity=Severity.WARNING,
        confidence=Confidence.HIGH if above > 0.8 else Confidence.MEDIUM,
        could_be=("a change of the data",),
        early=False,
    )


def steep(run: Run, curve: Curve, steady: float, poor: float) -> Sign | None:
    """For half of the run the steps gained little more than half of what the gradient promises, and it ended poor."""
    quality = step_quality(run, least=20)
    if quality is None or quality.early >= steady or noise_of_dropout(run) is not None or _hardly_moves(run):
        return None
    seen = training_curve(run)
    left = left_over(run, seen)
    if left < poor or _trained_and_kept(run, curve) or _began_large(run, curve) or progress(seen, 0.3) > GETS_ON:
        return None  # with progress that is the edge of stability
    return Sign(
        message=f"steps gain little (step quality {quality.early:.2g}), and {left:.0%} of the loss is left",
        observed=f"median {quality.early:.2g} over the first half of the steps at the whole rate",
        expected=f"above {steady:g}, or a loss below {poor:.0%} of its start",
        onset=curve.series.span.first,
        series=quality.series,
        severity=Severity.WARNING,
        confidence=Confidence.MEDIUM,
        could_be=("noise that no model can fit",),
        early=False,
    )


def no_help(run: Run, curve: Curve, helpful: float, stalled: float, poor: float) -> Sign | None:
    """Steps no longer lower the loss of their own batch, and nothing gets on."""
    quality = step_quality(run, least=20)
    if quality is None or quality.late >= helpful or curve.final < poor * curve.start:
        return None
    seen = [c for c in (curve, find_curve(run, PROBE_LOSS)) if c is not None]
    if any(progress(c, 0.6) > stalled for c in seen):
        return None  # the edge of stability
    onset = int(quality.series.steps[len(quality.series) // 2])
    return Sign(
        message=f"steps stopped helping their own batch (step quality {quality.late:.2g}), loss {curve.final:.3g}",
        observed=f"median {quality.late:.2g} over the second half of the steps, {quality.early:.2g} before",
        expected=f"above {helpful:g}, or a loss that still falls",
        onset=onset,
        series=quality.series,
        severity=Severity.WARNING,
        confidence=Confidence.HIGH,
        could_be=(),
        early=False,
    )


def leapt(run: Run, series: Series, curve: Curve, leap: float, poor: float) -> Sign | None:
    """The very first steps threw the weights far away, and the run never made up for it."""
    if not begins_at_start(run, series) or curve.start <= 0 or curve.final < poor * curve.start:
        return None
    accuracy = find_curve(run, ACCURACY)
    if accuracy is not None and accuracy.shown(accuracy.final) > 0.9:
        return None
    first = first_updates(run)
    values = series.finite.values[: max(10, len(series) // 100)]
    rest = series.finite.values[len(values) :]
    peak = float(values.max())
    wiped = first is not None and first >= 1.0
    if len(rest) < len(values) or _trained_and_kept(run, curve):
        return None  # it may still make up for it
    usual = float(np.median(rest)) + 10 * mad_sigma(rest)  # of losses that scatter as far anyway
    if not (wiped or (peak > leap * curve.start and peak > usual)):
        return None
    onset = int(series.finite.steps[int(np.argmax(values))])
    if peak > 1.5 * curve.start:
        message = f"the first steps raised the loss from {curve.start:.4g} to {peak:.4g}; it ends at {curve.final:.4g}"
    else:
        message = f"the first updates are {first:.2g} times the weights; the loss ends at {curve.final:.4g}"
    return Sign(
        message=message,
        observed=f"{peak:.4g} at {place(run, onset)}, {curve.final:.4g} at the end",
        expected=f"falling from {curve.start:.4g} to below {poor:.0%} of it",
        onset=onset,
        series=series,
        severity=Severity.WARNING,
        confidence=Confidence.MEDIUM if wiped else Confidence.LOW,
        could_be=("underfitting",) if wiped else ("warmup-missing-or-short", "underfitting"),
        early=True,
    )


def noisy_floor(
    run: Run, curve: Curve, jump: float, stalled: float, together: float, alone: float, poor: float
) -> Sign | None:
    """The loss jumps around a floor that it reached early, and makes no progress."""
    split = held_out(run)
    val = find_curve(run, LOSS, split, least=20) if split else None
    left = rate_left(run)
    if val is None or len(curve) < 20 or (left is not None and left < 0.3):
        return None
    start = max(val.start, curve.start)
    if barely_moved(curve) or val.final < poor * start:
        return None
    quality = step_quality(run)
    if quality is not None and quality.late >= 0.5 and adaptive_optimizer(run) is False:
        return None  # steps are short of the edge: what jumps is the noise of the batches
    # A first evaluation after an epoch hides most of the range, which the first training losses show; and where
    # little was to be learned, the range is measured by the loss itself.
    swing = max(val.swing, curve.start - val.best, 0.5 * start)
    if swing <= 0 or curve.swing <= 0:
        return None
    share = jitter(val, 0.6) / swing
    val_late = val.tail_trend(0.6)
    gained = max(progress(curve, 0.6), -val_late.change / swing if val_late.p_down < 0.05 else 0.0)
    linked = shared_jitter(curve, val)
    wild = jitter(curve, 0.6) > jump * curve.swing and share > alone * jump
    if share < jump or (gained > stalled and not wild) or not (linked >= together or wild):
        return None
    onset = int(val.steps[min(len(val) - 1, round(0.4 * len(val)))])
    sure = linked >= together
    moved = "training and validation loss jump together" if sure else "the loss on the same validation data jumps"
    return Sign(
        message=f"{split} loss hangs around {val.final:.3g}, jumping by {share:.1%} of its range between evaluations",
        observed=f"{moved}: standard deviation {jitter(val, 0.6):.3g}, "
        f"progress {gained:.1%} of the range in the last 60 %",
        expected=f"jumps below {jump:.1%} of the range, or progress above {stalled:.0%}",
        onset=onset,
        series=val.series,
        severity=Severity.WARNING,
        confidence=Confidence.MEDIUM if sure else Confidence.LOW,
        could_be=("lr-noise-floor",) if sure else ("lr-noise-floor", "val-set-too-noisy"),
        early=False,
    )
