"""`Series` and `Run`: what they hold, what they refuse, and what they never change."""

from __future__ import annotations

import gc
import math
import weakref

import numpy as np
import pytest
from fitdoctor.run import Run, Series, Span, once_per_series, thin
from fitdoctor.signals import ACCURACY, GRAD_NORM, LOSS, LR, Signal
from hypothesis import given
from hypothesis import strategies as st
from tests.strategies import all_series, runs

TRAIN = Signal(LOSS)
VAL = Signal(LOSS, "val")


def series(values: list[float], first: int = 0, every: int = 1, signal: Signal = TRAIN, per: str = "") -> Series:
    return Series(signal, first + every * np.arange(len(values)), np.array(values), per=per)  # type: ignore[arg-type]


# --- Series ---------------------------------------------------------------------------------------


def test_a_series_takes_plain_lists_and_keeps_them_as_int64_and_float64() -> None:
    s = Series(TRAIN, [1, 2, 5], [1, 2, 3])  # type: ignore[arg-type]
    assert (s.steps.dtype, s.values.dtype) == (np.int64, np.float64)
    assert s.span == Span(1, 5)
    assert len(s) == 3
    assert repr(s) == "Series(train loss, 3 points, steps 1-5)"


def test_arrays_of_a_series_cannot_be_written() -> None:
    s = Series(TRAIN, np.arange(3), np.ones(3), wall_time=np.ones(3))
    for array in (s.steps, s.values, s.wall_time, s.finite.values, s[1:].values):
        assert array is not None
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 5


