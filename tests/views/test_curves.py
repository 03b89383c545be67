"""How rules look at a run: curves, their scales, and what the log says about rate, chance and start."""

from __future__ import annotations

import math

import numpy as np
import pytest
from fitdoctor.rule import CannotJudge
from fitdoctor.run import FloatArray, Run, Series
from fitdoctor.signals import ACCURACY, ERROR, LOSS, LR, SCORE, Signal
from fitdoctor.testing import make_run
from fitdoctor.views.curves import (
    Curve,
    barely_moved,
    begins_at_start,
    chance_accuracy,
    chance_loss,
    classes,
    find_curve,
    held_out,
    jitter,
    learning_rate,
    make_curve,
    metric_curve,
    need_curve,
    place,
    rate_clock,
    rate_left,
    settled_after,
    share_of_run,
    shared_jitter,
)
from hypothesis import given
from hypothesis import strategies as st

TRAIN = Signal(LOSS)
RNG = np.random.default_rng(0)


def curve(values: FloatArray | list[float], signal: Signal = TRAIN) -> Curve:
    return make_curve(Series(signal, np.arange(len(values)) * 10, np.asarray(values, dtype=np.float64)))


# --- curves ---------------------------------------------------------------------------------------


def test_up_to_200_points_are_used_as_they_are() -> None:
    values = RNG.standard_normal(200)
    c = curve(values)
    assert c.values.tolist() == values.tolist()
    assert c.steps.tolist() == list(range(0, 2000, 10))


def test_more_points_become_block_medians_at_the_last_step_of_each_block() -> None:
    c = curve(np.arange(1000.0))
    assert len(c) == 100
    assert c.values[0] == 4.5
    assert c.steps[0] == 90
    assert c.steps[-1] == 9990
    assert c.start == 0.0  # the first logged value, not the first block


def test_points_that_are_not_finite_are_left_out_and_too_few_are_refused() -> None:
    values = [1.0, math.nan, 2.0, math.inf, *[3.0] * 6]
    assert len(curve(values)) == 8
    with pytest.raises(CannotJudge, match="7 finite values of train loss, 8 are needed"):
        curve(values[:-1])


def test_where_more_is_better_the_curve_is_turned_over_and_shown_as_logged() -> None:
    c = curve(np.linspace(0.1, 0.9, 20), Signal(ACCURACY, "val"))
    assert c.flipped
    assert c.best == pytest.approx(-0.9)
    assert c.shown(c.best) == pytest.approx(0.9)
    assert c.shown(c.start) == pytest.approx(0.1)
    assert c.swing == pytest.approx(0.8)
    assert c.tail_trend(1.0).p_down < 1e-3  # down is better, always


def test_best_final_and_swing() -> None:
    c = curve([9.0, 5, 4, 3, 2, 1, 1, 1, 2, 3, 4, 4, 4])
    assert (c.best, c.best_step, c.final, c.swing) == (1.0, 50, 4.0, 8.0)
    assert c.tail(0.1).tolist() == [4, 4, 4]


def test_one_lucky_value_is_not_the_best() -> None:
    values = np.linspace(5, 2, 40)
    values[10] = 0.0
    assert curve(values).best == pytest.approx(2.0, abs=0.1)


def test_an_early_hump_counts_into_the_swing_and_a_late_one_does_not() -> None:
    early, late = np.linspace(2, 1, 30), np.linspace(2, 1, 30)
    early[1], late[15] = 7.0, 7.0
    assert curve(early).swing == pytest.approx(6.0)
    assert curve(late).swing == pytest.approx(1.0)


@given(st.lists(st.integers(-100, 100), min_size=8, max_size=300), st.integers(-3, 3), st.integers(-500, 500))
def test_scales_of_a_curve_follow_the_unit_of_the_loss(values: list[int], power: int, shift: int) -> None:
    plain, moved = curve(np.array(values)), curve(np.array(values) * 2.0**power + shift)
    assert moved.best_index == plain.best_index
    assert moved.swing == pytest.approx(plain.swing * 2.0**power)
    assert moved.noise == pytest.approx(plain.noise * 2.0**power)
    assert moved.final - moved.best == pytest.approx((plain.final - plain.best) * 2.0**power)


