"""FIT004 val-better-than-train."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Remedy, Severity
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import LOSS, PROBE_LOSS, Signal
from fitdoctor.views.curves import find_curve, held_out, need_curve, place


@rule(
    "FIT004",
    "val-better-than-train",
    needs=[LOSS, (Signal(LOSS, "val"), Signal(LOSS, "test"))],
    since="0.1.0",
    state=True,
)
def val_better_than_train(run: Run, *, share: float = 0.02, most: float = 0.8) -> Iterator[Finding]:
    """The validation loss stays below the training loss.

    Why it matters:
        It is usually harmless, and it hides overfitting: the two losses are not measured under the same
        conditions, so their gap says nothing until they are.

    How it is measured:
        Validation is compared with the training loss averaged over the epoch before and after it, because
        a training loss averaged during an epoch lags half an epoch behind. Reported as a note when the
        validation loss is lower at `most` of the evaluations of the second half, by at least `share` of the
        range and two standard deviations of the noise.

    Options:
        share: least median difference as a share of the training loss's range.
        most: share of the evaluations at which validation has to be lower.

    When it is wrong:
        It states a fact; only the reasons are guesses.

        A fixed training batch in eval mode (``probe_train``) tells the reasons apart: where its loss is no higher
        than that of validation, dropout, augmentation or the average over the epoch is the whole reason.

    What to do:
        Evaluate a fixed part of the training data in eval mode. If validation is still better, look for
        duplicates between the sets, then for an easier validation set.

    References:
        Goodfellow et al. 2016, Deep Learning, 7.12 (dropout acts in training only); Barz and Denzler 2020
        (duplicates between training and test sets).
    """
    split = held_out(run)
    train, val = need_curve(run, LOSS), need_curve(run, LOSS, split)
    if train.final > train.start:
        return  # training made it worse: nothing to compare
    spacing = float(np.median(np.diff(val.steps)))
    shifted = np.interp(val.steps + spacing / 2, train.steps, train.values)
    inside = (val.steps >= train.steps[0]) & (val.steps <= train.steps[-1])
    late = inside & (val.steps >= np.median(val.steps))
    difference = shifted[late] - val.values[late]
    if len(difference) < 4:
        raise CannotJudge(f"{len(difference)} late evaluations on common steps, 4 are needed")
    gap = float(np.median(difference))
    if gap < max(share * train.swing, 2 * val.noise) or float(np.mean(difference > 0)) < most:
        return
    probed = find_curve(run, PROBE_LOSS)
    settled = probed is not None and probed.final <= val.final + val.noise
    yield Finding(
        message=f"{split} loss {val.final:.4g} stays {gap:.2g} below train loss {train.final:.4g}",
        severity=Severity.NOTE,
        confidence=Confidence.HIGH,
        span=Span(int(val.steps[late][0]), int(val.steps[-1])),
        evidence=(
            Evidence.of(
                val.series,
                f"{val.final:.4g} at {place(run, int(val.steps[-1]))}",
                f"at or above train loss, {train.final:.4g}",
            ),
            Evidence.of(train.series, f"{train.final:.4g}"),
        ),
        remedies=(
            Remedy(
                title="evaluate a fixed part of the training data in eval mode and compare that",
                why="dropout, augmentation, label smoothing and averaging over the epoch raise only the logged "
                "training loss",
                confirm="the two losses meet, or validation is the higher one",
            ),
        ),
        could_be=("dropout or augmentation in training",)
        if settled
        else ("an easier validation set", "leakage")
        if probed is not None
        else (
            "dropout or augmentation in training",
            "train loss averaged during the epoch",
            "an easier validation set",
            "leakage",
        ),
        settle_with="look for duplicates between the two sets"
        if probed is not None and not settled
        else ""
        if settled
        else "one evaluation pass over 1,000 training examples in eval mode",
    )
