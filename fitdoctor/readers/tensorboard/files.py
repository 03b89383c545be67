"""One event file, read in blocks from where the last reading ended."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import TypeVar

import numpy as np

from fitdoctor.readers.decoding import unreadable
from fitdoctor.readers.raw import RawSeries
from fitdoctor.readers.tensorboard.blocks import BlockDecoder
from fitdoctor.readers.tensorboard.crc32c import Bytes
from fitdoctor.readers.tensorboard.events import EventDecoder
from fitdoctor.readers.tensorboard.framing import (
    BACK,
    FRONT,
    HEADER,
    pending,
    resync,
)
from fitdoctor.readers.tensorboard.points import Chunk
from fitdoctor.run import FloatArray, IntArray, Note

_Array = TypeVar("_Array", IntArray, FloatArray)

BLOCK = 4 << 20  # read at a time: large enough for long vectors, small enough for the cache
LARGEST = 64 << 20  # a record beyond this (a graph, a video) is passed over unread
_MOST_NOTES = 8  # of one kind for one file; the rest is counted in one more


@dataclass(frozen=True, slots=True, eq=False)
class EventPart:
    """What stood in one piece of an event file.

    Attributes:
        series: its scalars and reduced histograms, in file order.
        params: settings found in it.
        notes: damage found in it.
        finished: False when the log said that the run failed.
        waiting: bytes at the end that are no complete record yet.
        lost: whether those bytes are a damaged stretch after which no record was found, rather than
            a record that is still being written.
    """

    series: tuple[RawSeries, ...]
    params: dict[str, object]
    notes: tuple[Note, ...]
    finished: bool | None
    waiting: int
    lost: bool


@dataclass(slots=True)
class _Column:
    """Points of one tag, in pieces."""

    steps: list[IntArray] = field(default_factory=list)
    values: list[FloatArray] = field(default_factory=list)
    wall_times: list[FloatArray] = field(default_factory=list)


@dataclass(slots=True)
class _Damage:
    """A stretch of a file that had to be skipped."""

    offset: int
    size: int
    records: int


@dataclass(slots=True)
class _Piece:
    """What one reading has found so far."""

    columns: dict[bytes, _Column] = field(default_factory=dict)
    damage: list[_Damage] = field(default_factory=list)
    passed_over: list[tuple[int, int]] = field(default_factory=list)

    def lost(self, offset: int, size: int) -> None:
        """Note a record that had to be skipped."""
        last = self.damage[-1] if self.damage else None
        if last and last.offset + last.size == offset:
            last.size += size
            last.records += 1
        else:
            self.damage.append(_Damage(offset, size, 1))

    def add(self, chunk: Chunk) -> None:
        """Take points of a tag."""
        column = self.columns.setdefault(chunk.tag, _Column())
        column.steps.append(chunk.steps)
        column.values.append(chunk.values)
        column.wall_times.append(chunk.wall_times)

    def series(self) -> list[RawSeries]:
        """The scalars, in order of first appearance; the pieces are given up."""
        columns = list(self.columns.values())
        # Column by column, so that no more than one is in memory twice.
        steps = [_joined(column.steps) for column in columns]
        values = [_joined(column.values) for column in columns]
        walls = [_joined(column.wall_times) for column in columns]
        return [
            RawSeries(tag.decode("utf-8", errors="replace"), value, step, wall_time=wall)
            for tag, step, value, wall in zip(self.columns, steps, values, walls, strict=True)
        ]

    def notes(self, path: Path) -> list[Note]:
        """What to tell the user about the state of the file."""
        notes = [
            Note(
                "corrupt",
                f"{path.name}: {_count(d.records, 'damaged record')} skipped at byte {d.offset} ({d.size} bytes lost)",
                amount=d.size,
            )
            for d in self.damage[:_MOST_NOTES]
        ]
        if rest := self.damage[_MOST_NOTES:]:
            size, records = sum(d.size for d in rest), sum(d.records for d in rest)
            notes.append(
                Note(
                    "corrupt",
                    f"{path.name}: {_count(records, 'damaged record')} skipped at {_count(len(rest), 'more place')} "
                    f"from byte {rest[0].offset} on ({size} bytes lost)",
                    amount=size,
                )
            )
        notes.extend(
            Note("other", f"{path.name}: a record of {size} bytes at byte {offset} was passed over unread", amount=size)
            for offset, size in self.passed_over[:_MOST_NOTES]
        )
        return notes


def left_notes(path: Path, events: EventDecoder) -> list[Note]:
    """What to tell the user about records that were read and not used."""
    notes = []
    if events.unreadable:
        text = f"{path.name}: {_count(events.unreadable, 'record')} with a good checksum hold no event"
        notes.append(Note("other", text, amount=events.unreadable))
    if events.left_out:
        tag, shape = next(iter(events.left_out.items()))
        example = f"such as {tag.decode('utf-8', errors='replace')} of shape {'unknown' if shape is None else shape}"
        count = _count(len(events.left_out), "tag")
        text = f"{path.name}: tensors that are neither scalars nor histograms left out, {count}, {example}"
        notes.append(Note("other", text, amount=len(events.left_out)))
    return notes


def _joined(pieces: list[_Array]) -> _Array:
    """The pieces end to end; they are taken out of their list, so that nothing else keeps them."""
    whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    pieces.clear()
    return whole


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


class EventFileTail:
    """An event file that may still be growing.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "events.out.tfevents.1.host")
        ...     _ = path.write_bytes(b"")
        ...     tail = EventFileTail(path)
        ...     tail.new().series
        ()
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._restart()

    def _restart(self) -> None:
        self.offset = 0
        self._events = EventDecoder()
        self._blocks = BlockDecoder(self._events)
        self._lost_since: int | None = None  # where a damaged stretch began, while no record was found after it

    def new(self) -> EventPart:
        """What was written since the last call.

        Raises:
            ReadError: if the file cannot be opened or read.
        """
        piece = _Piece()
        try:
            with self.path.open("rb", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                if size < self.offset:  # replaced by a shorter file: start over
                    self._restart()
                self._read(file, size, piece)
        except OSError as error:
            raise unreadable(self.path, error) from error
        events = self._events
        part = EventPart(
            series=(*piece.series(), *events.series()),
            params=events.params,
            notes=(*piece.notes(self.path), *left_notes(self.path, events)),
            finished=events.finished,
            waiting=max(size - (self.offset if self._lost_since is None else self._lost_since), 0),
            lost=self._lost_since is not None,
        )
        events.params, events.unreadable, events.left_out = {}, 0, {}
        return part

    def _read(self, file: FileIO, size: int, piece: _Piece) -> None:
        """Read to the end in blocks, reusing one buffer and carrying on what is unfinished."""
        file.seek(self.offset)
        room = np.empty(FRONT + min(BLOCK, size - self.offset) + BACK, np.uint8)
        start = stop = FRONT
        while True:
            got = file.readinto(room.data[stop:-BACK]) or 0
            stop += got
            last = not got or self.offset + stop - start >= size
            done = self._take(room, start, stop, last, piece)
            self.offset += done - start
            if last:
                return
            rest = room[done:stop]
            if len(rest) == len(room) - FRONT - BACK:  # one record is larger than the buffer
                need = pending(room, done, stop) or 0
                if self.offset + need > size:  # its end is not in the file
                    return
                if need > LARGEST:
                    piece.passed_over.append((self.offset, need))
                    self.offset += need
                    file.seek(self.offset)
                    rest = rest[:0]
                else:
                    room = np.empty(FRONT + need + BACK, np.uint8)
            room[FRONT : FRONT + len(rest)] = rest
            start, stop = FRONT, FRONT + len(rest)

    def _take(self, data: Bytes, start: int, stop: int, last: bool, piece: _Piece) -> int:
        """Decode the complete records of ``data[start:stop]``; where the rest begins."""
        base = self.offset - start
        at = start
        while True:
            if self._lost_since is not None:
                after = resync(data, at, stop)
                if after is None:
                    return max(at, stop - HEADER + 1)  # a header may begin in the last bytes
                piece.lost(self._lost_since, base + after - self._lost_since)
                self._lost_since, at = None, after
            decoded = self._blocks.decode(data, at, stop, last)
            for offset, size in decoded.damaged:
                piece.lost(base + offset, size)
            for chunk in decoded.chunks:
                piece.add(chunk)
            if not decoded.broken:
                return decoded.end
            self._lost_since = base + decoded.end
            at = decoded.end + 1
