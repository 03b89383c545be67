"""What a training run logged: `Series` of numbers over steps, collected in a `Run`.

A `Run` is the only thing that rules see. It is immutable; its arrays are read-only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, Literal, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from fitdoctor.signals import LOSS, Quantity, Signal

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
Per = Literal["step", "epoch", ""]
Fact = str | int | float | bool
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Span:
    """Training steps from `first` to `last`, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}" if self.first == self.last else f"{self.first}-{self.last}"


def _frozen(values: object, dtype: type) -> NDArray[np.generic]:
    array: NDArray[np.generic] = np.atleast_1d(np.asarray(values, dtype=dtype))
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Series:
    """One signal over time.

    Attributes:
        signal: what was measured.
        steps: int64[n], strictly increasing. Their unit is `Run.step_unit`.
        values: float64[n]; nan and inf are data, not gaps.
        tag: the name under which it stood in the log.
        per: "step" when each value belongs to one step or logging window, "epoch" when it
            sums up an epoch, "" when the log does not say.
        wall_time: float64[n], seconds since the Unix epoch, or None.

    Raises:
        ValueError: if the lengths differ or the steps do not increase.
    """

    signal: Signal
    steps: IntArray
    values: FloatArray
    tag: str = ""
    per: Per = ""
    wall_time: FloatArray | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", _frozen(self.steps, np.int64))
        object.__setattr__(self, "values", _frozen(self.values, np.float64))
        if self.wall_time is not None:
            object.__setattr__(self, "wall_time", _frozen(self.wall_time, np.float64))
            if len(self.wall_time) != len(self.steps):
                raise ValueError(f"{self.signal}: {len(self.steps)} steps but {len(self.wall_time)} wall times")
        if len(self.steps) != len(self.values):
            raise ValueError(f"{self.signal}: {len(self.steps)} steps but {len(self.values)} values")
        if len(self.steps) > 1 and not bool(np.all(self.steps[1:] > self.steps[:-1])):
            raise ValueError(f"{self.signal}: steps must increase; the reader keeps the last value of a step")

    def __len__(self) -> int:
        return len(self.steps)

    def __repr__(self) -> str:
        return f"Series({self.signal}, {len(self)} points, steps {self.span})"

    @property
    def span(self) -> Span:
        """First and last step; (0, 0) when empty."""
        return Span(int(self.steps[0]), int(self.steps[-1])) if len(self) else Span(0, 0)

    @property
    def finite(self) -> Series:
        """The points whose value is finite."""
        keep = np.isfinite(self.values)
        return self if bool(keep.all()) else self[keep]

    def __getitem__(self, index: slice | NDArray[np.bool_] | IntArray) -> Series:
        wall = None if self.wall_time is None else self.wall_time[index]
        return replace(self, steps=self.steps[index], values=self.values[index], wall_time=wall)

    def between(self, first: int, last: int) -> Series:
        """The points with ``first <= step <= last``."""
        low, high = np.searchsorted(self.steps, [first, last + 1])
        return self[int(low) : int(high)]

    def at(self, steps: IntArray) -> FloatArray:
        """The last value at or before each step, float64[len(steps)]; nan before the first point."""
        if not len(self):
            return np.full(len(steps), np.nan)
        index = np.searchsorted(self.steps, steps, side="right") - 1
        return np.where(index >= 0, self.values[np.maximum(index, 0)], np.nan)


