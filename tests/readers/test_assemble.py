"""From raw columns to a run: restarts, clocks, units, and the choice among tags of one signal."""

from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.readers.assemble import assemble, assemble_in_full
from fitdoctor.readers.clocks import EpochMap, spread_evenly, untangle
from fitdoctor.readers.raw import RawRun, RawSeries
from fitdoctor.readers.tags import parse_overrides
from fitdoctor.run import Run, Series
from fitdoctor.signals import ACCURACY, GRAD_NORM, LOSS, LOSS_PART, LR, SCORE, STEP_TIME, TOP5_ACCURACY
from hypothesis import given
from hypothesis import strategies as st


def raw(tag: str, values: object, steps: object = None, epochs: object = None, wall: object = None) -> RawSeries:
    return RawSeries(
        tag,
        np.asarray(values, np.float64),
        None if steps is None else np.asarray(steps, np.int64),
        None if epochs is None else np.asarray(epochs, np.float64),
        None if wall is None else np.asarray(wall, np.float64),
    )


def made(*series: RawSeries, **more: object) -> Run:
    return assemble(RawRun("run", "run", "test", series, **more))  # type: ignore[arg-type]


def found(run: Run, tag: str) -> Series:
    return next(s for s in run.series if s.tag == tag)


def kinds(run: Run) -> list[str]:
    return [note.kind for note in run.notes]


# --- order and restarts ------------------------------------------------------------------------------


def test_plain_columns_pass_as_they_are() -> None:
    run = made(raw("loss", [3, 2, 1], [0, 10, 20]), raw("val_loss", [3.5, 2.5], [9, 19]))
    assert found(run, "loss").steps.tolist() == [0, 10, 20]
    assert found(run, "val_loss").values.tolist() == [3.5, 2.5]
    assert run.notes == ()
    assert run.facts["step_unit"] == "step"


def test_a_restart_supersedes_what_was_logged_after_it() -> None:
    run = made(raw("loss", [0, 1, 2, 3, 4, 5, 30, 40, 50, 60], [0, 1, 2, 3, 4, 5, 3, 4, 5, 6]))
    loss = found(run, "loss")
    assert loss.steps.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert loss.values.tolist() == [0, 1, 2, 30, 40, 50, 60]
    (note,) = run.notes
    assert (note.kind, note.step, note.amount) == ("restart", 3, 3.0)
    assert "from step 5 to step 3" in note.text


def test_a_restart_drops_the_tail_of_the_abandoned_branch() -> None:
    run = made(raw("loss", range(12), [0, 1, 2, 3, 4, 5, 6, 7, 8, 4, 5, 6]))
    assert found(run, "loss").steps.tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_files_are_joined_in_order() -> None:
    run = made(raw("loss", [0, 1, 2, 3], [0, 1, 2, 3]), raw("loss", [20, 30, 40], [2, 3, 4]))
    assert found(run, "loss").values.tolist() == [0, 1, 20, 30, 40]
    assert kinds(run) == ["restart"]


def test_a_new_file_that_goes_on_is_a_restart_that_superseded_nothing() -> None:
    run = made(
        raw("loss", [0, 1, 2, 3], [0, 1, 2, 3]), raw("val_loss", [1], [3]),
        raw("loss", [4, 5], [4, 5]), raw("val_loss", [1], [5]),
    )  # fmt: skip
    assert found(run, "loss").values.tolist() == [0, 1, 2, 3, 4, 5]
    (note,) = run.notes
    assert (note.kind, note.step, note.amount) == ("restart", 4, 0.0)


def test_a_restart_holds_for_all_tags_of_the_run() -> None:
    steps = [*range(10), *range(5, 15)]
    wall = np.arange(20.0)
    run = made(
        raw("loss", np.arange(20), steps, wall=wall),
        # Evaluated at step 7 before the restart and at 12 after it: the first belongs to the abandoned branch.
        raw("val_loss", [1, 2, 3], [2, 7, 12], wall=[2.5, 7.5, 17.5]),
    )
    assert found(run, "val_loss").steps.tolist() == [2, 12]


def test_points_out_of_order_are_sorted_not_dropped() -> None:
    run = made(raw("loss", [0, 1, 3, 2, 4], [0, 10, 30, 20, 40]))
    assert found(run, "loss").values.tolist() == [0, 1, 2, 3, 4]
    assert run.notes == ()


