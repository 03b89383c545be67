from __future__ import annotations

import numpy as np
import pytest
from fitdoctor.rules.fit.fit004_val_better_than_train import val_better_than_train
from fitdoctor.testing import check_skips, make_run
from tests.rules.judging import finds, is_silent


@pytest.mark.parametrize("name", ["heavy dropout", "label smoothing"])
def test_a_training_whose_training_loss_is_raised_on_purpose(name: str) -> None:
    trainings = pytest.importorskip("tests.trainings")
    assert finds(val_better_than_train, trainings.run_of(name)).severity == "note"


@pytest.mark.parametrize("name", ["sound", "sound regression", "40 examples", "rate x8", "noisy labels", "dropout"])
def test_a_training_whose_validation_loss_is_higher(name: str) -> None:
    trainings = pytest.importorskip("tests.trainings")
    is_silent(val_better_than_train, trainings.run_of(name))


def test_the_lag_of_an_epoch_average_alone_is_not_reported() -> None:
    """A training loss averaged over each epoch lags half an epoch; on the same data nothing is left of the gap."""
    per_step = 2 * np.exp(-np.arange(3000) / 1000) + 0.2
    ends = np.arange(100, 3001, 100) - 1
    averaged = per_step.reshape(30, 100).mean(axis=1)
    val = per_step[ends]
    assert np.all(averaged > val)
    is_silent(val_better_than_train, make_run(steps=ends, train_loss=averaged, val_loss=val))


def test_the_difference_counts_as_a_share_of_the_range() -> None:
    curve = 1 + np.exp(-np.arange(60) / 10)
    is_silent(val_better_than_train, make_run(train_loss=curve, val_loss=curve - 0.01))
    finds(val_better_than_train, make_run(train_loss=curve, val_loss=curve - 0.1))


def test_it_has_to_stay_below() -> None:
    curve = 1 + np.exp(-np.arange(60) / 10)
    sometimes = curve + np.where(np.arange(60) % 3 == 0, 0.15, -0.15)
    is_silent(val_better_than_train, make_run(train_loss=curve, val_loss=sometimes))


def test_it_abstains() -> None:
    check_skips(val_better_than_train, make_run(train_loss=[1.0] * 20), "no val loss or test loss logged")
    apart = make_run(train_loss={i: 1.0 - i / 100 for i in range(20)}, val_loss=dict.fromkeys(range(100, 110), 1.0))
    check_skips(val_better_than_train, apart, "4 are needed")