@dataclass(frozen=True, slots=True)
class Note:
    """Something a reader had to say about the log itself.

    Attributes:
        kind: "corrupt", "truncated", "restart", "duplicate-steps", "unmapped", "aligned",
            "hidden-nonfinite", "ambiguous", "ignored-file" or "other".
        text: one sentence for a person, with file and place.
        step: the training step it concerns, where there is one.
        amount: how much: bytes, points or steps, by kind.
    """

    kind: str
    text: str
    step: int | None = None
    amount: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Everything that one training run logged.

    Attributes:
        name: name of the run, unique below the path that was opened.
        series: the series, at most one per (signal, per).
        facts: what is known beside the curves. Keys in use: ``optimizer``, ``learning_rate``,
            ``batch_size``, ``gradient_accumulation_steps``, ``weight_decay``, ``clip_norm``,
            ``label_smoothing``, ``loss_function``, ``classes``, ``n_train``, ``n_val``,
            ``planned_steps``, ``planned_epochs``, ``steps_per_epoch``, ``step_unit``
            ("step" or "epoch"), ``framework``, ``resumed_at``, ``layers`` (JSON, in the order of the forward pass:
            name, role, inputs and number of units, activation applied after it, layer whose output it takes).
            Of hooks alone, measured at the first record unless said otherwise: ``loss_input_shape``,
            ``loss_target_shape`` ("50x1"), ``loss_input_from`` (the operation that made it), ``loss_reduction``;
            when attached: ``dropout_layers``, ``batch_norm_layers``, ``frozen_batch_norm_layers``,
            ``trainable_tensors``, ``trainable_tensors_not_in_optimizer``, ``trainable_not_in_optimizer`` (names),
            ``optimizer_tensors_not_in_model``; up to the last record: ``autocast``, ``scheduler_steps``,
            ``trainable_not_in_optimizer_changed`` (how many something else wrote to); before the first step:
            ``scheduler_before_optimizer``, ``optimizer_state_restored`` and ``scheduler_restored`` of a resumed
            training; ``nonfinite_step``, ``_place``, ``_name``, ``_sure``; at the end:
            ``backward_calls_without_step``, ``out_of_memory`` ("device" or "host"), ``out_of_memory_step``,
            ``_place``, ``_first``, and bytes ``_requested``, ``_allocated``, ``_reserved_free``, ``_total``.
        finished: True or False when the log says so, None when it does not.
        path: where it was read from.
        source: format of the log, such as ``tensorboard``.
        notes: what the reader had to say about the log.
        unmapped: tags that could not be mapped to a signal.
        params: the configuration under the names that the log uses; rules look at `facts`, a sweep at both.
    """

    name: str
    series: tuple[Series, ...]
    facts: Mapping[str, Fact] = field(default_factory=dict)
    finished: bool | None = None
    path: str = ""
    source: str = ""
    notes: tuple[Note, ...] = ()
    unmapped: tuple[str, ...] = ()
    params: Mapping[str, Fact] = field(default_factory=dict)
    _logged: Mapping[tuple[str, str], list[Series]] = field(init=False, repr=False)
    """The series that hold points, by the name of their quantity and by split: rules ask hundreds of times."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "series", tuple(self.series))
        object.__setattr__(self, "facts", dict(self.facts))
        object.__setattr__(self, "params", dict(self.params))
        keys = [(s.signal, s.per) for s in self.series]
        if len(set(keys)) != len(keys):
            twice = next(k for k in keys if keys.count(k) > 1)
            raise ValueError(f"run {self.name!r}: more than one series for {twice[0]} per {twice[1] or 'unknown'}")
        logged: dict[tuple[str, str], list[Series]] = {}
        for s in self.series:
            if len(s):
                logged.setdefault((s.signal.quantity.name, s.signal.split), []).append(s)
        object.__setattr__(self, "_logged", logged)

    def get(self, quantity: Quantity, split: str = "train", layer: str = "", per: Per = "") -> Series | None:
        """The series of a signal, or None.

        Without `per`, the one with the most points among those that tell at least half of what the
        longest tells: a loss logged for the first 100 steps only does not stand for the whole run.
        """
        near = self._logged.get((quantity.name, split))
        if near is None:
            return None
        wanted = Signal(quantity, split, layer)
        found = [s for s in near if s.signal == wanted and (not per or s.per == per)]
        if len(found) < 2:
            return found[0] if found else None
        reach = [s.span.last - s.span.first for s in found]
        return max((s for s, own in zip(found, reach, strict=True) if 2 * own >= max(reach)), key=len)

    def layers(self, quantity: Quantity, split: str = "train") -> dict[str, Series]:
        """All series of a quantity that belong to a named layer, part or group, in logged order."""
        return {
            s.signal.layer: s
            for s in self._logged.get((quantity.name, split), ())
            if s.signal.quantity == quantity and s.signal.layer
        }

    @property
    def steps(self) -> Span | None:
        """First and last step of anything logged, or None for an empty run."""
        ends = [s.span for s in self.series if len(s)]
        return Span(min(e.first for e in ends), max(e.last for e in ends)) if ends else None

    @property
    def step_unit(self) -> str:
        """What a step counts: "step" or "epoch"."""
        return str(self.facts.get("step_unit", "step"))

    def until(self, step: int) -> Run:
        """The run as it stood when `step` had just been logged."""
        kept = tuple(s[: int(np.searchsorted(s.steps, step, side="right"))] for s in self.series)
        return replace(self, series=kept, finished=False)

    def with_facts(self, **facts: Fact) -> Run:
        """The same run with more, or other, facts."""
        return replace(self, facts={**self.facts, **facts})

    def plot(self, quantity: str = "loss", *, log: bool | None = None) -> Figure:
        """All series of a quantity over the steps, as a matplotlib figure (extra ``plot``).

        Args:
            quantity: its name, such as "loss" or "grad_norm".
            log: a logarithmic axis; decided by the values when left out.

        Raises:
            ValueError: if the run has no such series.
            ImportError: if matplotlib is not installed.
        """
        from fitdoctor.figures import Panel, draw

        found = [s for s in self.series if s.signal.quantity.name == quantity and len(s)]
        if not found:
            has = ", ".join(dict.fromkeys(s.signal.quantity.name for s in self.series if len(s))) or "nothing"
            raise ValueError(f"run {self.name!r} has no {quantity!r} to plot; it has {has}")
        curves = [(str(s.signal), thin(s, 2000)) for s in found]
        return draw([Panel(quantity, curves, log=log)], title=self.name, unit=self.step_unit)

    def _repr_html_(self) -> str:
        """What a notebook shows: the main curve, and what was logged."""
        from fitdoctor import display

        losses = [s for s in self.series if s.signal.quantity == LOSS and not s.signal.layer and len(s)]
        counts = Counter(str(s.signal) for s in self.series if len(s) and not s.signal.layer)
        layers = Counter(s.signal.quantity.name for s in self.series if len(s) and s.signal.layer)
        told = [display.text(name) for name in counts]
        told += [f"{display.text(name)} of {n} layers or parts" for name, n in layers.items()]
        about = f"{self.step_unit}s {self.steps}" if self.steps else "no measurements"
        blocks = [
            display.small(f"{display.text(about)} · {display.text(self.source or 'live')}"),
            display.chart([(str(s.signal), thin(s)) for s in losses]),
            f"<div>{', '.join(told)}</div>",
            display.listed(display.text(n.text) for n in self.notes[:5]),
        ]
        if self.unmapped:
            blocks.append(display.small(f"{len(self.unmapped)} tags not understood"))
        return display.card(f"<b>{display.text(self.name)}</b>", blocks)

    def to_frame(self) -> pd.DataFrame:
        """All series as one table: index = step, one column per signal (and per cadence where two exist)."""
        import pandas as pd

        columns: dict[str, pd.Series[float]] = {}
        for s in self.series:
            name = str(s.signal)
            if name in columns:
                name = f"{name} per {s.per or 'point'}"
            columns[name] = pd.Series(s.values, index=s.steps)
        frame = pd.DataFrame(columns)
        frame.index.name = self.step_unit
        return frame


