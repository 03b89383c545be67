"""SET004 train-mode-in-eval."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies.setup import switch_to_eval_mode
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import EVAL_FORWARDS, EVAL_TRAIN_MODE, TRAIN_MODE


@rule(
    "SET004",
    "train-mode-in-eval",
    needs=[EVAL_TRAIN_MODE, EVAL_FORWARDS],
    explains=["val-set-too-noisy", "overfitting", "val-better-than-train", "distribution-shift", "best-epoch"],
    since="0.1.0",
)
def train_mode_in_eval(run: Run, *, share: float = 0.5, least: int = 2) -> Iterator[Finding]:
    """Evaluations run in train mode, although the model has dropout or batch norm.

    Why it matters:
        Dropout makes the validation score worse and noisy, and batch norm both uses the statistics of
        validation batches and learns them: the score depends on the batch size, and the model on validation data.

    How it is measured:
        Exactly: at forward passes without gradients, the model is in train mode with all of its dropout and
        batch norm layers. `least` evaluations or more must show it, and more than `share` of all of them.
        Passes without gradients beside most training steps belong to the method (rollouts, pseudo-labels, a
        target network) and are left alone, and so is a model that is itself in eval mode with dropout switched
        on, as for Monte Carlo dropout.

    Options:
        share: share of the evaluations.
        least: fewest evaluations in train mode.

    When it is wrong:
        Batch norm statistics that are estimated anew, without gradients, on purpose and again and again.

    What to do:
        Call model.eval() before the evaluation and model.train() after it.

    References:
        PyTorch documentation, autograd mechanics: no_grad is orthogonal to eval mode.
    """
    mode, count = run.get(EVAL_TRAIN_MODE), run.get(EVAL_FORWARDS)
    assert mode is not None  # the rule needs them
    assert count is not None
    layers = [run.facts.get(key) for key in ("dropout_layers", "batch_norm_layers")]
    if not any(isinstance(n, int) and n > 0 for n in layers):
        return  # nothing that the mode changes
    training = run.get(TRAIN_MODE) or run.get(TRAIN_MODE, layer="model")
    span = run.steps
    if training is None or span is None:
        raise CannotJudge("no train_mode logged")
    if len(mode) < least:
        raise CannotJudge(f"{len(mode)} evaluations seen, {least} are needed")
    if len(mode) > 0.25 * max(1, span.last - span.first):
        return  # beside every fourth step or more: part of the method, not an evaluation
    wrong = mode.values == 1.0
    if wrong.sum() < least or wrong.mean() <= share:
        return
    first = int(mode.steps[int(np.argmax(wrong))])
    names = " and ".join(
        name for n, name in zip(layers, ("dropout", "batch norm"), strict=True) if isinstance(n, int) and n > 0
    )
    yield Finding(
        message=f"{int(wrong.sum())} of {len(wrong)} evaluations ran in train mode, with {names} as in training",
        severity=Severity.WARNING,
        confidence=Confidence.HIGH,
        span=Span(first, mode.span.last),
        evidence=(
            Evidence.of(
                mode,
                f"train mode at {int(wrong.sum())} of {len(wrong)} evaluations",
                "eval mode",
                marks=((first, "train mode"),),
            ),
            Evidence.of(count, f"{np.median(count.values):.0f} forward passes each in the median"),
        ),
        remedies=(switch_to_eval_mode(),),
        could_be=("batch norm statistics that are estimated anew on purpose",) if "norm" in names else (),
    )
