"""LOG002 damaged-log."""

from __future__ import annotations

from collections.abc import Iterator

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.rule import rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import LOSS


@rule("LOG002", "damaged-log", needs=[], since="0.1.0")
def damaged_log(run: Run, *, least: int = 8) -> Iterator[Finding]:
    """Part of the log could not be read.

    Why it matters:
        What is missing cannot be judged. A cut at the end usually means that the run is still writing or
        was killed; damage in the middle means that steps are missing from the curves.

    How it is measured:
        The readers say what they skipped. It is a note, and a warning only when damage in the middle of the
        log left fewer than `least` values of the loss.

    Options:
        least: fewest losses that still allow a judgement.

    When it is wrong:
        A log that is copied while it is being written looks cut.

    What to do:
        Copy the log again when the run has ended; check the disk if it stays damaged.

    References:
        None: it repeats what the readers found.
    """
    hurt = [n for n in run.notes if n.kind in ("corrupt", "truncated")]
    if not hurt:
        return
    loss = run.get(LOSS) or run.get(LOSS, "val")
    middle = [n for n in hurt if n.kind == "corrupt"]
    blind = bool(middle) and (loss is None or len(loss) < least)
    span = run.steps or Span(0, 0)
    known = [n.step for n in hurt if n.step is not None]
    what = "damaged" if middle else "cut off at the end"
    shown = loss or next(iter(run.series), None)
    yield Finding(
        message=f"log is {what} in {len(hurt)} place{'s' if len(hurt) > 1 else ''}"
        + (", too little is left to judge the loss" if blind else ""),
        severity=Severity.WARNING if blind else Severity.NOTE,
        confidence=Confidence.HIGH,
        span=Span(min(known, default=span.first), span.last) if min(known, default=0) <= span.last else span,
        evidence=() if shown is None else tuple(Evidence.of(shown, n.text) for n in hurt[:3]),
    )
