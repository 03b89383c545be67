"""TensorBoard event files: torch and tensorboardX SummaryWriter, TensorFlow 1 and 2, Lightning, HF Trainer.

file --framing--> records --scalars (in bulk) or events (protobuf)--> columns --> RawRun
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fitdoctor.readers.raw import RawRun, RawSeries
from fitdoctor.readers.tensorboard.ahead import ReadAhead
from fitdoctor.readers.tensorboard.files import EventFileTail, EventPart
from fitdoctor.readers.tensorboard.vectors import PREFIX
from fitdoctor.run import Note

__all__ = [
    "SOURCE",
    "EventFileTail",
    "EventFiles",
    "EventPart",
    "Memory",
    "ReadAhead",
    "home",
    "in_order",
    "read",
    "recognise",
]

SOURCE = "tensorboard"

MONITOR = "fitdoctor"
"""Folder that `fitdoctor.attach` writes to, below the log folder that it is given."""

_STARTED = re.compile(r"tfevents\.(\d+)")
_DIGITS = re.compile(r"(\d+)")
_VERSION = b"brain.Event:"  # what every writer puts into the first record


def recognise(path: Path, head: bytes) -> bool:
    """Whether this file is an event file: by its name, or by the first record under another name."""
    return "tfevents" in path.name or _VERSION in head[:64]


def home(path: Path) -> Path:
    """The folder that groups event files into one run."""
    return path.parent


class EventFiles(Protocol):
    """What event files are read with: `Memory` where they grow, `ReadAhead` where they are many."""

    def read(self, path: Path) -> EventPart:
        """Everything that a file holds by now."""


class Memory:
    """What was read of growing files, so that the next look reads only what is new."""

    def __init__(self) -> None:
        self._tails: dict[Path, tuple[EventFileTail, EventPart | None]] = {}

    def read(self, path: Path) -> EventPart:
        """Everything that a file holds by now.

        Raises:
            ReadError: if the file cannot be opened or read.
        """
        tail, before = self._tails.get(path) or (EventFileTail(path), None)
        known = tail.offset
        part = tail.new()
        if before is not None and tail.offset >= known:  # else: replaced by a shorter file, and read from its start
            part = _joined(before, part)
        self._tails[path] = (tail, part)
        return part


def _joined(before: EventPart, after: EventPart) -> EventPart:
    """Two successive parts of one file as one."""
    columns = {(s.tag, s.statistic): s for s in before.series}
    for new in after.series:
        old = columns.get((new.tag, new.statistic))
        columns[new.tag, new.statistic] = new if old is None else _continued(old, new)
    return replace(
        after,
        series=tuple(columns.values()),
        params={**before.params, **after.params},
        notes=(*before.notes, *after.notes),
        finished=after.finished if after.finished is not None else before.finished,
    )


def _continued(old: RawSeries, new: RawSeries) -> RawSeries:
    def both(a: NDArray[Any] | None, b: NDArray[Any] | None) -> Any:
        return None if a is None or b is None else np.concatenate([a, b])

    return replace(
        old,
        values=both(old.values, new.values),
        steps=both(old.steps, new.steps),
        epochs=both(old.epochs, new.epochs),
        wall_time=both(old.wall_time, new.wall_time),
    )


def in_order(files: Sequence[Path]) -> Sequence[Path]:
    """Event files of one run, oldest first."""
    return sorted(files, key=_written) if len(files) > 1 else files


def read(home: Path, files: Sequence[Path], through: EventFiles | None = None) -> Iterator[RawRun]:
    """The run that these event files hold, oldest file first.

    Args:
        home: the folder of the run.
        files: its event files.
        through: what reads the files, where they are looked at again and again, or are many.

    Raises:
        ReadError: if a file cannot be opened or read.
    """
    series: list[RawSeries] = []
    params: dict[str, object] = {}
    notes: list[Note] = []
    finished: bool | None = None
    for path in in_order(files):
        part = through.read(path) if through is not None else EventFileTail(path).new()
        series += _told_apart(part.series) if home.name == MONITOR else part.series
        params.update(part.params)
        if home.name == MONITOR:  # written when the monitor is closed; a resumed run writes a file that says so anew
            finished = True if params.pop("finished", None) is True else None
        notes += [*part.notes, *_unfinished(path, part)]
        finished = part.finished if part.finished is not None else finished
    yield RawRun(home.name, str(home), SOURCE, tuple(series), {}, params, tuple(notes), finished)


def _told_apart(series: Sequence[RawSeries]) -> list[RawSeries]:
    """The series of `fitdoctor.attach`, under tags that say so."""
    return [s if s.tag.startswith(PREFIX) else replace(s, tag=PREFIX + s.tag) for s in series]


def _written(path: Path) -> tuple[int, list[tuple[int, str]]]:
    """Sort key: when the writer started, from the name; then the name with its numbers as numbers."""
    started = _STARTED.search(path.name)
    parts = _DIGITS.split(path.name)
    return (
        int(started[1]) if started else 0,
        [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)],
    )


def _unfinished(path: Path, part: EventPart) -> list[Note]:
    """What stands at the end of a file and is no complete record."""
    if not part.waiting:
        return []
    size = path.stat().st_size
    place = f"{path.name}: the last {part.waiting} bytes, from byte {size - part.waiting} on,"
    if part.lost:
        return [
            Note("corrupt", f"{place} are damaged and hold no further record that could be found", amount=part.waiting)
        ]
    return [Note("truncated", f"{place} are an unfinished record (cut, or still being written)", amount=part.waiting)]
