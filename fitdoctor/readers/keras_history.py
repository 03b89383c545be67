"""Histories kept in memory and dumped as one JSON object of lists: Keras's ``History.history`` and its like.

A list has one value per epoch. Lists of another length (a loss per step beside a validation loss per epoch)
are laid over the same span when their lengths divide evenly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fitdoctor.errors import ReadError
from fitdoctor.readers.columns import Column, is_epoch, is_step
from fitdoctor.readers.csv_dialect import looks_like_metric
from fitdoctor.readers.decoding import decode, read_bytes
from fitdoctor.readers.json_lines import as_number, parse
from fitdoctor.readers.raw import RawRun, RawSeries
from fitdoctor.run import Note

SOURCE = "keras-history"

_LARGEST = 1 << 28
_PLAIN_STEMS = frozenset({"history", "metrics", "log", "results", "training", "train"})


def recognise(path: Path, head: bytes) -> bool:
    """Whether the file is one object of lists of numbers, some of them named like metrics."""
    if path.suffix.lower() not in (".json", ".txt", ".log", "") or head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"{":
        return False
    if b'"log_history"' in head or b"[" not in head:
        return False
    try:
        if path.stat().st_size > _LARGEST:
            return False
        found = _lists(path.read_bytes() if len(head) >= 4096 else head)
    except (OSError, ValueError):
        return False
    return any(looks_like_metric(tag) for tag in found)


def home(path: Path) -> Path:
    """The file itself."""
    return path


def read(home: Path, files: Sequence[Path]) -> Iterator[RawRun]:
    """The run in each file."""
    for path in files:
        try:
            lists = _lists(read_bytes(path))
        except ValueError as error:
            raise ReadError(
                f"{path}: expected one JSON object of lists, got broken JSON ({error}); the file is cut or damaged: "
                "write it again or leave it out"
            ) from error
        series, notes = _series(lists, path)
        if not series:
            raise ReadError(f"{path}: expected lists of numbers under the names of metrics, got none; leave it out")
        yield RawRun(
            name=path.parent.name if path.stem in _PLAIN_STEMS and path.parent.name else path.stem,
            path=str(path),
            source=SOURCE,
            series=series,
            notes=notes,
        )


def _lists(data: bytes) -> dict[str, tuple[Column, int]]:
    """Every list of numbers under its path, with its length. Raises ValueError for what is no JSON."""
    loaded = parse(decode(data))
    if not isinstance(loaded, Mapping):
        return {}
    inner = loaded.get("history")
    if isinstance(inner, Mapping):
        loaded = {**{k: v for k, v in loaded.items() if is_epoch(k) or is_step(k)}, **inner}
    return {column.tag: (column, length) for column, length in _walk(loaded, "", 4)}


def _walk(value: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[Column, int]]:
    for key, item in value.items():
        if isinstance(item, Mapping) and depth > 0:
            yield from _walk(item, f"{prefix}{key}/", depth - 1)
        elif isinstance(item, list):
            found = [(i, as_number(entry)) for i, entry in enumerate(item) if entry is not None]
            numbers = [(i, number) for i, number in found if number is not None]
            if numbers and len(numbers) == len(found):
                rows, values = zip(*numbers, strict=True)
                yield Column(f"{prefix}{key}", np.array(rows, np.int64), np.array(values, np.float64)), len(item)


def _series(lists: Mapping[str, tuple[Column, int]], path: Path) -> tuple[tuple[RawSeries, ...], tuple[Note, ...]]:
    clocks = [column for column, length in lists.values() if _is_clock(column) and len(column.rows) == length]
    metrics = {column: length for tag, (column, length) in lists.items() if column not in clocks}
    if not metrics:
        return (), ()
    notes: list[Note] = []
    shortest, longest = min(metrics.values()), max(metrics.values())
    uneven = sorted({length for length in metrics.values() if longest % length})
    if uneven:
        text = f"lists of {longest} and {', '.join(map(str, uneven))} values share no clock; each counts its own"
        notes.append(Note("ambiguous", f"{path}: {text}"))
    elif shortest != longest:
        text = f"lists of {shortest} to {longest} values were laid over the same span"
        notes.append(Note("aligned", f"{path}: {text}"))
    series = []
    for column, length in metrics.items():
        mine = [clock for clock in clocks if len(clock.rows) == length]
        steps = next((c.values[column.rows].astype(np.int64) for c in mine if is_step(c.tag)), None)
        epochs = next((c.values[column.rows] for c in mine if is_epoch(c.tag)), None)
        if steps is None and epochs is None:
            if shortest == longest or uneven:
                epochs = column.rows.astype(np.float64)
            else:
                steps = (column.rows + 1) * (longest // length)
        series.append(RawSeries(column.tag, column.values, steps, epochs))
    return tuple(series), tuple(notes)


def _is_clock(column: Column) -> bool:
    return (is_step(column.tag) or is_epoch(column.tag)) and bool((np.abs(column.values) < 2.0**53).all())
