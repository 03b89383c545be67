"""Report -> terminal: what someone reads at midnight, the conclusion first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console

from fitdoctor.finding import Evidence, Finding, Remedy
from fitdoctor.report import Diagnosis, Report
from fitdoctor.reporters import wording
from fitdoctor.reporters.chart import GUTTER, chart, is_log, number, sparkline
from fitdoctor.reporters.harmless import one_line, several_lines
from fitdoctor.reporters.page import Page

STYLES = {
    "error": "bold red",
    "warning": "bold yellow",
    "note": "cyan",
    "healthy": "bold green",
    "cannot judge": "bold magenta",
    "axis": "dim",
    "curve": "cyan",
    "bad": "bold red",
    "mark": "bold yellow",
}

REMEDIES_IN_FULL = 3
"""More remedies than these are named only: whoever tried three wants another diagnosis, not a fourth."""

_SYMBOLS = {"error": "✗", "warning": "!", "note": "·", "healthy": "✓", "cannot judge": "?"}
_PLAIN_SYMBOLS = {**_SYMBOLS, "error": "x", "note": "-", "healthy": "+"}


def show(report: Report, console: Console, *, verbose: bool = False, quiet: bool = False) -> None:
    """Write the whole report on one run.

    Args:
        report: what to show.
        console: where to.
        verbose: show every remedy, framework, unmapped tag and skipped rule.
        quiet: show the verdict and the closing line only.
    """
    page = Page(console)
    _headline(page, report)
    if not quiet:
        harmful, notes = wording.severity_first(report.diagnoses)
        for i, diagnosis in enumerate(harmful):
            page.gap()
            _diagnosis(page, report, diagnosis, leading=i == 0, verbose=verbose)
        if report.verdict == "cannot judge":
            _what_to_log(page, report)
        elif not harmful:
            _curves(page, report)
        if notes:
            page.gap()
            page.write(("Worth knowing", "bold"))
            for diagnosis in notes:
                _note(page, report, diagnosis, verbose=verbose)
        _about_the_log(page, report, verbose=verbose)
        _not_judged(page, report, verbose=verbose)
        page.gap()
    _closing(page, report)


def symbol(page: Page, state: str) -> tuple[str, str]:
    """The one-character mark of a severity or verdict, coloured."""
    return ((_PLAIN_SYMBOLS if page.plain else _SYMBOLS)[state], STYLES[state])


def state_of(report: Report) -> str:
    """ "error" or "warning" for a sick run, else its verdict."""
    return str(report.worst) if report.verdict == "sick" else report.verdict


# --- the parts, from the top ------------------------------------------------------------------------


def _headline(page: Page, report: Report) -> None:
    state = state_of(report)
    verdict, reason = wording.headline(report)
    style = STYLES[state]
    page.write(
        (one_line(report.run) or "this run", "bold"), " ", (verdict, style),
        (": ", style) if reason else "", (reason, style if report.verdict == "sick" else ""),
        first=(symbol(page, state), " "),
    )  # fmt: skip
    if facts := wording.facts_line(report):
        page.write((facts, "dim"), first="  ")


def _diagnosis(page: Page, report: Report, diagnosis: Diagnosis, *, leading: bool, verbose: bool) -> None:
    root = diagnosis.root
    code = next((o.code for o in report.outcomes if o.rule == root.rule), "")
    page.write(
        symbol(page, root.severity), " ", (root.rule, STYLES[root.severity]),
        ("" if leading else f"  {one_line(root.message)}"),
    )  # fmt: skip
    page.write(f"{wording.standing(report, root)}", (f" · {code}" if code else "", "dim"), first="  ")
    for i, evidence in enumerate(root.evidence):
        page.gap() if i == 0 else None
        _evidence(page, evidence, drawn=i == 0 or verbose)
    if diagnosis.could_be:
        page.gap()
        page.write(("It could also be: ", "bold"), one_line("; ".join(diagnosis.could_be)), first="  ")
    if diagnosis.settle_with:
        page.gap() if not diagnosis.could_be else None
        page.write(("To settle it: ", "bold"), one_line(diagnosis.settle_with), first="  ")
    if diagnosis.explains:
        page.gap()
        page.write(("It explains", "bold"), first="  ")
        for finding in diagnosis.explains:
            _one_finding(page, report, finding)
    if root.remedies:
        page.gap()
        page.write(("What to do", "bold"), first="  ")
        _remedies(page, report, root.remedies, verbose=verbose)
    if root.ruled_out:
        page.gap()
        page.write(("What does not suit this run", "bold"), first="  ")
        for line in root.ruled_out:
            page.write(one_line(line), first="  - ")


def _one_finding(page: Page, report: Report, finding: Finding) -> None:
    page.write(
        (finding.rule, STYLES[finding.severity]), f"  {one_line(finding.message)}",
        (wording.onset(report, finding), "dim"), first=("    ", symbol(page, finding.severity), " "),
    )  # fmt: skip


def _evidence(page: Page, evidence: Evidence, *, drawn: bool) -> None:
    name = one_line(str(evidence.signal))
    if drawn and len(evidence.points) > 1:
        scale = " (log scale)" if is_log(evidence.points) else ""
        page.write((name, "bold"), (scale, "dim"), first=" " * (GUTTER + 3))
        marks = [(at, one_line(label, 24)) for at, label in evidence.marks]
        for row in chart(evidence.points, marks, width=page.width - 4, glyphs=page.glyphs):
            page.verbatim("  ", *((text, STYLES[role]) for text, role in row))
        name = ""
    elif evidence.points:
        line = sparkline(evidence.points, 16, page.glyphs)
        page.write((name, "bold"), " ", (line, STYLES["curve"]), first="  ")
        name = ""
    indent = "  " if not name else f"  {name}: "
    if evidence.observed:
        page.write(one_line(evidence.observed), first=(indent, ("seen      ", "dim")))
    if evidence.expected:
        page.write(one_line(evidence.expected), first=(" " * len(indent), ("expected  ", "dim")))


def _remedies(page: Page, report: Report, remedies: Sequence[Remedy], *, verbose: bool) -> None:
    shown = len(remedies) if verbose else REMEDIES_IN_FULL
    for i, remedy in enumerate(remedies[:shown], start=1):
        if i > 1:
            page.gap()
        _remedy(page, report, remedy, i, verbose=verbose)
    if rest := remedies[shown:]:
        page.gap()
        titles = "; ".join(one_line(r.title) for r in rest)
        page.write("also: ", titles, (" (--verbose shows how)", "dim"), first="  ")


def _remedy(page: Page, report: Report, remedy: Remedy, place: int, *, verbose: bool) -> None:
    page.write((wording.title(remedy), "bold"), first=f"  {place}. ")
    indent = "     "
    for label, text in (("why", remedy.why), ("unless", remedy.unless), ("it worked if", remedy.confirm)):
        if text:
            page.write(one_line(text), first=(indent, (f"{label:<13}", "dim")))
    framework = str(report.facts.get("framework", "")).lower()
    codes = wording.codes_to_show(dict(remedy.code), framework, everything=verbose)
    for name, code in codes:
        page.write((name, "dim"), first=indent)
        for line in several_lines(code).splitlines():
            page.verbatim(indent + "  ", (line, "green"))


def _note(page: Page, report: Report, diagnosis: Diagnosis, *, verbose: bool) -> None:
    root = diagnosis.root
    advice = f"; {one_line(root.remedies[0].title)}" if root.remedies else ""
    page.write(
        (root.rule, STYLES["note"]), f"  {one_line(root.message)}",
        (wording.onset(report, root) + advice, "dim"), first=("  ", symbol(page, "note"), " "),
    )  # fmt: skip
    if verbose:
        for evidence in root.evidence:
            _evidence(page, evidence, drawn=True)
    for finding in diagnosis.explains:
        _one_finding(page, report, finding)


def _curves(page: Page, report: Report) -> None:
    """A healthy run shows its curves: two lines that one glance can check."""
    curves = [c for c in report.curves if len(c.points) > 1]
    if not curves:
        return
    page.gap()
    names = [one_line(str(c.signal), 24) for c in curves]
    longest = max(map(len, names))
    for name, curve in zip(names, curves, strict=True):
        first, last = number(curve.points[0][1]), number(curve.points[-1][1])
        line = sparkline(curve.points, max(10, min(40, page.width - longest - 26)), page.glyphs)
        page.verbatim(f"  {name:<{longest}}  ", (line, STYLES["curve"]), (f"  {first} → {last}", "dim"))


def _what_to_log(page: Page, report: Report) -> None:
    reasons = wording.to_log(report)
    if not reasons:
        return
    page.gap()
    page.write(("What is missing", "bold"))
    for why, names in reasons:
        page.write(why, (f" (keeps out {_some(names, 4)})", "dim"), first="  - ")
    if report.unmapped:
        page.write(
            f"{wording.plural(len(report.unmapped), 'tag')} could not be mapped: if one of them is what is missing, "
            "name it with --map TAG=quantity:split",
            first="  - ",
        )


def _about_the_log(page: Page, report: Report, *, verbose: bool) -> None:
    if not (report.notes or report.unmapped or report.ignored):
        return
    page.gap()
    page.write(("About the log", "bold"))
    for note in report.notes:
        page.write(one_line(note.text), first="  - ")
    if report.unmapped:
        tags = [one_line(t, 0 if verbose else 40) for t in report.unmapped]
        page.write(
            f"{wording.plural(len(tags), 'tag')} not understood and left out: ",
            _some(tags, len(tags) if verbose else 4),
            ("  (--map TAG=quantity)", "dim"),
            first="  - ",
        )
    for why, rules in wording.ignored_by_reason(report):
        page.write(f"switched off{': ' if why else ''}{why} ", (f"({_some(rules, 99 if verbose else 3)})", "dim"),
                   first="  - ")  # fmt: skip


def _not_judged(page: Page, report: Report, *, verbose: bool) -> None:
    reasons = wording.skipped_by_reason([report])
    if report.verdict == "cannot judge" and not verbose:  # the others have just been named as missing
        said = wording.to_log(report)
        reasons = [r for r in reasons if r not in said]
    crashed = [o for o in report.outcomes if o.status == "crashed"]
    if reasons:
        page.gap()
        page.write(("Not judged", "bold"))
        for why, names in reasons[: len(reasons) if verbose else 6]:
            page.write(
                f"{len(names)} skipped: {why} ",
                (f"({_some(names, len(names) if verbose else 3)})", "dim"),
                first="  - ",
            )
        if len(reasons) > 6 and not verbose:
            count = sum(len(names) for _, names in reasons[6:])
            page.write(f"{count} more for {len(reasons) - 6} other reasons ", ("(--verbose)", "dim"), first="  - ")
    if crashed:
        page.gap()
        page.write((f"{wording.plural(len(crashed), 'rule')} crashed", STYLES["error"]))
        for outcome in crashed:
            page.write(f"{outcome.rule} ({outcome.code}): {one_line(outcome.why)}", first="  - ")
        page.write("That is a bug in fitdoctor, not in your run: please report it with the log.", first="  ")


def _closing(page: Page, report: Report) -> None:
    page.write((wording.summary(Counter(report.counts), wording.skipped_by_reason([report])), "bold"))


def _some(names: Sequence[str], most: int) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
