"""`sweep(reports) -> Sweep`: what varies, what it does to the runs, and what speaks against reading more into it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np

from fitdoctor.compare.measures import MATTERS
from fitdoctor.readers.tags.words import word_set
from fitdoctor.report import Report
from fitdoctor.signals import LOSS, Signal
from fitdoctor.sweep.band import bands
from fitdoctor.sweep.objective import Choice, Curves, choose, make_trials
from fitdoctor.sweep.result import At, Axis, Sweep, Trial, Winner
from fitdoctor.sweep.separation import separations
from fitdoctor.sweep.settings import Table, read_settings
from fitdoctor.sweep.winner import winners

_TASKS = word_set(
    """
    dataset data task problem workload benchmark corpus loss criterion classes labels label smoothing vocab tokenizer
    metric
    """
)
"""Words in the names of settings that change what a value of the objective means."""

TURNED = 0.05
"""Share of its gain that a run must have lost again to be counted as having turned."""

ALIKE = 0.05
"""Relative difference of the untrained losses of two folders up to which they are one task."""


def sweep(
    reports: Iterable[Report],
    *,
    metric: str | None = None,
    mode: Literal["min", "max"] | None = None,
    at: At = "best",
    regret: float = MATTERS,
    curves: Curves | None = None,
) -> Sweep:
    """Read the reports on several runs as a sweep.

    Args:
        reports: one per run.
        metric: what to rank by: ``accuracy:val``, or a tag that `curves` holds; held-out loss when left out.
        mode: "min" or "max", where the direction of the metric is not known.
        at: rank by the "best" smoothed value of a curve, which is what a checkpoint keeps, or by its "final" level.
        regret: what a learning rate may lose and still belong to the band, as a share of the range of training.
        curves: tag -> name of a run -> points, for metrics that reports do not hold.

    Raises:
        ConfigError: if no run has the metric, or its direction is not known.
    """
    reports = list(reports)
    table = read_settings(reports)
    choice = choose(reports, table, metric=metric, mode=mode, at=at, curves=curves)
    strays = _strays(reports, table, choice)
    if strays:
        reports = [r for r in reports if r not in strays]
        table = read_settings(reports)
    trials = make_trials(reports, table, choice)
    found = () if choice is None else winners(trials, table, tasks(reports, trials, table), choice.flip)
    return Sweep(
        trials=trials,
        objective=None if choice is None else choice.objective,
        axes=table.axes,
        seeds=table.seeds,
        identifiers=table.identifiers,
        separations=separations(trials, table.axes),
        bands=() if choice is None else bands(trials, table, choice.flip, regret),
        winners=found,
        cautions=(*_left_out(strays), *_cautions(trials, table, choice, found)),
    )


def _strays(reports: Sequence[Report], table: Table, choice: Choice | None) -> list[Report]:
    """Logs that lie among the runs and are none of them: without the objective and without any of the settings."""
    logged = [a.name for a in table.axes if a.source == "log"]
    if choice is None or not logged:
        return []
    found = [
        report
        for report, row in zip(reports, table.rows, strict=True)
        if not choice.points(report) and all(row[name] is None for name in logged)
    ]
    return found if len(found) < len(reports) else []


def _left_out(strays: Sequence[Report]) -> Iterator[str]:
    if strays:
        names = ", ".join(r.run for r in strays[:3]) + (", ..." if len(strays) > 3 else "")
        yield f"left out, as they have neither the objective nor any of the settings: {names}"


def tasks(reports: Sequence[Report], trials: Sequence[Trial], table: Table) -> list[str]:
    """Settings between whose values the objective cannot be compared: data sets, losses, folders of other problems."""
    return [
        axis.name
        for axis in table.axes
        if any(set(name.lower().replace("-", "_").split("_")) & _TASKS for name in (axis.name, *axis.also))
        or (axis.name.startswith("folder ") and _start_apart(reports, trials, axis))
    ]


def _start_apart(reports: Sequence[Report], trials: Sequence[Trial], axis: Axis) -> bool:
    """Whether untrained models have another loss (objective, where no loss is logged) at another value of a setting."""
    starts: dict[object, list[float]] = {}
    for report, trial in zip(reports, trials, strict=True):
        losses = [c.points[0][1] for c in report.curves if c.signal == Signal(LOSS) and c.points]
        start = losses[0] if losses else trial.start
        if math.isfinite(start):
            starts.setdefault(trial.settings[axis.name], []).append(start)
    middles = [float(np.median(own)) for own in starts.values()]
    return len(middles) > 1 and max(middles) - min(middles) > ALIKE * max(map(abs, middles))


def _cautions(trials: Sequence[Trial], table: Table, choice: Choice | None, found: Sequence[Winner]) -> Iterator[str]:
    n = len(trials)
    if not table.axes:
        what = "differ by seed only" if table.seeds else "have no setting that varies"
        yield (
            f"{n} runs {what} in their logs or names: log the configuration (hparams, config), or put it into the "
            "names, such as lr=0.1_bs=32"
        )
    if choice is None:
        yield "no loss or metric that (nearly) all runs have: name one with --metric"
    elif "train" in choice.objective.name.split() and choice.objective.why != "asked for":
        yield "ranked by training data: it says nothing about generalisation"
    elif "test" in choice.objective.name.split():
        yield "ranked by test data: what is chosen by it is no longer measured by it"
    for state, what in (
        ("unfinished", "ended before the others of their kind: unfinished, not ranked"),
        ("crashed", "failed, as the log says: not ranked, and not counted as diverged"),
        ("no objective", "have no such curve: not ranked"),
    ):
        count = sum(t.state == state for t in trials)
        if count:
            yield f"{count} of {n} runs {what}"
    worse = [t for t in trials if t.state == "finished" and t.turned > TURNED]
    if choice is not None and len(worse) * 10 > n:
        other = (
            "keep the best checkpoint" if choice.objective.at == "best" else "--at best ranks by what one would keep"
        )
        yield f"{len(worse)} of {n} runs lose again more than {TURNED:.0%} of what they had gained: {other}"
    if any(t.due == 0 and t.steps for t in trials):
        yield "runs of one kind end at very different steps (early stopping, or pruned?): each is taken at its own end"
    unjudged = sum(t.verdict == "cannot judge" for t in trials)
    if unjudged:
        yield f"{unjudged} of {n} runs cannot be judged sick or healthy: too little is logged"
    if table.partly:
        names = ", ".join(table.partly[:5]) + (", ..." if len(table.partly) > 5 else "")
        yield f"told by some runs only, and the same by all of them, so left out: {names}"
    for axis in table.axes:
        if axis.also:
            names = ", ".join(axis.also)
            yield f"{axis.name} and {names} change together in every run: their effects cannot be told apart"
    for name in dict.fromkeys(a.name for a in table.axes if a.source == "name"):
        yield f"{name} is read off the names of the runs"
    by_name = {t.run: t for t in trials}
    for winner in found:
        trial = by_name[winner.run]
        if trial.verdict == "sick":
            yield f"the best run, {winner.run}, is sick itself: {', '.join(trial.causes) or 'see its report'}"
