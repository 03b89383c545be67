"""JSON as training loops write it: one object a line, NaN literals, a last line cut short."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from fitdoctor.readers.decoding import decode, has_wide_characters, unreadable

_SHORT = 16
"""A list of at most this many numbers is one value per parameter group; a longer one is data."""
_DEPTH = 12


def parse(text: bytes | str) -> Any:
    """The value of a JSON text. NaN and Infinity, which JSON forbids and Python writes, are numbers.

    Raises:
        ValueError: if it is no JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        pass  # broken, or NaN: the standard library takes the latter
    try:
        return json.loads(text if isinstance(text, str) else text.decode("utf-8", errors="replace"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def as_number(value: object) -> float | None:
    """The number that a JSON value stands for, or None. Strings that are numbers count, booleans do not.

    Example:
        >>> as_number("0.25"), as_number(True), as_number("NaN"), as_number("adam")
        (0.25, None, nan, None)
    """
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if isinstance(value, str) and len(value) < 40 and "_" not in value:
        try:
            return float(value)
        except ValueError:
            return None
    return None


def numbers_in(value: Mapping[str, Any], prefix: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, float]]:
    """Every number in an object under its path, joined with "/".

    Example:
        >>> list(numbers_in({"train": {"loss": 0.5}, "lr": [0.1, 0.01], "name": "x"}))
        [('train/loss', 0.5), ('lr/0', 0.1), ('lr/1', 0.01)]
    """
    for key, item in value.items():
        tag = f"{prefix}{key}" if prefix else str(key)
        if type(item) is float:  # nearly all of them
            yield tag, item
        elif isinstance(item, Mapping):
            if depth > 0:
                yield from numbers_in(item, f"{tag}/", depth - 1)
        elif isinstance(item, list):
            if len(item) == 1 and (only := as_number(item[0])) is not None:
                yield tag, only
            elif len(item) <= _SHORT:
                for i, part in enumerate(item):
                    found = as_number(part)
                    if found is not None:
                        yield f"{tag}/{i}", found
        else:
            found = as_number(item)
            if found is not None:
                yield tag, found


def objects_of_list(text: str) -> Iterator[Any]:
    """The whole values at the beginning of a JSON list that is cut.

    Example:
        >>> list(objects_of_list('[{"a": 1}, {"a": 2}, {"a"'))
        [{'a': 1}, {'a': 2}]
    """
    decoder, at = json.JSONDecoder(), text.find("[") + 1
    while 0 < at < len(text):
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return
        yield value


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a file in UTF-8, one at a time, whatever it is written in; a last line may have no end.

    Raises:
        ReadError: if the operating system does not let us read it.
    """
    try:
        with path.open("rb") as file:
            if has_wide_characters(file.read(4)):
                file.seek(0)
                yield from decode(file.read()).encode().splitlines(keepends=True)
                return
            file.seek(0)
            yield from file
    except OSError as error:
        raise unreadable(path, error) from error
