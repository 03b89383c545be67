"""By what two runs are aligned: equal steps, equal epochs or equal time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fitdoctor.compare.comparison import Clock
from fitdoctor.run import FloatArray, Run, Series
from fitdoctor.signals import EPOCH
from fitdoctor.views.plans import steps_per_epoch


def choose_clock(runs: Sequence[Run]) -> Clock:
    """Steps where a step means the same in all runs, epochs where it does not.

    With another batch size, or on another data set, equal steps are not equal work; where the log tells how
    long an epoch is, epochs are compared then.
    """
    units = {run.step_unit for run in runs}
    lengths = [steps_per_epoch(run) for run in runs]
    known = [n for n in lengths if n is not None]
    if len(units) == 1 and not (len(known) == len(runs) and max(known) > 1.01 * min(known)):
        return "step"
    return "epoch" if all(_epochs_known(run) for run in runs) else "step"


def read(run: Run, series: Series, clock: Clock) -> FloatArray | None:
    """Where each point of a series lies on a clock, float64[len(series)]; None when the log does not tell.

    Time counts in seconds from the first point that the run logged with a time.
    """
    steps = series.steps.astype(np.float64)
    if clock == "step":
        return steps
    if clock == "time":
        return _seconds(run, series)
    if run.step_unit == "epoch":
        return steps
    counter = run.get(EPOCH)
    if counter is not None and len(counter.finite) >= 2:
        counter = counter.finite
        at = counter.steps.astype(np.float64)
        inside = np.interp(steps, at, counter.values)
        pace = (counter.values[-1] - counter.values[0]) / (at[-1] - at[0])
        beyond = counter.values[-1] + pace * (steps - at[-1])
        return np.where(steps > at[-1], beyond, inside)
    length = steps_per_epoch(run)
    return None if length is None else steps / length


def _epochs_known(run: Run) -> bool:
    if run.step_unit == "epoch" or steps_per_epoch(run) is not None:
        return True
    counter = run.get(EPOCH)
    return counter is not None and len(counter.finite) >= 2


def _seconds(run: Run, series: Series) -> FloatArray | None:
    timed = [s for s in run.series if s.wall_time is not None and len(s) and bool(np.isfinite(s.wall_time).all())]
    if not timed:
        return None
    start = min(float(s.wall_time[0]) for s in timed if s.wall_time is not None)
    longest = max(timed, key=len)
    own = series.wall_time
    if own is None or not bool(np.isfinite(own).all()):
        assert longest.wall_time is not None  # it is one of `timed`
        own = np.interp(series.steps.astype(np.float64), longest.steps.astype(np.float64), longest.wall_time)
    return np.maximum.accumulate(own - start)
