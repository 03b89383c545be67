"""LRN009 batch-too-small."""

from __future__ import annotations

from collections.abc import Iterator

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import decay_learning_rate
from fitdoctor.remedies.optimizer import larger_batch
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import NOISE_SCALE
from fitdoctor.views.steps import noise_while_learning, power_of_two


@rule(
    "LRN009",
    "batch-too-small",
    needs=[NOISE_SCALE],
    explains=["lr-noise-floor"],
    since="0.1.0",
    state=True,
)
def batch_too_small(run: Run, *, ratio: float = 0.1) -> Iterator[Finding]:
    """The batch is far below the gradient noise scale: steps mostly follow noise.

    Why it matters:
        Far below the noise scale, twice the batch halves the number of steps at the same number of
        samples. Where the device is not full, that is time given away. It says nothing about generalisation.

    How it is measured:
        The noise scale, trace of the gradient's covariance over its squared norm, from the gradients of two
        batch sizes (the hooks take them from accumulated batches). Its median over the part of the run in which the
        loss made the first 90 % of its way: near the end, where the gradient vanishes, it grows without
        bound in any run. A note when the batch, accumulation included, is below `ratio` of it.

    Options:
        ratio: batch over noise scale.

    When it is wrong:
        A device that is already full gains nothing but memory traffic; a tiny data set has no larger batch.

    What to do:
        A larger batch or more accumulation, with the rate tuned anew: linearly with the batch for SGD, with
        its root to linearly for Adam. Or leave it, and anneal the rate.

    References:
        McCandlish et al. 2018, An Empirical Model of Large-Batch Training; Shallue et al. 2019.
    """
    found = noise_while_learning(run)
    if found is None:
        raise CannotJudge("the noise scale was measured at fewer than 10 steps; it needs gradient accumulation")
    batch, scale, series = found
    if batch >= ratio * scale:
        return
    yield Finding(
        message=f"a batch of {batch:.0f} samples is {batch / scale:.1%} of the gradient noise scale, {scale:.3g}",
        severity=Severity.NOTE,
        confidence=Confidence.MEDIUM,
        span=Span(series.span.first, series.span.last),
        evidence=(Evidence.of(series, f"median {scale:.3g} while the loss fell", f"below {batch / ratio:.3g}"),),
        remedies=(larger_batch(power_of_two(scale / batch / 4)), decay_learning_rate()),
    )
