"""Comparison -> terminal."""

from __future__ import annotations

from rich.console import Console

from fitdoctor.compare import wording
from fitdoctor.compare.comparison import Comparison, CurveChange, Trial
from fitdoctor.reporters.chart import sparkline
from fitdoctor.reporters.page import Page

STYLES = {"better": "bold green", "worse": "bold red", "same": "bold", "level": "", "cannot tell": "bold magenta"}
STATE_STYLES = {"gone": "green", "new": "red", "still there": "yellow"}
LINE = 40
"""Characters of a drawn curve."""

CURVES_SHOWN = 4
"""More curves than these are left to `--verbose`."""


def show(comparison: Comparison, console: Console, *, verbose: bool = False) -> None:
    """Write the comparison.

    Args:
        comparison: what to show.
        console: where to.
        verbose: show every curve, every setting of the environment, and notes that were judged on one side only.
    """
    page = Page(console)
    page.write(("before  ", "dim"), (wording.side(comparison.before), "bold"))
    page.write(("after   ", "dim"), (wording.side(comparison.after), "bold"))
    page.gap()
    page.write((comparison.call, STYLES[comparison.call]), f": {comparison.headline}")
    for caution in comparison.cautions:
        page.write(caution, first=(("! ", "yellow"),))
    _facts(page, comparison, verbose=verbose)
    _curves(page, comparison, verbose=verbose)
    _findings(page, comparison, verbose=verbose)
    if comparison.trials:
        page.gap()
        page.write(("Remedies that were tried", "bold"))
        for trial in comparison.trials:
            _trial(page, trial)


def _facts(page: Page, comparison: Comparison, *, verbose: bool) -> None:
    shown = [f for f in comparison.facts if verbose or not f.environment]
    if shown:
        page.gap()
        page.write(("Settings that differ", "bold"))
    for change in shown:
        key, old, new = wording.fact_line(change)
        page.write(f"{old} -> {new}", first=("  ", (f"{key}: ", "cyan")))


def _curves(page: Page, comparison: Comparison, *, verbose: bool) -> None:
    if comparison.curves:
        page.gap()
        page.write(("Curves, by equal " + comparison.curves[0].clock, "bold"))
    for change in comparison.curves if verbose else comparison.curves[:CURVES_SHOWN]:
        _curve(page, change, deciding=change.signal == comparison.decided_by)
    left = len(comparison.curves) - CURVES_SHOWN
    if left > 0 and not verbose:
        page.write((f"{left} more with --verbose", "dim"), first="  ")


def _curve(page: Page, change: CurveChange, *, deciding: bool) -> None:
    name, old, new, gain, verdict = wording.curve_cells(change)
    style = STYLES[change.call if change.call != "cannot tell" else change.direction]
    page.write(
        f"{old} -> {new}  {gain}: ", (verdict, style),
        first=("  ", (name, "cyan"), " (decides)  " if deciding else "  "), rest="      ",
    )  # fmt: skip
    for label, drawn in zip(("before", "after "), _drawn(page, change), strict=False):
        page.write((drawn, "dim"), first=(f"      {label} ",))
    page.write(("; ".join(wording.curve_details(change)), "dim"), first="      ")


def _drawn(page: Page, change: CurveChange) -> tuple[str, ...]:
    """Both curves on one scale, over the stretch that both cover."""
    low, high = change.stretch
    values = [[value for x, value in side if low <= x <= high] for side in change.points]
    if min(map(len, values)) < 2:
        return ()
    width = min(LINE, *map(len, values))
    even = [[side[i * (len(side) - 1) // (width - 1)] for i in range(width)] for side in values]
    line = sparkline(tuple(enumerate(even[0] + even[1])), 2 * width, page.glyphs)
    return line[:width], line[width:]


def _findings(page: Page, comparison: Comparison, *, verbose: bool) -> None:
    sides = (len(comparison.before), len(comparison.after))
    for state, found in wording.states(comparison, everything=verbose):
        page.gap()
        page.write((f"Findings {state}", "bold"))
        for change in found:
            severity = change.after or change.before
            page.write(
                wording.finding_line(change, sides),
                first=("  ", (f"{severity} ", STATE_STYLES.get(state, "dim"))), rest="    ",
            )  # fmt: skip


def _trial(page: Page, trial: Trial) -> None:
    tried, confirm = wording.trial_lines(trial)
    page.write((trial.outcome, "bold"), f": {tried}", first="  ", rest="    ")
    if confirm:
        page.write(f"it was to show: {confirm}", first="    ", rest="      ")
    for check in trial.checks:
        page.write(check.statement, first=("    ", (f"{wording.mark(check.holds):>3}  ", "bold")))
