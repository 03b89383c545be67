"""Sweep -> Markdown, for a report or a comment."""

from __future__ import annotations

from collections.abc import Sequence

from fitdoctor.reporters.markdown import cell, prose
from fitdoctor.sweep import wording
from fitdoctor.sweep.result import Sweep


def render(sweep: Sweep) -> str:
    """The sweep as Markdown."""
    lines = [f"## {prose(wording.headline(sweep))}", "", f"Ranked by {prose(wording.objective(sweep))}.", ""]
    lines += [f"- {prose(caution)}" for caution in sweep.cautions]
    axes = list(wording.axis_lines(sweep))
    if axes:
        lines += ["", *_table(("setting", "values"), axes)]
    if sweep.separations:
        lines += ["", "**What separates the sick from the healthy**", ""]
    for found in sweep.separations:
        lines.append(f"- {prose(wording.separation_line(found))}")
    for found in sweep.separations:
        if found.finding == "separates":
            head = (found.setting, *wording.LEVEL_HEAD[1:])
            lines += ["", *_table(head, [wording.level_cells(level) for level in found.levels])]
    if sweep.bands:
        lines += ["", "**Learning rates of low regret**", ""]
    for band in sweep.bands:
        lines.append(f"- {prose(wording.group_name(band.group))}: {prose(wording.band_line(band))}")
        lines += [f"  - **{prose(advice)}**" for advice in band.advice]
        lines += [f"  - {prose(detail)}" for detail in wording.band_details(band)]
    for band in sweep.bands:
        lines += ["", prose(wording.group_name(band.group)), "", *_table(wording.RATE_HEAD, wording.rate_rows(band))]
    if sweep.winners:
        lines += ["", "**Is the best better than noise?**", ""]
    for winner in sweep.winners:
        group = f"{prose(wording.group_name(winner.group))}: " if winner.group else ""
        lines.append(f"- {group}{prose(wording.winner_line(winner))}")
        lines += [f"  - {prose(detail)}" for detail in wording.winner_details(winner)]
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [_row(head), "|" + "---|" * len(head), *map(_row, rows)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell(prose(text)) for text in cells) + " |"
