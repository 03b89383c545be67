"""Report -> workflow commands, which GitHub shows as annotations on a job and a pull request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from fitdoctor.finding import Severity
from fitdoctor.report import Diagnosis, Report
from fitdoctor.reporters import wording
from fitdoctor.reporters.harmless import one_line

_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}


def stream(reports: Iterable[Report]) -> Iterator[str]:
    """One command per diagnosis, as the reports come, and a closing line."""
    verdicts: Counter[str] = Counter()
    for report in reports:
        verdicts[report.verdict] += 1
        for diagnosis in report.diagnoses:
            yield _command(report, diagnosis)
        if report.verdict == "cannot judge":
            reasons = "; ".join(why for why, _ in wording.to_log(report)) or "nothing was logged"
            yield _line(
                "warning", f"{one_line(report.run)} cannot be judged", report.path, f"what is missing: {reasons}"
            )
    yield (
        f"fitdoctor: {wording.plural(verdicts.total(), 'run')}, {verdicts['sick']} sick, "
        f"{verdicts['healthy']} healthy, {verdicts['cannot judge']} cannot be judged\n"
    )


def render(reports: Iterable[Report]) -> str:
    """All commands."""
    return "".join(stream(reports))


def _command(report: Report, diagnosis: Diagnosis) -> str:
    root = diagnosis.root
    lines = [f"{one_line(report.run)}: {one_line(root.message)} ({wording.standing(report, root)})"]
    if root.evidence:
        seen = root.evidence[0]
        expected = f", expected {one_line(seen.expected)}" if seen.expected else ""
        lines.append(f"{one_line(str(seen.signal))}: {one_line(seen.observed)}{expected}")
    if diagnosis.explains:
        lines.append("It explains " + ", ".join(one_line(f.rule) for f in diagnosis.explains))
    if root.remedies:
        lines.append(f"What to do: {one_line(root.remedies[0].title)}")
    if diagnosis.settle_with:
        lines.append(f"To settle it: {one_line(diagnosis.settle_with)}")
    return _line(_COMMANDS[root.severity], root.rule, report.path, "\n".join(lines))


def _line(command: str, title: str, path: str, message: str) -> str:
    properties = [("title", f"fitdoctor: {one_line(title)}")]
    if path:
        properties.append(("file", one_line(path)))
    text = ",".join(f"{key}={_property(value)}" for key, value in properties)
    return f"::{command} {text}::{_data(message)}\n"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
