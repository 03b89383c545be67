"""RawRun -> Run: one series per signal, on one clock, in order.

    columns of one tag joined -> restarts and order -> one clock -> one series per signal -> units

Nothing here raises on odd data: what cannot be used is left out, and the run's notes say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fitdoctor.readers.clocks import (
    CROWDED,
    EpochMap,
    Restart,
    increases,
    spread_evenly,
    step_by_time,
    stride_of,
    untangle,
)
from fitdoctor.readers.raw import RawRun, RawSeries
from fitdoctor.readers.tags import Mapped, Overrides, facts_from_params, resolve
from fitdoctor.readers.units import convert_units
from fitdoctor.run import Fact, FloatArray, IntArray, Note, Per, Run, Series
from fitdoctor.signals import EPOCH, LOSS, LOSS_PART, METRICS, SPLIT_QUANTITIES, Signal


@dataclass(slots=True, eq=False)
class Column:
    """One tag on its way to becoming a series.

    Attributes:
        tag: as logged.
        meaning: what it means.
        values: float64[n].
        steps: int64[n] or None when the log has no step clock for it.
        epochs: float64[n] or None.
        wall_time: float64[n] or None.
        restarts: restarts found in it.
        statistic: which statistic of a distribution, "" for scalars.
    """

    tag: str
    meaning: Mapped
    values: FloatArray
    steps: IntArray | None
    epochs: FloatArray | None
    wall_time: FloatArray | None
    restarts: tuple[Restart, ...] = ()
    statistic: str = ""

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: Any) -> None:
        """Keep the points of an index array or mask."""
        self.values = self.values[index]
        self.steps = None if self.steps is None else self.steps[index]
        self.epochs = None if self.epochs is None else self.epochs[index]
        self.wall_time = None if self.wall_time is None else self.wall_time[index]

    @property
    def series(self) -> Series:
        """The finished series."""
        assert self.steps is not None
        return Series(self.meaning.signal, self.steps, self.values, self.tag, self.meaning.per, self.wall_time)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A tag that became no series, and why."""

    tag: str
    statistic: str
    points: int
    why: str


@dataclass(frozen=True, slots=True, eq=False)
class Assembled:
    """A run, and what became of each tag."""

    run: Run
    left_out: tuple[LeftOut, ...]


def assemble(raw: RawRun, overrides: Overrides = ()) -> Run:
    """The run that a raw run tells of.

    Args:
        raw: what a reader found.
        overrides: what the user says about tags (`tags.parse_overrides`).
    """
    return assemble_in_full(raw, overrides).run


def assemble_in_full(raw: RawRun, overrides: Overrides = ()) -> Assembled:
    """The run, and what was left out of it."""
    notes: list[Note] = list(raw.notes)
    columns, left_out = _columns(raw.series, overrides)
    with np.errstate(all="ignore"):
        columns = _in_order(columns, notes)
        columns, facts = _on_one_clock(columns, notes)
        columns, unusable = convert_units(columns, notes)
        left_out += [LeftOut(c.tag, c.statistic, len(c), why) for c, why in unusable]
        _tell_cadence(columns, str(facts.get("step_unit", "step")))
        columns, twice = _one_per_signal(columns, notes)
    left_out += twice
    run = Run(
        name=raw.name,
        series=tuple(c.series for c in columns if c.meaning.signal.quantity != EPOCH),
        facts={**facts_from_params(raw.params), **facts, **raw.facts},
        finished=raw.finished,
        path=raw.path,
        source=raw.source,
        notes=tuple(notes),
        unmapped=tuple(dict.fromkeys(x.tag for x in left_out)),
    )
    return Assembled(run, tuple(left_out))


# --- columns of one tag joined ---------------------------------------------------------------------------


