"""Logs framed as LevelDB frames its own, with protobuf messages in them: Weights & Biases and SwanLab.

After a file header of 7 bytes, records are split over blocks of 32 KiB; each piece carries a CRC-32, its length and its
kind (https://github.com/google/leveldb/blob/main/doc/log_format.md, with zlib's CRC).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fitdoctor.run import Note

_FILE_HEADER = 7
_BLOCK = 1 << 15
_RECORD_HEADER = struct.Struct("<IHB")  # CRC-32 of kind and data, length, kind
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


class Framing:
    """The records of a log, and what was wrong with it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.damaged = 0
        self.torn = False

    def records(self) -> Iterator[bytes]:
        """Each whole record; damaged ones are left out, the next is looked for at the next block."""
        self._file.seek(0)
        start, parts = _FILE_HEADER, None
        while block := self._file.read(_BLOCK):
            at, start = start, 0
            while at + _RECORD_HEADER.size <= len(block):
                crc, length, kind = _RECORD_HEADER.unpack_from(block, at)
                data = block[at + _RECORD_HEADER.size : at + _RECORD_HEADER.size + length]
                if kind == 0 and length == 0 and crc == 0:
                    break  # zeros that fill a block
                if len(data) < length and len(block) < _BLOCK:
                    self.torn = True
                    break
                if len(data) < length or zlib.crc32(data, zlib.crc32(bytes((kind,)))) != crc:
                    self.damaged += 1
                    parts = None
                    break
                at += _RECORD_HEADER.size + length
                if kind == _FULL:
                    yield data
                    parts = None
                elif kind == _FIRST:
                    parts = [data]
                elif parts is not None:
                    parts.append(data)
                    if kind == _LAST:
                        yield b"".join(parts)
                        parts = None
            else:
                self.torn |= len(block) < _BLOCK and at < len(block)
        self.torn |= parts is not None


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than ten bytes")


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message: number and content; 8 or 4 bytes of a fixed-width number as they are.

    Raises:
        ValueError: for what is no message.
    """
    at = 0
    while at < len(data):
        try:
            key, at = _varint(data, at)
            wire = key & 7
            if wire == 0:
                value, at = _varint(data, at)
                yield key >> 3, value
                continue
            if wire == 2:
                size, at = _varint(data, at)
            elif wire in (1, 5):
                size = 8 if wire == 1 else 4
            else:
                raise ValueError(f"wire type {wire}")
        except IndexError as error:
            raise ValueError("the message ends within a field") from error
        if at + size > len(data):
            raise ValueError("the message ends within a field")
        yield key >> 3, data[at : at + size]
        at += size


def damage(path: Path, framing: Framing, unread: int) -> list[Note]:
    """What to say of a file whose records have been read.

    Args:
        path: the file.
        framing: what it was read through.
        unread: whole records that held no message.
    """
    notes: list[Note] = []
    if framing.damaged or unread:
        text = f"{framing.damaged + unread} records are damaged; they and the rest of their 32 KiB blocks were left out"
        notes.append(Note("corrupt", f"{path}: {text}", amount=framing.damaged + unread))
    if framing.torn:
        notes.append(Note("truncated", f"{path}: the last record is not whole; everything before it was used"))
    return notes
