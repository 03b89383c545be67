"""Many runs read as a sweep: `sweep(reports) -> Sweep`.

    reports --+-- settings .... which settings vary, which only tell repeats apart (names: settings in names of runs)
              +-- objective ... what the runs are ranked by, and where each ended
              +-- separation .. which setting separates the sick from the healthy (permutations: the test)
              +-- band ........ the learning rates that cost next to nothing
              +-- winner ...... whether the best run is better than noise

The objective is chosen from what was logged, before any value is looked at.
"""

from __future__ import annotations

from fitdoctor.sweep.judge import sweep
from fitdoctor.sweep.result import (
    Axis,
    Band,
    Edge,
    Level,
    Objective,
    Rate,
    Separation,
    Sweep,
    Trial,
    Winner,
)

__all__ = [
    "Axis",
    "Band",
    "Edge",
    "Level",
    "Objective",
    "Rate",
    "Separation",
    "Sweep",
    "Trial",
    "Winner",
    "sweep",
]
