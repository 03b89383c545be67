"""The learning rates that cost next to nothing: low regret against the best, with the ends of the band as intervals.

Regret of a rate: what its runs lose against the best rate, as a share of the range that training moves the objective
through (from the untrained model to the best), at most 1; a diverged run loses 1. The band is the stretch of rates
around the best one whose regret is at most `MATTERS`, or one standard deviation of the noise between seeds where
that is known and larger: the definition of benchmarks/accuracy, where rates are labelled in this way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fitdoctor.compare.measures import MATTERS
from fitdoctor.run import FloatArray
from fitdoctor.sweep.result import Axis, Band, Edge, Rate, Trial
from fitdoctor.sweep.settings import LEARNING_RATE, Table, Value

LEAST_RATES = 3
"""Fewer rates than these make no band."""

ENOUGH_RATES = 4
"""Rates that groups should have, in the middle, for a number to be held fixed rather than pooled."""

A_DECADE = 3
"""Bins in a decade, where rates were drawn at random."""

DRAWS = 1_000
"""Of the bootstrap over seeds."""

STEP_OUT = 10.0
"""How far a grid is to be extended past an open end."""


@dataclass(frozen=True, slots=True, eq=False)
class _Column:
    """The runs at one rate.

    Attributes:
        rate: the rate.
        cells: float64[seeds] per configuration: the objective, lower is better, inf where diverged.
    """

    rate: float
    cells: tuple[FloatArray, ...]


def bands(trials: Sequence[Trial], table: Table, flip: float, tolerance: float = MATTERS) -> tuple[Band, ...]:
    """The band of each group of runs; empty where the learning rate does not vary.

    Args:
        trials: the runs.
        table: their settings.
        flip: -1 where more is better, else 1.
        tolerance: regret that counts for nothing, as a share of the range.
    """
    axis = table.axis(LEARNING_RATE)
    if axis is None or axis.kind != "number":
        return ()
    fixed, pooled = _fixed_and_pooled(trials, table, axis)
    groups: dict[tuple[Value, ...], list[Trial]] = {}
    for trial in trials:
        groups.setdefault(tuple(trial.settings[a.name] for a in fixed), []).append(trial)
    names = tuple(a.name for a in fixed)
    others = tuple(a.name for a in pooled)
    return tuple(
        _band(dict(zip(names, key, strict=True)), own, axis.name, others, flip, tolerance)
        for key, own in sorted(groups.items(), key=lambda item: tuple(map(str, item[0])))
    )


def _fixed_and_pooled(trials: Sequence[Trial], table: Table, rate: Axis) -> tuple[list[Axis], list[Axis]]:
    """Settings that make groups, and settings that vary freely inside them.

    Words always make groups. Numbers do where the groups then still have rates enough; in a random search they
    have not.
    """
    words = [a for a in table.axes if a is not rate and a.kind == "word"]
    numbers = [a for a in table.axes if a is not rate and a.kind == "number"]
    by_cell: dict[tuple[Value, ...], set[Value]] = {}
    for trial in trials:
        key = tuple(trial.settings[a.name] for a in (*words, *numbers))
        by_cell.setdefault(key, set()).add(trial.settings[rate.name])
    enough = float(np.median([len(rates) for rates in by_cell.values()])) >= ENOUGH_RATES
    return ([*words, *numbers], []) if enough else (words, numbers)


def _band(
    group: Mapping[str, Value],
    trials: Sequence[Trial],
    name: str,
    pooled: tuple[str, ...],
    flip: float,
    tolerance: float,
) -> Band:
    known = [t for t in trials if not math.isnan(t.value)]
    left_out = len(trials) - len(known)
    binned = bool(pooled) and _drawn_at_random(known, name)
    columns = _columns(known, name, pooled, flip, binned=binned)
    finite = [v for c in columns for cell in c.cells for v in cell.tolist() if math.isfinite(v)]
    starts = [flip * t.start for t in known if math.isfinite(t.start)]

    def without(why: str) -> Band:
        rates = tuple(Rate(c.rate, _runs(c), _diverged(c), _level(c, flip), math.nan, False) for c in columns)
        return Band(group, rates, pooled=pooled, binned=binned, left_out=left_out, why_not=why)

    if len(columns) < LEAST_RATES:
        return without(f"{_count(len(columns), 'learning rate')} with a result; {LEAST_RATES} are needed")
    if not finite:
        return without("every run diverged or has no result")
    best_value = min(_typical(c, max(finite)) for c in columns)
    span = float(np.median(starts)) - best_value if starts else math.nan
    if not span > 0:
        return without("no run got better than an untrained model, so a share of the range means nothing")
    noise, repeats = seed_noise([cell for c in columns for cell in c.cells], best_value, span)
    wide = max(tolerance, noise / span) if math.isfinite(noise) else tolerance
    if wide > 0.5:
        return without("seeds differ by more than half of what training gains: no rate can be told from another")
    regrets = _regrets([[cell[None, :] for cell in c.cells] for c in columns], span)[0]
    first, last, best = _stretch(regrets, wide)
    low, high = _edges(columns, span, wide, noise, (first, last))
    rates = tuple(
        Rate(c.rate, _runs(c), _diverged(c), _level(c, flip), float(regrets[i]), first <= i <= last)
        for i, c in enumerate(columns)
    )
    return Band(
        group, rates, columns[best].rate, low, high, wide, span, noise, repeats, pooled, binned, left_out,
        tuple(_advice(rates, best, low, high)),
    )  # fmt: skip


def _columns(
    trials: Sequence[Trial], name: str, pooled: tuple[str, ...], flip: float, *, binned: bool
) -> list[_Column]:
    found: dict[float, dict[tuple[Value, ...], list[float]]] = {}
    for trial in trials:
        rate = trial.settings[name]
        if not isinstance(rate, int | float) or isinstance(rate, bool) or not rate > 0:
            continue
        at = 10 ** (round(math.log10(rate) * A_DECADE) / A_DECADE) if binned else float(rate)
        cell = tuple(trial.settings[p] for p in pooled) + ((rate,) if binned else ())
        found.setdefault(at, {}).setdefault(cell, []).append(flip * trial.value)
    return [
        _Column(float(f"{at:.6g}"), tuple(np.array(values) for values in cells.values()))
        for at, cells in sorted(found.items())
    ]


def _drawn_at_random(trials: Sequence[Trial], name: str) -> bool:
    """Whether hardly any rate comes back."""
    rates = {t.settings[name] for t in trials}
    return len(rates) > 2 * LEAST_RATES and 2 * len(rates) > len(trials)


def _runs(column: _Column) -> int:
    return sum(len(cell) for cell in column.cells)


def _diverged(column: _Column) -> int:
    return sum(int((~np.isfinite(cell)).sum()) for cell in column.cells)


def _level(column: _Column, flip: float) -> float:
    """Mean over the seeds that did not diverge, of the best configuration."""
    levels = [float(cell[np.isfinite(cell)].mean()) for cell in column.cells if np.isfinite(cell).any()]
    return flip * min(levels) if levels else math.nan


def _typical(column: _Column, worst: float) -> float:
    """Mean of the best configuration, diverged seeds counted as the worst value that did not diverge."""
    return min(float(np.where(np.isfinite(cell), cell, worst).mean()) for cell in column.cells)


def seed_noise(cells: Sequence[FloatArray], best: float, span: float) -> tuple[float, int]:
    """Standard deviation between seeds, pooled over configurations, and how many configurations have repeats.

    Configurations that ended in the better half of the range are asked first: noise grows with the loss.
    """
    repeated = [cell[np.isfinite(cell)] for cell in cells]
    repeated = [cell for cell in repeated if len(cell) > 1]
    good = [cell for cell in repeated if float(cell.mean()) < best + 0.5 * span] or repeated
    freedom = sum(len(cell) - 1 for cell in good)
    if not freedom:
        return math.nan, 0
    return math.sqrt(sum(float(((cell - cell.mean()) ** 2).sum()) for cell in good) / freedom), len(good)


def _regrets(columns: Sequence[Sequence[FloatArray]], span: float) -> FloatArray:
    """Regret of each rate; of several configurations at a rate the best counts.

    Args:
        columns: per rate and configuration float64[draws, seeds], lower is better, inf where diverged.
        span: the range.

    Returns:
        float64[draws, rates].
    """
    means = [cell.mean(axis=1) for cells in columns for cell in cells]
    least = np.min(means, axis=0)
    if not bool(np.isfinite(least).all()):  # a diverged seed in every configuration: the best of the other seeds
        others = [np.where(np.isfinite(cell), cell, np.nan) for cells in columns for cell in cells]
        known = [cell for cell in others if not np.isnan(cell).all(axis=1).any()]
        fallback = np.min([np.nanmean(cell, axis=1) for cell in known], axis=0) if known else np.zeros(len(least))
        least = np.where(np.isfinite(least), least, fallback)
    lost = [
        np.min([np.clip((cell - least[:, None]) / span, -1.0, 1.0).mean(axis=1) for cell in cells], axis=0)
        for cells in columns
    ]
    return np.asarray(np.stack(lost, axis=1), np.float64)


def _stretch(regrets: FloatArray, tolerance: float) -> tuple[int, int, int]:
    """First and last rate of the stretch around the best, and the best.

    Away from the best, regret is taken to grow: a rate that does better than one nearer to the best, or worse than one
    further away, is noise, and such neighbours share their mean (isotonic regression, Barlow et al. 1972).
    """
    from scipy.optimize import isotonic_regression

    best = int(np.argmin(regrets))
    limit = float(regrets[best]) + tolerance
    above = isotonic_regression(regrets[best:]).x <= limit
    below = isotonic_regression(regrets[best::-1]).x <= limit
    return best - int(below.sum()) + 1, best + int(above.sum()) - 1, best


def _edges(
    columns: Sequence[_Column], span: float, tolerance: float, noise: float, found: tuple[int, int]
) -> tuple[Edge, Edge]:
    """Both ends: the gap of the grid they lie in, widened by what other seeds would make of it (95 %)."""
    firsts, lasts = [found[0]], [found[1]]
    if math.isfinite(noise):
        generator = np.random.default_rng(0)
        drawn = [[_redrawn(cell, noise, generator) for cell in c.cells] for c in columns]
        for regrets in _regrets(drawn, span):
            first, last, _ = _stretch(regrets, tolerance)
            firsts.append(first)
            lasts.append(last)
    rates = [c.rate for c in columns]
    return _edge(rates, found[0], firsts, -1), _edge(rates, found[1], lasts, 1)


def _redrawn(cell: FloatArray, noise: float, generator: np.random.Generator) -> FloatArray:
    """Other seeds of a configuration, float64[DRAWS, seeds].

    Resampled where it has several, moved by the noise of all where not: resampling n values shows n-1 nths of their
    variance.
    """
    if len(cell) > 3:
        return np.asarray(cell[generator.integers(0, len(cell), (DRAWS, len(cell)))], np.float64)
    return np.asarray(cell + noise * generator.standard_normal((DRAWS, len(cell))), np.float64)


def _edge(rates: Sequence[float], at: int, drawn: Sequence[int], way: int) -> Edge:
    """One end; `way` is -1 for the lower."""
    low, high = (int(np.quantile(drawn, q, method="nearest")) for q in (0.025, 0.975))
    outer, inner = (low, high) if way < 0 else (high, low)
    beyond, past = at + way, outer + way
    inside = (min if way > 0 else max)(rates[inner], rates[at])
    outside = rates[beyond] if 0 <= beyond < len(rates) else None
    limit = rates[past] if 0 <= past < len(rates) else None
    return Edge(rates[at], outside, *((limit, inside) if way < 0 else (inside, limit)))


def _advice(rates: Sequence[Rate], best: int, low: Edge, high: Edge) -> list[str]:
    out = []
    for edge, at_end, word, factor in (
        (low, best == 0, "smallest", 1 / STEP_OUT),
        (high, best == len(rates) - 1, "largest", STEP_OUT),
    ):
        if edge.open:
            to = f"{edge.inside * factor:.2g}"
            if at_end:
                out.append(f"the best learning rate, {edge.inside:.4g}, is the {word} tried: extend the grid to {to}")
            else:
                out.append(
                    f"the band is open: {edge.inside:.4g}, the {word} rate tried, is still in it; extend the grid to "
                    f"{to} to find its end"
                )
    return out


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
