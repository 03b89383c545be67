"""TensorBoard event files: torch and tensorboardX SummaryWriter, TensorFlow 1 and 2, Lightning, HF Trainer.

file --framing--> records --scalars (in bulk) or events (protobuf)--> columns --> RawRun
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from fitdoctor.readers.raw import RawRun, RawSeries
from fitdoctor.readers.tensorboard.files import EventFileTail, EventPart
from fitdoctor.readers.tensorboard.vectors import PREFIX
from fitdoctor.run import Note

__all__ = ["SOURCE", "EventFileTail", "EventPart", "home", "read", "recognise"]

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


def read(home: Path, files: Sequence[Path]) -> Iterator[RawRun]:
    """The run that these event files hold, oldest file first.

    Raises:
        ReadError: if a file cannot be opened or read.
    """
    series: list[RawSeries] = []
    params: dict[str, object] = {}
    notes: list[Note] = []
    finished: bool | None = None
    for path in sorted(files, key=_written) if len(files) > 1 else files:
        part = EventFileTail(path).new()
        series += _told_apart(part.series) if home.name == MONITOR else part.series
        params.update(part.params)
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
