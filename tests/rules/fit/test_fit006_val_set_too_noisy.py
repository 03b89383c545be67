from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.rules.fit.fit006_val_set_too_noisy import set_size, val_set_too_noisy
from fitdoctor.testing import check_skips, make_run
from hypothesis import given
from hypothesis import strategies as st
from tests.rules.judging import finds, is_silent


@pytest.mark.parametrize(
    ("name", "size"),
    [("tiny val set, wrong labels", "on 24 examples"), ("never annealed, noisy labels", "on 400 examp")],
)
def test_a_training_validated_on_few_examples(name: str, size: str) -> None:
    trainings = pytest.importorskip("tests.trainings")
    finding = finds(val_set_too_noisy, trainings.run_of(name))
    assert finding.severity == "note"
    assert size in finding.message


@pytest.mark.parametrize("name", ["sound", "sound adam", "dropout", "edge of stability"])
def test_a_training_validated_on_enough(name: str) -> None:
    trainings = pytest.importorskip("tests.trainings")
    is_silent(val_set_too_noisy, trainings.run_of(name))


def accuracies(n: int, p: float = 0.8, epochs: int = 40) -> np.ndarray:
    return np.random.default_rng(n).binomial(n, p, epochs) / n


def test_the_size_decides() -> None:
    finds(val_set_too_noisy, make_run(val_accuracy=accuracies(100)))
    is_silent(val_set_too_noisy, make_run(val_accuracy=accuracies(900)))


def test_a_size_that_is_known_goes_before_one_that_is_read_off() -> None:
    is_silent(val_set_too_noisy, make_run(val_accuracy=accuracies(100), facts={"n_val": 5000}))


def test_epochs_that_agree_are_not_noisy_however_few_the_examples() -> None:
    steady = np.repeat([0.5, 0.625, 0.75, 0.875], 10)
    is_silent(val_set_too_noisy, make_run(val_accuracy=steady))


def test_it_abstains() -> None:
    check_skips(val_set_too_noisy, make_run(val_accuracy=accuracies(50)[:7]), "fewer than 8 values of val accuracy")
    unknown = make_run(val_accuracy=0.5 + 0.1 * np.random.default_rng(0).random(30))
    check_skips(val_set_too_noisy, unknown, "neither logged nor readable")
    check_skips(val_set_too_noisy, make_run(val_loss=[1.0] * 9), "no val accuracy or test accuracy logged")


@given(st.integers(2, 999), st.integers(0, 2**32 - 1), st.booleans())
def test_the_size_read_off_is_a_divisor_of_the_true_one(n: int, seed: int, single: bool) -> None:
    right = np.random.default_rng(seed).integers(0, n + 1, 25)
    values = right / n
    found = set_size(values.astype(np.float32).astype(np.float64) if single else values)
    if found is not None:
        assert np.abs(values * found - np.round(values * found)).max() < 1e-3
        assert found <= n
    elif len(np.unique(right)) >= 3:
        raise AssertionError(f"no size found for {n}")
