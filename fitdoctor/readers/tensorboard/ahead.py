"""Small event files, read many at a time: for them, calls cost more than bytes.

Runs of one script write the same tags in the same order, so once one file has been read, the periods of the others
(`periodic`) are known. Files that consist of nothing else become rows of the same tables: one comparison, one
check of all checksums and one conversion for twenty files. Any other file is read by itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fitdoctor.readers.raw import RawSeries
from fitdoctor.readers.tensorboard.blocks import recalled
from fitdoctor.readers.tensorboard.crc32c import Bytes
from fitdoctor.readers.tensorboard.events import EventDecoder
from fitdoctor.readers.tensorboard.files import EventFileTail, EventPart, left_notes
from fitdoctor.readers.tensorboard.framing import BACK, FRAME, FRONT, HEADER, is_intact, length_of, windows
from fitdoctor.readers.tensorboard.periodic import Period
from fitdoctor.readers.tensorboard.shapes import steps_of, values_of, walls_of
from fitdoctor.run import IntArray

SMALL = 256 << 10  # bytes of a file up to which it is worth reading together with others
_ROOM = 8 << 18  # bytes of files decoded together; the arrays of their runs share memory of about half of that
_TOGETHER = 200  # files decoded together
_PRELUDE = 1 << 10  # bytes before the first period, for the version and a few settings
_KNOWN = 64  # templates kept
_PATIENCE = 64  # most files that are read by themselves before others are read ahead again


@dataclass(frozen=True, slots=True, eq=False)
class _Template:
    """What files consist of behind their preludes.

    Attributes:
        periods: what repeats, one after the other, with the same tags.
        counts: how often each comes in a file that is long enough; the last goes on to the end.
    """

    periods: tuple[Period, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, data: Bytes, start: int, stop: int, events: EventDecoder) -> _Template | None:
        """The template of ``data[start:stop]``, where all its periods are known from other files."""
        periods: list[Period] = []
        counts: list[int] = []
        at = start
        while at < stop:
            period = recalled(data, at, stop, events)
            if period is None or (periods and period.tags != periods[0].tags) or not period.columns.plain:
                return None
            periods.append(period)
            counts.append(period.repeats(data, at, stop))
            at += counts[-1] * len(period.row)
        return cls(tuple(periods), tuple(counts)) if periods else None

    def counts_in(self, data: Bytes, start: int, stop: int) -> list[int] | None:
        """How often each period comes in ``data[start:stop]`` if it follows the template; None if it cannot."""
        left = stop - start
        counts = []
        for period, count in zip(self.periods, self.counts, strict=True):
            width = len(period.row)
            counts.append(left // width if period is self.periods[-1] else min(left // width, count))
            left -= counts[-1] * width
            if not left:
                # Where a file is longer than those known before, its last steps have more digits.
                return counts if period.fits(data, stop - width, stop) else None
        return None


@dataclass(slots=True, eq=False)
class _File:
    """A file in memory.

    Attributes:
        place: which of the paths.
        start: where the periods begin.
        stop: where the file ends.
        counts: how often each period of its template comes, as far as the file reaches.
        events: what read its prelude.
    """

    place: int
    start: int
    stop: int
    counts: list[int] = field(default_factory=list)
    events: EventDecoder = field(default_factory=EventDecoder)


class ReadAhead:
    """Reads the event files of many runs, some of them together.

    Args:
        paths: the files in the order in which they will be asked for. Another order is only slower.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        by_name = {str(path): path for path in paths}
        self._paths = list(by_name.values())
        self._place = {name: i for i, name in enumerate(by_name)}
        self._parts: dict[int, EventPart] = {}
        self._room = np.empty(0, np.uint8)
        self._templates: dict[bytes, _Template] = {}
        self._tried = 0  # how many of the paths have been looked at
        self._pause = 0  # files to be read by themselves after the next that fits nothing known

    def read(self, path: Path) -> EventPart:
        """Everything that a file holds.

        Raises:
            ReadError: if the file cannot be opened or read.
        """
        place = self._place.get(str(path), -1)
        part = self._parts.pop(place, None)
        if part is None and place >= self._tried:
            self._fill(place)
            part = self._parts.pop(place, None)
        return EventFileTail(path).new() if part is None else part

    def _fill(self, first: int) -> None:
        """Read files from the first of these on; those that must be read by themselves are left out."""
        self._parts = {}
        if not len(self._room):
            self._room = np.empty(FRONT + _ROOM + BACK, np.uint8)
        groups: dict[_Template, list[_File]] = {}
        stop, self._tried = FRONT, first
        for place, path in enumerate(self._paths[first : first + _TOGETHER], first):
            if stop + SMALL > len(self._room) - BACK:
                break
            start, stop = stop, stop + _size_read(path, self._room[stop : stop + SMALL])
            found = self._begun(place, start, stop)
            self._tried += 1
            if found is not None:
                groups.setdefault(found[0], []).append(found[1])
            elif not groups:  # nothing is known about such files yet; what is read next may teach it
                self._pause = min(2 * self._pause + 1, _PATIENCE)
                self._tried += self._pause - 1
                return
        self._pause = 0
        for template, files in groups.items():
            self._decode(template, files)

    def _begun(self, place: int, start: int, stop: int) -> tuple[_Template, _File] | None:
        """The file behind its prelude and the template it may fit; None if it must be read by itself."""
        data = self._room
        file = _File(place, start, stop)
        while file.start + HEADER <= min(stop, start + _PRELUDE):
            head = data[file.start : file.start + HEADER].tobytes()
            template = self._template(head, file)
            if template is not None:
                return template, file
            length = length_of(head)
            if length is None or file.start + FRAME + length > stop:
                return None
            record = data[file.start : file.start + FRAME + length].tobytes()
            if not is_intact(record) or file.events.decode(record[HEADER:-4]):
                return None
            file.start += FRAME + length
        return None

    def _template(self, head: bytes, file: _File) -> _Template | None:
        """The template that a file may follow from a record with this header on, or None."""
        data, at, stop = self._room, file.start, file.stop
        known = self._templates.get(head)
        if known is not None and not file.events.plugins:
            counts = known.counts_in(data, at, stop)
            if counts is not None:
                file.counts = counts
                return known
        found = _Template.of(data, at, stop, file.events)
        if found is not None:
            file.counts = list(found.counts)
            while len(self._templates) >= _KNOWN:
                del self._templates[next(iter(self._templates))]
            self._templates[head] = found
        return found

    def _decode(self, template: _Template, files: list[_File]) -> None:
        """Decode files of one template, and leave out those that do not fit it after all."""
        all_counts = np.zeros((len(template.periods), len(files)), np.int64)
        for i, file in enumerate(files):
            all_counts[: len(file.counts), i] = file.counts
        ends = np.cumsum(all_counts.sum(axis=0))
        slots, n = len(template.periods[0].shapes), int(ends[-1])
        steps, values, walls = np.empty((slots, n), np.int64), np.empty((slots, n)), np.empty((slots, n))
        at = np.array([file.start for file in files])
        done, order = 0, np.empty(n, np.int64)
        first = np.concatenate(([0], ends[:-1]))
        for period, counts in zip(template.periods, all_counts, strict=True):
            width, count = len(period.row), int(counts.sum())
            rows = windows(self._room, f"V{width}")[_ranges(at, counts, width)].view(np.uint8).reshape(-1, width)
            if not period.same(rows):
                odd = ((rows ^ period.row) & period.fixed).any(axis=1)
                wrong = set(np.repeat(np.arange(len(files)), counts)[odd].tolist())
                if right := [file for i, file in enumerate(files) if i not in wrong]:
                    self._decode(template, right)
                return
            if count and not period.intact(rows):
                return  # some record is damaged; each file by itself will tell which
            here = slice(done, done + count)
            for slot, shape in enumerate(period.shapes):
                steps[slot, here] = steps_of(rows, shape.step, shape.step_size)
                values[slot, here] = values_of(rows, shape.slots[0])
                walls[slot, here] = walls_of(rows, shape.wall)
            order[_ranges(first, counts, 1)] = np.arange(done, done + count)
            at = at + counts * width
            first = first + counts
            done += count
        if len(template.periods) > 1:  # so far in the order of the periods; now file by file
            steps, values, walls = steps.take(order, axis=1), values.take(order, axis=1), walls.take(order, axis=1)
        tags = [tags[0].decode("utf-8", errors="replace") for tags in template.periods[0].tags]
        for file, low, high in zip(files, [0, *ends[:-1].tolist()], ends.tolist(), strict=True):
            part = slice(low, high)
            series = [
                RawSeries(tag, value[part], step[part], wall_time=wall[part])
                for tag, value, step, wall in zip(tags, values, steps, walls, strict=True)
            ]
            events = file.events
            self._parts[file.place] = EventPart(
                (*series, *events.series()),
                events.params,
                tuple(left_notes(self._paths[file.place], events)),
                events.finished,
                waiting=0,
                lost=False,
            )


def _size_read(path: Path, room: Bytes) -> int:
    """Read a whole file into the room; its size, or 0 where it does not fit in, or cannot be read."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))  # a file object costs as much as the reading
        try:
            size = os.fstat(handle).st_size
            return size if size <= len(room) and _read_into(handle, room[:size]) == size else 0
        finally:
            os.close(handle)
    except OSError:
        return 0  # to be told when it is read by itself


def _read_into(handle: int, room: Bytes) -> int:
    if hasattr(os, "readv"):
        return os.readv(handle, [room.data])
    data = os.read(handle, len(room))
    room[: len(data)] = np.frombuffer(data, np.uint8)
    return len(data)


def _ranges(starts: IntArray, counts: IntArray, stride: int) -> IntArray:
    """``starts[i] + stride * k`` for all k below ``counts[i]``, end to end."""
    ends = np.cumsum(counts)
    out: IntArray = np.repeat(starts - stride * (ends - counts), counts) + stride * np.arange(ends[-1])
    return out
