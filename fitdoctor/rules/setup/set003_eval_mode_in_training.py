"""SET003 eval-mode-in-training."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding
from fitdoctor.remedies.setup import switch_to_train_mode
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Series, Span
from fitdoctor.signals import TRAIN_MODE, Signal
from fitdoctor.views.curves import place
from fitdoctor.views.harm import severity_by_harm


@rule(
    "SET003",
    "eval-mode-in-training",
    needs=[Signal(TRAIN_MODE, layer="model")],
    explains=[
        "overfitting",
        "overconfidence-drift",
        "val-better-than-train",
        "exploding-gradients",
        "loss-divergence",
        "nonfinite-loss",
        "lr-too-high",
        "memorisation-label-noise",
        "distribution-shift",
        "best-epoch",
    ],
    since="0.1.0",
)
def eval_mode_in_training(run: Run, *, share: float = 0.5, least: int = 3) -> Iterator[Finding]:
    """Training steps run in eval mode, although the model has dropout or batch norm.

    Why it matters:
        Dropout is off and batch norm normalises with statistics that no longer follow the weights: the
        regularisation that was asked for is not there, and deep networks can become unstable. Usually an
        evaluation called model.eval() and nobody called model.train() after it.

    How it is measured:
        Exactly: the model itself and all of its dropout and batch norm layers are in eval mode at the forward
        passes of training, at `least` records or more and more than `share` of those since it began.
        Models without such layers behave the same in both modes and are left alone, and so are models whose layers
        of this kind are batch norm that is frozen (no trainable parameters), or in eval mode while the model
        itself is in train mode. An error where training blew up or came to nothing.

    Options:
        share: share of the records since the first in eval mode.
        least: fewest such records.

    When it is wrong:
        Fine-tuning with model.eval() on purpose, to keep statistics that were learned elsewhere.

    What to do:
        Call model.train() at the beginning of every epoch.

    References:
        PyTorch documentation, Module.eval: equivalent to train(False), for dropout and batch norm.
    """
    own, layers = run.get(TRAIN_MODE, layer="model"), run.get(TRAIN_MODE)
    if own is None or layers is None:
        raise CannotJudge("no train_mode logged")
    dropout, norms, frozen = (
        _count(run, key) for key in ("dropout_layers", "batch_norm_layers", "frozen_batch_norm_layers")
    )
    if not dropout and norms <= frozen:
        return  # nothing that the mode changes, or statistics frozen on purpose
    steps, i, j = np.intersect1d(own.steps, layers.steps, assume_unique=True, return_indices=True)
    wrong = (own.values[i] == 0) & (layers.values[j] == 0)
    if not wrong.any():
        return
    first = int(np.argmax(wrong))
    if wrong.sum() < least or wrong[first:].mean() <= share:
        return
    yield _finding(run, own, Span(int(steps[first]), own.span.last), int(wrong.sum()), dropout, norms)


def _finding(run: Run, mode: Series, span: Span, count: int, dropout: int, norms: int) -> Finding:
    severity, harmed = severity_by_harm(run)
    what = ", ".join(f"{n} {name}" for n, name in ((dropout, "dropout"), (norms, "batch norm")) if n)
    since = "" if span.first <= mode.span.first else f" from {place(run, span.first)} on"
    return Finding(
        message=f"{count} measured training steps ran in eval mode{since} (layers: {what})"[:100],
        severity=severity,
        confidence=Confidence.HIGH if since else Confidence.MEDIUM,
        span=span,
        evidence=(
            Evidence.of(
                mode,
                f"eval mode at {count} of {len(mode)} records",
                "train mode at every training step",
                marks=((span.first, "eval mode"),),
            ),
            *harmed,
        ),
        remedies=(switch_to_train_mode(),),
        could_be=() if since else ("fine-tuning in eval mode on purpose",),
    )


def _count(run: Run, key: str) -> int:
    value = run.facts.get(key, 0)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
