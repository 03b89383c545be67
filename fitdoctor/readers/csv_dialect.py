"""What a table of text looks like: its delimiter, decimal sign and header, told from its first lines."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass

from fitdoctor.readers.columns import is_epoch, is_step
from fitdoctor.readers.decoding import MISSING, number

_DELIMITERS = (",", "\t", ";", " ")
_PREAMBLE = 10
"""Lines before the header that are looked past: titles, comments, a command line."""
_METRIC = re.compile(
    r"(?:^|[\W_])(?:loss|losses|acc|accuracy|top[-_]?[15]|error|err|lr|learning[ _]?rate|perplexity|ppl"
    r"|f1|auc|auroc|mae|mse|rmse"
    r"|grad|norm|m?ap|bleu|reward|wer|cer|iou|miou|dice|psnr|ssim|r2|precision|recall|nll|elbo|kl|bpc|bpb|score|metrics?"
    r"|train|val|valid|validation|eval|test)(?=$|[\W_\d])",
    re.IGNORECASE,
)
_LOSS = re.compile(r"loss", re.IGNORECASE)
KEY_NAMES = frozenset({"metric", "key", "tag", "variable", "metric_name", "name"})
"""Columns that hold the name of a metric, in tables of one value a row."""
VALUE_NAMES = frozenset({"value", "metric_value", "values"})
"""Columns that hold its value."""
_COMMA_NUMBER = re.compile(r"-?\d+,\d+(?:[eE][-+]?\d+)?")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a table is written.

    Attributes:
        delimiter: "," ";" tab, or " " for any run of white space.
        decimal: "." or ",".
        header: number of the line that holds the names, from 0.
        names: the names as they stand there, stripped.
    """

    delimiter: str
    decimal: str
    header: int
    names: tuple[str, ...]


def split(line: str, delimiter: str) -> list[str]:
    """The cells of a line, stripped."""
    if delimiter == " ":
        return line.split()
    if '"' in line:
        try:
            return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])]
        except csv.Error:
            pass
    return [cell.strip() for cell in line.split(delimiter)]


def looks_like_metric(name: str) -> bool:
    """Whether a column's name is one that training logs use."""
    return len(name) <= 200 and _METRIC.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)) is not None


def header_names(line: str, delimiter: str) -> list[str]:
    """The names in a header line, which may itself be a comment (``# epoch loss``)."""
    return split(line.lstrip("#% ") if line.startswith(("#", "%")) else line, delimiter)


def is_header(row: Sequence[str]) -> bool:
    """Whether a row in the middle of a table holds names again, a clock among them."""
    if len(row) < 2 or not any(is_step(cell) or is_epoch(cell) for cell in row):
        return False
    return all(cell and number(cell) is None for cell in row)


def _decimal(rows: Sequence[Sequence[str]], delimiter: str) -> str:
    if delimiter == ",":
        return "."
    commas = sum(bool(_COMMA_NUMBER.fullmatch(cell)) for row in rows for cell in row)
    points = sum("." in cell and number(cell) is not None for row in rows for cell in row)
    return "," if commas > points else "."


def _fits(names: Sequence[str], rows: Sequence[Sequence[str]], delimiter: str, decimal: str) -> bool:
    """Whether these names head these rows, and the rows are a training log."""
    n = len(names)
    if not rows or sum(number(name, decimal) is not None for name in names) * 5 > n:
        return False
    if sum(len(row) == n for row in rows) * 2 < len(rows):
        return False
    full = [row for row in rows if len(row) == n]
    cells = [[row[i] for row in full if row[i].lower() not in MISSING] for i in range(n)]
    numeric = [bool(c) and sum(number(x, decimal) is not None for x in c) * 2 > len(c) for c in cells]
    clocks = {i for i in range(n) if is_step(names[i]) or is_epoch(names[i])}
    others = [i for i in range(n) if i not in clocks and numeric[i]]
    if delimiter == " " and not all(numeric):
        return False
    if not others:
        return False
    if any(numeric[i] for i in clocks):
        filled = [i for i in range(n) if i not in clocks and cells[i]]
        if any(names[i].lower() in VALUE_NAMES for i in others) and any(name.lower() in KEY_NAMES for name in names):
            return True
        return any(looks_like_metric(names[i]) for i in others) or len(others) * 2 > len(filled)
    # No clock: only a table of numbers that speaks of a loss, row by row.
    return (
        len(full) >= 3
        and all(numeric[i] or not cells[i] for i in range(n))
        and any(_LOSS.search(names[i]) for i in others)
    )


def sniff(text: str, complete: bool = True) -> Dialect | None:
    """The dialect of a table with training metrics, or None when the text is no such table.

    Args:
        text: the beginning of the file.
        complete: False when the text may end within a line.

    Example:
        >>> sniff("epoch;loss\\n1;0,5\\n2;0,4\\n")
        Dialect(delimiter=';', decimal=',', header=0, names=('epoch', 'loss'))
        >>> sniff("name,city\\nAnn,Oslo\\n") is None
        True
    """
    lines = text.splitlines()
    if not complete and len(lines) > 1:
        lines = lines[:-1]
    full = [(i, line.strip("\r\n \0")) for i, line in enumerate(lines[:64])]
    full = [(i, line) for i, line in full if line.strip(" \t,;")]
    best: Dialect | None = None
    for position, (index, line) in enumerate(full[:_PREAMBLE]):
        below = [text for _, text in full[position + 1 : position + 41] if not text.startswith(("#", "%"))]
        for delimiter in _DELIMITERS:
            names = header_names(line, delimiter)
            if len(names) < 2 and not (names and _LOSS.search(names[0]) and delimiter == ","):
                continue
            rows = []
            for text in below:
                row = split(text, delimiter)
                if is_header(row):
                    break  # the log was appended to, perhaps with other columns
                rows.append(row)
            decimal = _decimal(rows, delimiter)
            if _fits(names, rows, delimiter, decimal) and (best is None or len(names) > len(best.names)):
                best = Dialect(delimiter, decimal, index, tuple(names))
        if best is not None:
            return best
    return None
