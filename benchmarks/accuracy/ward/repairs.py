"""The trials of the first remedies: which are tried, what is trained for them, and how they went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.accuracy.corpus import wilson
from benchmarks.accuracy.ward import repair
from benchmarks.accuracy.ward.repair import Repair
from benchmarks.accuracy.ward.score import Scored
from benchmarks.accuracy.ward.store import Store

HALF = 0.5
"""Share of the gap that has to be closed."""


@dataclass(frozen=True)
class Trial:
    """One remedy on one run.

    Attributes:
        row: the run and what was said of it.
        by: whose remedy: "first remedy" or "random remedy".
        change: the change, None where none was advised that a program can apply.
        repair: the trainings; `repair.mended` is None where nothing could be applied.
    """

    row: Scored
    by: str
    change: tuple[str, str, object] | None
    repair: Repair


def trials(rows: Sequence[Scored], store: Store) -> list[Trial]:
    """All trials of one arm, with a random remedy beside each."""
    out = []
    for row in rows:
        if repair.wants_repair(row.case, row.truth, row.said):
            for by, change in (("first remedy", row.said.change), ("random remedy", repair.random_change(row.case))):
                out.append(Trial(row, by, change, repair.repair_of(row.case, row.truth, change, store)))
    return out


def trainings(of: Sequence[Trial]) -> list[tuple[object, bool]]:
    """The recipes that the trials need."""
    recipes = [r for t in of for r in (t.repair.sick, t.repair.mended, t.repair.best) if r is not None]
    return [(recipe, False) for recipe in recipes]


def rates(of: Sequence[Trial], store: Store) -> list[list[object]]:
    """Lines of the table: who advised, how often it worked, did harm, or could not be applied."""
    lines: list[list[object]] = []
    for by in ("first remedy", "random remedy"):
        sick = [t for t in of if t.by == by and t.row.truth.harm == "yes"]
        closed = [(t, t.repair.closed(store)) for t in sick]
        fair = [(t, share) for t, share in closed if share == share]  # nan: no gap on the fresh seed
        worked = sum(share >= HALF for _, share in fair)
        harmed = sum(t.repair.worse(store, repair.noise_of(t.row.case, store)) for t in of if t.by == by)
        idle = sum(t.repair.mended is None for t in sick)
        mine = [t for t in of if t.by == by]
        lines.append([by, _of(worked, len(fair)), _of(harmed, len(mine)), idle, len(closed) - len(fair)])
    return lines


def shares(of: Sequence[Trial], store: Store) -> tuple[float, float]:
    """Shares of first remedies that closed half of the gap, and that made it worse."""
    mine = [t for t in of if t.by == "first remedy"]
    closed = [t.repair.closed(store) for t in mine if t.row.truth.harm == "yes"]
    fair = [share for share in closed if share == share]  # nan: no gap on the fresh seed
    harmed = sum(t.repair.worse(store, repair.noise_of(t.row.case, store)) for t in mine)
    return sum(share >= HALF for share in fair) / max(len(fair), 1), harmed / max(len(mine), 1)


def failures(of: Sequence[Trial], store: Store) -> list[tuple[str, str, str, float]]:
    """(run, harmful labels, what was advised, share of the gap that it closed) of first remedies that did not work."""
    out = []
    for t in of:
        share = t.repair.closed(store) if t.by == "first remedy" and t.row.truth.harm == "yes" else 1.0
        if share < HALF:
            advised = f"{t.row.said.root or t.row.said.verdict}: {t.change}"
            out.append((t.row.case.name, " + ".join(t.row.truth.harmful()), advised, share))
    return out


def _of(hits: int, n: int) -> str:
    low, high = wilson(hits, n)
    return f"{hits} of {n} ({100 * low:.1f} - {100 * high:.1f} %)" if n else "none"
