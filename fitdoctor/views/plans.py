"""What a run was planned to be: its length, and where its epochs end."""

from __future__ import annotations

import numpy as np

from fitdoctor.rule import CannotJudge
from fitdoctor.run import Run, Span
from fitdoctor.signals import EPOCH


def planned_length(run: Run) -> int | None:
    """Last step the run was meant to reach, in its own step unit; None when the log does not say."""
    epochs = run.facts.get("planned_epochs")
    if run.step_unit == "epoch":
        return _whole(epochs)
    steps = _whole(run.facts.get("planned_steps"))
    if steps is not None:
        return steps
    per_epoch = steps_per_epoch(run)
    return round(float(epochs) * per_epoch) if isinstance(epochs, (int, float)) and per_epoch else None


def whole_length(run: Run) -> Span:
    """First step to the planned last step, or to the last logged one of a run that is not known to go on.

    Raises:
        CannotJudge: for a run that is still going and whose planned length is unknown.
    """
    span = run.steps
    if span is None:
        raise CannotJudge("nothing was logged")
    planned = planned_length(run)
    if planned is None and run.finished is False:
        raise CannotJudge("the run is not finished and its planned length is unknown; set the fact planned_steps")
    planned_last = 0 if planned is None else planned - (span.first == 0)  # steps count from 0 or from 1
    return Span(span.first, max(span.last, planned_last))


def steps_per_epoch(run: Run) -> int | None:
    """Steps of one epoch, from the facts or from an epoch counter logged beside the steps."""
    if run.step_unit == "epoch":
        return None
    known = _whole(run.facts.get("steps_per_epoch"))
    if known is not None:
        return known
    epoch = run.get(EPOCH)
    if epoch is None:
        return None
    finite = epoch.finite
    if len(finite) < 3 or finite.values[-1] - finite.values[0] < 2:
        return None
    whole = np.floor(finite.values)
    begins = finite.steps[1:][whole[1:] > whole[:-1]]
    if len(begins) < 2:
        return None
    gaps = np.diff(begins)
    middle = int(np.median(gaps))
    return middle if middle >= 2 and float(np.mean(np.abs(gaps - middle) <= 0.02 * middle)) > 0.8 else None


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 2**62:
        return None
    return int(value)
