"""One training told by two logs: keep the richer one and say so.

Lightning writes metrics.csv beside event files, the HF Trainer a trainer_state.json above them. Two
logs of one folder tell the same training when the signals that they share agree, value by value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fitdoctor.run import FloatArray, Note, Run, Series
from fitdoctor.signals import LOSS, LR, METRICS

RELATIVE = 1e-3
"""Logs round: text files often hold four digits."""
SHARE = 0.9
"""Share of the compared points that must agree."""


def without_twins(runs: Sequence[Run]) -> list[Run]:
    """The runs of one place, each training once."""
    kept: list[Run] = []
    for run in sorted(runs, key=_richness, reverse=True):
        for i, richer in enumerate(kept):
            if richer.source != run.source and tells_the_same(richer, run):
                text = f"{run.path} ({run.source}) tells the same training; this report is made from the {richer.source} log"
                facts = {**run.facts, **richer.facts}
                finished = richer.finished if richer.finished is not None else run.finished
                kept[i] = replace(richer, facts=facts, finished=finished, notes=(*richer.notes, Note("other", text)))
                break
        else:
            kept.append(run)
    order = {id(run.path): i for i, run in enumerate(runs)}
    return sorted(kept, key=lambda run: order[id(run.path)])


def _richness(run: Run) -> tuple[int, int]:
    return len(run.series), sum(len(s) for s in run.series)


def tells_the_same(first: Run, second: Run) -> bool:
    """Whether two logs agree wherever they speak of the same signal, and on a curve that moves."""
    moving = 0
    for a in first.series:
        quantity = a.signal.quantity
        if quantity not in (LOSS, LR, *METRICS):
            continue
        others = [b for b in second.series if b.signal == a.signal and (b.per == a.per or "" in (a.per, b.per))]
        agreeing = [b for b in others if _agree(a, b)]
        if others and not agreeing:
            return False
        moving += sum(quantity != LR and float(np.ptp(b.finite.values)) > 0 for b in agreeing if len(b.finite))
    return moving > 0


def _agree(a: Series, b: Series) -> bool:
    if not len(a) or not len(b):
        return False
    common, i, j = np.intersect1d(a.steps, b.steps, assume_unique=True, return_indices=True)
    if len(common) >= max(2, min(len(a), len(b)) // 2) and _close(a.values[i], b.values[j]):
        return True
    return len(a) == len(b) and len(a) >= 2 and _close(a.values, b.values)  # one on steps, one on epochs


def _close(x: FloatArray, y: FloatArray) -> bool:
    return bool(np.isclose(x, y, rtol=RELATIVE, atol=1e-7, equal_nan=True).mean() >= SHARE)
