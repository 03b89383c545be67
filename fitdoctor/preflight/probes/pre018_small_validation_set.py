"""PRE018 small-validation-set."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fitdoctor.finding import Finding
from fitdoctor.preflight.evidence import HIGH, NOTE, WARNING, finding, seen
from fitdoctor.preflight.probe import Cost, probe
from fitdoctor.remedies import evaluate_more
from fitdoctor.rule import CannotJudge

if TYPE_CHECKING:
    from fitdoctor.preflight.bench import Bench


@probe("PRE018", "small-validation-set", cost=Cost(), needs=["val_loader"], since="0.1.0", worth=1)
def small_validation_set(bench: Bench, *, points: float = 0.05, accuracy: float = 0.9) -> Iterator[Finding]:
    """The validation set is too small to see the differences that decide.

    Why it matters:
        An accuracy over n examples has a standard error of sqrt(p (1 - p) / n). Choosing between models by smaller
        differences is choosing by chance, whatever the ratio of the split.

    How it is measured:
        From the number of examples: the difference that two evaluations must have to stand out from sampling error,
        twice the standard error, at `accuracy`. Above `points` it is noted; above three times that, a warning.

    Options:
        points: difference in accuracy that should be visible.
        accuracy: at which it is computed.

    When it is wrong:
        Models compared on the same examples differ by less than that. For regressions and language models n counts
        examples, which may hold many targets: those are not judged.

    What to do:
        A larger validation set, cross-validation, or averages over evaluations.

    References:
        Standard error of a proportion; Bouthillier et al. 2021 (2103.03098) on variance in benchmarks.
    """
    val = bench.sources["val"]
    n = val.size
    if n is None:
        raise CannotJudge("the number of validation examples is unknown")
    if bench.labels(val.sample(8)) is None:
        raise CannotJudge("the targets are no classes, one per example")
    visible = 2 * math.sqrt(accuracy * (1 - accuracy) / max(1, n))
    bench.facts["visible_difference"] = round(visible, 4)
    if visible <= points:
        return
    needed = math.ceil(4 * accuracy * (1 - accuracy) / points**2)
    train = f" ({n / (n + bench.train.size):.0%} of all)" if bench.train.size else ""
    yield finding(
        f"{n:,} validation examples show differences in accuracy above {100 * visible:.0f} points only",
        WARNING if visible > 3 * points else NOTE, HIGH,
        seen("accuracy", f"{n:,} examples{train}: two standard errors are {100 * visible:.1f} points at {accuracy:.0%}",
             f"{needed:,} examples for {100 * points:.0f} points", split="val"),
        remedies=[evaluate_more(needed)],
    )  # fmt: skip
