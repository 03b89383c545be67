"""The cells of a table of text: by pandas where the file is large and clean, line by line where it is not."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fitdoctor.readers.columns import Cells, Column, is_wall_time
from fitdoctor.readers.csv_dialect import Dialect, header_names, is_header, split
from fitdoctor.readers.decoding import MISSING, moment, number
from fitdoctor.run import Note

if TYPE_CHECKING:
    import pandas as pd

_LARGE = 1 << 20
"""Bytes from which reading by pandas repays its import (1 s; the csv module reads 1 MB in about 0.2 s)."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table as read.

    Attributes:
        columns: the columns of numbers.
        words: for each column of words that was asked for, its text by row number.
        height: number of rows.
        notes: what was wrong with the file.
    """

    columns: tuple[Column, ...]
    words: Mapping[str, Mapping[int, str]]
    height: int
    notes: tuple[Note, ...] = ()


def unique_names(names: Sequence[str]) -> list[str]:
    """The names of a header, a number added to those that repeat, "" where there is none."""
    seen: Counter[str] = Counter()
    out = []
    for name in names:
        out.append(f"{name}.{seen[name]}" if name and seen[name] else name)
        seen[name] += 1
    return out


@dataclass(slots=True)
class _Lines:
    """Reads rows of text one at a time and keeps count of what was wrong with them."""

    dialect: Dialect
    where: str
    wanted: frozenset[str]
    names: list[str] = field(init=False)
    cells: Cells = field(default_factory=Cells)
    words: dict[str, dict[int, str]] = field(default_factory=dict)
    ragged: list[int] = field(default_factory=list)
    headers: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.names = unique_names(self.dialect.names)

    def add(self, line: str, number_of_line: int) -> None:
        text = line.strip("\r\n \0")
        if not text or (text[0] in "#%" and self._is_comment(text)):
            return
        row = split(line.strip("\r\n\0"), self.dialect.delimiter)
        if row == list(self.dialect.names) or is_header(row):
            self.names = unique_names(header_names(text, self.dialect.delimiter))
            self.headers.append(number_of_line)
            return
        if len(row) != len(self.names):
            if len(row) < 2 or any(row[len(self.names) :]):
                self.ragged.append(number_of_line)
                return
            if len(row) < len(self.names):
                # Cut by a crash, or without its trailing empty cells. The last one may be half a number.
                self.ragged.append(number_of_line)
                row = row[:-1]
        self.put(row)

    def put(self, row: Sequence[str]) -> None:
        """Append one row of cells."""
        found: list[tuple[str, float]] = []
        for name, cell in zip(self.names, row, strict=False):
            if not cell:
                continue
            value = number(cell, self.dialect.decimal)
            if value is None and is_wall_time(name):
                value = moment(cell)
            if value is not None:
                found.append((name, value))
            elif name.lower() in self.wanted and cell.lower() not in MISSING:
                self.words.setdefault(name, {})[self.cells.height] = cell
        if found:
            self.cells.add(found)

    def _is_comment(self, text: str) -> bool:
        return not is_header(header_names(text, self.dialect.delimiter))


def _torn(line: str, reader: _Lines) -> tuple[list[str], str]:
    """The cells of an unfinished last line that can be trusted, and what was dropped."""
    row = split(line.strip("\r\n\0"), reader.dialect.delimiter)
    if len(row) < len(reader.names):
        return [], "the last line ends within a row; it was left out"
    last = row[-1] if row else ""
    column = next((c for c in reader.cells.columns() if c.tag == reader.names[-1]), None)
    value = number(last, reader.dialect.decimal)
    if last and (value is None or (column is not None and _half_as_long(last, column))):
        return row[:-1], "the last line ends within a cell; that cell was left out"
    return row, ""


def _half_as_long(cell: str, column: Column) -> bool:
    """Whether a cell has half the digits of those above it, as a number cut short has: 7.1 of 7.1326e-02."""
    lengths = sorted(len(repr(value)) for value in column.values[-50:].tolist())
    return bool(lengths) and lengths[len(lengths) // 2] >= max(8, 2 * len(cell))


def read_lines(text: str, dialect: Dialect, where: str, wanted: frozenset[str]) -> Table:
    """A table line by line, whatever state it is in."""
    reader = _Lines(dialect, where, wanted)
    lines = text.split("\n") if "\n" in text else text.splitlines()
    tail = lines.pop() if lines else ""
    for i, line in enumerate(lines[dialect.header + 1 :], dialect.header + 2):
        reader.add(line, i)
    notes = list(_damage(reader))
    if tail.strip("\r \0"):
        row, why = _torn(tail, reader)
        if row:
            reader.put(row)
        if why:
            notes.append(Note("truncated", f"{where}: {why}", amount=len(tail)))
    return Table(tuple(reader.cells.columns()), reader.words, reader.cells.height, tuple(notes))


def _damage(reader: _Lines) -> list[Note]:
    notes = []
    if reader.ragged:
        first = reader.ragged[0]
        text = f"{len(reader.ragged)} rows, the first in line {first}, have a wrong number of cells"
        text = f"{reader.where}: {text}; what could be placed was used"
        notes.append(Note("corrupt", text, amount=len(reader.ragged)))
    if reader.headers:
        places = ", ".join(map(str, reader.headers[:3]))
        text = f"{reader.where}: the header stands again in line {places}; the log was appended to"
        notes.append(Note("other", text, amount=len(reader.headers)))
    return notes


def _read_fast(data: bytes, dialect: Dialect, where: str, wanted: frozenset[str]) -> Table | None:
    """The table by pandas; None where the file is too irregular for it."""
    import pandas as pd

    end = data.rfind(b"\n") + 1
    names = unique_names(dialect.names)
    missing = sorted({variant for m in MISSING for variant in (m, m.upper(), m.capitalize())})
    try:
        frame = pd.read_csv(
            io.BytesIO(data[:end] if end < len(data) else data),
            sep=r"\s+" if dialect.delimiter == " " else dialect.delimiter,
            header=None,
            names=list(range(len(names))),
            skiprows=dialect.header + 1,
            decimal=dialect.decimal,
            na_values=missing,
            keep_default_na=False,
            low_memory=False,
            index_col=False,
            encoding="utf-8-sig",
            encoding_errors="replace",
        )
    except (pd.errors.ParserError, ValueError, OverflowError):
        return None
    height = len(frame)
    columns: list[Column] = []
    words: dict[str, dict[int, str]] = {}
    for i, name in enumerate(names):
        cells = frame[i]
        if cells.dtype == object or pd.api.types.is_string_dtype(cells.dtype):
            found = _from_words(name, cells, wanted, words)
            if found is None:
                return None
            columns.append(found)
        elif cells.dtype != bool:
            filled = cells.notna().to_numpy()
            rows = np.flatnonzero(filled).astype(np.int64)
            columns.append(Column(name, rows, cells.to_numpy(np.float64, na_value=np.nan)[filled]))
    notes: tuple[Note, ...] = ()
    if end < len(data) and data[end:].strip(b"\r \0"):
        notes = (Note("truncated", f"{where}: the last line has no end; it was left out", amount=len(data) - end),)
    return Table(tuple(c for c in columns if len(c.rows)), words, height, notes)


def _from_words(
    name: str, cells: pd.Series[str], wanted: frozenset[str], words: dict[str, dict[int, str]]
) -> Column | None:
    """Numbers in a column that pandas left as text; None when the header stands in it again."""
    rows = np.flatnonzero(cells.notna().to_numpy()).astype(np.int64)
    text = [str(cell).strip() for cell in cells.to_numpy(object)[rows]]
    if name in text:
        return None
    numbers = [number(cell) for cell in text]
    if name.lower() in wanted:
        words[name] = {int(r): t for r, t, n in zip(rows, text, numbers, strict=True) if n is None}
    good = np.array([n is not None for n in numbers], bool)
    return Column(name, rows[good], np.array([n for n in numbers if n is not None], np.float64))


def read_table(data: bytes, text: str, dialect: Dialect, path: Path, wanted: frozenset[str]) -> Table:
    """The table in a file.

    Args:
        data: the whole file.
        text: the same, decoded.
        dialect: how it is written.
        path: the file, for notes.
        wanted: names, in lower case, of the columns of words to keep.

    Returns:
        its columns; never raises for what stands in the file.
    """
    if len(data) >= _LARGE and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        table = _read_fast(data, dialect, str(path), wanted)
        if table is not None:
            return table
    return read_lines(text, dialect, str(path), wanted)
