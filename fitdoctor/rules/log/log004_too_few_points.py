"""LOG004 too-few-points."""

from __future__ import annotations

from collections.abc import Iterator

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import log_more_often
from fitdoctor.rule import rule
from fitdoctor.run import Run
from fitdoctor.signals import SPLIT_QUANTITIES


@rule("LOG004", "too-few-points", needs=[], since="0.1.0", live=False)
def too_few_points(run: Run, *, least: int = 8) -> Iterator[Finding]:
    """The log holds too few values of the loss to judge how training went.

    Why it matters:
        With fewer than 8 values no trend can be told from noise; most rules stay silent, and silence is not
        health.

    How it is measured:
        The longest logged loss or metric, of any split, has fewer than `least` values.

    Options:
        least: fewest values.

    When it is wrong:
        A run that has only just begun.

    What to do:
        Log the training loss every few steps.

    References:
        Mann 1945 and Kendall 1975: below 8 points their test cannot reach p < 0.001.
    """
    judged = [s for s in run.series if s.signal.quantity in SPLIT_QUANTITIES and len(s)]
    longest = max(judged, key=len, default=None)
    if longest is None or len(longest) >= least:
        return
    yield Finding(
        message=f"only {len(longest)} values of {longest.signal} were logged",
        severity=Severity.NOTE,
        confidence=Confidence.HIGH,
        span=longest.span,
        evidence=(Evidence.of(longest, f"{len(longest)} values", f"at least {least}, better 100"),),
        remedies=(log_more_often(),),
    )
