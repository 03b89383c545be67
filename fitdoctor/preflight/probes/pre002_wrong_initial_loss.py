"""PRE002 wrong-initial-loss."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fitdoctor.finding import Finding
from fitdoctor.preflight.evidence import HIGH, LOW, MEDIUM, NOTE, WARNING, finding, seen
from fitdoctor.preflight.probe import Cost, probe
from fitdoctor.remedies.before_run import average_loss, calm_last_layer, standardise_targets
from fitdoctor.rule import CannotJudge

if TYPE_CHECKING:
    from fitdoctor.preflight.bench import Bench
    from fitdoctor.preflight.losses import LossCall

RAW_SCORES = ("cross_entropy", "binary_cross_entropy_with_logits")
"""Losses whose input are scores of no bounds, in natural logarithms."""


@probe(
    "PRE002",
    "wrong-initial-loss",
    cost=Cost(passes=4, examples=512),
    explains=["one-batch-not-learned", "learning-rate-out-of-range"],
    since="0.1.0",
    worth=3,
)
def wrong_initial_loss(
    bench: Bench,
    *,
    tolerance: float = 0.1,
    far: float = 3.0,
    scores: float = 5.0,
    large: float = 10.0,
    examples: int = 512,
) -> Iterator[Finding]:
    """The loss before the first step is not that of a model that knows nothing.

    Why it matters:
        An untrained model should be unsure: ln C for C classes, the variance for a regression. A loss far above
        tells of large random scores that must be unlearned first, of a sum in place of a mean, or of targets on
        another scale; far below, of a label that leaks into the input.

    How it is measured:
        The loss function that torch was called with is evaluated, with the same weights and smoothing, on constant
        outputs: all zero, and the best constant (class shares, mean target). The loss of the model in train mode on
        `examples` examples should be near the worse of the two at most, within `tolerance` and three standard
        errors. Up to `far` times as much is a note, and so are raw scores of classes whose deviation is below `scores`:
        of few classes a modest spread is a multiple of ln C, and soon unlearned. Targets of a regression that are
        above `large`, while the outputs are less than half as large, are named as the cause.

    Options:
        tolerance: share by which the loss may lie above or below.
        far: ratio to the expected loss from which it is a warning.
        scores: standard deviation of raw scores from which it is a warning.
        large: root mean square of regression targets from which they are large; ten times that is a warning.
        examples: how many examples are looked at.

    When it is wrong:
        A pretrained or resumed model starts below, which is only noted. Losses made of several terms are not judged.

    What to do:
        Shrink the last layer, set its bias to the log of the class shares, average the loss, standardise targets.

    References:
        Karpathy 2019, A recipe for training neural networks ("verify loss at init"). Random scores of standard
        deviation s add about s^2 (1 - 1/C) / 2 to ln C, so three times ln C means s near 5 of a thousand classes and
        below 3 of three.
    """
    import torch

    calls: list[tuple[LossCall, float]] = []
    with torch.no_grad(), bench.mode(training=True):
        for batch in bench.batches(examples):
            done = bench.run(batch)
            if done.call is None:
                raise CannotJudge("the loss is not one call of a loss function of torch")
            calls.append((done.call, float(done.loss)))
    if not all(math.isfinite(loss) for _, loss in calls):
        raise CannotJudge("the loss is not finite")
    call, loss = calls[0]
    mean = float(call.of(call.input))
    if (summed := _summed(bench, call, loss, mean)) is not None:
        yield summed
    observed = sum(float(c.of(c.input)) for c, _ in calls) / len(calls)
    each = torch.cat([c.per_example() for c, _ in calls])
    # Class weights change the scale of the mean, not its relative error.
    error = observed * float(each.std() / each.mean()) / math.sqrt(len(each)) if len(each) > 1 else math.inf
    zero, best = _constant_losses([c for c, _ in calls])
    low, high = min(zero, best), max(zero, best)
    slack = max(tolerance * high, 3 * error)
    name = {"classes": "ln C", "binary": "ln 2"}.get(bench.task, "the mean square of the targets")
    text = f"{high:.3g} ({name}) at most, {low:.3g} for the best constant"
    bench.facts["initial_loss"] = round(observed, 4)
    if bench.task == "values" and (scale := _far_targets([c for c, _ in calls], large)) is not None:
        yield scale
    elif observed > high + slack:
        ratio, spread = observed / high, float(call.input.float().std())
        modest = call.name in RAW_SCORES and spread < scores
        serious = ratio > far and not modest
        yield finding(
            f"the loss starts at {observed:.3g}, {ratio:.1f} times that of constant outputs ({high:.3g})",
            WARNING if serious else NOTE,
            HIGH if serious else MEDIUM,
            seen("loss", f"{observed:.4g} ± {error:.2g} before the first step", text),
            seen("logit_std", f"{spread:.3g}", "about 1 or less"),
            remedies=[calm_last_layer()],
        )
    elif observed < low * (1 - 2 * tolerance) - 3 * error:
        yield finding(
            f"the loss starts at {observed:.3g}, below that of the best constant ({low:.3g})",
            NOTE,
            LOW,
            seen("loss", f"{observed:.4g} ± {error:.2g} before the first step", text),
            could_be=("a pretrained or resumed model", "the label is part of the input"),
        )


def _summed(bench: Bench, call: LossCall, loss: float, mean: float) -> Finding | None:
    """A finding where the loss is the sum over the batch."""
    n = len(call.target)
    ratio = loss / mean if mean else 0.0
    if call.options.get("reduction") != "sum" or n < 4 or abs(ratio) < n / 2:
        return None
    adaptive = any(word in type(bench.optimizer).__name__.lower() for word in ("ada", "rms", "lion", "adopt"))
    return finding(
        f"the loss is summed, not averaged: {ratio:.0f} times the mean over {n} examples",
        NOTE if adaptive else WARNING,
        HIGH,
        seen("loss", f"{loss:.4g} for a batch of {n}", f"{mean:.4g}, the mean"),
        remedies=[average_loss()],
    )


def _far_targets(calls: list[LossCall], large: float) -> Finding | None:
    """A finding where the targets of a regression are large, and the outputs are not there yet."""
    import torch

    targets = torch.cat([c.target.detach().float().flatten() for c in calls])
    outputs = torch.cat([c.input.detach().float().flatten() for c in calls])
    size, reach = (float(t.square().mean().sqrt()) for t in (targets, outputs))
    if size <= large or reach > size / 2:
        return None
    return finding(
        f"targets have a root mean square of {size:.3g}, the outputs begin at {reach:.2g}",
        WARNING if size > 10 * large else NOTE,
        HIGH if size > 10 * large else MEDIUM,
        seen("loss", f"targets of {float(targets.mean()):.4g} ± {float(targets.std()):.3g}", "mean 0, deviation 1"),
        remedies=[standardise_targets()],
    )


def _constant_losses(calls: list[LossCall]) -> tuple[float, float]:
    """The loss of all-zero outputs, and that of the best constant output."""
    import torch

    from fitdoctor.preflight.losses import best_constant

    call = calls[0]
    targets = torch.cat([c.target.detach() for c in calls if c.target.shape[1:] == call.target.shape[1:]])
    constant = best_constant(call, targets)
    zeros, bests = [], []
    for c in calls:
        like = torch.zeros_like(c.input.detach())
        if c.name == "nll_loss":
            like = like - math.log(max(2, c.classes))
        elif c.name == "binary_cross_entropy":
            like = like + 0.5
        shape = [1, -1, *[1] * (like.ndim - 2)] if c.name in ("cross_entropy", "nll_loss") and like.ndim > 1 else None
        best = like * 0 + (constant.reshape(shape) if shape else constant)
        zeros.append(float(c.of(like)))
        bests.append(float(c.of(best)))
    return sum(zeros) / len(zeros), sum(bests) / len(bests)
