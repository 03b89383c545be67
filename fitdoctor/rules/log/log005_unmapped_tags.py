"""LOG005 unmapped-tags."""

from __future__ import annotations

from collections.abc import Iterator

from fitdoctor.finding import Confidence, Finding, Severity
from fitdoctor.remedies import map_tags
from fitdoctor.rule import rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import LOSS


@rule("LOG005", "unmapped-tags", needs=[], since="0.1.0")
def unmapped_tags(run: Run) -> Iterator[Finding]:
    """No tag of the log could be understood as a loss, and some tags were left out.

    Why it matters:
        Without a loss most rules have nothing to look at. One of the tags left out probably is it.

    How it is measured:
        The run has no loss of any split, and at least one tag that could not be mapped to a signal.

    Options:
        None.

    When it is wrong:
        A log of system metrics alone.

    What to do:
        Name the loss with `--map TAG=loss:train`.

    References:
        None: it states what is in the log.
    """
    if not run.unmapped or any(s.signal.quantity == LOSS and len(s) for s in run.series):
        return
    first = "".join(c if c.isprintable() else " " for c in run.unmapped[0]).strip()
    shown = f"{first[:30]!r}"[:40]
    yield Finding(
        message=f"no loss found, and {len(run.unmapped)} tags were not understood, such as {shown}",
        severity=Severity.NOTE,
        confidence=Confidence.HIGH,
        span=run.steps or Span(0, 0),
        remedies=(map_tags(),),
    )
