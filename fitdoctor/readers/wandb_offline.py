"""Weights & Biases runs on disk: ``run-<id>.wandb``, which every run writes, offline or not.

The file is a LevelDB log (records split over blocks of 32 KiB, a CRC each) of protobuf messages. Only four
kinds of message matter here: the run, its configuration, a row of history, and the exit. Read without the
wandb package, whose own reader is gone since 0.31.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from fitdoctor.errors import ReadError
from fitdoctor.readers.columns import Cells, is_wall_time, series_of
from fitdoctor.readers.decoding import unreadable
from fitdoctor.readers.framed import Framing, damage, fields
from fitdoctor.readers.json_lines import as_number, numbers_in, parse
from fitdoctor.readers.raw import RawRun
from fitdoctor.readers.settings import flattened

SOURCE = "wandb"

_MAGIC = b":W&B"
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


def _item(data: bytes) -> tuple[str, bytes]:
    """The name and the JSON of a history or configuration item."""
    names: list[str] = []
    value = b""
    for field, content in fields(data):
        if isinstance(content, bytes):
            if field in (_ITEM_KEY, _ITEM_NESTED_KEY):
                names.append(content.decode("utf-8", errors="replace"))
            elif field == _ITEM_VALUE:
                value = content
    return "/".join(names), value


def _numbers(data: bytes) -> Iterator[tuple[str, float]]:
    """The numbers in a row of history."""
    for field, content in fields(data):
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
    for field, content in fields(data):
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
        for field, content in fields(record):
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
                self.finished = not any(number == _EXIT_CODE and code for number, code in fields(content))

    def _take_run(self, content: bytes) -> None:
        for field, value in fields(content):
            if isinstance(value, bytes):
                if field == _RUN_CONFIG:
                    self.params.update(_settings(value))
                elif field == _RUN_NAME:
                    self.name = value.decode("utf-8", errors="replace")


def _run_of(path: Path, file: BinaryIO) -> RawRun:
    framing, log, unread = Framing(file), _Log(), 0
    for record in framing.records():
        try:
            log.take(record)
        except ValueError:
            unread += 1
    notes = damage(path, framing, unread)
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
