"""One training told by two logs: keep the richer one and say so.

Lightning writes metrics.csv beside event files, the HF Trainer a trainer_state.json above them. Two
logs of one folder tell the same training when the signals that they share agree, value by value.

What `fitdoctor.attach` logged is no twin: it measures what no other log holds, and leaves to the others what the user
logs. It is joined with a log of the folder that it stands in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from fitdoctor.run import FloatArray, Note, Run, Series
from fitdoctor.signals import LOSS, LR, METRICS

RELATIVE = 1e-3
"""Logs round: text files often hold four digits."""
SHARE = 0.9
"""Share of the compared points that must agree."""
COARSE = 0.1
"""Difference of the medians over a quarter of the run, relative to the spread or size of the values: single batches are
noisy, other trainings differ by more."""


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
    return _joined(sorted(kept, key=lambda run: order[run.path, run.source, run.name]))


def _joined(runs: Sequence[Run]) -> list[Run]:
    """The runs, each of the monitor's joined with those that tell of the same training."""
    out = [run for run in runs if not _of_the_monitor(run)]
    for monitor in [run for run in runs if _of_the_monitor(run)]:
        whole = monitor
        for other in list(out):
            if not _of_the_monitor(other) and _agree(monitor, other):
                whole = _with(whole, other)
                out.remove(other)
        out.append(whole)
    return out


def _of_the_monitor(run: Run) -> bool:
    return any(s.tag.startswith("fitdoctor/") for s in run.series)


def _with(monitor: Run, other: Run) -> Run:
    """The monitor's run, and of the other log what the monitor has not, or not as far."""
    reach = {s.signal: int(s.steps[-1]) for s in monitor.series if len(s)}
    end = max(reach.values(), default=0)
    more = [s for s in other.series if len(s) and _further(int(s.steps[-1]), reach.get(s.signal), end)]
    taken = {s.signal for s in more}
    kept = [s for s in monitor.series if s.signal not in taken]
    text = f"{other.path} ({other.source}) tells the same training; what the monitor does not measure is from there"
    return replace(
        monitor,
        series=(*kept, *more),
        facts={**other.facts, **monitor.facts},
        params={**other.params, **monitor.params},
        finished=monitor.finished if monitor.finished is not None else other.finished,
        notes=(*monitor.notes, *other.notes, Note("other", text)),
    )


def _further(last: int, own: int | None, end: int) -> bool:
    """Whether a series goes on well after the monitor's own of that signal, where that has not reached the end."""
    return own is None or last > own + max(2, end // 20)


def _agree(monitor: Run, other: Run) -> bool:
    """Whether two logs of one folder may be of one training: of losses and metrics of both, any one agrees."""
    if monitor.facts.get("step_unit", "step") != other.facts.get("step_unit", "step"):
        return False
    known = {s.signal: s.finite for s in other.series if s.signal.quantity in (LOSS, *METRICS)}
    shared = [(s.finite, known[s.signal]) for s in monitor.series if s.signal in known]
    shared = [(a, b) for a, b in shared if len(a) and len(b)]
    return not shared or any(_same_course(a, b) for a, b in shared)


def _same_course(a: Series, b: Series) -> bool:
    """Whether two series have about the same values over the steps that both cover, by the medians of up to four parts.

    One may be of single batches and the other a mean, they may be of different steps, and one may count from 0.
    """
    first, last = max(a.steps[0], b.steps[0]) - 1, min(a.steps[-1], b.steps[-1]) + 1
    if last - first < (max(a.steps[-1], b.steps[-1]) - first) // 2:
        return False
    spread = float(np.ptp(np.concatenate([a.values, b.values])))
    edges = np.linspace(first, last, 2 + int(np.clip((last - first) // 8 - 1, 0, 3)))
    apart: list[bool] = []
    for low, high in pairwise(edges):
        x, y = (s.values[(s.steps >= low) & (s.steps <= high)] for s in (a, b))
        if len(x) and len(y):
            size = max(abs(float(np.median(x))), abs(float(np.median(y))))
            apart.append(abs(float(np.median(x) - np.median(y))) > COARSE * max(spread, size))
    return bool(apart) and sum(apart) <= len(apart) // 4


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
