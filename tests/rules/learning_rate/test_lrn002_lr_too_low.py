from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fitdoctor.diagnose import diagnose
from fitdoctor.rules.learning_rate.lrn002_lr_too_low import lr_too_low
from fitdoctor.signals import ACCURACY, LR
from fitdoctor.testing import check_skips, make_run
from tests.rules.judging import finds, is_silent, without


@pytest.mark.parametrize("name", ["rate / 1000", "rate / 1000 adam", "rate / 1000 regression"])
@pytest.mark.parametrize("left_out", [(), (LR,), (ACCURACY,), ("val",)], ids=["", "no lr", "no accuracy", "no val"])
def test_a_training_that_a_higher_rate_improves(name: str, left_out: tuple[object, ...]) -> None:
    trainings = pytest.importorskip("tests.trainings")
    finding = finds(lr_too_low, without(trainings.run_of(name), *left_out))  # type: ignore[arg-type]
    assert finding.severity == "warning"
    assert finding.could_be == ("undertrained",)


@pytest.mark.parametrize("name", ["sound", "sound adam", "sound warm-up", "sound regression", "stopped early",
                                  "fine-tuning", "frozen", "dead units", "too narrow", "rate x8",
                                  "noisy labels"])  # fmt: skip
def test_a_training_that_is_sound_or_has_another_disease(name: str) -> None:
    trainings = pytest.importorskip("tests.trainings")
    is_silent(lr_too_low, trainings.run_of(name))


def bent(rate: float, n: int = 100) -> np.ndarray:
    """An exponential that has passed `rate` time constants, down by a quarter at most."""
    t = np.arange(n) / n
    fall = (1 - np.exp(-rate * t)) / (1 - np.exp(-rate))
    return 2 - 0.5 * fall + 0.002 * np.random.default_rng(0).standard_normal(n)


def test_a_straight_fall_is_told_from_a_bent_one() -> None:
    finds(lr_too_low, make_run(train_loss=bent(0.5)))
    is_silent(lr_too_low, make_run(train_loss=bent(4.0)))


def test_a_loss_that_has_come_most_of_the_way_is_not_slow() -> None:
    straight = np.linspace(2, 0.5, 100)
    is_silent(lr_too_low, make_run(train_loss=straight))
    finds(lr_too_low, make_run(train_loss=straight), moved=0.9)


def test_a_warm_up_does_not_straighten_the_curve() -> None:
    """The same descent, seen through a rate that rises all the time, looks straight in steps and is not in rate."""
    n = 200
    rate = np.linspace(0, 1, n)
    clock = np.cumsum(rate) / rate.sum()
    loss = 2 - 0.6 * (1 - np.exp(-5 * clock)) / (1 - np.exp(-5))
    is_silent(lr_too_low, make_run(train_loss=loss, lr=rate))


def test_jitter_is_a_sign_of_long_steps_even_where_annealing_quiets_the_end() -> None:
    rng = np.random.default_rng(0)
    loss = np.linspace(2, 1.5, 100) + np.r_[0.06 * rng.standard_normal(45), np.zeros(55)]
    rate = np.r_[np.full(45, 0.1), np.full(55, 0.1)]
    annealed = np.r_[np.full(45, 0.1), np.full(55, 0.02)]
    is_silent(lr_too_low, make_run(train_loss=loss, lr=annealed))
    finds(lr_too_low, make_run(train_loss=np.linspace(2, 1.5, 100), lr=rate))


def test_a_run_that_is_still_going_is_left_alone() -> None:
    run = replace(make_run(train_loss=bent(0.5)), finished=False).with_facts(planned_steps=1000)
    check_skips(lr_too_low, run, "of 1000 planned steps")
    finds(lr_too_low, run.with_facts(planned_steps=120))


def test_a_resumed_run_is_left_open() -> None:
    trainings = pytest.importorskip("tests.trainings")
    check_skips(lr_too_low, without(trainings.run_of("resumed"), ACCURACY), "the log begins at step 4025")


def test_it_abstains() -> None:
    check_skips(lr_too_low, make_run(train_loss=bent(0.5)[:11]), "12 are needed")


