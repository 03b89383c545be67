"""Schedules against the schedulers that make them, at several logging cadences and cuts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fitdoctor.run import Series
from fitdoctor.signals import LR, Signal
from fitdoctor.views.schedules import Schedule, recognise
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

EPOCHS = 100
Make = Callable[[Any], Any]


def series(values: Any, steps: Any = None) -> Series:
    values = np.asarray(values, dtype=np.float64)
    return Series(Signal(LR), np.arange(len(values)) if steps is None else steps, values)


def simulate(make: Make, *, per_epoch: int = 1, lr: float = 0.1, epochs: int = EPOCHS) -> np.ndarray:
    """Rate used by each optimizer step when the scheduler steps once per `per_epoch` steps."""
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)
    scheduler = make(optimizer)
    used = []
    for step in range(epochs * per_epoch):
        used.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % per_epoch == 0:
            scheduler.step()
    return np.array(used)


def schedulers() -> Any:
    return pytest.importorskip("torch").optim.lr_scheduler


def by_factor(f: Callable[[int], float]) -> Make:
    return lambda o: schedulers().LambdaLR(o, f)


def warm(n: int, then: Callable[[float], float]) -> Callable[[int], float]:
    """Linear warm-up over n steps, then a function of the progress, as the Hugging Face Trainer does it."""
    return lambda step: step / n if step < n else then((step - n) / (EPOCHS - n))


CASES: dict[str, tuple[str, Make]] = {
    "ConstantLR": ("constant", lambda o: schedulers().ConstantLR(o, 1 / 3, 5)),
    "LinearLR warm-up": ("constant", lambda o: schedulers().LinearLR(o, 0.01, 1, 20)),
    "LinearLR": ("linear", lambda o: schedulers().LinearLR(o, 1, 0.01, 100)),
    "StepLR": ("step", lambda o: schedulers().StepLR(o, 20, 0.3)),
    "MultiStepLR": ("multi-step", lambda o: schedulers().MultiStepLR(o, [30, 60, 80], 0.1)),
    "ExponentialLR": ("exponential", lambda o: schedulers().ExponentialLR(o, 0.97)),
    "MultiplicativeLR": ("exponential", lambda o: schedulers().MultiplicativeLR(o, lambda _: 0.95)),
    "PolynomialLR": ("polynomial", lambda o: schedulers().PolynomialLR(o, 100, 2)),
    "PolynomialLR of power 1": ("linear", lambda o: schedulers().PolynomialLR(o, 100, 1)),
    "CosineAnnealingLR": ("cosine", lambda o: schedulers().CosineAnnealingLR(o, 100)),
    "CosineAnnealingLR with a floor": ("cosine", lambda o: schedulers().CosineAnnealingLR(o, 100, eta_min=0.01)),
    "CosineAnnealingWarmRestarts": ("warm-restarts", lambda o: schedulers().CosineAnnealingWarmRestarts(o, 20)),
    "CosineAnnealingWarmRestarts, longer and longer": (
        "warm-restarts",
        lambda o: schedulers().CosineAnnealingWarmRestarts(o, 14, 2),
    ),
    "CyclicLR": ("cyclic", lambda o: schedulers().CyclicLR(o, 0.01, 0.1, step_size_up=10)),
    "CyclicLR, triangular2": (
        "cyclic",
        lambda o: schedulers().CyclicLR(o, 0.01, 0.1, step_size_up=10, mode="triangular2"),
    ),
    "CyclicLR, exp_range": (
        "cyclic",
        lambda o: schedulers().CyclicLR(o, 0.01, 0.1, step_size_up=12, step_size_down=6, mode="exp_range", gamma=0.99),
    ),
    "OneCycleLR": ("one-cycle", lambda o: schedulers().OneCycleLR(o, 0.1, total_steps=EPOCHS + 1)),
    "OneCycleLR, linear": (
        "one-cycle",
        lambda o: schedulers().OneCycleLR(o, 0.1, total_steps=EPOCHS + 1, anneal_strategy="linear"),
    ),
    "OneCycleLR, three phases": (
        "one-cycle",
        lambda o: schedulers().OneCycleLR(o, 0.1, total_steps=EPOCHS + 1, three_phase=True),
    ),
    "SequentialLR": (
        "cosine",
        lambda o: schedulers().SequentialLR(
            o, [schedulers().LinearLR(o, 0.01, 1, 10), schedulers().CosineAnnealingLR(o, 90)], [10]
        ),
    ),
    "Trainer linear": ("linear", by_factor(warm(10, lambda u: 1 - u))),
    "Trainer cosine": ("cosine", by_factor(warm(10, lambda u: 0.5 * (1 + math.cos(math.pi * u))))),
    "Trainer polynomial": ("polynomial", by_factor(warm(10, lambda u: (1 - u) ** 3))),
    "Trainer inverse_sqrt": ("inverse-sqrt", by_factor(lambda s: s / 10 if s < 10 else math.sqrt(10 / s))),
    "Trainer constant_with_warmup": ("constant", by_factor(warm(10, lambda _: 1.0))),
    "Trainer cosine_with_restarts": (
        "warm-restarts",
        by_factor(warm(10, lambda u: 0.5 * (1 + math.cos(math.pi * ((u * 3) % 1.0))))),
    ),
    "warm-up, stable, decay": ("linear", by_factor(lambda s: s / 10 if s < 10 else min(1.0, (100 - s) / 30))),
    "inverse time": ("inverse-time", by_factor(lambda s: 1 / (1 + 0.05 * s))),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("stored", [np.float64, np.float32])
def test_every_scheduler_is_recognised(name: str, stored: type) -> None:
    kind, make = CASES[name]
    found = recognise(series(simulate(make).astype(stored)))
    assert found is not None
    assert found.kind == kind


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("every", [1, 10])
def test_stepped_once_an_epoch_but_logged_by_step(name: str, every: int) -> None:
    kind, make = CASES[name]
    values = simulate(make, per_epoch=40)
    found = recognise(series(values[::every], np.arange(len(values))[::every]))
    assert found is not None
    assert found.kind == kind


SPARSE = {
    "CosineAnnealingWarmRestarts": "cycles of 20 epochs seen every 7",
    "OneCycleLR": "the rise shows four points, which no longer tell a cosine from a line",
    "OneCycleLR, three phases": "the same",
    "MultiStepLR": "cuts at 30, 60, 80 known to 7 epochs each could be any",
    "CyclicLR, exp_range": "cycles of 18 epochs seen every 7",
}


@pytest.mark.parametrize("name", [n for n in CASES if n not in SPARSE])
def test_sparse_logging(name: str) -> None:
    kind, make = CASES[name]
    values = simulate(make)
    found = recognise(series(values[::7], np.arange(EPOCHS)[::7]))
    assert found is not None
    assert found.kind == kind


@pytest.mark.parametrize(
    "kind_of", ["CosineAnnealingLR", "LinearLR", "PolynomialLR", "Trainer cosine", "Trainer linear", "SequentialLR"]
)
@pytest.mark.parametrize("share", [0.4, 0.6, 0.8])
def test_a_run_that_was_cut_off_still_shows_where_it_would_have_ended(kind_of: str, share: float) -> None:
    kind, make = CASES[kind_of]
    found = recognise(series(simulate(make)[: round(share * EPOCHS)]))
    assert found is not None
    assert found.kind == kind
    assert found.planned_end == pytest.approx(EPOCHS, abs=3)


def test_steps_of_a_log_that_begins_late_and_skips_most() -> None:
    """Trainer, linear with 500 steps of warm-up, logged every 500 of 10,000 steps."""
    steps = np.arange(500, 10_001, 500)
    found = recognise(series(3e-4 * np.minimum(steps / 500, (10_000 - steps) / 9500), steps))
    assert found is not None
    assert str(found) == "linear, peak 3e-4, ends at 0"  # the warm-up ends with the first point
    assert found.planned_end == pytest.approx(10_000, abs=10)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("StepLR", "step (x0.3 every 20 steps), peak 0.1, ends at 8.1e-4"),
        ("MultiStepLR", "multi-step (at 30, 60, 80), peak 0.1, ends at 1e-4"),
        ("Trainer cosine", "cosine with warm-up (10 steps), peak 0.1, ends at 3.05e-5"),
        ("OneCycleLR", "one-cycle (rises for 30 steps), peak 0.1, ends at 4.98e-5"),
        ("Trainer constant_with_warmup", "constant with warm-up (10 steps), 0.1"),
        ("PolynomialLR", "polynomial (power 2), peak 0.1, ends at 1e-5"),
        ("CosineAnnealingWarmRestarts", "warm restarts (4), peak 0.1, ends at 6.16e-4"),
    ],
)
def test_words(name: str, words: str) -> None:
    assert str(recognise(series(simulate(CASES[name][1])))) == words


def test_reduce_on_plateau_is_told_from_planned_milestones() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = schedulers().ReduceLROnPlateau(optimizer, factor=0.2, patience=6)
    rates = []
    for epoch in range(160):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(max(0.5, 2 - epoch / 25) + 0.05 * rng.standard_normal())
    found = recognise(series(rates))
    assert found is not None
    assert found.kind == "plateau"
    assert found.factor == pytest.approx(0.2)
    assert all(rates[m] < rates[m - 1] for m in found.milestones)


@pytest.mark.parametrize(("length", "again"), [(60, True), (100, False), (97, False)])
def test_a_cosine_that_rises_again(length: int, again: bool) -> None:
    found = recognise(series(simulate(lambda o: schedulers().CosineAnnealingLR(o, length))))
    assert found is not None
    assert found.rises_again is again


@pytest.mark.parametrize(
    "name", ["CyclicLR", "CosineAnnealingWarmRestarts", "OneCycleLR", "Trainer cosine_with_restarts"]
)
def test_cycles_that_are_meant_do_not_rise_again(name: str) -> None:
    found = recognise(series(simulate(CASES[name][1])))
    assert found is not None
    assert not found.rises_again


def test_milestones_are_exact_however_long_the_log() -> None:
    steps = np.arange(300_000)
    values = 0.1 * 0.1 ** np.searchsorted([123_457, 223_457], steps, side="right")
    found = recognise(series(values, steps))
    assert found is not None
    assert found.milestones == (123_457, 223_457)


def test_long_runs_whose_rate_moves_by_less_than_rounding_each_step() -> None:
    found = recognise(series((0.1 * (1 - np.arange(2_000_000) / 2_000_000)).astype(np.float32)))
    assert found is not None
    assert found.kind == "linear"


def test_three_digits_as_in_a_text_log() -> None:
    values = [float(f"{v:.2e}") for v in simulate(CASES["Trainer cosine"][1])]
    found = recognise(series(values))
    assert found is not None
    assert found.kind == "cosine"


def test_too_little_to_tell() -> None:
    assert recognise(series([])) is None
    assert recognise(series([0.1])) is None
    assert recognise(series([math.nan, 0.1, math.inf])) is None
    two = recognise(series([0.1, 0.05]))
    assert two is not None
    assert two.kind == "unknown"


def test_a_rate_that_wanders_is_unknown() -> None:
    rng = np.random.default_rng(1)
    found = recognise(series(np.exp(np.cumsum(0.1 * rng.standard_normal(200)))))
    assert found is not None
    assert found.kind == "unknown"


@given(
    arrays(np.float64, st.integers(0, 60), elements=st.floats(width=64)),
    st.integers(-(2**62), 2**61),
    st.integers(1, 10**6),
)
def test_any_series_gives_a_schedule_or_none(values: np.ndarray, first: int, stride: int) -> None:
    steps = first + stride * np.arange(len(values))
    with np.errstate(all="ignore"):
        found = recognise(series(values, steps))
    assert found is None or isinstance(found, Schedule)
    assert str(found)


@given(st.floats(1e-12, 1e12), st.sampled_from(sorted(CASES)), st.integers(0, 10**9))
def test_neither_scale_nor_offset_matters(scale: float, name: str, first: int) -> None:
    kind, make = CASES[name]
    values = simulate(make)
    found = recognise(series(values * scale, np.arange(len(values)) + first))
    assert found is not None
    assert found.kind in (kind, "linear" if name == "OneCycleLR, linear" else kind)
