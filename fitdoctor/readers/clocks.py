"""Clocks of a log: restarts, two step counters under one tag, epochs against steps.

All functions take and return arrays in the order of the file; none knows what was measured.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fitdoctor.run import FloatArray, IntArray

MANY_SEGMENTS = 64
"""More backward jumps than this are not restarts but a log without order."""
CROWDED = 3.0
"""Points per step from which the step cannot be the clock of the points (an epoch number, or always 0)."""

Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Restart:
    """Training went back to `step`; what was logged from there on before `wall_time` is superseded."""

    step: int
    before: int
    superseded: int
    wall_time: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Untangled:
    """One column in the order of its steps.

    Attributes:
        keep: int64[m], indices of the points that stand; their steps increase strictly.
        restarts: the restarts found.
        duplicates: points that another of the same step replaced.
        moved: points that stood out of order.
        other: int64[k], indices of points that count on another clock (an epoch number), in file order.
        other_after: int64[k], step of the main clock at which each of them was written.
    """

    keep: Index
    restarts: tuple[Restart, ...] = ()
    duplicates: int = 0
    moved: int = 0
    other: Index = field(default_factory=lambda: np.empty(0, np.int64))
    other_after: IntArray = field(default_factory=lambda: np.empty(0, np.int64))


def increases(steps: IntArray) -> bool:
    """Whether steps increase strictly."""
    return len(steps) < 2 or bool((steps[1:] > steps[:-1]).all())


def untangle(steps: IntArray, wall_time: FloatArray | None = None) -> Untangled:
    """Bring one column into the order of its steps.

    A step that goes back and covers steps again is a restart: what came later stands. A step that goes
    back to fill a gap is only out of order. Of points with one step the last stands.

    Args:
        steps: int64[n], in file order.
        wall_time: float64[n] or None.
    """
    order: Index = np.arange(len(steps))
    if increases(steps):
        return Untangled(order)
    if wall_time is not None and not bool((wall_time[1:] >= wall_time[:-1]).all()):
        order = np.argsort(wall_time, kind="stable")  # several writers, or files listed in another order
    second = _second_clock(steps[order])
    other, after = np.empty(0, np.int64), np.empty(0, np.int64)
    if second is not None:
        other = order[second]
        after = np.maximum.accumulate(steps[order])[second]
        order = order[~second]
    kept, restarts, moved = _later_wins(steps, order, wall_time)
    by_step = kept[np.argsort(steps[kept], kind="stable")]
    last = np.r_[steps[by_step][1:] != steps[by_step][:-1], np.ones(min(1, len(by_step)), bool)]
    return Untangled(by_step[last], tuple(restarts), int(len(by_step) - last.sum()), moved, other, after)


def _second_clock(steps: IntArray) -> NDArray[np.bool_] | None:
    """Which points count on a second, slower clock mixed into the column; None when there is only one.

    The mark of it: single points fall below what the column had reached, in equal strides of their own,
    and the column goes on after each of them where it was.
    """
    reached = np.maximum.accumulate(steps)
    below = np.r_[False, steps[1:] < reached[:-1]]
    strays = steps[below]
    if len(strays) < 3 or len(strays) * 2 > len(steps) or not increases(strays):
        return None
    at = np.nonzero(below)[0]
    single = np.diff(at) > 1
    strides = np.diff(strays)
    regular = strides == np.median(strides)
    if single.mean() < 0.8 or regular.mean() < 0.8 or strays[-1] * 2 > reached[-1]:
        return None
    return below if bool((np.diff(steps[~below]) >= 0).all()) else None


def _later_wins(steps: IntArray, order: Index, wall_time: FloatArray | None) -> tuple[Index, list[Restart], int]:
    """Drop what restarts superseded; the indices that stand, the restarts, and points out of order."""
    ordered = steps[order]
    cuts = np.nonzero(ordered[1:] < ordered[:-1])[0] + 1
    if len(cuts) > MANY_SEGMENTS:
        return order, [], int((ordered < np.maximum.accumulate(ordered)).sum())
    kept: Index = order[: cuts[0]] if len(cuts) else order
    restarts: list[Restart] = []
    moved = 0
    for low, high in zip(cuts, np.r_[cuts[1:], len(order)], strict=False):
        part = order[low:high]
        first, reached = int(steps[part[0]]), int(steps[kept].max())
        again = steps[part][steps[part] <= reached]
        if len(again) >= 3 or bool(np.isin(again, steps[kept]).any()):
            superseded = steps[kept] >= first
            wall = None if wall_time is None else float(wall_time[part[0]])
            restarts.append(Restart(first, reached, int(superseded.sum()), wall))
            kept = kept[~superseded]
        else:
            moved += len(again)
        kept = np.r_[kept, part]
    return kept, restarts, moved


@dataclass(frozen=True, slots=True, eq=False)
class EpochMap:
    """At which step each epoch ended.

    Attributes:
        steps: int64[n], rising.
        epochs: float64[n], not falling.
    """

    steps: IntArray
    epochs: FloatArray

    @classmethod
    def of(cls, steps: IntArray, epochs: FloatArray) -> EpochMap | None:
        """The map of logged pairs, in any order; None when the pairs tell nothing."""
        good = np.isfinite(epochs)
        steps, epochs = steps[good], epochs[good]
        order = np.lexsort((epochs, steps))
        steps, epochs = steps[order], np.maximum.accumulate(epochs[order]) if len(order) else epochs
        if len(steps) < 2 or epochs[-1] <= epochs[0] or steps[-1] <= steps[0]:
            return None
        if bool(np.array_equal(steps, epochs)):
            return None  # the step is the epoch
        return cls(steps, epochs)

    @property
    def whole(self) -> bool:
        """Whether the epochs are whole numbers: a counter, not a fraction of the way."""
        return bool((self.epochs == np.floor(self.epochs)).all())

    @property
    def steps_per_epoch(self) -> int | None:
        """Steps in one epoch, where the pairs tell."""
        if not self.whole:
            span = float(self.epochs[-1] - self.epochs[0])
            each = float(self.steps[-1] - self.steps[0]) / span if span > 0 else 0.0
            return round(each) if 1 <= each < 2**53 else None
        ends = self.steps[np.r_[np.diff(self.epochs) > 0, True]]
        if len(ends) < 3:
            return None
        each = float(np.median(np.diff(ends[:-1]))) if len(ends) > 3 else float(ends[1] - ends[0])
        return round(each) if each >= 1 else None

    def step_at(self, epochs: FloatArray) -> IntArray:
        """The last step of each epoch, int64[len(epochs)]; counting from 0 or 1 is told by the ends."""
        first, last = float(epochs.min()), float(epochs.max())
        own_first, own_last = float(np.floor(self.epochs[0])), float(np.ceil(self.epochs[-1]))
        shift = 0.0
        if self.whole:
            if first == own_first + 1 and last == own_last + 1:
                shift = -1.0
            elif first == own_first - 1 and last == own_last - 1:
                shift = 1.0
        elif bool((epochs == np.floor(epochs)).all()) and first == 0 and last <= own_last - 1:
            shift = 1.0
        index = np.searchsorted(self.epochs, epochs + shift + 1e-9, side="right") - 1
        return self.steps[np.maximum(index, 0)]


def step_by_time(wall_time: FloatArray, main_steps: IntArray, main_wall: FloatArray) -> IntArray:
    """The last step of the main clock that was written at or before each time."""
    order = np.argsort(main_wall, kind="stable")
    index = np.searchsorted(main_wall[order], wall_time, side="right") - 1
    return np.maximum.accumulate(main_steps[order])[np.maximum(index, 0)]


def spread_evenly(epochs: FloatArray, first: int, last: int) -> IntArray:
    """Ends of epochs when all that is known is that the last one ends with training.

    Args:
        epochs: float64[n], epoch numbers counted from 0 or 1.
        first: first training step.
        last: last training step.
    """
    base = 0.0 if epochs.min() <= 0 else 1.0
    count = float(epochs.max()) - base + 1
    share = np.clip((epochs - base + 1) / count, 0.0, 1.0)
    begin = min(first, 0) if first <= 1 else first
    return np.rint(begin + share * (last - begin)).astype(np.int64)


def stride_of(steps: IntArray) -> int:
    """The common distance of steps that are as regular as a counter; 0 when they are not."""
    if len(steps) < 2:
        return 0
    strides = np.diff(steps)
    each = int(strides[0])
    return each if each > 0 and bool((strides == each).all()) else 0
