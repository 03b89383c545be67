"""FIT009 distribution-shift."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies.fit import split_again
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import ACCURACY, LOSS, PROBE_ACCURACY, PROBE_LOSS, Signal
from fitdoctor.views.curves import chance_loss, find_curve, held_out, need_curve
from fitdoctor.views.generalisation import regress, worsened


@rule(
    "FIT009",
    "distribution-shift",
    needs=[PROBE_LOSS, (Signal(LOSS, "val"), Signal(LOSS, "test"))],
    explains=["plateau", "val-set-too-noisy", "overfitting", "overconfidence-drift", "best-epoch"],
    since="0.1.0",
    state=True,
    live=False,
)
def distribution_shift(run: Run, *, kept: float = 0.4, errors: float = 4.0) -> Iterator[Finding]:
    """Validation never followed the training loss: it is measured on something else.

    Why it matters:
        Data that are prepared, split or collected differently look like overfitting and are cured by none of its
        remedies. The most common cause is a bug: another normalisation or transform in evaluation.

    How it is measured:
        On a fixed batch of training data in eval mode (``probe_train``), so that dropout and augmentation play no
        role. The training loss has to fall by a fifth of its start (or of the loss of guessing). When it has come half
        of its way, the validation loss has come less than `kept` of that way, and lags by `errors` standard
        deviations of its noise; and it never catches up. Overfitting begins small and grows. Where the validation loss
        rises after a best and validation accuracy gets better all the same, a handful of examples learned by heart is
        as good an explanation: a note then.

    Options:
        kept: share of the training loss's first half that validation must have made.
        errors: least gap in standard deviations of the noise of the validation loss.

    When it is wrong:
        A handful of training examples are memorised before anything general is learned: more data cures that, and a
        new split does not. A validation set of a few examples differs by chance.

    What to do:
        Compare the preparation of both sets; pool them, shuffle, split again, and see whether the gap is gone.

    References:
        Ben-David et al. 2010 on domains; Rabanser et al. 2019, Failing Loudly (tell two samples apart by a
        classifier). Thresholds are design values.
    """
    train = find_curve(run, PROBE_LOSS)
    split = held_out(run)
    if train is None or not split:
        raise CannotJudge("fewer than 8 values of the loss of a fixed training batch (probe_train)")
    val = need_curve(run, LOSS, split)
    first = run.get(LOSS)
    start = max(train.start, float(first.finite.values[0]) if first is not None and len(first.finite) else 0.0)
    way = start - train.best
    if way <= 0.2 * max(abs(start), chance_loss(run) or 0.0) or train.final > train.best + 0.2 * way:
        return
    half = np.nonzero(train.smooth <= start - 0.5 * way)[0]
    if len(half) < 4:
        return
    step = int(train.steps[int(half[0])])
    index = min(int(np.searchsorted(val.steps, step)), len(val) - 1)
    there, at = float(val.smooth[index]), float(np.interp(val.steps[index], train.steps, train.smooth))
    gap, last = there - at, val.final - train.final
    if start - there > kept * (start - at) or gap < errors * val.noise or last < 0.2 * way:
        return
    if val.final < start - kept * way:
        return  # validation came along after all
    memorised = worsened(regress(val, train), errors=3.0, share=0.05, p=0.05)
    yield Finding(
        message=f"{split} loss ends at {val.final:.3g}, train loss at {train.final:.3g}: apart from the start",
        severity=Severity.NOTE if memorised and _learns(run, split) else Severity.WARNING,
        confidence=Confidence.LOW if memorised else Confidence.MEDIUM,
        span=Span(step, int(val.steps[-1])),
        evidence=(
            Evidence.of(
                val.series,
                f"{there:.3g} when the training loss was half way, {val.final:.3g} at the end",
                f"below {start - kept * (start - at):.3g} by then",
                marks=((int(val.steps[index]), "half way"),),
            ),
            Evidence.of(train.series, f"from {start:.3g} to {train.final:.3g} in eval mode"),
        ),
        remedies=(split_again(),),
        could_be=(
            "a different preparation of the validation data",
            "wrong training labels",
            "too few training examples",
        ),
        settle_with="pool both sets, shuffle, split again and train a tenth of the steps: no gap settles a shift",
    )


def _learns(run: Run, split: str) -> bool:
    """Whether held-out accuracy gets better: what is learned from the training data does hold for the others."""
    accuracy = find_curve(run, ACCURACY, split) or find_curve(run, PROBE_ACCURACY, split)
    if accuracy is None:
        return False
    whole = accuracy.tail_trend(1.0)  # curves are flipped: down is better
    return whole.p_down < 0.01 and -whole.change > 3 * accuracy.noise