def _columns(series: Iterable[RawSeries], overrides: Overrides) -> tuple[list[Column], list[LeftOut]]:
    together: dict[tuple[str, str], list[RawSeries]] = {}
    for raw in series:
        if len(raw.values):
            together.setdefault((raw.tag, raw.statistic), []).append(raw)
    columns: list[Column] = []
    left_out: list[LeftOut] = []
    for (tag, statistic), parts in together.items():
        meaning = resolve(tag, statistic, overrides)
        if isinstance(meaning, str):
            left_out.append(LeftOut(tag, statistic, sum(len(p.values) for p in parts), meaning))
        else:
            columns.append(_joined(tag, meaning, parts))
    return columns, left_out


def _joined(tag: str, meaning: Mapped, parts: Sequence[RawSeries]) -> Column:
    """One column of several files; a clock counts only when every part has it."""
    values = _array(parts, "values", np.float64)
    n = len(values)
    steps = _fitting(_array(parts, "steps", np.int64), n)
    epochs = _fitting(_array(parts, "epochs", np.float64), n)
    wall = _fitting(_array(parts, "wall_time", np.float64), n)
    return Column(tag, meaning, values, steps, epochs, wall, statistic=parts[0].statistic)


def _fitting(clock: Any, n: int) -> Any:
    return clock if clock is not None and len(clock) == n else None


def _array(parts: Sequence[RawSeries], name: str, kind: type) -> Any:
    found = [getattr(p, name) for p in parts]
    if any(a is None for a in found):
        return None
    arrays = [np.atleast_1d(np.asarray(a)) for a in found]
    if kind is np.int64:
        arrays = [a if a.dtype.kind in "iu" else np.nan_to_num(a, nan=0, posinf=2**62, neginf=-(2**62)) for a in arrays]
    return (arrays[0] if len(arrays) == 1 else np.concatenate(arrays)).astype(kind, copy=False)


# --- restarts and order -----------------------------------------------------------------------------------


def _in_order(columns: list[Column], notes: list[Note]) -> list[Column]:
    """Every column in the order of its own clock; columns that mix two clocks become two."""
    out: list[Column] = []
    duplicates: dict[str, int] = {}
    for column in columns:
        steps = column.steps
        if steps is None or increases(steps):
            out.append(column)
            continue
        if _crowded(column):
            text = f"{column.tag!r}: up to {_most_per_step(steps)} points share a step; they are counted in file order"
            notes.append(Note("duplicate-steps", text, amount=float(len(steps) - len(np.unique(steps)))))
            column.epochs = steps.astype(np.float64) if np.ptp(steps) > 0 and increases_weakly(steps) else column.epochs
            column.steps = np.arange(len(steps), dtype=np.int64)
            out.append(column)
            continue
        order = untangle(steps, column.wall_time)
        if len(order.other):
            out.append(_other_clock(column, order.other, order.other_after))
            notes.append(
                Note("aligned", f"{column.tag!r} is logged per step and, under the same tag, per epoch; split in two")
            )
        column.restarts = order.restarts
        if order.duplicates:
            duplicates[column.tag] = order.duplicates
        column.take(order.keep)
        out.append(column)
    _supersede(out)
    _tell_restarts(out, notes)
    if duplicates:
        most = max(duplicates, key=lambda tag: duplicates[tag])
        text = f"{sum(duplicates.values())} points repeat a step of their tag ({most!r} most); the last of each stands"
        notes.append(Note("duplicate-steps", text, amount=float(sum(duplicates.values()))))
    return out


def increases_weakly(steps: IntArray) -> bool:
    """Whether steps never fall."""
    return bool((steps[1:] >= steps[:-1]).all())


def _most_per_step(steps: IntArray) -> int:
    return int(np.unique(steps, return_counts=True)[1].max())


def _crowded(column: Column) -> bool:
    """Whether the logged step cannot be the clock of the points, because many points share each step."""
    steps = column.steps
    assert steps is not None
    return len(steps) >= 6 and increases_weakly(steps) and len(steps) / len(np.unique(steps)) >= CROWDED


def _other_clock(column: Column, index: IntArray, after: IntArray) -> Column:
    meaning = replace(column.meaning, per="epoch")
    part = replace(column, meaning=meaning)
    part.take(index)
    part.steps = after
    if not increases(after):
        part.take(np.r_[after[1:] != after[:-1], True])
    return part


