"""Which settings differ between two sides: what was logged as a fact, and what the curves tell of the plan."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from fitdoctor.compare.comparison import FactChange
from fitdoctor.run import Fact, Run
from fitdoctor.views.curves import learning_rate
from fitdoctor.views.schedules import recognise

ENVIRONMENT = frozenset(
    {"torch", "python", "device", "framework", "host", "hostname", "seed", "resumed_at", "step_unit", "tier"}
)
"""Facts that tell where and how a run was logged, not how it was trained."""

SAME = 1e-6
"""Relative difference below which two numbers are one setting: float32 in the log."""


def settings(run: Run) -> dict[str, Fact]:
    """The facts of a run, with the schedule, the peak rate, the warm-up and the length read off its curves.

    What the log states goes before what is read off: `learning_rate` is the configured one where it is known.
    """
    facts = dict(run.facts)
    rate = learning_rate(run)
    schedule = None if rate is None else recognise(rate)
    if schedule is not None:
        facts.setdefault("learning_rate", schedule.peak)
        facts.setdefault("schedule", schedule.kind)
        facts.setdefault(f"warmup_{run.step_unit}s", schedule.warmup_steps)
    elif rate is not None and len(rate.finite):
        facts.setdefault("learning_rate", float(rate.finite.values.max()))
    if run.steps is not None:
        facts.setdefault("length", run.steps.last)
    return facts


def changed_settings(before: Sequence[Run], after: Sequence[Run]) -> tuple[FactChange, ...]:
    """Settings of which the values differ between the sides, those of the training first."""
    a, b = [settings(r) for r in before], [settings(r) for r in after]
    keys = dict.fromkeys(key for facts in (*a, *b) for key in facts)
    out = []
    one_unit = len({run.step_unit for run in (*before, *after)}) == 1
    for key in keys:
        first, second = _values(a, key), _values(b, key)
        if not _same(first, second) and (one_unit or key != "length"):
            out.append(FactChange(key, first, second, key in ENVIRONMENT))
    return tuple(sorted(out, key=lambda change: change.environment))


def _values(facts: Sequence[Mapping[str, Fact]], key: str) -> tuple[Fact, ...]:
    """The distinct values of a side, in the order of its runs."""
    out: list[Fact] = []
    for each in facts:
        if key in each and not any(_equal(each[key], seen) for seen in out):
            out.append(each[key])
    return tuple(out)


def _same(first: tuple[Fact, ...], second: tuple[Fact, ...]) -> bool:
    return len(first) == len(second) and all(any(_equal(x, y) for y in second) for x in first)


def _equal(x: Fact, y: Fact) -> bool:
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (x, y))
    if numbers:
        return x == y or math.isclose(float(x), float(y), rel_tol=SAME)
    return x == y
