"""What the monitor has measured so far, in memory: the same `Run` that a reader would make of its log."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fitdoctor.live.sinks import ABSENT, Point, Vector, tag_of
from fitdoctor.run import Fact, Note, Run, Series
from fitdoctor.signals import QUANTITIES, Signal

MOST_POINTS = 1 << 18
"""Points kept of a signal of the whole model; beyond it, every other one of the older half goes."""

FIRST_ROWS, MOST_ROWS = 16, 512
"""Records kept of each per-layer quantity: the first ones, which show the untrained model, and the last ones."""


@dataclass(slots=True)
class _Column:
    steps: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))
    times: array[float] = field(default_factory=lambda: array("d"))

    def add(self, point: Point) -> None:
        if self.steps and point.step <= self.steps[-1]:
            if point.step < self.steps[-1]:
                return  # logged late, for a step that is past: the file has it, the window goes on
            self.values[-1], self.times[-1] = point.value, point.wall_time
            return
        self.steps.append(point.step)
        self.values.append(point.value)
        self.times.append(point.wall_time)
        if len(self.steps) > MOST_POINTS:
            half = MOST_POINTS // 2
            for name in ("steps", "values", "times"):
                column = getattr(self, name)
                setattr(self, name, column[:half:2] + column[half:])


@dataclass(slots=True)
class _Rows:
    """Records of one per-layer quantity."""

    first: list[Vector] = field(default_factory=list)
    last: deque[Vector] = field(default_factory=lambda: deque(maxlen=MOST_ROWS - FIRST_ROWS))

    def add(self, item: Vector) -> None:
        newest = self.last[-1] if self.last else self.first[-1] if self.first else None
        if newest is not None and (newest.layers is not item.layers or item.step <= newest.step):
            self.first.clear()
            self.last.clear()
        (self.first if len(self.first) < FIRST_ROWS else self.last).append(item)

    def all(self) -> list[Vector]:
        return [*self.first, *self.last]


@dataclass(slots=True)
class History:
    """Numbers by signal, and the first and last records of each per-layer quantity."""

    scalars: dict[Signal, _Column] = field(default_factory=dict)
    vectors: dict[tuple[str, str], _Rows] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    def add(self, item: Point | Vector) -> None:
        """Take one measurement."""
        if isinstance(item, Point):
            column = self.scalars.get(item.signal)
            if column is None:
                column = self.scalars[item.signal] = _Column()
            column.add(item)
        else:
            self.vectors.setdefault((item.quantity, item.group), _Rows()).add(item)

    def last(self, signal: Signal) -> float | None:
        """The latest value of a signal."""
        column = self.scalars.get(signal)
        return column.values[-1] if column and column.values else None

    def run(self, name: str, path: str, facts: Mapping[str, Fact], *, finished: bool = False) -> Run:
        """Everything so far as a run."""
        series = [
            Series(signal, _copied(c.steps, np.int64), _copied(c.values, np.float64), tag_of(signal), "step")
            for signal, c in self.scalars.items()
        ]
        for (quantity, _), kept in self.vectors.items():
            rows = kept.all()
            steps = np.array([row.step for row in rows], np.int64)
            values = np.array([row.values for row in rows], np.float64)
            for i, layer in enumerate(rows[0].layers if rows else ()):
                there = values[:, i] != ABSENT
                signal = Signal(QUANTITIES[quantity], layer=layer)
                if there.any():
                    series.append(Series(signal, steps[there], values[there, i], f"{quantity}/{layer}", "step"))
        return Run(
            name, tuple(series), dict(facts), True if finished else None, path, "fitdoctor-monitor", tuple(self.notes)
        )


def _copied(values: array[int] | array[float], dtype: type) -> Any:
    return np.array(values, dtype)
