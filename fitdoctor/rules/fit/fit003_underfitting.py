"""FIT003 underfitting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fitdoctor.finding import Confidence, Evidence, Finding, Remedy, Severity
from fitdoctor.remedies import (
    add_capacity,
    check_labels,
    less_regularisation,
    lower_learning_rate,
    overfit_one_batch,
    raise_learning_rate,
    search_learning_rate,
)
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import ACCURACY, LOSS, PROBE_ACCURACY
from fitdoctor.views.curves import Curve, chance_accuracy, find_curve, held_out, need_curve, rate_left
from fitdoctor.views.harm import find_standing
from fitdoctor.views.steps import drowned, step_quality, training_curve

MANY = 20
"""Classes from which a poor accuracy may be the best there is, as that of a language model is."""


@rule(
    "FIT003",
    "underfitting",
    needs=[LOSS],
    explains=["plateau", "val-better-than-train"],
    since="0.1.0",
    state=True,
    live=False,
)
def underfitting(
    run: Run, *, learned: float = 0.5, gap: float = 0.1, flat: float = 0.01, modes: float = 1.3
) -> Iterator[Finding]:
    """The model has stopped improving on its own training data, at a poor level.

    Why it matters:
        No regularisation and no more data helps a model that cannot fit what it has.

    How it is measured:
        The training loss is flat over the last 30 % (forecast gain below `flat` of its range), training
        accuracy has gained less than `learned` of the way from guessing to perfect, and validation is no
        more than `gap` of that way behind. Accuracy is needed: without it a high floor may be noise in the
        targets, and the run is left open. From a log alone the cause stays open.
        With the hooks, loss and accuracy are those of a fixed training batch in eval mode (``probe_train``), and the
        cause is told: regularisation, when the loss in training mode is above `modes` times that in eval mode, or has
        fallen less than half as far; optimisation, when the median step quality is above 0.95 (steps too short) or
        below 0.1 (too long); suspect labels, when held-out accuracy is better than that on the training batch; else
        capacity, where the rate was annealed or the quality is above 0.5, and accuracy is off guessing by a tenth of
        the way.

        Where the fixed batch is there and tells no cause, it is a note. With more than 20 classes and no cause told it
        is left open: half of the words of a text cannot be guessed by any model.

        Where a model with dropout has learned less than a tenth of its loss in eval mode, and its very first loss in
        training mode is a tenth above that of the fixed batch in eval mode, the noise of the dropout drowns the signal:
        that is said in place of no-learning, and needs no accuracy.

    Options:
        learned: share of the way from chance to perfect accuracy below which a floor counts as poor.
        gap: largest gap between training and validation accuracy, as a share of that way.
        flat: largest forecast gain as a share of the loss range.
        modes: loss in training mode over loss in eval mode from which regularisation is the cause.

    When it is wrong:
        Hard tasks with noisy labels have a poor best possible accuracy; strong augmentation and dropout
        lower training accuracy on purpose.

    What to do:
        Overfit one batch, search the learning rate, remove regularisation, train longer if it still helps,
        and then add capacity, in this order.

    References:
        Karpathy 2019 (stage 3: overfit first, regularise later). Thresholds are design values.
    """
    need_curve(run, LOSS, least=20)
    curve = training_curve(run, least=12)
    if (noise := drowned(run)) is not None:
        yield _drowned(run, curve, noise)
        return
    split = held_out(run, ACCURACY)
    val = find_curve(run, ACCURACY, split, least=12) if split else None
    probed = find_curve(run, PROBE_ACCURACY, least=12)
    accuracy = probed or find_curve(run, ACCURACY, least=12)
    if accuracy is None and val is not None and _losses_agree(run, curve):
        accuracy, val = val, None  # the model does as well on both, so one accuracy stands for the other
    if accuracy is None:
        raise CannotJudge("no train accuracy logged: a high loss may be noise in the targets")
    chance = chance_accuracy(run)
    guess = chance if chance is not None else min(accuracy.shown(accuracy.start), 0.5)
    final = accuracy.shown(accuracy.final)
    if guess >= 1 or (final - guess) / (1 - guess) > learned:
        return
    tail = curve.tail_trend(0.3)
    if curve.gain_ahead() > flat * curve.swing or (tail.p_down < 0.05 and -tail.change > flat * curve.swing):
        return
    if val is not None and (final - val.shown(val.final)) / (1 - guess) > gap:
        return
    evidence = [
        Evidence.of(
            accuracy.series,
            f"{final:.3g}",
            f"above {guess + learned * (1 - guess):.3g}, half way from guessing to perfect",
        ),
        Evidence.of(curve.series, f"flat at {curve.final:.4g}"),
    ]
    if val is not None:
        evidence.append(Evidence.of(val.series, f"{val.shown(val.final):.3g}, no worse than on the training data"))
    told = None if probed is None else _cause(run, curve, final, val, guess, modes)
    if told is None and chance is not None and chance < 1 / MANY:
        raise CannotJudge(
            f"with {1 / chance:.0f} classes the best accuracy there is may be far below 1; log top-5, or compare"
        )
    yield Finding(
        message=f"{accuracy.series.signal.split} accuracy stops at {final:.3g}, "
        + (f"training loss at {curve.final:.4g}: the model does not fit" if told is None else told.words),
        severity=Severity.NOTE if told is None and probed is not None else Severity.WARNING,
        confidence=Confidence.MEDIUM if chance is not None else Confidence.LOW,
        span=Span(int(curve.steps[-(3 * len(curve)) // 10]), int(curve.steps[-1])),
        evidence=tuple(evidence),
        remedies=(overfit_one_batch(), search_learning_rate(), less_regularisation(), add_capacity())
        if told is None
        else told.remedies,
        could_be=("model capacity", "regularisation too strong", "label noise", "lr-noise-floor")
        if told is None
        else told.could_be,
        settle_with="train at 4 times the width, and once without regularisation, for the same steps"
        if told is None
        else told.settle_with,
    )


def _drowned(run: Run, curve: Curve, noise: tuple[float, float]) -> Finding:
    """Nothing is learned, and from the first step on dropout leaves mostly noise of the output."""
    stand = find_standing(run)
    loss = run.get(LOSS)
    assert loss is not None  # the rule needs it
    text = f"{noise[0]:.3g} at first in training mode, {noise[1]:.3g} in eval mode"
    return Finding(
        message=f"dropout drowns the signal: the first loss is {text}",
        severity=Severity.ERROR if stand is not None and stand.idle else Severity.WARNING,
        confidence=Confidence.MEDIUM,
        span=Span(int(curve.steps[0]), int(curve.steps[-1])),
        evidence=(
            Evidence.of(loss, text, "nearly the same before anything is learned"),
            Evidence.of(curve.series, f"{curve.final:.4g} at the end, in eval mode", "learned"),
        ),
        remedies=(less_regularisation(), overfit_one_batch()),
        could_be=("no-learning",),
        settle_with="train a tenth of the steps without dropout: a lower loss settles it",
    )


@dataclass(frozen=True, slots=True)
class _Cause:
    """What keeps the model from fitting, as far as fixed batches and step quality tell."""

    words: str
    remedies: tuple[Remedy, ...]
    could_be: tuple[str, ...] = ()
    settle_with: str = ""


def _cause(run: Run, curve: Curve, accuracy: float, val: Curve | None, guess: float, modes: float) -> _Cause | None:
    trained = find_curve(run, LOSS)
    quality = step_quality(run)
    if trained is not None and curve.final > 0 and _held_back(curve, trained, modes):
        return _Cause(
            f"regularisation holds it (loss {trained.final:.3g} in training mode, {curve.final:.3g} without)",
            (less_regularisation(), add_capacity()),
            ("model capacity",),
            "train a tenth of the steps without dropout and augmentation: a lower loss settles it",
        )
    if val is not None and val.shown(val.final) > accuracy + 0.05 * (1 - guess):
        return _Cause(
            f"held-out accuracy is better, {val.shown(val.final):.3g}",
            (check_labels(), overfit_one_batch(), add_capacity()),
            ("label noise", "an easier validation set", "model capacity"),
            "relabel 100 training examples: many wrong ones settle it",
        )
    if quality is None:
        return None
    if quality.late > 0.95 and curve.start - curve.final > 0.02 * curve.start:
        return _Cause(
            f"steps too short (quality {quality.late:.2f})",
            (search_learning_rate(), raise_learning_rate(3.0)),
            ("lr-too-low",),
            "train a tenth of the steps at 3 and 10 times the rate: a lower loss settles it",
        )
    if quality.late < 0.1:
        return _Cause(
            f"steps too long (quality {quality.late:.2f})",
            (lower_learning_rate(0.1), search_learning_rate()),
            ("lr-too-high",),
            "train a tenth of the steps at a tenth of the rate: a lower loss settles it",
        )
    if quality.late > 0.95 or (accuracy - guess) / (1 - guess) < 0.1:
        return None  # next to guessing: a model of any size would learn more
    left = rate_left(run)
    if min(quality.early, quality.late) < 0.5 and (left is None or left > 0.3):
        return None  # long steps at a rate that was never annealed: it may be their floor, not the model's
    return _Cause(
        "the model is too small",
        (overfit_one_batch(), add_capacity()),
        ("label noise", "lr-noise-floor"),
        "train at 4 times the width for the same steps: a lower training loss settles it",
    )


def _held_back(curve: Curve, trained: Curve, modes: float) -> bool:
    """Whether the loss in training mode is much worse than in eval mode, as a ratio or by what was gained at all."""
    gained = curve.start - curve.final
    return trained.final > modes * curve.final or (
        gained > 0.02 * curve.start and gained > 2 * max(curve.start - trained.final, 0.0)
    )


def _losses_agree(run: Run, train: Curve) -> bool:
    """Whether validation loss ends within a tenth of the training loss's range of it."""
    split = held_out(run)
    val = find_curve(run, LOSS, split, least=12) if split else None
    return val is not None and val.final - train.final < 0.1 * train.swing
