"""Tables that loops draw in text logs: ``| epoch | train | val |`` rows, boxes, and columns of white space."""

from __future__ import annotations

import re

from fitdoctor.readers.columns import is_epoch, is_step
from fitdoctor.readers.text_line import quantity
from fitdoctor.readers.text_words import is_metric

_BARS = re.compile(r"[|│┃┆║]")
_RULE = re.compile(r"[\s|│┃║+:=\-─━═┼╪╬├┤┬┴┌┐└┘╭╮╰╯╞╡╔╗╚╝╠╣╦╩┏┓┗┛┡┩┢┪╇╈┳┻╋_*]+")
_PROGRESS = re.compile(r":?\s*\d+%\|.*")
_GAP = re.compile(r"\t+|\s{2,}")
_PATIENCE = 3
"""Lines that fit nowhere before a table is taken to have ended."""


def _cells(line: str) -> list[str]:
    cells = [cell.strip() for cell in _BARS.split(line)]
    while cells and not cells[0]:
        cells.pop(0)
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _head(cells: list[str]) -> tuple[str, ...] | None:
    """The cells as names of columns, or None when they cannot be."""
    # YOLO splits "Box(P R mAP50 mAP50-95)" over four columns.
    names = tuple(cell.strip(" :") if "(" in cell else cell.strip(" :").rstrip(")") for cell in cells)
    if len(names) < 2 or any(len(name) > 40 or quantity(name) is not None for name in names):
        return None
    known = [name for name in names if is_epoch(name) or is_step(name) or is_metric(name)]
    return names if known and (len(known) > 1 or len(names) > 2) else None


class TableReader:
    """Follows the lines of a log and reads those that are rows of a table."""

    def __init__(self) -> None:
        self._bars: tuple[str, ...] | None = None
        self._blank: list[tuple[str, ...]] = []
        self._misses = 0
        self._label: str | None = None

    @property
    def open(self) -> bool:
        """Whether a header has been seen whose rows may follow."""
        return self._bars is not None or bool(self._blank)

    def header(self, line: str) -> bool:
        """Take a line as the header of a table, if it can be one."""
        line = _PROGRESS.sub("", line)
        if _BARS.search(line):
            found = _head(_cells(line))
            if found is None:
                return False
            self._bars, self._blank = found, []
        else:
            ways = [_head([c for c in _GAP.split(line.strip()) if c]), _head(line.split())]
            blank = [names for names in ways if names is not None]
            if not blank:
                return False
            self._bars, self._blank = None, list(dict.fromkeys(blank))
        self._misses, self._label = 0, None
        return True

    def row(self, line: str) -> dict[str, float] | None:
        """The numbers of a row of the open table under the names of their columns; None when it is no row."""
        line = _PROGRESS.sub("", line)
        if not line.strip() or _RULE.fullmatch(line):
            return None
        if self._bars is not None:
            found = self._numbers(self._bars, _cells(line), exact=True) if _BARS.search(line) else None
        else:
            found = None
            for names in self._blank:
                found = self._numbers(names, line.split(), exact=False)
                if found is not None:
                    break
        if found is None:
            self._misses += 1
            if self._misses >= _PATIENCE:
                self._bars, self._blank = None, []
        else:
            self._misses = 0
        return found

    def _numbers(self, names: tuple[str, ...], cells: list[str], exact: bool) -> dict[str, float] | None:
        n = len(names)
        if len(cells) < n or (exact and len(cells) != n):
            return None
        if len(cells) > n and quantity(cells[n]) is not None:
            return None
        values = [quantity(cell) for cell in cells[:n]]
        count = sum(value is not None for value in values)
        labelled = values[0] is None and count >= n - 1 >= 2
        if count * 5 < n * 3 and not labelled:
            return None
        if labelled and not any(is_epoch(name) or is_step(name) for name in names):
            # One row per class, "all" first: only the first kind of row is the log's curve.
            self._label = self._label or cells[0]
            if cells[0] != self._label:
                return {}
        return {name: value for name, value in zip(names, values, strict=True) if name and value is not None}
