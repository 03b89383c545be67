"""LOG006 duplicate-steps."""

from __future__ import annotations

from collections.abc import Iterator

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import write_one_log_per_run
from fitdoctor.rule import rule
from fitdoctor.run import Run, Span
from fitdoctor.signals import LOSS


@rule("LOG006", "duplicate-steps", needs=[], since="0.1.0")
def duplicate_steps(run: Run) -> Iterator[Finding]:
    """The same step was logged more than once.

    Why it matters:
        Only one value of a step can be drawn and judged. Two runs in one folder, or two processes that
        both write, mix their curves this way.

    How it is measured:
        The readers count the steps that occur twice in one tag; the later value is used.

    Options:
        None.

    When it is wrong:
        Several values a step can be meant, as with micro-batches under gradient accumulation.

    What to do:
        Write each run into its own folder, and log from one process.

    References:
        None: it repeats what the readers found.
    """
    twice = [n for n in run.notes if n.kind == "duplicate-steps"]
    if not twice:
        return
    amounts = [n.amount for n in twice if n.amount is not None]
    points = sum(int(a) for a in amounts if 0 < a < 2**53)
    shown = run.get(LOSS) or next(iter(run.series), None)
    counted = f"{points} values" if points else "some values"
    yield Finding(
        message=f"{counted} stand at steps that were logged before; the later ones are used",
        severity=Severity.NOTE,
        confidence=Confidence.HIGH,
        span=run.steps or Span(0, 0),
        evidence=() if shown is None else tuple(Evidence.of(shown, n.text) for n in twice[:3]),
        remedies=(write_one_log_per_run(),),
    )
