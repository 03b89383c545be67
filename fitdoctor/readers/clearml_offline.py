"""ClearML offline sessions: ``offline-<id>/metrics.jsonl``, each line a JSON list of events, or the same zipped."""

from __future__ import annotations

import zipfile
import zlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fitdoctor.errors import ReadError
from fitdoctor.readers.decoding import decode, read_bytes
from fitdoctor.readers.json_lines import as_number, objects_of_list, parse
from fitdoctor.readers.raw import RawRun, RawSeries
from fitdoctor.run import Note

SOURCE = "clearml"

_ZIP = b"PK\x03\x04"
_MEMBER = "metrics.jsonl"
_LARGEST = 1 << 30


def recognise(path: Path, head: bytes) -> bool:
    """Whether the file holds ClearML's scalar events."""
    if head.startswith(_ZIP):
        return _packed(path) is not None
    return b'"training_stats_scalar"' in head and head.lstrip()[:1] in (b"[", b"{")


def _packed(path: Path) -> bytes | None:
    """The metrics in a zipped session; None where the archive is something else, or broken."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(_MEMBER).file_size > _LARGEST:
                return None
            return archive.read(_MEMBER)
    except (OSError, KeyError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error, EOFError):
        return None


def home(path: Path) -> Path:
    """The file itself."""
    return path


def read(home: Path, files: Sequence[Path]) -> Iterator[RawRun]:
    """The run in each file."""
    for path in files:
        yield _run_of(path)


def _run_of(path: Path) -> RawRun:
    points: dict[str, tuple[array[int], array[float], array[float]]] = {}
    bad: list[int] = []
    zipped = path.suffix == ".zip"
    lines = decode((_packed(path) or b"") if zipped else read_bytes(path)).split("\n")
    for i, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            events = parse(line)
        except ValueError:
            bad.append(i)
            events = list(objects_of_list(line))
        for event in events if isinstance(events, list) else [events]:
            _take(event, points)
    if not points:
        raise ReadError(
            f"{path}: expected scalar events of a ClearML session, got none; check the file or leave it out"
        )
    notes = [Note("corrupt", f"{path}: line {i} is cut or damaged; its whole events were used") for i in bad]
    return RawRun(
        name=path.stem if zipped else path.parent.name,
        path=str(path),
        source=SOURCE,
        series=tuple(
            RawSeries(tag, np.array(v, np.float64), np.array(s, np.int64), wall_time=np.array(t, np.float64))
            for tag, (s, v, t) in points.items()
        ),
        notes=tuple(notes),
    )


def _take(event: Any, points: dict[str, tuple[array[int], array[float], array[float]]]) -> None:
    """Append one event to the series it belongs to, if it is a scalar."""
    if not isinstance(event, dict) or event.get("type") != "training_stats_scalar":
        return
    step, value, time = (as_number(event.get(key)) for key in ("iter", "value", "timestamp"))
    if value is None or step is None or not abs(step) < 2**53:
        return
    tag = "/".join(str(part) for part in (event.get("metric"), event.get("variant")) if part)
    steps, values, times = points.setdefault(tag, (array("q"), array("d"), array("d")))
    steps.append(int(step))
    values.append(value)
    times.append(np.nan if time is None else time / 1000)