@pytest.mark.parametrize(
    ("steps", "values", "wall", "message"),
    [
        ([0, 1], [1.0], None, "train loss: 2 steps but 1 values"),
        ([0, 1], [1.0, 2.0], [0.0], "train loss: 2 steps but 1 wall times"),
        ([0, 0], [1.0, 2.0], None, "steps must increase"),
        ([3, 2], [1.0, 2.0], None, "steps must increase"),
    ],
)
def test_a_series_that_does_not_fit_together_is_refused(
    steps: list[int], values: list[float], wall: list[float] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Series(TRAIN, np.array(steps), np.array(values), wall_time=None if wall is None else np.array(wall))


def test_nan_and_inf_are_data() -> None:
    s = series([1.0, math.nan, math.inf, 4.0])
    assert len(s) == 4
    assert s.finite.steps.tolist() == [0, 3]
    assert s.finite.finite is s.finite or s.finite.finite.values.tolist() == [1.0, 4.0]


def test_between_has_both_ends() -> None:
    s = series([0, 1, 2, 3, 4], every=10)
    assert s.between(10, 30).steps.tolist() == [10, 20, 30]
    assert s.between(11, 29).steps.tolist() == [20]
    assert len(s.between(41, 99)) == 0
    assert s.between(41, 99).span == Span(0, 0)


def test_at_holds_the_last_value() -> None:
    s = series([5.0, 6.0], first=10, every=10)
    seen = s.at(np.array([9, 10, 19, 20, 99]))
    assert math.isnan(seen[0])
    assert seen[1:].tolist() == [5, 5, 6, 6]
    assert np.isnan(s[:0].at(np.array([1, 2]))).all()


@given(all_series(), st.integers(-5, 500), st.integers(-5, 500))
def test_slices_agree_with_loops(s: Series, low: int, high: int) -> None:
    expected = [int(step) for step in s.steps if low <= step <= high]
    assert s.between(low, high).steps.tolist() == expected
    asked = np.arange(min(low, high), max(low, high) + 1)
    seen = s.at(asked)
    for step, value in zip(asked, seen, strict=True):
        past = [v for t, v in zip(s.steps, s.values, strict=True) if t <= step]
        assert np.array_equal(value, past[-1] if past else math.nan, equal_nan=True)


# --- thin -----------------------------------------------------------------------------------------


@given(all_series(most=600), st.integers(4, 300))
def test_thinning_keeps_the_picture(s: Series, most: int) -> None:
    kept = thin(s, most)
    assert len(kept) == len(s) if len(s) <= most else len(kept) <= most
    points = {int(step): float(value) for step, value in zip(s.steps, s.values, strict=True)}
    assert all(np.array_equal(points[step], value, equal_nan=True) for step, value in kept)
    assert [step for step, _ in kept] == sorted({step for step, _ in kept})
    if len(s):
        assert kept[0][0] == s.steps[0]
        assert kept[-1][0] == s.steps[-1]
        assert any(not math.isfinite(v) for _, v in kept) == (not np.isfinite(s.values).all())
        largest = max((v for _, v in kept if not math.isnan(v)), default=math.nan)
        assert np.array_equal(largest, np.fmax.reduce(s.values), equal_nan=True)


def test_thinning_never_loses_a_spike_in_a_long_series() -> None:
    rng = np.random.default_rng(0)
    for n in (201, 1000, 99_999):
        values = rng.standard_normal(n)
        low, high = rng.choice(n, 2, replace=False)
        values[low], values[high] = -100, 100
        kept = [v for _, v in thin(Series(TRAIN, np.arange(n), values))]
        assert len(kept) <= 200
        assert {-100, 100} <= set(kept)


# --- Run ------------------------------------------------------------------------------------------


def test_get_finds_by_quantity_split_layer_and_cadence() -> None:
    per_step, per_epoch = series([1.0] * 9, per="step"), series([2.0] * 3, per="epoch")
    val, layer = series([3.0], signal=VAL), series([4.0], signal=Signal(GRAD_NORM, layer="0.weight"))
    run = Run("r", (per_epoch, per_step, val, layer))
    assert run.get(LOSS) is per_step  # the one with the most points
    assert run.get(LOSS, per="epoch") is per_epoch
    assert run.get(LOSS, "val") is val
    assert run.get(LOSS, "val", per="step") is None
    assert run.get(GRAD_NORM) is None
    assert run.layers(GRAD_NORM) == {"0.weight": layer}
    assert run.get(GRAD_NORM, layer="0.weight") is layer
    assert run.get(ACCURACY) is None


def test_an_empty_series_counts_as_not_logged() -> None:
    run = Run("r", (series([]), series([], signal=Signal(LR, layer="pg0"))))
    assert run.get(LOSS) is None
    assert run.layers(LR) == {}
    assert run.steps is None
    assert Run("r", ()).steps is None


def test_one_signal_may_not_stand_twice_at_the_same_cadence() -> None:
    with pytest.raises(ValueError, match="more than one series for train loss per unknown"):
        Run("r", (series([1.0]), series([2.0])))
    assert len(Run("r", (series([1.0], per="step"), series([2.0], per="epoch"))).series) == 2


def test_steps_span_everything_logged() -> None:
    assert Run("r", (series([1.0, 2.0], first=5), series([1.0], first=90, signal=VAL))).steps == Span(5, 90)


def test_facts_are_copied_and_replaced_not_changed() -> None:
    facts: dict[str, int | str] = {"classes": 10}
    run = Run("r", (), facts)
    facts["classes"] = 3
    more = run.with_facts(classes=5, step_unit="epoch")
    assert run.facts == {"classes": 10}
    assert more.facts == {"classes": 5, "step_unit": "epoch"}
    assert (run.step_unit, more.step_unit) == ("step", "epoch")


def test_until_is_the_run_as_it_stood() -> None:
    run = Run("r", (series([1.0, 2.0, 3.0], every=10), series([9.0], first=25, signal=VAL)), finished=True)
    then = run.until(10)
    assert then.get(LOSS).values.tolist() == [1.0, 2.0]  # type: ignore[union-attr]
    assert then.get(LOSS, "val") is None
    assert then.finished is False
    assert run.finished is True


@given(runs(), st.integers(-10, 2000), st.integers(-10, 2000))
def test_until_knows_nothing_of_later(run: Run, a: int, b: int) -> None:
    once, twice = run.until(min(a, b)), run.until(max(a, b)).until(min(a, b))
    assert [s.steps.tolist() for s in once.series] == [s.steps.tolist() for s in twice.series]
    assert all(not len(s) or s.steps[-1] <= min(a, b) for s in once.series)


def test_the_table_of_a_run_has_a_column_per_series_and_gaps_where_nothing_was_logged() -> None:
    run = Run("r", (series([1.0, 2.0], per="step"), series([7.0], first=1, per="epoch"), series([5.0], signal=VAL)))
    frame = run.to_frame()
    assert list(frame.columns) == ["train loss", "train loss per epoch", "val loss"]
    assert frame.index.name == "step"
    assert frame.loc[1, "train loss per epoch"] == 7.0
    assert math.isnan(frame.loc[1, "val loss"])


def test_a_span_prints_as_one_step_or_two() -> None:
    assert (str(Span(3, 3)), str(Span(3, 9))) == ("3", "3-9")


def test_what_is_made_of_a_series_is_made_once_and_goes_with_it():
    made: list[int] = []

    @once_per_series
    def doubled(series: Series, by: int = 2) -> float:
        made.append(by)
        return float(series.values[-1] * by)

    one, other = (Series(Signal(LOSS), np.arange(3), np.full(3, value)) for value in (1.0, 5.0))
    assert [doubled(one), doubled(one), doubled(other), doubled(one, by=3), doubled(one, by=3)] == [2, 2, 10, 3, 3]
    assert made == [2, 2, 3]
    watched = weakref.ref(one)
    del one
    gc.collect()
    assert watched() is None
