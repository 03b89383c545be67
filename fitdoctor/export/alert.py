"""A finding in a title and a few lines, as trackers and messengers show it."""

from __future__ import annotations

from fitdoctor.finding import Finding
from fitdoctor.report import Diagnosis, Report
from fitdoctor.reporters import wording
from fitdoctor.reporters.harmless import one_line

LONGEST_TITLE = 63
"""W&B wants titles of less than 64 characters."""
LONGEST_LINE = 500


def title(finding: Finding) -> str:
    """Rule and severity, which tells a finding that got worse from what it was.

    Example:
        >>> from fitdoctor.finding import Confidence, Severity
        >>> from fitdoctor.run import Span
        >>> title(Finding("m", Severity.ERROR, Confidence.HIGH, Span(3, 9), rule="lr-too-high"))
        'lr-too-high (error)'
    """
    return one_line(f"{finding.rule or 'finding'} ({finding.severity})", LONGEST_TITLE)


def line(finding: Finding) -> str:
    """The fact, and since when."""
    return one_line(f"{finding.message}, since step {finding.onset:,}", LONGEST_LINE)


def text(diagnosis: Diagnosis) -> str:
    """The fact, its first evidence, what it accounts for, and the first remedy."""
    finding = diagnosis.root
    lines = [line(finding)]
    if finding.evidence:
        first = finding.evidence[0]
        expected = f" (expected {first.expected})" if first.expected else ""
        lines.append(one_line(f"{first.signal}: {first.observed}{expected}", LONGEST_LINE))
    if diagnosis.explains:
        lines.append(one_line(f"It explains: {', '.join(f.rule for f in diagnosis.explains)}", LONGEST_LINE))
    if finding.remedies:
        lines.append(one_line(f"To do: {wording.title(finding.remedies[0])}", LONGEST_LINE))
    lines.append(f"Confidence: {finding.confidence}")
    return "\n".join(lines)


def headline(report: Report) -> str:
    """The verdict on a run in one line.

    Example:
        >>> headline(Report("a", "", "csv", None, (), ()))
        'a cannot be judged: it holds no measurements'
    """
    verdict, reason = wording.headline(report)
    root = f" ({report.diagnoses[0].root.rule})" if report.verdict == "sick" and report.diagnoses else ""
    return one_line(f"{report.run or 'this run'} {verdict}{root}: {reason}", LONGEST_LINE)
