"""Hypothesis strategies that tests share: arbitrary series and runs."""

from __future__ import annotations

import numpy as np
from fitdoctor.run import Note, Run, Series
from fitdoctor.signals import (
    ACCURACY,
    ACTIVATION_DEAD_FRACTION,
    ACTIVATION_GRAD_RMS,
    ACTIVATION_INPUT_SPREAD,
    ACTIVATION_RMS,
    ACTIVATION_SATURATED_FRACTION,
    ACTIVATION_ZERO_FRACTION,
    EPOCH,
    GRAD_NORM,
    GRAD_NORM_CLIPPED,
    LOGIT_ABSMAX,
    LOGIT_STD,
    LOSS,
    LR,
    QUANTITIES,
    SPLIT_QUANTITIES,
    SPLITS,
    UPDATE_RATIO,
    WEIGHT_ROWS_ALIKE,
    Signal,
)
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

NOTE_KINDS = (
    "corrupt",
    "truncated",
    "restart",
    "duplicate-steps",
    "unmapped",
    "aligned",
    "hidden-nonfinite",
    "ambiguous",
)


@st.composite
def signals(draw: st.DrawFn) -> Signal:
    """A signal, mostly of the kinds that rules look at."""
    often = (LOSS, LOSS, ACCURACY, LR, GRAD_NORM, GRAD_NORM_CLIPPED, EPOCH)
    quantity = draw(st.sampled_from(often) | st.sampled_from(sorted(QUANTITIES.values(), key=lambda q: q.name)))
    split = draw(st.sampled_from(SPLITS)) if quantity in SPLIT_QUANTITIES else "train"
    layer = draw(st.sampled_from(("", "", "0.weight", "1.weight", "10.bias", "pg1", "blocks.3.mlp.weight")))
    return Signal(quantity, split, layer)


def step_arrays(n: int) -> st.SearchStrategy[np.ndarray]:
    """n strictly increasing steps, evenly or unevenly spaced."""
    even = st.builds(lambda a, d: a + d * np.arange(n), st.integers(-5, 10**6), st.integers(1, 10**4))
    uneven = st.lists(st.integers(1, 500), min_size=n, max_size=n).map(lambda gaps: np.cumsum(np.array(gaps, np.int64)))
    return even | uneven


