"""The tables of docs/accuracy.md."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from benchmarks.accuracy.corpus import wilson
from benchmarks.accuracy.ward import score
from benchmarks.accuracy.ward.score import Scored


def _percent(share: float) -> str:
    return "-" if not np.isfinite(share) else f"{100 * share:.0f} %"


def _of(hits: int, n: int) -> str:
    low, high = wilson(hits, n)
    return f"{hits} of {n} ({100 * low:.1f} - {100 * high:.1f} %)" if n else "none"


def table(head: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """A table in Markdown."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows) + "\n"


def summary(arms: dict[str, Sequence[Scored]]) -> str:
    """One column per arm or peer: alarms on sound runs, root causes of sick ones."""
    lines: list[list[object]] = []
    for kind in ("healthy", "odd but healthy"):
        for i, what in ((0, "an error"), (1, "a warning or an error")):
            counted = {arm: score.alarms(rows)[kind] for arm, rows in arms.items()}
            lines.append([f"{kind}: {what}", *(_of(c[i], c[2]) for c in counted.values())])
    for outcomes, what in (
        (("root",), "clearly sick: root cause named first"),
        (("root", "three"), "... among the first three"),
        (("root", "three", "found"), "... anywhere in the report"),
        (("open",), "... cannot judge"),
        (("wrong",), "... called something else"),
        (("missed",), "... called healthy"),
    ):
        cells = []
        for rows in arms.values():
            those = score.sick(rows)
            hit = [r.outcome in outcomes for r in those]
            low, high = score.clustered(those, hit)
            share = float(np.mean(hit)) if hit else float("nan")
            cells.append(f"{_percent(share)} ({_percent(low)} - {_percent(high)})")
        lines.append([what, *cells])
    lines.append(["clearly sick runs", *(len(score.sick(rows)) for rows in arms.values())])
    return table(["", *arms], lines)


def seed_diagnoses(arms: dict[str, Sequence[Scored]]) -> str:
    """Precision, recall and F1 of the seed diagnoses."""
    lines = []
    for name in score.SEEDS:
        cells: list[object] = [name]
        for rows in arms.values():
            hits, false, missed = score.seed_diagnosis(rows, name)
            precision = hits / (hits + false) if hits + false else float("nan")
            recall = hits / (hits + missed) if hits + missed else float("nan")
            value = score.f1(hits, false, missed)
            cells.append(f"{value:.2f} (P {_percent(precision)}, R {_percent(recall)}, n {hits + missed})")
        lines.append(cells)
    return table(["seed diagnosis: F1", *arms], lines)


def doses(rows: Sequence[Scored]) -> str:
    """Named runs by dose: named / harmful / runs."""
    lines = [
        [name, *(f"{named}/{harmful}/{n}" if n else "" for named, harmful, n in per)]
        for name, per in score.by_dose(rows).items()
        if any(n for _, _, n in per)
    ]
    return table(["fault: named / clearly harmful / runs, by dose", "1", "2", "3", "4", "5"], lines)


def calibrated(arms: dict[str, Sequence[Scored]]) -> str:
    """How often a root of each confidence is right."""
    lines = []
    for level in ("high", "medium", "low"):
        pairs = [score.calibration(rows)[level] for rows in arms.values()]
        lines.append([level, *(_of(right, n) for right, n in pairs)])
    return table(["confidence of the root: right", *arms], lines)


def confused(rows: Sequence[Scored], most: int = 15) -> str:
    """The most frequent confusions."""
    lines = [[what, root, n] for (what, root), n in score.confusions(rows).most_common(most)]
    return table(["clearly sick with", "called", "runs"], lines)


def repaired(lines: Sequence[Sequence[object]]) -> str:
    """How often remedies worked."""
    head = [
        "applied and trained again on a fresh seed",
        "closed half of the gap",
        "made it worse",
        "no such knob",
        "no gap",
    ]
    return table(head, lines)
