"""How things look in a notebook: HTML without script or style sheet, curves as inline SVG.

A notebook may be light or dark and does not say so: text keeps the notebook's own colour, and the few colours here
stand out from both. Knows nothing of runs; `Run`, `Finding` and `Report` hand over what to show.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape

Points = Sequence[tuple[int, float]]

COLOURS = ("#3b82d6", "#d9762b", "#9a6fd0", "#3f9e5f")
STATES = {
    "sick": "#d1453b", "error": "#d1453b", "warning": "#b97a10", "healthy": "#2f9650",
    "note": "#3b82d6", "cannot judge": "#80868d",
}  # fmt: skip
LOG_RATIO = 20.0
"""As in `fitdoctor.reporters.chart`: below a twentieth of the top a linear axis shows nothing."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 14, 16


def text(value: object) -> str:
    """Text of a log as HTML that shows it: no markup, nothing invisible, its reading order kept to itself.

    Example:
        >>> text("<b>\\u202e")
        '<bdi>&lt;b&gt;�</bdi>'
    """
    return f"<bdi>{_plain(value)}</bdi>"


def _plain(value: object) -> str:
    return escape("".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in str(value)))


def badge(state: str) -> str:
    """A state in its colour, and in words."""
    return f'<b style="color:{STATES.get(state, "inherit")}">{escape(state)}</b>'


def small(html: str) -> str:
    """A line beside the point."""
    return f'<div style="opacity:.7;font-size:90%">{html}</div>'


def card(head: str, blocks: Iterable[str], *, colour: str = "#80868d") -> str:
    """A block of HTML with a line of colour beside it."""
    inner = "".join(blocks)
    return (
        f'<div style="border-left:3px solid {colour};padding:.2em 0 .2em .9em;margin:.4em 0;max-width:52em">'
        f'<div style="font-size:110%">{head}</div>{inner}</div>'
    )


def listed(items: Iterable[str], *, ordered: bool = False) -> str:
    """A list of pieces of HTML, or nothing for none."""
    inner = "".join(f"<li>{item}</li>" for item in items)
    tag = "ol" if ordered else "ul"
    return f'<{tag} style="margin:.2em 0;padding-left:1.4em">{inner}</{tag}>' if inner else ""


def code(lines: str) -> str:
    """Lines of code."""
    shown = "\n".join(_plain(line) for line in lines.splitlines())
    return f'<pre style="margin:.2em 0 .4em;padding:.4em .7em;border:1px solid #80868d55;overflow-x:auto">{shown}</pre>'


def told_apart(curves: Sequence[tuple[str, Points]]) -> list[tuple[str, Points]]:
    """Curves of one signal that was logged at two cadences, under labels that differ.

    Example:
        >>> [label for label, _ in told_apart([("loss", [(0, 1.0)]), ("loss", [(0, 1.0), (1, 0.5)])])]
        ['loss, logged less often', 'loss']
    """
    most = {label: max(len(points) for other, points in curves if other == label) for label, _ in curves}
    return [
        (label if len(points) == most[label] else f"{label}, logged less often", points) for label, points in curves
    ]


def chart(
    curves: Sequence[tuple[str, Points]], marks: Iterable[tuple[int, str]] = (), *, width: int = 460, height: int = 120
) -> str:
    """Curves over steps as an SVG picture, with its content in words for those who cannot see it.

    Args:
        curves: (label, points) pairs; values that are not finite show as crosses above.
        marks: (step, label) pairs to mark.
        width: in pixels.
        height: in pixels.
    """
    curves = told_apart([(label, points) for label, points in curves if points])
    if not curves:
        return ""
    finite = [v for _, points in curves for _, v in points if math.isfinite(v)] or [0.0]
    low, high = min(finite), max(finite)
    log = low > 0 and high / low > LOG_RATIO
    first = min(points[0][0] for _, points in curves)
    last = max(points[-1][0] for _, points in curves)

    def x(step: int) -> float:
        return _LEFT + (step - first) / max(1, last - first) * (width - _LEFT - _RIGHT)

    def y(value: float) -> float:
        # Halved, or as logarithms: the difference of two huge floats can overflow.
        a, b, v = (math.log(n) if log else n / 2 for n in (low, high, value))
        return _TOP + (1 - ((v - a) / (b - a) if b > a else 0.5)) * (height - _TOP - _BOTTOM)

    drawn = [_line(points, x, y, COLOURS[i % len(COLOURS)]) for i, (_, points) in enumerate(curves)]
    for step, label in marks:
        if first <= step <= last:
            end = x(step) > width - 90
            drawn.append(
                f'<line x1="{x(step):.1f}" x2="{x(step):.1f}" y1="{_TOP}" y2="{height - _BOTTOM}" '
                'stroke="currentColor" stroke-dasharray="3 3" opacity=".6"/>'
                + _label(x(step) + (-3 if end else 3), _TOP + 8, _plain(label), "end" if end else "start")
            )
    ends = [_label(_LEFT - 5, y(high) + 4, f"{high:.3g}", "end")]
    if high > low:
        ends.append(_label(_LEFT - 5, y(low) + 4, f"{low:.3g}", "end"))
    ends += [_label(_LEFT, height - 3, f"{first:,}"), _label(width - _RIGHT, height - 3, f"{last:,}", "end")]
    words = "; ".join(f"{label} from {points[0][1]:.3g} to {points[-1][1]:.3g}" for label, points in curves)
    legend = " ".join(
        f'<span style="color:{COLOURS[i % len(COLOURS)]}">▬</span> {text(label)}' for i, (label, _) in enumerate(curves)
    )
    return (
        f'<div style="margin:.3em 0">{small(legend + (" · log scale" if log else ""))}'
        f'<svg role="img" aria-label="{_plain(words)}" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" style="max-width:100%;height:auto">{"".join(drawn)}{"".join(ends)}</svg></div>'
    )


def _label(x: float, y: float, words: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="10" fill="currentColor" opacity=".75">'
        f"{words}</text>"
    )


def _line(points: Points, x: Callable[[int], float], y: Callable[[float], float], colour: str) -> str:
    cross = f'<text x="{{:.1f}}" y="{_TOP - 3}" text-anchor="middle" font-size="11" fill="#d1453b">×</text>'
    path, pen, crosses = "", "M", ""
    for step, value in points:
        if math.isfinite(value):
            path += f"{pen}{x(step):.1f} {y(value):.1f}"
            pen = "L"
        else:
            crosses += cross.format(x(step))
            pen = "M"
    return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>{crosses}'