def test_of_points_with_one_step_the_last_stands() -> None:
    run = made(raw("loss", [0, 1, 1.5, 2], [0, 1, 1, 2]))
    assert found(run, "loss").values.tolist() == [0, 1.5, 2]
    assert kinds(run) == ["duplicate-steps"]
    assert run.notes[0].amount == 1


def test_writers_at_the_same_time_are_no_restart() -> None:
    a, b = np.arange(5.0), np.arange(5.0) + 0.5
    run = made(raw("loss", [1] * 5, range(5), wall=a), raw("loss", [2] * 5, range(5), wall=b))
    assert found(run, "loss").values.tolist() == [2] * 5
    assert kinds(run) == ["duplicate-steps"]


def test_a_log_that_counts_epochs_only_keeps_every_point() -> None:
    # Ten batches an epoch, each logged with the epoch as its step.
    run = made(raw("train_loss", range(50), np.repeat(range(5), 10)), raw("val_loss", [5, 4, 3, 2, 1], range(5)))
    assert found(run, "train_loss").values.tolist() == list(range(50))
    assert found(run, "val_loss").steps.tolist() == [9, 19, 29, 39, 49]


def test_a_step_that_never_moves_is_not_a_clock() -> None:
    run = made(raw("loss", range(20), [0] * 20))
    assert len(found(run, "loss")) == 20


def test_a_shuffled_log_is_sorted() -> None:
    order = np.random.default_rng(0).permutation(500)
    run = made(raw("loss", order, order))
    assert found(run, "loss").values.tolist() == list(range(500))


def test_one_tag_per_step_and_per_epoch() -> None:
    steps = [*range(1, 21), 0, *range(21, 41), 1, *range(41, 61), 2]
    values = (
        [100 + s for s in range(20)] + [7] + [200 + s for s in range(20)] + [6] + [300 + s for s in range(20)] + [5]
    )
    run = made(raw("train_loss", values, steps))
    both = {s.per: s for s in run.series}
    assert both["epoch"].steps.tolist() == [20, 40, 60]
    assert both["epoch"].values.tolist() == [7, 6, 5]
    assert both[""].steps.tolist() == list(range(1, 61))
    assert kinds(run) == ["aligned"]


# --- clocks ------------------------------------------------------------------------------------------


def test_epochs_only() -> None:
    run = made(raw("loss", [3, 2, 1], epochs=[0, 1, 2]), raw("val_loss", [3, 2, 1], epochs=[0, 1, 2]))
    assert run.step_unit == "epoch"
    assert {s.per for s in run.series} == {"epoch"}
    assert found(run, "loss").steps.tolist() == [0, 1, 2]


def test_steps_that_are_epochs_are_recognised() -> None:
    run = made(raw("Loss/train", [3, 2, 1], [1, 2, 3]), raw("Loss/val", [3, 2, 1], [1, 2, 3]))
    assert run.step_unit == "epoch"


@pytest.mark.parametrize("base", [0, 1])
def test_val_by_epoch_is_placed_by_the_logged_epochs(base: int) -> None:
    steps = np.arange(100)
    epochs = steps // 20
    run = made(
        raw("train_loss", 1 / (steps + 1.0), steps, epochs),
        raw("val_loss", [5, 4, 3, 2, 1], np.arange(5) + base),
    )
    assert found(run, "val_loss").steps.tolist() == [19, 39, 59, 79, 99]
    assert found(run, "val_loss").per == "epoch"
    assert run.facts["steps_per_epoch"] == 20
    assert kinds(run) == ["aligned"]


def test_val_without_steps_is_placed_by_fractional_epochs() -> None:
    steps = np.arange(1, 101)
    run = made(raw("loss", steps, steps, steps / 25), raw("eval_loss", [4, 3, 2, 1], epochs=[1, 2, 3, 4]))
    assert found(run, "eval_loss").steps.tolist() == [25, 50, 75, 100]
    assert run.facts["steps_per_epoch"] == 25


