"""Report -> JUnit XML, which continuous integration shows as tests: one suite per run, one case per rule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from xml.etree import ElementTree

from fitdoctor.finding import Finding, Severity
from fitdoctor.report import Outcome, Report
from fitdoctor.reporters import wording
from fitdoctor.reporters.harmless import one_line, several_lines


def stream(reports: Iterable[Report], *, fail_on: str = "error") -> Iterator[str]:
    """The XML in pieces, one per run.

    Args:
        reports: what to write.
        fail_on: lowest severity that makes a case fail: "error", "warning", "note" or "never".
    """
    yield '<?xml version="1.0" encoding="utf-8"?>\n<testsuites name="fitdoctor">\n'
    for report in reports:
        suite = _suite(report, None if fail_on == "never" else Severity(fail_on))
        ElementTree.indent(suite, level=1)
        yield "  " + ElementTree.tostring(suite, encoding="unicode") + "\n"
    yield "</testsuites>\n"


def render(reports: Iterable[Report], *, fail_on: str = "error") -> str:
    """The whole XML document."""
    return "".join(stream(reports, fail_on=fail_on))


def _suite(report: Report, threshold: Severity | None) -> ElementTree.Element:
    name = one_line(report.run) or "run"
    cases = [_case(report, outcome, name, threshold) for outcome in report.outcomes]
    counts = {kind: sum(case.find(kind) is not None for case in cases) for kind in ("failure", "error", "skipped")}
    suite = ElementTree.Element(
        "testsuite",
        {
            "name": name,
            "tests": str(len(cases)),
            "failures": str(counts["failure"]),
            "errors": str(counts["error"]),
            "skipped": str(counts["skipped"]),
        },
    )
    properties = ElementTree.SubElement(suite, "properties")
    for key, value in {"verdict": report.verdict, "path": report.path, "source": report.source}.items():
        ElementTree.SubElement(properties, "property", {"name": key, "value": one_line(value)})
    suite.extend(cases)
    return suite


def _case(report: Report, outcome: Outcome, suite: str, threshold: Severity | None) -> ElementTree.Element:
    case = ElementTree.Element("testcase", {"classname": suite, "name": f"{outcome.code} {outcome.rule}"})
    if outcome.status == "skipped":
        ElementTree.SubElement(case, "skipped", {"message": one_line(outcome.why)})
    elif outcome.status == "crashed":
        error = ElementTree.SubElement(case, "error", {"message": one_line(outcome.why), "type": "crash"})
        error.text = "That is a bug in fitdoctor: please report it with the log."
    failing = [f for f in outcome.findings if threshold is not None and f.severity.rank >= threshold.rank]
    if failing:
        # Some readers of JUnit show one failure a case only, so all findings of a rule share one.
        worst = max(failing, key=lambda f: f.severity.rank)
        failure = ElementTree.SubElement(
            case, "failure", {"message": one_line(worst.message), "type": str(worst.severity)}
        )
        failure.text = "\n\n".join(_details(report, f) for f in failing)
    if passing := [f for f in outcome.findings if f not in failing]:
        ElementTree.SubElement(case, "system-out").text = "\n\n".join(_details(report, f) for f in passing)
    return case


def _details(report: Report, finding: Finding) -> str:
    lines = [one_line(finding.message), wording.standing(report, finding)]
    for evidence in finding.evidence:
        expected = f" (expected {one_line(evidence.expected)})" if evidence.expected else ""
        lines.append(f"{one_line(str(evidence.signal))}: {one_line(evidence.observed)}{expected}")
    lines += [f"{i}. {one_line(r.title)}" for i, r in enumerate(finding.remedies, start=1)]
    return several_lines("\n".join(lines))
