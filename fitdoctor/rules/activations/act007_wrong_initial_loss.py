"""ACT007 wrong-initial-loss."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Remedy, Severity
from fitdoctor.remedies import check_labels
from fitdoctor.remedies.activations import average_the_loss, rescale_initialisation, shrink_last_layer
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Series, Span
from fitdoctor.signals import ACCURACY, LOGIT_STD, LOSS, TARGET_STD
from fitdoctor.views.curves import begins_at_start
from fitdoctor.views.harm import find_standing


@rule(
    "ACT007",
    "wrong-initial-loss",
    needs=[LOSS],
    explains=["dead-relu", "class-collapse", "no-learning", "underfitting", "plateau"],  # its first steps are as large
    since="0.1.0",
)
def wrong_initial_loss(
    run: Run,
    *,
    excess: float = 1.0,
    deficit: float = 0.2,
    errors: float = 3.0,
    settled: int = 300,
    variances: float = 10.0,
) -> Iterator[Finding]:
    """The first loss is not that of a model that knows nothing.

    Why it matters:
        A classifier that has seen nothing should be unsure: its cross-entropy is ln C. Far above it, the first
        part of training goes into unlearning outputs that were drawn at random. Below it, something else than
        the loss is measured.

    How it is measured:
        With cross-entropy (or its binary form) and a known number of classes C, the loss of the first
        step against ln C (ln 2). It counts when it is `excess` above, or `deficit` below, and by more than `errors`
        standard errors for the size of the batch and the spread of the outputs. A loss that is
        ln C times the batch size is a sum. A loss below with an accuracy above chance is that of a model that is not
        new, and is left alone. A note; a warning when the loss is too high and, after `settled` steps, still
        above half of ln C (a sum is always a note). With a mean squared error and targets whose spread the hooks have
        measured, guessing is predicting their mean, at the cost of their variance: a first loss of more than
        `variances` of it counts in the same way.

    Options:
        excess: least excess over ln C, as a share of it.
        deficit: least deficit below ln C, as a share of it.
        errors: least difference in standard errors.
        settled: steps before it may be a warning.
        variances: largest sound first mean squared error, in variances of the targets.

    When it is wrong:
        The last layer's bias set to the log of each class's share gives the entropy of the classes, below ln C,
        with an accuracy above chance. Fine-tuned and resumed models begin where they were.

    What to do:
        A smaller initial last layer, biases at the log of the classes' shares, the mean instead of the sum. Below:
        check what goes into the loss.

    References:
        Karpathy 2019, A Recipe for Training Neural Networks (verify loss at init). Normal outputs of standard
        deviation s add about s^2 (1 - 1/C) / 2 nats, so twice ln 10 is s = 2.3; a last layer by He's
        initialisation gives 1 to 1.7 times ln 10 and does no harm.
    """
    loss = run.get(LOSS)
    assert loss is not None  # the rule needs it
    kind = str(run.facts.get("loss_function", ""))
    if kind == "MSELoss" and run.get(TARGET_STD) is not None:
        yield from _far_from_the_mean(run, loss, variances, settled)
        return
    if kind not in ("CrossEntropyLoss", "BCEWithLogitsLoss"):
        raise CannotJudge("the loss is not known to be a cross-entropy; set the facts loss_function and classes")
    classes = run.facts.get("classes") if kind == "CrossEntropyLoss" else 2
    if isinstance(classes, bool) or not isinstance(classes, (int, float)) or not 2 <= classes < 1e9:
        raise CannotJudge("the number of classes is unknown; set the fact classes")
    if run.facts.get("resumed_at") or not begins_at_start(run, loss):
        raise CannotJudge("the log does not hold the loss of the first step")
    first, expected = float(loss.values[0]), math.log(classes)
    if not math.isfinite(first):
        return
    ratio = first / expected
    size = _batch(run)
    spread = run.get(LOGIT_STD)
    deviation = float(spread.values[0]) if spread is not None else 1.0
    error = max(deviation, 0.1) / math.sqrt(size) if math.isfinite(deviation) else math.inf
    if ratio > 1 + excess and first - expected > errors * error:
        yield _too_high(run, loss, ratio, expected, size, settled)
    elif ratio < 1 - deficit and expected - first > errors * error:
        accuracy = run.get(ACCURACY)
        guessed = None if accuracy is None else float(accuracy.values[0])
        if guessed is None or guessed <= 1 / classes + errors * math.sqrt((1 - 1 / classes) / classes / size):
            yield _too_low(loss, first, expected, known=guessed is not None)


def _far_from_the_mean(run: Run, loss: Series, variances: float, settled: int) -> Iterator[Finding]:
    """A regression whose outputs begin much further from the targets than their mean is."""
    spread = run.get(TARGET_STD)
    if run.facts.get("resumed_at") or not begins_at_start(run, loss):
        raise CannotJudge("the log does not hold the loss of the first step")
    variance = 0.0 if spread is None else float(np.median(spread.finite.values)) ** 2
    if variance > 0 and variances * variance < float(loss.values[0]) < math.inf:
        yield _too_high(run, loss, float(loss.values[0]) / variance, variance, _batch(run), settled)


def _batch(run: Run) -> int:
    """Samples that the first loss was taken over."""
    size, parts = run.facts.get("batch_size"), run.facts.get("gradient_accumulation_steps", 1)
    known = [int(x) for x in (size, parts) if isinstance(x, (int, float)) and not isinstance(x, bool) and 1 <= x < 1e9]
    return max(1, math.prod(known)) if len(known) == 2 else 1


def _too_high(run: Run, loss: Series, ratio: float, expected: float, size: int, settled: int) -> Finding:
    first = float(loss.values[0])
    stand = find_standing(run)
    late = loss.span.last - loss.span.first >= settled
    known = run.facts.get("loss_reduction")
    summed = size >= 4 and (known == "sum" or (known is None and abs(ratio / size - 1) < 0.15))
    harm = stand is not None and stand.unsolved and late and not summed
    spread = run.get(LOGIT_STD)
    scale = float(spread.values[0]) if spread is not None else math.nan
    remedies: tuple[Remedy, ...] = (
        shrink_last_layer(min(0.5, 0.3 / scale) if scale > 0.3 else None),
        rescale_initialisation(),
    )
    message = f"the first loss is {first:.4g}, {ratio:.3g} times the {expected:.4g} of guessing"
    if summed:
        remedies = (average_the_loss(),)
        message = f"the first loss is {first:.4g}: {expected:.4g} of guessing times the batch of {size}, a sum"
    evidence = [Evidence.of(loss, f"{first:.4g} at the first step", f"{expected:.4g}, that of guessing")]
    if spread is not None:
        evidence.append(Evidence.of(spread, f"{scale:.3g} at the first step", "below 1"))
    return Finding(
        message=message,
        severity=Severity.WARNING if harm else Severity.NOTE,
        confidence=Confidence.HIGH if summed else Confidence.MEDIUM,
        span=Span(loss.span.first, loss.span.first),
        evidence=tuple(evidence),
        remedies=remedies,
        could_be=() if summed else ("pretrained weights for another task",),
    )


def _too_low(loss: Series, first: float, expected: float, *, known: bool) -> Finding:
    return Finding(
        message=f"the first loss is {first:.4g}, below the {expected:.4g} of guessing",
        severity=Severity.NOTE,
        confidence=Confidence.MEDIUM if known else Confidence.LOW,
        span=Span(loss.span.first, loss.span.first),
        evidence=(Evidence.of(loss, f"{first:.4g} at the first step", f"{expected:.4g}, that of guessing"),),
        remedies=(check_labels(),),
        could_be=("something else than class scores goes into the loss", "a mean over more than the labelled places")
        if known
        else ("a pretrained or resumed model", "a loss that counts padding"),
        settle_with="" if known else "log the accuracy of the first step: above chance means a trained model",
    )