def _supersede(columns: list[Column]) -> None:
    """A restart that one tag shows holds for all: drop what others logged on the abandoned branch."""
    sure = [(r.step, r.wall_time) for c in columns for r in c.restarts if r.wall_time is not None and r.superseded >= 3]
    for column in columns:
        if column.steps is None or column.wall_time is None or not len(column):
            continue
        stale = np.zeros(len(column), bool)
        for step, moment in sure:
            later = column.wall_time >= moment
            if later.any():  # a tag that ended before the restart is not told to have been logged again
                stale |= ~later & (column.steps >= step)
        if stale.any():
            column.take(~stale)


def _tell_restarts(columns: list[Column], notes: list[Note]) -> None:
    found: dict[int, list[Restart]] = {}
    for column in columns:
        for restart in column.restarts:
            found.setdefault(restart.step, []).append(restart)
    for step, restarts in sorted(found.items()):
        before, lost = max(r.before for r in restarts), sum(r.superseded for r in restarts)
        text = f"training went back from step {before} to step {step}; {lost} points logged before that are superseded"
        notes.append(Note("restart", text, step=step, amount=float(lost)))


# --- one clock ------------------------------------------------------------------------------------------


def _on_one_clock(columns: list[Column], notes: list[Note]) -> tuple[list[Column], dict[str, Fact]]:
    """Give every column training steps, or every column epochs when the log knows nothing else."""
    columns = [c for c in columns if len(c)]
    stepped = [c for c in columns if c.steps is not None]
    if not stepped:
        return _on_epochs(columns, notes)
    main = _main(stepped)
    facts: dict[str, Fact] = {"step_unit": "epoch" if _counts_epochs(stepped) else "step"}
    epochs: EpochMap | None = None
    if any(c.epochs is not None or c.meaning.signal.quantity == EPOCH for c in columns):
        epochs = _epoch_map(columns)
        if epochs is not None and (each := epochs.steps_per_epoch) is not None:
            facts["steps_per_epoch"] = each
    moved: dict[str, list[str]] = {}
    for column in columns:
        if column is main or column.meaning.signal.quantity == EPOCH:
            continue
        if (how := _align(column, main, epochs)) is not None:
            moved.setdefault(how, []).append(column.tag)
    for how, tags in moved.items():
        shown = ", ".join(repr(t) for t in tags[:4]) + (f" and {len(tags) - 4} more" if len(tags) > 4 else "")
        notes.append(Note("aligned", f"{shown}: counted on another clock, placed on the training steps by {how}"))
    return [c for c in columns if c.steps is not None and len(c)], facts


def _on_epochs(columns: list[Column], notes: list[Note]) -> tuple[list[Column], dict[str, Fact]]:
    known = [c.epochs for c in columns if c.epochs is not None]
    if not known:
        for column in columns:
            column.steps = np.arange(len(column), dtype=np.int64)
        if columns:
            notes.append(Note("aligned", "the log has no step and no epoch; its rows are counted from 0"))
        return columns, {"step_unit": "step"}
    clock = np.unique(np.concatenate(known))
    clock = clock[np.isfinite(clock)]
    whole = bool((clock == np.floor(clock)).all()) and (not len(clock) or float(np.abs(clock).max()) < 2**53)
    if not whole:
        notes.append(Note("aligned", "the log has no step and its epochs are fractions; its points are counted from 0"))
    for column in columns:
        epochs = column.epochs if column.epochs is not None else np.arange(len(column), dtype=np.float64)
        column.take(np.isfinite(epochs))
        epochs = epochs[np.isfinite(epochs)]
        column.steps = epochs.astype(np.int64) if whole else np.searchsorted(clock, epochs).astype(np.int64)
    return _in_order([c for c in columns if len(c)], notes), {"step_unit": "epoch" if whole else "step"}


def _main(columns: Sequence[Column]) -> Column:
    """The column whose steps are the training steps: of the training split, with the most points."""

    def order(column: Column) -> tuple[bool, bool, int]:
        signal = column.meaning.signal
        return (signal.split == "train", column.meaning.per != "epoch", len(column))

    return max(columns, key=order)


