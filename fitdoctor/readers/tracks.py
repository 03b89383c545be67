"""A track is one tag of a raw run on its way to becoming a series: all files joined, its meaning known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fitdoctor.readers.clocks import Restart
from fitdoctor.readers.raw import RawSeries
from fitdoctor.readers.tags import Mapped, Overrides, resolve
from fitdoctor.run import FloatArray, IntArray, Series


@dataclass(slots=True, eq=False)
class Track:
    """One tag on its way to becoming a series.

    Attributes:
        tag: as logged.
        meaning: what it means.
        values: float64[n].
        steps: int64[n] or None when the log has no step clock for it.
        epochs: float64[n] or None.
        wall_time: float64[n] or None.
        restarts: restarts found in it.
        starts: index of the first point of each further file.
        statistic: which statistic of a distribution, "" for scalars.
    """

    tag: str
    meaning: Mapped
    values: FloatArray
    steps: IntArray | None
    epochs: FloatArray | None
    wall_time: FloatArray | None
    restarts: tuple[Restart, ...] = ()
    starts: tuple[int, ...] = ()
    statistic: str = ""

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: Any) -> None:
        """Keep the points of an index array or mask."""
        self.values = self.values[index]
        self.steps = None if self.steps is None else self.steps[index]
        self.epochs = None if self.epochs is None else self.epochs[index]
        self.wall_time = None if self.wall_time is None else self.wall_time[index]

    @property
    def series(self) -> Series:
        """The finished series."""
        assert self.steps is not None
        return Series(self.meaning.signal, self.steps, self.values, self.tag, self.meaning.per, self.wall_time)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A tag that became no series, and why."""

    tag: str
    statistic: str
    points: int
    why: str


def collect(series: Iterable[RawSeries], overrides: Overrides) -> tuple[list[Track], list[LeftOut]]:
    together: dict[tuple[str, str], list[RawSeries]] = {}
    for raw in series:
        if len(raw.values):
            together.setdefault((raw.tag, raw.statistic), []).append(raw)
    tracks: list[Track] = []
    left_out: list[LeftOut] = []
    for (tag, statistic), parts in together.items():
        meaning = resolve(tag, statistic, overrides)
        if isinstance(meaning, str):
            left_out.append(LeftOut(tag, statistic, sum(len(p.values) for p in parts), meaning))
        else:
            tracks.append(_joined(tag, meaning, parts))
    return tracks, left_out


def _joined(tag: str, meaning: Mapped, parts: Sequence[RawSeries]) -> Track:
    """One track of several files; a clock counts only when every part has it."""
    values = _array(parts, "values", np.float64)
    n = len(values)
    steps = _fitting(_array(parts, "steps", np.int64), n)
    epochs = _fitting(_array(parts, "epochs", np.float64), n)
    wall = _fitting(_array(parts, "wall_time", np.float64), n)
    starts = tuple(np.cumsum([len(p.values) for p in parts])[:-1].tolist()) if len(parts) > 1 else ()
    return Track(tag, meaning, values, steps, epochs, wall, starts=starts, statistic=parts[0].statistic)


def _fitting(clock: Any, n: int) -> Any:
    return clock if clock is not None and len(clock) == n else None


def _array(parts: Sequence[RawSeries], name: str, kind: type) -> Any:
    found = [getattr(p, name) for p in parts]
    if len(found) == 1 and isinstance(found[0], np.ndarray) and found[0].dtype == kind and found[0].ndim == 1:
        return found[0]
    if any(a is None for a in found):
        return None
    arrays = [np.atleast_1d(np.asarray(a)) for a in found]
    if kind is np.int64:
        arrays = [a if a.dtype.kind in "iu" else np.nan_to_num(a, nan=0, posinf=2**62, neginf=-(2**62)) for a in arrays]
    return (arrays[0] if len(arrays) == 1 else np.concatenate(arrays)).astype(kind, copy=False)
