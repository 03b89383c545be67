"""Report -> Markdown for a pull request comment, an issue or TensorBoard's text tab."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from fitdoctor.finding import Evidence, Finding, Remedy
from fitdoctor.report import Diagnosis, Report
from fitdoctor.reporters import wording
from fitdoctor.reporters.chart import number, sparkline
from fitdoctor.reporters.harmless import one_line, several_lines

MOST_ROWS = 50
"""Rows of the table of runs, the sick ones first; GitHub cuts a comment at 65,536 characters."""

MOST_IN_FULL = 10
"""Sick runs with a section of their own, for the same reason."""

LONGEST = 60_000
"""Characters after which no further section begins."""

_SYMBOLS = {"error": "❌", "warning": "⚠️", "note": "ℹ️", "healthy": "✅", "cannot judge": "❔"}


def render(reports: Iterable[Report]) -> str:
    """The Markdown of one report, or of several with a table in front."""
    reports = list(reports)
    if len(reports) == 1:
        return "\n".join(_section(reports[0])) + "\n"
    verdicts = Counter(r.verdict for r in reports)
    ranked = sorted(reports, key=_badness)  # stable: runs of equal standing keep their order
    lines = [
        f"### fitdoctor: {verdicts['sick']} of {wording.plural(len(reports), 'run')} "
        + ("is sick" if verdicts["sick"] == 1 else "are sick"),
        "",
        f"{verdicts['healthy']} healthy, {verdicts['cannot judge']} cannot be judged.",
        "",
        "| | run | diagnosis | since | confidence | |",
        "|---|---|---|---|---|---|",
        *(_row(r) for r in ranked[:MOST_ROWS]),
    ]
    if len(ranked) > MOST_ROWS:
        lines += ["", f"{len(ranked) - MOST_ROWS} more runs are left out of this table."]
    left = [r for r in ranked if r.verdict == "sick"]
    room = LONGEST - sum(len(line) + 1 for line in lines)
    for report in left[:MOST_IN_FULL]:
        section = ["", *_section(report)]
        room -= sum(len(line) + 1 for line in section)
        if room < 0:
            break
        lines += section
        left = left[1:]
    if left:
        lines += ["", f"{len(left)} more sick {'run is' if len(left) == 1 else 'runs are'} not shown whole."]
    return "\n".join(lines) + "\n"


def literal(text: str) -> str:
    """Text of a log as Markdown that shows exactly it: no markup, HTML, mention or link comes to life.

    Example:
        >>> literal("*a* <b> @me")
        '\\\\*a\\\\* &lt;b&gt; @\\u200bme'
    """
    return _inline(one_line(text))


def _inline(text: str) -> str:
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_\[\]#|~$])", r"\\\1", text)
    # What GitHub links by itself is broken by a space of no width.
    text = re.sub(r"@(?=\w)", "@\u200b", text)
    return re.sub(r"(?i)(://|\bwww\.)", "\\1\u200b", text)


def code(text: str) -> str:
    """Text of a log as a code span.

    Example:
        >>> code("a`b")
        '``a`b``'
    """
    text = one_line(text) or " "
    fence = "`" * (_longest_run(text) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def cell(markdown: str) -> str:
    """Markdown that may stand in a table: there a bar ends the cell, even in a code span."""
    return markdown.replace("\\|", "|").replace("|", "\\|")


def prose(text: str) -> str:
    """Text of a rule: what it puts between backticks is code, the rest is as `literal` makes it.

    Example:
        >>> prose("call `fit(*x)` once")
        'call `fit(*x)` once'
    """
    parts = one_line(text).split("`")
    if len(parts) % 2 == 0:  # an odd number of backticks: somebody's name holds one
        return literal(text)
    return "".join(code(part) if i % 2 else _inline(part) for i, part in enumerate(parts))


def _longest_run(text: str) -> int:
    return max((len(ticks) for ticks in re.findall("`+", text)), default=0)


def _badness(report: Report) -> tuple[int, int, int]:
    order = ("sick", "cannot judge", "healthy").index(report.verdict)
    root = report.diagnoses[0].root if report.diagnoses else None
    return (order, -root.severity.rank, -root.confidence.rank) if root else (order, 0, 0)


def _state(report: Report) -> str:
    return str(report.worst) if report.verdict == "sick" else report.verdict


def _row(report: Report) -> str:
    cells = [_SYMBOLS[_state(report)], cell(code(one_line(report.run, 60))), report.verdict, "", "", ""]
    if report.verdict == "sick":
        root = report.diagnoses[0].root
        spark = sparkline(root.evidence[0].points, 16) if root.evidence else ""
        cells[2:] = [literal(root.rule), wording.when(report, root.onset), str(root.confidence), spark]
    return "| " + " | ".join(cells) + " |"


def _section(report: Report) -> list[str]:
    verdict, reason = wording.headline(report)
    lines = [f"### {_SYMBOLS[_state(report)]} {code(report.run or 'this run')} {verdict}: {prose(reason)}", ""]
    lines.append(literal(wording.facts_line(report)))
    harmful, notes = wording.severity_first(report.diagnoses)
    for diagnosis in harmful:
        lines += ["", *_diagnosis(report, diagnosis)]
    if not harmful:
        lines += ["", *(_curve(c) for c in report.curves if c.points)]
    if report.verdict == "cannot judge":
        lines += ["", "**What is missing**", ""]
        lines += [f"- {prose(why)} (keeps out {', '.join(names)})" for why, names in wording.to_log(report)]
    if notes:
        lines += ["", "**Worth knowing**", ""]
        lines += [_finding_item(report, d.root) for d in notes]
    lines += _small_print(report)
    summary = wording.summary(Counter(report.counts), wording.skipped_by_reason([report]))
    return [*lines, "", literal(summary)]


def _diagnosis(report: Report, diagnosis: Diagnosis) -> list[str]:
    root = diagnosis.root
    lines = [f"**{literal(root.rule)}**: {prose(root.message)}", "", f"{wording.standing(report, root)}", ""]
    lines += [_evidence(e) for e in root.evidence]
    if diagnosis.could_be:
        lines += ["", f"It could also be: {prose('; '.join(diagnosis.could_be))}."]
    if diagnosis.settle_with:
        lines += ["", f"To settle it: {prose(diagnosis.settle_with)}."]
    if diagnosis.explains:
        lines += ["", "It explains", ""]
        lines += [_finding_item(report, f) for f in diagnosis.explains]
    if root.remedies:
        lines += ["", "<details><summary>What to do</summary>", ""]
        for place, remedy in enumerate(root.remedies, start=1):
            lines += _remedy(report, remedy, place)
        lines.append("</details>")
    if root.ruled_out:
        summary = f"What does not suit this run: {len(root.ruled_out)}, and why"
        lines += ["", f"<details><summary>{summary}</summary>", ""]
        lines += [*(f"- {prose(reason)}" for reason in root.ruled_out), "", "</details>"]
    return lines


def _finding_item(report: Report, finding: Finding) -> str:
    since = f" · {wording.since(report, finding.span)}" if wording.onset(report, finding) else ""
    return f"- **{literal(finding.rule)}**: {prose(finding.message)}{since}"


def _curve(curve: Evidence) -> str:
    first, last = (number(curve.points[i][1]) for i in (0, -1))
    return f"- `{sparkline(curve.points, 24)}` {literal(str(curve.signal))}: {first} to {last}"


def _evidence(evidence: Evidence) -> str:
    spark = f"`{sparkline(evidence.points, 24)}` " if evidence.points else ""
    expected = f" (expected: {prose(evidence.expected)})" if evidence.expected else ""
    return f"- {spark}{literal(str(evidence.signal))}: {prose(evidence.observed)}{expected}"


def _remedy(report: Report, remedy: Remedy, place: int) -> list[str]:
    head = f"{place}. "
    indent = " " * len(head)
    lines = [f"{head}**{prose(wording.title(remedy))}**"]
    for label, text in (("Why", remedy.why), ("Unless", remedy.unless), ("It worked if", remedy.confirm)):
        if text:
            lines.append(f"{indent}{label}: {prose(text)}. ".rstrip() + "<br>")
    framework = str(report.facts.get("framework", "")).lower()
    for name, text in wording.codes_to_show(dict(remedy.code), framework, everything=False):
        text = several_lines(text)
        fence = "`" * max(3, _longest_run(text) + 1)
        block = [f"{literal(name)}:", "", f"{fence}python", *text.splitlines(), fence]
        lines += ["", *(f"{indent}{line}".rstrip() for line in block)]
    return [*lines, ""]


def _small_print(report: Report) -> list[str]:
    lines = [f"- {prose(note.text)}" for note in report.notes]
    if report.unmapped:
        lines.append(f"- tags not understood and left out: {_codes(report.unmapped, 10)}")
    lines += [
        f"- {len(rules)} switched off: {prose(why)} ({', '.join(rules)})"
        for why, rules in wording.ignored_by_reason(report)
    ]
    lines += [
        f"- {len(names)} not judged: {prose(why)} ({', '.join(names)})"
        for why, names in wording.skipped_by_reason([report])
    ]
    lines += [
        f"- {o.rule} crashed: {code(o.why)}. That is a bug in fitdoctor: please report it with the log."
        for o in report.outcomes
        if o.status == "crashed"
    ]
    if not lines:
        return []
    return ["", "<details><summary>About the log, and what was not judged</summary>", "", *lines, "", "</details>"]


def _codes(texts: Sequence[str], most: int) -> str:
    shown = ", ".join(code(t) for t in texts[:most])
    return f"{shown} and {len(texts) - most} more" if len(texts) > most else shown
