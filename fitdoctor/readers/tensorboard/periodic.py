"""Stretches of a log in which the same events come again and again.

A loop that logs the same tags at every step writes records whose bytes repeat with a fixed period, but
for wall times, steps, values and checksums. Such a stretch needs no framing and no lookup: it is a
table, one row per period, and every number is a column of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fitdoctor.readers.tensorboard.crc32c import Bytes, Words, crc_of_zeros, linear_rows, subset_sums, unmasked
from fitdoctor.readers.tensorboard.events import EventDecoder
from fitdoctor.readers.tensorboard.framing import FRAME, HEADER, Frames, is_intact, windows
from fitdoctor.readers.tensorboard.points import Chunk
from fitdoctor.readers.tensorboard.shapes import Shape, confirmed, steps_of, values_of, walls_of
from fitdoctor.run import IntArray

LONGEST = 1 << 16  # bytes of a period; a longer one leaves too few rows in a block
_ROWS = 3  # periods that must be alike before a period is believed
_ZERO = 7  # the column of the highest byte of the first length, which is zero in all records
_STRIP = 256 << 10  # bytes compared at a time, so that they stay in the cache
_SHORT = 256 << 10  # bytes up to which all columns are taken at once
_PARSED = 600  # events taken apart in search of one period


@dataclass(frozen=True, slots=True, eq=False)
class Period:
    """The records of one period.

    Attributes:
        row: uint8[w], the bytes of one period as an example.
        fixed: uint8[w], the bits that are the same in every period.
        shapes: where the numbers of each record stand in the row.
        tags: the tags in each record.
        columns: where the bytes of its parts stand in the row.
    """

    row: Bytes
    fixed: Bytes
    shapes: tuple[Shape, ...]
    tags: tuple[tuple[bytes, ...], ...]
    columns: Columns

    @classmethod
    def at(cls, data: Bytes, starts: IntArray, lengths: IntArray, events: EventDecoder) -> Period | None:
        """The period made of these records; None where they are no plain scalars, or a tag comes twice."""
        first = int(starts[0])
        end = int(starts[-1] + lengths[-1]) + FRAME
        if end - first > LONGEST:
            return None
        shapes, tags = [], []
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            record = data[start : start + FRAME + length].tobytes()
            parsed = confirmed(record[HEADER:-4], events) if is_intact(record) else None
            if parsed is None:
                return None
            shapes.append(parsed[0].moved(start - first))
            tags.append(parsed[1])
        names = [tag for some in tags for tag in some]
        if len(set(names)) < len(names):
            return None
        columns = Columns.of(shapes, end - first)
        return cls(data[first:end].copy(), columns.fixed, tuple(shapes), tuple(tags), columns)

    def fits(self, data: Bytes, start: int, stop: int) -> bool:
        """Whether the fixed bits of one period stand at `start`."""
        end = start + len(self.row)
        return end <= stop and not ((data[start:end] ^ self.row) & self.fixed).any()

    def repeats(self, data: Bytes, start: int, stop: int) -> int:
        """How many periods follow each other from `start` on, as far as the fixed bits tell."""
        width = len(self.row)
        n = (stop - start) // width
        several = max(1, _STRIP // width)
        for first in range(0, n, several):
            count = min(several, n - first)
            low = start + first * width
            if first and count * width > _STRIP // 2:
                # Each row is compared with the one before it, so that the comparison runs through without a break.
                strip = data[low : low + count * width]
                if not (_any_bits(strip ^ data[low - width : low + (count - 1) * width], width) & self.fixed).any():
                    continue
            odd = ((data[low : low + count * width].reshape(count, width) ^ self.row) & self.fixed).reshape(-1) != 0
            at = int(odd.argmax())
            if odd[at]:
                return first + at // width
        return n

    def same(self, rows: Bytes) -> bool:
        """Whether the fixed bits of all rows are those of the period."""
        several = max(1, _STRIP // len(self.row))
        return not any(
            (_any_bits((rows[i : i + several] ^ self.row).reshape(-1), len(self.row)) & self.fixed).any()
            for i in range(0, len(rows), several)
        )

    def intact(self, rows: Bytes) -> bool:
        """Whether the bodies of all records fit their checksums; see `framing.rows_agree` for what is proven."""
        sums = subset_sums(rows)
        longest = self.columns.bodies.shape[1]
        linear = linear_rows(sums.take(self.columns.bodies_in(longest), axis=1).reshape(-1, longest))
        stored = rows.take(self.columns.checks, axis=1).view("<u4")
        return np.array_equal(linear, subset_sums(unmasked(stored) ^ self.columns.zeros).reshape(-1))

    def points(self, rows: Bytes) -> list[Chunk]:
        """The points in consecutive periods, uint8[n, w]."""
        out = []
        for shape, tags in zip(self.shapes, self.tags, strict=True):
            steps = steps_of(rows, shape.step, shape.step_size)
            walls = walls_of(rows, shape.wall)
            out += [
                Chunk(tag, steps, values_of(rows, slot), walls) for tag, slot in zip(tags, shape.slots, strict=True)
            ]
        return out


class Stretch(NamedTuple):
    """Consecutive periods.

    Attributes:
        period: the period.
        rows: uint8[n, w].
    """

    period: Period
    rows: Bytes


def points_of(stretches: Sequence[Stretch]) -> list[Chunk] | None:
    """The points in stretches of the same tags, one after the other; None where a checksum is wrong."""
    if sum(stretch.rows.size for stretch in stretches) < _SHORT and all(s.period.columns.plain for s in stretches):
        return _few_points_of(stretches)
    if not all(period.intact(rows) for period, rows in stretches):
        return None
    return [chunk for period, rows in stretches for chunk in period.points(rows)]


def _few_points_of(stretches: Sequence[Stretch]) -> list[Chunk] | None:
    """`points_of` with all columns of all stretches taken at once: as long as calls cost more than bytes."""
    longest = max(period.columns.bodies.shape[1] for period, _ in stretches)
    n = len(stretches[0].period.shapes)
    fields = np.concatenate([rows.take(period.columns.fields, axis=1) for period, rows in stretches])
    walls, raw = fields[:, : 8 * n].view("<f8"), fields[:, 8 * n : 16 * n].view("<i8")
    values, stored = fields[:, 16 * n : 20 * n].view("<f4"), unmasked(fields[:, 20 * n :].view("<u4"))
    sums, wanted, low = [], [], 0
    for period, rows in stretches:
        part = slice(low, low := low + len(rows))
        raw[part] &= period.columns.step_bits
        stored[part] ^= period.columns.zeros
        sums.append(subset_sums(rows).take(period.columns.bodies_in(longest), axis=1))
        wanted.append(subset_sums(stored[part]))
    if not np.array_equal(linear_rows(np.concatenate(sums).reshape(-1, longest)), np.concatenate(wanted).reshape(-1)):
        return None
    raw = raw.T
    steps = np.bitwise_and(raw, 0x7F, order="C")
    for k in range(1, max(shape.step_size for period, _ in stretches for shape in period.shapes)):
        steps |= (raw >> k) & (0x7F << 7 * k)
    points = zip(steps, values.T.astype(np.float64, order="C"), walls.T.astype(np.float64, order="C"), strict=True)
    return [Chunk(tags[0], *rest) for tags, rest in zip(stretches[0].period.tags, points, strict=True)]


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Columns of the bytes of one period.

    Attributes:
        fixed: uint8[w], see `Period`.
        bodies: of the events, int64[records, longest]; aligned at their ends, filled up in front with `_ZERO`.
        checks: of their checksums, int64[records * 4].
        zeros: uint32[records], the checksum of as many zeros as each event has bytes.
        plain: whether each record holds a wall time and one float32; only then do the rest mean anything.
        fields: of all wall times, of eight bytes from the start of each step on, of all values, and of all
            checksums, int64[records * 24].
        step_bits: int64[records], which of the eight bytes belong to the step.
    """

    fixed: Bytes
    bodies: IntArray
    checks: IntArray
    zeros: Words
    plain: bool
    fields: IntArray
    step_bits: IntArray

    @classmethod
    def of(cls, shapes: Sequence[Shape], width: int) -> Columns:
        """The columns of records of these shapes in a row of so many bytes."""
        lengths = np.array([shape.length for shape in shapes])
        ends = np.array([shape.end for shape in shapes])
        longest = int(lengths.max())
        offsets = np.arange(-longest, 0)
        bodies = np.where(offsets >= -lengths[:, None], ends[:, None] + offsets, _ZERO)
        fixed = np.full(width, 0xFF, np.uint8)
        for shape in shapes:
            fixed[shape.step : shape.step + shape.step_size] = 0x80  # the top bits say how long the varint is
            for slot in shape.slots:
                fixed[slot.at : slot.at + np.dtype(slot.kind).itemsize] = 0
        walls = _bytes_at([shape.wall for shape in shapes if shape.wall], 8)
        steps = _bytes_at([shape.step or shape.summary for shape in shapes], 8)
        values = _bytes_at([shape.slots[0].at for shape in shapes], 4)
        checks = _bytes_at(ends, 4)
        fixed[walls] = fixed[checks] = 0
        return cls(
            fixed,
            bodies,
            checks,
            np.array([crc_of_zeros(shape.length) for shape in shapes], np.uint32),
            all(shape.wall and len(shape.slots) == 1 and shape.slots[0].kind == "<f4" for shape in shapes),
            np.concatenate((walls, steps, values, checks)),
            np.array([(1 << 8 * shape.step_size) - 1 for shape in shapes], np.uint64).view(np.int64),
        )

    def bodies_in(self, longest: int) -> IntArray:
        """`bodies` filled up to a larger length, flat."""
        records, length = self.bodies.shape
        if length == longest:
            return self.bodies.reshape(-1)
        return np.concatenate((np.full((records, longest - length), _ZERO), self.bodies), axis=1).reshape(-1)


