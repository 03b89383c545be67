"""Where the numbers stand in an event that holds nothing but scalars.

A writer that logs the same tags step after step writes the same bytes again and again; only the wall
time, the step and the values change. So one event of each kind is taken apart here, and all events of
that kind are then read as the columns of a table.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fitdoctor.readers.tensorboard.crc32c import Bytes
from fitdoctor.readers.tensorboard.events import EventDecoder, Scalar
from fitdoctor.readers.tensorboard.framing import BACK, HEADER
from fitdoctor.run import FloatArray, IntArray

LONGEST_STEP = 8  # bytes of a varint that fit one load; a longer one (2**56, or negative) is no step count

# DT_* -> numpy type of a scalar's tensor_content
_CONTENT = {1: "<f4", 2: "<f8", 3: "<i4", 4: "|u1", 5: "<i2", 6: "|i1", 9: "<i8", 17: "<u2", 19: "<f2", 22: "<u4"}
_SIMPLE = 0x15  # first byte of the field simple_value
# first byte of a field of TensorProto -> (DT_*, numpy type, bytes of the length prefix): float_val and
# double_val, packed or not
_LISTED = {0x2A: (1, "<f4", 1), 0x2D: (1, "<f4", 0), 0x32: (2, "<f8", 1), 0x31: (2, "<f8", 0)}


class Slot(NamedTuple):
    """One number in an event.

    Attributes:
        at: offset of its first byte.
        kind: its numpy type.
        lead: the byte before it.
    """

    at: int
    kind: str
    lead: int


class Shape(NamedTuple):
    """The places of all numbers in an event; offsets count from the start of its record.

    Attributes:
        length: bytes of the event.
        wall: offset of the wall time, or 0 where it is missing (zero).
        step: offset of the step's varint, or 0 where it is missing (zero).
        step_size: bytes of that varint.
        summary: offset of the summary.
        slots: the values.
        start: offset of the record itself.
    """

    length: int
    wall: int
    step: int
    step_size: int
    summary: int
    slots: tuple[Slot, ...]
    start: int = 0

    @property
    def end(self) -> int:
        """Where the event ends and its checksum begins."""
        return self.start + HEADER + self.length

    def moved(self, by: int) -> Shape:
        """The places in a row in which the record starts `by` bytes later."""
        return Shape(
            self.length,
            self.wall and self.wall + by,
            self.step and self.step + by,
            self.step_size,
            self.summary + by,
            tuple(Slot(slot.at + by, slot.kind, slot.lead) for slot in self.slots),
            self.start + by,
        )


def confirmed(event: bytes, events: EventDecoder) -> tuple[Shape, tuple[bytes, ...]] | None:
    """What `parse` says, unless protobuf reads the event in another way.

    What a tensor means depends on its plugin, its shape and what was said about its tag before; that is
    decided in one place only, by `EventDecoder`. A ``simple_value`` is always a scalar.
    """
    parsed = parse(event)
    if parsed is None:
        return None
    shape, tags = parsed
    if all(slot.lead == _SIMPLE for slot in shape.slots):
        return parsed
    row = np.frombuffer(bytes(HEADER) + event + bytes(BACK), np.uint8)[None]
    step, wall = int(steps_of(row, shape.step, shape.step_size)[0]), float(walls_of(row, shape.wall)[0])
    values = [float(values_of(row, slot)[0]) for slot in shape.slots]
    mine = [Scalar(tag, step, value, wall) for tag, value in zip(tags, values, strict=True)]
    return parsed if repr(mine) == repr(events.decode(event)) else None  # repr: nan equals nan


def parse(event: bytes) -> tuple[Shape, tuple[bytes, ...]] | None:
    """The shape of an event and its tags; None when it holds anything but numbers of fixed size."""
    try:
        return _parse(event)
    except (IndexError, ValueError):
        return None


def _parse(event: bytes) -> tuple[Shape, tuple[bytes, ...]]:
    at = wall = step = step_size = 0
    if event[0] == 0x09:
        wall, at = 1, 9
    if event[at] == 0x10:
        step = at + 1
        _, at = _varint(event, step)
        step_size = at - step
    summary = at
    at = _enter(event, at, 0x2A)
    if step_size > LONGEST_STEP:
        raise ValueError("no step count")
    slots, tags = [], []
    end = len(event)
    if at + _varint(event, summary + 1)[0] != end:
        raise ValueError("something follows the summary")
    while at < end:
        inner = _enter(event, at, 0x0A)
        at = inner + _varint(event, at + 1)[0]
        slot, tag = _value(event, inner, at)
        slots.append(Slot(slot.at + HEADER, slot.kind, slot.lead))
        tags.append(tag)
    if at != end or not slots:
        raise ValueError("not a summary of scalars")
    shape = Shape(end, wall and wall + HEADER, step and step + HEADER, step_size, summary + HEADER, tuple(slots))
    return shape, tuple(tags)


def _value(event: bytes, at: int, end: int) -> tuple[Slot, bytes]:
    """The number and the tag of one Summary.Value."""
    slots, tags = [], []
    while at < end:
        field = event[at]
        if field == _SIMPLE:
            slots.append(Slot(at + 1, "<f4", field))
            at += 5
            continue
        size, start = _varint(event, at + 1)
        at = start + size
        if field == 0x0A:
            tags.append(event[start:at])
        elif field == 0x42:
            slots.append(_tensor(event, start, at))
        elif field != 0x4A:  # metadata may stand; anything else is left to protobuf
            raise ValueError("not a scalar")
    if at != end or len(slots) != 1 or len(tags) != 1:
        raise ValueError("not a scalar")
    return slots[0], tags[0]


def _tensor(event: bytes, at: int, end: int) -> Slot:
    """The number in a TensorProto of one element. Whether its shape is that of a scalar, protobuf decides."""
    dtype, slots = 0, []
    while at < end:
        field = event[at]
        if field == 0x08:
            dtype, at = _varint(event, at + 1)
        elif field == 0x12:
            size, start = _varint(event, at + 1)
            at = start + size
        elif field == 0x22:
            size, start = _varint(event, at + 1)
            kind = _CONTENT.get(dtype, "")
            if not kind or np.dtype(kind).itemsize != size:
                raise ValueError("not a scalar")
            slots.append(Slot(start, kind, event[start - 1]))
            at = start + size
        elif field in _LISTED:
            wanted, kind, prefix = _LISTED[field]
            size = np.dtype(kind).itemsize
            if dtype != wanted or (prefix and event[at + 1] != size):
                raise ValueError("not a scalar")
            slots.append(Slot(at + 1 + prefix, kind, event[at + prefix]))
            at += 1 + prefix + size
        else:
            raise ValueError("not a scalar")
    if at != end or len(slots) != 1:
        raise ValueError("not a scalar")
    return slots[0]


def _enter(event: bytes, at: int, field: int) -> int:
    """Where the content of the message field at `at` starts."""
    if event[at] != field:
        raise ValueError("another field")
    return _varint(event, at + 1)[1]


def _varint(event: bytes, at: int) -> tuple[int, int]:
    """The varint at `at`, and where it ends."""
    value = shift = 0
    while True:
        byte = event[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a varint of more than ten bytes")


def column(rows: Bytes, at: int, kind: str) -> NDArray[Any]:
    """The value of type `kind` at byte `at` of every row, as a view.

    Args:
        rows: uint8[n, w], C-contiguous.
        at: first byte.
        kind: numpy type; it must end within the row.
    """
    return np.ndarray((len(rows),), kind, rows, at, (rows.shape[1],))


def steps_of(rows: Bytes, at: int, size: int) -> IntArray:
    """The steps that stand as varints of `size` bytes at byte `at` of every row, int64[n]."""
    if not size:
        return np.zeros(len(rows), np.int64)
    raw: IntArray = column(rows, at, "<i8").astype(np.int64)
    steps: IntArray = raw & 0x7F
    for k in range(1, size):
        steps |= (raw >> k) & (0x7F << 7 * k)
    return steps


def walls_of(rows: Bytes, at: int) -> FloatArray:
    """The wall times at byte `at` of every row, float64[n]."""
    return column(rows, at, "<f8").astype(np.float64) if at else np.zeros(len(rows))


def values_of(rows: Bytes, slot: Slot) -> FloatArray:
    """The values of a slot in every row, float64[n]."""
    return column(rows, slot.at, slot.kind).astype(np.float64)
