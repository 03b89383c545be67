"""What the runs of a sweep are ranked by, and where each of them ended."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fitdoctor.compare.judge import PREFERRED, SCALE_OF_LOSS
from fitdoctor.errors import ConfigError
from fitdoctor.finding import Severity
from fitdoctor.report import Report
from fitdoctor.run import FloatArray
from fitdoctor.signals import LOSS, PERPLEXITY, PROBE_LOSS, SPLITS, Signal
from fitdoctor.stats import noise_scale, smooth
from fitdoctor.sweep.result import At, Objective, State, Trial
from fitdoctor.sweep.settings import Table, Value

SHORT = 0.9
"""A run is unfinished below this share of the steps of its like."""

ENOUGH = 0.9
"""Share of the runs, of those that the most common objective has, that must have logged an objective."""

Points = tuple[tuple[int, float], ...]
Curves = Mapping[str, Mapping[str, Points]]
"""Tag or signal -> name of the run -> points, for objectives that the reports do not hold."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The objective and where to find it.

    Attributes:
        objective: what is shown of it.
        points: the curve of a report, empty where it has none.
        signal: what it is, None for a tag.
    """

    objective: Objective
    points: Callable[[Report], Points]
    signal: Signal | None = None

    @property
    def flip(self) -> float:
        """What a value is multiplied with so that lower is better."""
        return -1.0 if self.objective.better == "higher" else 1.0


def choose(
    reports: Sequence[Report],
    table: Table,
    *,
    metric: str | None = None,
    mode: Literal["min", "max"] | None = None,
    at: At = "best",
    curves: Curves | None = None,
) -> Choice | None:
    """The objective: what the user names, else the first held-out curve that (nearly) all runs have.

    A loss is passed over where a setting that varies changes what a loss of 1 means.

    Raises:
        ConfigError: if no run has what the user names, or its direction is not known.
    """
    if metric is not None:
        return _named(reports, metric, mode, at, curves or {})
    comparable = not any(table.axis(name) for name in SCALE_OF_LOSS)
    counted = Counter(c.signal for r in reports for c in r.curves)
    sound = [s for s in PREFERRED if counted[s] and (comparable or s.quantity not in (LOSS, PROBE_LOSS, PERPLEXITY))]
    most = max((counted[s] for s in sound), default=0)
    chosen = next((s for s in sound if counted[s] >= ENOUGH * most), None)
    if chosen is None:
        return None
    why = "held-out data" if chosen.split != "train" else "no held-out curve is logged by (nearly) all runs"
    if not comparable:
        why += "; losses do not mean the same in all runs"
    return Choice(_objective(str(chosen), chosen, mode, at, why), lambda report: _of_signal(report, chosen), chosen)


def signal_of(text: str) -> Signal | None:
    """The signal that ``accuracy:val`` or ``val loss`` names, or None."""
    from fitdoctor.compare.judge import find_signal

    try:
        return find_signal(":".join(text.split())) if text else None
    except ConfigError:
        return None


def _named(
    reports: Sequence[Report], metric: str, mode: Literal["min", "max"] | None, at: At, curves: Curves
) -> Choice:
    signal = signal_of(metric)
    if signal is not None and any(_of_signal(r, signal) for r in reports):
        return Choice(_objective(str(signal), signal, mode, at, "asked for"), lambda r: _of_signal(r, signal), signal)
    by_run = curves.get(metric, {})
    if not by_run:
        known = ", ".join(dict.fromkeys(str(c.signal) for r in reports for c in r.curves)) or "no curves"
        raise ConfigError(
            f"metric {metric!r}: no run has it; expected QUANTITY[:SPLIT] or a tag of the logs "
            f"(`fitdoctor signals LOGDIR` lists them); the runs have {known}"
        )
    return Choice(_objective(metric, signal, mode, at, "asked for"), lambda r: by_run.get(r.run, ()))


def _objective(name: str, signal: Signal | None, mode: str | None, at: At, why: str) -> Objective:
    better = {"min": "lower", "max": "higher"}.get(mode or "", "" if signal is None else signal.quantity.better)
    if better not in ("lower", "higher"):
        raise ConfigError(f"metric {name!r}: whether more is better is not known; say --mode min or --mode max")
    return Objective(name, "lower" if better == "lower" else "higher", at, why)


def _of_signal(report: Report, signal: Signal) -> Points:
    """The curve of a signal; of several (per step and per epoch) the one that reaches furthest, then the fullest."""
    found = [c.points for c in report.curves if c.signal == signal and c.points]
    return max(found, key=lambda p: (2 * (p[-1][0] - p[0][0]) >= max(q[-1][0] - q[0][0] for q in found), len(p)),
               default=())  # fmt: skip


def make_trials(reports: Sequence[Report], table: Table, choice: Choice | None) -> tuple[Trial, ...]:
    """Each run with its state and its value."""
    curves = [() if choice is None else choice.points(report) for report in reports]
    broke = [_diverged(report, points) for report, points in zip(reports, curves, strict=True)]
    due = _due_steps(reports, table, broke)
    out = []
    for i, (report, points) in enumerate(zip(reports, curves, strict=True)):
        state = "diverged" if broke[i] else _state(report, points, due[i], wanted=choice is not None)
        flip = 1.0 if choice is None else choice.flip
        value, noise = math.nan, math.nan
        if state == "diverged":
            value = flip * math.inf
        elif state == "finished" and choice is not None:
            value, noise = _ending(flip * _values(points), choice.objective.at)
            value *= flip
        settings: dict[str, Value] = {**table.rows[i], **dict(zip(table.seeds, table.repeats[i], strict=True))}
        finite = [v for v in _values(points).tolist() if math.isfinite(v)]
        out.append(
            Trial(
                run=report.run,
                settings=settings,
                state=state,
                verdict=report.verdict,
                causes=tuple(dict.fromkeys(d.root.rule for d in report.diagnoses if d.root.severity.rank > 0)),
                value=value,
                noise=noise,
                start=_start(report, finite, choice),
                turned=_turned(flip * np.array(finite, np.float64)),
                steps=0 if report.steps is None else report.steps.last,
                due=due[i],
            )
        )
    return tuple(out)


DIVERGED = 1e100
"""Objective beyond which a run counts as diverged."""


def _values(points: Points) -> FloatArray:
    """The values of a curve; beyond `DIVERGED` they are infinite: their squares are no numbers any more."""
    values = np.array([value for _, value in points], np.float64)
    return np.where(np.abs(values) > DIVERGED, np.copysign(np.inf, values), values)


def tail(n: int) -> int:
    """Points at the end of a curve of n that stand for its final level: a tenth, at least 3."""
    return min(max(3, n // 10), max(n, 1))


def _ending(values: FloatArray, at: At) -> tuple[float, float]:
    """Final level or best smoothed value, lower is better, and the standard error of the final level."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return math.nan, math.nan
    last = float(np.median(finite[-tail(len(finite)) :]))
    # 1.25 sigma / sqrt(k): the standard error of a median of k
    noise = 1.25 * noise_scale(finite) / math.sqrt(tail(len(finite))) if len(finite) >= 8 else math.nan
    return (last if at == "final" else float(smooth(finite).min())), noise


