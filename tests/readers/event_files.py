"""A slow, plain writer and reader of event files, against which the fast reader is tested.

Nothing here is shared with the package: checksums, records and messages are taken byte by byte.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple


class Point(NamedTuple):
    tag: str
    step: int
    value: float
    wall_time: float


def _of_byte(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_TABLE = [_of_byte(byte) for byte in range(256)]


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def record(body: bytes) -> bytes:
    size = struct.pack("<Q", len(body))
    return size + masked(size) + body + masked(body)


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def version(wall_time: float = 1.0) -> bytes:
    return b"\x09" + struct.pack("<d", wall_time) + message(3, b"brain.Event:2")


def event(step: int, wall_time: float, *values: bytes) -> bytes:
    wall = b"\x09" + struct.pack("<d", wall_time) if wall_time else b""
    at = b"\x10" + varint(step) if step else b""
    return wall + at + message(5, b"".join(message(1, v) for v in values))


def metadata(plugin: bytes, content: bytes = b"", data_class: int = 0) -> bytes:
    inner = message(1, plugin) + (message(2, content) if content else b"")
    return message(9, message(1, inner) + (b"\x20" + varint(data_class) if data_class else b""))


def simple(tag: str, value: float) -> bytes:
    """TensorFlow 1, torch, tensorboardX."""
    return message(1, tag.encode()) + b"\x15" + struct.pack("<f", value)


def content(tag: str, value: float, kind: str = "f", plugin: bytes = b"scalars") -> bytes:
    """TensorFlow 2 and Keras: a scalar tensor with its bytes in tensor_content."""
    dtype = {"f": 1, "d": 2, "i": 3, "q": 9}[kind]
    number = value if kind in "fd" else int(value)
    tensor = b"\x08" + varint(dtype) + b"\x12\x00" + message(4, struct.pack("<" + kind, number))
    meta = metadata(plugin, data_class=1) if plugin else b""
    return message(1, tag.encode()) + message(8, tensor) + meta


def listed(tag: str, value: float, kind: str = "f", packed: bool = True, plugin: bytes = b"scalars") -> bytes:
    """torch's `new_style` and `double_precision`: a tensor with float_val or double_val."""
    dtype, number, wire = {"f": (1, 5, 5), "d": (2, 6, 1), "i": (3, 7, 0), "q": (9, 10, 0)}[kind]
    raw = struct.pack("<" + kind, value) if kind in "fd" else varint(int(value))
    values = message(number, raw) if packed else varint(number << 3 | wire) + raw
    return (
        message(1, tag.encode()) + message(8, b"\x08" + varint(dtype) + values) + (metadata(plugin) if plugin else b"")
    )


def histogram(tag: str, moments: tuple[float, ...], limits: list[float], counts: list[float]) -> bytes:
    head = b"".join(varint(i << 3 | 1) + struct.pack("<d", m) for i, m in enumerate(moments, 1))
    packed = message(6, struct.pack(f"<{len(limits)}d", *limits)) + message(7, struct.pack(f"<{len(counts)}d", *counts))
    return message(1, tag.encode()) + message(5, head + packed)


def image(tag: str, size: int) -> bytes:
    return message(1, tag.encode()) + message(4, b"\x08\x10\x10\x10" + message(4, bytes(size)))


# --- reading -------------------------------------------------------------------------------------


def records(data: bytes) -> Iterator[bytes]:
    """Bodies up to the first record that is cut or damaged."""
    at = 0
    while at + 12 <= len(data):
        size = data[at : at + 8]
        length = struct.unpack("<Q", size)[0]
        end = at + 12 + length
        if masked(size) != data[at + 8 : at + 12] or end + 4 > len(data):
            return
        body = data[at + 12 : end]
        if masked(body) != data[end : end + 4]:
            return
        yield body
        at = end + 4


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while at < len(data):
        key = number()
        if key & 7 == 0:
            yield key >> 3, number()
            continue
        size = {1: 8, 5: 4}.get(key & 7) or number()
        yield key >> 3, data[at : at + size]
        at += size


def points(data: bytes) -> list[Point]:
    """The scalars of an event file, in file order."""
    return [p for body in records(data) for p in _of_event(body)]


def _of_event(body: bytes) -> Iterator[Point]:
    step, wall, summaries = 0, 0.0, []
    for number, value in fields(body):
        if number == 1:
            wall = struct.unpack("<d", value)[0]
        elif number == 2:
            step = value - (1 << 64) if value >> 63 else value
        elif number == 5:
            summaries.append(value)
    for summary in summaries:
        for _, value in fields(summary):
            parts = dict(fields(value))
            tag = parts.get(1, b"").decode()
            if 2 in parts:
                yield Point(tag, step, struct.unpack("<f", parts[2])[0], wall)
            elif 8 in parts:
                number = _of_tensor(dict(fields(parts[8])))
                if number is not None:
                    yield Point(tag, step, number, wall)


def _of_tensor(tensor: Mapping[int, int | bytes]) -> float | None:
    kinds = {1: "f", 2: "d", 3: "i", 9: "q"}
    kind = kinds.get(tensor.get(1, 0))
    if kind is None:
        return None
    for number, raw in tensor.items():
        if number in (4, 5, 6) and isinstance(raw, bytes):
            return float(struct.unpack("<" + kind, raw)[0])
        if number in (7, 10):
            whole = raw if isinstance(raw, int) else next(iter(fields(b"\x08" + raw)))[1]
            return float(whole - (1 << 64) if whole >> 63 else whole)
    return None


def same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))
