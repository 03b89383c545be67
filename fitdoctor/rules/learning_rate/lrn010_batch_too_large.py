"""LRN010 batch-too-large."""

from __future__ import annotations

from collections.abc import Iterator

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies.optimizer import smaller_batch
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import NOISE_SCALE
from fitdoctor.views.steps import noise_while_learning, power_of_two


@rule("LRN010", "batch-too-large", needs=[NOISE_SCALE], explains=["undertrained"], since="0.1.0", state=True)
def batch_too_large(run: Run, *, ratio: float = 10.0) -> Iterator[Finding]:
    """The batch is far above the gradient noise scale: most of its samples change nothing.

    Why it matters:
        Far above the noise scale a larger batch gives the same step. The same samples in smaller batches
        would have given more steps.

    How it is measured:
        As for batch-too-small: the median noise scale over the part of the run in which the loss made the
        first 90 % of its way. A note when the batch, accumulation included, is above `ratio` times it.

    Options:
        ratio: batch over noise scale.

    When it is wrong:
        Where wall time counts and the device is idle with a smaller batch, a large one costs nothing; the noise
        scale grows as the loss falls, so a batch for the end of a run looks too large at its start.

    What to do:
        A smaller batch with the rate tuned anew, or no accumulation.

    References:
        McCandlish et al. 2018, An Empirical Model of Large-Batch Training; Shallue et al. 2019.
    """
    found = noise_while_learning(run)
    if found is None:
        raise CannotJudge("the noise scale was measured at fewer than 10 steps; it needs gradient accumulation")
    batch, scale, series = found
    if batch <= ratio * scale:
        return
    yield Finding(
        message=f"a batch of {batch:.0f} samples is {batch / scale:.2g} times the gradient noise scale, {scale:.3g}",
        severity=Severity.NOTE,
        confidence=Confidence.MEDIUM,
        span=Span(series.span.first, series.span.last),
        evidence=(Evidence.of(series, f"median {scale:.3g} while the loss fell", f"above {batch / ratio:.3g}"),),
        remedies=(smaller_batch(power_of_two(batch / scale / 4)),),
    )
