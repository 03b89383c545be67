"""Which settings vary over the runs of a sweep, and which only tell repeats apart.

Asked in this order: facts that the reader recognised, the configuration under its own names, the names of the runs.
Two settings that split the runs in the same way are one axis with two names: nothing can tell their effects apart.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from fitdoctor.compare.settings import ENVIRONMENT
from fitdoctor.readers.tags.words import word_set
from fitdoctor.report import Report
from fitdoctor.run import Fact
from fitdoctor.signals import LR
from fitdoctor.sweep.names import canonical, number_or_word, settings_in_names
from fitdoctor.sweep.result import Axis

LEARNING_RATE = "learning_rate"
Value = Fact | None

_FACTS = (
    LEARNING_RATE, "optimizer", "batch_size", "gradient_accumulation_steps", "weight_decay", "clip_norm",
    "label_smoothing", "loss_function", "classes", "n_train", "warmup_steps", "warmup_fraction", "warmup_epochs",
    "planned_epochs", "planned_steps",
)  # fmt: skip
"""Facts that are settings of a training; the others tell what was measured or where."""

_REPEATS = word_set("seed seeds rep repeat repeats replicate replica fold folds")
_NAMES_RUNS = word_set("name run id uuid trial job index idx number version")
_NOT_SETTINGS = word_set(
    """
    path paths dir dirs folder file files host hostname user port uuid timestamp date datetime time started created
    output out log logs logging logger save checkpoint ckpt resume url git commit sha device devices gpu gpus cuda
    cpu rank world workers worker pin verbose debug notes note tags tag group project entity comment description
    cwd pid wandb mlflow tensorboard swanlab
    """
)
_MEASURED = (
    "monitor", "layers", "loss_input", "loss_target", "loss_reduction", "trainable_", "optimizer_tensors",
    "optimizer_state", "scheduler_", "nonfinite_", "out_of_memory", "backward_calls", "steps_per_epoch", "n_val",
    "batch_norm_layers", "frozen_batch_norm", "first_", "last_",
)  # fmt: skip
"""How names begin under which our own monitor notes what it saw of a run: outcomes are no causes."""
DIGITS = 6
"""Significant digits after which two numbers are one setting: float32 in the log."""


@dataclass(frozen=True, slots=True)
class Table:
    """The varying settings of all runs.

    Attributes:
        axes: what varies.
        rows: per run its value on each axis.
        repeats: per run what tells it from its repeats.
        seeds: the settings that do.
        identifiers: settings that have another value in (nearly) every run and name it only.
        partly: settings that some runs tell, all of them the same value: what the others had is not known.
    """

    axes: tuple[Axis, ...]
    rows: tuple[Mapping[str, Value], ...]
    repeats: tuple[tuple[Value, ...], ...]
    seeds: tuple[str, ...]
    identifiers: tuple[str, ...]
    partly: tuple[str, ...] = ()

    def axis(self, name: str) -> Axis | None:
        """The axis that is, or includes, a setting."""
        return next((a for a in self.axes if name == a.name or name in a.also), None)


def read_settings(reports: Sequence[Report]) -> Table:
    """The varying settings of the runs that these reports are on."""
    columns, source = _columns(reports)
    varying = {key: column for key, column in columns.items() if len(set(column)) > 1}
    partly = [key for key, column in varying.items() if len({v for v in column if v is not None}) < 2]
    varying = {key: column for key, column in varying.items() if key not in partly}
    seeds = [key for key in varying if _words(key) & _REPEATS]
    identifiers = [key for key, column in varying.items() if key not in seeds and _names_runs(key, column)]
    by_split: dict[Hashable, list[str]] = {}
    for key, column in varying.items():
        if key not in seeds and key not in identifiers:
            by_split.setdefault((_split(column), _order(column)), []).append(key)
    axes = []
    for several in by_split.values():
        first, *also = sorted(several, key=lambda key: key != LEARNING_RATE)
        axes.append(_axis(first, [a for a in also if first not in _facts_named(a)], columns[first], source[first]))
    rows = tuple({a.name: columns[a.name][i] for a in axes} for i in range(len(reports)))
    repeats = tuple(tuple(columns[key][i] for key in seeds) for i in range(len(reports)))
    return Table(tuple(axes), rows, repeats, tuple(seeds), tuple(identifiers), tuple(partly))


def _columns(reports: Sequence[Report]) -> tuple[dict[str, list[Value]], dict[str, Literal["log", "name"]]]:
    """Per setting its value in every run, None where a run does not tell it; and where it was read."""
    told: list[dict[str, Value]] = []
    source: dict[str, Literal["log", "name"]] = {}
    for report in reports:
        own: dict[str, Value] = {key: _plain(report.facts[key]) for key in _FACTS if key in report.facts}
        if LEARNING_RATE not in own and (peak := _peak_rate(report)) is not None:
            own[LEARNING_RATE] = peak
        for key, value in report.params.items():
            if _is_setting(key, report) and not _facts_named(key) & own.keys():
                own.setdefault(key, _plain(value))
        told.append(own)
        source.update(dict.fromkeys(own, "log"))
    configured = 2 * sum(bool(report.params) for report in reports) > len(reports)
    for own, more in zip(told, settings_in_names([r.run for r in reports]), strict=True):
        for key, word in more.items():
            if configured and not (key in _FACTS or _words(key) & _REPEATS):
                continue  # the configuration is logged: what else stands in a name is somebody's own numbering
            own.setdefault(key, _plain(word))
            source.setdefault(key, "name")
    keys = dict.fromkeys(key for own in told for key in own)
    return {key: [own.get(key) for own in told] for key in keys}, source


def _is_setting(key: str, report: Report) -> bool:
    """Whether a name in the configuration is that of a setting, not of a place, a machine, or of what was measured."""
    if key in ENVIRONMENT or _words(key) & _NOT_SETTINGS:
        return _words(key) & _REPEATS != frozenset()
    watched = str(report.params.get("monitor", "")).startswith("fitdoctor")
    return not (watched and key.startswith(_MEASURED))


@cache
def _facts_named(key: str) -> frozenset[str]:
    """The facts that a setting of this name states: ``lr`` says again what ``learning_rate`` says."""
    return frozenset(canonical(key, value) for value in (1, 0.1, "adam")) - {key}


def _peak_rate(report: Report) -> float | None:
    """The highest learning rate logged: what a schedule was given."""
    values = [v for c in report.curves if c.signal.quantity == LR for _, v in c.points if math.isfinite(v)]
    peak = max(values, default=0.0)
    return float(f"{peak:.{DIGITS}g}") if peak > 0 else None


def _plain(value: Fact) -> Fact:
    """Numbers in words are numbers; float32 noise is none."""
    if isinstance(value, str):
        value = number_or_word(value.strip())
    if isinstance(value, float):
        value = float(f"{value:.{DIGITS}g}")
        return int(value) if math.isfinite(value) and value == int(value) and abs(value) < 2**53 else value
    return value


def _words(key: str) -> frozenset[str]:
    return frozenset(key.lower().replace("-", "_").replace("/", "_").replace(".", "_").replace(" ", "_").split("_"))


def _names_runs(key: str, column: Sequence[Value]) -> bool:
    """Whether a setting only names runs: other words in most runs, or a counter of runs."""
    told = [v for v in column if v is not None]
    different = len(set(told))
    if _words(key) <= _NAMES_RUNS and 2 * different > len(told):
        return True
    words = all(isinstance(v, str) for v in told)
    return words and different >= 4 and 4 * different > 3 * len(told)


def _split(column: Sequence[Value]) -> Hashable:
    """How a setting parts the runs, whatever its values are called."""
    number: dict[Value, int] = {}
    return tuple(number.setdefault(v, len(number)) for v in column)


def _order(column: Sequence[Value]) -> Hashable:
    """The order of the values of a number, up or down, where there are more than three; None for others.

    In a random search every number has another value in every run: they part the runs in the same way, and still are
    no two names for one thing unless they rise or fall together.
    """
    numbers = list(dict.fromkeys(float(v) for v in column if isinstance(v, int | float) and not isinstance(v, bool)))
    if len(numbers) < 4 or len(numbers) < len({v for v in column if v is not None}):
        return None
    ranks = [sorted(numbers).index(v) for v in numbers]
    return tuple(ranks if ranks[0] <= ranks[-1] else [len(ranks) - 1 - r for r in ranks])


def _axis(name: str, also: Sequence[str], column: Sequence[Value], source: Literal["log", "name"]) -> Axis:
    values = set(column)
    numbers = all(v is None or (isinstance(v, int | float) and not isinstance(v, bool)) for v in values)
    numeric = numbers and any(v is not None for v in values)
    counts = Counter(column)
    ordered = sorted(
        values,
        key=lambda v: (v is None, float(v) if numeric and v is not None else 0.0, -counts[v], str(v)),
    )
    return Axis(name, tuple(also), tuple(ordered), "number" if numeric else "word", source)
