"""What a reader hands over: a log as it stands in the file, before tags are understood.

    files --one reader per format--> RawRun --assemble (tags, clocks, restarts)--> Run

A reader knows its file format and nothing about training: it does not decide what ``eval_loss``
means, does not sort, and does not drop points of a restarted run. That happens once, for all
formats, in `fitdoctor.readers.assemble`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fitdoctor.run import Fact, FloatArray, IntArray, Note

Statistic = Literal["", "norm", "absmax", "mean", "std", "median", "spread", "zero_fraction"]


@dataclass(frozen=True, slots=True, eq=False)
class RawSeries:
    """One column of a log, in the order of the file.

    Attributes:
        tag: the name in the log.
        values: float64[n], nan and inf included. Missing cells are left out, not nan.
        steps: int64[n] training steps as logged, in file order (they may repeat or go back), or None
            when the log has no step clock.
        epochs: float64[n] epoch at each point, in file order, or None when the log has no epoch clock.
        wall_time: float64[n], seconds since the Unix epoch, or None.
        statistic: which statistic of a distribution this is, for histograms; "" for scalars.
    """

    tag: str
    values: FloatArray
    steps: IntArray | None = None
    epochs: FloatArray | None = None
    wall_time: FloatArray | None = None
    statistic: Statistic = ""


@dataclass(frozen=True, slots=True, eq=False)
class RawRun:
    """One run as a reader found it.

    Attributes:
        name: name of the run relative to the opened path; `open_runs` makes it unique.
        path: file or folder it came from.
        source: format, such as "tensorboard" or "lightning-csv".
        series: its columns. The same tag may occur twice (several event files): `assemble` merges
            them in this order, so the reader must list files in the order in which they were written.
        facts: facts under the keys of `Run.facts`.
        params: everything else of the run's configuration, under the names the log uses (hparams,
            ``params/`` of MLflow, W&B config); `tags.facts_from_params` picks what it knows.
        notes: damage, cuts and anything else to tell the user about the file.
        finished: True or False when the log says so.
    """

    name: str
    path: str
    source: str
    series: tuple[RawSeries, ...]
    facts: Mapping[str, Fact] = field(default_factory=dict)
    params: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    finished: bool | None = None
