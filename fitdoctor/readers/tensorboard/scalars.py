"""Scalars in bulk: the records of a block, grouped by length, read as columns of tables."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fitdoctor.readers.tensorboard.crc32c import Bytes, crc_of_zeros, unmasked
from fitdoctor.readers.tensorboard.events import EventDecoder, Scalar
from fitdoctor.readers.tensorboard.framing import FRAME, HEADER, Frames, intact, rows_agree, windows
from fitdoctor.readers.tensorboard.layouts import (
    Chunk,
    Layout,
    Shape,
    column,
    confirmed,
    parse,
    steps_of,
    values_of,
    walls_of,
)
from fitdoctor.run import FloatArray, IntArray

WIDEST = 16 << 10  # longest event that is read in bulk
FEW = 16  # fewer records of one length are read one by one

_TRIES = 3  # events of one length that may turn out to be no scalars before the rest is read one by one
_UNKNOWN = 0.25  # share of unknown keys beyond which learning them costs more than reading one by one


class _Points(NamedTuple):
    """Points of some records of a block.

    Attributes:
        records: int64[n] which records.
        tags: int32[n, s].
        steps: int64[n].
        values: float64[n, s].
        wall_times: float64[n].
    """

    records: IntArray
    tags: NDArray[np.int32]
    steps: IntArray
    values: FloatArray
    wall_times: FloatArray


class ScalarDecoder:
    """Decodes the records of an event file, in bulk where their shape allows it."""

    def __init__(self, events: EventDecoder) -> None:
        self._events = events
        self._tags: list[bytes] = []
        self._index: dict[bytes, int] = {}
        self._layouts: dict[int, list[Layout]] = {}

    def decode(self, data: Bytes, found: Frames) -> tuple[list[Chunk], IntArray]:
        """The points in the records of a block, and which records are damaged.

        Args:
            data: bytes of the block; records may be read up to `framing.BACK` bytes beyond their end.
            found: the records.
        """
        if len(found.starts) <= FEW:
            good = intact(data, found.starts, found.lengths)
            points = self._one_by_one(data, found, np.flatnonzero(good))
            return list(_by_tag(points, len(good), self._tags)), np.flatnonzero(~good)
        points = []
        damaged: list[IntArray] = []
        singles: list[IntArray] = []
        for records in _by_length(found.lengths):
            if len(records) < FEW or found.lengths[records[0]] > WIDEST:
                singles.append(records)
                continue
            some, bad, rest = self._in_bulk(data, found, records)
            points += some
            damaged.append(bad)
            if len(rest):
                points += self._one_by_one(data, found, rest)
        if singles:
            records = np.sort(np.concatenate(singles))
            good = intact(data, found.starts[records], found.lengths[records])
            damaged.append(records[~good])
            points += self._one_by_one(data, found, records[good])
        bad = np.sort(np.concatenate(damaged)) if damaged else np.zeros(0, np.int64)
        return list(_by_tag(points, len(found.starts), self._tags)), bad

    def _in_bulk(self, data: Bytes, found: Frames, records: IntArray) -> tuple[list[_Points], IntArray, IntArray]:
        """Points of records of one length; which are damaged; which are left to be read one by one."""
        length = int(found.lengths[records[0]])
        width = -(-(length + FRAME + 4) // 8) * 8  # whole words: keys may end up to seven bytes behind the event
        rows = windows(data, f"V{width}")[found.starts[records]].view(np.uint8).reshape(-1, width)
        stored = column(rows, HEADER + length, "<u4").astype(np.uint32)
        good = rows_agree(rows, HEADER, length, unmasked(stored) ^ np.uint32(crc_of_zeros(length)))
        bad = records[~good]
        if len(bad):
            rows, records = rows[good], records[good]
        points: list[_Points] = []
        left: list[IntArray] = []
        layouts = self._layouts.setdefault(length, [])
        tried, strange = 0, 0
        while len(rows) and strange < _TRIES:
            if tried == len(layouts):
                parsed = parse(rows[0, HEADER : HEADER + length].tobytes())
                if parsed is None:
                    strange += 1
                    left.append(records[:1])
                    rows, records = rows[1:], records[1:]
                    continue
                layouts.append(Layout.of(parsed[0], rows[0, HEADER : HEADER + length].tobytes()))
            layout = layouts[tried]
            tried += 1
            fits = layout.fitting(rows)
            if fits.all():
                here, mine = rows, records
                rows, records = rows[:0], records[:0]
            elif fits.any():
                here, mine = rows[fits], records[fits]
                rows, records = rows[~fits], records[~fits]
            else:
                continue
            some, unread = self._columns(layout, here, mine)
            points += some
            left.append(unread)
        left.append(records)
        return points, bad, np.concatenate(left)

    def _columns(self, layout: Layout, rows: Bytes, records: IntArray) -> tuple[list[_Points], IntArray]:
        """Points of rows of one layout, and the records among them that are left to be read one by one."""
        shape = layout.shape
        keys = layout.keys_of(rows)
        index, hashes = layout.lookup(keys)
        if index.min() < 0:
            unknown = np.flatnonzero(index < 0)
            _, first = np.unique(hashes[unknown], return_index=True)
            if len(first) <= max(FEW, _UNKNOWN * len(rows)):
                new = unknown[np.sort(first)]
                layout.learn(keys[new], [self._tags_of(shape, rows[i]) for i in new.tolist()])
                index, _ = layout.lookup(keys)
        tags = layout.tags.take(index, axis=0, mode="wrap") if len(layout.tags) else layout.tags
        left = np.zeros(0, np.int64)
        if not len(tags) or index.min() < 0 or tags.min() < 0:
            keep = (index >= 0) & (tags[:, 0] >= 0) if len(tags) else np.zeros(len(rows), np.bool_)
            left = records[~keep]
            if not keep.any():
                return [], left
            rows, records, tags = rows[keep], records[keep], tags[keep]
        columns = [values_of(rows, slot) for slot in shape.slots]
        values = columns[0][:, None] if len(columns) == 1 else np.stack(columns, axis=1)
        steps = steps_of(rows, shape.step, shape.step_size)
        return [_Points(records, tags, steps, values, walls_of(rows, shape.wall))], left

    def _tags_of(self, shape: Shape, row: Bytes) -> tuple[int, ...]:
        """The tags of an event, if it has the shape it seems to have and protobuf agrees; else -1 for each."""
        known = confirmed(row[HEADER : HEADER + shape.length].tobytes(), self._events)
        if known is None or known[0] != shape:
            return (-1,) * len(shape.slots)
        return tuple(self._tag(tag) for tag in known[1])

    def _tag(self, tag: bytes) -> int:
        index = self._index.setdefault(tag, len(self._tags))
        if index == len(self._tags):
            self._tags.append(tag)
        return index

    def _one_by_one(self, data: Bytes, found: Frames, records: IntArray) -> list[_Points]:
        """Points of records of any shape."""
        owners: list[int] = []
        scalars: list[Scalar] = []
        for record in records.tolist():
            start = int(found.starts[record]) + HEADER
            event = data[start : start + int(found.lengths[record])].tobytes()
            some = self._events.decode(event)
            scalars += some
            owners += [record] * len(some)
        if not scalars:
            return []
        return [
            _Points(
                np.array(owners, np.int64),
                np.array([[self._tag(s.tag)] for s in scalars], np.int32),
                np.array([s.step for s in scalars], np.int64),
                np.array([[s.value] for s in scalars], np.float64),
                np.array([s.wall_time for s in scalars], np.float64),
            )
        ]


def _by_length(lengths: IntArray) -> Iterator[IntArray]:
    """The records of each length, int64[n] each."""
    if not len(lengths):
        return
    if (lengths == lengths[0]).all():
        yield np.arange(len(lengths))
        return
    keys = np.minimum(lengths, WIDEST + 1).astype(np.uint16)  # 16 bits: numpy sorts them by counting
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    cuts = [0, *(np.flatnonzero(ranked[1:] != ranked[:-1]) + 1).tolist(), len(order)]
    for low, high in itertools.pairwise(cuts):
        yield order[low:high]


def _by_tag(points: list[_Points], n: int, names: list[bytes]) -> Iterator[Chunk]:
    """The points of each tag in file order, from groups of records of a block of n."""
    if not points:
        return
    if len(points) == 1 and points[0].tags.shape[1] == 1:
        _, tags, steps, values, walls = points[0]
        tags, values = tags[:, 0], values[:, 0]
    else:
        tags, steps, values, walls = _in_file_order(points, n)
    low = int(tags.min())
    if low == int(tags.max()):
        yield Chunk(names[low], steps, values, walls)
        return
    order = np.argsort(tags.astype(np.uint16) if int(tags.max()) < 1 << 16 else tags, kind="stable")
    steps, values, walls = steps[order], values[order], walls[order]
    counts = np.bincount(tags)
    ends = np.cumsum(counts)
    present = np.flatnonzero(counts)
    starts = ends[present] - counts[present]
    for i in np.argsort(order[starts]).tolist():  # tags in the order in which they appear
        tag, low = int(present[i]), int(starts[i])
        part = slice(low, low + int(counts[tag]))
        yield Chunk(names[tag], steps[part], values[part], walls[part])


def _in_file_order(points: list[_Points], n: int) -> tuple[NDArray[np.int32], IntArray, FloatArray, FloatArray]:
    """Tags, steps, values and wall times of all points, by record."""
    per_record = np.zeros(n, np.int64)
    for p in points:
        if p.tags.shape[1] == 1:
            per_record += np.bincount(p.records, minlength=n)
        else:
            per_record[p.records] += p.tags.shape[1]
    ends = np.cumsum(per_record)
    total = int(ends[-1])
    tags, steps = np.empty(total, np.int32), np.empty(total, np.int64)
    values, walls = np.empty(total), np.empty(total)
    for p in points:
        at = ends[p.records] - per_record[p.records]
        if p.tags.shape[1] == 1:
            # Records that were read one by one may come several times, once for each of their values.
            again = np.flatnonzero(p.records[1:] == p.records[:-1]) + 1
            for i in again.tolist():
                at[i] = at[i - 1] + 1
            tags[at], steps[at], values[at], walls[at] = p.tags[:, 0], p.steps, p.values[:, 0], p.wall_times
        else:
            for slot in range(p.tags.shape[1]):
                here = at + slot
                tags[here], steps[here] = p.tags[:, slot], p.steps
                values[here], walls[here] = p.values[:, slot], p.wall_times
    return tags, steps, values, walls
