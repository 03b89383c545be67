"""A sparse table to series: which column is the clock, and what each cell's step and epoch are.

Shared by every reader whose log is a table at heart (CSV, JSON lines, text). It knows the names of
clocks and nothing about metrics.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from fitdoctor.readers.raw import RawSeries
from fitdoctor.run import FloatArray, IntArray, Note

# One character or word at a time, so that no long run of "_" can be split in more than one way.
_BEFORE = r"(?:global|current|cur|train|training|trainer|opt|optimizer|num|n|total|log|logging|[ _/.#-])*"
_AFTER = r"(?:[ _-]*(?:num|number|idx|index|id|count|counter|no|#))?"
_STEP = re.compile(
    rf"{_BEFORE}(?P<unit>steps?|iterations?|iters?|itr|it|updates?|mini_?batch(?:es)?|batch(?:es)?){_AFTER}"
)
_EPOCH = re.compile(rf"{_BEFORE}(?:epochs?|ep){_AFTER}")
_WALL = re.compile(r"[ _]*(?:wall[ _]?(?:clock[ _]?)?time|time[ _]?stamp|unix[ _]?time|time|date[ _]?time|date)")
_LONGEST_NAME = 80
_LARGEST = 2.0**53
"""Above this a float64 no longer counts in ones, so it is no step."""


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """The filled cells of one column.

    Attributes:
        tag: name in the log.
        rows: int64[n], row number of each cell, rising.
        values: float64[n].
    """

    tag: str
    rows: IntArray
    values: FloatArray


class Cells:
    """Collects a sparse table from readers that meet one row at a time."""

    def __init__(self) -> None:
        self._rows: dict[str, array[int]] = {}
        self._values: dict[str, array[float]] = {}
        self.height = 0

    def add(self, row: Iterable[tuple[str, float]]) -> None:
        """Append one row. Where a name comes twice in a row, the first stands."""
        n = self.height
        for tag, value in row:
            rows = self._rows.get(tag)
            if rows is None:
                self._rows[tag], self._values[tag] = array("q", (n,)), array("d", (value,))
            elif rows[-1] != n:
                rows.append(n)
                self._values[tag].append(value)
        self.height += 1

    def columns(self) -> list[Column]:
        """The columns in order of first appearance."""
        return [
            Column(tag, np.frombuffer(rows, np.int64).copy(), np.frombuffer(self._values[tag], np.float64).copy())
            for tag, rows in self._rows.items()
        ]


@lru_cache(maxsize=4096)
def is_step(tag: str) -> bool:
    """Whether a name is that of a step clock.

    Example:
        >>> [is_step(t) for t in ("global_step", "trainer/global_step", "Iteration", "n_iter", "step_time")]
        [True, True, True, True, False]
    """
    return len(tag) <= _LONGEST_NAME and _STEP.fullmatch(tag.strip().lower()) is not None


@lru_cache(maxsize=4096)
def is_epoch(tag: str) -> bool:
    """Whether a name is that of an epoch clock."""
    return len(tag) <= _LONGEST_NAME and _EPOCH.fullmatch(tag.strip().lower()) is not None


def is_wall_time(tag: str) -> bool:
    """Whether a name may be that of a column of absolute times; the values decide."""
    return _WALL.fullmatch(tag.strip().lower()) is not None


def _as_clock(column: Column, whole: bool) -> Column | None:
    """The usable cells of a clock; None when more than one in ten is not a count (or a time)."""
    v = column.values
    good = np.isfinite(v) & (np.abs(v) < _LARGEST)
    if whole:
        good &= v == np.floor(v)
    if not good.any() or int(good.sum()) * 10 < len(v) * 9:
        return None
    return Column(column.tag, column.rows[good], v[good])


def _step_rank(column: Column) -> tuple[int, int]:
    """Smaller is the better step clock: a global one first, a batch counter last, then the fullest."""
    name = column.tag.strip().lower()
    unit = _STEP.fullmatch(name)
    worst = 2 if unit is not None and unit["unit"].startswith(("batch", "mini")) else 1
    return (0 if "global" in name else worst, -len(column.rows))


def find_step(columns: Sequence[Column]) -> Column | None:
    """The column that counts training steps, or None."""
    found = [clock for c in columns if is_step(c.tag) and (clock := _as_clock(c, whole=True))]
    # A step that never moves, in a log of many rows, is a setting ("total_steps"), not a clock.
    found = [c for c in found if len(c.rows) < 3 or np.ptp(c.values) > 0]
    return min(found, key=_step_rank) if found else None


def find_epoch(columns: Sequence[Column]) -> Column | None:
    """The column that counts epochs, or None."""
    found = [clock for c in columns if is_epoch(c.tag) and (clock := _as_clock(c, whole=False))]
    moving = [c for c in found if np.ptp(c.values) > 0]
    return max(moving or found, key=lambda c: len(c.rows), default=None)


def find_wall_time(columns: Sequence[Column]) -> tuple[Column | None, float]:
    """The column of absolute times and the factor that makes seconds of it."""
    for c in columns:
        if is_wall_time(c.tag) and _as_clock(c, whole=False):
            for factor in (
                1.0,
                1e-3,
                1e-6,
                1e-9,
            ):  # seconds, milli, micro, nano since 1970; 1e9 s is 2001, 5e9 s 2128
                if bool(np.all((c.values * factor > 1e9) & (c.values * factor < 5e9))):
                    return c, factor
    return None, 1.0


def _spread(column: Column, height: int) -> FloatArray:
    """A column over all rows, float64[height], nan where it has no cell."""
    out = np.full(height, np.nan)
    out[column.rows] = column.values
    return out


def _filled_forward(values: FloatArray) -> FloatArray:
    """Each gap takes the last value before it; gaps before the first value stay nan."""
    known = np.where(np.isnan(values), -1, np.arange(len(values)))
    last = np.maximum.accumulate(known) if len(known) else known
    return np.where(last >= 0, values[np.maximum(last, 0)], np.nan)


def unrolled(steps: FloatArray, epochs: FloatArray, per_epoch: int | None = None) -> tuple[FloatArray, int] | None:
    """Steps counted from the start of training, where the log counts them from the start of each epoch.

    Args:
        steps: float64[n] as logged, in file order, no nan.
        epochs: float64[n] epoch of each, no nan.
        per_epoch: steps in an epoch, where the log says so ("Step [100/600]").

    Returns:
        float64[n] and the steps of an epoch; None when the counter does not start again with each epoch.
    """
    if len(steps) < 2 or not bool(np.all(epochs == np.floor(epochs))):
        return None
    back = np.diff(steps) < 0
    up = np.diff(epochs)
    # A restart sets the epoch back as well; only a counter that falls exactly where the epoch rises is per epoch.
    if not bool(back.any()) or bool(np.any(back & (up == 0))) or int((back & (up > 0)).sum()) * 2 < int((up > 0).sum()):
        return None
    largest = int(steps.max())
    size = per_epoch if per_epoch and per_epoch >= largest else largest + (1 if steps.min() == 0 else 0)
    if size < 1:
        return None
    base = 1.0 if epochs[0] >= 1 else 0.0
    return (epochs - base) * size + steps, size


@dataclass(frozen=True, slots=True, eq=False)
class Clocks:
    """Step, epoch and wall time of every row; float64[height] each or None, nan where unknown."""

    steps: FloatArray | None
    epochs: FloatArray | None
    wall_time: FloatArray | None
    used: frozenset[str]
    notes: tuple[Note, ...]


def find_clocks(columns: Sequence[Column], height: int, where: str, per_epoch: int | None = None) -> Clocks:
    """The clocks of a table.

    Rows without a step take the one of the row before: the order of the file says when they were written.
    """
    notes: list[Note] = []
    step, epoch = find_step(columns), find_epoch(columns)
    wall, factor = find_wall_time(columns)
    epochs = None if epoch is None else _spread(epoch, height)
    if epochs is not None and step is None:
        epochs = _filled_forward(epochs)
    steps = None
    if step is not None:
        steps = _spread(step, height)
        gaps = np.isnan(steps)
        if gaps.any():
            steps = _filled_forward(steps)
            first = float(steps[~np.isnan(steps)][0])
            steps = np.where(np.isnan(steps), min(first, 0.0), steps)
        if epochs is not None:
            per_row = _filled_forward(epochs)
            known = ~np.isnan(per_row)
            counted = unrolled(steps[known], per_row[known], per_epoch) if known.any() else None
            if counted is not None:
                steps = steps.copy()
                steps[known] = counted[0]
                text = f"{step.tag!r} starts again with each epoch; counted on, {counted[1]} steps an epoch"
                notes.append(Note("aligned", f"{where}: {text}", amount=counted[1]))
    elif epochs is not None and _several_rows_an_epoch(columns, epochs, epoch):
        steps = np.arange(height, dtype=np.float64)
        notes.append(Note("aligned", f"{where}: several rows an epoch and no step column; the row number is the step"))
    used = frozenset(c.tag for c in (step, epoch, wall) if c is not None)
    wall_time = None if wall is None else _filled_forward(_spread(wall, height) * factor)
    return Clocks(steps, epochs, wall_time, used, tuple(notes))


def _several_rows_an_epoch(columns: Sequence[Column], epochs: FloatArray, clock: Column | None) -> bool:
    """Whether some column has, as a rule, more than one cell in one epoch."""
    for c in columns:
        if c is not clock and len(c.rows) >= 4:
            at = epochs[c.rows]
            at = at[~np.isnan(at)]
            if len(at) >= 4 and int((np.diff(at) == 0).sum()) * 2 > len(at):
                return True
    return False


def _unmasked(columns: Sequence[Column], steps: FloatArray | None, where: str, notes: list[Note]) -> Sequence[Column]:
    """The columns without losses that the Hugging Face Trainer's filter replaced.

    With ``logging_nan_inf_filter``, its default, a NaN loss is logged as 0.0; the norm of its gradient beside
    it gives it away.
    """
    named = {c.tag: c for c in columns}
    shown: dict[int, Column] = {}
    for prefix in ("", "train/"):
        loss, norm = named.get(f"{prefix}loss"), named.get(f"{prefix}grad_norm")
        if loss is None or norm is None:
            continue
        hidden = np.isin(loss.rows, norm.rows[~np.isfinite(norm.values)]) & (loss.values == 0.0)
        if not hidden.any():
            continue
        first = None if steps is None else int(steps[loss.rows[hidden][0]])
        place = "" if first is None else f" from step {first} on"
        text = f"{loss.tag!r} is logged as 0.0 in {int(hidden.sum())} rows{place}, where grad_norm is not finite"
        why = "the loss was NaN there and a filter hid it (logging_nan_inf_filter); these rows were left out"
        notes.append(Note("hidden-nonfinite", f"{where}: {text}: {why}", step=first, amount=int(hidden.sum())))
        shown[id(loss)] = Column(loss.tag, loss.rows[~hidden], loss.values[~hidden])
    return [shown.get(id(c), c) for c in columns]


def _measured(column: Column, where: str, notes: list[Note]) -> Column:
    """A column without the nan that only fill the rows between evaluations.

    Told from a training that broke by the numbers between them: they come back, in equal strides, to the end.
    """
    filled = np.flatnonzero(~np.isnan(column.values))
    if len(filled) == len(column.values) or len(filled) < 3:
        return column
    strides = np.diff(filled)
    stride = int(strides[0])
    if stride < 2 or bool((strides != stride).any()) or filled[0] >= stride or len(column.values) - filled[-1] > stride:
        return column
    text = f"{column.tag!r} has a number in every {stride}th of its cells and nan between; those were not measured"
    notes.append(Note("other", f"{where}: {text}", amount=len(column.values) - len(filled)))
    return Column(column.tag, column.rows[filled], column.values[filled])


def _known(clock: FloatArray | None, rows: IntArray) -> FloatArray | None:
    """A clock at some rows, None unless it is known at all of them."""
    if clock is None or np.isnan(clock[rows]).any():
        return None
    return clock[rows]


def series_of(
    columns: Sequence[Column], height: int, where: str, per_epoch: int | None = None
) -> tuple[tuple[RawSeries, ...], tuple[Note, ...]]:
    """All series of a table, each with the clocks of its cells.

    Args:
        columns: the table.
        height: number of its rows.
        where: the file, for notes.
        per_epoch: steps in an epoch, where the log says so.

    Returns:
        the series in the order of the columns, and what to tell the user.
    """
    clocks = find_clocks(columns, height, where, per_epoch)
    steps, notes = clocks.steps, list(clocks.notes)
    columns = [
        c if c.tag in clocks.used else _measured(c, where, notes) for c in _unmasked(columns, steps, where, notes)
    ]
    series: list[RawSeries] = []
    for c in columns:
        another_clock = is_epoch(c.tag) or (clocks.steps is not None and is_step(c.tag))
        if not c.tag or not len(c.rows) or c.tag in clocks.used or another_clock:
            continue  # without a name: the index that pandas writes
        if steps is None and clocks.epochs is None:
            steps = np.arange(height, dtype=np.float64)
            notes.append(Note("aligned", f"{where}: no step or epoch column; the row number is the step"))
        at_epoch = None if clocks.epochs is None else clocks.epochs[c.rows]
        if at_epoch is not None and np.isnan(at_epoch).all():
            at_epoch = None
        series.append(
            RawSeries(
                tag=c.tag,
                values=c.values,
                steps=None if steps is None else steps[c.rows].astype(np.int64),
                epochs=at_epoch,
                wall_time=_known(clocks.wall_time, c.rows),
            )
        )
    return tuple(series), tuple(notes)
