"""LOS004 no-learning."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Remedy, Severity
from fitdoctor.remedies import (
    check_labels,
    check_updates,
    overfit_one_batch,
    search_learning_rate,
    start_from_published_rate,
)
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Series, Span
from fitdoctor.signals import ACCURACY, LOSS, PROBE_ACCURACY
from fitdoctor.views.curves import (
    Curve,
    begins_at_start,
    chance_accuracy,
    chance_loss,
    find_curve,
    held_out,
    metric_curve,
    need_curve,
    place,
)
from fitdoctor.views.steps import drowned, training_curve

COULD_BE = (
    "lr-too-high",
    "lr-too-low",
    "no parameter updates",
    "vanishing-gradients",
    "labels or loss wrong",
    "underfitting",
)
EARLY = 60
"""Steps before which the loss of a sound run may not have moved: Adam at the usual 1e-3 moves a weight by at most
1e-3 a step, so by then by 0.06, the size of a weight at initialisation with 256 inputs."""

SETTLE = (
    "overfit one batch of 16 examples (200 steps): success at a tenth of the rate means the rate, failure means a bug"
)


@rule(
    "LOS004",
    "no-learning",
    needs=[LOSS],
    explains=[
        "plateau",
        "underfitting",
        "lr-noise-floor",
        "val-better-than-train",
        "val-set-too-noisy",
        "best-epoch",
        "undertrained",
    ],
    since="0.1.0",
    state=True,
    vital=True,
)
def no_learning(
    run: Run, *, accuracy_gain: float = 0.05, loss_gain: float = 0.02, sigmas: float = 3.0
) -> Iterator[Finding]:
    """The model is no better than it was before training.

    Why it matters:
        Everything else about the run is beside the point until it learns anything at all. The usual causes
        are bugs, not hyperparameters.

    How it is measured:
        By accuracy where it is logged: its late level exceeds that of guessing by less than `accuracy_gain` of
        what was left to gain, and its best by less than twice that. Guessing is 1 / classes; the number of
        classes is a fact, or read off a first loss of ln C with an accuracy around 1 / C. Where it is unknown,
        accuracy must not have risen above its first value while the loss is -ln(accuracy) within 10 %, which is
        that of even guessing over balanced classes, or worse. Within 5 % of the loss of guessing at the end it
        is a warning. Held-out accuracy stands in for training accuracy unless the training loss ends a fifth below that
        of guessing and of held-out data: then the model learns, only nothing that holds for the other set. A held-out
        loss that is the same number at every evaluation is an error of its own: the weights do not change.
        Without accuracy, by the loss: it equals ln(classes), or it never left its first value by more than
        `loss_gain` and `sigmas` noise standard deviations although the log begins with the untrained model. A
        fixed training batch in eval mode, which the hooks evaluate, stands for training loss and accuracy:
        strong dropout makes a model that learns look as if it guessed. Where dropout itself is seen to drown
        the signal, underfitting says so.

    Options:
        accuracy_gain: least share of the remaining accuracy to be gained.
        loss_gain: least fall of the loss as a share of its first value.
        sigmas: least fall in standard deviations of the noise.

    When it is wrong:
        A run cut off inside a long initial plateau (below 60 steps it is not judged); a pretrained model that has
        nothing left to learn.

    What to do:
        Overfit one batch. If that fails, look for the bug (loss input, detached or frozen parameters,
        optimizer with other parameters); if it succeeds, check labels, then the learning rate.

    References:
        Karpathy 2019, A Recipe for Training Neural Networks (overfit one batch; verify the loss at
        initialisation). Thresholds are design values, checked on the DeepOBS learning-rate grids.
    """
    if (frozen := _frozen(run)) is not None:
        yield frozen
        return
    _need_steps(need_curve(run, LOSS).series)
    curve = training_curve(run)
    if run.finished is not False and drowned(run) is not None:
        return  # underfitting says so, and why
    accuracy = (
        find_curve(run, PROBE_ACCURACY)
        or find_curve(run, ACCURACY)
        or find_curve(run, ACCURACY, held_out(run, ACCURACY) or "val")
    )
    if accuracy is not None:
        if accuracy.series.signal.split == "train" or not _fitted(run, curve):
            yield from _by_accuracy(run, curve, accuracy, accuracy_gain)
        return
    chance = chance_loss(run)
    if chance is not None and curve.best > 0.97 * chance and curve.final < 1.5 * chance:
        yield _finding(
            run,
            curve,
            f"training loss stays at {curve.final:.3f}, chance is ln(C) = {chance:.3f}",
            f"below {chance:.3f}",
            Severity.ERROR,
        )
        return
    if metric_curve(run, "train") is None and metric_curve(run, held_out(run) or "val") is None:
        yield from _by_loss(run, curve, loss_gain, sigmas)


def _fitted(run: Run, curve: Curve) -> bool:
    """Whether the training loss fell well below that of guessing and of held-out data.

    Then the model learns, and what it learns does not hold for the other data. Where the loss of guessing is not known
    it takes the held-out loss: a first loss may lie above guessing by the initialisation alone.
    """
    chance, held = chance_loss(run), find_curve(run, LOSS, held_out(run) or "val")
    least = [x for x in (chance, curve.start, None if held is None else held.final) if x is not None]
    return (chance is not None or held is not None) and curve.final < 0.8 * min(least) and curve.swing > 5 * curve.noise


def _need_steps(loss: Series) -> None:
    """Whether there were steps enough to learn anything."""
    steps = int(loss.steps[-1] - loss.steps[0]) + 1
    if loss.per == "step" and steps < EARLY:
        raise CannotJudge(f"{steps} training steps are too early to say that nothing is learned, {EARLY} are needed")


def _by_accuracy(run: Run, curve: Curve, accuracy: Curve, gain: float) -> Iterator[Finding]:
    start, best = accuracy.shown(accuracy.start), accuracy.shown(accuracy.best)
    level = accuracy.shown(float(np.median(accuracy.tail(0.5))))
    chance = chance_accuracy(run)
    base = chance if chance is not None else start
    step = gain * (1 - base)
    # Three standard errors of a median of k values: batches of two samples scatter by a third, their median does not.
    slack = accuracy.noise * min(1.0, 3 * 1.25 / math.sqrt(len(accuracy.tail(0.5))))
    guessing = best < base + max(2 * step, 3 * accuracy.noise) and level < base + max(step, slack)
    if chance is None and not _guessing(curve, level):
        guessing = False
    if not guessing:
        yield from _barely(run, curve, accuracy, chance)
        return
    final = level
    guess = f"chance, {chance:.3g}" if chance is not None else f"its first value, {start:.3g}"
    split = accuracy.series.signal.split
    yield Finding(
        message=f"{split} accuracy stays at {final:.3g} over the whole run, no better than guessing",
        severity=Severity.ERROR,
        confidence=Confidence.HIGH if chance is not None else Confidence.MEDIUM,
        span=Span(int(accuracy.steps[0]), int(accuracy.steps[-1])),
        evidence=(
            Evidence.of(accuracy.series, f"at most {best:.3g}", f"rising above {guess}"),
            Evidence.of(curve.series, f"{curve.start:.4g} at first, {curve.final:.4g} at the end"),
        ),
        remedies=(overfit_one_batch(), check_labels(), search_learning_rate(), *_published_rate(run)),
        could_be=COULD_BE,
        settle_with=SETTLE,
    )


def _published_rate(run: Run) -> tuple[Remedy, ...]:
    """What papers start from, where the log names the optimizer."""
    name, batch = run.facts.get("optimizer"), run.facts.get("batch_size")
    if not isinstance(name, str) or not name.lower().startswith(("sgd", "adam")):
        return ()
    size = batch if isinstance(batch, int) and not isinstance(batch, bool) and batch > 0 else None
    return (start_from_published_rate(name, batch_size=size, pretrained=run.facts.get("pretrained") is True),)


def _barely(run: Run, curve: Curve, accuracy: Curve, chance: float | None) -> Iterator[Finding]:
    """Better than guessing, but only just: the loss is within 5 % of chance at the end of the run."""
    if chance is None or curve.final < 0.95 * -math.log(chance):
        return
    final = accuracy.shown(accuracy.final)
    if (final - chance) / (1 - chance) > 0.15:
        return
    text = f"training loss ends at {curve.final:.4g}, accuracy at {final:.3g}: hardly better than guessing"
    yield _finding(run, curve, text, f"far below ln({1 / chance:.0f}) = {-math.log(chance):.3f}", Severity.WARNING)


def _frozen(run: Run) -> Finding | None:
    """The loss on fixed held-out data is the same number at every evaluation: the weights do not change."""
    val = run.get(LOSS, held_out(run) or "val")
    if val is None or len(val) < 5 or len(np.unique(val.values)) > 1 or not np.isfinite(val.values[0]):
        return None
    if abs(val.values[0] * 1e4 - round(val.values[0] * 1e4)) < 1e-6:
        return None  # four decimals or fewer: the log rounds, and may hide small changes; 0 is solved
    return Finding(
        message=f"{val.signal.split} loss is exactly {val.values[0]:.6g} at all {len(val)} evaluations",
        severity=Severity.ERROR,
        confidence=Confidence.HIGH,
        span=Span(val.span.first, val.span.last),
        evidence=(Evidence.of(val, f"{len(val)} equal values", "changing with the weights"),),
        remedies=(check_updates(), overfit_one_batch()),
        could_be=("no parameter updates", "evaluation of a stale copy of the model", "a collapsed model"),
        settle_with="compare a checksum of the parameters before and after one optimizer.step()",
    )


def _guessing(curve: Curve, accuracy: float) -> bool:
    """Whether the loss is that of even guessing among 1 / accuracy classes, or worse."""
    even = -math.log(min(max(accuracy, 1e-9), 1 - 1e-9))
    if accuracy >= 0.6:
        return False
    worse = curve.final > 1.05 * even and (accuracy < 0.25 or curve.final > curve.start)
    return abs(curve.final - even) < 0.1 * even or worse


def _fell(curve: Curve, sigmas: float) -> bool:
    """Whether the median of the second half lies below that of the first fifth by so many standard errors."""
    early, late = curve.values[: max(3, len(curve) // 5)], curve.tail(0.5)
    error = 1.25 * curve.noise * math.sqrt(1 / len(early) + 1 / len(late))  # of a difference of medians
    return float(np.median(early) - np.median(late)) > sigmas * error > 0


def _held_out_fell(run: Run) -> bool:
    split = held_out(run)
    val = find_curve(run, LOSS, split) if split else None
    return val is not None and val.start - val.final > max(5 * val.noise, 0.5 * val.swing)


def _by_loss(run: Run, curve: Curve, gain: float, sigmas: float) -> Iterator[Finding]:
    fallen = curve.start - curve.final
    falls = curve.tail_trend(1.0).p_down < 1e-3 or _fell(curve, sigmas) or _held_out_fell(run)
    least = max(gain * abs(curve.start), sigmas * curve.noise)
    if abs(fallen) < least and not falls and curve.start - curve.best < 2 * least:
        if not begins_at_start(run, curve.series):
            raise CannotJudge(
                "train loss is flat from its first logged value on; whether it learned before that needs "
                "train loss per step in the first epoch, or accuracy"
            )
        yield _finding(
            run,
            curve,
            f"training loss never left its first value, {curve.start:.4g}",
            "falling",
            Severity.WARNING,
        )
        return
    second = float(curve.values[1])
    at_once = curve.swing > 0 and curve.start - second > 0.97 * curve.swing
    if at_once and curve.final > 0.1 * abs(curve.start) and abs(curve.final - second) < 0.03 * curve.swing:
        raise CannotJudge(
            f"train loss falls to {second:.4g} before its second logged value and is flat from there: converged or "
            "stuck; log it per step in the first epoch, or log a metric"
        )


def _finding(run: Run, curve: Curve, message: str, expected: str, severity: Severity) -> Finding:
    return Finding(
        message=message,
        severity=severity,
        confidence=Confidence.MEDIUM,
        span=Span(int(curve.steps[0]), int(curve.steps[-1])),
        evidence=(Evidence.of(curve.series, f"{curve.final:.4g} at {place(run, int(curve.steps[-1]))}", expected),),
        remedies=(overfit_one_batch(), check_labels(), search_learning_rate(), *_published_rate(run)),
        could_be=COULD_BE,
        settle_with=SETTLE,
    )
