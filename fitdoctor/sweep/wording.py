"""The sentences of a sweep, worded once for the terminal and for Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from fitdoctor.reporters.harmless import one_line
from fitdoctor.sweep.result import Band, Edge, Level, Separation, Sweep, Winner
from fitdoctor.sweep.separation import spelled
from fitdoctor.sweep.settings import Value

_SHOWN = 8
"""More values of a setting than these are not listed."""


def headline(sweep: Sweep) -> str:
    """How many runs there are, and what became of them."""
    counts = sweep.counts
    told = [f"{counts[key]} {key}" for key in ("sick", "healthy") if counts[key]]
    if counts["cannot judge"]:
        told.append(f"{counts['cannot judge']} cannot be judged")
    states = [f"{counts[key]} {key}" for key in ("diverged", "crashed", "unfinished") if counts[key]]
    text = f"{plural(counts['runs'], 'run')}: {', '.join(told)}"
    return f"{text}; {', '.join(states)}" if states else text


def objective(sweep: Sweep) -> str:
    """What the runs are ranked by."""
    found = sweep.objective
    if found is None:
        return "nothing that (nearly) all runs logged"
    how = "final level" if found.at == "final" else "best smoothed value"
    return f"{one_line(found.name)}, {how}, {found.better} is better ({found.why})"


def axis_lines(sweep: Sweep) -> Iterator[tuple[str, str]]:
    """Each varying setting with its values; then what tells repeats apart, and what only names runs."""
    for axis in sweep.axes:
        names = ", ".join(map(one_line, (axis.name, *axis.also)))
        values = [one_line(spelled(v), 40) for v in axis.values]
        if len(values) > _SHOWN:
            values = [values[0], values[1], "...", values[-1], f"({len(axis.values)} values)"]
        yield names, " ".join(values) if len(axis.values) > _SHOWN else ", ".join(values)
    if sweep.seeds:
        yield ", ".join(map(one_line, sweep.seeds)), "tells repeats apart"
    if sweep.identifiers:
        yield ", ".join(map(one_line, sweep.identifiers)), "names runs; left out"


def separation_line(found: Separation) -> str:
    """What may be said of a setting."""
    name = one_line(found.setting)
    if found.finding == "nothing to separate":
        return f"{name}: nothing to separate, the judged runs are all alike"
    if found.finding == "not significant by construction":
        return (
            f"{name}: not significant by construction: {plural(found.configurations, 'configuration')} cannot reach "
            f"p < 0.05 (smallest {found.smallest:.2g} after correction)"
        )
    if found.finding == "not shown":
        return f"{name}: not shown to matter (p = {found.corrected:.2g} after correction)"
    inside, outside = found.rates
    share = f"{inside:.0%} of the configurations there are sick, {outside:.0%} of the others"
    text = f"{name} separates: {one_line(found.where)}: {share} (p = {found.corrected:.2g} after correction)"
    if found.finding == "explained by another":
        return (
            f"{name}: {share}, but not once {one_line(found.given)} is held fixed (p = {found.p_given:.2g}): "
            f"{one_line(found.given)} accounts for it"
        )
    if found.given:
        text += f"; also with {one_line(found.given)} held fixed (p = {found.p_given:.2g})"
    return text


def level_cells(level: Level) -> tuple[str, ...]:
    """Value, runs, sick, healthy, not judged, diverged, causes."""
    causes = ", ".join(f"{name} {n}" for name, n in level.causes)
    counts = (level.runs, level.sick, level.healthy, level.not_judged, level.diverged)
    return (one_line(level.label, 40), *map(str, counts), causes)


LEVEL_HEAD = ("value", "runs", "sick", "healthy", "not judged", "diverged", "main causes")


def group_name(group: Mapping[str, Value]) -> str:
    """What the runs of a group have in common, in words; "all runs" for nothing."""
    return ", ".join(f"{one_line(k)}={one_line(spelled(v), 40)}" for k, v in group.items()) or "all runs"


def band_line(band: Band) -> str:
    """The band of a group in one line."""
    if band.low is None or band.high is None or band.best is None:
        return band.why_not
    first, last, best = rate(band.low.inside), rate(band.high.inside), rate(band.best)
    text = f"{first} to {last}, best {best}" if first != last else f"{best} alone"
    ends = ", ".join(filter(None, (_edge("lower", band.low), _edge("upper", band.high))))
    return f"{text}; {ends}"


def band_details(band: Band) -> Iterator[str]:
    """What the band rests on, a sentence each."""
    if band.best is None:
        return
    percent = f"{band.tolerance:.1%}".replace(".0%", "%")
    yield f"regret up to {percent} of the range, {number(band.range)}"
    if band.repeats:
        yield (
            f"seeds differ by {number(band.noise)} ({plural(band.repeats, 'configuration')} repeated); the ends are "
            "95 % intervals over seeds"
        )
    else:
        yield "no seed repeated: the ends are the gaps of the grid, without the noise of seeds"
    if band.pooled:
        yield f"{', '.join(map(one_line, band.pooled))} vary freely: at each rate the best of them counts"
    if band.binned:
        yield "rates in bins, three a decade"
    diverged = sum(r.diverged for r in band.rates)
    if diverged:
        lowest = min(r.rate for r in band.rates if r.diverged)
        yield f"{diverged} of {plural(sum(r.runs for r in band.rates), 'run')} diverged, from {rate(lowest)} on"
    if band.left_out:
        yield f"{plural(band.left_out, 'run')} without a result left out"


RATE_HEAD = ("learning rate", "runs", "diverged", "objective", "regret", "")


def rate_rows(band: Band) -> list[tuple[str, ...]]:
    """One row per rate."""
    return [
        (
            rate(r.rate),
            str(r.runs),
            str(r.diverged),
            number(r.level) if math.isfinite(r.level) else "-",
            f"{r.regret:.1%}" if math.isfinite(r.regret) else "-",
            "best" if r.rate == band.best else "in" if r.inside else "",
        )
        for r in band.rates
    ]


def winner_line(winner: Winner) -> str:
    """Whether the best configuration is better than noise."""
    value = f"{number(winner.value)}, {plural(winner.seeds, 'run')}"
    name = f"{group_name(_own(winner.settings, winner))} ({value}; {one_line(winner.run)})"
    n = plural(winner.configurations, "configuration")
    if winner.configurations < 2:
        return f"{name}: the only configuration with a result"
    if not winner.noise_of:
        return (
            f"{name}: best of {n}; no seed repeated and too few points for the scatter inside the curves: cannot tell"
        )
    if winner.noise_of == "within runs":
        if winner.finding == "not alone":
            return (
                f"{name}: best of {n}, not better than noise: the scatter inside the curves alone leaves it a chance "
                f"of at most {winner.chance:.0%} to be the best; {others(winner.rivals)} could be"
            )
        return (
            f"{name}: best of {n}, ahead of the next ({number(winner.second)}) by more than the scatter inside the "
            "curves; no seed was repeated, so whether it is ahead by more than seeds differ cannot be told"
        )
    if winner.finding == "stands out":
        return f"{name}: best of {n} with a chance of {winner.chance:.0%}, given the noise between seeds"
    return (
        f"{name}: best of {n}, but with a chance of {winner.chance:.0%} only to be truly the best, given the noise "
        f"between seeds; {others(winner.rivals)} could be"
    )


def winner_details(winner: Winner) -> Iterator[str]:
    """The runner-up, the noise, the luck, and what a test could reach."""
    if winner.second_settings:
        yield f"next: {group_name(_own(winner.second_settings, winner))} ({number(winner.second)})"
    if winner.noise_of == "seeds":
        yield f"seeds differ by {number(winner.noise)} (standard deviation, {winner.freedom} degrees of freedom)"
        if math.isfinite(winner.corrected) and number(winner.corrected) != number(winner.value):
            yield f"without the luck of the chosen: {number(winner.corrected)}"
        if winner.smallest < 0.05:
            yield f"against the next: p = {winner.p:.2g}, without correction for having chosen them"
        elif winner.smallest < 1:
            yield f"against the next: not significant by construction (smallest p {winner.smallest:.2g})"
        else:
            yield "against the next: not significant by construction, one run each"
    elif winner.noise_of:
        yield f"scatter of the final level inside the runs: {number(winner.noise)}, a lower bound of the noise of seeds"


def _own(settings: Mapping[str, Value], winner: Winner) -> Mapping[str, Value]:
    """The settings that the group does not say already."""
    return {name: value for name, value in settings.items() if name not in winner.group}


def others(n: int) -> str:
    """``1 other``, ``3 others``."""
    return "no other" if n == 0 else "1 other" if n == 1 else f"{n} others"


def plural(n: int, what: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def rate(value: float) -> str:
    """A learning rate in three digits."""
    return f"{value:.3g}"


def number(value: float) -> str:
    """A value in four digits."""
    return f"{value:.4g}"


def _edge(which: str, edge: Edge) -> str:
    if edge.low is not None and edge.high is not None:
        return f"{which} end between {rate(edge.low)} and {rate(edge.high)}"
    if edge.open:
        return f"{which} end open"
    known = edge.high if edge.low is None else edge.low
    word = "at most" if edge.low is None else "at least"
    return f"{which} end {word} {rate(known)}" if known is not None else f"{which} end open"


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows in columns: all but the first and the last to the right."""
    table = [head, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    last = len(head) - 1
    return [
        "  ".join(
            cell.ljust(width) if i in (0, last) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]
