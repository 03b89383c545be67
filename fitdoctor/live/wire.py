"""Events of a TensorBoard file as bytes: the few messages that the monitor writes, encoded by hand.

A record is ``length, crc of length, event, crc of event``; an event is a protobuf message. Only what
changes from value to value is encoded anew: the tag, its metadata and the tensor's shape are made once.
"""

from __future__ import annotations

import struct

import numpy as np

from fitdoctor.run import FloatArray

SCALAR_CLASS, TENSOR_CLASS = 1, 2  # DataClass of summary.proto: what a value without one means is "do not show"
_FLOAT, _STRING = 1, 7  # DT_FLOAT, DT_STRING of types.proto


def varint(value: int) -> bytes:
    """A number in base 128, as protobuf writes it; negative ones as their 64-bit complement.

    Example:
        >>> varint(300).hex()
        'ac02'
    """
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def part(number: int, payload: bytes) -> bytes:
    """A field of a message that holds bytes, text or another message."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def whole(number: int, value: int) -> bytes:
    """A field of a message that holds an integer."""
    return varint(number << 3) + varint(value)


def record(event: bytes) -> bytes:
    """An event as it stands in the file, with its checksums."""
    # Here, because the package around it needs protobuf, which a monitor without a log can do without.
    from fitdoctor.readers.tensorboard.crc32c import crc32c, masked

    head = struct.pack("<Q", len(event))
    return b"".join((head, struct.pack("<I", masked(crc32c(head))), event, struct.pack("<I", masked(crc32c(event)))))


def event(step: int, wall_time: float, values: bytes) -> bytes:
    """An event with a summary of already encoded values."""
    return b"\x09" + struct.pack("<d", wall_time) + (whole(2, step) if step else b"") + part(5, values)


def opening(wall_time: float) -> bytes:
    """The first event of every file."""
    return b"\x09" + struct.pack("<d", wall_time) + part(3, b"brain.Event:2")


def metadata(plugin: str, content: bytes, data_class: int) -> bytes:
    """Metadata field of a value: which plugin shows it, and as what."""
    return part(9, part(1, part(1, plugin.encode()) + (part(2, content) if content else b"")) + whole(4, data_class))


def scalar(head: bytes, value: float) -> bytes:
    """A value of one number; `head` is the encoded tag (and metadata, the first time)."""
    try:
        number = struct.pack("<f", value)
    except OverflowError:  # beyond float32
        number = struct.pack("<f", float("inf") if value > 0 else float("-inf"))
    return part(1, head + b"\x15" + number)


def vector(head: bytes, values: FloatArray) -> bytes:
    """A value of a float32 vector."""
    with np.errstate(over="ignore"):
        content = np.asarray(values, "<f4").tobytes()
    shape = part(2, whole(1, len(values)))
    return part(1, head + part(8, whole(1, _FLOAT) + part(2, shape) + part(4, content)))


def text(head: bytes, value: str) -> bytes:
    """A value of one text."""
    return part(1, head + part(8, whole(1, _STRING) + part(8, value.encode("utf-8", errors="replace"))))
