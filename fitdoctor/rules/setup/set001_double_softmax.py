"""SET001 double-softmax."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Remedy, Severity
from fitdoctor.remedies import pass_raw_logits
from fitdoctor.remedies.setup import pass_log_probabilities, remove_sigmoid
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import FloatArray, IntArray, Run, Series, Span
from fitdoctor.signals import ACCURACY, LOG_PROBABILITY_ROWS, LOSS, PROBABILITY_ROWS, UNIT_INTERVAL_FRACTION, Signal
from fitdoctor.views.curves import begins_at_start, place
from fitdoctor.views.harm import severity_by_harm

LEAST_SEEN = 3
"""Records of the loss's input: one batch may hold such rows by chance, if it is tiny."""


@rule(
    "SET001",
    "double-softmax",
    needs=[(Signal(LOSS), Signal(LOSS, "val"), Signal(LOSS, "test"))],
    explains=[
        "plateau",
        "underfitting",
        "lr-noise-floor",
        "no-learning",
        "lr-too-low",
        "undertrained",
        "loss-divergence",
        "class-collapse",
        "overconfidence-drift",
        "best-epoch",
        "val-set-too-noisy",
        "exploding-gradients",
        "nonfinite-loss",
        "lr-too-high",
        "logit-drift",
        "adam-epsilon-dominated",
    ],
    since="0.1.0",
)
def double_softmax(
    run: Run, *, excess: float = 1.5, margin: float = 0.02, spread: float = 0.1, settled: float = 0.05, least: int = 8
) -> Iterator[Finding]:
    """The loss is given probabilities where it takes scores, or scores where it takes log-probabilities.

    Why it matters:
        Cross-entropy applies softmax itself. Fed with probabilities, which lie between 0 and 1, it sees
        every answer as unsure: its gradient fades, training slows down, and the loss has a floor.
        BCEWithLogitsLoss applies the sigmoid itself, with the same effect. NLLLoss applies nothing: of
        raw scores it is minus the score of the label, and falls without end.

    How it is measured:
        Exactly, where hooks saw the loss's input: at every record all rows sampled are non-negative and sum to 1
        (CrossEntropyLoss), no row is of log-probabilities (NLLLoss), or all entries lie between 0 and 1 and a
        sigmoid made them (BCEWithLogitsLoss). An error where training blew up or came to nothing, or a
        likelihood fell below 0; a warning otherwise. Where they saw something else, nothing is reported.

        From a log alone, a softmax applied twice is told by its floor: the loss stops there while accuracy is high.
        With C classes, the loss of probabilities lies between ln(1 + (C - 1) / e) and 1 above it, and near
        that floor + 1 - accuracy once the model is sure. All logged losses lie in that band (within
        `margin`), the late losses are where the accuracy says they should be, within `spread`, and they are
        `excess` times what a calibrated model of that accuracy would have. A model that is still unsure because
        it has only begun passes through the same place; so loss plus accuracy must have come to rest, within
        `settled` over the last half. C comes from the fact classes,
        from an initial loss of ln C, or from the floor itself where train and val agree on the same C within
        0.02 nats (low confidence). Without accuracy the loss must lie flat on the floor, and confidence is low.

    Options:
        excess: least ratio of the loss to that of a calibrated model with the same accuracy.
        margin: tolerance of the band, in nats.
        spread: largest distance from floor + 1 - accuracy, in nats.
        settled: largest change of loss plus accuracy over the last half, in nats.
        least: fewest steps with both loss and accuracy.

    When it is wrong:
        Label smoothing and soft targets give the loss a floor as well, at another height; known label smoothing
        is left alone. With two classes the floor is low, and more accuracy is asked for.

    What to do:
        Remove the softmax from the model's forward pass.

    References:
        PyTorch documentation, torch.nn.CrossEntropyLoss: the input is expected to contain unnormalised
        logits. The floor follows from a one-hot input: -ln(e / (e + C - 1)).
    """
    if (seen := _seen(run)) is not None:
        yield from seen
        return
    if float(run.facts.get("label_smoothing", 0) or 0) > 0:
        raise CannotJudge("label smoothing gives the loss a floor of its own")
    pair = _pair(run, least)
    classes, known = _classes(run), True
    if not classes and pair is not None:
        classes, known = _classes_both_splits_agree_on(run, least), False
    if not classes:
        raise CannotJudge("the number of classes is unknown; set the fact classes")
    if pair is None:
        yield from _by_loss_alone(run, classes, margin)
        return
    loss, accuracy, losses, accuracies, steps = pair
    if not _settled(losses + accuracies, settled):
        return
    late = slice(len(steps) - max(3, len(steps) // 3), None)
    level, correct = float(np.median(losses[late])), float(np.median(accuracies[late]))
    fits = [f for c in classes if (f := _fit(c, losses, level, correct, margin, spread)) is not None]
    fits = [
        f
        for f in fits
        if level > excess * _calibrated(f.classes, correct) and correct > (0.95 if f.classes == 2 else 0.5)
    ]
    if not fits:
        return
    best = min(fits, key=lambda f: f.distance)
    onset = int(steps[np.argmax(losses <= best.floor + 1 - correct + spread)])
    yield Finding(
        message=f"{loss.signal} stops at {level:.3f}, the floor of a softmax applied twice, accuracy {correct:.3f}",
        severity=Severity.WARNING,
        confidence=_confidence(best, known),
        span=Span(onset, loss.span.last),
        evidence=(
            Evidence.of(
                loss,
                f"{level:.3f}, never below {float(losses.min()):.3f}",
                f"far below {best.floor:.3f} = ln(1 + {best.classes - 1}/e) at an accuracy of {correct:.3f}",
                marks=((onset, f"floor from {place(run, onset)}"),),
            ),
            Evidence.of(accuracy, f"{correct:.3f}"),
        ),
        remedies=(pass_raw_logits(),),
        could_be=("label smoothing", "soft targets"),
        settle_with="print(model(x).sum(dim=-1)): rows that sum to 1 are probabilities (one batch)",
    )


def _seen(run: Run) -> list[Finding] | None:
    """The finding from what the loss was given, none where that was right, None where it was not seen."""
    kind = str(run.facts.get("loss_function", ""))
    probable, logs, unit = (run.get(q) for q in (PROBABILITY_ROWS, LOG_PROBABILITY_ROWS, UNIT_INTERVAL_FRACTION))
    if kind == "CrossEntropyLoss" and probable is not None and len(probable) >= LEAST_SEEN:
        if probable.values.min() < 1 or run.facts.get("classes") == 1:
            return []
        what = "CrossEntropyLoss is given probabilities: all rows sum to 1"
        return [_wrong_input(run, what, probable, "raw scores, whose rows sum to anything", pass_raw_logits())]
    if kind == "NLLLoss" and logs is not None and len(logs) >= LEAST_SEEN:
        if logs.values.max() > 0:
            return []
        what = "NLLLoss is given raw scores: no row is of log-probabilities"
        return [_wrong_input(run, what, logs, "1: rows of log-probabilities", pass_log_probabilities())]
    if kind == "BCEWithLogitsLoss" and unit is not None and len(unit) >= LEAST_SEEN:
        if unit.values.min() < 1 or run.facts.get("loss_input_from") not in ("Sigmoid", "Softmax"):
            return []
        what = "BCEWithLogitsLoss is given the output of a sigmoid: all entries lie in 0 to 1"
        return [_wrong_input(run, what, unit, "raw scores of both signs", remove_sigmoid())]
    return None


def _wrong_input(run: Run, what: str, series: Series, expected: str, remedy: Remedy) -> Finding:
    severity, harmed = severity_by_harm(run)
    loss = run.get(LOSS)
    below = loss is not None and bool((loss.finite.values < 0).any())
    if below and series.signal.quantity == LOG_PROBABILITY_ROWS:
        severity = Severity.ERROR
    shown = (Evidence.of(loss, f"{loss.values[-1]:.4g} at the end"),) if loss is not None and not harmed else ()
    return Finding(
        message=f"{what} at {len(series)} records",
        severity=severity,
        confidence=Confidence.HIGH,
        span=series.span,
        evidence=(
            Evidence.of(series, f"{series.values[-1]:g} at all {len(series)} records", expected),
            *harmed,
            *shown,
        ),
        remedies=(remedy,),
    )


@dataclass(frozen=True, slots=True)
class _Fit:
    """How well one number of classes explains the losses."""

    classes: int
    floor: float
    distance: float


def _fit(classes: int, losses: FloatArray, level: float, correct: float, margin: float, spread: float) -> _Fit | None:
    floor = math.log(1 + (classes - 1) / math.e)
    inside = float(np.mean((losses >= floor - margin) & (losses <= floor + 1 + margin)))
    distance = level - (floor + 1 - correct)
    if inside < 0.99 or losses.min() < floor - margin or not -margin <= distance <= spread:
        return None
    return _Fit(classes, floor, abs(distance))


def _by_loss_alone(run: Run, classes: list[int], margin: float) -> Iterator[Finding]:
    """Without accuracy: the loss comes down to the floor, lies flat on it and never passes it."""
    loss = run.get(LOSS)
    if loss is None or len(loss.finite) < 60:
        raise CannotJudge("accuracy beside the loss, or 60 training losses, are needed")
    loss = loss.finite
    late = loss.values[-len(loss) // 3 :]
    low, level, high = (float(q) for q in np.quantile(late, [0.05, 0.5, 0.95]))
    for count in classes:
        floor = math.log(1 + (count - 1) / math.e)
        if floor <= low and level < floor + margin and high - low < 2 * margin and loss.values.min() > floor - 1e-3:
            onset = int(loss.steps[np.argmax(loss.values < floor + margin)])
            yield Finding(
                message=f"train loss lies flat at {level:.3f}, the floor of a softmax applied twice",
                severity=Severity.WARNING,
                confidence=Confidence.LOW,
                span=Span(onset, loss.span.last),
                evidence=(
                    Evidence.of(
                        loss,
                        f"{level:.4f}, never below {float(loss.values.min()):.4f}",
                        f"passing {floor:.4f} = ln(1 + {count - 1}/e)",
                        marks=((onset, "floor"),),
                    ),
                ),
                remedies=(pass_raw_logits(),),
                could_be=("label smoothing", "soft targets", "converged there by chance"),
                settle_with="print(model(x).sum(dim=-1)): rows that sum to 1 are probabilities (one batch)",
            )
            return


def _settled(sums: FloatArray, tolerance: float) -> bool:
    """Whether the last quarter lies where the quarter before it lay."""
    quarter = max(2, len(sums) // 4)
    return abs(float(np.median(sums[-quarter:]) - np.median(sums[-2 * quarter : -quarter]))) <= tolerance


def _calibrated(classes: int, correct: float) -> float:
    """Cross-entropy of a model that is as sure of each answer as it is often right."""
    wrong = 1 - correct
    if not 0 < wrong < 1:
        return 0.0
    return -correct * math.log(correct) - wrong * math.log(wrong / (classes - 1))


def _pair(
    run: Run, least: int, splits: tuple[str, ...] = ("train", "val", "test")
) -> tuple[Series, Series, FloatArray, FloatArray, IntArray] | None:
    """Loss and accuracy of one split, and their values at common steps."""
    for split in splits:
        accuracy = run.get(ACCURACY, split)
        if accuracy is None:
            continue
        accuracy = accuracy.finite
        for logged in (s for s in run.series if s.signal == Signal(LOSS, split)):
            loss = logged.finite
            steps, i, j = np.intersect1d(loss.steps, accuracy.steps, assume_unique=True, return_indices=True)
            if len(steps) >= least:
                return loss, accuracy, loss.values[i], accuracy.values[j], steps
    return None


def _classes(run: Run) -> list[int]:
    """Possible numbers of classes; none when neither a fact nor the first loss tells."""
    known = run.facts.get("classes")
    if isinstance(known, (int, float)) and not isinstance(known, bool) and 2 <= known < 1e9:
        return [int(known)]
    loss = run.get(LOSS)
    if loss is not None and len(loss.finite) >= 3 and begins_at_start(run, loss.finite):
        guess = math.exp(min(float(np.median(loss.finite.values[:3])), 20.0))
        if guess < 200:
            near = range(max(2, math.floor(0.95 * guess)), math.ceil(1.05 * guess) + 1)
            return [c for c in near if abs(c - guess) <= 0.06 * c]
    return []


def _classes_both_splits_agree_on(run: Run, least: int) -> list[int]:
    """The one whole number of classes whose floor explains the late losses of train and of val, or none.

    A softmax applied twice gives floor(C) + 1 - accuracy on every split, whatever its accuracy; solved for C
    within 0.02 nats on both splits.
    """
    found: list[set[int]] = []
    for split in ("train", "val"):
        pair = _pair(run, least, (split,))
        if pair is None:
            return []
        *_, losses, accuracies, steps = pair
        late = slice(len(steps) - max(3, len(steps) // 3), None)
        floor = float(np.median(losses[late])) - 1 + float(np.median(accuracies[late]))
        if not 0 < floor < 6:
            return []
        near = round(1 + math.e * (math.exp(floor) - 1))
        found.append(
            {c for c in range(max(3, near - 2), near + 3) if abs(math.log(1 + (c - 1) / math.e) - floor) < 0.02}
        )
    return sorted(found[0] & found[1])


def _confidence(best: _Fit, known: bool) -> Confidence:
    if not known:
        return Confidence.LOW
    return Confidence.HIGH if best.distance < 0.05 and best.classes > 2 else Confidence.MEDIUM
