"""Scalars in bulk: the records of a block, grouped by length, read as columns of tables."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from fitdoctor.readers.tensorboard.crc32c import Bytes, crc_of_zeros, unmasked
from fitdoctor.readers.tensorboard.events import EventDecoder, Scalar
from fitdoctor.readers.tensorboard.framing import FRAME, HEADER, Frames, intact, rows_agree, windows
from fitdoctor.readers.tensorboard.layouts import MULTIPLIERS, Layout
from fitdoctor.readers.tensorboard.points import Chunk, Points, by_tag
from fitdoctor.readers.tensorboard.shapes import Shape, column, confirmed, parse, steps_of, values_of, walls_of
from fitdoctor.run import IntArray

WIDEST = 16 << 10  # longest event that is read in bulk
FEW = 16  # fewer records of one length are read one by one

_TRIES = 3  # events of one length that may turn out to be no scalars before the rest is read one by one
_SAMPLE = 256  # events that are searched for new keys together
_UNKNOWN = 0.25  # share of unknown keys beyond which learning them costs more than reading one by one


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
        if len(found.starts) < FEW:  # grouping them would cost more than reading them
            good = intact(data, found.starts, found.lengths)
            return by_tag(self._one_by_one(data, found, np.flatnonzero(good)), self._tags), np.flatnonzero(~good)
        points: list[Points] = []
        damaged: list[IntArray] = []
        singles: list[IntArray] = []
        left: list[IntArray] = []
        for records in _by_length(found.lengths):
            if len(records) < FEW or found.lengths[records[0]] > WIDEST:
                singles.append(records)
                continue
            some, bad, rest = self._in_bulk(data, found, records)
            points += some
            damaged.append(bad)
            left.append(rest)
        if singles:
            records = np.concatenate(singles)
            good = intact(data, found.starts[records], found.lengths[records])
            damaged.append(records[~good])
            left.append(records[good])
        # In the order of the file: what a tag means is said where it first comes.
        points += self._one_by_one(data, found, np.sort(np.concatenate(left)))
        bad = np.sort(np.concatenate(damaged)) if damaged else np.zeros(0, np.int64)
        return by_tag(points, self._tags), bad

    def _in_bulk(self, data: Bytes, found: Frames, records: IntArray) -> tuple[list[Points], IntArray, IntArray]:
        """Points of records of one length; which are damaged; which are left to be read one by one."""
        length = int(found.lengths[records[0]])
        width = -(-(length + FRAME) // 8) * 8  # whole words
        rows = windows(data, f"V{width}")[found.starts[records]].view(np.uint8).reshape(-1, width)
        stored = column(rows, HEADER + length, "<u4").astype(np.uint32)
        good = rows_agree(rows, HEADER, length, unmasked(stored) ^ np.uint32(crc_of_zeros(length)))
        bad = records[:0]
        if not good.all():
            bad = records[~good]
            rows, records = rows[good], records[good]
        points: list[Points] = []
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
                layouts.append(Layout.of(parsed[0], width))
            layout = layouts[tried]
            index, other = self._index_in(layout, rows)
            mine, here = (rows, records) if other is None else (rows[~other], records[~other])
            rows, records = (rows[:0], records[:0]) if other is None else (rows[other], records[other])
            if len(mine):
                some, unread = _columns(layout, mine, here, index)
                points += some
                left.append(unread)
                layouts.insert(0, layouts.pop(tried))  # what fitted last is tried first
            tried += 1
        left.append(records)
        return points, bad, np.concatenate(left)

    def _index_in(self, layout: Layout, rows: Bytes) -> tuple[IntArray, NDArray[np.bool_] | None]:
        """Index of the keys of the rows of this layout, learning new ones; and which rows are of another."""
        keys = layout.keys_of(rows)
        index = layout.lookup(keys)
        if index.min() >= 0:
            return index, None
        unknown = np.flatnonzero(index < 0)
        fits = layout.fitting(rows if len(unknown) == len(rows) else rows[unknown])
        mine = unknown[fits]
        most = max(FEW, _UNKNOWN * len(rows))
        while len(mine) and most > 0:
            some = mine[:_SAMPLE]
            _, first = np.unique(keys[some] @ MULTIPLIERS[: keys.shape[1]], return_index=True)
            new = some[np.sort(first)]
            most -= len(new)
            layout.learn(keys[new], [self._tags_of(layout.shape, rows[i]) for i in new.tolist()])
            index[mine] = layout.lookup(keys[mine])
            mine = mine[index[mine] < 0]
        other = np.zeros(len(rows), np.bool_)
        other[unknown[~fits]] = True
        return index[~other], other if other.any() else None

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

    def _one_by_one(self, data: Bytes, found: Frames, records: IntArray) -> list[Points]:
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
            Points(
                np.array(owners, np.int64),
                np.array([[self._tag(s.tag)] for s in scalars], np.int32),
                np.array([s.step for s in scalars], np.int64),
                [np.array([s.value for s in scalars], np.float64)],
                np.array([s.wall_time for s in scalars], np.float64),
            )
        ]


def _columns(layout: Layout, rows: Bytes, records: IntArray, index: IntArray) -> tuple[list[Points], IntArray]:
    """Points of rows whose keys have this index, and the records among them that are left to be read one by one."""
    left = records[:0]
    tags = layout.tags
    if not len(tags):
        return [], records
    if len(tags) != 1 or index.min() < 0 or tags.min() < 0:
        tags = tags.take(index, axis=0, mode="wrap")
        if index.min() < 0 or tags.min() < 0:
            keep = (index >= 0) & (tags[:, 0] >= 0)
            left = records[~keep]
            rows, records, tags = rows[keep], records[keep], tags[keep]
    if not len(rows):
        return [], left
    shape = layout.shape
    steps = steps_of(rows, shape.step, shape.step_size)
    values = [values_of(rows, slot) for slot in shape.slots]
    return [Points(records, tags, steps, values, walls_of(rows, shape.wall))], left


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
