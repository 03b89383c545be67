"""Ask one rule about one run, and check that what it says is fit to be shown."""

from __future__ import annotations

from dataclasses import replace

from fitdoctor.finding import Finding, Severity
from fitdoctor.rule import Rule
from fitdoctor.run import Run
from fitdoctor.signals import Quantity
from fitdoctor.testing import check_rule


def finds(rule: Rule, run: Run, **options: object) -> Finding:
    """The one finding of a rule, after a look at its form, its evidence and its remedies."""
    (finding,) = check_rule(rule, run, finds=1, **options)
    assert finding.message[0].islower() or finding.message[0].isdigit()
    assert any(c.isdigit() for c in finding.message), "a message has a number"
    whole = run.steps
    assert whole is not None
    assert whole.first <= finding.span.first <= finding.span.last <= whole.last
    assert finding.evidence
    for seen in finding.evidence:
        assert seen.observed
        assert 0 < len(seen.points) <= 200
        assert all(seen.span.first <= step <= seen.span.last for step, _ in seen.marks)
    if finding.severity is not Severity.NOTE:
        assert finding.remedies
    assert all(r.why for r in finding.remedies)
    return finding


def is_silent(rule: Rule, run: Run, **options: object) -> None:
    """Check that a rule judges a run and finds nothing."""
    check_rule(rule, run, finds=0, **options)


def without(run: Run, *quantities: Quantity | str) -> Run:
    """The run had it not logged these quantities, or nothing of these splits."""
    kept = [s for s in run.series if s.signal.quantity not in quantities and s.signal.split not in quantities]
    return replace(run, series=tuple(kept))
