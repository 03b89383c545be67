"""DVCLive folders: ``plots/metrics/<split>/<name>.tsv``, one file per metric.

Known by what is in the file, a clock and one column that is named as the file is; so the tables are found in the
layouts of older versions (``scalars/``, or the folder itself) and where somebody moved them to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from fitdoctor.errors import ReadError
from fitdoctor.readers.columns import series_of
from fitdoctor.readers.csv_cells import read_table
from fitdoctor.readers.csv_dialect import Dialect, split
from fitdoctor.readers.csv_table import SPLITS, is_dvclive
from fitdoctor.readers.decoding import decode, read_bytes
from fitdoctor.readers.raw import RawRun, RawSeries
from fitdoctor.readers.settings import read_settings
from fitdoctor.run import Note

SOURCE = "dvclive"


def recognise(path: Path, head: bytes) -> bool:
    """Whether the file is a table of one metric: a step, maybe a time, and a column that is named as the file is."""
    return is_dvclive(path, head)


def home(path: Path) -> Path:
    """The folder of the run, which holds ``plots``; of moved tables the folder above those of the splits."""
    parts = path.parts
    inside = [i for i in range(len(parts) - 1) if parts[i : i + 2] == ("plots", "metrics")]
    if inside:
        return Path(*parts[: inside[-1]]) if inside[-1] else Path(".")
    folder = path.parent.parent if path.parent.name.lower() in SPLITS else path.parent
    return folder.parent if folder.name == "scalars" else folder


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
    below = next((f for f in (home / "plots" / "metrics", home / "scalars", home) if path.is_relative_to(f)), home)
    tag = path.relative_to(below).with_suffix("").as_posix()
    found, notes = series_of(table.columns, table.height, str(path))
    named = [replace(s, tag=tag) for s in found if s.tag == path.stem or len(found) == 1]
    return named, [*table.notes, *notes]
