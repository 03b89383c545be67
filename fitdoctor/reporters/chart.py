"""Small charts in text: one curve on a few rows of braille cells, or a sparkline on one.

A braille cell is a grid of 2 by 4 dots, so a chart of 60 by 6 cells shows 120 by 24 dots. Where the
output cannot hold braille, one mark a cell does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Points = Sequence[tuple[int, float]]
Role = Literal["axis", "curve", "bad", "mark"]
Row = list[tuple[str, Role]]

LOG_RATIO = 20.0
"""Positive values whose largest is this many times the smallest go on a log axis: on a linear one,
everything below a twentieth of the top would fall within one dot of 24."""

GUTTER = 8
"""Characters left of the axis for its labels."""

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII_BLOCKS = "_.-=+*#@"
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # Unicode: bit of each dot, by row and column


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters a chart is drawn with."""

    braille: bool
    blocks: str
    bad: str
    mark: str
    side: str
    corner: str
    floor: str


UNICODE = Glyphs(True, _BLOCKS, "×", "▲", "│", "└", "─")
ASCII = Glyphs(False, _ASCII_BLOCKS, "x", "^", "|", "+", "-")


def number(value: float) -> str:
    """A number in at most seven characters.

    Example:
        >>> number(0.000012345), number(1234.5), number(2.5), number(float("-inf"))
        ('1.2e-05', '1234', '2.5', '-inf')
    """
    if not math.isfinite(value):
        return str(value)
    text = f"{value:.3g}"
    if "e+" in text and abs(value) < 1e5:
        text = f"{value:.0f}"
    return next((t for t in (text, f"{value:.1e}") if len(t) <= 7), f"{value:.0e}")


def step(value: int) -> str:
    """A training step with its thousands set off: ``1,500``."""
    return f"{value:,}"


def is_log(points: Points) -> bool:
    """Whether the curve is drawn on a log axis."""
    return _Scale([v for _, v in points]).log


