"""Which learning rate schedule a logged learning rate follows: `recognise(series) -> Schedule`.

    steps, values --thin--> legs (rising, falling) --+-- none .................. constant
                                                     +-- up? down? --+-- flats . step, multi-step, plateau
                                                     |               +-- curve . cosine, linear, ...
                                                     +-- many .................. cyclic, warm-restarts

Only the shape is used, never the absolute size of a value. The structure is read off at most
`MOST_POINTS` points, and the places found are then looked up in the whole series: linear time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from math import gcd
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fitdoctor.run import FloatArray, Series, once_per_series
from fitdoctor.signals import LR, Signal
from fitdoctor.views.shapes import EXACT, FIT_TOLERANCE, Fit, best_fit, rising_curve

Kind = Literal[
    "constant", "step", "multi-step", "plateau", "exponential", "cosine", "one-cycle", "linear", "polynomial",
    "inverse-sqrt", "inverse-time", "cyclic", "warm-restarts", "warm-up", "unknown",
]  # fmt: skip
Direction = Literal["up", "down", "flat"]

MOST_POINTS = 4096
FLAT = 2e-7
"""Relative change below which two values are equal: the rounding of float32, in which TensorBoard logs."""

NEGLIGIBLE = 1e-3
"""A rise at the very end of less than this share of the peak is no rise: a cosine that is stepped once
or twice past its end goes up again by (pi/T)^2/4 of its peak per step squared."""

GENTLE_FACTOR = 0.85
"""Equal cuts by a gentler factor than this, many of them, are an exponential stepped once an epoch."""

MANY_LEVELS = 12
"""Fewer stairs than this are judged as cuts, not as a smooth curve that moves once an epoch."""

ROUND_PLAN = 16
"""Milestones that are all multiples of at least 1/16 of the last one were planned (30, 60, 80 of 90 are
multiples of 10); cuts made by a validation metric fall anywhere."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the schedule that keeps its direction.

    Attributes:
        first, last: steps of its first and last point.
        direction: "up", "down" or "flat".
        start, end: learning rate at these steps.
        sudden: it lies between two neighbouring points of the log.
    """

    first: int
    last: int
    direction: Direction
    start: float
    end: float
    sudden: bool = False


@dataclass(frozen=True, slots=True)
class Schedule:
    """A recognised learning rate schedule.

    Attributes:
        kind: the family; "unknown" when none fits.
        peak: largest learning rate logged.
        final: last learning rate logged.
        warmup_steps: steps from the beginning of the run to the peak, 0 without warm-up. Known to
            one logging interval.
        milestones: steps at which a step-like schedule cut the rate, or warm restarts raised it.
        factor: what a step-like schedule multiplies the rate with, or an exponential per step; nan else.
        every: steps between regular cuts or updates; 0 where the rate moves at every point.
        power: the power of a polynomial; nan else.
        planned_end: step at which a falling curve reaches its lowest value, beyond the last step when
            the run was cut off; None where the shape does not tell.
        hold_steps: steps at the peak between warm-up and a smooth decay.
        cycles: how many times it goes up again, for cyclic and warm-restarts.
        wave: a cyclic schedule whose first fall is half a cosine.
        segments: the monotone pieces.
    """

    kind: Kind
    peak: float
    final: float
    warmup_steps: int = 0
    milestones: tuple[int, ...] = ()
    factor: float = float("nan")
    every: int = 0
    power: float = float("nan")
    planned_end: int | None = None
    hold_steps: int = 0
    cycles: int = 0
    wave: bool = False
    segments: tuple[Segment, ...] = ()

    @property
    def rises_again(self) -> bool:
        """It falls along a cosine and then gradually rises, without having risen before.

        This is a cosine that runs past its end; a cyclic schedule begins with a rise or consists of
        lines, and a warm restart rises at once.
        """
        moving = [s for s in self.segments if s.direction != "flat"]
        return self.wave and moving[0].direction == "down" and not moving[1].sudden

    def __str__(self) -> str:
        words = _NAMES[self.kind](self)
        if self.warmup_steps and self.kind not in ("warm-up", "one-cycle", "cyclic"):
            words += f" with warm-up ({self.warmup_steps} steps)"
        if self.kind == "constant":
            return f"{words}, {_number(self.final)}" if self.warmup_steps else f"constant {_number(self.final)}"
        return f"{words}, peak {_number(self.peak)}, ends at {_number(self.final)}"


def _number(value: float) -> str:
    """A rate as people write it: 3e-4, 0.1, 0."""
    text = f"{value:.3g}"
    if 0 < abs(value) < 0.01:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".")
        return f"{mantissa}e{int(exponent)}"
    return text


def _step_words(s: Schedule) -> str:
    return (
        f"step (x{s.factor:.3g} every {s.every} steps)" if s.every else f"step (x{s.factor:.3g} at {s.milestones[0]})"
    )


def _cut_words(s: Schedule) -> str:
    places = ", ".join(str(m) for m in s.milestones[:5]) + (", ..." if len(s.milestones) > 5 else "")
    return f"at {places}"


_NAMES: dict[Kind, Callable[[Schedule], str]] = {
    "constant": lambda s: "constant",
    "step": _step_words,
    "multi-step": lambda s: f"multi-step ({_cut_words(s)})",
    "plateau": lambda s: f"cuts at irregular steps, as on a plateau ({_cut_words(s)})",
    "exponential": lambda s: "exponential",
    "cosine": lambda s: "cosine",
    "one-cycle": lambda s: f"one-cycle (rises for {s.warmup_steps} steps)",
    "linear": lambda s: "linear",
    "polynomial": lambda s: f"polynomial (power {s.power:.2g})",
    "inverse-sqrt": lambda s: "inverse-sqrt",
    "inverse-time": lambda s: "inverse-time",
    "cyclic": lambda s: f"cyclic ({s.cycles} rises)" if not s.rises_again else "cosine that rises again",
    "warm-restarts": lambda s: f"warm restarts ({s.cycles})",
    "warm-up": lambda s: f"warm-up, still rising after {s.warmup_steps} steps",
    "unknown": lambda s: "no known schedule",
}


@once_per_series
def recognise(lr: Series) -> Schedule | None:
    """Name the schedule that a logged learning rate follows.

    Args:
        lr: the learning rate over steps; at any cadence.

    Returns:
        The schedule, or None when fewer than two finite values were logged.

    Example:
        >>> import numpy as np
        >>> from fitdoctor.signals import Signal
        >>> steps = np.arange(100)
        >>> print(recognise(Series(Signal(LR), steps, 0.1 * 0.5 ** (steps // 30))))
        step (x0.5 every 30 steps), peak 0.1, ends at 0.0125
    """
    lr = lr.finite
    if len(lr) < 2:
        return None
    reading = _Reading(lr)
    return reading.stepped_smoothly() or reading.schedule()


@dataclass(frozen=True, slots=True)
class _Leg:
    """A monotone piece between two indices of the thinned curve."""

    up: bool
    first: int
    last: int


class _Reading:
    """One series while it is being recognised: the whole of it, and the thinned curve (x, y)."""

    def __init__(self, lr: Series) -> None:
        self.steps, self.values = lr.steps, lr.values
        n = len(lr)
        even = np.linspace(0, n - 1, MOST_POINTS).round().astype(np.int64) if n > MOST_POINTS else np.arange(n)
        self.index: NDArray[np.int64] = np.unique(even)
        self.x: FloatArray = self.steps[self.index].astype(np.float64)
        self.y: FloatArray = self.values[self.index]
        self.peak = float(self.values.max())
        self.gap = float(np.median(np.diff(self.x)))
        # A log that begins within one logging interval of step 0 saw the run from its start.
        self.origin = 0.0 if 0 <= self.x[0] <= 1.5 * self.gap else float(self.x[0])
        self.legs = self._legs()

    def _legs(self) -> list[_Leg]:
        change = np.diff(self.y)
        size = np.maximum(np.abs(self.y[1:]), np.abs(self.y[:-1]))
        moves = np.flatnonzero(np.abs(change) > FLAT * size)
        if not len(moves):
            return []
        up = change[moves] > 0
        turns = np.flatnonzero(up[1:] != up[:-1]) + 1
        parts = np.split(moves, turns)
        legs = [_Leg(bool(change[p[0]] > 0), int(p[0]), int(p[-1]) + 1) for p in parts]
        while len(legs) > 1 and abs(self.y[legs[-1].last] - self.y[legs[-1].first]) < NEGLIGIBLE * self.peak:
            legs.pop()
        return legs

    def stepped_smoothly(self) -> Schedule | None:
        """A smooth schedule that moves once an epoch while it is logged every step, or None.

        Its stairs are replaced by one point each; that is a schedule logged once an epoch.
        """
        first, _, length = self._levels(0)
        if len(first) < MANY_LEVELS or np.median(length) < 2:
            return None
        stride = int(np.median(length))
        # A hold is one long stair: it keeps one point per usual stair, so that it stays flat.
        kept = np.concatenate(
            [np.arange(b, b + max(n - stride // 2, 1), stride) for b, n in zip(first, length, strict=True)]
        )
        stairs = Series(Signal(LR), self.steps[self.index[kept]], self.y[kept])
        schedule = _Reading(stairs).schedule()
        if schedule.kind in ("unknown", "step", "multi-step", "plateau", "constant"):
            return None
        if (
            schedule.kind == "exponential"
            and schedule.factor ** float(np.median(np.diff(self.x[first]))) < GENTLE_FACTOR
        ):
            return None  # equal hard cuts: the staircase is the schedule
        return replace(schedule, every=round(float(np.median(np.diff(self.x[first])))), final=float(self.values[-1]))

    def schedule(self) -> Schedule:
        """The schedule, each logged value taken as it is."""
        if self.values.min() < 0:
            return self._make("unknown")
        if not self.legs:
            return self._make("constant")
        ups = [leg.up for leg in self.legs]
        if ups in ([True], [False], [True, False]):
            return self._single(self.legs[0] if ups[0] else None, self.legs[-1] if not ups[-1] else None)
        return self._wave()

    # --- at most one rise and one fall -----------------------------------------------------------

    def _single(self, up: _Leg | None, down: _Leg | None) -> Schedule:
        top = up.last if up else 0
        warmup = round(float(self._place(up.last - 1, up.last, peak=True)) - self.origin) if up else 0
        if down is None:
            still_rising = up is not None and up.last == len(self.x) - 1
            return self._make("warm-up" if still_rising else "constant", warmup_steps=warmup)
        first, value, length = self._levels(top)
        if np.median(length) >= 2:
            return self._staircase(first, value, warmup)
        schedule = self._smooth(top, down, warmup)
        return self._one_cycle(up, down, schedule) if up else schedule

    def _levels(self, start: int) -> tuple[NDArray[np.int64], FloatArray, NDArray[np.int64]]:
        """The flats from an index on: where each begins, its value, its number of points."""
        y = self.y[start:]
        size = np.maximum(y[1:], y[:-1])
        begins = np.concatenate(([0], np.flatnonzero(np.abs(np.diff(y)) > FLAT * size) + 1))
        return begins + start, y[begins], np.diff(np.append(begins, len(y)))

    def _staircase(self, first: NDArray[np.int64], value: FloatArray, warmup: int) -> Schedule:
        cuts = [self._place(i - 1, i) for i in first[1:]]
        ratio = value[1:] / value[:-1]
        gaps = np.diff([self.x[first[0]], *cuts])
        even = bool(np.ptp(gaps) <= max(2 * self.gap, 0.02 * gaps.max())) and len(gaps) >= 2
        same = bool(np.ptp(ratio) <= 0.02 * ratio.max())
        known: dict[str, Any] = {"warmup_steps": warmup, "milestones": tuple(cuts)}
        if len(cuts) >= 6 and not (even and same and float(np.median(ratio)) < GENTLE_FACTOR):
            fit = best_fit(np.array([self.x[first[0]], *cuts]), value)
            if fit is not None and even:
                return self._fitted(fit, warmup_steps=warmup, every=round(float(np.median(gaps))))
        factor = float(ratio[0]) if same else float("nan")
        if len(cuts) == 1:
            return self._make("step", factor=float(ratio[0]), **known)
        if even and same:
            return self._make("step", factor=factor, every=round(float(np.median(gaps))), **known)
        planned = not same or self._round_plan(cuts)
        return self._make("multi-step" if planned else "plateau", factor=factor, **known)

    def _round_plan(self, cuts: list[int]) -> bool:
        """Whether the cuts are multiples of a coarse unit, each known to one logging interval."""
        unit = max(1.0, self.gap)
        relative = [round((c - self.origin) / unit) for c in cuts]
        common = reduce(gcd, relative)
        return common > 0 and max(relative) / common <= ROUND_PLAN

    def _smooth(self, top: int, down: _Leg, warmup: int) -> Schedule:
        x, y = self.x[down.first : down.last + 1], self.y[down.first : down.last + 1]
        hold = round(float(self.x[down.first] - self.x[top]))
        # The fall may have begun anywhere since the point before, where the log is sparse.
        slack = float(self.x[down.first] - (self.x[down.first - 1] if down.first else self.origin))
        sparse = not hold and slack > 0.02 * float(x[-1] - x[0])
        fit = best_fit(x, y, slack=slack if sparse else 0.0)
        if len(x) > 4 and (fit is None or (down.first and fit.residual > EXACT)):
            # The peak may lie between two points, and then the first one is not on the curve.
            rest = best_fit(x[1:], y[1:])
            fit = rest if fit is None or (rest and rest.residual < 0.2 * fit.residual) else fit
        if fit is None:
            return self._make("unknown", warmup_steps=warmup, hold_steps=hold)
        reached = down.last < len(self.x) - 1  # a flat tail follows
        fit = replace(fit, end=float(x[-1])) if reached else fit
        return self._fitted(fit, warmup_steps=warmup, hold_steps=hold)

    def _fitted(self, fit: Fit, **known: int) -> Schedule:
        return self._make(
            fit.curve,
            planned_end=None if fit.end is None else round(fit.end),
            factor=fit.parameter if fit.curve == "exponential" else float("nan"),
            power=fit.parameter if fit.curve == "polynomial" else float("nan"),
            **known,
        )

    def _one_cycle(self, up: _Leg, down: _Leg, schedule: Schedule) -> Schedule:
        """Tell one-cycle from a warm-up: it rises along a cosine, or along a line from well above zero."""
        rise_x, rise_y = self.x[up.first : up.last + 1], self.y[up.first : up.last + 1]
        rise = rising_curve(rise_x, rise_y) or rising_curve(rise_x[:-1], rise_y[:-1])
        total = float(self.x[-1] - self.origin)
        long = (rise_x[-1] - self.origin) >= 0.15 * total
        from_above = rise_y[0] >= 0.015 * self.peak and self.x[0] <= self.origin + 1
        triangle = rise == "linear" and schedule.kind == "linear" and long and from_above
        if rise == "cosine" and schedule.kind == "unknown":
            # Three phases: down to where it began along a cosine, then further down.
            x, y = self.x[down.first : down.last + 1], self.y[down.first : down.last + 1]
            upper = y >= rise_y[0] * (1 + FIT_TOLERANCE)
            if upper.sum() >= 4 and best_fit(x[upper], y[upper]) is not None:
                return self._make("one-cycle", warmup_steps=schedule.warmup_steps)
        if triangle or (rise == "cosine" and schedule.kind == "cosine"):
            return self._make("one-cycle", warmup_steps=schedule.warmup_steps, planned_end=schedule.planned_end)
        return schedule

    # --- several rises and falls -----------------------------------------------------------------

    def _wave(self) -> Schedule:
        legs = self.legs
        rises = [leg for leg in legs[1:] if leg.up]
        sudden = [self._sudden(leg) for leg in rises]
        warmup = round(float(self._place(legs[0].last - 1, legs[0].last, peak=True)) - self.origin) if legs[0].up else 0
        regular = self._regular([leg.last for leg in rises])
        long_falls = np.median([leg.last - leg.first for leg in legs if not leg.up]) >= 3
        if all(sudden) and long_falls and regular:
            milestones = tuple(self._place(leg.first, leg.last) for leg in rises)
            return self._make("warm-restarts", cycles=len(rises), milestones=milestones, warmup_steps=warmup)
        if not (any(sudden) and long_falls) and self._regular([leg.first for leg in legs[1:]]):
            fall = next(leg for leg in legs if not leg.up)
            fit = best_fit(self.x[fall.first : fall.last + 1], self.y[fall.first : fall.last + 1])
            wave = fit is not None and fit.curve == "cosine"
            return self._make("cyclic", cycles=sum(leg.up for leg in legs), warmup_steps=warmup, wave=wave)
        return self._make("unknown", warmup_steps=warmup)

    def _sudden(self, leg: _Leg) -> bool:
        """Most of the change lies within one logging interval."""
        y = self.y[leg.first : leg.last + 1]
        return bool(np.abs(np.diff(y)).max() >= 0.7 * abs(y[-1] - y[0]))

    def _regular(self, places: list[int]) -> bool:
        """Turning points at equal distances, or at distances that grow (or alternate) steadily."""
        if len(places) <= 2:
            return True
        gaps = np.diff(self.x[places])
        tolerance = max(2 * self.gap, 0.05 * float(gaps.max()))

        def even(part: FloatArray) -> bool:
            return len(part) < 2 or bool(np.ptp(part) <= tolerance)

        if even(gaps) or (even(gaps[::2]) and even(gaps[1::2])):
            return True
        ratio = gaps[1:] / gaps[:-1]
        return bool(np.all(ratio >= 0.9)) and bool(np.ptp(ratio) <= 0.25 * ratio.max())

    # --- shared ----------------------------------------------------------------------------------

    def _place(self, before: int, after: int, *, peak: bool = False) -> int:
        """Step of the largest jump, or of the peak, between two thinned points, in the whole series."""
        low, high = int(self.index[before]), int(self.index[after])
        part = self.values[low : high + 1]
        offset = int(part.argmax()) if peak else int(np.abs(np.diff(part)).argmax()) + 1
        return int(self.steps[low + offset])

    def _make(self, kind: Kind, **known: Any) -> Schedule:
        return Schedule(
            kind,
            peak=self.peak,
            final=float(self.values[-1]),
            segments=self._segments(),
            **known,
        )

    def _segments(self) -> tuple[Segment, ...]:
        found: list[Segment] = []
        at = 0
        for leg in self.legs:
            if leg.first > at:
                found.append(self._segment(at, leg.first, "flat"))
            found.append(self._segment(leg.first, leg.last, "up" if leg.up else "down", self._sudden(leg)))
            at = leg.last
        if at < len(self.x) - 1:
            found.append(self._segment(at, len(self.x) - 1, "flat"))
        return tuple(found)

    def _segment(self, first: int, last: int, direction: Direction, sudden: bool = False) -> Segment:
        return Segment(
            int(self.x[first]),
            int(self.x[last]),
            direction,
            float(self.y[first]),
            float(self.y[last]),
            sudden,
        )