def _bytes_at(places: Sequence[int] | IntArray, size: int) -> IntArray:
    """The columns of so many bytes from each place on, end to end."""
    return (np.array(places, np.int64)[:, None] + np.arange(size)).reshape(-1)


def find_period(data: Bytes, found: Frames, events: EventDecoder) -> tuple[Period, int] | None:
    """The period in which these records repeat up to their end, and the index of the first one in it."""
    n = len(found.starts)
    if n < _ROWS:
        return None
    ends = found.starts + HEADER + found.lengths
    # The last letters of a simple_value's tag stand nine bytes before the end of the event.
    likeness = windows(data, "<u8")[ends - 13].astype(np.uint64) ^ found.lengths.astype(np.uint64)
    parsed = 0
    for size in (np.flatnonzero(likeness[-2::-1] == likeness[-1]) + 1).tolist():
        if _ROWS * size > n or parsed + size > _PARSED:
            return None
        differs = np.flatnonzero(likeness[size:] != likeness[:-size])
        first = int(differs[-1]) + 1 if len(differs) else 0
        if n - first < _ROWS * size:
            continue
        parsed += size
        period = Period.at(data, found.starts[first : first + size], found.lengths[first : first + size], events)
        if period is None:
            continue
        start = int(found.starts[first])
        if period.repeats(data, start, start + _ROWS * len(period.row)) == _ROWS:
            return period, first
    return None


def _any_bits(rows: NDArray[np.uint8], width: int) -> Bytes:
    """OR of all rows of a table given end to end, uint8[width]."""
    out = np.zeros(width, np.uint8)
    # Short rows are taken several at a time: the loop inside numpy is over one row.
    several = max(1, 512 // width) * width
    whole = len(rows) // several * several
    if whole:
        many = np.bitwise_or.reduce(rows[:whole].reshape(-1, several), axis=0)
        out |= np.bitwise_or.reduce(many.reshape(-1, width), axis=0)
    if whole < len(rows):
        out |= np.bitwise_or.reduce(rows[whole:].reshape(-1, width), axis=0)
    return out
