"""LRN008 layerwise-update-imbalance."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import check_initialisation
from fitdoctor.remedies.optimizer import balance_layers
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import FloatArray, Run, Span
from fitdoctor.signals import UPDATE_RATIO, Signal
from fitdoctor.views.norms import is_matrix
from fitdoctor.views.steps import left_over, training_curve

LEAST = 10
"""Fewest records per layer."""


@rule(
    "LRN008",
    "layerwise-update-imbalance",
    needs=[Signal(UPDATE_RATIO, layer="*")],
    explains=["underfitting", "plateau", "undertrained"],
    since="0.1.0",
    state=True,
)
def layerwise_update_imbalance(
    run: Run, *, ratio: float = 1e3, lasting: float = 0.2, poor: float = 0.5
) -> Iterator[Finding]:
    """Some layers change a thousand times less per step than others.

    Why it matters:
        All layers share one rate. Where their relative updates differ so much, the slow ones stay as
        they were initialised, or the fast ones are thrown about.

    How it is measured:
        The norm of the update over the norm of the weights, of each weight matrix (biases and norms are left out,
        and so are those that do not move at all). The largest is more than `ratio` times the smallest in the median
        of the second half of the records, and in at least 80 % of the records of `lasting` of the run. A note; a
        warning where the training loss is still above `poor` of where it began.

    Options:
        ratio: largest over smallest relative update.
        lasting: share of the run over which it has to hold.
        poor: share of the first loss that makes it a warning.

    When it is wrong:
        A head trained beside a pretrained backbone, embeddings of rare tokens, and layers that start at zero differ
        on purpose.

    What to do:
        Initialisation or normalisation that levels the gradients; a rate per group; an adaptive optimizer.

    References:
        You et al. 2017 (LARS: trust ratios differ by three decades between layers). The factor is a design value.
    """
    layers = {n: s for n, s in run.layers(UPDATE_RATIO).items() if is_matrix(n) and len(s.finite) >= LEAST}
    moving = {n: s.finite for n, s in layers.items() if float(np.median(s.finite.values)) > 0}
    if len(moving) < 2:
        raise CannotJudge(f"fewer than 2 weight matrices with {LEAST} records of update_ratio")
    typical = {n: float(np.median(s.values[len(s) // 2 :])) for n, s in moving.items()}
    slow, fast = min(typical, key=lambda n: typical[n]), max(typical, key=lambda n: typical[n])
    if typical[slow] <= 0 or typical[fast] <= ratio * typical[slow]:
        return
    steps = moving[slow].steps
    apart: FloatArray = moving[fast].at(steps) > ratio * moving[slow].values  # type: ignore[assignment]
    first, last = int(steps[0]), int(steps[-1])
    since = last - lasting * (last - first)
    if float(np.mean(apart[steps >= since])) < 0.8:
        return
    curve = training_curve(run)
    bad = left_over(run, curve) > poor
    onset = int(steps[int(np.argmax(apart))])
    yield Finding(
        message=f"{_short(fast)} changes {typical[fast] / typical[slow]:.1g} times faster per step than {_short(slow)}",
        severity=Severity.WARNING if bad else Severity.NOTE,
        confidence=Confidence.MEDIUM,
        span=Span(onset, last),
        evidence=(
            Evidence.of(moving[slow], f"median {typical[slow]:.2g} per step"),
            Evidence.of(moving[fast], f"median {typical[fast]:.2g} per step", f"at most {ratio:g} times the slowest"),
        ),
        remedies=(check_initialisation(), balance_layers()),
        could_be=("vanishing-gradients", "poor-init-scale"),
        settle_with="a tenth of the steps with Adam, whose steps do not follow the gradient's scale",
    )


def _short(name: str) -> str:
    return name if len(name) <= 20 else "..." + name[-17:]
