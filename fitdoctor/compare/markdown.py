"""Comparison -> Markdown, for a comment on a pull request."""

from __future__ import annotations

from fitdoctor.compare import wording
from fitdoctor.compare.comparison import Comparison
from fitdoctor.reporters.markdown import cell, prose


def render(comparison: Comparison) -> str:
    """The comparison as Markdown."""
    sides = (len(comparison.before), len(comparison.after))
    lines = [
        f"## {prose(wording.side(comparison.before))} against {prose(wording.side(comparison.after))}",
        "",
        f"**{comparison.call}**: {prose(comparison.headline)}",
        "",
        *(f"- {prose(caution)}" for caution in comparison.cautions),
    ]
    if comparison.facts:
        lines += ["", "| setting | before | after |", "|---|---|---|"]
        lines += [_row(wording.fact_line(change)) for change in comparison.facts]
    if comparison.curves:
        lines += ["", f"| curve, by {comparison.curves[0].clock} | before | after | gain | |", "|---|---|---|---|---|"]
        lines += [_row(wording.curve_cells(change)) for change in comparison.curves]
    for state, found in wording.states(comparison):
        lines += ["", f"**Findings {state}**", ""]
        lines += [f"- {f.after or f.before}: {prose(wording.finding_line(f, sides))}" for f in found]
    if comparison.trials:
        lines += ["", "**Remedies that were tried**", ""]
        for trial in comparison.trials:
            tried, confirm = wording.trial_lines(trial)
            lines.append(f"- **{trial.outcome}**: {prose(tried)}")
            if confirm:
                lines.append(f"  - it was to show: {prose(confirm)}")
            lines += [f"  - {wording.mark(check.holds)}: {prose(check.statement)}" for check in trial.checks]
    return "\n".join(lines) + "\n"


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell(prose(text)) for text in cells) + " |"
