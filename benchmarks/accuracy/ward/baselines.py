"""The published rules of other tools, re-expressed from their documented thresholds, and rules of thumb.

Each gets what its authors had: the values of every step and epoch, and norms per layer from the monitor's records. The
thresholds are those of the documents and the published code: Amazon SageMaker Debugger's built-in rules; AUTOTRAINER
(Zhang et al., ICSE 2021, ``utils.py`` and ``monitor.py``); UMLAUT (Schoop et al., CHI 2021, ``heuristics.py``);
Prechelt 1998, "Early stopping - but when?" (GL, PQ and UP at the strictest published values); patience, as in Keras
and Lightning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from benchmarks.accuracy.ward.arms import Said
from benchmarks.accuracy.ward.recipe import Recipe
from benchmarks.accuracy.ward.training import Outcome
from fitdoctor.run import Run
from fitdoctor.signals import ACTIVATION_ZERO_FRACTION, GRAD_NORM, UPDATE_RATIO

Named = Iterator[str]


class Curves:
    """What the rules look at: arrays of steps and of epochs, and the last norms per layer in the order of the model."""

    def __init__(self, outcome: Outcome, run: Run | None, recipe: Recipe) -> None:
        self.steps = [r for r in outcome.rows if "lr" in r]
        self.epochs = [r for r in outcome.rows if "val_loss" in r]
        self.loss = np.array([r["train_loss"] for r in self.steps])
        self.train = np.array([r["train_loss_epoch"] for r in self.epochs])
        self.val = np.array([r["val_loss"] for r in self.epochs])
        self.train_acc = np.array([r.get("train_acc", np.nan) for r in self.epochs])
        self.val_acc = np.array([r.get("val_acc", np.nan) for r in self.epochs])
        self.norms = np.array([r["grad_norm"] for r in self.steps])
        self.recipe, self.run = recipe, run

    def layers(self, quantity: object) -> list[np.ndarray]:
        """Values per layer of a quantity that the monitor recorded."""
        return [s.values for s in self.run.layers(quantity).values()] if self.run is not None else []


def sagemaker(c: Curves) -> Named:
    """Built-in rules of Amazon SageMaker Debugger."""
    layers = c.layers(GRAD_NORM)
    if not np.isfinite(c.loss).all() or not np.isfinite(c.norms).all():
        yield "nonfinite-loss"  # ExplodingTensor
    if any((v[np.isfinite(v)] < 1e-7).any() for v in layers):  # VanishingGradient: of a mean, here of a norm
        yield "vanishing-gradients"
    if any((s > 0.5).any() for s in c.layers(ACTIVATION_ZERO_FRACTION)):
        yield "dead-relu"  # DeadRelu: threshold_layer 50 %
    ratios = c.layers(UPDATE_RATIO)
    if any((r > 10).any() for r in ratios):
        yield "lr-too-high"  # WeightUpdateRatio: large_threshold 10
    if any((r < 1e-8).any() for r in ratios):
        yield "no-parameter-updates"  # small_threshold 1e-8
    with np.errstate(invalid="ignore", divide="ignore"):
        if ((c.val - c.train) / c.train > 0.1).any():
            yield "overfitting"  # Overfit: ratio_threshold 0.1
        blocks = c.loss[: len(c.loss) // 10 * 10].reshape(-1, 10).mean(1)
        if len(blocks) > 1 and (np.diff(blocks) / blocks[:-1] > -0.001).any():
            yield "no-learning"  # LossNotDecreasing: diff_percent 0.1, num_steps 10


def autotrainer(c: Curves) -> Named:
    """AUTOTRAINER's symptoms, looked for where accuracy stays below 0.7."""
    if not np.isfinite(c.loss).all():
        yield "exploding-gradients"
        return
    if np.isfinite(c.train_acc).any() and np.nanmax(c.train_acc) >= 0.7:
        return
    weights = [v for v in c.layers(GRAD_NORM) if len(v)]
    if weights:
        first, last = weights[0][-1], weights[-1][-1]
        if last > 0 and first / last < 1e-3 and first < 1e-4:
            yield "vanishing-gradients"
        if first > 70 or c.norms.max() > 70:
            yield "exploding-gradients"
    if any((s >= 0.7).any() for s in c.layers(ACTIVATION_ZERO_FRACTION)):
        yield "dead-relu"
    swings = np.abs(np.diff(c.train_acc))
    if np.nanmean(swings >= 0.03) >= 0.2 if len(swings) else False:
        yield "lr-too-high"  # oscillating loss
    if len(c.train) > 3 and c.train[0] - c.train[-1] < 0.01:
        yield "lr-too-low"  # slow convergence


def umlaut(c: Curves) -> Named:
    """UMLAUT's heuristics that need no access to the program's text."""
    if not np.isfinite(c.loss).all():
        yield "nonfinite-loss"
    if c.recipe.lr > 0.01:
        yield "lr-too-high"
    if c.recipe.lr < 1e-7:
        yield "lr-too-low"
    up, down = np.diff(c.val) > 0, np.diff(c.train) < 0
    if (up & down).any():
        yield "overfitting"
    if (c.val_acc - c.train_acc > 0.05).any():
        yield "val-better-than-train"
    if c.recipe.dropout > 0.5:
        yield "underfitting"


def prechelt(c: Curves) -> Named:
    """GL above 5, PQ above 0.5, or UP with four strips of five."""
    val = c.val
    if not np.isfinite(val).all() or len(val) < 6 or not (val > 0).all():
        return
    loss = 100 * (val / np.minimum.accumulate(val) - 1)
    strip = 5
    progress = np.array(
        [1000 * (c.train[max(i - strip + 1, 0) : i + 1].mean() / c.train[max(i - strip + 1, 0) : i + 1].min() - 1)
         for i in range(len(val))]
    )  # fmt: skip
    ends = val[strip - 1 :: strip]
    rises = np.diff(ends) > 0
    up = any(rises[i : i + 4].all() for i in range(len(rises) - 3))
    if (loss > 5).any() or (loss / np.maximum(progress, 1e-9) > 0.5)[strip:].any() or up:
        yield "overfitting"


def patience(c: Curves) -> Named:
    """Five epochs in a row without a better validation loss."""
    best = np.minimum.accumulate(np.where(np.isfinite(c.val), c.val, np.inf))
    since, longest = 0, 0
    for i in range(1, len(c.val)):
        since = 0 if best[i] < best[i - 1] else since + 1
        longest = max(longest, since)
    if longest >= 5:
        yield "overfitting"


def always(c: Curves) -> Named:
    """The advice that is given most: the learning rate is too high."""
    yield "lr-too-high"


BASELINES: dict[str, Callable[[Curves], Named]] = {
    "SageMaker Debugger's rules": sagemaker,
    "AUTOTRAINER's": autotrainer,
    "UMLAUT's": umlaut,
    "Prechelt": prechelt,
    "patience 5": patience,
    'always "lower the rate"': always,
}


def ask(name: str, outcome: Outcome, run: Run | None, recipe: Recipe) -> Said:
    """What a set of published rules says of a run. Their rules have no order: the first in their documents leads."""
    with np.errstate(all="ignore"):
        named = tuple(dict.fromkeys(BASELINES[name](Curves(outcome, run, recipe))))
    found = tuple((rule, "warning") for rule in named)
    return Said("sick" if found else "healthy", tuple((rule, "warning", "medium") for rule in named), found)