def sparkline(points: Points, width: int = 20, glyphs: Glyphs = UNICODE) -> str:
    """The curve on one line; values that are not finite show as a cross.

    Example:
        >>> sparkline([(0, 1.0), (1, 2.0), (2, float("nan")), (3, 3.0)], 4)
        '▁▅×█'
    """
    if not points:
        return ""
    width = min(width, len(points))
    scale = _Scale([v for _, v in points])
    cells: list[list[float]] = [[] for _ in range(width)]
    for i, (_, value) in enumerate(points):
        cells[i * width // len(points)].append(value)
    text = ""
    for cell in cells:
        finite = [v for v in cell if math.isfinite(v)]
        if len(finite) < len(cell):
            text += glyphs.bad
        else:
            # The value farthest from the middle, so that a spike does not drown in the mean of its cell.
            height = max((scale.height(v) for v in finite), key=lambda h: abs(h - 0.5))
            text += glyphs.blocks[min(int(height * len(glyphs.blocks)), len(glyphs.blocks) - 1)]
    return text


def chart(
    points: Points, marks: Iterable[tuple[int, str]] = (), *, width: int = 60, height: int = 6, glyphs: Glyphs = UNICODE
) -> list[Row]:
    """The curve as rows of text with a labelled axis.

    Args:
        points: (step, value) pairs in the order of their steps.
        marks: (step, label) pairs to point at below the axis.
        width: characters of the whole chart, labels included.
        height: rows of the plot itself.
        glyphs: what to draw with.

    Returns:
        Rows of (text, role) pieces; the role tells the caller which colour to give.
    """
    if not points:
        return []
    columns = max(8, width - GUTTER - 1)
    scale = _Scale([v for _, v in points])
    first, last = points[0][0], points[-1][0]

    def column(at: int, cells: int) -> int:
        return round((min(max(at, first), last) - first) / max(1, last - first) * (cells - 1))

    canvas = _draw([(column(s, 2 * columns), v) for s, v in points], scale, columns, height)
    rows: list[Row] = []
    bad = {column(s, columns): v for s, v in points if not math.isfinite(v)}
    if bad:
        kinds = {"nan" if math.isnan(v) else "inf" for v in bad.values()}
        line = "".join(glyphs.bad if i in bad else " " for i in range(columns))
        rows.append([("/".join(sorted(kinds)).rjust(GUTTER - 1) + " ", "bad"), (" " + line.rstrip(), "bad")])
    high, low = number(scale.high), number(scale.low)
    if high == low:  # as three digits show them
        high, low = f"{scale.high:.5g}"[: GUTTER - 1], f"{scale.low:.5g}"[: GUTTER - 1]
    for i, cells in enumerate(canvas):
        label = high if i == 0 else low if i == height - 1 else ""
        if not scale.spread and i != height // 2:
            label = ""
        elif not scale.spread:
            label = number(scale.low)
        drawn = "".join(_cell(c, glyphs) for c in cells).rstrip()
        rows.append([(f"{label:>{GUTTER - 1}} {glyphs.side}", "axis"), (drawn, "curve")])
    rows += _below(points, [(column(s, columns), s, text) for s, text in marks], columns, glyphs)
    return rows


class _Scale:
    """Maps values to 0..1, on a log axis where they span decades."""

    def __init__(self, values: Sequence[float]) -> None:
        finite = [v for v in values if math.isfinite(v)] or [0.0]
        self.low, self.high = min(finite), max(finite)
        self.log = self.low > 0 and self.high / self.low > LOG_RATIO
        self.spread = self.high > self.low

    def height(self, value: float) -> float:
        """Where the value lies between the lowest (0) and the highest (1)."""
        if not self.spread:
            return 0.5
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        # Halved first: the difference of two huge floats can overflow.
        return (value / 2 - low / 2) / (high / 2 - low / 2) if high / 2 > low / 2 else 0.5


def _draw(points: Sequence[tuple[int, float]], scale: _Scale, columns: int, height: int) -> list[list[int]]:
    """Braille bits of each cell; consecutive finite points are joined."""
    canvas = [[0] * columns for _ in range(height)]
    top = 4 * height - 1

    def dot(x: int, y: int) -> None:
        canvas[(top - y) // 4][x // 2] |= _DOTS[(top - y) % 4][x % 2]

    before: tuple[int, int] | None = None
    for x, value in points:
        if not math.isfinite(value):
            before = None
            continue
        y = round(scale.height(value) * top)
        x0, y0 = before or (x, y)
        count = max(abs(x - x0), abs(y - y0), 1)
        for i in range(count + 1):
            dot(x0 + round((x - x0) * i / count), y0 + round((y - y0) * i / count))
        before = (x, y)
    return canvas


def _cell(bits: int, glyphs: Glyphs) -> str:
    if not bits:
        return " "
    if glyphs.braille:
        return chr(0x2800 + bits)
    upper, lower = bits & 0x1B, bits & 0xE4
    return "*" if upper and lower else "'" if upper else "."


def _below(points: Points, marks: Sequence[tuple[int, int, str]], columns: int, glyphs: Glyphs) -> list[Row]:
    """The axis, the pointers of the marks, and their labels on as many rows as they need."""
    indent = " " * (GUTTER - 1)
    pointer = [glyphs.floor] * columns
    for at, _, _ in marks:
        pointer[at] = glyphs.mark
    axis: Row = [(f"{indent} {glyphs.corner}", "axis")]
    for character in pointer:
        axis.append((character, "mark" if character == glyphs.mark else "axis"))
    ends = [" "] * columns
    left, right = step(points[0][0]), step(points[-1][0])
    if len(left) + len(right) < columns:
        ends[: len(left)] = left
        ends[columns - len(right) :] = right
    lines: list[list[str]] = [ends]
    for at, where, text in marks:
        label = f"{text} {step(where)}" if text else step(where)
        label = label[:columns]
        start = max(0, min(at - len(label) // 2, columns - len(label)))
        free = slice(max(0, start - 1), start + len(label) + 1)
        line = next((x for x in lines if set(x[free]) == {" "}), None)
        if line is None:
            line = [" "] * columns
            lines.append(line)
        line[start : start + len(label)] = label
    below: list[Row] = [[(f"{indent}  {''.join(line).rstrip()}", "axis")] for line in lines]
    return [axis, *below]