def once_per_series(look: Callable[Concatenate[Series, P], T]) -> Callable[Concatenate[Series, P], T]:
    """Keep what a function makes of a series as long as the series is kept: rules look at the same few many times.

    The result must be immutable and must not hold the series, which would then never go away.
    """
    made: WeakKeyDictionary[Series, dict[object, T]] = WeakKeyDictionary()

    @wraps(look)
    def once(series: Series, /, *args: P.args, **options: P.kwargs) -> T:
        known = made.setdefault(series, {})
        key = args, tuple(options.items())
        if key not in known:
            known[key] = look(series, *args, **options)
        return known[key]

    return once


@once_per_series
def thin(series: Series, most: int = 200) -> tuple[tuple[int, float], ...]:
    """At most `most` points of a series that still draw the same picture.

    Keeps the first, the last, and of each bucket the smallest and the largest value
    (the min-max decimation that time series viewers use), so no spike and no nan is lost.

    Example:
        >>> import numpy as np
        >>> from fitdoctor.signals import LOSS
        >>> s = Series(Signal(LOSS), np.arange(10_000), np.r_[np.zeros(5_000), 9.0, np.zeros(4_999)])
        >>> kept = thin(s, 50)
        >>> len(kept) <= 50, max(v for _, v in kept)
        (True, 9.0)
    """
    n = len(series)
    if n <= most:
        index = np.arange(n)
    else:
        buckets = max(1, (most - 2) // 2)
        edges = np.linspace(0, n, buckets + 1).astype(np.int64)
        low, sizes = edges[:-1], np.diff(edges)
        keep = {0, n - 1}
        for size in set(sizes.tolist()):  # two of them at most
            first = low[sizes == size]
            parts = series.values[first[:, None] + np.arange(size)]
            bad = ~np.isfinite(parts)
            odd = bad.any(axis=1)
            keep.update((first + np.where(odd, bad.argmax(axis=1), parts.argmin(axis=1))).tolist())
            parts[bad] = -np.inf
            keep.update((first + parts.argmax(axis=1))[~bad.all(axis=1)].tolist())
        index = np.array(sorted(keep))
    return tuple(zip(series.steps[index].tolist(), series.values[index].tolist(), strict=True))
