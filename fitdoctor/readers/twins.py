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
                text = f"{run.path} ({run.source}) tells the same training; the {richer.source} log is used"
                facts = {**run.facts, **richer.facts}
                finished = richer.finished if richer.finished is not None else run.finished
                kept[i] = replace(richer, facts=facts, finished=finished, notes=(*richer.notes, Note("other", text)))
                break
        else:
            kept.append(run)
    order = {(run.path, run.source, run.name): i for i, run in enumerate(runs)}
    return sorted(kept, key=lambda run: order[run.path, run.source, run.name])


def _richness(run: Run) -> tuple[int, int, int]:
    """More signals, more points that are not finite (tables lose them), more points."""
    values = [s.values for s in run.series]
    return len(run.series), sum(int((~np.isfinite(v)).sum()) for v in values), sum(len(v) for v in values)


def tells_the_same(first: Run, second: Run) -> bool:
    """Whether two logs agree wherever they speak of the same signal, and do so on more than one value."""
    compared: set[float] = set()
    for a in first.series:
        quantity = a.signal.quantity
        if quantity not in (LOSS, LR, *METRICS):
            continue
        others = [b for b in second.series if b.signal == a.signal and (b.per == a.per or "" in (a.per, b.per))]
        if not others:
            continue
        shared = max((_shared_values(a, b) for b in others), key=len)
        if not len(shared):
            return False
        if quantity != LR:
            compared.update(np.round(shared, 6).tolist())
    return len(compared) >= 2


def _shared_values(a: Series, b: Series) -> FloatArray:
    """The finite values on which two series agree; empty when they do not.

    Tables leave out what is not finite, so only finite points are compared.
    """
    a, b = a.finite, b.finite
    _, i, j = np.intersect1d(a.steps, b.steps, assume_unique=True, return_indices=True)
    if len(i) >= max(1, min(len(a), len(b)) // 2) and _close(a.values[i], b.values[j]):
        return a.values[i]
    if len(a) == len(b) and len(a) >= 2 and _close(a.values, b.values):  # one on steps, one on epochs
        return a.values
    return np.empty(0)


def _close(x: FloatArray, y: FloatArray) -> bool:
    return bool(np.isclose(x, y, rtol=RELATIVE, atol=1e-7, equal_nan=True).mean() >= SHARE)
