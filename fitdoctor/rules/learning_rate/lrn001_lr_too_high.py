"""LRN001 lr-too-high."""

from __future__ import annotations

from collections.abc import Iterator

from fitdoctor.finding import Evidence, Finding, Remedy
from fitdoctor.remedies import decay_learning_rate, lower_learning_rate, search_learning_rate, warm_up
from fitdoctor.rule import rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import LOSS, UPDATE_RATIO
from fitdoctor.views.curves import learning_rate, need_curve
from fitdoctor.views.harm import find_standing
from fitdoctor.views.overshoot import climbed, leapt, no_help, no_room, noisy_floor, outgrown, ramped, steep
from fitdoctor.views.steps import first_updates, stable_edge

FIRST_UPDATE = 0.1
"""Ratio of the first updates to the weights at which a rate is surely sound: at or just below the best of each grid."""
SETTLE = "train from scratch at a tenth of the rate for a tenth of the steps: a lower loss settles it"


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
    room: float = 3.0,
    steady: float = 0.55,
) -> Iterator[Finding]:
    """A lower learning rate would have trained further with the same budget.

    Why it matters:
        The learning rate is the setting that most often decides whether a run is any good, and a rate that
        is too high wastes the whole budget: the weights jump across the valley instead of descending.

    How it is measured:
        Eight signs, none of which looks at the value of the rate. Blow-up: the training loss climbs above
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
        themselves, which wipes out their initialisation, counts as a leap as well. No room: the first steps at the
        whole rate lower the loss of their own batch so much less than the gradient promises that `room` times the rate
        would not lower it at all, and nothing is ever learned, or much of it is lost again by the end; or they are 30 %
        of the weights or more, and nothing is ever learned. At a good rate the first steps may be as long; then the run
        learns. No help: the median step quality is below `helpful`, so that a step no longer lowers the loss of its
        own batch, while neither the fixed batch nor the training loss makes progress; with progress that is the edge of
        stability, and healthy.
        Steep: over the first half of the steps at the whole rate the median quality is below `steady`, so that twice
        the rate would not help at all, more than `poor` of the loss is left at the end, and the last 30 % of the run
        made less than a tenth of its progress.
        Outgrown: after a warm-up the loss lies above the best of the warm-up for half of the time at the whole rate or
        more, by more than its noise, and more than `poor` is left at the end.
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
        room: largest stable rate, as a multiple of the rate, below which a run that learns nothing began too fast.
        steady: median step quality over the first half of the run below which a poor ending is laid to the rate.

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
    sign = ramped(run, series, ramp)
    if sign is None:
        curve = need_curve(run)
        sign = (
            no_room(run, room)
            or climbed(run, curve, blow_up, poor)
            or outgrown(run, curve, poor)
            or no_help(run, curve, helpful, stalled, poor)
            or leapt(run, series, curve, leap, poor)
            or steep(run, curve, steady, poor)
            or noisy_floor(run, curve, jump, stalled, together, alone, poor)
        )
    if sign is None:
        return
    rate = learning_rate(run)
    current = float(rate.finite.values.max()) if rate is not None and len(rate.finite) else None
    shown = max(sign.onset, sign.series.span.first)
    evidence = [Evidence.of(sign.series, sign.observed, sign.expected, marks=((shown, "onset"),))]
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
        remedies=(lower_learning_rate(_factor(run), current=current), search_learning_rate(), _cure(run, sign.early)),
        could_be=sign.could_be,
        settle_with=SETTLE,
    )


def _factor(run: Run) -> float:
    """What to multiply the rate with: by the first updates, else by the stable edge, else a tenth.

    At most a tenth where nothing was learned: a loss that is lost already no longer shows how far above the edge it is.
    """
    first, edge, stand = first_updates(run), stable_edge(run), find_standing(run)
    most = 0.1 if stand is not None and stand.idle else 0.5
    if first is not None and first > 3 * FIRST_UPDATE:
        return min(max(float(f"{FIRST_UPDATE / first:.1g}"), 1e-3), most)
    if edge is not None and edge < 1.5:
        return min(max(float(f"{edge / 3:.1g}"), 1e-3), most)
    return 0.1


def _cure(run: Run, early: bool) -> Remedy:
    """A warm-up where the first steps did it, a decay where the last ones do."""
    if not early:
        return decay_learning_rate()
    span = run.steps
    counted = span is not None and run.step_unit == "step"
    return warm_up(max(1, (span.last - span.first) // 20)) if span is not None and counted else warm_up()
