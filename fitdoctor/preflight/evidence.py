"""How probes word what they measured. No torch here: the modules of the probes import it at the top."""

from __future__ import annotations

from collections.abc import Sequence

from fitdoctor.finding import Confidence, Evidence, Finding, Remedy, Severity
from fitdoctor.run import Span
from fitdoctor.signals import QUANTITIES, Quantity, Signal

START = Span(0, 0)
"""The moment of everything that a probe finds: before the first step."""

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
HIGH, MEDIUM, LOW = Confidence.HIGH, Confidence.MEDIUM, Confidence.LOW


def seen(
    what: str,
    observed: str,
    expected: str = "",
    *,
    layer: str = "",
    split: str = "train",
    points: Sequence[tuple[int, float]] = (),
) -> Evidence:
    """A measured fact.

    Args:
        what: name of a quantity of `fitdoctor.signals`, or of one that only probes measure.
        observed: what was seen.
        expected: what a sound program would have shown.
        layer: the part of the model.
        split: the part of the data.
        points: (index, value) pairs worth a plot.
    """
    quantity = QUANTITIES.get(what) or Quantity(what, "", "measured by a probe before the run")
    return Evidence(Signal(quantity, split, layer), START, observed, expected, tuple(points)[:200])


def finding(
    message: str,
    severity: Severity,
    confidence: Confidence,
    *evidence: Evidence,
    remedies: Sequence[Remedy] = (),
    could_be: Sequence[str] = (),
    settle_with: str = "",
) -> Finding:
    """A finding at the start of the run; a message too long for a line is cut at a word."""
    if len(message) > 100:
        message = message[:99].rsplit(" ", 1)[0] + "…"
    return Finding(message, severity, confidence, START, evidence, tuple(remedies), tuple(could_be), settle_with)


def some(names: Sequence[str], most: int = 3) -> str:
    """``a, b, c and 4 more``."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