def test_find_and_need_differ_in_what_they_do_without_data() -> None:
    run = make_run(train_loss=[1.0] * 8, val_loss=[1.0] * 3)
    assert find_curve(run) is not None
    assert find_curve(run, LOSS, "val") is None
    assert find_curve(run, ACCURACY) is None
    with pytest.raises(CannotJudge, match="no test loss logged"):
        need_curve(run, LOSS, "test")
    with pytest.raises(CannotJudge, match="3 finite values of val loss, 8 are needed"):
        need_curve(run, LOSS, "val")


def test_validation_goes_before_test() -> None:
    assert held_out(make_run(val_loss=[1.0], test_loss=[1.0])) == "val"
    assert held_out(make_run(test_loss=[1.0])) == "test"
    assert held_out(make_run(test_loss=[1.0]), ACCURACY) == ""


def test_the_metric_of_a_split_is_the_first_that_is_long_enough() -> None:
    few, many = [0.5] * 3, [0.5] * 9
    assert metric_curve(make_run(val_accuracy=few), "val") is None
    found = metric_curve(make_run(val_accuracy=few, val_error=many), "val")
    assert found is not None
    assert found.series.signal.quantity == ERROR
    layered = metric_curve(make_run(layers={"val_score": {"f1": many}}), "val")
    assert layered is not None
    assert layered.series.signal == Signal(SCORE, "val", "f1")


# --- places ---------------------------------------------------------------------------------------


def test_a_place_is_named_in_the_clock_of_the_log() -> None:
    assert place(make_run(train_loss=[1.0]), 900) == "step 900"
    assert place(make_run(train_loss=[1.0], facts={"step_unit": "epoch"}), 9) == "epoch 9"


def test_share_of_run() -> None:
    run = make_run(train_loss={100: 1.0, 300: 0.5})
    assert [share_of_run(run, s) for s in (100, 200, 300)] == [0.0, 0.5, 1.0]
    assert share_of_run(make_run(train_loss={5: 1.0}), 5) == 0.0
    assert share_of_run(Run("r", ()), 5) == 0.0


@pytest.mark.parametrize(
    ("first", "per", "unit", "begins"),
    [(0, "", "step", True), (10, "", "step", True), (100, "", "step", False), (0, "epoch", "step", False),
     (0, "", "epoch", False)],
)  # fmt: skip
def test_only_a_step_clock_shows_the_untrained_model(first: int, per: str, unit: str, begins: bool) -> None:
    run = make_run(steps=np.arange(first, 1001, 10), per=per, train_loss=np.ones(len(np.arange(first, 1001, 10))),
                   facts={"step_unit": unit})  # type: ignore[arg-type]  # fmt: skip
    series = run.get(LOSS)
    assert series is not None
    assert begins_at_start(run, series) is begins


# --- the learning rate ----------------------------------------------------------------------------


def test_the_rate_is_that_of_the_model_or_of_its_first_group() -> None:
    assert learning_rate(make_run(train_loss=[1.0])) is None
    grouped = learning_rate(make_run(layers={"lr": {"pg0": [0.1], "pg1": [0.2]}}))
    assert grouped is not None
    assert grouped.signal == Signal(LR, layer="pg0")


@pytest.mark.parametrize(
    ("rate", "left"),
    [
        (np.full(100, 0.1), 1.0),
        (np.linspace(0.1, 0, 100), 0.15),
        (np.r_[np.full(50, 1.0), np.full(50, 0.1)], 0.1),
        (np.zeros(100), None),
        (np.full(100, np.nan), None),
    ],
)
def test_what_is_left_of_the_rate_at_the_end(rate: FloatArray, left: float | None) -> None:
    found = rate_left(make_run(lr=rate))
    assert found is None if left is None else found == pytest.approx(left, abs=0.01)
    assert rate_left(make_run(train_loss=[1.0])) is None


