"""FIT003 underfitting."""

from __future__ import annotations

from collections.abc import Iterator

from fitdoctor.curves import Curve, chance_accuracy, find_curve, held_out, need_curve
from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import add_capacity, less_regularisation, overfit_one_batch, search_learning_rate
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import ACCURACY, LOSS


@rule(
    "FIT003",
    "underfitting",
    needs=[LOSS],
    explains=["plateau", "val-better-than-train"],
    since="0.1.0",
    state=True,
    live=False,
)
def underfitting(run: Run, *, learned: float = 0.5, gap: float = 0.1, flat: float = 0.01) -> Iterator[Finding]:
    """The model has stopped improving on its own training data, at a poor level.

    Why it matters:
        No regularisation and no more data helps a model that cannot fit what it has.

    How it is measured:
        The training loss is flat over the last 30 % (forecast gain below `flat` of its range), training
        accuracy has gained less than `learned` of the way from guessing to perfect, and validation is no
        more than `gap` of that way behind. Accuracy is needed: without it a high floor may be noise in the
        targets, and the run is left open. From a log alone the cause stays open.

    Options:
        learned: share of the way from chance to perfect accuracy below which a floor counts as poor.
        gap: largest gap between training and validation accuracy, as a share of that way.
        flat: largest forecast gain as a share of the loss range.

    When it is wrong:
        Hard tasks with noisy labels have a poor best possible accuracy; strong augmentation and dropout
        lower training accuracy on purpose.

    What to do:
        Overfit one batch, search the learning rate, remove regularisation, train longer if it still helps,
        and then add capacity, in this order.

    References:
        Karpathy 2019 (stage 3: overfit first, regularise later). Thresholds are design values.
    """
    curve = need_curve(run, LOSS, least=20)
    split = held_out(run, ACCURACY)
    val = find_curve(run, ACCURACY, split, least=12) if split else None
    accuracy = find_curve(run, ACCURACY, least=12)
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
    yield Finding(
        message=f"{accuracy.series.signal.split} accuracy stops at {final:.3g}, training loss at {curve.final:.4g}: "
        "the model does not fit",
        severity=Severity.WARNING,
        confidence=Confidence.MEDIUM if chance is not None else Confidence.LOW,
        span=Span(int(curve.steps[-(3 * len(curve)) // 10]), int(curve.steps[-1])),
        evidence=tuple(evidence),
        remedies=(overfit_one_batch(), search_learning_rate(), less_regularisation(), add_capacity()),
        could_be=("model capacity", "regularisation too strong", "label noise", "lr-noise-floor"),
        settle_with="train at 4 times the width, and once without regularisation, for the same steps",
    )


def _losses_agree(run: Run, train: Curve) -> bool:
    """Whether validation loss ends within a tenth of the training loss's range of it."""
    split = held_out(run)
    val = find_curve(run, LOSS, split, least=12) if split else None
    return val is not None and val.final - train.final < 0.1 * train.swing
