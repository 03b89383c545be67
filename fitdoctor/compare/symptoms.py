"""What became of the findings: gone, new, still there, or no longer judged."""

from __future__ import annotations

from collections.abc import Sequence

from fitdoctor.compare.comparison import FindingChange, State
from fitdoctor.finding import Finding
from fitdoctor.report import Outcome, Report


def changed_findings(before: Sequence[Report], after: Sequence[Report]) -> tuple[FindingChange, ...]:
    """What became of each rule that found something in any run; the worst first.

    A rule that could not judge the runs after has not been cured: its finding is "no longer judged". A finding in
    some runs of a side counts; one that is in all runs of one side and in none of the other is the clearest.
    """
    rules = dict.fromkeys(o.rule for report in (*before, *after) for o in report.outcomes if o.findings)
    found = [_change(rule, before, after) for rule in rules]
    worst = {"new": 0, "still there": 1, "not judged before": 2, "no longer judged": 3, "gone": 4}

    def order(change: FindingChange) -> tuple[bool, int, int, str]:
        severity = max(s.rank for s in (change.before, change.after) if s is not None)
        return (not change.root, -severity, worst[change.state], change.rule)

    return tuple(sorted(found, key=order))


def _change(rule: str, before: Sequence[Report], after: Sequence[Report]) -> FindingChange:
    a, b = _findings(rule, before), _findings(rule, after)
    worst_a, worst_b = (max(side, key=lambda f: f.severity.rank, default=None) for side in (a, b))
    state, why = _state(rule, before, after, found=(bool(a), bool(b)))
    shown = worst_b or worst_a
    assert shown is not None  # the rule found something in one run at least
    return FindingChange(
        rule=rule,
        state=state,
        before=None if worst_a is None else worst_a.severity,
        after=None if worst_b is None else worst_b.severity,
        runs=(_runs_with(rule, before), _runs_with(rule, after)),
        message=shown.message,
        why=why,
        root=any(d.root.rule == rule for report in (*before, *after) for d in report.diagnoses),
    )


def _state(
    rule: str, before: Sequence[Report], after: Sequence[Report], *, found: tuple[bool, bool]
) -> tuple[State, str]:
    if all(found):
        return "still there", ""
    other = after if found[0] else before
    outcomes = [_outcome(rule, report) for report in other]
    unjudged = [o for o in outcomes if o is None or o.status in ("skipped", "crashed")]
    if unjudged:
        first = unjudged[0]
        why = "switched off" if first is None else first.why
        return ("no longer judged", why) if found[0] else ("not judged before", why)
    return ("gone", "") if found[0] else ("new", "")


def _outcome(rule: str, report: Report) -> Outcome | None:
    return next((o for o in report.outcomes if o.rule == rule), None)


def _findings(rule: str, reports: Sequence[Report]) -> list[Finding]:
    return [f for report in reports for o in report.outcomes if o.rule == rule for f in o.findings]


def _runs_with(rule: str, reports: Sequence[Report]) -> int:
    return sum(any(o.rule == rule and o.findings for o in report.outcomes) for report in reports)
