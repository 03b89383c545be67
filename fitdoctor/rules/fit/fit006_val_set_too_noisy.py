"""FIT006 val-set-too-noisy."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import evaluate_more
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import FloatArray, Run, Span
from fitdoctor.signals import ACCURACY, Signal
from fitdoctor.views.curves import find_curve, held_out, jitter

_FEW = 8
"""Values that rule out most sizes before all values are looked at."""


@rule(
    "FIT006",
    "val-set-too-noisy",
    needs=[(Signal(ACCURACY, "val"), Signal(ACCURACY, "test"))],
    explains=["best-epoch"],
    since="0.1.0",
    state=True,
)
def val_set_too_noisy(run: Run, *, error: float = 0.02, ratio: float = 0.5) -> Iterator[Finding]:
    """The validation set is too small to tell one epoch from another.

    Why it matters:
        The best epoch, early stopping and every comparison between runs then pick luck.

    How it is measured:
        The number of validation examples is taken from the facts, or read off the accuracy values, which
        are multiples of 1/n. The sampling error of an accuracy p is sqrt(p (1 - p) / n). Reported as a note when
        it exceeds `error` and the scatter from epoch to epoch, once the trend is removed, is at least
        `ratio` of it: with a set this small the differences between epochs are about as large as chance makes them.

    Options:
        error: least sampling error that matters, as a fraction.
        ratio: least scatter from epoch to epoch, in sampling errors.

    When it is wrong:
        Two epochs are judged on the same examples, so a difference of paired results is surer than the
        sampling error suggests.

    What to do:
        Validate on more examples, use cross-validation, or average neighbouring epochs.

    References:
        Standard error of a proportion; for a difference of 2 points at 90 % power 865 examples are needed.
    """
    split = held_out(run, ACCURACY)
    curve = find_curve(run, ACCURACY, split)
    if curve is None:
        raise CannotJudge(f"fewer than 8 values of {split} accuracy")
    known = run.facts.get(f"n_{split}")
    n = int(known) if isinstance(known, (int, float)) and known >= 2 else set_size(curve.series.values)
    if n is None:
        raise CannotJudge(f"the size of the {split} set is neither logged nor readable from the accuracy values")
    p = min(max(curve.shown(curve.final), 1 / n), 1 - 1 / n)
    sampling = math.sqrt(p * (1 - p) / n)
    scatter = jitter(curve)
    if sampling < error or scatter < ratio * sampling:
        return
    yield Finding(
        message=f"{split} accuracy {p:.3g} on {n} examples is only known to ±{sampling:.1%}",
        severity=Severity.NOTE,
        confidence=Confidence.HIGH,
        span=Span(int(curve.steps[0]), int(curve.steps[-1])),
        evidence=(
            Evidence.of(
                curve.series,
                f"scatter from epoch to epoch {scatter:.1%}, sampling error {sampling:.1%}",
                f"a sampling error below {error:.0%}",
            ),
        ),
        remedies=(evaluate_more(_needed(p, error)),),
    )


def set_size(values: FloatArray, most: int = 2000) -> int | None:
    """The smallest n of which all accuracies are multiples of 1/n, or None.

    Example:
        >>> set_size(np.array([0.25, 0.5, 0.625, 0.75]))
        8
        >>> set_size(np.array([0.1234567, 0.3141592, 0.2718281])) is None
        True
    """
    distinct = np.unique(values[np.isfinite(values)])
    if len(distinct) < 3:
        return None
    decimals = 1e-6 if np.abs(distinct * 1e4 - np.round(distinct * 1e4)).max() > 1e-6 else 1e-9
    sizes = np.arange(max(2, len(distinct) - 1), most + 1)
    few = distinct[:: len(distinct) // _FEW + 1]
    scaled = few * sizes[:, None]
    for n in sizes[np.abs(scaled - np.round(scaled)).max(axis=1) < sizes * decimals].tolist():
        if np.abs(distinct * n - np.round(distinct * n)).max() < n * decimals:
            return n if n < most // 2 else None
    return None


def _needed(p: float, error: float) -> int:
    return max(100, int(round(4 * p * (1 - p) / error**2, -2)))
