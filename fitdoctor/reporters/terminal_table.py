"""Many reports -> terminal: one row per run as it is judged, then the sick ones whole."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable
from itertools import count

from rich.console import Console

from fitdoctor.report import Report
from fitdoctor.reporters import terminal, wording
from fitdoctor.reporters.harmless import one_line
from fitdoctor.reporters.page import Page

IN_FULL = 3
"""How many sick runs are shown in full when nothing else is asked for: about three screens."""

_COLUMNS = (("diagnosis", 29), ("onset", 12), ("sure", 6))
_NARROW_COLUMNS = (("diagnosis", 24), ("onset", 11))
_SPLITS = ("val", "test", "train")
_WIDE_COLUMNS = (*_COLUMNS, ("steps", 9), ("best", 24))
_WIDE = 110
"""Columns of a terminal from which the name of a run has room left behind all of these."""


def show_all(
    reports: Iterable[Report], console: Console, *, verbose: bool = False, quiet: bool = False, in_full: int = IN_FULL
) -> None:
    """Write the reports as they come: a single one whole, several as a table first.

    Args:
        reports: judged one by one; each row is written when its report is there.
        console: where to.
        verbose: as in `terminal.show`.
        quiet: leave out the whole reports.
        in_full: how many of the sick runs are shown whole, the worst first.
    """
    waiting = iter(reports)
    first, second = next(waiting, None), next(waiting, None)
    if first is None:
        return
    if second is None:
        terminal.show(first, console, verbose=verbose, quiet=quiet)
        return

    page = Page(console)
    verdicts: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    worst: list[tuple[tuple[int, int], int, Report]] = []  # a heap of the reports to show whole
    causes: Counter[str] = Counter()
    order = count()
    _head(page)
    for report in _chain(first, second, waiting):
        _row(page, report)
        verdicts[report.verdict] += 1
        totals.update(report.counts)
        if report.verdict == "sick":
            causes[one_line(report.diagnoses[0].root.rule)] += 1
        if report.verdict == "sick" and not quiet and in_full:
            heapq.heappush(worst, (_badness(report), -next(order), report))
            if len(worst) > in_full:
                heapq.heappop(worst)
    shown = [report for _, _, report in sorted(worst, key=lambda item: item[:2], reverse=True)]
    for report in shown:
        page.gap()
        page.write((("-" if page.plain else "─") * page.width, "dim"))
        terminal.show(report, console, verbose=verbose)
    page.gap()
    _closing(page, verdicts, causes, totals, left=0 if quiet else verdicts["sick"] - len(shown))


def _chain(first: Report, second: Report, rest: Iterable[Report]) -> Iterable[Report]:
    yield first
    yield second
    yield from rest


def _badness(report: Report) -> tuple[int, int]:
    root = report.diagnoses[0].root
    return root.severity.rank, root.confidence.rank


def _columns(page: Page) -> tuple[tuple[str, int], ...]:
    if page.console.width >= _WIDE:
        return _WIDE_COLUMNS
    return _NARROW_COLUMNS if page.width < 76 else _COLUMNS


def _head(page: Page) -> None:
    cells = [f"{name:<{width}} " for name, width in _columns(page)]
    page.verbatim(("".join(cells) + "run", "dim"))


def _row(page: Page, report: Report) -> None:
    state = terminal.state_of(report)
    root = report.diagnoses[0].root if report.verdict == "sick" and report.diagnoses else None
    mark, style = terminal.symbol(page, state)
    unit = wording.step_unit(report)
    texts = {
        "diagnosis": f"{mark} {one_line(root.rule) if root else report.verdict}",
        "onset": f"{unit} {root.onset:,}" if root else "",
        "sure": str(root.confidence) if root else "",
        "steps": f"{report.steps.last:,}" if report.steps else "",
        "best": _best(report),
    }
    cells: list[tuple[str, str]] = []
    used = 0
    for name, width in _columns(page):
        cells.append((f"{one_line(texts[name], width):<{width}} ", style if name == "diagnosis" else "dim"))
        used += width + 1
    # The name comes last, whole where the output has no edge: a pipe may want to search for it.
    room = max(16, page.console.width - used) if page.console.is_terminal else 0
    page.verbatim(*cells, one_line(report.run, room))


def _best(report: Report) -> str:
    """The best value of the curve that tells most of how good the model is: held out, and not a loss."""
    judged = [c for c in report.curves if c.signal.quantity.better and c.signal.split in _SPLITS]
    judged.sort(
        key=lambda c: (c.signal.split == "train", c.signal.quantity.name == "loss", _SPLITS.index(c.signal.split))
    )
    for curve in judged:
        values = [value for _, value in curve.points if math.isfinite(value)]
        if values:
            best = max(values) if curve.signal.quantity.better == "higher" else min(values)
            return f"{best:.4g} {curve.signal.split} {curve.signal.quantity.name}"
    return ""


def _closing(page: Page, verdicts: Counter[str], causes: Counter[str], totals: Counter[str], *, left: int) -> None:
    runs = wording.plural(verdicts.total(), "run")
    page.write((f"{runs}: {verdicts['sick']:,} sick, {verdicts['healthy']:,} healthy, "
                f"{verdicts['cannot judge']:,} cannot be judged", "bold"))  # fmt: skip
    if causes:
        counted = ", ".join(f"{rule} {n:,}" for rule, n in causes.most_common())
        page.write(counted, first="runs by root cause: ")
    page.write(wording.summary(totals, []), " (over all runs)")
    if left > 0:
        page.write((f"{left:,} more sick {'run' if left == 1 else 'runs'} not shown whole: "
                    "--run NAME for one of them, --full N for the N worst", "dim"))  # fmt: skip