def _start(report: Report, finite: Sequence[float], choice: Choice | None) -> float:
    """The objective of the untrained model: its first value, or that of the training loss if that is higher.

    The first evaluation of a held-out loss often comes when the first epoch is over.
    """
    if not finite or choice is None or choice.signal is None or choice.signal.quantity != LOSS:
        return finite[0] if finite else math.nan
    train = [v for _, v in _of_signal(report, Signal(LOSS))[:1] if abs(v) < DIVERGED]
    return max(finite[0], *train) if train else finite[0]


def _turned(values: FloatArray) -> float:
    """Share of its gain that a curve, lower is better, has lost again at the end."""
    if len(values) < 8:
        return math.nan
    best, last = float(smooth(values).min()), float(np.median(values[-tail(len(values)) :]))
    gain = float(values[0]) - best
    return max(0.0, last - best) / gain if gain > 0 else math.nan


def _broke(points: Points) -> bool:
    return bool(points) and not math.isfinite(points[-1][1])


def _diverged(report: Report, points: Points) -> bool:
    losses = [_of_signal(report, Signal(LOSS, split)) for split in SPLITS]
    told = any(f.rule == "nonfinite-loss" and f.severity is Severity.ERROR for f in report.findings)
    return told or _broke(points) or any(map(_broke, losses))


def _state(report: Report, points: Points, due: int, *, wanted: bool) -> State:
    short = report.steps is None or report.steps.last < SHORT * due
    if short and (report.finished is False or "out_of_memory" in report.facts):
        return "crashed"
    if short:
        return "unfinished"
    return "finished" if points or not wanted else "no objective"


def _due_steps(reports: Sequence[Report], table: Table, broke: Sequence[bool]) -> list[int]:
    """The steps that each run was to make: those of the longest run of the same task, batch size and planned length.

    0 where most runs that did not diverge end before that, as with early stopping: then nobody knows.
    """
    sized = [a.name for a in table.axes if a.kind == "word" or any(n in _LENGTHS for n in (a.name, *a.also))]
    like = [tuple(row[name] for name in sized) for row in table.rows]
    lasts: dict[tuple[Value, ...], list[int]] = {}
    for key, report, gone in zip(like, reports, broke, strict=True):
        if report.steps is not None and not gone:
            lasts.setdefault(key, []).append(report.steps.last)
    due = {}
    for key, several in lasts.items():
        longest = max(several)
        due[key] = longest if 2 * sum(n >= SHORT * longest for n in several) >= len(several) else 0
    return [due.get(key, 0) for key in like]


_LENGTHS = frozenset({"batch_size", "gradient_accumulation_steps", "planned_steps", "planned_epochs", "n_train"})
