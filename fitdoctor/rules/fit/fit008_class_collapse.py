"""FIT008 class-collapse."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import check_labels, lower_learning_rate
from fitdoctor.remedies.fit import balance_classes
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import ACCURACY, LARGEST_PREDICTED_SHARE, PROBE_ACCURACY
from fitdoctor.views.curves import find_curve, place
from fitdoctor.views.steps import drowned, left_over, training_curve


@rule(
    "FIT008",
    "class-collapse",
    needs=[LARGEST_PREDICTED_SHARE],
    explains=["no-learning", "underfitting", "plateau", "val-set-too-noisy", "undertrained"],
    since="0.1.0",
    state=True,
)
def class_collapse(run: Run, *, share: float = 0.95, few: int = 500, rare: float = 0.05) -> Iterator[Finding]:
    """The model gives the same answer to nearly every input.

    Why it matters:
        Accuracy is then the frequency of that class and tells nothing; on unbalanced data it can even look good.

    How it is measured:
        The share of a batch's predictions that name the most predicted class: its median over the second half of
        the records is at least `share`, over at least `few` examples in all, while at least a `rare` share of them
        has another label, by the accuracy of the same batches. The first 5 % of the steps are left out. An error
        where the training loss is still above 90 % of where it began, a warning otherwise; a note where more than 90
        % of the predictions are right, since then the data may just be that unbalanced. Not where accuracy on a fixed
        batch in eval mode (``probe_train``) is better by a tenth: heavy dropout makes the answers of training alike.

    Options:
        share: share of the predictions that name one class.
        few: fewest examples it is judged on.
        rare: least share of examples with another label.

    When it is wrong:
        Batches sorted by class show one class each (repeated-batch-order, shuffling); batches of one or two
        examples are too small to tell and are not judged.

    What to do:
        By cause: a lower learning rate where it began at once; labels; class weights or balanced sampling, and the
        output bias set to the log of the class frequencies, where the data are unbalanced.

    References:
        Karpathy 2019 (initialise the final bias well); Japkowicz and Stephen 2002 on imbalance. Thresholds are
        design values.
    """
    series = run.get(LARGEST_PREDICTED_SHARE)
    assert series is not None  # the rule needs it
    batch = run.facts.get("batch_size")
    size = float(batch) if isinstance(batch, (int, float)) else 0.0
    if 0 < size < 4:
        raise CannotJudge(f"batches of {size:.0f}: one prediction more or less is a large share")
    span = series.span
    late = series.finite.between(max(span.first + (span.last - span.first) // 2, round(0.05 * span.last)), span.last)
    if len(late) < 8 or len(late) * max(size, 1.0) < few:
        raise CannotJudge(f"fewer than {few} examples in the second half of the records")
    typical = float(np.median(late.values))
    accuracy = run.get(ACCURACY)
    if typical < share or accuracy is None:
        return
    right = accuracy.finite.between(late.span.first, late.span.last).values
    if not len(right) or 1 - float(right.mean()) < rare:
        return
    correct = float(right.mean())
    probed = find_curve(run, PROBE_ACCURACY)
    if probed is not None and probed.shown(probed.final) > correct + 0.1:
        return  # in eval mode it tells classes apart: dropout makes the answers of training look alike
    if drowned(run) is not None:
        return  # so do they where it leaves nothing but noise: underfitting tells
    other = np.nonzero(series.values < share)[0]
    since = int(series.steps[min(len(series) - 1, int(other[-1]) + 1)]) if len(other) else span.first
    loss = find_curve(run)
    stuck = loss is not None and left_over(run, training_curve(run)) > 0.9
    severity = Severity.NOTE if correct > 0.9 else Severity.ERROR if stuck else Severity.WARNING
    evidence = [
        Evidence.of(series, f"{typical:.0%} of the predictions name one class", f"below {share:.0%}"),
        Evidence.of(accuracy, f"{correct:.3g} over the same records"),
    ]
    if loss is not None:
        evidence.append(Evidence.of(loss.series, f"{loss.final:.4g} at the end"))
    yield Finding(
        message=f"{typical:.0%} of the predictions name one class since {place(run, since)}; {correct:.0%} are right",
        severity=severity,
        confidence=Confidence.HIGH if correct < 0.6 else Confidence.MEDIUM,
        span=Span(since, span.last),
        evidence=tuple(evidence),
        remedies=(check_labels(), balance_classes(), lower_learning_rate()),
        could_be=("lr-too-high", "class imbalance", "dead-relu"),
        settle_with="print the confusion matrix of one epoch: recall per class tells imbalance from collapse",
    )
