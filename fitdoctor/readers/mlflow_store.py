"""MLflow tracking stores: the sqlite database, the default since MLflow 3, and ``mlruns`` folders.

Both are read only. A NaN is stored in sqlite as 0 with ``is_nan`` set, and an infinity as the largest float.
The same metric may be logged once per step and once per epoch: the points stay in the order in which they
were logged, with their times.
"""

from __future__ import annotations

import math
import os
import sqlite3
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fitdoctor.readers.decoding import decode, number, read_bytes, unreadable
from fitdoctor.readers.raw import RawRun, RawSeries
from fitdoctor.readers.settings import parse_yaml
from fitdoctor.readers.sqlite_file import MAGIC, columns_of, opened, tables_in
from fitdoctor.run import FloatArray, Note

SOURCE = "mlflow"

_INFINITE = 1.797e308  # MLflow writes the largest float for an infinity
_FINISHED = {"FINISHED": True, "FAILED": False, "KILLED": False, "RUNNING": False, "SCHEDULED": False}
_STATUS = {1: "RUNNING", 2: "SCHEDULED", 3: "FINISHED", 4: "FAILED", 5: "KILLED"}  # numbers of the file store
_NEEDED = {"key", "value", "timestamp", "run_uuid", "step", "is_nan"}


def recognise(path: Path, head: bytes) -> bool:
    """Whether the file is a tracking database, or the meta.yaml of a run with metrics."""
    if head.startswith(MAGIC):
        tables = tables_in(path)
        return "runs" in tables and tables.get("metrics", frozenset()) >= _NEEDED
    if path.name != "meta.yaml":
        return False
    return (b"run_id:" in head or b"run_uuid:" in head) and (path.parent / "metrics").is_dir()


def home(path: Path) -> Path:
    """The database, or the folder of the run."""
    return path.parent if path.name == "meta.yaml" else path


def read(home: Path, files: Sequence[Path]) -> Iterator[RawRun]:
    """The runs in a store, without deleted ones and those that logged nothing."""
    for path in files:
        if path.name == "meta.yaml":
            yield from _from_folder(path)
        else:
            with opened(path) as connection:
                yield from _from_database(path, connection)


class _Points:
    """The points of one metric in the order in which they were logged."""

    def __init__(self) -> None:
        self.steps, self.values, self.times = array("q"), array("d"), array("d")

    def add(self, step: int, value: float, time_ms: float) -> None:
        """Append one point."""
        self.steps.append(step)
        self.values.append(value)
        self.times.append(time_ms / 1000)

    def series(self, tag: str) -> RawSeries:
        """These points as a series."""
        values: FloatArray = np.array(self.values, np.float64)
        values = np.where(np.abs(values) >= _INFINITE, np.copysign(np.inf, values), values)
        return RawSeries(tag, values, np.array(self.steps, np.int64), wall_time=np.array(self.times, np.float64))


def _from_database(path: Path, connection: sqlite3.Connection) -> Iterator[RawRun]:
    experiments: dict[object, str] = {}
    if "name" in columns_of(connection, "experiments"):
        experiments = dict(connection.execute("SELECT experiment_id, name FROM experiments"))
    runs = connection.execute(
        "SELECT run_uuid, name, status, experiment_id FROM runs"
        " WHERE lifecycle_stage IS NULL OR lifecycle_stage != 'deleted' ORDER BY start_time, run_uuid"
    ).fetchall()
    has_params = "key" in columns_of(connection, "params")
    for uuid, name, status, experiment in runs:
        points: dict[str, _Points] = {}
        bad = 0
        rows = connection.execute(
            "SELECT key, value, timestamp, step, is_nan FROM metrics WHERE run_uuid = ? ORDER BY timestamp, rowid",
            (uuid,),
        )
        for key, value, time, step, is_nan in rows:
            try:
                points.setdefault(str(key), _Points()).add(int(step), math.nan if is_nan else float(value), float(time))
            except (TypeError, ValueError, OverflowError):
                bad += 1
        if not points:
            continue
        params: dict[str, object] = {}
        if has_params:
            params = dict(connection.execute("SELECT key, value FROM params WHERE run_uuid = ?", (uuid,)))
        notes = (Note("corrupt", f"{path}: {bad} values of run {name} are no numbers", amount=bad),) if bad else ()
        folder = experiments.get(experiment)
        yield RawRun(
            name=f"{folder}/{name or uuid}" if folder and folder != "Default" else str(name or uuid),
            path=str(path),
            source=SOURCE,
            series=tuple(p.series(key) for key, p in points.items() if p.values),
            params=params,
            notes=notes,
            finished=_FINISHED.get(str(status)),
        )


def _from_folder(meta: Path) -> Iterator[RawRun]:
    folder = meta.parent
    about = parse_yaml(decode(read_bytes(meta)))
    facts = about if isinstance(about, dict) else {}
    if facts.get("lifecycle_stage") == "deleted":
        return
    series: list[RawSeries] = []
    notes: list[Note] = []
    for path in _files_below(folder / "metrics"):
        points, bad = _points_of(path)
        if points.values:
            series.append(points.series(path.relative_to(folder / "metrics").as_posix()))
        if bad:
            notes.append(Note("corrupt", f"{path}: {bad} lines are not 'time value step'; left out", amount=bad))
    if not series:
        return
    status = facts.get("status")
    name = _line(folder / "tags" / "mlflow.runName") or str(facts.get("run_name") or folder.name)
    yield RawRun(
        name=name,
        path=str(folder),
        source=SOURCE,
        series=tuple(series),
        params={p.relative_to(folder / "params").as_posix(): _line(p) for p in _files_below(folder / "params")},
        notes=tuple(notes),
        finished=_FINISHED.get(_STATUS.get(status, "") if isinstance(status, int) else str(status)),
    )


def _files_below(folder: Path) -> list[Path]:
    """All files below a folder; the names of metrics may hold "/"."""
    try:
        found = [Path(where) / name for where, _, names in os.walk(folder) for name in names]
    except OSError as error:
        raise unreadable(folder, error) from error
    return sorted(found)


def _line(path: Path) -> str:
    try:
        return decode(path.read_bytes()).strip()
    except OSError:
        return ""


def _points_of(path: Path) -> tuple[_Points, int]:
    """The points in one metric's file, and the number of lines that hold none."""
    points, bad = _Points(), 0
    for line in decode(read_bytes(path)).split("\n"):
        cells = line.split()
        if not cells:
            continue
        value = number(cells[1]) if len(cells) >= 2 else None
        if value is None:
            bad += 1
            continue
        try:
            # Files of before MLflow 1.0 have no step.
            points.add(int(cells[2]) if len(cells) > 2 else len(points.steps), value, float(cells[0]))
        except (ValueError, OverflowError):
            bad += 1
    return points, bad
