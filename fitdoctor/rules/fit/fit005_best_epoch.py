"""FIT005 best-epoch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import use_best_checkpoint
from fitdoctor.rule import rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import LOSS, Signal
from fitdoctor.views.curves import held_out, need_curve, place, share_of_run


@rule(
    "FIT005", "best-epoch", needs=[(Signal(LOSS, "val"), Signal(LOSS, "test"))], since="0.1.0", state=True, live=False
)
def best_epoch(run: Run, *, cost: float = 0.02, errors: float = 2.0) -> Iterator[Finding]:
    """The last checkpoint is measurably worse than an earlier one.

    Why it matters:
        Keeping the best checkpoint is free.

    How it is measured:
        The best of the smoothed validation loss against the level of the last tenth: reported as a note
        when the difference exceeds `cost` of the range and `errors` noise standard deviations. The smallest of
        n noisy values is always lower than the last; smoothing and the noise floor keep that out.

    Options:
        cost: least difference as a share of the range.
        errors: least difference in standard deviations of the noise.

    When it is wrong:
        Where the metric that counts is not the loss, its best epoch may be another.

    What to do:
        Save the best checkpoint and report that one.

    References:
        Godbole et al. 2023 (retrospective checkpoint selection). Expected excess of the last over the
        smallest of 100 independent values: 2.5 standard deviations.
    """
    split = held_out(run)
    val = need_curve(run, LOSS, split)
    loss = val.final - val.best
    if val.best_index >= 0.9 * (len(val) - 1) or loss < max(cost * val.swing, errors * val.noise) or loss <= 0:
        return
    step = val.best_step
    as_good = np.nonzero(val.smooth <= val.best + val.noise)[0]
    low = int(val.steps[int(as_good[0])]) if len(as_good) else step  # none where the noise overflows
    yield Finding(
        message=f"best {split} loss {val.best:.4g} at {place(run, step)}, {val.final:.4g} at the end",
        severity=Severity.NOTE,
        confidence=Confidence.HIGH,
        span=Span(step, int(val.steps[-1])),
        evidence=(
            Evidence.of(
                val.series,
                f"the last checkpoint costs {loss:.3g}; equally good from {place(run, low)} on",
                f"within {max(cost * val.swing, errors * val.noise):.2g} of the best",
                marks=((step, "best"),),
            ),
        ),
        remedies=(use_best_checkpoint(step, run.step_unit),) if share_of_run(run, step) >= 0 else (),
    )
