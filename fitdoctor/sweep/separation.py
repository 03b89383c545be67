"""Which setting separates the sick runs from the healthy ones."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fitdoctor.compare.significance import LEVEL
from fitdoctor.sweep.permutations import Arrangements, Tested, arrange, compare_levels
from fitdoctor.sweep.result import Axis, Finding, Level, Separation, Trial
from fitdoctor.sweep.settings import Value

MOST_LEVELS = 12
"""More values of a number than these are put into ranges of equally many runs."""

RANGES = 8


@dataclass(frozen=True, slots=True)
class _Graded:
    """An axis whose values are levels.

    Attributes:
        axis: the axis.
        labels: of the levels, in order.
        level: value -> number of its level.
    """

    axis: Axis
    labels: tuple[str, ...]
    level: Mapping[Value, int]

    def of(self, trial: Trial) -> int:
        """The level of a run."""
        return self.level[trial.settings[self.axis.name]]


@dataclass(frozen=True, slots=True)
class _Cell:
    """A configuration: what all its seeds share.

    Attributes:
        trial: one of its runs.
        sick: the share of its judged runs that is sick.
    """

    trial: Trial
    sick: float


def separations(trials: Sequence[Trial], axes: Sequence[Axis]) -> tuple[Separation, ...]:
    """What each setting has to do with the verdicts, the surest first."""
    cells = _cells(trials, axes)
    graded = [_grade(axis, trials) for axis in axes]
    told = {g.axis.name: [c for c in cells if c.trial.settings[g.axis.name] is not None] for g in graded}
    arranged: dict[int, Arrangements] = {}  # by the number of cells: mostly all cells tell a setting
    tested: dict[str, Tested] = {}
    for g in graded:
        own = told[g.axis.name]
        if len({cell.sick for cell in own}) < 2:
            continue
        if len(own) < len(cells) or len(own) not in arranged:
            arranged[len(own)] = arrange([cell.sick for cell in own])
        levels = [g.of(c.trial) for c in own]
        tested[g.axis.name] = compare_levels(levels, arranged[len(own)], ordered=g.axis.kind == "number")
    corrected = holm({name: t.p for name, t in tested.items()})
    found = [_separation(g, trials, told[g.axis.name], tested.get(g.axis.name), corrected, len(graded)) for g in graded]
    found.sort(key=lambda s: (s.corrected, -_explained(tested, s.setting)))
    lead = next((s for s in found if s.finding == "separates"), None)
    if lead is None:
        return tuple(found)
    by_name = {g.axis.name: g for g in graded}
    return tuple(
        s if s is lead or s.finding != "separates" else _given(s, by_name[s.setting], by_name[lead.setting], cells)
        for s in found
    )


def _explained(tested: Mapping[str, Tested], name: str) -> float:
    return tested[name].explained if name in tested else 0.0


def _cells(trials: Sequence[Trial], axes: Sequence[Axis]) -> list[_Cell]:
    by_setting: dict[tuple[Value, ...], list[Trial]] = {}
    for trial in trials:
        if trial.verdict in ("sick", "healthy"):
            by_setting.setdefault(tuple(trial.settings[a.name] for a in axes), []).append(trial)
    return [_Cell(own[0], float(np.mean([t.verdict == "sick" for t in own]))) for own in by_setting.values()]


def _grade(axis: Axis, trials: Sequence[Trial]) -> _Graded:
    if axis.kind == "word" or len(axis.values) <= MOST_LEVELS:
        return _Graded(axis, tuple(map(spelled, axis.values)), {v: i for i, v in enumerate(axis.values)})
    told = [t.settings[axis.name] for t in trials]
    numbers = np.sort([float(v) for v in told if v is not None])
    inner = np.unique(np.quantile(numbers, np.linspace(0, 1, RANGES + 1)[1:-1], method="higher"))
    level: dict[Value, int] = {v: int(np.searchsorted(inner, float(v), side="right")) for v in told if v is not None}
    members: dict[int, list[float]] = {}
    for value, i in level.items():
        members.setdefault(i, []).append(float(value))  # type: ignore[arg-type]  # None has no level here
    order = {old: new for new, old in enumerate(sorted(members))}
    labels = [spelled_range(min(members[i]), max(members[i])) for i in sorted(members)]
    level = {v: order[i] for v, i in level.items()}
    if None in told:
        level[None] = len(labels)
        labels.append(spelled(None))
    return _Graded(axis, tuple(labels), level)


def _separation(
    graded: _Graded,
    trials: Sequence[Trial],
    cells: Sequence[_Cell],
    tested: Tested | None,
    corrected: Mapping[str, float],
    tests: int,
) -> Separation:
    name = graded.axis.name
    levels = tuple(_level(graded, i, trials) for i in range(len(graded.labels)))
    bare = Separation(
        name, graded.axis.also, levels, "", (math.nan, math.nan), len(cells), 1.0, 1.0, 1.0, "", math.nan,
        "nothing to separate",
    )  # fmt: skip
    if tested is None:
        return bare
    smallest = min(1.0, tests * tested.smallest)
    finding: Finding = "separates" if corrected[name] < LEVEL else "not shown"
    if smallest >= LEVEL:
        finding = "not significant by construction"
    sick = _sick_levels(graded, cells, tested)
    inside = [c.sick for c in cells if graded.of(c.trial) in sick]
    outside = [c.sick for c in cells if graded.of(c.trial) not in sick]
    rates = (float(np.mean(inside)) if inside else math.nan, float(np.mean(outside)) if outside else math.nan)
    where = _described(graded, sick) if finding == "separates" else ""
    return replace(
        bare, where=where, rates=rates, p=tested.p, corrected=corrected[name], smallest=smallest, finding=finding
    )


def _sick_levels(graded: _Graded, cells: Sequence[_Cell], tested: Tested) -> frozenset[int]:
    """The levels at which configurations are sick more often."""
    every = range(len(graded.labels))
    if graded.axis.kind == "number":
        stretch = frozenset(range(tested.first, tested.last + 1))
        return stretch if tested.higher else frozenset(every) - stretch
    overall = float(np.mean([c.sick for c in cells]))
    shares = {i: [c.sick for c in cells if graded.of(c.trial) == i] for i in every}
    return frozenset(i for i, own in shares.items() if own and float(np.mean(own)) > overall)


def _described(graded: _Graded, levels: frozenset[int]) -> str:
    """The levels in words: "0.1 to 10", "below 1e-4 or above 1", "adam, sgd"."""
    if graded.axis.kind == "word":
        return ", ".join(graded.labels[i] for i in sorted(levels))
    stretches: list[list[int]] = []
    for i in sorted(levels):
        if stretches and stretches[-1][-1] == i - 1:
            stretches[-1].append(i)
        else:
            stretches.append([i])
    last = max(i for v, i in graded.level.items() if v is not None)
    told = []
    for stretch in stretches:
        low, high = _bounds(graded, stretch)
        if low is None or high is None:
            told.append(spelled(None))
        elif stretch[0] == 0 and stretch[-1] < last:
            told.append(f"{spelled(high)} and below" if len(stretch) > 1 or high != low else spelled(high))
        elif stretch[-1] == last and stretch[0] > 0:
            told.append(f"{spelled(low)} and above" if len(stretch) > 1 or high != low else spelled(low))
        else:
            told.append(spelled_range(low, high))
    return " or ".join(told)


def _bounds(graded: _Graded, levels: Sequence[int]) -> tuple[float | None, float | None]:
    values = [float(v) for v, i in graded.level.items() if i in levels and v is not None]
    return (min(values), max(values)) if values else (None, None)


def _level(graded: _Graded, i: int, trials: Sequence[Trial]) -> Level:
    own = [t for t in trials if graded.of(t) == i]
    verdicts = Counter(t.verdict for t in own)
    causes = Counter(cause for t in own for cause in t.causes[:1])
    return Level(
        graded.labels[i],
        len(own),
        verdicts["sick"],
        verdicts["healthy"],
        verdicts["cannot judge"],
        sum(t.state == "diverged" for t in own),
        tuple(causes.most_common(4)),
    )


def _given(found: Separation, graded: _Graded, lead: _Graded, cells: Sequence[_Cell]) -> Separation:
    """Whether a setting says anything where the leading one is held fixed."""
    cells = [c for c in cells if None not in (c.trial.settings[graded.axis.name], c.trial.settings[lead.axis.name])]
    tested = compare_levels(
        [graded.of(c.trial) for c in cells],
        arrange([c.sick for c in cells], [lead.of(c.trial) for c in cells]),
        ordered=graded.axis.kind == "number",
    )
    finding: Finding = "separates" if tested.p < LEVEL else "explained by another"
    return replace(found, given=lead.axis.name, p_given=tested.p, finding=finding)


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """p-values after Holm's step-down correction (Holm 1979).

    Example:
        >>> holm({"lr": 0.01, "bs": 0.04, "wd": 0.5})
        {'lr': 0.03, 'bs': 0.08, 'wd': 0.5}
    """
    out: dict[str, float] = {}
    so_far = 0.0
    for i, name in enumerate(sorted(p, key=lambda key: p[key])):
        so_far = max(so_far, min(1.0, (len(p) - i) * p[name]))
        out[name] = so_far
    return out


def spelled(value: Value) -> str:
    """A value of a setting in words."""
    if value is None:
        return "not told"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def spelled_range(low: float, high: float) -> str:
    """``0.1 to 10``, or the number where both are one."""
    return spelled(_whole(low)) if low == high else f"{spelled(_whole(low))} to {spelled(_whole(high))}"


def _whole(value: float) -> Value:
    return int(value) if math.isfinite(value) and value == int(value) and abs(value) < 2**53 else value
