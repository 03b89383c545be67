"""DVCLive folders: ``plots/metrics/<split>/<name>.tsv``, one file per metric."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from fitdoctor.errors import ReadError
from fitdoctor.readers.columns import is_step, series_of
from fitdoctor.readers.csv_cells import read_table
from fitdoctor.readers.csv_dialect import Dialect, split
from fitdoctor.readers.csv_table import is_dvclive
from fitdoctor.readers.decoding import decode, read_bytes
from fitdoctor.readers.raw import RawRun, RawSeries
from fitdoctor.readers.settings import read_settings
from fitdoctor.run import Note

SOURCE = "dvclive"


def recognise(path: Path, head: bytes) -> bool:
    """Whether the file is a table of one metric below ``plots/metrics``."""
    return is_dvclive(path) and is_step(head.partition(b"\t")[0].decode("utf-8", errors="replace"))


def home(path: Path) -> Path:
    """The folder of the run, which holds ``plots``."""
    parts = path.parts
    at = max(i for i in range(len(parts) - 1) if parts[i : i + 2] == ("plots", "metrics"))
    return Path(*parts[:at]) if at else Path(".")


def read(home: Path, files: Sequence[Path]) -> Iterator[RawRun]:
    """The one run in a folder."""
    series: list[RawSeries] = []
    notes: list[Note] = []
    for path in sorted(files):
        found, said = _series_of(path, home)
        series += found
        notes += said
    if not series:
        raise ReadError(f"{home}: expected tables of metrics below plots/metrics, got none with a row; leave it out")
    yield RawRun(
        name=home.parent.name if home.name == "dvclive" and home.parent.name else home.name,
        path=str(home),
        source=SOURCE,
        series=tuple(series),
        params=read_settings(home / "params.yaml"),
        notes=tuple(notes),
    )


def _series_of(path: Path, home: Path) -> tuple[list[RawSeries], list[Note]]:
    data = read_bytes(path)
    text = decode(data)
    names = tuple(split(text.partition("\n")[0].strip("\r"), "\t"))
    table = read_table(data, text, Dialect("\t", ".", 0, names), path, frozenset())
    tag = path.relative_to(home / "plots" / "metrics").with_suffix("").as_posix()
    found, notes = series_of(table.columns, table.height, str(path))
    named = [replace(s, tag=tag) for s in found if s.tag == path.stem or len(found) == 1]
    return named, [*table.notes, *notes]
