"""Tables with a step or epoch column: CSV and TSV of any dialect.

Recognised by their header and first rows, not by their name: Keras writes its CSV to ``training.log``.
Several runs in one table (a ``run`` or ``seed`` column, a Weights & Biases export), one row per value
(``step, metric, value``) and one row per split (``epoch, phase, loss``) are told apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fitdoctor.errors import ReadError
from fitdoctor.readers.columns import (
    Column,
    find_epoch,
    find_step,
    is_epoch,
    is_step,
    is_wall_time,
    series_of,
)
from fitdoctor.readers.csv_cells import Table, read_table
from fitdoctor.readers.csv_dialect import KEY_NAMES, VALUE_NAMES, Dialect, sniff
from fitdoctor.readers.decoding import decode, read_bytes
from fitdoctor.readers.raw import RawRun, RawSeries
from fitdoctor.readers.settings import settings_beside
from fitdoctor.run import Fact, Note

SOURCE = "csv"

_NEVER = frozenset(
    (".py", ".json", ".jsonl", ".md", ".yaml", ".yml", ".html", ".xml", ".toml", ".ipynb", ".rst", ".sh")
)
_ALGOPERF = ("measurements.csv", "eval_measurements.csv")
_PLAIN_STEMS = frozenset(("metrics", "results", "summary", "progress", "log", "history", "training", "train", "logs"))
_SNIFF = 1 << 18
"""Bytes read to find the header: a log with one column per layer has a header of many kilobytes."""

_RUN_WORDS = (
    "run",
    "seed",
    "trial",
    "fold",
    "experiment",
    "exp",
    "model",
    "optimizer",
    "config",
    "variant",
    "algorithm",
)
_RUN_NAMES = frozenset(word + suffix for word in _RUN_WORDS for suffix in ("", "_id", "_name", "_uuid"))
_SPLIT_NAMES = frozenset({"mode", "split", "phase", "stage", "set", "subset", "partition", "dataset"})
SPLITS = frozenset({"train", "training", "val", "valid", "validation", "eval", "evaluation", "test", "dev"})
_WANTED = _RUN_NAMES | _SPLIT_NAMES | KEY_NAMES
_WANDB = re.compile(r"(?P<run>.+) - (?P<tag>.+?)(?P<bound>__MIN|__MAX)?")


def recognise(path: Path, head: bytes) -> bool:
    """Whether the file begins like a table of training metrics."""
    if path.suffix.lower() in _NEVER or is_dvclive(path, head) or head[:1] in (b"{", b"["):
        return False
    if b"\0" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return False
    if len(head) >= 4096 and head.count(b"\n") < 3:
        try:
            with path.open("rb") as file:
                head = file.read(_SNIFF)
        except OSError:
            return False
    return sniff(decode(head), complete=len(head) < 4096) is not None


def is_dvclive(path: Path, head: bytes) -> bool:
    """Whether the file is one metric of a DVCLive folder, which has its own reader."""
    if path.suffix != ".tsv":
        return False
    first = head.partition(b"\n")[0].decode("utf-8", errors="replace").rstrip("\r").split("\t")
    clocks = [name for name in first[:-1] if is_step(name) or is_wall_time(name)]
    return len(clocks) == len(first) - 1 > 0 and any(map(is_step, clocks)) and first[-1].endswith(path.stem)


def home(path: Path) -> Path:
    """The file itself; for AlgoPerf its folder, which holds the two tables of one run."""
    return path.parent if path.name in _ALGOPERF else path


def read(home: Path, files: Sequence[Path]) -> Iterator[RawRun]:
    """The runs in a table, or in the two tables of an AlgoPerf run."""
    if len(files) > 1:
        yield _algoperf(home, files)
        return
    for path in files:
        yield from _runs_of(path)


def _load(path: Path) -> tuple[Dialect, Table]:
    data = read_bytes(path)
    text = decode(data)
    dialect = sniff(text[:_SNIFF], complete=len(text) <= _SNIFF)
    if dialect is None:
        raise ReadError(
            f"{path}: expected a header with a step, epoch or loss column above rows of numbers, got none "
            f"in the first {min(len(text), _SNIFF)} characters; check the file or leave it out"
        )
    return dialect, read_table(data, text, dialect, path, _WANTED)


def _runs_of(path: Path) -> Iterator[RawRun]:
    dialect, table = _load(path)
    source = _source(path, dialect)
    params = settings_beside(path.parent) if path.stem in _PLAIN_STEMS or path.name in _ALGOPERF else {}
    name = path.parent.name if path.stem in _PLAIN_STEMS and path.parent.name else path.stem
    facts: dict[str, Fact] = {} if source in ("csv", "algoperf") else {"framework": source.removesuffix("-csv")}
    for label, where, columns in _separate(table):
        columns = _renamed(path, _by_split(_by_key(columns, table.words, where), table.words))
        series, notes = series_of(columns, table.height, str(path))
        if series:
            yield RawRun(
                name=f"{name}/{label}" if label else name,
                path=str(path),
                source=source,
                series=series,
                facts=facts,
                params={**params, **where},
                notes=(*table.notes, *notes),
            )


def _source(path: Path, dialect: Dialect) -> str:
    """The library that writes such a header."""
    names = list(dialect.names)
    if "global_step" in names and ("preemption_count" in names or path.name in _ALGOPERF):
        return "algoperf"
    if (
        names[0] == "epoch"
        and any(n.startswith("metrics/") for n in names)
        and any(n.startswith("train/") for n in names)
    ):
        return "ultralytics"
    if names[:2] == ["epoch", "train_loss"] and any(n.startswith("eval_") for n in names) and "step" not in names:
        return "timm"
    if path.name == "metrics.csv" and {"epoch", "step"} <= set(names):
        return "lightning-csv"
    rest = [n for n in names[1:] if n not in ("lr", "learning_rate")]
    if names[0] == "epoch" and "step" not in names and "loss" in names and rest == sorted(rest):
        return "keras-csv"
    return "csv"


def _algoperf(folder: Path, files: Sequence[Path]) -> RawRun:
    """One run from two tables; a row of eval_measurements.csv usually stands in measurements.csv too."""
    series: dict[str, RawSeries] = {}
    notes: list[Note] = []
    for path in sorted(files, key=lambda f: f.name, reverse=True):  # measurements.csv first
        try:
            _, table = _load(path)
        except ReadError as error:
            notes.append(Note("ignored-file", str(error)))
            continue
        found, said = series_of(table.columns, table.height, str(path))
        notes += [*table.notes, *said]
        for s in found:
            if s.tag not in series or len(s.values) > len(series[s.tag].values):
                series[s.tag] = s
    return RawRun(
        name=folder.name,
        path=str(folder),
        source="algoperf",
        series=tuple(series.values()),
        params=settings_beside(folder),
        notes=tuple(notes),
    )


def _labels(table: Table, names: frozenset[str]) -> dict[str, list[str]]:
    """What stands in the columns of these names, row by row, "" where nothing does."""
    out: dict[str, list[str]] = {}
    for column in table.columns:
        if column.tag.lower() in names:
            cells = [""] * table.height
            for row, value in zip(column.rows.tolist(), column.values.tolist(), strict=True):
                cells[row] = f"{value:g}"
            out[column.tag] = cells
    for tag, words in table.words.items():
        if tag.lower() in names:
            cells = out.setdefault(tag, [""] * table.height)
            for row, word in words.items():
                if row < table.height:
                    cells[row] = word
    return out


def _separate(table: Table) -> Iterator[tuple[str, dict[str, object], Sequence[Column]]]:
    """The runs of one table: a label, what tells the run apart, and its columns."""
    exported = _wandb_export(table.columns)
    if exported is not None:
        for run, columns in exported.items():
            yield run, {}, columns
        return
    labels = {tag: cells for tag, cells in _labels(table, _RUN_NAMES).items() if len(set(cells)) > 1}
    keys = list(zip(*labels.values(), strict=True)) if labels else []
    clock = find_step(table.columns) or find_epoch(table.columns)
    if not keys or clock is None or len(set(keys)) * 2 > len(keys) or not _starts_again(clock, keys):
        yield "", {}, table.columns
        return
    for key in dict.fromkeys(keys):
        mine = np.array([k == key for k in keys])
        columns = [_kept(c, mine[c.rows]) for c in table.columns if c.tag not in labels]
        where: dict[str, object] = dict(zip(labels, key, strict=True))
        label = ", ".join(f"{tag}={value}" for tag, value in where.items())
        yield label, where, [c for c in columns if len(c.rows)]


def _kept(column: Column, keep: NDArray[np.bool_], tag: str = "") -> Column:
    """Some cells of a column, under a new name if one is given."""
    return Column(tag or column.tag, column.rows[keep], column.values[keep])


def _starts_again(clock: Column, keys: Sequence[tuple[str, ...]]) -> bool:
    """Whether the clock runs on its own for each key, so that the keys are runs."""
    last: dict[tuple[str, ...], float] = {}
    backwards = 0
    for row, value in zip(clock.rows.tolist(), clock.values.tolist(), strict=True):
        backwards += value < last.get(keys[row], value)
        last[keys[row]] = value
    return int((clock.values[1:] <= clock.values[:-1]).sum()) > backwards


def _wandb_export(columns: Sequence[Column]) -> dict[str, list[Column]] | None:
    """The runs in a chart exported from Weights & Biases, whose columns are named "run - metric"."""
    clock = [c for c in columns if is_step(c.tag) or is_epoch(c.tag)]
    found: dict[str, list[Column]] = {}
    for c in columns:
        match = _WANDB.fullmatch(c.tag)
        if c in clock:
            continue
        if match is None:
            return None
        if match["bound"] is None and not (is_step(match["tag"]) or is_epoch(match["tag"])):
            found.setdefault(match["run"], list(clock)).append(Column(match["tag"], c.rows, c.values))
    return found if found and clock else None


def _by_key(
    columns: Sequence[Column], words: Mapping[str, Mapping[int, str]], where: Mapping[str, object]
) -> Sequence[Column]:
    """One column per metric, where each row holds one metric's name and value."""
    key = next((words[tag] for tag in words if tag.lower() in KEY_NAMES and tag not in where), None)
    value = next((c for c in columns if c.tag.lower() in VALUE_NAMES), None)
    if key is None or value is None:
        return columns
    found: dict[str, tuple[list[int], list[float]]] = {}
    for row, number in zip(value.rows.tolist(), value.values.tolist(), strict=True):
        if row in key:
            rows, numbers = found.setdefault(key[row], ([], []))
            rows.append(row)
            numbers.append(number)
    made = [Column(tag, np.array(rows, np.int64), np.array(numbers)) for tag, (rows, numbers) in found.items()]
    return [*(c for c in columns if c is not value), *made]


def _by_split(columns: Sequence[Column], words: Mapping[str, Mapping[int, str]]) -> Sequence[Column]:
    """One column per split, where each row says of which split it is."""
    splits = next(
        (w for tag, w in words.items() if tag.lower() in _SPLIT_NAMES and {x.lower() for x in w.values()} <= SPLITS),
        None,
    )
    if not splits:
        return columns
    out: list[Column] = []
    for c in columns:
        if is_step(c.tag) or is_epoch(c.tag) or is_wall_time(c.tag):
            out.append(c)
            continue
        of = np.array([splits.get(row, "").lower() for row in c.rows.tolist()], object)
        out += [_kept(c, of == split, f"{split}/{c.tag}" if split else c.tag) for split in dict.fromkeys(of)]
    return out


def _renamed(path: Path, columns: Sequence[Column]) -> Sequence[Column]:
    """TensorBoard exports one tag a file under "Value"; its name is in the name of the file."""
    if not any(c.tag == "Value" for c in columns):
        return columns
    tag = path.stem.split("-tag-")[-1]
    return [Column(tag, c.rows, c.values) if c.tag == "Value" else c for c in columns]