def _counts_epochs(columns: Sequence[Column]) -> bool:
    """Whether the steps are epochs: train and validation stand on the same grid of stride one."""
    grids: dict[str, set[tuple[int, int, int]]] = {}
    for c in columns:
        assert c.steps is not None
        if c.meaning.signal.quantity in SPLIT_QUANTITIES:
            if len(c) < 2 or stride_of(c.steps) != 1:
                return False
            grids.setdefault(c.meaning.signal.split, set()).add((int(c.steps[0]), int(c.steps[-1]), len(c)))
    train = grids.pop("train", set())
    return bool(train) and any(train & other for other in grids.values())


def _epoch_map(columns: Sequence[Column]) -> EpochMap | None:
    """Pairs of step and epoch: of the column that has most of them, and of a logged epoch counter."""
    pairs: list[tuple[IntArray, FloatArray]] = []
    for column in columns:
        if column.steps is not None and column.meaning.signal.quantity == EPOCH:
            pairs.append((column.steps, column.values))
        elif column.steps is not None and column.epochs is not None:
            pairs.append((column.steps, column.epochs))
    maps = [m for steps, epochs in pairs if (m := EpochMap.of(steps, epochs)) is not None]
    return max(maps, key=lambda m: len(m.steps)) if maps else None


def _align(column: Column, main: Column, epochs: EpochMap | None) -> str | None:
    """Put a column on the clock of `main`; how it was done, or None when nothing was to do."""
    assert main.steps is not None
    if column.steps is None:
        counted = column.epochs if column.epochs is not None else np.arange(len(column), dtype=np.float64)
        counted, missing = np.nan_to_num(counted, posinf=0, neginf=0), True
    else:
        if not _may_count_epochs(column.steps, main.steps):
            return None
        counted, missing = column.steps.astype(np.float64), False
    ways: list[tuple[str, IntArray]] = []
    if epochs is not None and (missing or _same_epochs(counted, epochs)):
        ways.append(("the logged epochs", epochs.step_at(counted)))
    if column.wall_time is not None and main.wall_time is not None:
        steps = step_by_time(column.wall_time, main.steps, main.wall_time)
        if missing or _runs_away(counted, steps):
            ways.append(("the time of writing", steps))
    elif missing or (epochs is None and _surely_epochs(column, main)):
        ways.append(("spreading its epochs evenly", spread_evenly(counted, int(main.steps[0]), int(main.steps[-1]))))
    for how, steps in ways:
        if len(np.unique(steps)) * 5 >= len(steps) * 4 or (missing and how == ways[-1][0]):
            _place(column, steps)
            return how
    if missing:
        _place(column, np.arange(len(column), dtype=np.int64))
        return "their order"
    return None


def _place(column: Column, steps: IntArray) -> None:
    column.steps = steps
    if not increases(steps):
        column.take(untangle(steps).keep)
    meaning = column.meaning
    signal = meaning.signal
    if signal.quantity in METRICS and not meaning.split_named and not meaning.by_user and signal.split == "train":
        signal = replace(signal, split="val")  # a metric without a split on its own clock is an evaluation
    column.meaning = replace(meaning, signal=signal, per=meaning.per or "epoch")


def _may_count_epochs(steps: IntArray, main: IntArray) -> bool:
    """Whether steps look like a counter much shorter than the training steps."""
    if len(steps) < 2 or len(main) < 2 or int(steps[-1]) * 2 > int(main[-1]):
        return False
    stride = stride_of(steps)
    return stride > 0 and 0 <= int(steps[0]) <= stride


def _same_epochs(counted: FloatArray, epochs: EpochMap) -> bool:
    """Whether counted numbers end where the epochs of the log end."""
    stride = counted[1] - counted[0] if len(counted) > 1 else 1.0
    return bool(abs(float(counted[-1]) - float(np.ceil(epochs.epochs[-1]))) <= max(1.0, stride))


