"""ClearML offline sessions: ``offline-<id>/metrics.jsonl``, each line a JSON list of events, or the same zipped.

ClearML leaves both the folder and its archive: they are one session. The settings stand in ``task.json``.
"""

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
_MEMBER, _TASK = "metrics.jsonl", "task.json"
_LARGEST = 1 << 30


def recognise(path: Path, head: bytes) -> bool:
    """Whether the file holds ClearML's scalar events."""
    if head.startswith(_ZIP):
        return _packed(path) is not None
    return b'"training_stats_scalar"' in head and head.lstrip()[:1] in (b"[", b"{")


def _packed(path: Path, member: str = _MEMBER) -> bytes | None:
    """A file of a zipped session; None where the archive is something else, or broken."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(member).file_size > _LARGEST:
                return None
            return archive.read(member)
    except (OSError, KeyError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile, zlib.error, EOFError):
        return None


def home(path: Path) -> Path:
    """The folder of the session, also for an archive beside it; the file itself where there is none."""
    folder = path.with_suffix("") if path.suffix == ".zip" else path.parent
    return folder if (folder / _MEMBER).is_file() and (folder / _TASK).is_file() else path


def read(home: Path, files: Sequence[Path]) -> Iterator[RawRun]:
    """The run in each file; of a folder and its archive the folder's."""
    plain = [path for path in files if path.parent == home]
    for path in plain or files:
        yield _run_of(path)


def _run_of(path: Path) -> RawRun:
    points: dict[str, tuple[array[int], array[float], array[float]]] = {}
    bad: list[int] = []
    with path.open("rb") as file:
        zipped = file.read(len(_ZIP)) == _ZIP
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
        name=path.stem if zipped or path.name != _MEMBER else path.parent.name,
        path=str(path),
        source=SOURCE,
        params=_settings(_packed(path, _TASK) if zipped else _beside(path)),
        series=tuple(
            RawSeries(tag, np.array(v, np.float64), np.array(s, np.int64), wall_time=np.array(t, np.float64))
            for tag, (s, v, t) in points.items()
        ),
        notes=tuple(notes),
    )


def _beside(path: Path) -> bytes | None:
    task = path.with_name(_TASK)
    try:
        return task.read_bytes() if task.is_file() and task.stat().st_size <= _LARGEST else None
    except OSError:
        return None


def _settings(text: bytes | None) -> dict[str, object]:
    """The hyperparameters of a task: section, name, and the value as a word, under ``hyperparams``."""
    try:
        task = parse(text) if text else None
    except ValueError:
        return {}
    sections = task.get("hyperparams") if isinstance(task, dict) else None
    found: dict[str, object] = {}
    for section, items in sections.items() if isinstance(sections, dict) else ():
        for name, item in items.items() if isinstance(items, dict) else ():
            if isinstance(item, dict) and "value" in item:
                found[name if section in ("General", "Args") else f"{section}/{name}"] = item["value"]
    return found


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
