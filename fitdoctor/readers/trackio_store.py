"""Trackio projects: one sqlite database each, a row of JSON per logged step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from fitdoctor.readers.columns import Cells, series_of
from fitdoctor.readers.decoding import moment
from fitdoctor.readers.json_lines import numbers_in, parse
from fitdoctor.readers.raw import RawRun
from fitdoctor.readers.settings import flattened
from fitdoctor.readers.sqlite_file import MAGIC, columns_of, opened, tables_in
from fitdoctor.run import Note

SOURCE = "trackio"

_NEEDED = {"run_name", "step", "metrics", "timestamp"}


def recognise(path: Path, head: bytes) -> bool:
    """Whether the file is a database with Trackio's table of metrics."""
    return head.startswith(MAGIC) and tables_in(path).get("metrics", frozenset()) >= _NEEDED


def home(path: Path) -> Path:
    """The database."""
    return path


def read(home: Path, files: Sequence[Path]) -> Iterator[RawRun]:
    """The runs of each project."""
    for path in files:
        yield from _runs_of(path)


def _runs_of(path: Path) -> Iterator[RawRun]:
    runs: dict[tuple[str, str], Cells] = {}
    configs: dict[str, Mapping[str, object]] = {}
    bad = 0
    with opened(path) as connection:
        key = "run_id" if "run_id" in columns_of(connection, "metrics") else "run_name"
        rows = connection.execute(f"SELECT {key}, run_name, step, timestamp, metrics FROM metrics ORDER BY rowid")
        for run, name, step, time, text in rows:
            found = _object(text)
            if found is None or not isinstance(step, int):
                bad += 1
                continue
            clocks = {"step": float(step)}
            if (seconds := moment(str(time))) is not None:
                clocks["timestamp"] = seconds
            runs.setdefault((str(run), str(name)), Cells()).add([*clocks.items(), *numbers_in(found)])
        has = columns_of(connection, "configs")
        if {"run_name", "config"} <= has:
            key = "run_id" if "run_id" in has else "run_name"
            for run, text in connection.execute(f"SELECT {key}, config FROM configs"):
                settings = flattened(_object(text) or {})
                configs[str(run)] = {k: v for k, v in settings.items() if not k.startswith("_")}
    for (run, name), cells in runs.items():
        series, notes = series_of(cells.columns(), cells.height, str(path))
        if bad:
            notes = (*notes, Note("corrupt", f"{path}: {bad} rows hold no JSON object; left out", amount=bad))
        yield RawRun(name=name, path=str(path), source=SOURCE, series=series, params=configs.get(run, {}), notes=notes)


def _object(text: object) -> Mapping[str, object] | None:
    try:
        found = parse(text if isinstance(text, str | bytes) else "")
    except ValueError:
        return None
    return found if isinstance(found, Mapping) else None
