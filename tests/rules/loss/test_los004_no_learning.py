from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.rules.loss.los004_no_learning import no_learning
from fitdoctor.signals import ACCURACY
from fitdoctor.testing import check_rule, check_skips, make_run
from tests.rules.judging import finds, is_silent, without


@pytest.mark.parametrize("name", ["frozen", "frozen regression", "dead units", "rate x100 adam, deep"])
def test_a_training_that_learns_nothing(name: str) -> None:
    trainings = pytest.importorskip("tests.trainings")
    assert finds(no_learning, trainings.run_of(name)).severity == "error"


@pytest.mark.parametrize("name", ["sound", "sound regression", "too narrow", "fine-tuning", "resumed", "40 examples",
                                  "rate / 1000", "overconfident", "label smoothing"])  # fmt: skip
def test_a_training_that_learns_something(name: str) -> None:
    trainings = pytest.importorskip("tests.trainings")
    is_silent(no_learning, trainings.run_of(name))


def test_equal_losses_on_the_same_data_mean_that_the_weights_do_not_move() -> None:
    trainings = pytest.importorskip("tests.trainings")
    finding = finds(no_learning, trainings.run_of("frozen"))
    assert "exactly" in finding.message
    assert finding.confidence == "high"


def test_with_the_training_loss_alone_the_first_value_counts() -> None:
    trainings = pytest.importorskip("tests.trainings")
    finding = finds(no_learning, without(trainings.run_of("frozen regression"), "val"))
    assert finding.severity == "warning"
    assert "never left its first value" in finding.message
    is_silent(no_learning, without(trainings.run_of("sound per step"), ACCURACY, "val"))


def test_with_the_number_of_classes_chance_is_known() -> None:
    trainings = pytest.importorskip("tests.trainings")
    run = without(trainings.run_of("dead units"), ACCURACY).with_facts(classes=10)
    assert "ln(C) = 2.303" in finds(no_learning, run).message
    is_silent(no_learning, without(trainings.run_of("sound"), ACCURACY).with_facts(classes=10))


def test_a_flat_log_that_does_not_begin_at_the_start_is_left_open() -> None:
    resumed = make_run(steps=np.arange(9000, 10_000, 10), train_loss=0.5 + 0.01 * np.sin(np.arange(100)))
    check_skips(no_learning, resumed, "flat from its first logged value on")


def test_a_loss_that_exploded_had_left_its_first_value() -> None:
    values = np.r_[np.linspace(1.5, 0.2, 30), 0.2 * 4.0 ** np.arange(30)]
    is_silent(no_learning, make_run(train_loss=values))


@pytest.mark.parametrize("constant", [0.0, 0.5, 0.0171])
def test_a_rounded_or_solved_validation_loss_does_not_mean_frozen(constant: float) -> None:
    is_silent(no_learning, make_run(train_loss=np.linspace(1, 0.2, 50), val_loss=np.full(10, constant)))
    frozen = make_run(train_loss=np.linspace(1, 0.2, 50), val_loss=np.full(10, 0.693147))
    finds(no_learning, frozen)


def test_the_step_from_guessing_counts() -> None:
    loss = np.full(40, np.log(10.0)) + 0.002 * np.sin(np.arange(40))

    def accuracy(gain: float) -> np.ndarray:
        return np.linspace(0.1, 0.1 + gain, 40) + 0.001 * np.sin(3 * np.arange(40))

    finds(no_learning, make_run(train_loss=loss, val_accuracy=accuracy(0.01), facts={"classes": 10}))
    is_silent(no_learning, make_run(train_loss=np.linspace(2.3, 1.5, 40), val_accuracy=accuracy(0.3)))


def test_it_abstains() -> None:
    check_skips(no_learning, make_run(train_loss=[1.0] * 7), "8 are needed")
    check_skips(no_learning, make_run(val_loss=[1.0] * 20), "no train loss logged")


def test_a_smoke_test_of_a_few_steps_is_too_early() -> None:
    flat = 2.3 + 0.01 * np.sin(np.arange(200.0))
    facts = {"classes": 10}
    check_skips(no_learning, make_run(train_loss=flat[:20], per="step", facts=facts), "20 training steps are too early")
    finds(no_learning, make_run(train_loss=flat, per="step", facts=facts))
    finds(no_learning, make_run(train_loss=flat[:20], per="epoch", facts=facts))  # each of many steps


@pytest.mark.parametrize(("ends", "count"), [(1.5, 0), (2.25, 1)])
def test_held_out_accuracy_of_guessing_beside_a_training_loss_that_falls(ends: float, count: int) -> None:
    """Memorised labels, or validation data of another kind: the model learns, and nothing of it holds there."""
    rng = np.random.default_rng(0)
    run = make_run(
        train_loss=np.linspace(2.3, ends, 100) + 0.01 * rng.standard_normal(100),
        val_accuracy=0.1 + 0.005 * rng.standard_normal(20),
        facts={"classes": 10},
    )
    check_rule(no_learning, run, finds=count)


@pytest.mark.parametrize(("held", "count"), [(2.3, 0), (1.6, 1)])
def test_held_out_loss_that_follows_is_no_memorising(held: float, count: int) -> None:
    """Both losses come down from an unlucky start, and accuracy stays: that is no gap between the two sets."""
    rng = np.random.default_rng(0)
    run = make_run(
        train_loss=np.linspace(2.2, 1.5, 100) + 0.01 * rng.standard_normal(100),
        val_loss=np.linspace(2.3, held, 20) + 0.01 * rng.standard_normal(20),
        val_accuracy=0.1 + 0.005 * rng.standard_normal(20),
        facts={"classes": 10},
    )
    check_rule(no_learning, run, finds=count)
