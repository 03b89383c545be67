"""NUM004 gradscaler-stuck."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import find_first_nonfinite
from fitdoctor.remedies.setup import use_bfloat16
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import FloatArray, Run, Series, Span
from fitdoctor.signals import LOSS_SCALE, SKIPPED_STEPS
from fitdoctor.views.curves import place
from fitdoctor.views.harm import harm

HALVINGS = 10
"""Halvings in a row without a success between: from PyTorch's first scale of 65,536 down to 64. A scaler that
searches its scale at the start stops after a few."""


@rule(
    "NUM004",
    "gradscaler-stuck",
    needs=[LOSS_SCALE],
    explains=[
        "no-learning",
        "plateau",
        "underfitting",
        "undertrained",
        "lr-too-low",
        "nonfinite-loss",
        "no-parameter-updates",
        "best-epoch",
        "class-collapse",
        "lr-noise-floor",
    ],
    since="0.1.0",
)
def gradscaler_stuck(
    run: Run, *, share: float = 0.05, settle: int = 200, floor: float = 1.0, least: int = 20
) -> Iterator[Finding]:
    """The gradient scaler keeps skipping steps: gradients overflow at any scale.

    Why it matters:
        A skipped step trains nothing. When the gradient holds an inf or a nan by itself, no scale helps:
        the scaler halves it at every step until gradients underflow, and training stands still.

    How it is measured:
        From the logged loss scale and the count of skipped steps. (1) The scale fell ten times in a row or more,
        by powers of two, without rising between, and ends there. (2) It ended below `floor`. (3) After the
        first `settle` steps, more than `share` of the steps were skipped. (4) `least` steps or more were skipped, and
        no more than that were done. A few skips at the beginning, and one
        per growth interval (2,000 steps) later, are how the scaler finds its scale. An error where training
        blew up or never came down, or where the scale is below `floor`; a warning otherwise.

    Options:
        share: share of skipped steps after the beginning.
        settle: steps at the beginning in which the scaler searches.
        floor: scale below which it takes precision away instead of adding it.
        least: fewest logged scales, or skipped steps.

    When it is wrong:
        A growth interval set to a few steps skips one step in each.

    What to do:
        Find the operation that overflows, and keep it in float32; or train in bfloat16, which needs no scaler.

    References:
        PyTorch documentation, torch.amp.GradScaler: init_scale 65536, growth_interval 2000, backoff_factor 0.5.
    """
    scale = run.get(LOSS_SCALE)
    assert scale is not None  # the rule needs it
    scale = scale.finite
    skipped = run.get(SKIPPED_STEPS)
    found = _nothing_done(skipped, scale, least)
    if len(scale) < least and found is None:
        raise CannotJudge(f"{len(scale)} logged loss scales, {least} are needed")
    found = found or _falling(scale, floor) or _skipping(skipped, scale, share, settle, least)
    if found is None:
        return
    onset, message, seen = found
    harmed = harm(run)
    lost = float(scale.values[-1]) < floor
    yield Finding(
        message=f"{message} (from {place(run, onset)})",
        severity=Severity.ERROR if harmed is not None or lost else Severity.WARNING,
        confidence=Confidence.HIGH,
        span=Span(onset, scale.span.last),
        evidence=(
            Evidence.of(scale, seen, "a scale that settles after its first steps", marks=((onset, "falls"),)),
            *((Evidence.of(skipped, f"{skipped.values[-1]:.0f} steps skipped"),) if skipped is not None else ()),
            *((harmed,) if harmed is not None else ()),
        ),
        remedies=(find_first_nonfinite(), use_bfloat16()),
        could_be=("a nan or inf in the forward pass", "lr-too-high", "an operation that overflows float16"),
        settle_with="print which gradients are not finite after scaler.unscale_(optimizer), at one skipped step",
    )


def _nothing_done(skipped: Series | None, scale: Series, least: int) -> tuple[int, str, str] | None:
    """At least as many steps were skipped as were done."""
    if skipped is None or not len(scale) or not len(skipped.finite):
        return None
    lost, done = float(skipped.finite.values[-1]), skipped.finite.span.last
    if lost < max(least, done) or done < 0:
        return None
    message = f"{lost:.4g} steps were skipped and at most {done} done, down to a loss scale of {scale.values[-1]:.2g}"
    return scale.span.first, message, f"{scale.values[-1]:.3g} at the end"


def _falling(scale: Series, floor: float) -> tuple[int, str, str] | None:
    """The scale fell many times and never rose again, or ended below the floor."""
    values = scale.values
    if not (values > 0).all():
        return None
    rises = np.flatnonzero(np.diff(values) > 0)
    start = int(rises[-1]) + 1 if len(rises) else 0
    halvings = float(np.log2(values[start] / values[-1]))
    still = float(values[-1]) < float(values[max(start, len(values) - max(3, len(values) // 4))])
    if not (halvings >= HALVINGS and still) and not values[-1] < floor <= values[0]:
        return None
    onset = int(scale.steps[min(start + int(np.argmax(np.diff(values[start:]) < 0)) + 1, len(values) - 1)])
    return (
        onset,
        f"loss scale fell from {values[start]:.3g} to {values[-1]:.3g} and is not recovering",
        f"{values[start]:.3g}, then {values[-1]:.3g}: {halvings:.0f} halvings without a rise",
    )


def _skipping(
    skipped: Series | None, scale: Series, share: float, settle: int, least: int
) -> tuple[int, str, str] | None:
    """Too many steps are skipped once the scale has had time to settle."""
    if skipped is None:
        return None
    late = skipped.finite
    late = late[late.steps >= late.span.first + settle]
    if len(late) < least or late.span.last - late.span.first < settle:
        return None
    values: FloatArray = late.values
    done = late.span.last - late.span.first
    lost = float(values[-1] - values[0])
    if lost <= share * (done + lost):
        return None
    onset = int(late.steps[int(np.argmax(values > values[0]))])
    rate = lost / (done + lost)
    return onset, f"{rate:.0%} of the steps after the first {settle} are skipped", f"{scale.values[-1]:.3g} at the end"
