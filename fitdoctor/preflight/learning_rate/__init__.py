"""The learning rate: a range test, read as an interval, and a schedule made of it.

`ramp.py` trains with a rate that grows, `reading.py` reads the curves (no torch), `trials.py` trains at the rates
around what they suggest, `result.py` is what the user gets, `schedule.py` and `plot.py` draw on it.
"""

from __future__ import annotations

from fitdoctor.preflight.learning_rate.ramp import find_lr
from fitdoctor.preflight.learning_rate.result import LearningRates
from fitdoctor.preflight.learning_rate.schedule import Schedule

__all__ = ["LearningRates", "Schedule", "find_lr"]
