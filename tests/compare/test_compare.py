"""Two sides compared: real trainings before and after a cure, and everything that must not be called a cure."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path

import fitdoctor
import numpy as np
import pytest
from fitdoctor.compare import Comparison, compare
from fitdoctor.compare.judge import find_signal
from fitdoctor.compare.measures import compare_curve
from fitdoctor.errors import ConfigError
from fitdoctor.finding import Severity
from fitdoctor.run import Run
from fitdoctor.signals import ACCURACY, GRAD_NORM, LOSS, Signal
from fitdoctor.testing import make_run
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from tests.strategies import runs

HERE = Path(__file__).parent
SAMPLES = HERE.parents[1] / "sample_logs"
VAL_LOSS, VAL_ACCURACY = Signal(LOSS, "val"), Signal(ACCURACY, "val")


VALIDATOR = Draft202012Validator(json.loads((HERE.parents[1] / "docs" / "comparison.schema.json").read_text("utf-8")))


def only_run(folder: Path) -> Run:
    (run,) = fitdoctor.open_runs(folder)
    return run


@cache
def cured(name: str) -> Comparison:
    """A sample log against the same training without what made it sick."""
    return compare(only_run(SAMPLES / name), only_run(HERE / "cured" / name))


def falling(final: float = 0.2, noise: float = 0.01, n: int = 200, seed: int = 0, **facts: float | str) -> Run:
    """A run whose losses fall from 2 to `final`, with a validation loss 0.05 above."""
    rng = np.random.default_rng(seed)
    curve = final + (2 - final) * np.exp(-np.arange(n) / (n / 10))
    val = curve[9::10] + 0.05 + noise * rng.standard_normal(len(curve[9::10]))
    return make_run(train_loss=curve + noise * rng.standard_normal(n), val_loss=val, facts=facts)


# --- real logs --------------------------------------------------------------------------------------


def test_a_lower_rate_is_seen_to_have_helped_and_not_proven() -> None:
    found = cured("lr_too_high_nan")
    assert [(f.key, f.before[0], f.after[0]) for f in found.facts] == [("learning_rate", 0.6, 0.06)]
    assert found.decided_by == VAL_LOSS
    assert found.curves[0].final.before == (math.inf,)
    assert found.curves[0].final.after[0] < 0.2
    assert (found.call, found.curves[0].direction) == ("cannot tell", "better")
    assert any("not significant by construction" in c for c in found.cautions)
    assert {f.rule for f in found.findings if f.state == "gone"} >= {"lr-too-high", "nonfinite-loss"}
    assert not found.new(Severity.WARNING)
    (trial,) = [t for t in found.trials if t.change.knob == "learning_rate"]
    assert (trial.rule, trial.applied, trial.outcome) == ("lr-too-high", "as advised", "looks as if it worked")
    assert "nonfinite-loss" in trial.also
    assert trial.confirm
    assert all(check.holds for check in trial.checks)


def test_a_higher_rate_reaches_the_old_level_in_a_fraction_of_the_steps() -> None:
    found = cured("lr_too_low")
    curve = found.curves[0]
    assert curve.signal == VAL_LOSS
    assert curve.clock == "step"  # which is an epoch here
    assert curve.sooner < 0.2
    assert curve.share > 0.8
    assert curve.mean.after[0] < curve.mean.before[0]
    (trial,) = [t for t in found.trials if t.change.knob == "learning_rate"]
    assert trial.outcome == "looks as if it worked"
    assert trial.rule in ("lr-too-low", "undertrained")


def test_losses_of_another_scale_do_not_decide() -> None:
    found = cured("double_softmax")
    assert found.decided_by == VAL_ACCURACY
    assert found.curves[0].direction == "better"
    assert any("does not mean the same" in c for c in found.cautions)
    assert any("--before KEY=VALUE" in c for c in found.cautions)
    (change,) = [f for f in found.findings if f.rule == "double-softmax"]
    assert change.state != "still there"


def test_a_cure_without_a_gain_is_no_gain() -> None:
    found = cured("no_shuffling")
    assert [f.rule for f in found.findings if f.state == "gone"] == ["repeated-batch-order"]
    assert (found.curves[0].direction, found.call) == ("level", "cannot tell")


def test_what_was_changed_can_be_told_by_hand() -> None:
    before, after = (only_run(folder / "no_shuffling") for folder in (SAMPLES, HERE / "cured"))
    found = compare(before.with_facts(shuffle=False), after.with_facts(shuffle=True))
    (trial,) = found.trials
    assert (trial.rule, trial.applied) == ("repeated-batch-order", "as advised")
    assert trial.outcome == "cured the sign, not the result"


def test_the_milder_disease_is_not_health() -> None:
    found = compare(only_run(SAMPLES / "lr_too_high_nan"), only_run(SAMPLES / "lr_too_high_noisy"))
    (trial,) = [t for t in found.trials if t.change.knob == "learning_rate"]
    assert trial.outcome == "helped, not enough"
    (change,) = [f for f in found.findings if f.rule == "exploding-gradients"]
    assert change.state == "no longer judged"
    assert "grad_norm" in change.why


def test_the_same_change_backwards_is_worse() -> None:
    found = compare(only_run(HERE / "cured" / "lr_too_high_nan"), only_run(SAMPLES / "lr_too_high_nan"))
    assert found.curves[0].direction == "worse"
    assert {f.rule for f in found.new(Severity.ERROR)} >= {"lr-too-high", "nonfinite-loss"}


@pytest.mark.parametrize("name", ["lr_too_high_nan", "lr_too_low", "double_softmax", "no_shuffling"])
def test_the_document_follows_its_schema(name: str) -> None:
    VALIDATOR.validate(json.loads(json.dumps(cured(name).to_dict(), allow_nan=False)))


# --- several seeds ----------------------------------------------------------------------------------


@cache
def seeds(lr: float, count: int = 6) -> tuple[Run, ...]:
    """The same short training at a rate, from several seeds."""
    trainings = pytest.importorskip("tests.trainings")
    recipe = trainings.Recipe(lr=lr, schedule=trainings.constant, epochs=20, n_train=200, n_val=150)
    return tuple(trainings.train(replace(recipe, seed=seed)).run for seed in range(count))


def test_six_pairs_can_call_a_cure_worked() -> None:
    found = compare(seeds(5e-5), seeds(0.05), paired=True)
    decided = found.curves[0]
    assert decided.signal == VAL_LOSS
    assert decided.significance.p == decided.significance.smallest == 1 / 32
    assert found.call == "better"
    assert "p = 0.031" in found.headline
    low, high = decided.significance.interval or (0.0, 0.0)
    assert low < decided.final.difference < high < 0
    accuracy = next(c for c in found.curves if c.signal == VAL_ACCURACY)
    low, high = accuracy.significance.interval or (0.0, 0.0)
    assert 0 < low < accuracy.final.difference < high
    assert not any("one seed" in c for c in found.cautions)
    worked = {t.outcome for t in found.trials if t.change.knob == "learning_rate"}
    assert worked == {"worked"}


def test_three_pairs_cannot_whatever_they_show() -> None:
    found = compare(seeds(5e-5)[:3], seeds(0.05)[:3], paired=True)
    assert found.call == "cannot tell"
    assert "not significant by construction" in found.headline
    assert "0.25" in found.headline
    assert found.curves[0].share > 0.02


def test_other_seeds_of_the_same_training_are_not_called_different() -> None:
    found = compare(seeds(0.05)[:3], seeds(0.05)[3:])
    assert found.call == "cannot tell"
    assert not found.facts
    six = compare(seeds(0.05), tuple(reversed(seeds(0.05))))
    assert six.call != "better"
    assert six.call != "worse"
    assert six.curves[0].significance.p == 1.0


def test_equal_to_within_what_matters_is_the_same() -> None:
    before = [falling(0.2, 1e-3, seed=i) for i in range(6)]
    after = [falling(0.2, 1e-3, seed=10 + i) for i in range(6)]
    assert compare(before, after).call == "same"


def test_a_significant_trifle_is_not_better() -> None:
    before = [falling(0.200, 1e-5, seed=i) for i in range(6)]
    after = [falling(0.199, 1e-5, seed=i) for i in range(6)]
    found = compare(before, after, paired=True)
    assert found.curves[0].significance.reached
    assert found.call == "same"


# --- one run each -------------------------------------------------------------------------------------


def test_a_run_against_itself_differs_in_nothing() -> None:
    run = falling(learning_rate=0.1)
    found = compare(run, run)
    assert found.facts == ()
    assert {c.direction for c in found.curves} == {"level"}
    assert {f.state for f in found.findings} <= {"still there"}
    assert found.trials == ()


def test_noise_alone_is_level() -> None:
    pairs = [(falling(noise=0.05, seed=i), falling(noise=0.05, seed=100 + i)) for i in range(60)]
    found = [compare_curve([a], [b], VAL_LOSS, "step", paired=False) for a, b in pairs]
    assert [c.direction for c in found if c is not None].count("level") >= 57


def test_a_difference_beyond_the_noise_has_a_direction_and_no_call() -> None:
    found = compare(falling(0.2), falling(0.5))
    assert (found.curves[0].direction, found.call) == ("worse", "cannot tell")


def test_noise_that_both_curves_share_cancels() -> None:
    rng = np.random.default_rng(0)
    batches = 0.3 * rng.standard_normal(400)
    curve = 0.5 + 1.5 * np.exp(-np.arange(400) / 40)
    before, after = make_run(train_loss=curve + batches), make_run(train_loss=curve + batches - 0.08)
    assert compare(before, after).curves[0].direction == "better"
    alone = make_run(train_loss=curve + 0.3 * rng.standard_normal(400) - 0.08)
    assert compare(before, alone).curves[0].direction == "level"


def test_the_shorter_run_sets_the_stretch() -> None:
    before, after = falling(0.2, n=100), falling(0.2, n=400)
    found = compare(before, after)
    assert found.curves[0].stretch[1] == 99
    assert any("4 times as long" in c for c in found.cautions)
    assert found.curves[0].at_end.after < found.curves[0].final.after


def test_equal_epochs_where_steps_mean_another_thing() -> None:
    before = falling(0.2, n=200, batch_size=32, steps_per_epoch=20)
    after = falling(0.2, n=100, batch_size=64, steps_per_epoch=10)
    found = compare(before, after)
    assert {c.clock for c in found.curves} == {"epoch"}
    assert found.curves[0].stretch[1] == pytest.approx(9.9, abs=0.1)
    by_step = compare(before, after, clock="step")
    assert by_step.curves[0].stretch[1] == 99
    unknown = compare(falling(batch_size=32), falling(batch_size=64))
    assert any("equal steps are not equal data" in c for c in unknown.cautions)


def test_equal_time() -> None:
    def timed(run: Run, pace: float) -> Run:
        return replace(run, series=tuple(replace(s, wall_time=1e9 + pace * s.steps) for s in run.series))

    found = compare(timed(falling(), 1.0), timed(falling(), 2.0), clock="time")
    assert found.curves[0].clock == "time"
    assert found.curves[0].final.after[0] > found.curves[0].final.before[0]  # half as far in the same time
    assert compare(falling(), falling(), clock="time").curves == ()


def test_several_changes_credit_none() -> None:
    found = compare(falling(learning_rate=0.1, weight_decay=0.0), falling(learning_rate=0.2, weight_decay=0.1))
    assert any("none can be credited" in c for c in found.cautions)


def test_lengths_in_other_units_are_not_compared() -> None:
    by_epoch = make_run(val_loss=np.linspace(2, 0.5, 20), facts={"step_unit": "epoch"})
    found = compare(by_epoch, falling(n=400, steps_per_epoch=20))
    assert {f.key for f in found.facts if not f.environment} == {"steps_per_epoch"}
    assert found.curves[0].clock == "epoch"


def test_one_budget_told_twice_is_one_change() -> None:
    found = compare(falling(planned_epochs=10, planned_steps=1000), falling(planned_epochs=20, planned_steps=2000))
    assert not any("none can be credited" in c for c in found.cautions)


def test_a_metric_of_ones_own_decides() -> None:
    run = make_run(val_loss=np.linspace(1, 0, 20), val_accuracy=np.linspace(0, 1, 20))
    worse = make_run(val_loss=np.linspace(1, 0, 20), val_accuracy=np.linspace(0, 0.5, 20))
    assert compare(run, worse).decided_by == VAL_LOSS
    found = compare(run, worse, metric=VAL_ACCURACY)
    assert found.decided_by == VAL_ACCURACY
    assert found.curves[0].signal == VAL_ACCURACY
    assert found.curves[0].share < 0
    assert found.curves[0].final.difference < 0


def test_nothing_in_common_is_said() -> None:
    found = compare(make_run(train_loss=[1.0, 0.5]), make_run(lr=[0.1, 0.1]))
    assert (found.curves, found.decided_by, found.call) == ((), None, "cannot tell")
    assert "no curve" in found.headline


@pytest.mark.parametrize("text", ["", "val", "acuracy:val", "accuracy:val:test", "loss:loss"])
def test_a_metric_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"QUANTITY\[:SPLIT\]"):
        find_signal(text)


def test_metrics_are_named_as_tags_are() -> None:
    assert find_signal("accuracy:val") == find_signal("val/accuracy") == VAL_ACCURACY
    assert find_signal("grad_norm") == Signal(GRAD_NORM)


def test_sides_must_hold_runs_and_pairs_partners() -> None:
    run = falling()
    with pytest.raises(ConfigError, match="a run on each side"):
        compare([], run)
    with pytest.raises(ConfigError, match="as many runs"):
        compare([run, run], run, paired=True)


def test_it_is_a_public_name() -> None:
    assert fitdoctor.compare is compare
    assert "compare" in fitdoctor.__all__


# --- whatever is logged -------------------------------------------------------------------------------


@settings(max_examples=15)
@given(runs(), runs(), st.booleans(), st.sampled_from([None, "step", "epoch", "time"]))
def test_anything_can_be_compared_with_anything(a: Run, b: Run, paired: bool, clock: str | None) -> None:
    found = compare(a, b, paired=paired, clock=clock)  # type: ignore[arg-type]
    VALIDATOR.validate(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
    back = compare(b, a, paired=paired, clock=clock)  # type: ignore[arg-type]
    opposite = {"better": "worse", "worse": "better", "level": "level"}
    assert {str(c.signal): opposite[c.direction] for c in found.curves} == {
        str(c.signal): c.direction for c in back.curves
    }
    assert {f.rule for f in found.findings} == {f.rule for f in back.findings}
    assert found.call == "cannot tell"


def test_the_largest_numbers_there_are_have_a_mean() -> None:
    huge = make_run(train_loss=[1.7e308] * 8)
    assert compare(huge, huge).call == "cannot tell"
