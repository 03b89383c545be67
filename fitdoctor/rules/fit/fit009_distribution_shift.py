"""FIT009 distribution-shift."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import check_labels
from fitdoctor.remedies.fit import split_again
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import ACCURACY, LOSS, PROBE_ACCURACY, PROBE_LOSS, Signal
from fitdoctor.views.curves import Curve, chance_accuracy, chance_loss, find_curve, held_out, need_curve
from fitdoctor.views.generalisation import regress, worsened
from fitdoctor.views.plans import steps_per_epoch

NEW = 1.5
"""Passes over the data up to which most of what the optimizer has seen was new to it."""
FAMILIAR = 8.0
"""Passes after which every example has been seen so often that it may have been learned by heart."""


@rule(
    "FIT009",
    "distribution-shift",
    needs=[PROBE_LOSS, (Signal(LOSS, "val"), Signal(LOSS, "test"))],
    explains=["plateau", "val-set-too-noisy", "overfitting", "overconfidence-drift", "best-epoch"],
    since="0.1.0",
    state=True,
    live=False,
)
def distribution_shift(run: Run, *, kept: float = 0.4, fresh: float = 0.75, errors: float = 4.0) -> Iterator[Finding]:
    """Validation never followed the training loss: it is measured on something else.

    Why it matters:
        Data that are prepared, split or collected differently look like overfitting and are cured by none of its
        remedies. The most common cause is a bug: another normalisation or transform in evaluation.

    How it is measured:
        On a fixed batch of training data in eval mode (``probe_train``), so that dropout and augmentation play no
        role. The training loss has to fall by a fifth of its start (or of the loss of guessing). When it has come half
        of its way, the validation loss has come less than `kept` of that way, and lags by `errors` standard
        deviations of its noise; and it never catches up. Overfitting begins small and grows: in the first pass over the
        data every batch is new, and the training loss is a held-out loss of the training data. Where half of the way
        is made by then, less than `fresh` of it is enough, and from there to eight passes the share falls to `kept`.
        (Evaluations count as epochs where the epochs are unknown.)
        Where the validation loss rises after a best, and validation accuracy gets better all the same or half of the
        way took more than eight passes, a handful of examples learned by heart is as good an explanation: a note
        then; but not where validation accuracy never gets better than guessing: nothing of what is learned holds for
        the other set.

    Options:
        kept: share of the training loss's first half that validation must have made.
        fresh: the same, where that half was made within one and a half passes over the data.
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
    seen = _passes(run, val, step)
    least = float(np.interp(math.log(seen), (math.log(NEW), math.log(FAMILIAR)), (fresh, kept)))
    there, at = float(val.smooth[index]), float(np.interp(val.steps[index], train.steps, train.smooth))
    gap, last = there - at, val.final - train.final
    if start - there > least * (start - at) or gap < errors * val.noise or last < 0.2 * way:
        return
    if val.final < start - least * way:
        return  # validation came along after all
    memorised = worsened(regress(val, train), errors=3.0, share=0.05, p=0.05)
    learns, guesses = _held_out_accuracy(run, split)
    doubtful = memorised and not guesses and (learns or seen > FAMILIAR)
    yield Finding(
        message=f"{split} loss ends at {val.final:.3g}, train loss at {train.final:.3g}: "
        + ("nothing learned holds there" if guesses else "apart from the start"),
        severity=Severity.NOTE if doubtful else Severity.WARNING,
        confidence=Confidence.LOW if memorised and seen > NEW and not guesses else Confidence.MEDIUM,
        span=Span(int(val.series.steps[0]), int(val.steps[-1])),
        evidence=(
            Evidence.of(
                val.series,
                f"{there:.3g} when the training loss was half way, {val.final:.3g} at the end",
                f"below {start - least * (start - at):.3g} by then",
                marks=((int(val.steps[index]), "half way"),),
            ),
            Evidence.of(train.series, f"from {start:.3g} to {train.final:.3g} in eval mode"),
        ),
        remedies=(split_again(), check_labels()) if guesses else (split_again(),),
        could_be=(
            "a different preparation of the validation data",
            "wrong training labels",
            "too few training examples",
        ),
        settle_with="pool both sets, shuffle, split again and train a tenth of the steps: no gap settles a shift",
    )


def _passes(run: Run, val: Curve, step: int) -> float:
    """How often each training example was seen up to a step; evaluations are taken for epochs where those are unknown.

    Whoever evaluates within the epochs has seen the examples less often than this counts.
    """
    epoch = 1.0 if run.step_unit == "epoch" else steps_per_epoch(run) or float(np.median(np.diff(val.series.steps)))
    return max(step, 1) / max(epoch, 1.0)


def _held_out_accuracy(run: Run, split: str) -> tuple[bool, bool]:
    """Whether held-out accuracy gets better, and whether it never gets better than guessing.

    What gets better above guessing was learned from the training data and does hold for the others.
    """
    accuracy = find_curve(run, ACCURACY, split) or find_curve(run, PROBE_ACCURACY, split)
    chance = chance_accuracy(run)
    if accuracy is None:
        return False, False
    best = accuracy.shown(accuracy.best)
    if chance is not None and best < chance + max(0.05 * (1 - chance), 2 * accuracy.noise):
        return False, True
    whole = accuracy.tail_trend(1.0)  # curves are flipped: down is better
    return whole.p_down < 0.01 and -whole.change > 3 * accuracy.noise, False
