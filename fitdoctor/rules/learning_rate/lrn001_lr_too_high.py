"""LRN001 lr-too-high."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Remedy, Severity
from fitdoctor.remedies import decay_learning_rate, lower_learning_rate, search_learning_rate, warm_up
from fitdoctor.rule import rule
from fitdoctor.run import Run, Series, Span
from fitdoctor.signals import ACCURACY, LOSS, PROBE_LOSS, UPDATE_RATIO
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
    need_curve,
    place,
    rate_left,
    share_of_run,
    shared_jitter,
)
from fitdoctor.views.harm import find_standing
from fitdoctor.views.norms import adaptive_optimizer
from fitdoctor.views.steps import first_updates, progress, stable_edge, step_quality

EARLY_CAUSES = ("bad initialisation", "unnormalised inputs", "a bug in the loss")
FIRST_UPDATE = 0.1
"""Ratio of the first updates to the weights at which a rate is surely sound: at or just below the best of each grid."""
WIPED = 0.3
"""First updates, relative to the weights, that undo an initialisation where they do not even help their batch."""
SETTLE = "train from scratch at a tenth of the rate for a tenth of the steps: a lower loss settles it"


@dataclass(frozen=True, slots=True)
class _Sign:
    """One sign that steps are too long."""

    message: str
    observed: str
    expected: str
    onset: int
    series: Series
    severity: Severity
    confidence: Confidence
    could_be: tuple[str, ...]
    remedy: Remedy


@rule(
    "LRN001",
    "lr-too-high",
    needs=[LOSS],
    explains=[
        "loss-divergence",
        "nonfinite-loss",
        "hidden-nonfinite",
        "exploding-gradients",
        "gradient-spikes",
        "gradient-clipping-saturated",
        "warmup-missing-or-short",
        "no-learning",
        "plateau",
        "loss-spikes",
        "lr-noise-floor",
        "underfitting",
        "val-set-too-noisy",
        "overconfidence-drift",
        "val-better-than-train",
        "best-epoch",
        "undertrained",
        "class-collapse",
        "dead-relu",
        "input-collapse",
        "saturated-activations",
        "logit-drift",
        "attention-entropy-collapse",
        "layerwise-update-imbalance",
        "adam-second-moment-lag",
        "gradscaler-stuck",
    ],
    since="0.1.0",
)
def lr_too_high(
    run: Run,
    *,
    blow_up: float = 0.2,
    ramp: float = 2.0,
    jump: float = 0.025,
    stalled: float = 0.03,
    together: float = 0.5,
    alone: float = 4.0,
    poor: float = 0.2,
    leap: float = 3.0,
    helpful: float = 0.1,
) -> Iterator[Finding]:
    """A lower learning rate would have trained further with the same budget.

    Why it matters:
        The learning rate is the setting that most often decides whether a run is any good, and a rate that
        is too high wastes the whole budget: the weights jump across the valley instead of descending.

    How it is measured:
        Five signs, none of which looks at the value of the rate. Blow-up: the training loss climbs above
        its first value by `blow_up` (and 5 noise standard deviations), and stays above it for a fifth of the
        run, or ends near or above it, or comes to rest above half of it. Where it ends below `poor` of it, that is a
        warning, and a note where the held-out loss does so too.
        Ramp: the loss at least doubles (`ramp`) over its best before it turns non-finite. Noisy floor: over
        the last 60 % of the run the loss makes less than `stalled` of its range in progress while it jumps
        by more than `jump` of that range from one evaluation of the same data to the next, training and
        validation loss jumping together (correlation of changes above `together`): the weights themselves
        jump. Jumps of `alone` times that size count by themselves, progress or not: each evaluation then
        wins or loses a tenth of all that there was to learn. A floor below `poor` of the first loss is good
        enough and is left alone. The floor is not judged once the rate has been annealed below 30 % of its peak.
        Leap: where the loss is logged per step from the first one on, it grows to `leap` times its first value
        within the first 1 % of the steps (at least 10), and the training never makes up for it: it ends above `poor`,
        with accuracy, where logged, below 90 %. With the hooks' signals, a first step as long as the weights
        themselves, which wipes out their initialisation, counts as a leap as well; so do first updates of 30 % of the
        weights at three quarters of the stable rate or above (read off the first step qualities) where nothing is
        ever learned. No help: the median step quality is below `helpful`, so that a step no longer lowers the loss of
        its own batch, while neither the fixed batch nor the training loss makes progress; with progress that is the
        edge of stability, and healthy.
        Where the steps of plain or momentum SGD do help their own batch by at least half of what the gradient
        promises, a noisy floor is left to lr-noise-floor.

    Options:
        blow_up: rise over the first loss, as a share of it.
        ramp: factor by which the loss grows before it turns non-finite.
        jump: standard deviation of successive evaluations as a share of the range covered.
        stalled: progress over the last 60 % as a share of the range covered.
        together: least correlation between the changes of training and validation loss.
        alone: how many times `jump` is a sign by itself, without correlation and in spite of progress.
        poor: share of the first loss that a floor must exceed.
        leap: factor by which the very first steps raise the loss.
        helpful: median step quality below which steps do not help their own batch.

    When it is wrong:
        Bad initialisation and unscaled inputs blow up too, at any rate; a bug in the loss (its sign, its
        reduction) makes it climb; very small data sets jump by sampling. Short-term oscillation alone is
        healthy at the edge of stability and never counts here.

    What to do:
        A range test, then a third to a tenth of the rate at which it diverges. Warm-up if only the first
        steps are unstable, decay if only the last part is. Where the hooks saw the first updates, the advised factor
        brings them to a tenth of the weights; where they saw the step quality, to a third of the stable rate.

    References:
        Smith 2017 (range test); Cohen et al. 2021 (edge of stability: oscillation with progress is healthy);
        Godbole et al. 2023, Deep Learning Tuning Playbook. Thresholds calibrated on DeepOBS cifar10_3c3d and
        mnist_vae learning-rate grids (Schneider et al. 2019) and on the development runs of benchmarks/accuracy.
        Vaswani et al. 2019 (decrease on the same batch). On grids of 6 small problems the best rates changed the
        weights by 0.06 to 0.8 of their norm in the first steps, those that failed by 0.5 to 14.
    """
    series = run.get(LOSS)
    assert series is not None  # the rule needs it
    sign = _ramp(run, series, ramp)
    if sign is None:
        curve = need_curve(run)
        sign = (
            _blow_up(run, curve, blow_up, poor)
            or _no_help(run, curve, helpful, stalled, poor)
            or _leap(run, series, curve, leap, poor)
            or _noisy_floor(run, curve, jump, stalled, together, alone, poor)
        )
    if sign is None:
        return
    rate = learning_rate(run)
    current = float(rate.finite.values.max()) if rate is not None and len(rate.finite) else None
    evidence = [Evidence.of(sign.series, sign.observed, sign.expected, marks=((sign.onset, "onset"),))]
    if rate is not None:
        evidence.append(Evidence.of(rate, f"peak {current:.3g}" if current else "never above 0"))
    first = first_updates(run)
    if first is not None and first > FIRST_UPDATE:
        ratio = run.get(UPDATE_RATIO)
        assert ratio is not None
        evidence.append(
            Evidence.of(ratio, f"up to {first:.2g} in the first records", f"steps of about {FIRST_UPDATE:g} at most")
        )
    yield Finding(
        message=sign.message,
        severity=sign.severity,
        confidence=sign.confidence,
        span=Span(sign.onset, series.span.last),
        evidence=tuple(evidence),
        remedies=(lower_learning_rate(_factor(run), current=current), search_learning_rate(), sign.remedy),
        could_be=sign.could_be,
        settle_with=SETTLE,
    )


def _factor(run: Run) -> float:
    """What to multiply the rate with: by the first updates, else by the stable edge, else a tenth."""
    first, edge = first_updates(run), stable_edge(run)
    if first is not None and first > 3 * FIRST_UPDATE:
        return max(float(f"{FIRST_UPDATE / first:.1g}"), 1e-3)
    if edge is not None and edge < 1.5:
        return min(max(float(f"{edge / 3:.1g}"), 1e-3), 0.5)
    return 0.1


def _ramp(run: Run, series: Series, factor: float) -> _Sign | None:
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
    return _Sign(
        message=f"training loss grew {last / best:.2g}-fold to {last:.3g}, "
        f"then turned non-finite at {place(run, int(series.steps[first]))}",
        observed=f"{last:.4g} just before the first non-finite value",
        expected=f"near its best, {best:.4g}",
        onset=onset,
        series=series,
        severity=Severity.ERROR,
        confidence=Confidence.MEDIUM,
        could_be=("exploding-gradients", "bad initialisation"),
        remedy=_ramp_up(run),
    )


def _blow_up(run: Run, curve: Curve, factor: float, poor: float) -> _Sign | None:
    """The loss climbed above where it began, and the run never made up for it."""
    start = curve.start
    if start <= 0:
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
    return _Sign(
        message=f"training loss climbed from {start:.4g} to {peak:.4g} and ended at {curve.final:.4g}",
        observed=f"{peak:.4g} at {place(run, int(curve.steps[peak_index]))}, {curve.final:.4g} at the end",
        expected=f"falling from {start:.4g}",
        onset=onset,
        series=curve.series,
        severity=_by_ending(run, curve, poor),
        confidence=Confidence.MEDIUM,
        could_be=("a change of the data",) if share_of_run(run, onset) > 0.2 else EARLY_CAUSES,
        remedy=_ramp_up(run),
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


def _no_help(run: Run, curve: Curve, helpful: float, stalled: float, poor: float) -> _Sign | None:
    """Steps no longer lower the loss of their own batch, and nothing gets on."""
    quality = step_quality(run, least=20)
    if quality is None or quality.late >= helpful or curve.final < poor * curve.start:
        return None
    seen = [c for c in (curve, find_curve(run, PROBE_LOSS)) if c is not None]
    if any(progress(c, 0.6) > stalled for c in seen):
        return None  # the edge of stability
    onset = int(quality.series.steps[len(quality.series) // 2])
    return _Sign(
        message=f"steps stopped helping their own batch (step quality {quality.late:.2g}), loss {curve.final:.3g}",
        observed=f"median {quality.late:.2g} over the second half of the steps, {quality.early:.2g} before",
        expected=f"above {helpful:g}, or a loss that still falls",
        onset=onset,
        series=quality.series,
        severity=Severity.WARNING,
        confidence=Confidence.HIGH,
        could_be=(),
        remedy=decay_learning_rate(),
    )


def _leap(run: Run, series: Series, curve: Curve, leap: float, poor: float) -> _Sign | None:
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
    wiped = first is not None and (first >= 1.0 or (first >= WIPED and _unhelpful_and_idle(run)))
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
    return _Sign(
        message=message,
        observed=f"{peak:.4g} at {place(run, onset)}, {curve.final:.4g} at the end",
        expected=f"falling from {curve.start:.4g} to below {poor:.0%} of it",
        onset=onset,
        series=series,
        severity=Severity.WARNING,
        confidence=Confidence.MEDIUM if wiped else Confidence.LOW,
        could_be=("underfitting",) if wiped else ("warmup-missing-or-short", "underfitting"),
        remedy=_ramp_up(run),
    )


def _unhelpful_and_idle(run: Run) -> bool:
    """Whether the first steps were at the stable rate or above, and nothing was learned in the whole run."""
    edge, stand = stable_edge(run), find_standing(run)
    return edge is not None and edge < 1.3 and stand is not None and stand.idle


def _noisy_floor(
    run: Run, curve: Curve, jump: float, stalled: float, together: float, alone: float, poor: float
) -> _Sign | None:
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
    return _Sign(
        message=f"{split} loss hangs around {val.final:.3g}, jumping by {share:.1%} of its range between evaluations",
        observed=f"{moved}: standard deviation {jitter(val, 0.6):.3g}, "
        f"progress {gained:.1%} of the range in the last 60 %",
        expected=f"jumps below {jump:.1%} of the range, or progress above {stalled:.0%}",
        onset=onset,
        series=val.series,
        severity=Severity.WARNING,
        confidence=Confidence.MEDIUM if sure else Confidence.LOW,
        could_be=("lr-noise-floor",) if sure else ("lr-noise-floor", "val-set-too-noisy"),
        remedy=decay_learning_rate(),
    )


def _ramp_up(run: Run) -> Remedy:
    span = run.steps
    counted = span is not None and run.step_unit == "step"
    return warm_up(max(1, (span.last - span.first) // 20)) if span is not None and counted else warm_up()