def test_the_clock_of_rates_runs_as_the_rate_does() -> None:
    loss = np.linspace(2, 1, 101)
    constant = rate_clock(run := make_run(train_loss=loss, lr=np.full(101, 0.3)), need_curve(run))
    assert constant.tolist() == pytest.approx(np.linspace(0, 1, 101).tolist())
    annealed = rate_clock(run := make_run(train_loss=loss, lr=np.linspace(1, 0, 101)), need_curve(run))
    t = np.linspace(0, 1, 101)
    assert annealed.tolist() == pytest.approx((2 * t - t**2).tolist())
    unlogged = rate_clock(run := make_run(train_loss=loss), need_curve(run))
    assert unlogged.tolist() == pytest.approx(t.tolist())
    assert np.all(np.diff(rate_clock(make_run(train_loss=loss, lr=np.zeros(101)), need_curve(run))) > 0)


# --- chance ---------------------------------------------------------------------------------------


def test_the_number_of_classes_is_a_fact_where_it_is_known() -> None:
    run = make_run(train_loss=[9.0] * 8, facts={"classes": 4})
    assert (classes(run), chance_accuracy(run), chance_loss(run)) == (4, 0.25, pytest.approx(math.log(4)))
    for nonsense in (0, 1, math.nan, "ten"):
        assert classes(make_run(train_loss=[9.0] * 8, facts={"classes": nonsense})) is None


@pytest.mark.parametrize("count", [2, 3, 10, 100, 1000])
def test_the_number_of_classes_is_read_off_an_untrained_classifier(count: int) -> None:
    run = make_run(train_loss=[math.log(count), 0.1], val_accuracy=[1 / count, 0.9])
    assert classes(run) == count


@pytest.mark.parametrize(
    ("loss", "accuracy"), [(2.3, 0.5), (2.3, None), (1.2, 0.2), (0.01, 1.0), (math.nan, 0.1), (400.0, 0.0)]
)
def test_the_number_of_classes_is_left_open_where_loss_and_accuracy_disagree(
    loss: float, accuracy: float | None
) -> None:
    curves = {"train_loss": [loss, 0.1]} | ({} if accuracy is None else {"train_accuracy": [accuracy, 0.9]})
    run = make_run(**curves)  # type: ignore[arg-type]
    assert classes(run) is None
    assert chance_accuracy(run) is None
    assert chance_loss(run) is None


# --- shape ----------------------------------------------------------------------------------------


def test_settled_after() -> None:
    t = np.arange(100)
    assert settled_after(curve(np.where(t < 30, 5.0 - t / 10, 2.0))) == pytest.approx(0.3, abs=0.05)
    assert settled_after(curve(np.full(100, 2.0))) == 0.0
    assert settled_after(curve(np.linspace(5, 1, 100))) > 0.8


def test_jitter_is_that_of_the_late_values_around_their_trend() -> None:
    values = np.linspace(5, 1, 200) + np.r_[RNG.standard_normal(100), 0.1 * RNG.standard_normal(100)]
    assert jitter(curve(values)) == pytest.approx(0.1, rel=0.3)


def test_curves_that_the_weights_shake_jump_together() -> None:
    shake, own = 0.3 * RNG.standard_normal(100), 0.05 * RNG.standard_normal((2, 100))
    assert shared_jitter(curve(1 + shake + own[0]), curve(2 + shake + own[1])) > 0.9
    apart = shared_jitter(curve(1 + 6 * own[0]), curve(2 + 6 * own[1]))
    assert abs(apart) < 0.35
    assert math.isnan(shared_jitter(curve(np.full(100, 1.0)), curve(2 + shake)))
    assert math.isnan(shared_jitter(curve(1 + shake[:10]), curve(2 + shake[:10])))


def test_barely_moved() -> None:
    assert barely_moved(curve(np.linspace(2.3, 2.25, 30)))
    assert not barely_moved(curve(np.linspace(2.3, 1.0, 30)))
