"""Sweep -> terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from fitdoctor.reporters.page import Page
from fitdoctor.sweep import wording
from fitdoctor.sweep.result import Band, Separation, Sweep

FEW_GROUPS = 4
"""Up to so many groups are all shown, those without a band too."""

_STYLES = {"separates": "bold red", "explained by another": "", "not shown": "dim"}
_WINNER = {"stands out": "bold green", "not alone": "bold yellow", "cannot tell": "bold magenta"}


def show(sweep: Sweep, console: Console, *, verbose: bool = False) -> None:
    """Write the sweep.

    Args:
        sweep: what to show.
        console: where to.
        verbose: show every setting's table, and every learning rate.
    """
    page = Page(console)
    page.write((wording.headline(sweep), "bold"))
    page.write(wording.objective(sweep), first=(("ranked by ", "dim"),))
    for caution in sweep.cautions:
        page.write(caution, first=(("! ", "yellow"),))
    lines = list(wording.axis_lines(sweep))
    if lines:
        page.gap()
        page.write(("Settings that vary", "bold"))
    for name, values in lines:
        page.write(values, first=("  ", (f"{name}: ", "cyan")), rest="      ")
    if sweep.separations:
        page.gap()
        page.write(("What separates the sick from the healthy", "bold"))
    for i, found in enumerate(sweep.separations):
        _separation(page, found, table=verbose or (i == 0 and found.finding != "nothing to separate"))
    if sweep.bands:
        page.gap()
        page.write(("Learning rates of low regret", "bold"))
    shown = [band for band in sweep.bands if verbose or band.best is not None or len(sweep.bands) <= FEW_GROUPS]
    for band in shown:
        _band(page, band, verbose=verbose)
    if len(shown) < len(sweep.bands):
        left = wording.plural(len(sweep.bands) - len(shown), "group")
        page.write((f"{left} without a band, for want of rates or results: --verbose", "dim"), first="  ")
    if sweep.winners:
        page.gap()
        page.write(("Is the best better than noise?", "bold"))
    for winner in sweep.winners:
        if winner.group:
            page.write((wording.group_name(winner.group), "cyan"), first="  ")
        page.write((wording.winner_line(winner), _WINNER[winner.finding]), first="    ")
        for detail in wording.winner_details(winner):
            page.write((detail, "dim"), first="      ")


def _separation(page: Page, found: Separation, *, table: bool) -> None:
    page.write((wording.separation_line(found), _STYLES.get(found.finding, "")), first="  ")
    if found.finding == "separates" or table:
        _table(page, wording.LEVEL_HEAD, [wording.level_cells(level) for level in found.levels])


def _band(page: Page, band: Band, *, verbose: bool) -> None:
    style = "dim" if band.best is None else "bold green"
    page.write((wording.group_name(band.group), "cyan"), first="  ")
    page.write((wording.band_line(band), style), first="    ")
    for advice in band.advice:
        page.write(advice, first=("      ", ("! ", "yellow")))
    details = "; ".join(wording.band_details(band))
    if details:
        page.write((details, "dim"), first="      ")
    if verbose:
        _table(page, wording.RATE_HEAD, wording.rate_rows(band))


def _table(page: Page, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for i, line in enumerate(wording.columns(head, rows)):
        page.verbatim("      ", (line, "dim" if i == 0 else ""))
