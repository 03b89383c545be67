"""SET012 accumulation-scaling."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies.setup import clear_gradients_once, divide_accumulated_loss
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import FloatArray, IntArray, Run, Series
from fitdoctor.signals import BACKWARD_CALLS, GRAD_NORM_CLIPPED, LOSS_WEIGHT, ZERO_GRAD_CALLS
from fitdoctor.views.harm import harm
from fitdoctor.views.norms import adaptive_optimizer

TOLERANCE = 0.02
"""Relative; a loss weight is a float32 that was divided by the loss scale."""


@rule(
    "SET012",
    "accumulation-scaling",
    needs=[LOSS_WEIGHT, BACKWARD_CALLS],
    explains=[
        "loss-divergence",
        "lr-too-high",
        "loss-spikes",
        "exploding-gradients",
        "lr-too-low",
        "lr-noise-floor",
        "nonfinite-loss",
        "no-learning",
        "dead-relu",
        "class-collapse",
        "plateau",
        "underfitting",
        "gradient-clipping-saturated",
        "best-epoch",
        "undertrained",
    ],
    since="0.1.0",
)
def accumulation_scaling(run: Run, *, least: int = 3) -> Iterator[Finding]:
    """Accumulated gradients are summed instead of averaged, or thrown away before the step.

    Why it matters:
        A sum over K batches is K times the mean: with SGD that is a K times higher learning rate, and with
        any optimizer it moves clipping and weight decay. A zero_grad inside the accumulation keeps
        only the last of the K batches, and the rest is computed for nothing.

    How it is measured:
        Exactly, at `least` records or more. (1) The loss is multiplied by 1 / K before backward, and zero_grad is
        called K times per step: a warning. (2) K forward and backward passes per step
        with a loss multiplied by 1: a note, since the learning rate may have been chosen for it; a warning
        where training blew up or never came down. An adaptive optimizer without clipping
        divides the factor out, and nothing is reported. Several backward passes of one forward pass
        (several losses), several optimizers (GAN), a summed loss and closures are left alone.

    Options:
        least: fewest records.

    When it is wrong:
        A learning rate that was chosen for the sum: that is why it is a note.

    What to do:
        Divide the loss by the number of accumulated batches, and clear gradients once per step.

    References:
        Goyal et al. 2017, section 2.3: normalise the loss by the total minibatch size. With sequences of
        unequal length the divisor is the number of tokens of all of them (Hugging Face Transformers, 2024).
    """
    weight, backward = run.get(LOSS_WEIGHT), run.get(BACKWARD_CALLS)
    assert weight is not None  # the rule needs them
    assert backward is not None
    optimizers = str(run.facts.get("optimizer", ""))
    if optimizers.upper().startswith("LBFGS") or "," in optimizers:
        return
    steps, i, j = np.intersect1d(weight.steps, backward.steps, assume_unique=True, return_indices=True)
    if len(steps) < least:
        raise CannotJudge(f"{len(steps)} records of loss_weight, {least} are needed")
    weights, calls = weight.values[i], backward.values[j]
    thrown = _thrown_away(run, weight, steps, weights, least)
    if thrown is not None:
        yield thrown
        return
    middle = float(np.median(calls))
    count = int(middle) if 2 <= middle < 2**31 else 0
    if not count or not bool(np.mean(calls == count) > 0.9):
        return
    summed = _summed(run, weight, weights, count)
    if summed is not None:
        yield summed


def _thrown_away(run: Run, weight: Series, steps: IntArray, weights: FloatArray, least: int) -> Finding | None:
    """Gradients of a divided loss are cleared before each of the accumulated batches."""
    cleared = run.get(ZERO_GRAD_CALLS)
    if cleared is None:
        return None
    at = cleared.at(steps)
    middle = float(np.median(at))
    count = int(middle) if 2 <= middle < 2**31 else 0
    divided = np.abs(weights * count - 1) < TOLERANCE
    if not count or int((divided & (at >= count)).sum()) < max(least, 0.9 * len(steps)):
        return None
    return Finding(
        message=f"zero_grad is called {count} times per step: {count - 1} of {count} accumulated gradients are lost",
        severity=Severity.WARNING,
        confidence=Confidence.HIGH,
        span=weight.span,
        evidence=(
            Evidence.of(cleared, f"{count} calls per step", "1 call per step"),
            Evidence.of(weight, f"1/{count} for each of {count} batches", ""),
        ),
        remedies=(clear_gradients_once(count),),
    )


def _summed(run: Run, weight: Series, weights: FloatArray, count: int) -> Finding | None:
    """The losses of accumulated batches are added up undivided."""
    accumulated = run.facts.get("gradient_accumulation_steps")
    undivided = bool(np.mean(np.abs(weights - 1) < TOLERANCE) > 0.9)
    if not undivided or accumulated != count or run.facts.get("loss_reduction") == "sum":
        return None
    clipped = run.get(GRAD_NORM_CLIPPED) is not None or "clip_norm" in run.facts
    if adaptive_optimizer(run) and not clipped:
        return None
    harmed = harm(run)
    return Finding(
        message=f"the losses of {count} accumulated batches are summed, not averaged: steps are {count} times as long",
        severity=Severity.NOTE if harmed is None else Severity.WARNING,
        confidence=Confidence.HIGH if harmed is not None else Confidence.MEDIUM,
        span=weight.span,
        evidence=(
            Evidence.of(weight, "1 for every batch", f"1/{count}"),
            *((harmed,) if harmed is not None else ()),
        ),
        remedies=(divide_accumulated_loss(count),),
        could_be=("a learning rate that was chosen for the sum",),
    )