def test_val_by_epoch_is_placed_by_the_time_of_writing() -> None:
    steps = np.arange(0, 1000, 10)
    run = made(
        raw("loss/train", steps, steps, wall=1000.0 + steps),
        raw("loss/val", [3, 2, 1], [0, 1, 2], wall=1000.0 + np.array([333, 666, 999])),
    )
    assert found(run, "loss/val").steps.tolist() == [330, 660, 990]


def test_val_by_epoch_is_spread_when_nothing_else_is_known() -> None:
    run = made(raw("train_loss", range(1000), range(1000)), raw("val_loss", range(10), range(10)))
    val = found(run, "val_loss").steps
    assert val[-1] == 999
    assert np.diff(val).tolist() == pytest.approx([100] * 9, abs=1)
    assert "evenly" in run.notes[0].text


def test_a_train_curve_that_was_logged_for_a_while_stays_where_it_is() -> None:
    # AlgoPerf logs loss and grad_norm for the first 100 steps and evaluates until the end.
    at = [1, 300, 600, 900, 1200, 1500]
    run = made(
        raw("loss", range(100), range(100)),
        raw("grad_norm", range(100), range(100)),
        raw("train/loss", [6, 5, 4, 3, 2, 1], at),
        raw("validation/loss", [6, 5, 4, 3, 2, 1], at),
    )
    assert found(run, "loss").span.last == 99
    assert (found(run, "loss").per, found(run, "train/loss").per) == ("step", "epoch")
    whole = run.get(LOSS)
    assert whole is not None
    assert whole.tag == "train/loss"
    assert run.notes == ()


