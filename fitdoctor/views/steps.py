"""How the optimizer's steps went, from what only the hooks measure: step quality, update ratios, fixed batches."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fitdoctor.rule import CannotJudge
from fitdoctor.run import Run, Series
from fitdoctor.signals import (
    ACCURACY,
    LARGEST_PREDICTED_SHARE,
    LOSS,
    NOISE_SCALE,
    PROBE_ACCURACY,
    PROBE_LOSS,
    STEP_QUALITY,
    UPDATE_RATIO,
    WEIGHT_NORM,
)
from fitdoctor.views.curves import LEAST, Curve, chance_accuracy, find_curve, learning_rate, make_curve

SAMPLES = 10
"""Fewest probed steps that a typical step quality is read from: medians of fewer scatter too much."""

UNDONE = 0.3
"""Ratio of the first updates to the weights at which they undo the initialisation: of 40 runs with such first updates
that learned nothing, all but those with inputs or initial outputs off scale were mended by a lower rate."""

ROUNDED = 1e-6
"""Relative update below which the decrease of a float32 loss is mostly rounding (its precision is 1.2e-7)."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Step quality over a run.

    Attributes:
        series: the probed steps with a finite quality.
        early: median over the first half of the steps at full rate.
        late: median over the second half of them.
        low: their 10th percentile.
    """

    series: Series
    early: float
    late: float
    low: float


def step_quality(run: Run, *, least: int = SAMPLES) -> Quality | None:
    """The step quality while the rate was above half its peak; None with fewer than `least` probed steps, and where
    updates are so small that only rounding is measured.

    A rate that is being annealed takes shorter and shorter steps, whose quality tends to 1 and says nothing of the
    rate that was chosen. Where fewer than `least` steps were above half, the longest count, down to a quarter.
    """
    series = run.get(STEP_QUALITY)
    if series is None:
        return None
    series = series.finite
    rate = learning_rate(run)
    moved = run.get(UPDATE_RATIO)
    if moved is not None and len(moved.finite) and float(np.median(moved.finite.values)) < ROUNDED:
        return None
    if rate is not None and len(rate.finite):
        used, peak = rate.finite.at(series.steps), float(rate.finite.values.max())
        full = _at_full_rate(run, series)
        if full.sum() < least:  # a decay that begins at once leaves few: those of the longest steps then
            full = ~(used < max(0.25 * peak, float(np.sort(used)[-min(least, len(used))])))
        series = series[full]
    if len(series) < least:
        return None
    values = series.values
    half = len(values) // 2
    return Quality(
        series, float(np.median(values[:half])), float(np.median(values[half:])), float(np.quantile(values, 0.1))
    )


def stable_edge(run: Run) -> float | None:
    """Largest stable learning rate as a multiple of the peak rate, from the quality of the first steps at it; or None.

    On a quadratic a step of gradient descent has the quality 1 - rate * curvature / 2, which is 0 where the step no
    longer helps, the largest stable rate. So that rate is rate / (1 - quality). The lower quartile counts, of the
    first fifth of the probed steps (at least 5) that were taken at half of the peak rate or more.
    """
    series = run.get(STEP_QUALITY)
    if series is None or not len(series.finite):
        return None
    seen = series.finite[_at_full_rate(run, series.finite)]
    if not len(seen):
        return None
    quality = float(np.quantile(seen.values[: max(5, len(seen) // 5)], 0.25))
    return 1 / (1 - quality) if quality < 0.999 else 1000.0


def _at_full_rate(run: Run, series: Series) -> NDArray[np.bool_]:
    """Which records were made at half of the peak rate or more; all where no rate is logged."""
    rate = learning_rate(run)
    if rate is None or not len(rate.finite):
        return np.ones(len(series), dtype=np.bool_)
    return ~(rate.finite.at(series.steps) < 0.5 * float(rate.finite.values.max()))


def first_updates(run: Run, most: int = 5) -> float | None:
    """Largest ratio of update to weights among the first `most` records, the whole model's; None when not logged.

    None as well for weights that began at zero: what a first step made of them is the measure of the second, at any
    learning rate.
    """
    series, weights = run.get(UPDATE_RATIO), run.get(WEIGHT_NORM)
    if series is None or not len(series.finite) or series.span.first > 0.02 * max(1, (run.steps or series.span).last):
        return None
    if weights is not None and len(weights) and float(weights.values[0]) == 0:
        return None
    return float(series.finite.values[:most].max())


def progress(curve: Curve, share: float) -> float:
    """How much the last `share` of a curve, at least 6 values, fell, as a share of its range; 0 if not significant."""
    late = curve.tail_trend(min(1.0, max(share, 6 / len(curve))))  # of 5 values or fewer no trend is significant
    return -late.change / curve.swing if late.p_down < 0.05 and curve.swing > 0 else 0.0


def training_curve(run: Run, *, least: int = LEAST) -> Curve:
    """The training loss: of the fixed batch in eval mode where it was probed often enough, else as logged.

    The fixed batch knows no dropout, no augmentation, no noise of the batch and no average over an epoch.

    Raises:
        CannotJudge: when neither has `least` finite points.
    """
    probed = find_curve(run, PROBE_LOSS, least=max(least, LEAST))
    if probed is not None:
        return probed
    series = run.get(LOSS)
    if series is None:
        raise CannotJudge("no train loss logged")
    return make_curve(series, least=least)


def noise_of_dropout(run: Run, *, louder: float = 1.1) -> tuple[float, float] | None:
    """First loss in training mode and on the fixed batch in eval mode, where dropout makes the former much the worse.

    Both are of the untrained model, which is near guessing in eval mode: what is above that is the noise of the
    dropout, and an output that is mostly noise passes on next to nothing of the input. None without dropout layers,
    and where the first is less than `louder` times the second.
    """
    layers, first, probed = run.facts.get("dropout_layers"), run.get(LOSS), run.get(PROBE_LOSS)
    if not isinstance(layers, int) or layers < 1 or first is None or probed is None:
        return None
    if not len(first.finite) or not len(probed.finite) or probed.finite.span.first > 0.05 * first.span.last:
        return None
    trained, plain = float(first.finite.values[0]), float(probed.finite.values[0])
    return (trained, plain) if trained > louder * plain > 0 else None


def drowned(run: Run) -> tuple[float, float] | None:
    """`noise_of_dropout`, where the fixed batch never got better in eval mode.

    None where a tenth of the loss in eval mode was learned or of the way to perfect accuracy: what is under-confident
    for all its dropout may be right nevertheless.
    """
    noise = noise_of_dropout(run)
    if noise is None or training_curve(run).final <= 0.9 * noise[1] or beats_guessing(run):
        return None
    return noise


def beats_guessing(run: Run) -> bool:
    """Whether accuracy ends a tenth of the way from guessing to perfect or more; False where none is logged."""
    seen = ((PROBE_ACCURACY, "train"), (ACCURACY, "val"), (ACCURACY, "train"))
    right = next((c for c in (find_curve(run, q, split, least=3) for q, split in seen) if c is not None), None)
    if right is None:
        return False
    guess = chance_accuracy(run)
    base = right.shown(right.start) if guess is None else guess
    named = run.get(LARGEST_PREDICTED_SHARE)
    # one answer for all is right as often as its class comes
    alike = named is not None and len(named.finite) > 0 and float(named.finite.values[-1]) > 0.95
    return right.shown(right.final) - base > (0.25 if alike else 0.1) * (1 - base)


def accuracies(run: Run, *, least: int = LEAST) -> tuple[Curve, Curve] | None:
    """Accuracy on the fixed training batch and on held-out data, both in eval mode; None where one is missing."""
    train = find_curve(run, PROBE_ACCURACY, least=least)
    val = find_curve(run, ACCURACY, "val", least=least) or find_curve(run, PROBE_ACCURACY, "val", least=least)
    return None if train is None or val is None else (train, val)


def left_over(run: Run, curve: Curve) -> float:
    """Share of the loss at the start that is left at the end; 1 where it was not positive.

    The start is the first logged training loss, where that is higher than the curve's own first value: a fixed batch
    is first looked at after some steps.
    """
    first = run.get(LOSS)
    start = max([curve.start, *([float(first.finite.values[0])] if first is not None and len(first.finite) else [])])
    return curve.final / start if start > 0 else 1.0


def noise_while_learning(run: Run) -> tuple[float, float, Series] | None:
    """Batch size, median noise scale over the first 90 % of the loss's way, and its series; None when too little.

    The batch counts all that one step sees. As the gradient vanishes the noise scale grows without bound, in
    any run, so the end says nothing about the batch.
    """
    series, batch = run.get(NOISE_SCALE), run.facts.get("batch_size")
    if series is None or len(series.finite) < SAMPLES or not isinstance(batch, (int, float)) or batch < 1:
        return None
    parts = run.facts.get("gradient_accumulation_steps")
    whole = float(batch) * (float(parts) if isinstance(parts, (int, float)) and parts > 1 else 1.0)
    curve = training_curve(run)
    reached = np.nonzero(curve.smooth <= curve.start - 0.9 * (curve.start - curve.best))[0]
    until = int(curve.steps[int(reached[0])]) if len(reached) else int(curve.steps[-1])
    seen = series.finite
    learning = seen.between(seen.span.first, max(until, int(seen.steps[SAMPLES - 1])))
    return whole, float(np.median(learning.values)), series


def power_of_two(wanted: float) -> int:
    """The largest power of two up to `wanted`, 2 to 64: a factor on a batch size.

    Example:
        >>> power_of_two(11.0), power_of_two(0.3), power_of_two(1e9)
        (8, 2, 64)
    """
    return int(2 ** min(6, max(1, math.floor(math.log2(max(wanted, 1e-300))))))
