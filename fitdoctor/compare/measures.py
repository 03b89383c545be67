"""What is measured of a curve on the common stretch, and the noise of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fitdoctor.compare.clocks import read
from fitdoctor.compare.comparison import Call, Clock, CurveChange, Direction, Measure
from fitdoctor.compare.significance import significance
from fitdoctor.run import FloatArray, Run, Series, thin
from fitdoctor.signals import Signal
from fitdoctor.stats import block_medians, noise_scale, smooth

MATTERS = 0.02
"""Smallest gain that matters, as a share of the range of training: 2 %, as in benchmarks/accuracy."""

CLEAR_OF_NOISE = 3.0
"""Standard errors from which a difference stands out of the scatter inside the curves."""

POINTS = 200
"""More points of a curve are reduced to this many block medians."""


@dataclass(frozen=True, slots=True, eq=False)
class _Track:
    """One run's curve on a clock. Lower is better, always; what failed is inf.

    Attributes:
        x: float64[n], increasing, in units of the clock.
        y: float64[n], lower is better.
    """

    x: FloatArray
    y: FloatArray

    def until(self, low: float, high: float) -> _Track:
        keep = (self.x >= low) & (self.x <= high)
        return _Track(self.x[keep], self.y[keep])

    @property
    def reduced(self) -> FloatArray:
        """Block medians; a block of which most is not finite is inf."""
        return block_medians(np.where(np.isfinite(self.y), self.y, np.inf), POINTS)

    @property
    def final(self) -> float:
        tail = self.reduced[-_tail(len(self.reduced)) :]
        return float(np.median(tail)) if len(tail) else math.inf

    @property
    def best(self) -> float:
        values = self.reduced
        finite = values[np.isfinite(values)]
        return float(smooth(finite).min()) if len(finite) else math.inf

    @property
    def start(self) -> float:
        finite = self.y[np.isfinite(self.y)]
        return float(finite[0]) if len(finite) else math.nan

    @property
    def mean(self) -> float:
        if not bool(np.isfinite(self.y).all()) or len(self.y) == 0:
            return math.inf
        length = float(self.x[-1] - self.x[0])
        if length <= 0:
            return float(np.sum(self.y / len(self.y)))
        # weights that add up to 1 first: a sum of the largest numbers there are would overflow
        return float(np.sum((self.y[1:] / 2 + self.y[:-1] / 2) * (np.diff(self.x) / length)))

    @property
    def noise(self) -> float:
        """Standard error of `final`; nan with fewer than 8 points (1.25 sigma / sqrt(k), a median of k)."""
        values = self.reduced[np.isfinite(self.reduced)]
        return 1.25 * noise_scale(values) / math.sqrt(_tail(len(values))) if len(values) >= 8 else math.nan


def _tail(n: int) -> int:
    return min(max(3, n // 10), max(n, 1))


def compare_curve(
    before: Sequence[Run], after: Sequence[Run], signal: Signal, clock: Clock, *, paired: bool
) -> CurveChange | None:
    """Compare one signal; None when a run lacks it, or the runs have no stretch in common."""
    tracks: list[list[_Track]] = []
    drawn: list[tuple[tuple[float, float], ...]] = []
    flip = -1.0 if signal.quantity.better == "higher" else 1.0
    for side in (before, after):
        made = [_track(run, signal, clock, flip) for run in side]
        if not all(t is not None and len(t.x) >= 2 for t in made):
            return None
        tracks.append([t for t in made if t is not None])
        drawn.append(_drawn(side[0], signal, clock))
    every = [*tracks[0], *tracks[1]]
    low, high = max(float(t.x[0]) for t in every), min(float(t.x[-1]) for t in every)
    if high <= low:
        return None
    a, b = ([t.until(low, high) for t in side] for side in tracks)
    if min(len(t.x) for t in (*a, *b)) < 2:
        return None
    noise = _noise(a, b, paired=paired or len(a) == len(b) == 1)
    ends = ([t.final for t in tracks[0]], [t.final for t in tracks[1]])
    final = ([t.final for t in a], [t.final for t in b])
    tested = significance([flip * v for v in final[0]], [flip * v for v in final[1]], paired=paired)
    span = _range(every)
    gain = _mean(final[0]) - _mean(final[1]) if _mean(final[0]) != _mean(final[1]) else 0.0
    share = gain / span if span > 0 else math.copysign(math.inf, gain) if gain else 0.0
    return CurveChange(
        signal=signal,
        clock=clock,
        stretch=(low, high),
        final=_measure(*final, flip, noise),
        best=_measure([t.best for t in a], [t.best for t in b], flip),
        mean=_measure([t.mean for t in a], [t.mean for t in b], flip),
        at_end=_measure(*ends, flip),
        share=share,
        direction=_direction(gain, share, noise),
        significance=tested,
        call=_call(share, tested.p, tested.interval, span),
        sooner=_sooner(a, b),
        points=(drawn[0], drawn[1]),
    )


def _track(run: Run, signal: Signal, clock: Clock, flip: float) -> _Track | None:
    series = run.get(signal.quantity, signal.split, signal.layer)
    if series is None or not len(series.finite):
        return None
    x = read(run, series, clock)
    return None if x is None else _Track(x, flip * series.values)


def _drawn(run: Run, signal: Signal, clock: Clock) -> tuple[tuple[float, float], ...]:
    series = run.get(signal.quantity, signal.split, signal.layer)
    x = None if series is None else read(run, series, clock)
    if series is None or x is None:
        return ()
    at = dict(zip(series.steps.tolist(), x.tolist(), strict=True))
    return tuple((at[step], value) for step, value in thin(Series(signal, series.steps, series.values)))


def _measure(before: Sequence[float], after: Sequence[float], flip: float, noise: float = math.nan) -> Measure:
    a, b = [flip * v for v in before], [flip * v for v in after]
    difference = _mean(b) - _mean(a) if _mean(a) != _mean(b) else 0.0
    return Measure(tuple(a), tuple(b), difference, noise)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _range(tracks: Sequence[_Track]) -> float:
    """What training moved the curve through, over all runs: from the highest start to the best."""
    starts = [t.start for t in tracks if math.isfinite(t.start)]
    bests = [t.best for t in tracks if math.isfinite(t.best)]
    return max(max(starts) - min(bests), 0.0) if starts and bests else 0.0


def _noise(a: Sequence[_Track], b: Sequence[_Track], *, paired: bool) -> float:
    """Standard error of the difference of the finals, from the scatter inside the curves.

    Where both runs were logged at the same places, the scatter of their difference is used: what both owe to the
    same batches cancels.
    """
    if paired:
        errors = [_paired_noise(s, t) for s, t in zip(a, b, strict=True)]
    else:
        own = [[t.noise for t in side] for side in (a, b)]
        errors = [math.hypot(*(math.hypot(*side) / len(side) for side in own))]
        return errors[0]
    return math.hypot(*errors) / len(errors)


def _paired_noise(s: _Track, t: _Track) -> float:
    alone = math.hypot(s.noise, t.noise)
    if len(s.x) != len(t.x) or not np.allclose(s.x, t.x):
        return alone
    both = np.isfinite(s.y) & np.isfinite(t.y)
    d = block_medians(s.y[both] - t.y[both], POINTS)
    return 1.25 * noise_scale(d) / math.sqrt(_tail(len(d))) if len(d) >= 8 else math.nan


def _direction(gain: float, share: float, noise: float) -> Direction:
    if abs(share) < MATTERS or (math.isfinite(gain) and not abs(gain) > CLEAR_OF_NOISE * noise):
        return "level"  # too small to matter, within the scatter, or a scatter that is not known
    return "better" if gain > 0 else "worse"


def _call(share: float, p: float, interval: tuple[float, float] | None, span: float) -> Call:
    """Called only where a test allows it: better or worse with p < 0.05, same with an interval inside +-2 %."""
    if p < 0.05 and abs(share) >= MATTERS:
        return "better" if share > 0 else "worse"
    if interval is not None and span > 0 and max(map(abs, interval)) < MATTERS * span:
        return "same"
    return "cannot tell"


def _sooner(a: Sequence[_Track], b: Sequence[_Track]) -> float:
    """Time until `after` stood at the final level of `before`, over the time `before` took; medians over runs."""

    def reached(t: _Track, level: float) -> float:
        if not bool(np.isfinite(t.y).all()):
            return math.nan
        hit = np.nonzero(smooth(t.y) <= level)[0]
        return float(t.x[int(hit[0])] - t.x[0]) if len(hit) else math.inf

    level = float(np.median([t.final for t in a]))
    if not math.isfinite(level):
        return math.nan
    first, second = (float(np.median([reached(t, level) for t in side])) for side in (a, b))
    ratio = second / first if first > 0 else math.nan
    return ratio if math.isfinite(ratio) else math.nan
