"""The sentences of a comparison, worded once for the terminal and for Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator

from fitdoctor.compare.comparison import Comparison, CurveChange, FactChange, FindingChange, Trial
from fitdoctor.compare.judge import UNITS, mean, number
from fitdoctor.finding import Severity
from fitdoctor.reporters.harmless import one_line
from fitdoctor.run import Fact

SEVERAL_NAMES = 3
"""More runs of one side than these are counted, not named."""


def side(names: tuple[str, ...]) -> str:
    """The runs of a side in a few words."""
    shown = ", ".join(one_line(name) or "a run" for name in names[:SEVERAL_NAMES])
    return shown if len(names) <= SEVERAL_NAMES else f"{shown} and {len(names) - SEVERAL_NAMES} more"


def fact_line(change: FactChange) -> tuple[str, str, str]:
    """Name, value before, value after."""
    return one_line(change.key), _values(change.before), _values(change.after)


def curve_cells(change: CurveChange) -> tuple[str, str, str, str, str]:
    """Signal, final before, final after, the gain, and what may be said of it."""
    final = change.final
    return (
        str(change.signal),
        _level(final.before),
        _level(final.after),
        gain(change),
        verdict(change),
    )


def gain(change: CurveChange) -> str:
    """The gain of the final level as a share of the range, with its direction."""
    if not math.isfinite(change.share):
        return change.direction
    return f"{change.share:+.1%} of range"


def verdict(change: CurveChange) -> str:
    """What may be said of a difference, and why no more."""
    tested = change.significance
    if change.call in ("better", "worse", "same"):
        return f"{change.call} (p = {tested.p:.2g})" if change.call != "same" else "same to within 2 % of range"
    if tested.method == "none":
        if change.direction == "level":
            return "level: within the noise of the curves, or below 2 % of range"
        times = _times(change)
        return f"{change.direction} in these two runs{times}; seeds untested"
    if not tested.possible:
        return f"{change.direction}; not significant by construction (smallest p {tested.smallest:.2g})"
    return f"cannot tell (p = {tested.p:.2g})"


def curve_details(change: CurveChange) -> Iterator[str]:
    """Best, mean level, own end and time to the old final level, a sentence each."""
    unit = UNITS[change.clock]
    low, high = change.stretch
    yield f"{unit} {low:,.6g} to {high:,.6g} of both"
    yield f"best {_level(change.best.before)} -> {_level(change.best.after)}"
    if all(map(math.isfinite, (*change.mean.before, *change.mean.after))):
        yield f"mean level {_level(change.mean.before)} -> {_level(change.mean.after)}"
    if change.at_end.before != change.final.before or change.at_end.after != change.final.after:
        yield f"at its own end {_level(change.at_end.before)} -> {_level(change.at_end.after)}"
    if math.isfinite(change.sooner) and change.sooner < 1:
        yield f"reached the old final level in {change.sooner:.0%} of its {unit}s"
    if change.significance.interval is not None:
        first, last = change.significance.interval
        yield f"95 % interval of the difference {number(first)} to {number(last)}"


def finding_line(change: FindingChange, sides: tuple[int, int]) -> str:
    """What became of a rule's findings, in one line."""
    text = f"{change.rule}: {one_line(change.message)}"
    if change.state == "still there" and change.before is not change.after:
        text = f"{text} ({change.before} before, {change.after} after)"
    if max(sides) > 1:
        text += f" (in {change.runs[0]} of {sides[0]} runs before, {change.runs[1]} of {sides[1]} after)"
    return f"{text}; {one_line(change.why)}" if change.why else text


def trial_lines(trial: Trial) -> tuple[str, str]:
    """What was tried, and what it was to do."""
    key, old, new = fact_line(trial.fact)
    advised = ", ".join((trial.rule, *trial.also))
    tried = f"{one_line(trial.title)} (for {advised}): {key} {old} -> {new}, {trial.applied}"
    return tried, one_line(trial.confirm)


def mark(holds: bool | None) -> str:
    """Yes, no, or not known."""
    return "?" if holds is None else "yes" if holds else "no"


def states(comparison: Comparison, *, everything: bool = False) -> list[tuple[str, list[FindingChange]]]:
    """Findings by what became of them, in the order of interest; empty groups left out.

    Args:
        comparison: the comparison.
        everything: with the notes of rules that could judge one side only.
    """
    order = ("gone", "new", "still there", "no longer judged", "not judged before")
    shown = [
        f
        for f in comparison.findings
        if everything or "judged" not in f.state or (f.after or f.before) is not Severity.NOTE
    ]
    groups = [(state, [f for f in shown if f.state == state]) for state in order]
    return [(state, found) for state, found in groups if found]


def _level(values: tuple[float, ...]) -> str:
    if not all(map(math.isfinite, values)):
        failed = sum(not math.isfinite(v) for v in values)
        return "failed" if len(values) == 1 else f"{failed} of {len(values)} failed"
    middle = number(mean(values))
    return middle if len(values) == 1 else f"{middle} ({number(min(values))} to {number(max(values))})"


def _times(change: CurveChange) -> str:
    noise, size = change.final.noise, abs(change.final.difference)
    if not (math.isfinite(noise) and noise > 0 and math.isfinite(size)):
        return ""
    return f", {size / noise:,.0f} times the noise of the curves"


def _values(values: tuple[Fact, ...]) -> str:
    if not values:
        return "not logged"
    return ", ".join(f"{v:.6g}" if isinstance(v, float) else one_line(str(v)) for v in values[:4]) + (
        ", ..." if len(values) > 4 else ""
    )
