"""LOG003 no-validation-logged."""

from __future__ import annotations

from collections.abc import Iterator

from fitdoctor.finding import Confidence, Evidence, Finding, Severity
from fitdoctor.remedies import log_validation
from fitdoctor.rule import CannotJudge, rule
from fitdoctor.run import Run
from fitdoctor.signals import LOSS, SPLIT_QUANTITIES


@rule("LOG003", "no-validation-logged", needs=[LOSS], since="0.1.0", live=False)
def no_validation_logged(run: Run, *, least: int = 8) -> Iterator[Finding]:
    """Nothing was measured on held-out data.

    Why it matters:
        Overfitting, the best checkpoint and the right moment to stop show on held-out data only.

    How it is measured:
        No loss and no metric of a validation or test split, in a log with at least `least` training losses.

    Options:
        least: fewest training losses; below it the log is too short to miss anything.

    When it is wrong:
        The validation was logged elsewhere, or under a tag that could not be mapped.

    What to do:
        Evaluate on held-out data about ten times per run. If the log has it, map the tag.

    References:
        None: it states what is in the log.
    """
    loss = run.get(LOSS)
    assert loss is not None  # the rule needs it
    if len(loss) < least:
        raise CannotJudge(f"{len(loss)} training losses, {least} are needed")
    if any(len(s) and s.signal.split != "train" and s.signal.quantity in SPLIT_QUANTITIES for s in run.series):
        return
    maybe = [t for t in run.unmapped if any(word in t.lower() for word in ("val", "eval", "test", "dev"))]
    yield Finding(
        message="no validation loss or metric was logged",
        severity=Severity.NOTE,
        confidence=Confidence.MEDIUM if maybe else Confidence.HIGH,
        span=loss.span,
        evidence=(
            Evidence.of(loss, f"{len(loss)} training losses and nothing beside them", "held-out loss or metric"),
        ),
        remedies=(log_validation(),),
        could_be=(f"tags that could not be mapped: {', '.join(maybe[:3])}",) if maybe else (),
    )
