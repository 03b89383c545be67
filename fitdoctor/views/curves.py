"""How a rule looks at a run: smoothed curves with their noise and range, and the harm gate.

Rules do not look at raw points when they judge a trend. They look at a `Curve`: at most 200
points, block medians of the finite values where there are more, with the scales that every effect is measured in:

- `noise`: standard deviation of one plotted point around its neighbours;
- `swing`: the range that training moved the curve through, from its start to its best.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fitdoctor.rule import CannotJudge
from fitdoctor.run import FloatArray, IntArray, Run, Series, once_per_series
from fitdoctor.signals import ACCURACY, ERROR, LOSS, LR, PERPLEXITY, SCORE, TOP5_ACCURACY, Quantity
from fitdoctor.stats import Trend, block_edges, block_medians, forecast, mad_sigma, median, noise_scale, smooth, trend
from fitdoctor.views.objectives import moving_target

BLOCKS = 100
"""Most block medians in a curve; series of up to twice that many points are used as they are."""
LEAST = 8
"""Fewest evaluations that a trend is judged on: below 8 the Mann-Kendall test cannot reach p < 0.001."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A signal reduced to what a trend can be judged on. Lower is better, always.

    Attributes:
        series: the finite points it was made from.
        steps: int64[k], last step of each block, k <= 200.
        values: float64[k], block medians; for a quantity where more is better, their negative.
        smooth: float64[k], running median of `values`.
        noise: standard deviation of one value around its neighbours.
        flipped: whether `values` are negated.
    """

    series: Series
    steps: IntArray
    values: FloatArray
    smooth: FloatArray
    noise: float
    flipped: bool

    def __len__(self) -> int:
        return len(self.values)

    @property
    def start(self) -> float:
        """The first logged value: the untrained model when the log begins there."""
        first = float(self.series.values[0])
        return -first if self.flipped else first

    @property
    def best_index(self) -> int:
        """Index of the smallest smoothed value."""
        return int(np.argmin(self.smooth))

    @property
    def best(self) -> float:
        """The smallest smoothed value."""
        return float(self.smooth[self.best_index])

    @property
    def best_step(self) -> int:
        """Step of the smallest smoothed value."""
        return int(self.steps[self.best_index])

    @property
    def final(self) -> float:
        """Median of the last tenth, at least 3 values."""
        return median(self.values[-max(3, len(self) // 10) :])

    @property
    def swing(self) -> float:
        """Range that training moved it through: from the start, or a higher early value, to the best."""
        early = self.values[: max(3, len(self) // 10)]
        return max(float(early.max()), self.start) - self.best

    def shown(self, value: float) -> float:
        """A value of the curve as it stands in the log (undoes the flip)."""
        return 0.0 - value if self.flipped else value

    def tail(self, share: float) -> FloatArray:
        """The values of the last `share` of the points, at least 3."""
        return self.values[-max(3, round(share * len(self))) :]

    def tail_trend(self, share: float) -> Trend:
        """Trend over the last `share` of the points."""
        return trend(self.tail(share))

    def gain_ahead(self, horizon: float = 0.25) -> float:
        """Forecast of how much lower it gets with `horizon` more training, in units of the curve."""
        seen = forecast(self.values, horizon=horizon)
        return 0.0 if seen is None else seen.gain


def make_curve(series: Series, *, least: int = LEAST, blocks: int = BLOCKS) -> Curve:
    """The curve of a series.

    Raises:
        CannotJudge: with fewer than `least` finite points.
    """
    finite = series.finite
    if len(finite) <= 2 * blocks:  # too few for blocks of more than one or two points: use them all
        blocks = 2 * blocks
    if len(finite) < least:
        raise CannotJudge(f"{len(finite)} finite values of {series.signal}, {least} are needed")
    return Curve(finite, *_reduced(series, blocks))


@once_per_series
def _reduced(series: Series, blocks: int) -> tuple[IntArray, FloatArray, FloatArray, float, bool]:
    """Steps, values, smooth, noise and flipped of a `Curve`."""
    finite = series.finite
    flipped = series.signal.quantity.better == "higher"
    values = block_medians(-finite.values if flipped else finite.values, blocks)
    edges = block_edges(len(finite), blocks) if len(finite) > blocks else np.arange(len(finite) + 1)
    steps, smoothed = finite.steps[edges[1:] - 1], smooth(values)
    for array in (steps, values, smoothed):
        array.flags.writeable = False  # every rule gets the same
    return steps, values, smoothed, noise_scale(values), flipped


def find_curve(run: Run, quantity: Quantity = LOSS, split: str = "train", *, least: int = LEAST) -> Curve | None:
    """The curve of a signal, or None when it is not logged or too short."""
    series = run.get(quantity, split)
    try:
        return None if series is None else make_curve(series, least=least)
    except CannotJudge:
        return None


def need_curve(run: Run, quantity: Quantity = LOSS, split: str = "train", *, least: int = LEAST) -> Curve:
    """The curve of a signal.

    Raises:
        CannotJudge: when it is not logged or has fewer than `least` finite points, and for the loss of a run
            whose objective moves, such as reinforcement learning: no trend of that loss means anything.
    """
    series = run.get(quantity, split)
    if series is None:
        raise CannotJudge(f"no {split} {quantity.name} logged")
    if quantity == LOSS and (why := moving_target(run)):
        raise CannotJudge(why)
    return make_curve(series, least=least)


def held_out(run: Run, quantity: Quantity = LOSS) -> str:
    """The split that generalisation is judged on: "val", or "test" where only that was logged, or ""."""
    return next((split for split in ("val", "test") if run.get(quantity, split) is not None), "")


def metric_curve(run: Run, split: str, *, least: int = LEAST) -> Curve | None:
    """The first quality metric of a split that is long enough: accuracy, top-5, score, error, perplexity."""
    for quantity in (ACCURACY, TOP5_ACCURACY, SCORE, ERROR, PERPLEXITY):
        plain = run.get(quantity, split)
        for series in [plain] if plain is not None else list(run.layers(quantity, split).values()):
            try:
                return make_curve(series, least=least)
            except CannotJudge:
                continue
    return None


def place(run: Run, step: int) -> str:
    """A step in words: "step 900", or "epoch 9" where the log only knows epochs."""
    return f"{run.step_unit} {step}"


def share_of_run(run: Run, step: int) -> float:
    """How far into the run a step lies, 0 to 1."""
    span = run.steps
    return 0.0 if span is None or span.last == span.first else (step - span.first) / (span.last - span.first)


def begins_at_start(run: Run, series: Series) -> bool:
    """Whether the first point was surely taken before training had moved the model.

    An epoch clock leaves it open: epoch 0 is the untrained model to some loggers and the end of the
    first epoch to others. A step clock settles it when the first point lies in the first 2 % of the run
    and does not sum up an epoch.
    """
    span = run.steps
    if span is None or run.step_unit == "epoch" or series.per == "epoch":
        return False
    return series.span.first <= max(1.0, 0.02 * span.last)  # counted from step 0: a resumed run begins trained


# --- the learning rate ----------------------------------------------------------------------------


def learning_rate(run: Run) -> Series | None:
    """The learning rate of the whole model, or of its first parameter group."""
    return run.get(LR) or next(iter(run.layers(LR).values()), None)


def rate_left(run: Run, share: float = 0.3) -> float | None:
    """Median learning rate over the last `share` of the run as a share of its peak; None when not logged."""
    rate = learning_rate(run)
    if rate is None:
        return None
    values = rate.finite.values
    peak = float(values.max()) if len(values) else 0.0
    if peak <= 0:
        return None
    span = rate.span
    late = rate.between(round(span.last - share * (span.last - span.first)), span.last).finite.values
    return median(late) / peak if len(late) else None


# --- chance and harm ------------------------------------------------------------------------------


def classes(run: Run) -> int | None:
    """Number of classes: from the facts, or read off an untrained model's loss and accuracy, or None.

    An untrained classifier with a sound initialisation has a cross-entropy of ln C and guesses right once
    in C times. Where the first logged loss is within 8 % of ln C for a whole number C, and the accuracy
    of the first evaluations lies around 1 / C, that C is taken.
    """
    known = run.facts.get("classes")
    if isinstance(known, (int, float)) and known >= 2:
        return int(known)
    loss = run.get(LOSS) or run.get(LOSS, "val")
    if loss is None or not len(loss.finite):
        return None
    first = float(loss.finite.values[0])
    count = round(math.exp(first)) if 0.6 < first < 12 else 0
    if count < 2 or abs(first - math.log(count)) > 0.08 * math.log(count):
        return None
    for split in ("train", "val", "test"):
        accuracy = run.get(ACCURACY, split)
        if accuracy is not None and len(accuracy.finite):
            lowest = float(accuracy.finite.values[:5].min())
            if abs(lowest - 1 / count) < max(0.25 / count, 0.02):
                return count
    return None


def chance_accuracy(run: Run) -> float | None:
    """Accuracy of guessing, 1 / `classes`, or None where the number of classes is unknown."""
    count = classes(run)
    return None if count is None else 1.0 / count


def chance_loss(run: Run) -> float | None:
    """Cross-entropy of guessing, ln(`classes`) in nats, or None where the number of classes is unknown."""
    count = classes(run)
    return None if count is None else math.log(count)


def barely_moved(curve: Curve, *, least: float = 0.05) -> bool:
    """Whether training changed the curve by less than `least` of its first value.

    Shares of the range mean nothing then: the range itself is noise.
    """
    return curve.swing < least * abs(curve.start)


def rate_clock(run: Run, curve: Curve) -> FloatArray:
    """The sum of learning rates up to each point of a curve, scaled to 0..1, float64[len(curve)].

    With steps too short to overshoot, the optimizer follows the gradient flow, and the loss depends on the
    sum of the learning rates alone, whatever the schedule. Without a logged rate it is the step count.
    """
    steps = curve.steps.astype(np.float64)
    rate = learning_rate(run)
    used = np.ones(len(steps))
    if rate is not None and len(rate.finite) > 1:
        used = rate.finite.at(curve.steps)
        used = np.where(np.isfinite(used) & (used >= 0), used, float(rate.finite.values[0]))
    clock = np.concatenate([[0.0], np.cumsum(np.diff(steps) * (used[1:] + used[:-1]) / 2)])
    elapsed = clock if clock[-1] > 0 else steps - steps[0]
    return np.asarray(elapsed / max(float(elapsed[-1]), 1e-300), dtype=np.float64)


def settled_after(curve: Curve, *, band: float = 0.05, sigmas: float = 2.0) -> float:
    """Share of the run after which the smoothed curve stays within its final level's band.

    The band is `band` of the swing or `sigmas` noise standard deviations, whichever is wider.
    """
    level = float(np.median(curve.tail(0.2)))
    width = max(band * curve.swing, sigmas * curve.noise)
    outside = np.nonzero(np.abs(curve.smooth - level) > width)[0]
    return 0.0 if len(outside) == 0 else float(outside[-1] + 1) / len(curve)


def jitter(curve: Curve, share: float = 0.5) -> float:
    """Standard deviation of the late values around their own trend, in units of the curve."""
    late = curve.tail(share)
    return mad_sigma(np.diff(late)) / math.sqrt(2)


def shared_jitter(first: Curve, second: Curve, share: float = 0.7) -> float:
    """Correlation of the late point-to-point changes of two curves on common steps; nan below 12 steps.

    Two splits evaluated with the same weights jump together only if the weights jump: sampling noise of
    two disjoint sets is independent. So a high value says that the optimizer's noise moves the loss.
    """
    common, i, j = np.intersect1d(first.steps, second.steps, return_indices=True)
    keep = slice(len(common) - round(share * len(common)), None)
    a, b = np.diff(first.values[i][keep]), np.diff(second.values[j][keep])
    if len(a) < 12 or a.std() == 0 or b.std() == 0:
        return math.nan
    low, high = np.quantile(a, [0.05, 0.95]), np.quantile(b, [0.05, 0.95])
    return float(np.corrcoef(np.clip(a, *low), np.clip(b, *high))[0, 1])
