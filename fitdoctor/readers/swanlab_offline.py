"""SwanLab runs on disk: ``run-<time>-<id>/run-<id>.swanlab``, ``backup.swanlab`` before 0.8.

The framing is that of Weights & Biases. The records are protobuf messages since 0.8 (version 2 in the file header) and
lines of JSON before (version 1). The configuration stands beside, in ``files/config.yaml``.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fitdoctor.errors import ReadError
from fitdoctor.readers.decoding import decode, moment, unreadable
from fitdoctor.readers.framed import Framing, damage, fields
from fitdoctor.readers.json_lines import as_number, parse
from fitdoctor.readers.raw import RawRun, RawSeries
from fitdoctor.readers.settings import flattened, parse_yaml

SOURCE = "swanlab"

_MAGIC = b":SWL"
_SYSTEM = "__swanlab__"  # how the keys of the machine's own measurements begin
_LARGEST_CONFIG = 1 << 20

# Fields of SwanLab's protobuf messages that are read here.
_START, _FINISH, _SCALAR = 10, 11, 13
_START_NAME = 4
_FINISH_STATE, _FINISHED = 1, 1
_KEY, _STEP, _TIME, _VALUE = 1, 2, 4, 5
_SECONDS, _NANOSECONDS, _NUMBER = 1, 2, 1


def recognise(path: Path, head: bytes) -> bool:
    """Whether the file begins as a .swanlab file."""
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


class _Log:
    """What the records of one file add up to."""

    def __init__(self) -> None:
        self.points: dict[str, tuple[array[int], array[float], array[float]]] = {}
        self.name = ""
        self.finished: bool | None = None

    def take(self, record: bytes) -> None:
        """Read one record of either version. Raises ValueError for what is none."""
        if record.startswith(b"{"):
            self._take_json(parse(record))
            return
        for field, content in fields(record):
            if not isinstance(content, bytes):
                continue
            if field == _SCALAR:
                self._take_scalar(content)
            elif field == _START:
                self.name = next(
                    (decode(v) for f, v in fields(content) if f == _START_NAME and isinstance(v, bytes)), ""
                )
            elif field == _FINISH:
                self.finished = dict(fields(content)).get(_FINISH_STATE, 0) == _FINISHED

    def _take_scalar(self, message: bytes) -> None:
        key, step, time, value = "", 0, math.nan, math.nan
        for field, content in fields(message):
            if field == _STEP and isinstance(content, int):
                step = content
            elif not isinstance(content, bytes):
                continue
            elif field == _KEY:
                key = content.decode("utf-8", errors="replace")
            elif field == _TIME:
                parts = dict(fields(content))
                seconds, rest = parts.get(_SECONDS, 0), parts.get(_NANOSECONDS, 0)
                time = seconds + rest * 1e-9 if isinstance(seconds, int) and isinstance(rest, int) else math.nan
            elif field == _VALUE:
                number = dict(fields(content)).get(_NUMBER, bytes(8))  # protobuf leaves a zero out
                if isinstance(number, bytes) and len(number) == 8:
                    (value,) = struct.unpack("<d", number)
        self._add(key, step, time, value)

    def _take_json(self, record: Any) -> None:
        data = record.get("data") if isinstance(record, Mapping) else None
        if not isinstance(data, Mapping):
            raise ValueError("no record of SwanLab")
        kind = record.get("model_type")
        if kind == "Scalar":
            metric = data.get("metric")
            metric = metric if isinstance(metric, Mapping) else {}
            step, value = as_number(data.get("step")), as_number(metric.get("data"))
            if step is not None and value is not None and math.isfinite(step):
                time = moment(str(metric.get("create_time")))
                self._add(str(data.get("key")), int(step), math.nan if time is None else time, value)
        elif kind == "Experiment":
            self.name = str(data.get("name") or "")
        elif kind == "Footer":
            self.finished = data.get("success") is True

    def _add(self, key: str, step: int, time: float, value: float) -> None:
        if not key or key.startswith(_SYSTEM) or not 0 <= step < 2**53:
            return
        steps, values, times = self.points.setdefault(key, (array("q"), array("d"), array("d")))
        steps.append(step)
        values.append(value)
        times.append(time)


def _run_of(path: Path, file: BinaryIO) -> RawRun:
    framing, log, unread = Framing(file), _Log(), 0
    for record in framing.records():
        try:
            log.take(record)
        except ValueError:
            unread += 1
    params = _config(path.parent / "files" / "config.yaml")
    if not log.points and not params:
        raise ReadError(
            f"{path}: expected scalars in a .swanlab file, got none in {path.stat().st_size} bytes; "
            "the run logged nothing or was killed before anything was written: leave the file out"
        )
    return RawRun(
        name=log.name or path.parent.name,
        path=str(path),
        source=SOURCE,
        series=tuple(
            RawSeries(key, np.array(v, np.float64), np.array(s, np.int64), wall_time=np.array(t, np.float64))
            for key, (s, v, t) in log.points.items()
        ),
        params=params,
        notes=tuple(damage(path, framing, unread)),
        finished=log.finished,
    )


def _config(path: Path) -> dict[str, object]:
    """The configuration: each setting stands under ``value``, beside a description and a place."""
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_CONFIG:
            return {}
        loaded = parse_yaml(decode(path.read_bytes()))
    except OSError:
        return {}
    if not isinstance(loaded, Mapping):
        return {}
    return flattened(
        {
            name: item["value"] if isinstance(item, Mapping) and "value" in item else item
            for name, item in loaded.items()
        }
    )