@st.composite
def values(draw: st.DrawFn, n: int) -> np.ndarray:
    """n values: anything at all, or a curve with noise, spikes, and non-finite tails."""
    if draw(st.booleans()):
        return draw(arrays(np.float64, n, elements=st.floats(width=64)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    t = np.arange(n) / max(n, 1)
    shape = draw(st.sampled_from(("falls", "rises", "flat", "steps", "valley")))
    curve = {
        "falls": np.exp(-4 * t),
        "rises": np.exp(3 * t),
        "flat": np.ones(n),
        "steps": 0.1 ** np.floor(3 * t),
        "valley": (t - 0.5) ** 2,
    }[shape]
    out = np.asarray(curve * 10.0 ** draw(st.integers(-9, 9)))
    out = out * np.exp(draw(st.sampled_from((0.0, 0.01, 0.3))) * rng.standard_normal(n))
    if n and draw(st.booleans()):
        out[rng.integers(n)] *= 10.0 ** draw(st.integers(1, 30))
    if n and draw(st.booleans()):
        out[rng.integers(n) :] = draw(st.sampled_from((np.nan, np.inf, -np.inf, 0.0)))
    return out


@st.composite
def all_series(draw: st.DrawFn, most: int = 400) -> Series:
    """One arbitrary series."""
    n = draw(st.sampled_from((0, 1, 2, 3, 5, 8, 13, 25, 60)) | st.integers(0, most))
    return Series(
        draw(signals()), draw(step_arrays(n)), draw(values(n)), per=draw(st.sampled_from(("step", "epoch", "")))
    )


LAYERS = (
    '[["0","affine",64,8,"",""],["1","rectifier",0,0,"","0"],["2","affine",8,8,"",""],["3","saturating",0,0,"","2"],'
    '["4","affine",8,8,"rectifier","3"],["5","affine",8,8,"",""],["6","affine",8,2,"","5"]]'
)
OF_OUTPUTS = (
    ACTIVATION_RMS,
    ACTIVATION_GRAD_RMS,
    ACTIVATION_INPUT_SPREAD,
    ACTIVATION_ZERO_FRACTION,
    ACTIVATION_DEAD_FRACTION,
    ACTIVATION_SATURATED_FRACTION,
)

FACTS = st.fixed_dictionaries(
    {},
    optional={
        "optimizer": st.sampled_from(("SGD", "AdamW", "adam", "")),
        "classes": st.integers(-1, 2000) | st.floats(allow_nan=True),
        "clip_norm": st.floats(-1, 10) | st.booleans(),
        "planned_steps": st.integers(-5, 10**9),
        "planned_epochs": st.integers(0, 500) | st.floats(0, 100),
        "steps_per_epoch": st.integers(-1, 1000),
        "step_unit": st.sampled_from(("step", "epoch")),
        "label_smoothing": st.floats(0, 1),
        "learning_rate": st.floats(allow_nan=True),
        "batch_size": st.integers(0, 10**6),
        "n_val": st.integers(-1, 10**6),
        "layers": st.sampled_from((LAYERS, LAYERS, "[]", "[[1]]", "x")) | st.integers(),
        "loss_function": st.sampled_from(("CrossEntropyLoss", "BCEWithLogitsLoss", "MSELoss", "")),
        "loss_reduction": st.sampled_from(("mean", "sum")),
        "resumed_at": st.integers(0, 100),
        "lr_scheduler": st.sampled_from(("cosine", "constant", "")),
    },
)

NOTES = st.lists(
    st.builds(
        Note,
        kind=st.sampled_from(NOTE_KINDS),
        text=st.just("said by a reader"),
        step=st.none() | st.integers(-10, 10**6),
        amount=st.none() | st.floats(),
    ),
    max_size=3,
)


@st.composite
def logged_runs(draw: st.DrawFn) -> Run:
    """A run as a training loop logs it: several signals on one clock, of every shape, with damage."""
    n = draw(st.sampled_from((6, 12, 40, 130, 400)))
    stride = draw(st.sampled_from((1, 1, 7)))
    steps = stride * np.arange(n) + draw(st.integers(0, 3))
    wanted = [Signal(LOSS)]
    extras = [
        Signal(LOSS, "val"),
        Signal(ACCURACY),
        Signal(ACCURACY, "val"),
        Signal(LR),
        Signal(GRAD_NORM),
        Signal(EPOCH),
    ]
    wanted += draw(st.lists(st.sampled_from(extras), unique=True, max_size=6))
    if draw(st.booleans()):
        wanted += [Signal(GRAD_NORM, layer=f"{i}.weight") for i in range(6)]
    found = []
    for signal in wanted:
        every = draw(st.sampled_from((1, 1, 5))) if signal.split == "val" else 1
        found.append(Series(signal, steps[::every], draw(values(len(steps[::every])))))
    return Run(
        name="logged",
        series=tuple(found),
        facts=draw(FACTS),
        finished=draw(st.sampled_from((None, True, False))),
        notes=tuple(draw(NOTES)),
    )


@st.composite
def watched_runs(draw: st.DrawFn) -> Run:
    """A short run with what the monitor measures of layers: every quantity of every layer, of every shape."""
    n = draw(st.sampled_from((2, 4, 12, 40)))
    steps = draw(st.sampled_from((1, 9))) * np.arange(n) + draw(st.sampled_from((0, 1, 500)))
    wanted = [Signal(LOSS), Signal(ACCURACY), Signal(LOGIT_ABSMAX), Signal(LOGIT_STD)]
    wanted += [Signal(q, layer=str(i)) for q in OF_OUTPUTS for i in range(7)]
    wanted += [
        Signal(q, layer=f"{i}.weight") for q in (GRAD_NORM, UPDATE_RATIO, WEIGHT_ROWS_ALIKE) for i in (0, 2, 4, 5, 6)
    ]
    of_layers = [draw(values(n)) for _ in range(4)]
    found = [
        Series(signal, steps, draw(values(n)) if not signal.layer else of_layers[i % 4])
        for i, signal in enumerate(wanted)
    ]
    return Run("watched", tuple(found), {**draw(FACTS), "layers": LAYERS}, draw(st.sampled_from((None, True, False))))


@st.composite
def any_runs(draw: st.DrawFn, most_series: int = 6) -> Run:
    """Any run that the types allow."""
    found: dict[tuple[Signal, str], Series] = {}
    for s in draw(st.lists(all_series(), max_size=most_series)):
        found.setdefault((s.signal, s.per), s)
    return Run(
        name="any",
        series=tuple(found.values()),
        facts=draw(FACTS),
        finished=draw(st.sampled_from((None, True, False))),
        notes=tuple(draw(NOTES)),
        unmapped=tuple(draw(st.lists(st.text(max_size=12), max_size=3))),
    )


def runs() -> st.SearchStrategy[Run]:
    """Any run: half of them as a training loop logs them, half whatever the types allow."""
    return logged_runs() | any_runs()
