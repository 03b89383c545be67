"""Bytes of a file to text and numbers, however the writer encoded them."""

from __future__ import annotations

import codecs
import re
from datetime import datetime
from pathlib import Path

from fitdoctor.errors import ReadError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),  # what PowerShell's `>` writes
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

MISSING = frozenset({"", "none", "null", "na", "n/a", "<na>", "-", "--", "nil"})
"""Cells that mean "not measured", in lower case. An explicit nan is not among them: it is data."""

_PLAIN = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|[-+]?(?:nan|inf|infinity)", re.IGNORECASE)
_WRAPPED = re.compile(r"(?:tensor|array|np\.float\d+|float\d*)?\(?\[?\s*([-+\w.]+)\s*\]?\s*(?:,[^()]*)?\)?")


def read_bytes(path: Path) -> bytes:
    """The whole content of a file.

    Raises:
        ReadError: if the operating system does not let us read it.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> ReadError:
    """The error to raise when the operating system refuses a file."""
    return ReadError(
        f"{path}: expected a readable log file, got {error.strerror or error}; "
        "check that the file exists and that you may read it, or leave it out"
    )


def decode(data: bytes) -> str:
    """Text of a file in UTF-8, or in what its byte order mark says; undecodable bytes become U+FFFD.

    Example:
        >>> decode(b"\\xef\\xbb\\xbfepoch,loss")
        'epoch,loss'
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, errors="replace")
    return data.decode("utf-8", errors="replace")


def has_wide_characters(head: bytes) -> bool:
    """Whether a file begins with the mark of an encoding in which a line does not end with one byte."""
    return head.startswith(tuple(mark for mark, encoding in _BOMS if encoding != "utf-8"))


def number(cell: str, decimal: str = ".") -> float | None:
    """The number in a cell of text, or None where there is none.

    Takes what loops really print: ``85.5%`` (0.855), ``tensor(0.5, device='cuda:0')``, ``[0.5]``, ``nan``, ``-inf``.

    Example:
        >>> number("1e-3"), number(" 85.5% "), number("tensor(0.25, grad_fn=<NllLossBackward0>)")
        (0.001, 0.855, 0.25)
        >>> number("None"), number("resnet18"), number("0,5", decimal=",")
        (None, None, 0.5)
    """
    text = cell.strip().strip("\"'")
    if text.endswith("%"):
        part = number(text[:-1], decimal)
        return None if part is None else part / 100
    if decimal != ".":
        text = text.replace(decimal, ".")
    if not _PLAIN.fullmatch(text):
        wrapped = _WRAPPED.fullmatch(text)
        if wrapped is None or not _PLAIN.fullmatch(wrapped[1]):
            return None
        text = wrapped[1]
    return float(text)


def moment(cell: str) -> float | None:
    """Seconds since the Unix epoch of a date and time as people write them, or None.

    Example:
        >>> moment("2024-05-01T12:00:00+00:00")
        1714564800.0
    """
    text = cell.strip().strip("\"'").replace("/", "-").replace(",", ".")
    if len(text) < 10 or not text[:4].isdigit():
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return None
