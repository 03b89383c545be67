"""SET009 missing-zero-grad."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding
from fitdoctor.remedies.setup import clear_gradients
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import GRAD_LEFTOVER, GRAD_NORM, ZERO_GRAD_CALLS
from fitdoctor.views.curves import place
from fitdoctor.views.harm import severity_by_harm


@rule(
    "SET009",
    "missing-zero-grad",
    needs=[GRAD_LEFTOVER, ZERO_GRAD_CALLS],
    explains=[
        "exploding-gradients",
        "gradient-spikes",
        "gradient-clipping-saturated",
        "loss-divergence",
        "loss-spikes",
        "lr-too-high",
        "lr-noise-floor",
        "no-learning",
        "nonfinite-loss",
        "plateau",
        "underfitting",
        "best-epoch",
        "class-collapse",
        "dead-relu",
        "logit-drift",
        "adam-second-moment-lag",
        "val-set-too-noisy",
        "overconfidence-drift",
        "overfitting",
        "hidden-nonfinite",
        "undertrained",
        "warmup-missing-or-short",
        "saturated-activations",
        "input-collapse",
    ],
    since="0.1.0",
)
def missing_zero_grad(run: Run, *, share: float = 0.2, least: int = 3) -> Iterator[Finding]:
    """Gradients are not cleared between optimizer steps: each step sees the sum of all batches so far.

    Why it matters:
        The step follows an ever longer sum of old gradients. With SGD it grows until training diverges or
        swings around; with Adam it acts like a huge momentum and only slows learning down.

    How it is measured:
        Exactly: at records, no backward pass since the last optimizer step found the witness parameter's
        gradient cleared, and the optimizer's zero_grad was not called in that step. More than `share` of the
        records, `least` at least, must show it. Gradient accumulation does not: there the first backward
        pass after a step starts from a cleared gradient. It is an error where the training loss blew up or
        never came down, a warning otherwise.

    Options:
        share: share of records with a gradient left over.
        least: fewest such records.

    When it is wrong:
        A loop that means to step on a running sum of gradients.

    What to do:
        Call optimizer.zero_grad() once per step, before backward.

    References:
        PyTorch documentation, torch.optim.Optimizer.zero_grad. Karpathy's list of common mistakes (2018)
        has it second.
    """
    left, cleared = run.get(GRAD_LEFTOVER), run.get(ZERO_GRAD_CALLS)
    assert left is not None  # the rule needs them
    assert cleared is not None
    steps, i, j = np.intersect1d(left.steps, cleared.steps, assume_unique=True, return_indices=True)
    values, calls = left.values[i][1:], cleared.values[j][1:]  # before the first step there is nothing to clear
    if len(values) < least:
        raise CannotJudge(f"{len(values)} records of grad_leftover after the first step, {least} are needed")
    kept = (values > 0) & (calls == 0)
    if kept.sum() < least or kept.mean() <= share:
        return
    first = int(steps[1:][np.argmax(kept)])
    severity, harmed = severity_by_harm(run)
    norm = run.get(GRAD_NORM)
    evidence = [
        Evidence.of(
            left,
            f"gradient left over at {int(kept.sum())} of {len(kept)} records, zero_grad called at none of them",
            "0: cleared before the first backward pass of a step",
            marks=((first, "not cleared"),),
        ),
        *harmed,
    ]
    if norm is not None:
        evidence.append(Evidence.of(norm, f"{norm.values[0]:.3g} at first, {norm.values[-1]:.3g} at the end"))
    yield Finding(
        message=f"gradients were not cleared at {kept.mean():.0%} of {len(kept)} records (from {place(run, first)})",
        severity=severity,
        confidence=Confidence.HIGH,
        span=Span(first, left.span.last),
        evidence=tuple(evidence),
        remedies=(clear_gradients(),),
    )
