"""What changed between two trainings, and whether it helped: `compare(before, after) -> Comparison`.

    runs --diagnose--> reports --+-- settings ..... which facts differ
                                 +-- clocks ....... the stretch that both sides cover, by step, epoch or time
                                 +-- measures ..... final, best and mean level of each curve on that stretch
                                 +-- significance . could seeds alone have made the difference?
                                 +-- symptoms ..... findings gone, new, still there, no longer judged
                                 +-- trials ....... remedies that were advised before and tried after

The metric that decides is chosen from what was logged, before any value is looked at.
"""

from __future__ import annotations

from fitdoctor.compare.comparison import (
    Check,
    Comparison,
    CurveChange,
    FactChange,
    FindingChange,
    Measure,
    Trial,
)
from fitdoctor.compare.judge import compare
from fitdoctor.compare.significance import Significance

__all__ = [
    "Check",
    "Comparison",
    "CurveChange",
    "FactChange",
    "FindingChange",
    "Measure",
    "Significance",
    "Trial",
    "compare",
]