def _runs_away(counted: FloatArray, by_time: IntArray) -> bool:
    """Whether the time of writing puts the points far behind the steps that they claim."""
    return bool((by_time[1:] > 2 * counted[1:] + 1).mean() > 0.8) if len(counted) > 1 else False


def _surely_epochs(column: Column, main: Column) -> bool:
    """Whether, with no other clock at hand, a column can only count epochs."""
    assert column.steps is not None
    assert main.steps is not None
    evaluation = column.meaning.signal.split != "train" or column.meaning.per == "epoch"
    return (
        evaluation
        and len(column) >= 3
        and stride_of(column.steps) == 1
        and int(main.steps[-1]) >= 4 * int(column.steps[-1])
        and len(main) >= 2 * len(column)
    )


# --- one series per signal --------------------------------------------------------------------------------


def _tell_cadence(columns: Sequence[Column], step_unit: str) -> None:
    """Fill in `per` where the log leaves no doubt."""
    if step_unit == "epoch":
        for c in columns:
            if not c.meaning.per:
                c.meaning = replace(c.meaning, per="epoch")
        return
    together: dict[Signal, list[Column]] = {}
    for c in columns:
        if c.meaning.signal.quantity in SPLIT_QUANTITIES and not c.meaning.per and c.meaning.signal.split == "train":
            together.setdefault(c.meaning.signal, []).append(c)
    held_out = [c for c in columns if c.meaning.signal.split in ("val", "test") and c.steps is not None]
    for several in together.values():
        if len(several) == 2:
            sparse, dense = sorted(several, key=len)
            if _evaluated_with(sparse, held_out) and not _evaluated_with(dense, held_out):
                sparse.meaning = replace(sparse.meaning, per="epoch")
                dense.meaning = replace(dense.meaning, per="step")


def _evaluated_with(column: Column, held_out: Sequence[Column]) -> bool:
    """Whether a training curve stands on the steps of an evaluation: then it is one, on training data."""
    return any(np.array_equal(column.steps, c.steps) for c in held_out)  # type: ignore[arg-type]


def _one_per_signal(columns: list[Column], notes: list[Note]) -> tuple[list[Column], list[LeftOut]]:
    groups: dict[tuple[Signal, Per], list[Column]] = {}
    for c in columns:
        if len(c):
            groups.setdefault((c.meaning.signal, c.meaning.per), []).append(c)
    kept: list[Column] = []
    left_out: list[LeftOut] = []
    for (signal, _), several in groups.items():
        most = max(_reach(c) for c in several)
        several.sort(key=lambda c: (not c.meaning.by_user, 2 * _reach(c) < most, c.meaning.detours, -len(c), c.tag))
        best = several[0]
        kept.append(best)
        for other in several[1:]:
            if not _tells_the_same(best, other):
                notes.append(
                    Note("ambiguous", f"{best.tag!r} and {other.tag!r} both read as {signal}; the first is used")
                )
            left_out.append(LeftOut(other.tag, other.statistic, len(other), f"{best.tag!r} stands for {signal}"))
    return _whole_objective(kept), left_out


def _reach(column: Column) -> int:
    """Steps from the first point to the last."""
    return 0 if column.steps is None else int(column.steps[-1]) - int(column.steps[0])


def _tells_the_same(first: Column, second: Column) -> bool:
    return (
        len(first) == len(second)
        and np.array_equal(first.steps, second.steps)  # type: ignore[arg-type]
        and np.array_equal(first.values, second.values, equal_nan=True)
    )


def _whole_objective(columns: list[Column]) -> list[Column]:
    """Where a split has no loss and one part of it, that part is the objective."""
    for split in ("train", "val", "test"):
        own = [c for c in columns if c.meaning.signal.split == split]
        if any(c.meaning.signal.quantity == LOSS for c in own):
            continue
        parts = [c for c in own if c.meaning.signal.quantity == LOSS_PART]
        if len({c.meaning.signal.layer for c in parts}) == 1:
            for c in parts:
                c.meaning = replace(c.meaning, signal=Signal(LOSS, split))
    return columns
