"""Weights & Biases runs on disk: ``run-<id>.wandb``, which every run writes, offline or not.

The file is a LevelDB log (records split over blocks of 32 KiB, a CRC each) of protobuf messages. Only four
kinds of message matter here: the run, its configuration, a row of history, and the exit. Read without the
wandb package, whose own reader is gone since 0.31.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from fitdoctor.errors import ReadError
from fitdoctor.readers.columns import Cells, is_wall_time, series_of
from fitdoctor.readers.decoding import unreadable
from fitdoctor.readers.json_lines import as_number, numbers_in, parse
from fitdoctor.readers.raw import RawRun
from fitdoctor.readers.settings import flattened
from fitdoctor.run import Note

SOURCE = "wandb"

_MAGIC = b":W&B"
_FILE_HEADER = 7
_BLOCK = 1 << 15
_RECORD_HEADER = struct.Struct("<IHB")  # CRC-32 of kind and data, length, kind
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_DEEPEST = 8

# Fields of wandb's protobuf messages that are read here.
_HISTORY, _CONFIG, _RUN, _EXIT = 2, 5, 17, 18
_ITEM_KEY, _ITEM_NESTED_KEY, _ITEM_VALUE = 1, 2, 16
_RUN_CONFIG, _RUN_PROJECT, _RUN_NAME = 4, 3, 8
_EXIT_CODE = 1


def recognise(path: Path, head: bytes) -> bool:
    """Whether the file begins as a .wandb file."""
    return head.startswith(_MAGIC)


def home(path: Path) -> Path:
    """The file itself."""
    return path


def read(home: Path, files: Sequence[Path]) -> Iterator[RawRun]:
    """The run in each file."""
    for path in files:
        try:
            with path.open("rb") as file:
                yield _run_of(path, file)
        except OSError as error:
            raise unreadable(path, error) from error


class _Framing:
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


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message: number and content. Raises ValueError for what is none."""
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


def _item(data: bytes) -> tuple[str, bytes]:
    """The name and the JSON of a history or configuration item."""
    names: list[str] = []
    value = b""
    for field, content in _fields(data):
        if isinstance(content, bytes):
            if field in (_ITEM_KEY, _ITEM_NESTED_KEY):
                names.append(content.decode("utf-8", errors="replace"))
            elif field == _ITEM_VALUE:
                value = content
    return "/".join(names), value


def _numbers(data: bytes) -> Iterator[tuple[str, float]]:
    """The numbers in a row of history."""
    for field, content in _fields(data):
        if field != 1 or not isinstance(content, bytes):
            continue
        tag, text = _item(content)
        if not tag or (tag.startswith("_") and tag != "_step" and not is_wall_time(tag)):
            continue  # _runtime, _wandb: the logger's own
        try:
            yield tag, float(text)
            continue
        except ValueError:
            pass
        try:
            value = parse(text)
        except ValueError:
            continue
        if isinstance(value, dict):
            if "_type" not in value:  # media, tables and histograms
                yield from numbers_in(value, f"{tag}/", _DEEPEST)
        elif (found := as_number(value)) is not None:
            yield tag, found


def _settings(data: bytes) -> dict[str, object]:
    """The configuration in a ConfigRecord."""
    found: dict[str, object] = {}
    for field, content in _fields(data):
        if field != 1 or not isinstance(content, bytes):
            continue
        name, text = _item(content)
        if not name or name.startswith("_wandb"):
            continue
        try:
            value = parse(text)
        except ValueError:
            continue
        found.update(flattened(value, f"{name}/") if isinstance(value, dict) else {name: value})
    return found


class _Log:
    """What the messages of one file add up to."""

    def __init__(self) -> None:
        self.cells = Cells()
        self.params: dict[str, object] = {}
        self.name = ""
        self.finished: bool | None = None

    def take(self, record: bytes) -> None:
        """Read one record. Raises ValueError when it is no protobuf message."""
        for field, content in _fields(record):
            if not isinstance(content, bytes):
                continue
            if field == _HISTORY:
                row = list(_numbers(content))
                if any(tag != "_step" and not is_wall_time(tag) for tag, _ in row):
                    self.cells.add(row)
            elif field == _CONFIG:
                self.params.update(_settings(content))
            elif field == _RUN:
                self._take_run(content)
            elif field == _EXIT:
                self.finished = not any(number == _EXIT_CODE and code for number, code in _fields(content))

    def _take_run(self, content: bytes) -> None:
        for field, value in _fields(content):
            if isinstance(value, bytes):
                if field == _RUN_CONFIG:
                    self.params.update(_settings(value))
                elif field == _RUN_NAME:
                    self.name = value.decode("utf-8", errors="replace")


def _run_of(path: Path, file: BinaryIO) -> RawRun:
    framing, log, unread = _Framing(file), _Log(), 0
    for record in framing.records():
        try:
            log.take(record)
        except ValueError:
            unread += 1
    notes: list[Note] = []
    if framing.damaged or unread:
        text = f"{framing.damaged + unread} records are damaged; they and the rest of their 32 KiB blocks were left out"
        notes.append(Note("corrupt", f"{path}: {text}", amount=framing.damaged + unread))
    if framing.torn:
        notes.append(Note("truncated", f"{path}: the last record is not whole; everything before it was used"))
    series, said = series_of(log.cells.columns(), log.cells.height, str(path))
    if not series and not log.params:
        raise ReadError(
            f"{path}: expected rows of history in a .wandb file, got none in {path.stat().st_size} bytes; "
            "the run logged nothing or was killed before its first 32 KiB were written: leave the file out"
        )
    return RawRun(
        name=log.name or _folder_name(path),
        path=str(path),
        source=SOURCE,
        series=series,
        params=log.params,
        notes=(*notes, *said),
        finished=log.finished,
    )


def _folder_name(path: Path) -> str:
    return path.parent.name if "run-" in path.parent.name else path.stem