@pytest.mark.parametrize("name", ["rate / 300", "rate / 30, momentum", "rate / 30, Adam"])
def test_watched_short_steps_are_told_from_a_short_run(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    finding = finds(lr_too_low, watched.watched(name))
    assert finding.confidence == "high"
    assert finding.could_be == ()
    assert finding.remedies[0].change is not None
    assert 3 <= float(finding.remedies[0].change.value or 0) <= 30


@pytest.mark.parametrize(
    "name", ["stopped early", "stopped early, tanh", "fine-tuning", "ordinary", "edge of stability"]
)
def test_watched_long_steps_are_acquitted(name: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    is_silent(lr_too_low, watched.watched(name))


def test_the_quality_decides_where_the_curve_cannot() -> None:
    for quality, found in ((0.99, True), (0.7, False)):
        run = make_run(train_loss=bent(0.5), step_quality=np.full(100, quality))
        finds(lr_too_low, run) if found else is_silent(lr_too_low, run)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_watched_a_rate_that_never_leaves_chance_is_the_root(optimizer: str) -> None:
    watched = pytest.importorskip("tests.rules.watched")
    make = watched.sgd(1e-6, 0.0) if optimizer == "sgd" else watched.adam(1e-8)
    run = watched.looked_at(watched.plain, make, epochs=4)
    finding = finds(lr_too_low, run)
    assert (finding.severity, finding.confidence) == ("error", "high")
    (alarm,) = [d for d in diagnose(run).diagnoses if d.root.severity != "note"]
    assert alarm.root.rule == "lr-too-low"
    assert "no-learning" in {f.rule for f in alarm.explains}


def test_watched_a_way_that_is_long_enough_or_none_at_all() -> None:
    for step, found in ((9e-5, True), (1.1e-4, False), (0.0, False)):
        run = make_run(train_loss=np.full(100, 2.3) + 1e-4 * np.arange(100) % 3e-4, update_ratio=np.full(100, step),
                       facts={"classes": 10}, finished=True)  # fmt: skip
        finds(lr_too_low, run) if found else is_silent(lr_too_low, run)
    learned = make_run(train_loss=np.geomspace(2.3, 0.1, 100), update_ratio=np.full(100, 9e-5), finished=True)
    is_silent(lr_too_low, learned)


def test_watched_a_loss_that_is_noisy_to_look_at_may_fall_as_surely() -> None:
    """Batch norm in eval mode: a fall at three of four looks, many times its noise."""
    n = np.arange(60)
    for fall, found in ((0.1, True), (0.001, False)):
        loss = 2.3 - fall * n / 60 + (0.001 + 0.003 * (fall < 0.01)) * np.where(n % 4 == 3, 3.0, 0.0)
        run = make_run(train_loss=loss, step_quality=np.full(60, 0.995), facts={"classes": 10}, finished=True)
        finds(lr_too_low, run) if found else is_silent(lr_too_low, run)


def test_an_annealed_rate_that_stopped_a_falling_loss_was_too_low() -> None:
    """Time counted in learning rate: a step schedule that ends a fall early does not look like a settled run."""
    rate = np.where(np.arange(120) < 60, 1e-3, 1e-5)
    spent = np.cumsum(rate) / rate.sum()
    falling, settled = 2 - spent, 2 * np.exp(-20 * spent) + 0.3
    for loss, found in ((falling, True), (settled, False)):
        run = make_run(train_loss=loss, lr=rate, step_quality=np.full(120, 0.97))
        finds(lr_too_low, run) if found else is_silent(lr_too_low, run)


def test_the_held_out_loss_has_a_say() -> None:
    for held_out, found in ((np.linspace(2.2, 1.2, 100), True), (np.linspace(1.0, 1.4, 100), False)):
        run = make_run(train_loss=np.linspace(2.3, 1.0, 100), val_loss=held_out, step_quality=np.full(100, 0.98))
        finds(lr_too_low, run) if found else is_silent(lr_too_low, run)


def test_no_more_is_to_be_gained_than_is_left() -> None:
    for floor, found in ((0.2, True), (0.0, False)):
        loss = floor + 2.3 * np.linspace(1, 0.02, 100) ** 1.5
        run = make_run(train_loss=loss, step_quality=np.full(100, 0.99))
        finds(lr_too_low, run) if found else is_silent(lr_too_low, run)