def test_a_metric_without_split_on_its_own_clock_is_an_evaluation() -> None:
    steps = np.arange(1, 61)
    run = made(raw("loss", steps, steps, steps // 21 + 1), raw("accuracy", [0.3, 0.4, 0.5], [1, 2, 3]))
    assert found(run, "accuracy").signal.split == "val"


def test_an_epoch_counter_is_a_clock_and_no_series() -> None:
    steps = np.arange(40)
    run = made(
        raw("loss", steps, steps),
        raw("epoch", steps // 10, steps),
        raw("val_loss", [4, 3, 2, 1], [0, 1, 2, 3]),
    )
    assert found(run, "val_loss").steps.tolist() == [9, 19, 29, 39]
    assert [s.tag for s in run.series] == ["loss", "val_loss"]


def test_no_clock_at_all() -> None:
    run = made(raw("loss", [3, 2, 1]))
    assert found(run, "loss").steps.tolist() == [0, 1, 2]
    assert kinds(run) == ["aligned"]


def test_epoch_map_on_its_own() -> None:
    pairs = EpochMap.of(np.arange(100), np.arange(100) // 10)
    assert pairs is not None
    assert pairs.steps_per_epoch == 10
    assert pairs.step_at(np.array([0.0, 4.0])).tolist() == [9, 49]
    assert EpochMap.of(np.arange(5), np.arange(5.0)) is None
    assert EpochMap.of(np.arange(5), np.zeros(5)) is None
    assert spread_evenly(np.array([1.0, 2.0]), 0, 100).tolist() == [50, 100]


# --- choice and units -------------------------------------------------------------------------------


def test_the_plainer_tag_wins_and_the_other_is_told() -> None:
    told = assemble_in_full(
        RawRun("r", "r", "t", (raw("train/total_loss", [1, 2, 3], [0, 1, 2]), raw("train/loss", [4, 5], [0, 1])))
    )
    assert [s.tag for s in told.run.series] == ["train/loss"]
    assert kinds(told.run) == ["ambiguous"]
    assert told.run.unmapped == ("train/total_loss",)
    assert "'train/loss' stands for train loss" in told.left_out[0].why


def test_equal_tags_raise_no_note() -> None:
    run = made(raw("lr", [1, 2], [0, 1]), raw("lr-Adam", [1, 2], [0, 1]))
    assert [s.tag for s in run.series] == ["lr"]
    assert run.notes == ()


def test_the_only_part_of_a_loss_is_the_loss() -> None:
    run = made(raw("train_mse_loss", [1], [0]), raw("val_mse_loss", [1], [0]))
    assert {str(s.signal) for s in run.series} == {"train loss", "val loss"}
    run = made(raw("g_loss", [1], [0]), raw("d_loss", [1], [0]))
    assert {s.signal.quantity for s in run.series} == {LOSS_PART}


def test_one_learning_rate_is_the_learning_rate() -> None:
    run = made(raw("lr/pg0", [1], [0]))
    assert run.series[0].signal.layer == ""
    run = made(raw("lr/pg0", [1], [0]), raw("lr/pg1", [1], [0]))
    assert set(run.layers(LR)) == {"pg0", "pg1"}


def test_percent_becomes_a_fraction_for_the_whole_family() -> None:
    run = made(
        raw("train_acc1", [0.5, 1.2], [0, 1]),  # alone it could be a fraction; its sibling says percent
        raw("val_acc1", [10, 55], [0, 1]),
        raw("val_acc5", [40, 90], [0, 1]),
    )
    assert run.get(ACCURACY).values.tolist() == pytest.approx([0.005, 0.012])  # type: ignore[union-attr]
    assert run.get(ACCURACY, "val").values.tolist() == pytest.approx([0.1, 0.55])  # type: ignore[union-attr]
    assert run.get(TOP5_ACCURACY, "val").values.tolist() == pytest.approx([0.4, 0.9])  # type: ignore[union-attr]


def test_a_fraction_stays_and_nonsense_is_a_score() -> None:
    assert made(raw("acc", [0.1, np.nan, 1.0], range(3))).series[0].values[2] == 1.0
    run = made(raw("acc", [120, 5000], range(2)))
    assert run.series[0].signal.quantity == SCORE
    assert run.series[0].values.tolist() == [120, 5000]


def test_time_since_the_start_is_no_step_time() -> None:
    run = made(raw("time", [1, 2, 3, 4], range(4)))
    assert run.get(STEP_TIME) is None
    assert run.unmapped == ("time",)
    assert made(raw("time", [0.1, 0.2, 0.1], range(3))).get(STEP_TIME) is not None


def test_a_negative_gradient_is_no_norm() -> None:
    run = made(raw("grads/fc1", [-1, 1], range(2)), raw("grads/fc2", [2, 1], range(2)))
    assert set(run.layers(GRAD_NORM)) == {"fc2"}


def test_the_user_is_believed() -> None:
    overrides = parse_overrides({"weird": "accuracy:val", "loss": "ignore"})
    run = assemble(RawRun("r", "r", "t", (raw("weird", [50, 60], [0, 1]), raw("loss", [1, 2], [0, 1]))), overrides)
    assert [(str(s.signal), s.values.tolist()) for s in run.series] == [("val accuracy", [50, 60])]
    assert run.unmapped == ("loss",)


def test_facts_of_the_reader_win_over_params() -> None:
    run = made(raw("loss", [1], [0]), params={"batch_size": 8, "lr": 0.1}, facts={"batch_size": 32})
    assert run.facts["batch_size"] == 32
    assert run.facts["learning_rate"] == 0.1


def test_parts_that_are_validated_too_add_up() -> None:
    run = made(
        raw("train/box_loss", [3, 2], epochs=[1, 2]),
        raw("train/cls_loss", [1, 1], epochs=[1, 2]),
        raw("val/box_loss", [4, 3], epochs=[1, 2]),
        raw("val/cls_loss", [2, 1], epochs=[1, 2]),
        raw("time", [10, 20], epochs=[1, 2]),
    )
    assert run.get(LOSS).values.tolist() == [4, 3]  # type: ignore[union-attr]
    assert run.get(LOSS, "val").values.tolist() == [6, 4]  # type: ignore[union-attr]
    assert set(run.layers(LOSS_PART)) == {"box", "cls"}
    assert run.notes[-1].text.endswith("the sum of its parts (box, cls) stands for it")
    assert run.unmapped == ("time",)


@pytest.mark.parametrize(
    "tags",
    [
        ("train/g_loss", "train/d_loss", "val/g_loss", "val/d_loss"),
        ("train/box_loss", "train/cls_loss", "val/box_loss", "val/dfl_loss"),
        ("train/box_loss", "train/cls_loss"),
        ("train/box_loss", "train/cls_loss", "val/box_loss", "val/cls_loss", "train/loss"),
    ],
)
def test_parts_of_something_else_do_not(tags: tuple[str, ...]) -> None:
    run = made(*(raw(tag, [3, 2], [0, 1]) for tag in tags))
    assert not [s for s in run.series if "+" in s.tag]


def test_a_bare_metric_beside_a_named_training_loss_is_validation() -> None:
    run = made(*(raw(tag, [3, 2], [0, 1]) for tag in ("train_loss", "valid_loss")), raw("accuracy", [0.1, 0.2], [0, 1]))
    assert found(run, "accuracy").signal.split == "val"
    assert kinds(run) == ["ambiguous"]
    run = made(*(raw(tag, [3, 2], [0, 1]) for tag in ("loss", "val_loss")), raw("accuracy", [0.1, 0.2], [0, 1]))
    assert found(run, "accuracy").signal.split == "train"


def test_a_few_points_with_epochs_of_their_own_stay_on_their_steps() -> None:
    # HF's filter hid the rest of the loss; 15 epochs are not the step 15.
    steps = np.arange(5, 440, 5)
    run = made(
        raw("grad_norm", steps, steps, steps / 29),
        raw("loss", [2.5, 9, 99], [5, 10, 15], np.array([5, 10, 15]) / 29),
    )
    assert found(run, "loss").steps.tolist() == [5, 10, 15]
    assert run.notes == ()


# --- anything goes ----------------------------------------------------------------------------------

TAGS = (
    "loss", "train/loss", "val_loss", "val_acc", "acc", "lr", "epoch", "time", "grads/a", "g_loss", "d_loss",
    "train_loss_step", "train_loss_epoch", "nonsense", "eval_top1", "grad_norm", "",
)  # fmt: skip
NUMBERS = st.floats(allow_nan=True, allow_infinity=True, width=64)
STEPS = st.one_of(st.integers(-5, 30), st.integers(-(2**63), 2**63 - 1))


@st.composite
def raw_series(draw: st.DrawFn) -> RawSeries:
    n = draw(st.integers(0, 25))

    def clock(values: st.SearchStrategy[float]) -> object:
        return draw(st.none() | st.lists(values, min_size=n, max_size=n))

    steps = draw(
        st.none()
        | st.lists(STEPS, min_size=n, max_size=n)
        | st.just(list(range(n)))
        | st.just([i // 5 for i in range(n)])
        | st.integers(1, max(1, n)).map(lambda k: [*range(k), *range(n - k)])
    )
    return raw(
        draw(st.sampled_from(TAGS)),
        draw(st.lists(NUMBERS, min_size=n, max_size=n)),
        steps,
        clock(NUMBERS),
        clock(NUMBERS),
    )


@given(st.lists(raw_series(), max_size=6))
def test_any_series_assemble(series: list[RawSeries]) -> None:
    before = [s.values.copy() for s in series]
    told = assemble_in_full(RawRun("r", "r", "t", tuple(series)))
    for s in told.run.series:  # Run and Series check their own invariants when they are made
        assert len(s)
    assert all(np.array_equal(s.values, b, equal_nan=True) for s, b in zip(series, before, strict=True))
    again = assemble_in_full(RawRun("r", "r", "t", tuple(series)))
    assert [(s.tag, s.signal, s.steps.tolist()) for s in told.run.series] == [
        (s.tag, s.signal, s.steps.tolist()) for s in again.run.series
    ]
    assert told.run.notes == again.run.notes


@given(st.lists(STEPS, min_size=1, max_size=60), st.booleans())
def test_untangled_steps_increase_and_end_with_the_last_of_a_step(steps: list[int], timed: bool) -> None:
    array = np.array(steps, np.int64)
    order = untangle(array, np.arange(float(len(steps))) if timed else None)
    kept = array[order.keep]
    assert (kept[1:] > kept[:-1]).all()
    assert len(set(order.keep.tolist()) & set(order.other.tolist())) == 0
    last = {step: i for i, step in enumerate(steps)}
    if not len(order.other):
        assert all(last[int(array[i])] == i for i in order.keep)


def test_assembling_a_million_points_is_linear() -> None:
    import time

    steps = np.tile(np.arange(500_000), 2)
    began = time.process_time()
    run = made(raw("loss", np.zeros(1_000_000), steps))
    assert time.process_time() - began < 2.0
    assert len(run.series[0]) == 500_000
